"""The cycles of a block on all rectangles, as the placement engine asks for them (`place.blocks.Sized`)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np

from cgc_wse.cost import Cycles
from cgc_wse.op_cost import Cost
from cgc_wse.place.blocks import least_heights
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.shapes import Curve, Ints

NEAR = 1.05
"""Ways to run a block that take so many times the cores of another are not looked at."""

FOLDS = 64
"""A side is folded into so many rows at most."""

PAIRS = 16
"""So many pairs of sides, those with the fewest cores, are tried for a rectangle."""


class RectangleTimes:
    """The cycles of a block on A · B cores, for many A and B, and the rectangles that have so many.

    A rectangle of w · h cores has A · B where A ⌈B / w⌉ ≤ h, or with A and B, or w and h the other way round: several
    rows are taken together where B is longer than one of them.
    """

    def __init__(self, cost: Cost, sides: Ints, border: tuple[float, float]) -> None:
        """Prepare from the cycles on each pair of sides; `border` is as in `block_cost.Passing`."""
        self._cost = cost
        self._sides = sides
        self._total = cost.total
        self._border = border
        self._falling = np.minimum.accumulate(self._total, axis=1)
        self._known: dict[float, tuple[Ints, Ints]] = {}
        self._fewest: dict[float, int] = {}
        self._curves: dict[tuple[float, int, int], Ints] = {}
        self.slowest = float(self._total[0, 0]) + sum(border)
        """Cycles on one core."""
        self.work = float((sides[:, None] * sides[None, :] * self._total).min())
        """Cycles of one core, where cores are used best."""

    def _pairs(self, cycles: float) -> tuple[Ints, Ints]:
        """Return the A and B with the fewest cores on which it takes at most `cycles` cycles."""
        if cycles not in self._known:
            enough = self._total <= cycles
            first = np.where(enough.any(axis=1), enough.argmax(axis=1), len(self._sides))
            # With A rising, only a B that falls is worth more cores.
            best = np.minimum.accumulate(np.concatenate(([len(self._sides)], first)))
            better = np.flatnonzero(best[1:] < best[:-1])
            a, b = self._sides[better], self._sides[first[better]]
            near = np.argsort(a * b, kind="stable")[:PAIRS]
            self._known[cycles] = a[near], b[near]
        return self._known[cycles]

    def sides(self, cycles: float) -> tuple[int, int]:
        """Return the least short and long side over which all that crosses the border does so in time."""
        few, many = (max(1, ceil(one / cycles * (1 - 1e-12))) for one in self._border)
        return few, many

    def cores(self, cycles: float) -> int:
        """Return the fewest cores on which it takes at most `cycles` cycles; 0 where none are enough."""
        if cycles not in self._fewest:
            (a, b), (short, long) = self._pairs(cycles), self.sides(cycles)
            self._fewest[cycles] = max(int((a * b).min()), short * long) if len(a) else 0
        return self._fewest[cycles]

    def heights(self, cycles: float, columns: int, rows: int) -> Ints:
        """Return the least height for each width from 0; `rows` + 1 where none is enough."""
        key = cycles, columns, rows
        if key not in self._curves:
            a, b = self._pairs(cycles)
            # The smallest rectangles: one side folded, the other as often as long.
            folds = np.arange(1, FOLDS + 1)[:, None]
            sides = [(-(-one // folds), other * folds) for one, other in ((a, b), (b, a))]
            across = np.concatenate([side.reshape(-1) for two in sides for side in two])
            up = np.concatenate([side.reshape(-1) for two in sides for side in two[::-1]])
            fit = (across <= columns) & (up <= rows)
            heights = np.full(columns + 1, rows + 1)
            np.minimum.at(heights, across[fit], up[fit])
            crossing = least_heights(columns, rows, 1, *self.sides(cycles))
            self._curves[key] = np.maximum(np.minimum.accumulate(heights), crossing)
        return self._curves[key]

    def cycles(self, area: Rectangle) -> Cycles:
        """Return the cycles on a rectangle, of the part of it that is used."""
        a, longest = self._sides, np.zeros_like(self._sides)
        for width, height in ((area.width, area.height), (area.height, area.width)):
            # The largest B with A ⌈B / w⌉ ≤ h, and with B ⌈A / w⌉ ≤ h.
            longest = np.maximum(longest, np.maximum(width * (height // a), height // -(-a // width)))
        last = np.searchsorted(self._sides, longest, side="right") - 1
        times = np.where(last >= 0, self._falling[np.arange(len(a)), last], inf)
        row = int(times.argmin())
        at = row, int(self._total[row, : last[row] + 1].argmin())
        short, long = sorted((area.width, area.height))
        border = max(self._border[0] / short, self._border[1] / long)
        inside = self._cost.cycles(*at)
        return replace(inside, fabric=max(inside.fabric, border))


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a block: its times with `room` bytes of a core for vectors on their way, and the cores it needs
    for what it holds beside them.
    """

    times: RectangleTimes
    room: int
    least: int


