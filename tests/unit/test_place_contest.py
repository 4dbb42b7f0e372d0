"""Problems of the ISPD 2020 contest: their text, their kernels' formulas, solutions and the faults in them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from cgc_wse.place.bound import LONGEST, Bounder
from cgc_wse.place.contest import Solved, realized, solve
from cgc_wse.place.contest_kernels import ContestKernel, Conv, Execution, convs_of, performance
from cgc_wse.place.exact import improve
from cgc_wse.place.kgraph import Contest, parse_kgraph
from cgc_wse.place.search import NothingFound
from cgc_wse.place.shelf import shelves
from cgc_wse.place.solution import illegal, parse_solution, score, solution_text
from cgc_wse.place.starts import start_times
from contest_problems import KERNELS, SOLUTION, TEXT, problem

from cgc.diagnostics import InputError


def codes(text: str) -> list[tuple[str, int]]:
    with pytest.raises(InputError) as caught:
        parse_kgraph(text, "p.kgraph")
    assert all(found.hint for found in caught.value.diagnostics)
    return [(found.code, found.location.line) for found in caught.value.diagnostics]


# ---- performance functions, worked out by hand


def test_conv() -> None:
    conv = Conv(H=14, W=28, R=3, S=5, C=6, K=64, T=2)
    found = performance((conv,), Execution(4, 7, (4,), (10,)))
    assert found.height == 4 * 7 * 5
    assert found.width == 30
    assert found.time == Fraction(4 * 4 * 2 * 7 * 15, 4)
    points = Fraction(28 + 5 - 1, 7) * Fraction(14 + 3 - 1, 4) * Fraction(64, 10)
    assert found.memory == Fraction(6, 4) * Fraction(64, 10) * 15 + points


def test_the_example_of_the_format() -> None:
    """k1 = dblock( 56 56 256 4 4 8 8 8 8 64 16 ): 144 rows, 264 columns; the 3 x 3 conv of 64 filters is slowest."""
    found = performance(convs_of("dblock", (56, 56, 256)), Execution(4, 4, (8, 8, 8), (8, 64, 16)))
    assert (found.height, found.width) == (16 * 9, 3 * 88)
    assert found.time == max(14 * 14 * 32 * 8, 14 * 14 * 8 * 1 * 9, 14 * 14 * 8 * 16)


def test_a_cblock_halves_its_points_once() -> None:
    first, second, third, fourth = convs_of("cblock", (28, 56, 64))
    assert (first.H, first.W, first.C, first.K, first.T) == (28, 56, 32, 16, 1)
    assert (second.R, second.S, second.C, second.K, second.T) == (3, 3, 16, 16, 2)
    assert (third.H, third.W, third.C, third.K, third.T) == (14, 28, 16, 64, 1)
    assert (fourth.H, fourth.C, fourth.K, fourth.T) == (28, 32, 64, 2)
    found = performance((first, second, third, fourth), Execution(2, 2, (1, 2, 3, 4), (1, 1, 1, 1)))
    assert found.height == 4 * 5
    assert found.width == 12


# ---- the text of problems


def test_a_problem() -> None:
    contest = problem()
    assert contest.name == "toy"
    assert [kernel.name for kernel in contest.kernels] == ["a", "b", "c"]
    assert [kernel.kind for kernel in contest.kernels] == ["conv", "dblock", "cblock"]
    assert contest.engine.nets == ((0, 1), (1, 2), (0, 2))
    assert (contest.engine.columns, contest.engine.rows) == (60, 50)
    assert contest.ticks == 4
    assert (contest.time_weight, contest.engine.wire_cost) == (2.0, 3.5)


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("width=60\n", "", "CG0621", 0),
        ("width=60", "width=many", "CG0621", 3),
        ("wlength=3.5", "wlength=-1", "CG0621", 6),
        ("memlimit=2000", "memlimit=0", "CG0621", 8),
        ("conv[1]", "convolution[1]", "CG0622", 13),
        (" K=8", "", "CG0622", 13),
        (" K=8", " K=eight", "CG0622", 13),
        (" K=8", " K=8 K=8", "CG0620", 13),
        (" K=8", " K=8 Q=1", "CG0622", 13),
        ("K=8", "K=99999999999", "CG0622", 13),
        ("f=8 h=4", "f=6 h=4", "CG0622", 14),
        ("f=8 h=6", "f=8 h=7", "CG0622", 15),
        ("name='b'", "name='a'", "CG0622", 14),
        ("name='b'", "name='not one'", "CG0622", 14),
        ("dblock[2]", "dblock[1]", "CG0622", 14),
        ("dblock[2]:x", "dblock[7]:x", "CG0623", 20),
        ("dblock[2]:x", "cblock[2]:x", "CG0623", 20),
        ("dblock[2]:x", "dblock[2", "CG0620", 20),
        ("conv[1] W", "what is this", "CG0620", 13),
        ("(* Conn", "(* Conn (", "", 0),
        ("ivity *)", "ivity", "CG0620", 18),
        (", shape:[4][4][8]", " ,shape : [ 4 ][4]  [8] ", "", 0),
        ("\n", "\r\n", "", 0),
    ],
)
def test_faults_of_problems(old: str, new: str, code: str, line: int) -> None:
    assert old in TEXT
    if not code:
        assert parse_kgraph(TEXT.replace(old, new), "p").engine == problem().engine
        return
    found = codes(TEXT.replace(old, new, 1))
    assert (code, line) in found, found


def test_no_kernels() -> None:
    assert [code for code, _ in codes(TEXT.partition("input")[0])] == ["CG0620"]


# ---- solutions


def test_a_solution_goes_round() -> None:
    contest = problem()
    placed = parse_solution(contest, SOLUTION, "s.txt")
    assert not illegal(contest, placed, SOLUTION, "s.txt").any
    assert solution_text(contest, placed) == SOLUTION
    found = score(contest, placed)
    assert found.time == Fraction(max(256, 8 * 8 * 4, 288))
    assert found.score == 2.0 * float(found.time) + 3.5 * found.wire


def test_wire_is_between_centres() -> None:
    contest = problem()
    placed = parse_solution(contest, SOLUTION, "s.txt")
    # Centres, doubled: each rectangle's corner twice and its sides.
    centres = []
    for kernel, one in zip(contest.kernels, placed, strict=True):
        needs = performance(kernel.convs, one.execution)
        sides = (needs.height, needs.width) if one.turned else (needs.width, needs.height)
        centres.append((2 * one.x + sides[0], 2 * one.y + sides[1]))
    apart = [sum(abs(p - q) for p, q in zip(centres[a], centres[b], strict=True)) for a, b in ((0, 1), (1, 2), (0, 2))]
    assert score(contest, placed).wire == sum(apart) / 2


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("a : place(0 0 R0)", "a : place(0 0 R0", "CG0625", 2),
        ("a : place(0 0 R0)", "a : place(0 0 R45)", "CG0625", 2),
        ("a : place(0 0 R0)", "a : place(-1 0 R0)", "CG0625", 2),
        ("a : place(0 0 R0)", "z : place(0 0 R0)", "CG0626", 2),
        ("a : place(0 0 R0)\n", "", "CG0626", 0),
        ("a : place(0 0 R0)\n", "a : place(0 0 R0)\na : place(1 0 R0)\n", "CG0626", 3),
        ("a = conv", "a = dblock", "CG0627", 1),
        ("a = conv( 8", "a = conv( 9", "CG0627", 1),
        ("a = conv( 8", "a = conv( 8.0", "CG0625", 1),
        ("a = conv( 8 ", "a = conv( ", "CG0625", 1),
        ("2 2 4 4 )", "2 9 4 4 )", "CG0628", 1),
        ("2 2 4 4 )", "2 0 4 4 )", "CG0628", 1),
        ("2 2 4 4 )", "2 2 5 4 )", "CG0628", 1),
        ("2 2 4 4 )", "2 2 4 9 )", "CG0628", 1),
        ("2 2 4 4 )", "1 1 1 1 )", "CG0629", 2),
        ("a : place(0 0 R0)", "a : place(49 0 R0)", "CG0630", 2),
        ("a : place(0 0 R0)", "a : place(0 0 R90)", "CG0631", 2),
        ("b : place(12 0 R0)", "b : place(11 0 R0)", "CG0631", 2),
    ],
)
def test_faults_of_solutions(old: str, new: str, code: str, line: int) -> None:
    assert old in SOLUTION
    text = SOLUTION.replace(old, new, 1)
    # A core holds little enough for one of the faults to be one.
    contest = problem(memory=150 if code == "CG0629" else 2000)
    with pytest.raises(InputError) as caught:
        illegal(contest, parse_solution(contest, text, "s.txt"), text, "s.txt").raise_if_any()
    found = [(one.code, one.location.line) for one in caught.value.diagnostics]
    assert (code, line) in found, found
    assert all(one.hint for one in caught.value.diagnostics)


# ---- what the engine makes of kernels


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("side", [10, 23])
def test_corners_are_all_that_matters(kernel: ContestKernel, side: int) -> None:
    """Against every execution there is: a rectangle is fast enough exactly where a corner says so."""
    every = list(executions(kernel, side))
    for time in (40, 150, 700, 4000):
        x, y = kernel.corners(time, side)
        legal = {(int(a), int(b)) for a, b in zip(x, y, strict=True) if a <= side and b <= side}
        needed = {
            (needs.width, needs.height)
            for needs in every
            if needs.memory <= kernel.memory_limit and needs.time * kernel.ticks <= time
        }
        assert legal <= needed
        assert all(any(a <= w and b <= h for a, b in legal) for w, h in needed)


def executions(kernel: ContestKernel, side: int):  # type: ignore[no-untyped-def]
    """Yield the needs of every execution within the kernel's own sizes whose rectangle has sides up to `side`."""
    from itertools import product

    convs = kernel.convs
    for h in range(1, min(conv.H for conv in convs) + 1):
        for w in range(1, min(conv.W for conv in convs) + 1):
            if 2 * h * w > side:
                continue
            most = side // (h * w) - 1
            cs = product(*(range(1, min(conv.C, most) + 1) for conv in convs))
            for c in cs:
                for k in product(*(range(1, min(conv.K, side // 3) + 1) for conv in convs)):
                    if 3 * sum(k) <= side:
                        yield performance(convs, Execution(h, w, c, k))


def test_realized_kernels_are_at_their_fastest() -> None:
    kernel = KERNELS[0]
    for width, height in ((12, 20), (20, 12), (9, 9), (3, 23)):
        best = min(
            needs.time
            for needs in executions(kernel, 23)
            if needs.memory <= kernel.memory_limit
            and ((needs.width <= width and needs.height <= height) or (needs.height <= width and needs.width <= height))
        )
        found = kernel.realize(width, height, 23)
        assert found is not None
        execution, turned = found
        needs = performance(kernel.convs, execution)
        assert needs.time == best
        sides = (needs.height, needs.width) if turned else (needs.width, needs.height)
        assert sides[0] <= width and sides[1] <= height
    assert kernel.realize(1, 1, 23) is None


def test_the_baseline_is_legal() -> None:
    contest = problem()
    bounder = Bounder(contest.engine)
    found = shelves(contest.engine, start_times(bounder.time()), bounder.hopeless)
    assert found is not None
    time, spots = found
    placed = realized(contest, spots)
    text = solution_text(contest, placed)
    assert not illegal(contest, parse_solution(contest, text, "s"), text, "s").any
    assert score(contest, placed).time * contest.ticks <= time


def solved(contest: Contest, method: str = "search") -> Solved:
    return solve(contest, method=method, seed=0, time_limit=None, report=lambda _: None)


@pytest.mark.parametrize("error", [NothingFound(), KeyboardInterrupt()])
def test_where_the_search_has_nothing_the_baseline_stays(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise error

    monkeypatch.setattr("cgc_wse.place.contest.search", nothing)
    found, baseline = solved(problem()), solved(problem(), "shelf")
    assert found.placed == baseline.placed
    assert found.cut == ("an interrupt" if isinstance(error, KeyboardInterrupt) else "")


def test_no_worse_than_the_baseline() -> None:
    """On this strip the search alone ends with wires a little longer than those of the shelves."""
    head = TEXT.partition("(* N")[0].replace("width=60", "width=7").replace("height=50", "height=100")
    head = head.replace("wdeltat=2", "wdeltat=1000").replace("=3.5", "=1").replace("=2000", "=24576")
    kernels = "cblock[1] f=28 h=2 w=2 name='a'\ncblock[2] f=4 h=2 w=2 name='b'\n"
    kernels += "conv[3] W=4 H=3 R=1 S=1 C=1234 K=50 T=2 name='c'\n"
    contest = parse_kgraph(head + kernels + "cblock[1]:y -> cblock[2]:x\ncblock[2]:y -> conv[3]:x\n", "strip")
    assert solved(contest).scored.score <= solved(contest, "shelf").scored.score


def test_what_no_shelves_hold_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgc_wse.place.contest.shelves", lambda *_: None)
    with pytest.raises(NothingFound, match="no shelves"):
        solved(problem(), "shelf")


def test_times_go_on_where_nothing_fits_near_the_bound() -> None:
    assert start_times(3)[0] == 3
    assert start_times(3)[-1] == LONGEST
    assert len(start_times(1 << 40)) < 300


def test_weights_of_zero_leave_the_exact_solver_with_nothing_to_do() -> None:
    pytest.importorskip("ortools")
    text = TEXT.replace("wdeltat=2", "wdeltat=0").replace("wlength=3.5", "wlength=0")
    contest = parse_kgraph(text, "toy")
    assert solved(contest, "cpsat").scored.score == 0
    baseline = solved(contest, "shelf")
    spots = [(area.x, area.y, area.width, area.height) for area in baseline.areas]
    exact = improve(contest.engine, spots, LONGEST, baseline.bounds, 0, 5.0)
    assert len(exact.spots) == 3


DATA = Path(__file__).parents[3] / "shared" / "data" / "ispd2020"


@pytest.mark.skipif(not DATA.is_dir(), reason="the contest's problems are not here")
@pytest.mark.parametrize("name", ["A", "C", "E", "K", "M"])
def test_the_problems_of_the_contest(name: str) -> None:
    contest: Contest = parse_kgraph((DATA / f"{name}.kgraph").read_text(), name)
    assert len(contest.kernels) == {"A": 16, "C": 100, "E": 16, "K": 16, "M": 23}[name]
    assert len(contest.engine.nets) == {"A": 15, "C": 131, "E": 15, "K": 15, "M": 26}[name]
    assert contest.memory_limit == 24576
