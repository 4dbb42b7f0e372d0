"""The kernel cost model: formulas against figures worked out by hand, what may only grow, and measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from cgc_wse.kernel_cost.calibrate import CALIBRATED_ON, CONSTANTS, Row, calibrate, errors, predicted, read_rows, report
from cgc_wse.kernel_cost.collectives import (
    REDUCTIONS,
    Phase,
    allreduce_cycles,
    best_groups,
    broadcast_phase,
    group_counts,
    grouped_cycles,
    grouped_phases,
    reduce_phase,
    ring_phase,
)
from cgc_wse.kernel_cost.gemm import ALGORITHMS, Tiles, compute_cycles, cut, estimate_gemm
from cgc_wse.kernel_cost.gemv import GROUPED, RING, SNAKE, estimate_collective, estimate_gemv
from cgc_wse.kernel_cost.lines import Allreduces
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.kernel_cost.requests import answer
from cgc_wse.partition.core_cost import clock_of, work_cycles
from cgc_wse.partition.formulas import Summing, move_cycles, sum_cycles
from cgc_wse.partition.layout import Digit, Layout, copies
from hypothesis import given
from hypothesis import strategies as st

from cgc import load_device
from cgc.ir.dims import Dim
from cgc.ir.graph import Node, Value
from cgc.ir.ops import Dot
from cgc.ir.types import TensorType
from cgc.services import KernelRequest
from cgc.target import TargetError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "wse3_measured.csv"
"""Measurements kept beside the project, not in it."""

PLAIN = Machine(task=100, loop=10, vector=2, shift=1, relay=1, ramp=2, lanes=4, entries=2, number=2, memory=48 * 1024)
WSE3 = load_device("wse3")
REAL = machine_of(WSE3, "f16")
SIZES = st.integers(1, 40)
LINES = st.integers(2, 600)


def measured() -> list[Row]:
    if not SHARED.exists():
        pytest.skip(f"no measurements at {SHARED}: ../shared is not here")
    return read_rows(SHARED.read_text(encoding="utf-8"))


def test_an_entry_of_four_bytes_takes_two_lanes_and_a_link_word() -> None:
    half, single = machine_of(WSE3, "f16"), machine_of(WSE3, "f32")
    assert (half.lanes, single.lanes) == (8, 4)
    assert (half.words(5), single.words(5)) == (3, 5)
    assert half.multiply_add(16) == WSE3.vector + 2


def test_a_device_without_a_relay_takes_its_hop() -> None:
    assert machine_of(replace(WSE3, relay=0.0, hop=3.0), "f16").relay == 3
    assert machine_of(load_device("wse2"), "f16").relay == 1


@pytest.mark.parametrize(
    ("algorithm", "cycles"),
    [
        # Luczynski et al. 2024 at P = 16, B = 8, T_R = 2.
        ("star", max(8 * 15, 8 * 16 / 2 + 15) + 5),
        ("chain", 8 + 15 + 5 * 15),
        ("tree", max(8 * 4, 8 * 16 / (2 * 15) * 4 + 15) + 5 * 4),
        ("two-phase", max(2 * 8, 2 * 8 - 2 * 8 / (4 + 1) + 15) + 5 * (2 * 4 - 2)),
    ],
)
def test_reductions_by_hand(algorithm: str, cycles: float) -> None:
    assert reduce_phase(algorithm, 16, 8).cycles(PLAIN) == pytest.approx(cycles)


def test_broadcast_by_hand() -> None:
    assert broadcast_phase(16, 8).cycles(PLAIN) == 8 + 15 + 5
    assert estimate_collective(PLAIN, "broadcast", 16, 4, 16, "flood").cycles == 8 + (15 + 3) + 5


def test_a_phase_is_bound_by_contention_or_by_travel() -> None:
    assert Phase(contention=100, load=1, distance=2, depth=3).cycles(PLAIN) == 100 + 15
    assert Phase(contention=1, load=4, distance=20, depth=3).cycles(replace(PLAIN, relay=2)) == 44 + 15


def test_a_rectangle_reduces_rows_then_the_column() -> None:
    rows, column = reduce_phase("chain", 6, 4).cycles(PLAIN), reduce_phase("chain", 3, 4).cycles(PLAIN)
    found = estimate_collective(PLAIN, "reduce", 6, 3, 8, "chain")
    assert found.total == {"reduce_along_rows": rows, "reduce_along_columns": column}
    assert found.cycles == found.inside["travel"] + found.inside["depth"]
    both = estimate_collective(PLAIN, "allreduce", 6, 3, 8, "chain")
    assert both.cycles == found.cycles + (4 + 7 + 5)


def test_a_ring_by_hand() -> None:
    # 2 * 7 rounds of 8 / 8 words; the longest way is twice round the ring but for an edge: 4 * 8 - 6 hops.
    assert ring_phase(8, 8).cycles(PLAIN) == 2 * 7 * 8 / 8 + 26 + 5 * 14
    assert ring_phase(1, 8).cycles(PLAIN) == 0
    found = estimate_collective(PLAIN, "allreduce", 8, 8, 16, RING)
    assert found.cycles == 2 * ring_phase(8, 8).cycles(PLAIN)
    assert "broadcast" not in found.total


def test_a_snake_is_one_chain_through_all_cores() -> None:
    found = estimate_collective(PLAIN, "reduce", 4, 3, 10, SNAKE)
    assert found.cycles == reduce_phase("chain", 12, 5).cycles(PLAIN)
    both = estimate_collective(PLAIN, "allreduce", 4, 3, 10, SNAKE)
    assert both.cycles == found.cycles + 5 + 5 + 5


@pytest.mark.parametrize("words", [1, 256, 8192])
@pytest.mark.parametrize("cores", [2, 3, 4, 17, 64, 512])
def test_formulas_as_published(cores: int, words: int) -> None:
    """In closed form (Luczynski et al. 2024), T_R = 2 and a cycle for each hop."""
    step = 5
    assert (
        reduce_phase("star", cores, words).cycles(PLAIN)
        == max(words * (cores - 1), words * cores / 2 + cores - 1) + step
    )
    assert reduce_phase("chain", cores, words).cycles(PLAIN) == words + (step + 1) * (cores - 1)
    assert broadcast_phase(cores, words).cycles(PLAIN) == words + cores - 1 + step
    if cores & (cores - 1) == 0:
        rounds = cores.bit_length() - 1
        energy = words * cores * rounds / 2 / (cores - 1)
        tree = max(words * rounds, energy + cores - 1) + step * rounds
        assert reduce_phase("tree", cores, words).cycles(PLAIN) == pytest.approx(tree)
    side = round(cores**0.5)
    if side * side == cores:
        energy = words * (2 * cores - 2 * side) / (cores - 1)
        both = max(2 * words, energy + cores - 1) + step * (2 * side - 2)
        assert reduce_phase("two-phase", cores, words).cycles(PLAIN) == pytest.approx(both)


def test_a_ring_is_no_reduction_to_one_core() -> None:
    with pytest.raises(TargetError) as raised:
        answer(KernelRequest("reduce", "wse2", 4, 4, "f16", 8, algorithm="ring"), WSE3)
    assert raised.value.code == "CG0609"


def test_one_core_has_nothing_to_send() -> None:
    for op in ("reduce", "broadcast", "allreduce"):
        assert estimate_collective(PLAIN, op, 1, 1, 8, "chain").cycles == 0
    assert estimate_gemv(PLAIN, 1, 3, 8, GROUPED).cycles == 100 + 3 * (2 + 2)
    assert estimate_gemm(PLAIN, Tiles(1, 1, 4, 2, 3), "mesh").cycles == 100 + 2 * (10 + 3 * (2 + 1))


def test_groups_by_hand() -> None:
    """Sixteen cores in four groups: middles 2, 6, 10, 14; the root is core 10."""
    assert grouped_phases(PLAIN, 16, 3, 4) == (Phase(3, 3, 2, 2), Phase(3, 3, 8, 2), Phase(3, 3, 10, 1))
    assert grouped_cycles(PLAIN, 16, 3, 4) == (3 + 2 + 10) + (3 + 8 + 10) + (3 + 10 + 5)
    # Of 20 words, those of the second chain arrive last: 40 into the middle, after one hop and one step.
    inner, outer, _ = grouped_phases(PLAIN, 16, 20, 4)
    assert (inner, outer) == (Phase(40, 40, 1, 1), Phase(40, 40, 4, 1))
    assert set(group_counts(16)) == {1, 2, 3, 4, 6, 8, 16}


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.integers(1, 3000))
def test_many_lines_at_once_take_what_each_takes(lines: list[int], words: int) -> None:
    found = Allreduces(REAL, np.array(lines, dtype=np.float64)).cycles(np.full(len(lines), float(words)))
    assert found == pytest.approx([allreduce_cycles(REAL, line, words) for line in lines])


def test_a_link_of_two_words_a_cycle_halves_what_travels_but_not_the_way() -> None:
    twice = machine_of(replace(WSE3, link=2 * WSE3.link), "f16")
    assert twice.words(5) == REAL.words(5)
    assert reduce_phase("chain", 9, 40).cycles(REAL) - reduce_phase("chain", 9, 40).cycles(twice) == 20


@given(st.integers(2, 90), st.integers(1, 50))
def test_chains_of_the_partition_are_those_of_the_kernels(cores: int, words: int) -> None:
    """One group of the grouped allreduce is the partition's sum towards one target: a task, and a cycle to be used."""
    clock = clock_of(WSE3)
    inner, _, _ = grouped_phases(clock, cores, words, 1)
    assert sum_cycles(Summing(cores, 1, 1, words), clock) == pytest.approx(clock.task + inner.cycles(clock) - 1)


