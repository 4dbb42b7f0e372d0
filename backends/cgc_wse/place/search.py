"""The search: bounds, starts, then rounds of simulated annealing, each from the best arrangements so far.

The rounds, their lengths and their random numbers depend on the problem and the seed only. A round is several runs that
do not know of each other and may be worked on by several processes: how many changes nothing but the time it takes.
Where the time limit or an interrupt cuts the search, the best so far is kept, and the result says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from cgc.services import PlaceProgress
from cgc_wse.place.anneal import Annealer, Arrangement, Schedule
from cgc_wse.place.bound import Bounder, Bounds
from cgc_wse.place.problem import CurveLibrary, PlaceProblem
from cgc_wse.place.starts import banded, cell_sizes, far, start_times
from cgc_wse.place.tree import SlicingTree, Spot

RUNS = 2
"""Runs of a round."""

ROUNDS = 32
"""Rounds, where nobody says otherwise."""

MARGIN = 0.12
"""By how much a tree may be longer than the grid while it changes."""

LEVEL = 1.001
"""The ratio of neighbouring times."""

KEPT = 6
"""Arrangements that are kept from round to round."""

FAST = 2
"""So many of them are the cheapest of those near the bound on time, where there are any."""

NEAR = 1.05
"""Times up to this many times the bound are near it."""

WORTH = 0.01
"""A fast arrangement is preferred to one that costs less by no more than this part."""

PATIENCE = 10
"""A search ends after so many rounds that found nothing better."""

PROVED = 5e-4
"""A search ends where the best is so close to the bound."""

HEATS = (0.002, 0.006, 0.001, 0.003)
"""Temperatures at which runs start, as parts of the best cost; a run ends at `COLD`."""

COLD = 5e-5


@dataclass(frozen=True, slots=True)
class Limits:
    """How much to search: `rounds` of annealing with `seed`, on `workers` processes, until `deadline` (monotonic
    seconds).
    """

    seed: int = 0
    rounds: int = ROUNDS
    workers: int = 1
    deadline: float | None = None

    def left(self) -> bool:
        """Return whether there is time left."""
        return self.deadline is None or time.monotonic() < self.deadline


@dataclass(frozen=True, slots=True)
class Found:
    """The best arrangement, the bounds, steps of annealing made, and what cut the search, if anything did."""

    best: Arrangement
    bounds: Bounds
    steps: int
    cut: str


class NothingFound(Exception):
    """No arrangement was found, though by area there may be one."""


def search(
    problem: PlaceProblem, limits: Limits, report: Callable[[PlaceProgress], None], known: Bounds | None = None
) -> Found:
    """Return the best arrangement found. Bounds that are `known` are not worked out again.

    Raises:
        Unplaceable: there is none.
        NothingFound: there may be one.
    """
    bounds = known or Bounder(problem).bounds()
    pool: list[Arrangement] = []
    steps, cut = 0, ""
    with _workers(limits.workers) as executor:
        try:
            pool = _starts(problem, bounds, executor, limits.deadline)
            report(PlaceProgress("bands", 0, limits.rounds, pool[0].cost if pool else None, bounds.score))
            since, best = 0, float("inf")
            for number in range(limits.rounds if pool else 0):
                since, best = (since + 1, best) if pool[0].cost >= best else (0, pool[0].cost)
                if since > PATIENCE or best <= bounds.score * (1 + PROVED):
                    break
                if not limits.left():
                    cut = "the time limit"
                    break
                results = _round(problem, bounds, pool, number, limits, executor)
                pool = _best([*pool, *(best for best, _, _ in results)], bounds)
                steps += sum(made for _, made, _ in results)
                report(PlaceProgress("annealing", number + 1, limits.rounds, pool[0].cost, bounds.score))
                if any(stopped for _, _, stopped in results):
                    cut = "the time limit"
                    break
        except KeyboardInterrupt:
            if not pool:
                raise
            cut = "an interrupt"
    if not pool:
        raise NothingFound("no arrangement in bands was found at any time")
    return Found(_chosen(pool, bounds), bounds, steps, cut)


def _starts(problem: PlaceProblem, bounds: Bounds, executor: Executor, deadline: float | None) -> list[Arrangement]:
    sizes = reversed(cell_sizes(problem))
    jobs = [executor.submit(_banded, problem, size, bounds.time, deadline) for size in sizes]
    return _best([one for job in jobs for one in job.result()], bounds)


def _banded(problem: PlaceProblem, longest: int, least: int, deadline: float | None) -> list[Arrangement]:
    bounder, limits = Bounder(problem), Limits(deadline=deadline)

    def go_on(ticks: int, cost: float) -> bool:
        return limits.left() and not far(least, ticks) and not bounder.hopeless(ticks, cost)

    return banded(problem, longest, start_times(least), go_on)


def _best(arrangements: Sequence[Arrangement], bounds: Bounds) -> list[Arrangement]:
    """Return the cheapest ones, and at the end the cheapest fast ones; no two the same."""
    kept: list[Arrangement] = []
    for one in sorted(arrangements, key=lambda one: one.cost):
        if all(one.nested != other.nested for other in kept):
            kept.append(one)
    fast = [one for one in kept[KEPT - FAST :] if one.time <= NEAR * bounds.time]
    return [*kept[: KEPT - FAST], *fast[:FAST]]


def _chosen(pool: Sequence[Arrangement], bounds: Bounds) -> Arrangement:
    """Return the cheapest arrangement; a fast one instead where that costs hardly more."""
    fast = [one for one in pool if one.time <= NEAR * bounds.time and one.cost <= pool[0].cost * (1 + WORTH)]
    return fast[0] if fast else pool[0]


def _round(
    problem: PlaceProblem, bounds: Bounds, pool: list[Arrangement], number: int, limits: Limits, executor: Executor
) -> list[tuple[Arrangement, int, bool]]:
    """Return what each run found, its steps and whether it was stopped."""
    jobs: list[Future[tuple[Arrangement, int, bool]]] = []
    for run in range(RUNS):
        index = number * RUNS + run
        # At first every start has its turn; then the best ones, the very best most often.
        start = pool[index] if index < len(pool) else pool[(0, -1, 0, 1, 0, -2, 2, 3)[index % 8] % len(pool)]
        hot = HEATS[number % len(HEATS)]
        jobs.append(executor.submit(_run, problem, bounds.time, start, (limits.seed, index), hot, limits.deadline))
    return [job.result() for job in jobs]


def steps_of(problem: PlaceProblem) -> int:
    """Return the steps of one run of annealing: fewer where each takes long, or where there is little to change."""
    count = len(problem.kernels)
    return min(1000 * count, max(2000, 600_000 // (count + 16)))


def _run(
    problem: PlaceProblem,
    least: int,
    start: Arrangement,
    seed: tuple[int, int],
    hot: float,
    deadline: float | None,
) -> tuple[Arrangement, int, bool]:
    limits = Limits(deadline=deadline)
    levels = [min(least, start.time)]
    while levels[-1] < 2 * start.time:
        levels.append(max(levels[-1] + 1, int(levels[-1] * LEVEL)))
    random = Random(f"{seed[0]} {seed[1]}")
    annealer = Annealer(problem, CurveLibrary(problem, MARGIN), levels, random)
    steps = steps_of(problem)
    best, made = annealer.run(start, Schedule(steps, hot * start.cost, COLD * start.cost), limits.left)
    return best, made, not limits.left()


def spots_of(problem: PlaceProblem, arrangement: Arrangement) -> list[Spot]:
    """Return the rectangles of an arrangement."""
    tree = SlicingTree(arrangement.nested, len(problem.kernels))
    tree.set_curves(CurveLibrary(problem).curves(arrangement.time))
    return tree.rectangles(problem.columns, problem.rows)


class _Here(Executor):
    """Runs everything at once, in this process."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Run it."""
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _workers(count: int) -> Iterator[Executor]:
    if count <= 1:
        yield _Here()
        return
    import multiprocessing
    import signal
    from concurrent.futures import ProcessPoolExecutor

    executor = ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield executor
    except BaseException:
        for process in executor._processes.values():
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
