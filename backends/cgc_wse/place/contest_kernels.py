"""The kernels of the ISPD 2020 contest: what rectangle they need, and how long they take, by execution parameters.

    conv(H, W, R, S, C, K, T; h', w', c', k'):  height = h'·w'·(c' + 1)   width = 3·k'
        time   = ⌈H/h'⌉·⌈W/w'⌉·⌈C/c'⌉·⌈K/k'⌉·R·S / T²
        memory = C/c'·K/k'·R·S + (W + S - 1)/w'·(H + R - 1)/h'·K/k'      (words)

A block is several convs side by side that share h' and w': its height, time and memory are the largest of its convs',
its width their sum. A conv is a block of one. (ISPD 2020 contest: Wafer-Scale Deep Learning Accelerator Placement.)
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from math import lcm
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from cgc_wse.place.shapes import Ints

Kind: TypeAlias = Literal["conv", "dblock", "cblock"]

FORMALS: Mapping[Kind, tuple[str, ...]] = {
    "conv": ("H", "W", "R", "S", "C", "K", "T"),
    "dblock": ("H", "W", "F"),
    "cblock": ("H", "W", "F"),
}
"""The formal arguments of each kind of kernel, in the order in which a solution lists them."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of C to K channels with R × S taps and stride T over H × W points."""

    H: int
    W: int
    R: int
    S: int
    C: int
    K: int
    T: int


@dataclass(frozen=True, slots=True)
class Execution:
    """Execution parameters: h' and w', which the convs of a block share, and c' and k' of each conv."""

    h: int
    w: int
    c: tuple[int, ...]
    k: tuple[int, ...]

    def listed(self) -> tuple[int, ...]:
        """Return the parameters in the order of a solution."""
        return (self.h, self.w, *self.c, *self.k)


@dataclass(frozen=True, slots=True)
class Performance:
    """What a kernel needs before it is turned: cores along y and x, time, words of memory a core."""

    height: int
    width: int
    time: Fraction
    memory: Fraction