def test_broadcasts_of_the_partition_are_those_of_the_kernels() -> None:
    clock, before = clock_of(WSE3), Layout((), (Digit("one", 9, at=0),))
    moved = move_cycles((("a", 30),), 4, before, Layout((), copies(9)), clock)
    assert moved == pytest.approx(clock.task + broadcast_phase(9, 30).cycles(clock) - 1)


@given(SIZES, SIZES, SIZES)
def test_dots_of_the_partition_are_those_of_the_kernels(m: int, k: int, n: int) -> None:
    clock = clock_of(WSE3)
    sizes = {"m": m, "k": k, "n": n}
    dims = {name: Dim(name, size) for name, size in sizes.items()}

    def cycles(left: str, right: str, result: str) -> float:
        values = [Value(text, TensorType(tuple(dims[name] for name in text), "f32")) for text in (left, right, result)]
        names = dict.fromkeys(left + right)
        node = Node(Dot(("k",)), (values[0], values[1]), (values[2],))
        return work_cycles(node, tuple((name, sizes[name]) for name in names), clock)

    if min(m, n) > 1:
        longer, shorter = max(m, n), min(m, n)
        assert cycles("mk", "kn", "mn") == pytest.approx(compute_cycles(clock, Tiles(1, 1, longer, k, shorter)))
    # A row vector times a matrix: the one loop starts here, while the tasks of a measured GEMV hide it.
    local = estimate_gemv(clock, 1, k, n, GROUPED).total["compute"]
    assert cycles("k", "kn", "n") == pytest.approx(local + clock.loop)


