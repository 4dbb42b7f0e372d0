"""The exact solver: OR-Tools CP-SAT on rectangles that may choose their shape, from the best that the search found.

A kernel has a list of shapes with their times; one of them is chosen, a no-overlap constraint keeps rectangles apart,
and the cost is what the engine minimizes. On small problems it proves that nothing is better; on large ones it is a
local search with proofs, and the search's own result is what it starts from and never falls below. Rectangles may lie
anywhere: not only as cuts of a slicing tree allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from cgc_wse.place.anneal import wire
from cgc_wse.place.bound import Bounds, rectangles
from cgc_wse.place.problem import PlaceKernel, PlaceProblem
from cgc_wse.place.tree import Spot

TIMES = 24
"""Times between the bound and the start that shapes are listed for."""

SHAPES = 120
"""The most shapes of a kernel: the smallest of each time are kept."""

SCALE = 1 << 10
"""Costs are counted in whole parts of the larger weight."""

EFFORT = 40.0
"""Deterministic time: what the solver counts instead of seconds, so that its result does not depend on the machine."""


@dataclass(frozen=True, slots=True)
class Exact:
    """Rectangles, their time in ticks, a bound proved by the solver, and whether the time limit cut it."""

    spots: list[Spot]
    time: int
    bound: float
    cut: bool


class NotInstalled(Exception):
    """OR-Tools is not there."""


def available() -> None:
    """Raise NotInstalled where OR-Tools cannot be imported."""
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise NotInstalled(str(error)) from error
    del cp_model


def shapes(kernel: PlaceKernel, times: Sequence[int], problem: PlaceProblem) -> list[tuple[int, int, int]]:
    """Return (width, height, ticks) of shapes of which none is both smaller and faster than another."""
    found: dict[tuple[int, int], int] = {}
    for time in times:
        x, y = rectangles(kernel, time, problem)
        order = sorted(zip(x.tolist(), y.tolist(), strict=True))
        lowest = problem.rows + 1
        for width, height in order:
            if height < lowest:
                lowest = height
                found.setdefault((width, height), time)
    smallest = sorted(found.items(), key=lambda item: (item[0][0] * item[0][1], item[0]))
    return [(width, height, time) for (width, height), time in smallest[:SHAPES]]


def improve(
    problem: PlaceProblem, start: Sequence[Spot], time: int, bounds: Bounds, seed: int, seconds: float | None
) -> Exact:
    """Return the best placement the solver found, no worse than `start`, whose kernels take at most `time` ticks.

    Raises:
        NotInstalled: OR-Tools is not there.
    """
    available()
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    times = sorted({bounds.time + (time - bounds.time) * step // TIMES for step in range(TIMES + 1)})
    unit = max(problem.tick_cost, problem.wire_cost) / SCALE or 1.0
    pairs = zip(problem.kernels, start, strict=True)
    placed = [_rectangle(model, problem, kernel, times, spot) for kernel, spot in pairs]
    model.AddNoOverlap2D([one.x for one in placed], [one.y for one in placed])
    slowest = model.NewIntVar(bounds.time, time, "slowest")
    for one in placed:
        model.Add(slowest >= one.time)
    model.AddHint(slowest, time)
    apart = [part for a, b in problem.nets if a != b for part in _distance(model, problem, placed[a], placed[b])]
    cost = round(problem.tick_cost / unit) * slowest + sum(round(problem.wire_cost / unit / 2) * part for part in apart)
    model.Add(cost >= ceil(bounds.score / unit * (1 - 1e-3)))
    model.Minimize(cost)
    solver = cp_model.CpSolver()
    solver.parameters.random_seed = seed & 0x7FFFFFFF
    solver.parameters.num_workers = 8
    # Eight strategies in turn on one thread: the same result on every machine.
    solver.parameters.interleave_search = True
    solver.parameters.max_deterministic_time = EFFORT
    if seconds is not None:
        solver.parameters.max_time_in_seconds = max(0.1, seconds)
    status = solver.Solve(model)
    limited = seconds is not None and solver.WallTime() >= seconds
    if solver.StatusName(status) not in ("OPTIMAL", "FEASIBLE"):
        return Exact(list(start), time, bounds.score, limited)
    spots = [tuple(solver.Value(part) for part in one.spot) for one in placed]
    found = [(x, y, width, height) for x, y, width, height in spots]
    ticks = solver.Value(slowest)
    before = problem.tick_cost * time + problem.wire_cost * wire(start, problem.nets)
    after = problem.tick_cost * ticks + problem.wire_cost * wire(found, problem.nets)
    return (
        Exact(found, ticks, bounds.score, limited)
        if after < before
        else Exact(list(start), time, bounds.score, limited)
    )


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """Variables of a kernel: its intervals, its ticks, its corner and sides, and twice its centre."""

    x: Any
    y: Any
    time: Any
    spot: tuple[Any, Any, Any, Any]
    centre: tuple[Any, Any]


def _rectangle(model: Any, problem: PlaceProblem, kernel: PlaceKernel, times: Sequence[int], spot: Spot) -> _Rectangle:
    choices = shapes(kernel, times, problem)
    if (spot[2], spot[3]) not in {(width, height) for width, height, _ in choices}:
        choices.append((spot[2], spot[3], times[-1]))
    width = model.NewIntVarFromDomain(_domain(one[0] for one in choices), "")
    height = model.NewIntVarFromDomain(_domain(one[1] for one in choices), "")
    time = model.NewIntVar(0, times[-1], "")
    model.AddAllowedAssignments([width, height, time], choices)
    x, y = model.NewIntVar(0, problem.columns - 1, ""), model.NewIntVar(0, problem.rows - 1, "")
    right, top = model.NewIntVar(1, problem.columns, ""), model.NewIntVar(1, problem.rows, "")
    across, up = model.NewIntervalVar(x, width, right, ""), model.NewIntervalVar(y, height, top, "")
    for variable, value in zip((x, y, width, height), spot, strict=True):
        model.AddHint(variable, value)
    return _Rectangle(across, up, time, (x, y, width, height), (2 * x + width, 2 * y + height))


def _domain(values: Any) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.Domain.FromValues(sorted(set(values)))


def _distance(model: Any, problem: PlaceProblem, a: _Rectangle, b: _Rectangle) -> list[Any]:
    """Return twice the distance of two centres along x and along y."""
    found = []
    for one, other, most in zip(a.centre, b.centre, (problem.columns, problem.rows), strict=True):
        apart = model.NewIntVar(0, 2 * most, "")
        model.AddAbsEquality(apart, one - other)
        found.append(apart)
    return found
