"""Solutions of the ISPD 2020 contest: written, read, and checked against their problem.

Two lines a kernel, by its name in the problem: formal arguments, then execution parameters (h' w', then every c', then
every k'); and where its corner nearest the origin is, and whether it is turned.

    k1 = dblock( 56 56 256 4 4 8 8 8 8 64 16 )
    k1 : place(0 148 R0)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cgc_wse.place.contest_kernels import FORMALS, ContestKernel, Execution, Performance, performance
from cgc_wse.place.contest_text import Faults, Line, whole, without_comments
from cgc_wse.place.geometry import Rectangle, overlaps
from cgc_wse.place.kgraph import Contest

KERNEL = re.compile(r"\s*(\w+)\s*=\s*([A-Za-z_]+)\s*\(([^()]*)\)\s*;?\s*$")
PLACE = re.compile(r"\s*(\w+)\s*:\s*place\s*\(\s*([^\s()]+)\s+([^\s()]+)\s+([^\s()]+)\s*\)\s*;?\s*$")
TURNS = {"R0": False, "R90": True, "R180": False, "R270": True}
"""Orientations, and whether they exchange width and height."""


@dataclass(frozen=True, slots=True)
class PlacedKernel:
    """A kernel as a solution has it: the corner nearest the origin is (`x`, `y`)."""

    execution: Execution
    x: int
    y: int
    turned: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """What a legal solution is worth. `slowest` names the slowest kernel."""

    time: Fraction
    wire: float
    score: float
    slowest: str
    area: int


def solution_text(contest: Contest, placed: Sequence[PlacedKernel]) -> str:
    """Return the solution file; `placed` is in the order of the problem's kernels."""
    lines = []
    for kernel, one in zip(contest.kernels, placed, strict=True):
        arguments = " ".join(str(value) for value in (*kernel.formals, *one.execution.listed()))
        lines.append(f"{kernel.name} = {kernel.kind}( {arguments} )")
        lines.append(f"{kernel.name} : place({one.x} {one.y} {'R90' if one.turned else 'R0'})")
    return "\n".join(lines) + "\n"


def parse_solution(contest: Contest, text: str, file: str) -> tuple[PlacedKernel, ...]:
    """Return what a solution says of every kernel, in the order of the problem's; legal or not.

    Raises:
        InputError: the text cannot be read (CG0625), does not have every kernel once (CG0626), with the arguments of
            the problem (CG0627), and parameters that exist (CG0628).
    """
    faults = Faults(file, text)
    lines, _ = without_comments(text, faults, "CG0625")
    kernels = {kernel.name: kernel for kernel in contest.kernels}
    executions: dict[str, tuple[int, Execution]] = {}
    places: dict[str, tuple[int, tuple[int, int, bool]]] = {}
    for line in lines:
        if (found := KERNEL.match(line.text)) is not None:
            kernel = _named(line, found, kernels, executions, faults)
            execution = None if kernel is None else _execution(line, found, kernel, faults)
            if execution is not None:
                executions[found[1]] = (line.number, execution)
        elif (found := PLACE.match(line.text)) is not None:
            spot = _spot(line, found, faults)
            if _named(line, found, kernels, places, faults) is not None and spot is not None:
                places[found[1]] = (line.number, spot)
        else:
            hint = "lines are as in `k1 = dblock( 56 56 256 4 4 8 8 8 8 64 16 )` and `k1 : place(0 148 R0)`"
            faults.add("CG0625", line.number, "this line says nothing of a kernel", hint)
    if not faults.any:
        _complete(contest, executions, places, faults)
    faults.raise_if_any()
    return tuple(PlacedKernel(executions[name][1], *places[name][1]) for name in kernels)


def _complete(contest: Contest, executions: Mapping[str, object], places: Mapping[str, object], faults: Faults) -> None:
    for kernel in contest.kernels:
        if kernel.name not in executions:
            hint = f"add a line `{kernel.name} = {kernel.kind}( … )`"
            faults.missing("CG0626", f"nothing says how `{kernel.name}` is executed", hint)
        if kernel.name not in places:
            hint = f"add a line `{kernel.name} : place(x y R0)`"
            faults.missing("CG0626", f"nothing says where `{kernel.name}` is", hint)


def _named(
    line: Line,
    found: re.Match[str],
    kernels: Mapping[str, ContestKernel],
    before: Mapping[str, tuple[int, object]],
    faults: Faults,
) -> ContestKernel | None:
    name = found[1]
    if name not in kernels:
        hint = "kernels have the names of the problem; `input` and `output` are not placed"
        faults.add("CG0626", line.number, f"the problem has no kernel `{name}`", hint, found.span(1))
        return None
    if name in before:
        text = f"line {before[name][0]} said this of `{name}` already"
        faults.add("CG0626", line.number, text, "every kernel has two lines", found.span(1))
        return None
    return kernels[name]