def test_mesh_by_hand() -> None:
    found = estimate_gemm(PLAIN, Tiles(8, 8, 4, 2, 3), "mesh")
    compute, exchange = 2 * (10 + 3 * (2 + 4 / 4)), 4 + 2 + 5
    assert found.total == {"start_up": (4 + 8) * 100, "skew": 4 * exchange, "steps": 8 * compute}
    assert found.inside == {"compute": 8 * compute, "exchange": 8 * exchange}
    assert found.memory == 2 * (2 * (8 + 6) + 12)


def test_a_step_ends_with_the_exchange_where_that_takes_longer() -> None:
    slow = replace(PLAIN, shift=50)
    found = estimate_gemm(slow, Tiles(8, 8, 4, 2, 3), "mesh")
    assert found.total["steps"] == 8 * (50 * 4 + 2 + 5)


def test_other_gemms_by_hand() -> None:
    tiles, compute = Tiles(8, 8, 4, 2, 3), 2 * (10 + 3 * 3)
    far = 4 + 7 + 5
    cannon = estimate_gemm(PLAIN, tiles, "cannon")
    assert cannon.total == {"start_up": 1200, "skew": 4 * far, "steps": 8 * compute}
    assert estimate_gemm(PLAIN, tiles, "summa").total == {"start_up": 800, "skew": far, "steps": 8 * compute}
    gathered = estimate_gemm(PLAIN, tiles, "allgather")
    assert gathered.total == {"start_up": 200, "skew": 7 * 8 / 2 + 7 + 5, "steps": 8 * compute}
    assert gathered.memory == 2 * (8 * 8 + 8 * 6 + 12)


def test_gemv_by_hand() -> None:
    found = estimate_gemv(PLAIN, 16, 5, 6, GROUPED, 4)
    assert found.cycles == 200 + 5 * (2 + 6 / 4) + grouped_cycles(PLAIN, 16, 3, 4)
    chain = estimate_gemv(PLAIN, 16, 5, 6, "chain")
    assert chain.cycles == 200 + 5 * 3.5 + (3 + 15 + 75) + (3 + 15 + 5)


def test_tiles_are_rounded_up() -> None:
    assert cut(4, 4, 9, 8, 1) == Tiles(4, 4, 3, 2, 1)
    assert cut(8, 2, 9, 9, 9) == Tiles(8, 2, 5, 2, 2)


