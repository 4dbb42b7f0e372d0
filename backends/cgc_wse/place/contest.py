"""Solving a problem of the ISPD 2020 contest: from its kernels to a solution file, with bounds and gaps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgc.services import PlaceProgress
from cgc_wse.place.bound import Bounder, Bounds
from cgc_wse.place.contest_kernels import performance
from cgc_wse.place.exact import available, improve
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.kgraph import Contest
from cgc_wse.place.search import ROUNDS, RUNS, Limits, search, spots_of
from cgc_wse.place.shelf import shelves
from cgc_wse.place.solution import PlacedKernel, Scored, area_of, score
from cgc_wse.place.starts import start_times
from cgc_wse.place.tree import Spot

FIRST_ROUNDS = 4
"""Rounds of annealing before the exact solver."""

CLOSING = 1.0, 0.04
"""Kept of a time limit for writing the solution: seconds, and a part of it."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A legal solution, what it is worth, what nothing can beat, and how the search went."""

    placed: tuple[PlacedKernel, ...]
    areas: tuple[Rectangle, ...]
    scored: Scored
    bounds: Bounds
    steps: int
    cut: str
    seconds: float


def solve(
    contest: Contest, *, method: str, seed: int, time_limit: float | None, report: Callable[[PlaceProgress], None]
) -> Solved:
    """Return the best solution found by `method`: `search`, `cpsat` (a short search, then the exact solver), or
    `shelf`.

    Raises:
        NotInstalled: the method needs a library that is not there.
        Unplaceable: there is no solution.
        NothingFound: none was found.
    """
    began = time.monotonic()
    steps, cut = 0, ""
    problem = contest.engine
    if method == "shelf":
        bounder = Bounder(problem)
        bounds = bounder.bounds()
        _, spots = shelves(problem, start_times(bounds.time), bounder.hopeless)
    else:
        # The limit is on the whole process, which has been starting up before this.
        deadline = None if time_limit is None else began - _age() + max(time_limit * (1 - CLOSING[1]) - CLOSING[0], 0.0)
        if method == "cpsat":
            available()
        rounds = ROUNDS if method == "search" else FIRST_ROUNDS
        found = search(problem, Limits(seed, rounds, _workers(), deadline), report)
        bounds, steps, cut = found.bounds, found.steps, found.cut
        spots = spots_of(problem, found.best)
        if method == "cpsat" and not cut:
            report(PlaceProgress("cp-sat", 0, 1, found.best.cost, bounds.score))
            seconds = None if deadline is None else deadline - time.monotonic()
            exact = improve(problem, spots, found.best.time, bounds, seed, seconds)
            spots, cut = exact.spots, "the time limit" if exact.cut else ""
    placed = realized(contest, spots)
    areas = tuple(
        area_of(performance(kernel.convs, one.execution), one)
        for kernel, one in zip(contest.kernels, placed, strict=True)
    )
    return Solved(placed, areas, score(contest, placed), bounds, steps, cut, time.monotonic() - began)


def _age() -> float:
    """Return the seconds since this process started; 0 where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


def _workers() -> int:
    """Return the number of processes: no more than there are cores for, nor than there is use for."""
    return min(RUNS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def realized(contest: Contest, spots: Sequence[Spot]) -> tuple[PlacedKernel, ...]:
    """Return every kernel at its fastest in its rectangle, in the middle of it where it needs less."""
    placed = []
    for kernel, (x, y, width, height) in zip(contest.kernels, spots, strict=True):
        found = kernel.realize(width, height, contest.engine.side)
        assert found is not None, "rectangles come from the kernel's own curve"
        execution, turned = found
        needs = area_of(performance(kernel.convs, execution), PlacedKernel(execution, x, y, turned))
        placed.append(PlacedKernel(execution, x + (width - needs.width) // 2, y + (height - needs.height) // 2, turned))
    return tuple(placed)
