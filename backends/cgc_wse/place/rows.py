"""Slicing trees by dynamic programming over wire length: rows of columns, each of a few consecutive kernels.

For one time, and rows of given heights, the kernels are taken in order; every column is the narrowest that holds its
kernels in the row's height. The state is how many kernels are placed and how much of the row is used, so that the
cheapest choice of columns that fits is found exactly, for this estimate of the wire: a kernel is where its pattern says,
as a part of its column's width and of the row's height; a connection that leaves a column passes all of the columns
between; what leaves it starts from the middle of the row. Rows run to the right and to the left in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cgc_wse.place.problem import PlaceProblem
from cgc_wse.place.shapes import Curve, Ints, inverted
from cgc_wse.place.tree import Nested

if TYPE_CHECKING:
    from numpy.typing import NDArray

Costs: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the kernels of a column stand: cuts over their numbers, and the centre of each, x and y from 0 to 1."""

    nested: Nested
    centres: tuple[tuple[float, float], ...]


def _patterns(size: int) -> list[Nested]:
    """Return all trees of kernels 0 to size - 1 in order, of which the parts of a cut are cut the other way."""

    def trees(first: int, last: int, stacked: bool) -> list[Nested]:
        if last - first == 1:
            return [first]
        found: list[Nested] = []
        for middle in range(first + 1, last):
            heads = trees(first, middle, not stacked)
            tails = [*trees(middle, last, not stacked), *(trees(middle, last, stacked) if last - middle > 1 else [])]
            found += [(stacked, head, tail) for head in heads for tail in tails]
        return found

    return trees(0, size, True)


def _pattern(nested: Nested, size: int) -> Pattern:
    """Return a pattern with the centres its kernels have where all need the same area."""
    centres: dict[int, tuple[float, float]] = {}

    def leaves(part: Nested) -> int:
        return 1 if isinstance(part, int) else leaves(part[1]) + leaves(part[2])

    def put(part: Nested, x: float, y: float, width: float, height: float) -> None:
        if isinstance(part, int):
            centres[part] = (x + width / 2, y + height / 2)
            return
        stacked, first, second = part
        share = leaves(first) / leaves(part)
        if stacked:
            put(first, x, y, width, share * height)
            put(second, x, y + share * height, width, height - share * height)
        else:
            put(first, x, y, share * width, height)
            put(second, x + share * width, y, width - share * width, height)

    put(nested, 0.0, 0.0, 1.0, 1.0)
    return Pattern(nested, tuple(centres[i] for i in range(size)))


def joined(parts: Sequence[Nested], *, stacked: bool) -> Nested:
    """Return one tree of several, side by side or on top of each other."""
    whole = parts[0]
    for part in parts[1:]:
        whole = (stacked, whole, part)
    return whole


def patterns(most: int) -> tuple[Pattern, ...]:
    """Return the patterns of columns of up to `most` kernels."""
    return tuple(_pattern(nested, size) for size in range(1, most + 1) for nested in _patterns(size))


class Order:
    """Kernels in one order, and the wire that columns of them add: what does not depend on time."""

    def __init__(self, problem: PlaceProblem, order: Sequence[int], most: int) -> None:
        self.problem, self.order = problem, order
        place = {kernel: position for position, kernel in enumerate(order)}
        self.nets = [sorted((place[a], place[b])) for a, b in problem.nets if a != b]
        ending: list[list[tuple[int, int]]] = [[] for _ in order]
        for a, b in self.nets:
            ending[a].append((a, b))
            ending[b].append((a, b))
        over = [0] * (len(order) + 1)
        for a, b in self.nets:
            for position in range(a + 1, b):
                over[position] += 1
        self.columns = [
            (start, len(pattern.centres), pattern, *self._wire(start, pattern, ending, over))
            for start in range(len(order))
            for pattern in patterns(most)
            if start + len(pattern.centres) <= len(order)
        ]
        """Where a column starts, its size, its pattern, and its wire by its width and by its row's height."""

    def _wire(
        self, start: int, pattern: Pattern, ending: list[list[tuple[int, int]]], over: list[int]
    ) -> tuple[float, float]:
        size = len(pattern.centres)
        inside = {net for position in range(start, start + size) for net in ending[position]}
        whole = [net for net in inside if start <= net[0] and net[1] < start + size]
        # A connection that passes over the whole column passes over its first kernel and does not end in the column.
        passing = over[start] - sum(1 for a, b in inside if a < start < b)
        across, along = float(passing), 0.0
        for a, b in whole:
            (ax, ay), (bx, by) = pattern.centres[a - start], pattern.centres[b - start]
            across, along = across + abs(ax - bx), along + abs(ay - by)
        for a, b in inside:
            if b >= start + size:
                x, y = pattern.centres[a - start]
                across, along = across + 1 - x, along + abs(y - 0.5)
            elif a < start:
                x, y = pattern.centres[b - start]
                across, along = across + x, along + abs(y - 0.5)
        return across, along