@given(SIZES, SIZES, SIZES, st.sampled_from(ALGORITHMS), st.integers(2, 100))
def test_a_larger_gemm_takes_no_less(m: int, k: int, n: int, algorithm: str, side: int) -> None:
    cycles = estimate_gemm(REAL, Tiles(side, side, m, k, n), algorithm).cycles
    for more in ((m + 1, k, n), (m, k + 1, n), (m, k, n + 1)):
        assert estimate_gemm(REAL, Tiles(side, side, *more), algorithm).cycles >= cycles
    assert estimate_gemm(REAL, Tiles(side + 1, side + 1, m, k, n), algorithm).cycles >= cycles


@given(LINES, SIZES, st.sampled_from(sorted(REDUCTIONS)))
def test_more_words_or_cores_take_no_less(cores: int, words: int, algorithm: str) -> None:
    cycles = reduce_phase(algorithm, cores, words).cycles(REAL)
    assert reduce_phase(algorithm, cores, words + 1).cycles(REAL) >= cycles
    if algorithm in ("star", "chain"):
        assert reduce_phase(algorithm, cores + 1, words).cycles(REAL) >= cycles


@given(LINES, SIZES)
def test_the_best_number_of_groups_is_best(cores: int, words: int) -> None:
    best = best_groups(REAL, cores, words)
    for groups in range(1, min(cores, 40) + 1):
        assert grouped_cycles(REAL, cores, words, best) <= grouped_cycles(REAL, cores, words, groups)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300), st.integers(1, 300))
def test_parts_add_up(k: int, n: int, columns: int, rows: int) -> None:
    data = answer(KernelRequest("gemv", "wse3", columns, rows, "f16", n=n, k=k), WSE3).to_json()
    assert data["cycles"] == pytest.approx(sum(data["parts"][name] for name in data["adds_up"]), abs=0.01)
    assert data["seconds"] == pytest.approx(data["cycles"] / WSE3.clock, rel=1e-3)
    assert set(data["parts"]) == set(data["formulas"])


def test_the_usual_gemm_is_the_measured_one_and_needs_a_square() -> None:
    assert answer(KernelRequest("gemm", "wse3", 8, 8, "f16", 8, 8, 8), WSE3).chosen.algorithm == "mesh"
    oblong = answer(KernelRequest("gemm", "wse3", 8, 4, "f16", 8, 8, 8), WSE3)
    assert {oblong.chosen.algorithm, *(other.algorithm for other in oblong.alternatives)} == {"summa", "allgather"}
    with pytest.raises(TargetError) as caught:
        answer(KernelRequest("gemm", "wse3", 8, 4, "f16", 8, 8, 8, algorithm="mesh"), WSE3)
    assert (caught.value.code, bool(caught.value.hint)) == ("CG0609", True)


def test_a_collective_takes_the_fastest() -> None:
    few = answer(KernelRequest("reduce", "wse2", 512, 1, "f32", 1), load_device("wse2"))
    many = answer(KernelRequest("reduce", "wse2", 16, 1, "f32", 4096), load_device("wse2"))
    for found in (few, many):
        assert all(found.chosen.cycles <= other.cycles for other in found.alternatives)
    assert many.chosen.algorithm == "chain"


def test_measured_errors_stay_below_the_limits() -> None:
    """Nothing of these grids was fitted; every op and grid on its own."""
    rows = [row for row in measured() if row.side != CALIBRATED_ON]
    assert {(row.op, row.side) for row in rows} == {("gemm", 592), ("gemv", 16), ("gemv", 272)}
    for found in errors(rows, WSE3).values():
        assert median(found) < 0.04
        assert max(found) < 0.12


def test_the_calibration_is_the_devices_and_sees_one_grid_only() -> None:
    rows = measured()
    one = [row for row in rows if row.side == CALIBRATED_ON]
    found = calibrate(rows, WSE3)
    assert found == calibrate(one, WSE3)
    for name in CONSTANTS:
        assert found[name] == pytest.approx(getattr(WSE3, name), rel=0.005)
    assert "elsewhere" in report(rows, WSE3)


def test_the_calibration_finds_the_constants_that_made_the_rows() -> None:
    truth = replace(WSE3, task=60.0, loop=30.0, vector=3.0, shift=2.0, relay=1.5)
    rows = [Row("gemm", 144, m, k, n, 0, 0) for m in (1, 3, 8) for k in (1, 2, 8) for n in (1, 2, 8)]
    rows += [Row("gemv", 144, m, 0, n, 8, 0) for m in (1, 8) for n in (1, 8)]
    made = [replace(row, cycles=predicted(row, truth)) for row in rows]
    found = calibrate(made, WSE3)
    assert found == pytest.approx({name: getattr(truth, name) for name in CONSTANTS}, rel=1e-6)