def _execution(line: Line, found: re.Match[str], kernel: ContestKernel, faults: Faults) -> Execution | None:
    if found[2] != kernel.kind:
        text = f"`{kernel.name}` is a {kernel.kind}, not a {found[2]}"
        faults.add("CG0627", line.number, text, "kinds are those of the problem", found.span(2))
        return None
    count = len(kernel.convs)
    names = (
        *FORMALS[kernel.kind],
        "h'",
        "w'",
        *(f"c'{i}" for i in _numbered(count)),
        *(f"k'{i}" for i in _numbered(count)),
    )
    words = found[3].split()
    values = [whole(word) for word in words]
    if len(values) != len(names) or None in values:
        text = (
            f"`{kernel.name}`: {len(words)} arguments"
            if None not in values
            else f"`{found[3].strip()}`: no whole numbers"
        )
        faults.add("CG0625", line.number, text, f"a {kernel.kind} has {len(names)}: {' '.join(names)}", found.span(3))
        return None
    given = [value for value in values if value is not None]
    formals, rest = tuple(given[: len(kernel.formals)]), given[len(kernel.formals) :]
    if formals != kernel.formals:
        text = f"`{kernel.name}`: the formal arguments are not those of the problem"
        hint = f"they are {' '.join(f'{n}={v}' for n, v in zip(names, kernel.formals, strict=False))}"
        faults.add("CG0627", line.number, text, hint, found.span(3))
        return None
    for name, value, largest in zip(names[len(formals) :], rest, _largest(kernel), strict=True):
        if not 1 <= value <= largest:
            text = f"`{kernel.name}`: {name} = {value}"
            faults.add(
                "CG0628", line.number, text, f"{name} is from 1 to {largest}: there is no more to split", found.span(3)
            )
            return None
    return Execution(rest[0], rest[1], tuple(rest[2 : 2 + count]), tuple(rest[2 + count :]))


def _numbered(count: int) -> list[str]:
    return [""] if count == 1 else [str(i) for i in range(1, count + 1)]


def _largest(kernel: ContestKernel) -> list[int]:
    """Return the largest execution parameters: one core for each point, channel and filter."""
    convs = kernel.convs
    points = [max(conv.H for conv in convs), max(conv.W for conv in convs)]
    return [*points, *(conv.C for conv in convs), *(conv.K for conv in convs)]


def _spot(line: Line, found: re.Match[str], faults: Faults) -> tuple[int, int, bool] | None:
    x, y = whole(found[2]), whole(found[3])
    if x is None or y is None:
        text = f"`{found[2]} {found[3]}`: this is no corner"
        faults.add("CG0625", line.number, text, "x and y are whole numbers from 0", (found.start(2), found.end(3)))
        return None
    if found[4] not in TURNS:
        hint = f"it is one of {', '.join(TURNS)}"
        faults.add("CG0625", line.number, f"`{found[4]}` is no orientation", hint, found.span(4))
        return None
    return x, y, TURNS[found[4]]


def area_of(needs: Performance, placed: PlacedKernel) -> Rectangle:
    """Return the cores a placed kernel has."""
    width, height = (needs.height, needs.width) if placed.turned else (needs.width, needs.height)
    return Rectangle(placed.x, placed.y, width, height)


def illegal(contest: Contest, placed: Sequence[PlacedKernel], text: str, file: str) -> Faults:
    """Return what is illegal in a solution that could be read: memory (CG0629), grid (CG0630), overlaps (CG0631)."""
    faults = Faults(file, text)
    lines = {found[1]: number for number, line in enumerate(text.splitlines(), start=1) if (found := PLACE.match(line))}
    grid = contest.engine
    areas = []
    for kernel, one in zip(contest.kernels, placed, strict=True):
        needs = performance(kernel.convs, one.execution)
        area = area_of(needs, one)
        areas.append(area)
        line = lines.get(kernel.name, 1)
        if needs.memory > contest.memory_limit:
            words = f"{float(needs.memory):,.1f} words of memory in a core, {contest.memory_limit:,} is the limit"
            faults.add(
                "CG0629", line, f"`{kernel.name}` needs {words}", "larger c' or k', or more cores over the points"
            )
        if area.x + area.width > grid.columns or area.y + area.height > grid.rows:
            text_ = f"`{kernel.name}` is {area.width} x {area.height} at ({area.x}, {area.y})"
            faults.add("CG0630", line, f"{text_} and leaves the grid of {grid.columns} x {grid.rows}", "move it")
    for i, j in overlaps(areas):
        first, second = contest.kernels[i].name, contest.kernels[j].name
        faults.add("CG0631", lines.get(first, 1), f"`{first}` overlaps `{second}`", "every core belongs to one kernel")
    return faults


def score(contest: Contest, placed: Sequence[PlacedKernel]) -> Scored:
    """Return time, wire length and score of a legal solution."""
    needs = [performance(kernel.convs, one.execution) for kernel, one in zip(contest.kernels, placed, strict=True)]
    areas = [area_of(need, one) for need, one in zip(needs, placed, strict=True)]
    wire = 0
    for a, b in contest.engine.nets:
        one, two = areas[a], areas[b]
        wire += abs(2 * one.x + one.width - 2 * two.x - two.width) + abs(
            2 * one.y + one.height - 2 * two.y - two.height
        )
    slowest = max(range(len(needs)), key=lambda i: needs[i].time)
    time = needs[slowest].time
    total = contest.time_weight * float(time) + contest.engine.wire_cost * wire / 2
    return Scored(time, wire / 2, total, contest.kernels[slowest].name, sum(area.cores for area in areas))
