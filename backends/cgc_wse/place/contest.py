"""Solving a problem of the ISPD 2020 contest: from its kernels to a solution file, with bounds and gaps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgc.services import PlaceProgress
from cgc_wse.place.bound import Bounder, Bounds
from cgc_wse.place.contest_kernels import performance
from cgc_wse.place.exact import available, improve
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.kgraph import Contest
from cgc_wse.place.search import PROVED, RUNS, Limits, NothingFound, search, spots_of
from cgc_wse.place.shelf import shelves
from cgc_wse.place.solution import PlacedKernel, Scored, area_of, score
from cgc_wse.place.starts import far, start_times
from cgc_wse.place.tree import Spot

FIRST_ROUNDS = 4
"""Rounds of annealing before the exact solver."""

SHELF_SHARE = 0.2
"""The part of a time limit that the baseline may take before the search."""

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
    bounder = Bounder(contest.engine)
    bounds = bounder.bounds()
    # The limit is on the whole process, which has been starting up before this.
    deadline = None if time_limit is None else began - _age() + max(time_limit * (1 - CLOSING[1]) - CLOSING[0], 0.0)
    limits = Limits(seed, workers=_workers(), deadline=deadline)
    now = time.monotonic()
    share = SHELF_SHARE if method != "shelf" else 1.0
    baseline = _baseline(contest, bounder, bounds, None if deadline is None else now + share * (deadline - now))
    if method == "shelf":
        if baseline is None:
            raise NothingFound("no shelves hold all kernels at any time")
        found = baseline
    else:
        found = _searched(contest, bounds, baseline, limits, method, report)
    areas = tuple(
        area_of(performance(kernel.convs, one.execution), one)
        for kernel, one in zip(contest.kernels, found.placed, strict=True)
    )
    seconds = time.monotonic() - began
    return Solved(found.placed, areas, found.scored, bounds, found.steps, found.cut, seconds)


@dataclass(frozen=True, slots=True)
class _Placed:
    """Rectangles of at most `ticks`, the solution in them and what it is worth; how the search went."""

    spots: list[Spot]
    ticks: int
    placed: tuple[PlacedKernel, ...]
    scored: Scored
    steps: int = 0
    cut: str = ""


def _placed(contest: Contest, spots: list[Spot], ticks: int, steps: int = 0, cut: str = "") -> _Placed:
    placed = realized(contest, spots)
    return _Placed(spots, ticks, placed, score(contest, placed), steps, cut)


def _baseline(contest: Contest, bounder: Bounder, bounds: Bounds, deadline: float | None) -> _Placed | None:
    """Return the kernels on shelves, None where no shelves hold them."""
    cut, limits = False, Limits(deadline=deadline)

    def hopeless(ticks: int, cost: float) -> bool:
        nonlocal cut
        cut = not limits.left()
        return cut or far(bounds.time, ticks) or bounder.hopeless(ticks, cost)

    found = shelves(contest.engine, start_times(bounds.time), hopeless)
    return None if found is None else _placed(contest, found[1], found[0], cut="the time limit" if cut else "")


def _searched(
    contest: Contest,
    bounds: Bounds,
    baseline: _Placed | None,
    limits: Limits,
    method: str,
    report: Callable[[PlaceProgress], None],
) -> _Placed:
    """Return the best of the search, and of the exact solver where that is the method; never worse than the baseline.

    Raises:
        NotInstalled: the method needs a library that is not there.
        NothingFound: none was found.
    """
    problem = contest.engine
    if method == "cpsat":
        available()
    if baseline is not None and baseline.scored.score <= bounds.score * (1 + PROVED):
        return baseline
    if method == "cpsat":
        limits = replace(limits, rounds=FIRST_ROUNDS)
    try:
        found = search(problem, limits, report, bounds)
        best = _placed(contest, spots_of(problem, found.best), found.best.time, found.steps, found.cut)
    except NothingFound:
        if baseline is None:
            raise
        best = replace(baseline, cut="")
    except KeyboardInterrupt:
        if baseline is None:
            raise
        best = replace(baseline, cut="an interrupt")
    stopped = best.cut
    if baseline is not None:
        # Where the clock cut the baseline, it may have decided which of the two is better.
        cut = stopped or baseline.cut
        best = replace(baseline if baseline.scored.score < best.scored.score else best, steps=best.steps, cut=cut)
    if method == "cpsat" and not stopped:
        report(PlaceProgress("cp-sat", 0, 1, best.scored.score, bounds.score))
        seconds = None if limits.deadline is None else limits.deadline - time.monotonic()
        exact = improve(problem, best.spots, best.ticks, bounds, limits.seed, seconds)
        cut = "the time limit" if exact.cut else best.cut
        better = _placed(contest, exact.spots, exact.time, best.steps, cut)
        best = better if better.scored.score <= best.scored.score else replace(best, cut=cut)
    return best


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