class Rows:
    """Columns of kernels in one order at one time: the least cost of rows of any heights."""

    def __init__(self, order: Order, curves: Sequence[Curve]) -> None:
        self.order = order
        rows = len(curves[0].widths)
        shapes: dict[tuple[int, ...], Ints] = {}
        self.widths: list[Ints] = []
        """For every column of the order its least width by height."""
        for start, size, pattern, _, _ in order.columns:
            kernels = tuple(order.order[start : start + size])
            key = (id(pattern), *(id(curves[kernel].heights) for kernel in kernels))
            if key not in shapes:
                shapes[key] = _curve(pattern.nested, [curves[kernel] for kernel in kernels], rows).widths
            self.widths.append(shapes[key])

    def cheapest(self, heights: Sequence[int]) -> float:
        """Return the wire of the cheapest choice of columns, infinite where nothing fits."""
        return float(self._costs(heights)[-1][-1].min())

    def _costs(self, heights: Sequence[int]) -> list[Costs]:
        """Return for every row, by kernels placed and width used, the least cost."""
        count, width = len(self.order.order), self.order.problem.columns
        begin = np.full(count + 1, np.inf)
        begin[0] = 0.0
        found = []
        for index, height in enumerate(heights):
            costs = np.full((count + 1, width + 1), np.inf)
            costs[:, 0] = begin
            for (start, size, _, across, along), widths in zip(self.order.columns, self.widths, strict=True):
                wide = widths.item(height)
                if wide <= width:
                    to = costs[start + size, wide:]
                    np.minimum(to, costs[start, : width + 1 - wide] + (wide * across + height * along), out=to)
            found.append(costs)
            after = heights[index + 1] if index + 1 < len(heights) else 0
            begin = costs.min(axis=1) + (height + after) / 2
        return found

    def tree(self, heights: Sequence[int]) -> Nested:
        """Return the tree of the cheapest choice of columns, of which there is one."""
        found = self._costs(heights)
        by_end: dict[int, list[int]] = {}
        for number, (start, size, *_) in enumerate(self.order.columns):
            by_end.setdefault(start + size, []).append(number)
        end, rows = len(self.order.order), []
        for index in reversed(range(len(found))):
            row = self._row(found[index], heights[index], end, by_end)
            backwards = index % 2 == 1
            parts = [self._column(number, backwards) for number in (row if backwards else row[::-1])]
            end = self.order.columns[row[-1]][0] if row else end
            if parts:
                rows.append(joined(parts, stacked=False))
        return joined(rows[::-1], stacked=True)

    def _row(self, costs: Costs, height: int, end: int, by_end: dict[int, list[int]]) -> list[int]:
        """Return the columns of a row, the last one first."""
        used, row = int(costs[end].argmin()), []
        while used > 0:
            best, chosen = np.inf, -1
            for number in by_end[end]:
                start, _, _, across, along = self.order.columns[number]
                wide = self.widths[number].item(height)
                if wide <= used:
                    cost = costs.item(start, used - wide) + (wide * across + height * along)
                    if cost < best:
                        best, chosen = cost, number
            row.append(chosen)
            used -= self.widths[chosen].item(height)
            end = self.order.columns[chosen][0]
        return row

    def _column(self, number: int, backwards: bool) -> Nested:
        start, _, pattern, _, _ = self.order.columns[number]
        return _placed(pattern.nested, self.order.order, start, backwards)


def _curve(nested: Nested, curves: Sequence[Curve], rows: int) -> Curve:
    if isinstance(nested, int):
        return curves[nested]
    stacked, first, second = nested
    one, two = _curve(first, curves, rows), _curve(second, curves, rows)
    if stacked:
        heights = one.heights + two.heights
        return Curve(heights, inverted(heights, rows))
    widths = one.widths + two.widths
    return Curve(inverted(widths, len(one.heights)), widths)


def _placed(nested: Nested, order: Sequence[int], start: int, backwards: bool) -> Nested:
    if isinstance(nested, int):
        return order[start + nested]
    stacked, first, second = nested
    one, two = _placed(first, order, start, backwards), _placed(second, order, start, backwards)
    return (stacked, two, one) if backwards and not stacked else (stacked, one, two)
