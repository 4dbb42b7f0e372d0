"""The simple baseline: kernels on shelves, all at one time, the best time of them all.

Shelf packing in decreasing height (Coffman, Garey, Johnson and Tarjan 1980) for kernels that can choose their
rectangle: for a time and a height of shelf every kernel takes the narrowest rectangle that is not higher, and shelves
are filled one after the other. All heights of shelves are tried, with kernels sorted by height and in the order of the
connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cgc_wse.place.anneal import wire
from cgc_wse.place.problem import CurveLibrary, PlaceProblem
from cgc_wse.place.shapes import Curve
from cgc_wse.place.starts import order_of
from cgc_wse.place.tree import Spot


def shelves(
    problem: PlaceProblem, times: Sequence[int], hopeless: Callable[[int, float], bool]
) -> tuple[int, list[Spot]] | None:
    """Return the best time and the rectangles at it, None where no shelves hold all kernels at any of the times.

    `times` rise; the search ends at one that is `hopeless` where something is found that has some cost.
    """
    library, order = CurveLibrary(problem), order_of(problem)
    best: tuple[float, int, list[Spot]] | None = None
    for time in times:
        if best is not None and hopeless(time, best[0]):
            break
        curves = library.curves(time)
        for height in _heights(problem.rows):
            for by_height in (False, True):
                spots = _packed(problem, curves, order, height, by_height)
                if spots is None:
                    continue
                cost = problem.tick_cost * time + problem.wire_cost * wire(spots, problem.nets)
                if best is None or cost < best[0]:
                    best = cost, time, spots
    return None if best is None else (best[1], best[2])


def _heights(rows: int) -> list[int]:
    return sorted({rows // count for count in range(1, min(rows, 40) + 1)}, reverse=True)


def _packed(
    problem: PlaceProblem, curves: Sequence[Curve], order: Sequence[int], shelf: int, by_height: bool
) -> list[Spot] | None:
    """Return rectangles on shelves of at most a height, or None where they do not fit on the grid."""
    sizes = []
    for curve in curves:
        width = curve.widths.item(shelf)
        if width > problem.columns:
            return None
        sizes.append((width, curve.heights.item(width)))
    sequence = sorted(order, key=lambda i: -sizes[i][1]) if by_height else order
    spots: list[Spot] = [(0, 0, 0, 0)] * len(sizes)
    x = y = height = 0
    for i in sequence:
        width, high = sizes[i]
        if x + width > problem.columns:
            x, y, height = 0, y + height, 0
        spots[i] = (x, y, width, high)
        x, height = x + width, max(height, high)
        if y + height > problem.rows:
            return None
    return spots
