"""Slicing trees by dynamic programming: kernels in a given order, cut into bands, each a row of small cells.

A cell is a few consecutive kernels in the best of all slicing trees that keep their order; a band is a row of cells;
bands lie on top of each other and run to the right and to the left in turn, so that what is connected stays close.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cgc_wse.place.shapes import Curve, Ints, inverted
from cgc_wse.place.tree import Nested


class Cells:
    """Curves of all runs of up to `longest` kernels, each in the best of all trees that keep its order."""

    def __init__(self, order: Sequence[int], curves: Sequence[Curve], longest: int) -> None:
        self.order = order
        self.curves: dict[tuple[int, int], Curve] = {(i, i + 1): curves[leaf] for i, leaf in enumerate(order)}
        """Curve of order[i:j], by (i, j)."""
        self._reach = len(curves[0].heights), len(curves[0].widths)
        alike: dict[tuple[int, ...], Curve] = {}
        for length in range(2, min(longest, len(order)) + 1):
            for i in range(len(order) - length + 1):
                key = tuple(id(curves[leaf].heights) for leaf in order[i : i + length])
                if key not in alike:
                    alike[key] = self._curve(i, i + length)
                self.curves[i, i + length] = alike[key]

    def _curve(self, i: int, j: int) -> Curve:
        parts = [(self.curves[i, k], self.curves[k, j]) for k in range(i + 1, j)]
        on_top, side = parts[0][0].heights + parts[0][1].heights, parts[0][0].widths + parts[0][1].widths
        for a, b in parts[1:]:
            on_top, side = np.minimum(on_top, a.heights + b.heights), np.minimum(side, a.widths + b.widths)
        heights = np.minimum(np.minimum(on_top, self._reach[1]), inverted(side, self._reach[0]))
        return Curve(heights, inverted(heights, self._reach[1]))

    def tree(self, i: int, j: int, width: int, height: int, *, backwards: bool = False) -> Nested:
        """Return a tree of order[i:j] that fits in a box in which its curve does."""
        if j - i == 1:
            return self.order[i]
        for k in range(i + 1, j):
            low, high = self.curves[i, k], self.curves[k, j]
            a, b = int(low.widths[height]), int(high.widths[height])
            if a + b <= width:
                one = self.tree(i, k, a, height, backwards=backwards)
                two = self.tree(k, j, b, height, backwards=backwards)
                return (False, two, one) if backwards else (False, one, two)
            a, b = int(low.heights[width]), int(high.heights[width])
            if a + b <= height:
                one = self.tree(i, k, width, a, backwards=backwards)
                return (True, one, self.tree(k, j, width, b, backwards=backwards))
        raise AssertionError("a cell's curve is that of one of its trees")


class Bands:
    """Curves of all cells and, made on demand, of all bands, for kernels in one order at one time."""

    def __init__(
        self, order: Sequence[int], curves: Sequence[Curve], limits: tuple[int, int], longest: int, most: int
    ) -> None:
        self.order, (self.columns, self.rows), self.most = order, limits, most
        self._cells = Cells(order, curves, longest)
        self.cells = self._cells.curves
        self.longest = longest
        self.best = self._best()

    def _best(self) -> list[list[tuple[int, int]]]:
        """Return, for each number of bands and of kernels in them, the least height and where the last starts."""
        count = len(self.order)
        heights = [self._least_heights(i) for i in range(count)]
        far = self.rows + 1
        rows = [[(0, 0)] + [(far, 0)] * count]
        for bands in range(1, min(self.most, count) + 1):
            row = [(far, 0)] * (count + 1)
            for i in range(bands - 1, count):
                before = rows[-1][i][0]
                if before < far:
                    for j, height in enumerate(heights[i], start=i + 1):
                        if before + height < row[j][0]:
                            row[j] = (before + height, i)
            rows.append(row)
        return rows

    def _least_heights(self, i: int) -> list[int]:
        """Return the least height of a band that starts at order[i] and ends before j, for j from i + 1 on."""
        widths = self._band(i, len(self.order))
        found = []
        for row in widths[1:]:
            fits = int(np.searchsorted(-row, -self.columns))
            if fits > self.rows:
                break
            found.append(fits)
        return found

    def _band(self, i: int, end: int) -> list[Ints]:
        """Return the least widths by height of order[i:i], order[i:i + 1] and so on up to order[i:end]."""
        nothing: Ints = np.zeros(self.rows + 1, dtype=np.int64)
        rows = [nothing]
        for j in range(i + 1, end + 1):
            first = max(i, j - self.longest)
            row = rows[first - i] + self.cells[first, j].widths[: self.rows + 1]
            for k in range(first + 1, j):
                row = np.minimum(row, rows[k - i] + self.cells[k, j].widths[: self.rows + 1])
            rows.append(row)
            if row[-1] > self.columns:
                break
        return rows

    def fitting(self) -> list[int]:
        """Return the numbers of bands with which everything fits on the grid."""
        return [bands for bands, row in enumerate(self.best) if bands and row[-1][0] <= self.rows]

    def _cuts(self, bands: int) -> list[tuple[int, int]]:
        cuts, end = [], len(self.order)
        for count in range(bands, 0, -1):
            start = self.best[count][end][1]
            cuts.append((start, end))
            end = start
        return cuts[::-1]

    def heights(self, bands: int) -> list[int]:
        """Return the heights of so many bands, which fit; what is left of the grid is shared out among them."""
        least = [self.best[i + 1][end][0] - self.best[i][start][0] for i, (start, end) in enumerate(self._cuts(bands))]
        spare = self.rows - sum(least)
        return [height + spare * (i + 1) // bands - spare * i // bands for i, height in enumerate(least)]

    def tree(self, bands: int) -> Nested:
        """Return the tree with so many bands, which fits."""
        whole: Nested | None = None
        for index, (start, end) in enumerate(self._cuts(bands)):
            band = self._band_tree(start, end, backwards=index % 2 == 1)
            whole = band if whole is None else (True, whole, band)
        assert whole is not None
        return whole

    def _band_tree(self, start: int, end: int, backwards: bool) -> Nested:
        rows = self._band(start, end)
        height = int(np.searchsorted(-rows[end - start], -self.columns))
        cells, j = [], end
        while j > start:
            k = min(
                range(max(start, j - self.longest), j),
                key=lambda k: rows[k - start][height] + self.cells[k, j].widths[height],
            )
            cells.append(self._cells.tree(k, j, int(self.cells[k, j].widths[height]), height, backwards=backwards))
            j = k
        if not backwards:
            cells.reverse()
        tree = cells[0]
        for cell in cells[1:]:
            tree = (False, tree, cell)
        return tree