def convs_of(kind: Kind, formals: tuple[int, ...]) -> tuple[Conv, ...]:
    """Return the convolutions of a kernel, from left to right; `formals` are in the order of `FORMALS`.

    Raises:
        ValueError: the channels of a block cannot be divided, or its points halved; the message says how.
    """
    if kind == "conv":
        return (Conv(*formals),)
    height, width, filters = formals
    if filters % 4:
        raise ValueError(f"its F = {filters} is not a multiple of 4")
    quarter, half = filters // 4, filters // 2
    if kind == "dblock":
        return (
            Conv(height, width, 1, 1, filters, quarter, 1),
            Conv(height, width, 3, 3, quarter, quarter, 1),
            Conv(height, width, 1, 1, quarter, filters, 1),
        )
    if height % 2 or width % 2:
        raise ValueError(f"its H = {height} and W = {width} cannot be halved")
    return (
        Conv(height, width, 1, 1, half, quarter, 1),
        Conv(height, width, 3, 3, quarter, quarter, 2),
        Conv(height // 2, width // 2, 1, 1, quarter, filters, 1),
        Conv(height, width, 1, 1, half, filters, 2),
    )


def performance(convs: tuple[Conv, ...], execution: Execution) -> Performance:
    """Return what a kernel needs with these execution parameters, all of which are at least 1."""
    h, w = execution.h, execution.w
    area, times, memories = h * w, [], []
    for conv, c, k in zip(convs, execution.c, execution.k, strict=True):
        steps = ceil_div(conv.H, h) * ceil_div(conv.W, w) * ceil_div(conv.C, c) * ceil_div(conv.K, k)
        times.append(Fraction(steps * conv.R * conv.S, conv.T * conv.T))
        filters = Fraction(conv.K, k)
        points = Fraction((conv.W + conv.S - 1) * (conv.H + conv.R - 1), area)
        memories.append(filters * (Fraction(conv.C * conv.R * conv.S, c) + points))
    return Performance(area * (max(execution.c) + 1), 3 * sum(execution.k), max(times), max(memories))


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class ContestKernel:
    """A kernel of a problem. Its times are counted in ticks, of which `ticks` make a unit of the contest's."""

    name: str
    kind: Kind
    formals: tuple[int, ...]
    convs: tuple[Conv, ...]
    memory_limit: int
    ticks: int

    @property
    def alike(self) -> Hashable:
        """Equal for kernels that need the same rectangles."""
        return self.convs

    def corners(self, time: int, side: int) -> tuple[Ints, Ints]:
        """Return sides of rectangles in which it takes at most `time` ticks: (x sides, y sides), turned ones left out.

        Every legal rectangle with sides up to `side` that is not turned contains one of these.
        """
        table = _table(self.convs, self.memory_limit, self.ticks, side)
        return table.widths(time), table.height

    def realize(self, width: int, height: int, side: int) -> tuple[Execution, bool] | None:
        """Return the fastest execution parameters in a box, and whether the kernel is turned; None if it is too small.

        Of equally fast ones the smaller rectangle is taken, then the one that is not turned.
        """
        table = _table(self.convs, self.memory_limit, self.ticks, side)
        if not self._fits(table, table.slowest, width, height):
            return None
        time = self._bisect(table, table.slowest, width, height)
        found = []
        for turned, (x, y) in enumerate(((width, height), (height, width))):
            execution = table.smallest(time, x, y)
            if execution is not None:
                needs = performance(self.convs, execution)
                found.append((needs.time, needs.width * needs.height, turned, execution))
        _, _, turned, execution = min(found, key=lambda one: one[:3])
        return execution, bool(turned)

    def _fits(self, table: _Table, time: int, width: int, height: int) -> bool:
        x = table.widths(time)
        return bool((((x <= width) & (table.height <= height)) | ((x <= height) & (table.height <= width))).any())

    def _bisect(self, table: _Table, enough: int, width: int, height: int) -> int:
        low, high = 0, enough
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(table, middle, width, height):
                high = middle
            else:
                low = middle
        return high


def ticks_of(convs: list[Conv]) -> int:
    """Return how many ticks make a unit of time, so that all times are whole ticks."""
    return reduce(lcm, (conv.T * conv.T for conv in convs), 1)


class _Table:
    """All that matters of (h', w', largest c'): one row each, with the height they make.

    For given h', w' and height, the largest c' is best for time and memory; what is left is k', the least that is
    fast enough and whose weights and points fit in memory.
    """

    def __init__(self, convs: tuple[Conv, ...], memory_limit: int, ticks: int, side: int) -> None:
        import numpy as np

        self.convs, self.side = convs, side
        rows = np.array(list(_rows(convs, side)), dtype=np.int64).reshape(-1, 3)
        h, w, c = rows.T
        area = h * w
        self.rows, self.height = rows, area * (c + 1)
        self.step: list[Ints] = []
        """Ticks for each ⌈K/k'⌉, one array for each conv."""
        self.least: list[Ints] = []
        """The least k' by memory, one array for each conv; more than K where no k' fits."""
        for conv in convs:
            own = np.minimum(c, conv.C)
            per_step = -(-conv.H // h) * -(-conv.W // w) * -(-conv.C // own)
            self.step.append(per_step * (conv.R * conv.S * ticks // (conv.T * conv.T)))
            words = conv.R * conv.S * conv.C * area + (conv.W + conv.S - 1) * (conv.H + conv.R - 1) * own
            self.least.append(-(-(conv.K * words) // (memory_limit * own * area)))
        self.slowest = int(max(((step * conv.K).max() for step, conv in zip(self.step, convs, strict=True)), default=0))

    def filters(self, time: int) -> list[Ints]:
        """Return the least k' of every conv for at most `time` ticks, `side` more than K where there is none."""
        import numpy as np

        found = []
        for conv, step, least in zip(self.convs, self.step, self.least, strict=True):
            k = np.maximum(-(-conv.K // np.maximum(time // step, 1)), least)
            found.append(np.where((step > time) | (k > conv.K), conv.K + self.side, k))
        return found

    def widths(self, time: int) -> Ints:
        """Return the least width of every row for at most `time` ticks; more than `side` where there is none."""
        import numpy as np

        total: Ints = 3 * np.sum(self.filters(time), axis=0)
        return total

    def smallest(self, time: int, width: int, height: int) -> Execution | None:
        """Return the parameters of the smallest rectangle in a box for at most `time` ticks."""
        import numpy as np

        filters = self.filters(time)
        x: Ints = 3 * np.sum(filters, axis=0)
        (fit,) = np.nonzero((x <= width) & (self.height <= height))
        if not len(fit):
            return None
        best = int(fit[np.argmin(x[fit] * self.height[fit])])
        h, w, c = (int(value) for value in self.rows[best])
        return Execution(h, w, tuple(min(c, conv.C) for conv in self.convs), tuple(int(k[best]) for k in filters))


@lru_cache(maxsize=512)
def _table(convs: tuple[Conv, ...], memory_limit: int, ticks: int, side: int) -> _Table:
    return _Table(convs, memory_limit, ticks, side)


def _rows(convs: tuple[Conv, ...], side: int) -> list[tuple[int, int, int]]:
    """Return (h', w', c') worth a look: of those with the same h'·w', and so memory, the ones with the fewest steps."""
    shapes = {(conv.H, conv.W) for conv in convs}
    highest, widest = min(h for h, _ in shapes), min(w for _, w in shapes)
    by_area: dict[int, list[tuple[tuple[int, ...], int, int]]] = {}
    for h in range(1, min(highest, side // 2) + 1):
        for w in range(1, min(widest, side // 2 // h) + 1):
            steps = tuple(ceil_div(height, h) * ceil_div(width, w) for height, width in shapes)
            by_area.setdefault(h * w, []).append((steps, h, w))
    channels = max(conv.C for conv in convs)
    return [
        (h, w, c)
        for area, found in sorted(by_area.items())
        for _, h, w in _undominated(found)
        for c in range(1, min(side // area - 1, channels) + 1)
    ]


def _undominated(found: list[tuple[tuple[int, ...], int, int]]) -> list[tuple[tuple[int, ...], int, int]]:
    kept: list[tuple[tuple[int, ...], int, int]] = []
    for one in sorted(found):
        if not any(all(a <= b for a, b in zip(other[0], one[0], strict=True)) for other in kept):
            kept.append(one)
    return kept
