"""What no placement can beat: certified lower bounds on the slowest kernel's time and on the score.

time    Within time t a kernel needs at least its smallest rectangle. The least t at which the smallest rectangles of
        all kernels fit on the grid by area, each with its sides, bounds the slowest kernel's time.
wire    Two rectangles that do not overlap are apart along x or along y, so their centres are at least half the sum of
        their shorter sides apart. Long and thin rectangles make this small but need more area than others, and the area
        of all together is the grid's; with a price p ≥ 0 on area (Lagrange),
            wire ≥ sum over kernels of min over rectangles of (degree/2 · shorter side + p · area) - p · grid's area.
score   Both bounds go together: tick_cost · t + wire_cost · wire(t), at its least over all t. wire(t) never rises with
        t, so for all t from a to b the score is at least tick_cost · a + wire_cost · wire(b).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush

import numpy as np

from cgc_wse.place.problem import PlaceKernel, PlaceProblem
from cgc_wse.place.shapes import Ints

LONGEST = 1 << 61
"""Ticks that no kernel takes."""

PRECISION = 2e-4
"""The bound on the score is that close to the best of its kind."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """No placement has a slowest kernel faster than `time` ticks, or a score under `score`."""

    time: int
    score: float


class Unplaceable(Exception):
    """No placement exists: a kernel fits in no rectangle of the grid, or all together are too large."""


def rectangles(kernel: PlaceKernel, time: int, problem: PlaceProblem) -> tuple[Ints, Ints]:
    """Return the sides (x, y) of rectangles on the grid: every legal one is at least as large as one of them."""
    a, b = kernel.corners(time, problem.side)
    x, y = np.concatenate((a, b)), np.concatenate((b, a))
    fit = (x <= problem.columns) & (y <= problem.rows)
    return x[fit], y[fit]


class Bounder:
    """Bounds of one problem; what kernels that are alike need is worked out once."""

    def __init__(self, problem: PlaceProblem) -> None:
        self.problem = problem
        degrees = [0] * len(problem.kernels)
        for a, b in problem.nets:
            if a != b:
                degrees[a] += 1
                degrees[b] += 1
        groups: dict[object, list[int]] = {}
        for index, kernel in enumerate(problem.kernels):
            groups.setdefault(kernel.alike, []).append(index)
        self.kinds = [(problem.kernels[found[0]], [degrees[i] for i in found]) for found in groups.values()]
        self.area = problem.columns * problem.rows
        self.wire = lru_cache(maxsize=None)(self._wire)

    def fits(self, time: int) -> bool:
        """Return whether the smallest rectangles fit on the grid by area."""
        area = 0
        for kernel, degrees in self.kinds:
            x, y = rectangles(kernel, time, self.problem)
            if not len(x):
                return False
            area += len(degrees) * int((x * y).min())
            if area > self.area:
                return False
        return True

    def time(self) -> int:
        """Return the bound on the slowest kernel's time, in ticks.

        Raises:
            Unplaceable: there is no placement at any time.
        """
        low, high = 0, 1
        while not self.fits(high):
            if high == LONGEST:
                raise Unplaceable(self._why())
            low, high = high, min(4 * high, LONGEST)
        while high - low > 1:
            middle = (low + high) // 2
            if self.fits(middle):
                high = middle
            else:
                low = middle
        return high

    def _why(self) -> str:
        columns, rows = self.problem.columns, self.problem.rows
        least = 0
        for kernel, degrees in self.kinds:
            x, y = rectangles(kernel, LONGEST, self.problem)
            if not len(x):
                return f"`{kernel.name}` fits in no rectangle on a grid of {columns} x {rows}"
            least += len(degrees) * int((x * y).min())
        return f"the kernels need {least:,} cores at least, a grid of {columns} x {rows} has {self.area:,}"

    def _wire(self, time: int) -> float:
        """Return the bound on the wire length where no kernel takes more than `time` ticks."""
        choices = []
        for kernel, degrees in self.kinds:
            x, y = rectangles(kernel, time, self.problem)
            choices.append((np.minimum(x, y) / 2, (x * y).astype(float), degrees))

        def at(price: float) -> tuple[float, float]:
            """Return the bound at a price, and by how much the area chosen is over the grid's."""
            total, area = 0.0, 0.0
            for half, size, degrees in choices:
                for degree in set(degrees):
                    best = int((degree * half + price * size).argmin())
                    count = degrees.count(degree)
                    total += count * float(degree * half[best] + price * size[best])
                    area += count * float(size[best])
            return total - price * self.area, area - self.area

        best, over = at(0.0)
        if over <= 0:
            return best
        low, high = 0.0, 1.0 / self.area
        while at(high)[1] > 0 and high < 1e6:
            low, high = high, 4 * high
        for _ in range(24):
            middle = (low + high) / 2
            value, over = at(middle)
            best = max(best, value)
            low, high = (middle, high) if over > 0 else (low, middle)
        return best

    def score(self, least: int) -> float:
        """Return the bound on the score; no kernel set is faster than `least` ticks."""
        problem = self.problem

        def at(low: int, high: int) -> float:
            return problem.tick_cost * low + problem.wire_cost * self.wire(high)

        queue: list[tuple[float, int, int]] = []
        low = least
        while low < LONGEST:
            # Past the point where time alone costs more than the best interval, nothing can be better.
            if queue and problem.tick_cost * low > min(at(one[1], one[1]) for one in queue):
                break
            high = low + max(1, low // 4)
            heappush(queue, (at(low, high), low, high))
            low = high
            if problem.tick_cost == 0 or len(queue) > MOST_INTERVALS:
                heappush(queue, (at(low, LONGEST), low, LONGEST))
                break
        while True:
            bound, low, high = heappop(queue)
            if high - low <= 1 or high - low < PRECISION * low:
                return bound
            middle = (low + high) // 2
            heappush(queue, (max(bound, at(low, middle)), low, middle))
            heappush(queue, (max(bound, at(middle, high)), middle, high))

    def hopeless(self, time: int, cost: float) -> bool:
        """Return whether no placement whose slowest kernel takes `time` ticks or more costs less than `cost`."""
        return self.problem.tick_cost * time + self.problem.wire_cost * self.wire(LONGEST) >= cost

    def bounds(self) -> Bounds:
        """Return both bounds.

        Raises:
            Unplaceable: there is no placement at any time.
        """
        time = self.time()
        return Bounds(time, self.score(time))


MOST_INTERVALS = 64
"""Intervals of time, each a quarter longer than the one before, that are told apart at first."""