def _holding(way: Way, cores: int, cycles: float, columns: int, rows: int) -> Ints:
    """Return the least height for each width at which a way is fast enough and has room for what the block holds."""
    heights = way.times.heights(cycles, columns, rows)
    if way.least < cores:
        return heights
    held: Ints = -(-way.least // np.maximum(np.arange(columns + 1), 1))
    held[0] = rows + 1
    return np.minimum(np.maximum(heights, held), rows + 1)


@dataclass(frozen=True, slots=True, eq=False)
class TimedBlock:
    """A block as the placement engine sees it (`Sized`): on every rectangle it takes the best of its ways."""

    ways: tuple[Way, ...]

    @property
    def work(self) -> float:
        """Cycles of one core, where cores are used best."""
        return min(way.times.work for way in self.ways)

    @property
    def least(self) -> int:
        """Cores for what it holds."""
        return min(way.least for way in self.ways)

    @property
    def slowest(self) -> float:
        """Cycles on one core."""
        return max(way.times.slowest for way in self.ways)

    def cores(self, cycles: float, columns: int, rows: int) -> int | None:
        """Return the fewest cores on which it takes at most `cycles` cycles; None where the grid has too few."""
        least = min((cores for cores, _ in self._possible(cycles)), default=0)
        return least if 0 < least <= columns * rows else None

    def _possible(self, cycles: float) -> list[tuple[int, Way]]:
        """Return the ways in which it takes at most `cycles` cycles, with the fewest cores for each."""
        return [(max(cores, way.least), way) for way in self.ways for cores in [way.times.cores(cycles)] if cores]

    @property
    def key(self) -> Hashable:
        """What blocks of the same curve have in common."""
        return self.ways

    def curve(self, cycles: float, columns: int, rows: int) -> Curve:
        """Return its curve on a grid."""
        heights = self._heights(cycles, columns, rows)
        return Curve(heights, heights if columns == rows else self._heights(cycles, rows, columns))

    def _heights(self, cycles: float, columns: int, rows: int) -> Ints:
        possible = self._possible(cycles)
        if not possible:
            return np.full(columns + 1, rows + 1)
        fewest = min(cores for cores, _ in possible)
        # Ways that take many more cores are no use in any rectangle.
        heights = [_holding(way, cores, cycles, columns, rows) for cores, way in possible if cores <= NEAR * fewest]
        return heights[0] if len(heights) == 1 else np.minimum.reduce(heights)

    def best(self, area: Rectangle) -> tuple[Cycles, int]:
        """Return the cycles on a rectangle that is large enough for what it holds, and the bytes of its buffers."""
        possible = [way for way in self.ways if way.least <= area.cores]
        timed = [(way.times.cycles(area), way.room) for way in possible]
        return min(timed, key=lambda one: one[0].total)

    def cycles(self, area: Rectangle) -> Cycles:
        """Return the cycles on a rectangle, without an end where it has too few cores for what it holds."""
        return self.best(area)[0] if area.cores >= self.least else Cycles(inf, inf, inf)

    def time(self, area: Rectangle) -> float:
        """Return the cycles it takes on a rectangle."""
        return self.cycles(area).total
