"""Where the search starts: kernels in the order of the connections, in bands, for every number of bands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cgc_wse.place.anneal import Arrangement, wire
from cgc_wse.place.bands import Bands
from cgc_wse.place.bound import LONGEST
from cgc_wse.place.problem import CurveLibrary, PlaceProblem
from cgc_wse.place.tree import SlicingTree

LARGE = 48
"""A problem with more kernels than this goes without the largest cells, and without many bands."""

FAR = 16
"""Times from so many times the bound on are far from it."""


def order_of(problem: PlaceProblem) -> list[int]:
    """Return the kernels so that connections go forward where they can, each branch kept together."""
    count = len(problem.kernels)
    after: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for a, b in problem.nets:
        if a != b:
            after[a].append(b)
            waits[b] += 1
    left = dict.fromkeys(range(count))
    ready = [i for i in reversed(range(count)) if not waits[i]]
    order: list[int] = []
    while left:
        # In a circle nothing is ever ready: it is entered at its first kernel.
        kernel = ready.pop() if ready else next(iter(left))
        if kernel not in left:
            continue
        del left[kernel]
        order.append(kernel)
        for other in reversed(after[kernel]):
            waits[other] -= 1
            if waits[other] == 0:
                ready.append(other)
    return order


def cell_sizes(problem: PlaceProblem) -> tuple[int, ...]:
    """Return how many kernels a cell may have, one size after the other."""
    return (1, 2, 4, 8) if len(problem.kernels) <= LARGE else (1, 2, 4)


def start_times(least: int) -> list[int]:
    """Return the times that are tried: close to the bound in small steps, far from it in larger ones.

    Those that are `far` from it are for problems on which nothing is found before.
    """
    times: list[int] = []
    step, time = 0.004, float(least)
    while not far(least, int(time)):
        if not times or int(time) > times[-1]:
            times.append(int(time))
        time *= 1 + step
        step = min(step * 1.1, 0.08)
    while times[-1] < LONGEST:
        times.append(min(2 * times[-1], LONGEST))
    return times


def far(least: int, ticks: int) -> bool:
    """Tell whether a time is so far from the bound that it is of no use where there is a placement already."""
    return ticks >= FAR * (least + 1)


def banded(
    problem: PlaceProblem, longest: int, times: Sequence[int], go_on: Callable[[int, float], bool]
) -> list[Arrangement]:
    """Return the arrangements in bands of cells of up to `longest` kernels, the cheapest for each number of bands.

    `go_on` is asked whether it is worth while to try a time, where something is found that has some cost.
    """
    library = CurveLibrary(problem)
    order = order_of(problem)
    most = 24 if len(order) <= LARGE else 12
    found: dict[int, Arrangement] = {}
    for time in times:
        if found and not go_on(time, min(one.cost for one in found.values())):
            break
        bands = Bands(order, library.curves(time), (problem.columns, problem.rows), longest, most)
        for number in bands.fitting():
            arrangement = _arrangement(problem, bands, number, time, library)
            best = found.get(number)
            if best is None or arrangement.cost < best.cost:
                found[number] = arrangement
    return list(found.values())


def _arrangement(problem: PlaceProblem, bands: Bands, number: int, time: int, library: CurveLibrary) -> Arrangement:
    tree = SlicingTree(bands.tree(number), len(problem.kernels))
    tree.set_curves(library.curves(time))
    length = wire(tree.rectangles(problem.columns, problem.rows), problem.nets)
    return Arrangement(problem.tick_cost * time + problem.wire_cost * length, time, tree.nested())
