"""The cycles of a block for one sequence on every rectangle of cores, for a pipeline of blocks.

All of a block's ops have one layout, the fastest of these:

- tokens over one side of the rectangle, features over the other, weights passing the cores of a column: `op_cost`;
- weights stay, each core with ⌈inner / A⌉ · ⌈outer / B⌉ of them; all tokens pass, and sums go along the A cores. Of
  attention the keys and values of the sequence stay so, heads and a head's width over A, keys over B. With k and n the
  weights of a core along the two sides, and S tokens in vectors of at most p,

      compute = ⌈S / p⌉ * task + n * (k + 1) * (⌈S / p⌉ * vector + S / lanes) + (A - 1) * hop and step + (B - 1) * hop
      fabric  = max(k, n) * words of S
      sram    = k * n * S * bytes / read

  p is such that what waits of a vector has room in the core's buffers: the fewer of k and n, and four.

A gradient of weights that stay is a dot on each core; the gradient of what came in is the same dot the other way round.
Ops on single entries find their features spread over all cores. A larger rectangle takes no longer: a block may leave
cores of its own idle.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import ceil, isqrt
from typing import assert_never

import numpy as np

from cgc.program import Device
from cgc_wse.cost import Cycles
from cgc_wse.job import GRADIENT_BYTES
from cgc_wse.kernel_cost.lines import Allreduces, Floats
from cgc_wse.kernel_cost.machine import machine_of
from cgc_wse.op_cost import Cost, OpCosts, cheaper
from cgc_wse.place.blocks import Block, least_heights
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.shapes import Curve, Ints
from cgc_wse.streaming.work import Op, Ops, OtherProduct, TokenProduct, VectorPass, WeightGradient, WeightProduct

WAITING = 4
"""Vectors that wait in a core beside those of a product: two that arrive, two that leave."""

PAIRS = 16
"""So many pairs of sides, those with the fewest cores, are tried for a rectangle."""

SIDES = 192
"""So many numbers of cores along a side are looked at, at most."""


@dataclass(frozen=True, slots=True)
class Passing:
    """What a sequence of a step makes a block do: ops as they are and ops on the way back; `border` are the cycles of
    one core's link for what crosses the short side of the rectangle, and the long one.
    """

    forward: Ops
    back: Ops
    border: tuple[float, float]

    @property
    def ops(self) -> Ops:
        """All ops."""
        return (*self.forward, *self.back)


class RectangleTimes:
    """The cycles of a block on A · B cores, for many A and B, and the rectangles that have so many.

    A rectangle of w · h cores has A · B where A ⌈B / w⌉ ≤ h, or with A and B, or w and h the other way round: several
    rows are taken together where B is longer than one of them.
    """

    def __init__(self, cost: Cost, sides: Ints, border: tuple[float, float]) -> None:
        """Prepare from the cycles on each pair of sides; `border` is as in `Passing`."""
        self._cost = cost
        self._sides = sides
        self._total = cost.total
        self._border = border
        self._areas = sides[:, None] * sides[None, :]
        self._known: dict[float, tuple[Ints, Ints]] = {}
        self._curves: dict[tuple[float, int, int], Ints] = {}
        self.slowest = float(self._total[0, 0]) + sum(border)
        """Cycles on one core."""
        self.work = float((self._areas * self._total).min())
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
        a, b = self._pairs(cycles)
        short, long = self.sides(cycles)
        return max(int((a * b).min()), short * long) if len(a) else 0

    def heights(self, cycles: float, columns: int, rows: int) -> Ints:
        """Return the least height for each width from 0; `rows` + 1 where none is enough."""
        key = cycles, columns, rows
        if key not in self._curves:
            a, b = self._pairs(cycles)
            widths = np.arange(1, columns + 1)[:, None]
            least = np.full(columns, rows + 1)
            for one, other in ((a, b), (b, a)):
                fold = widths // one
                across = np.where(fold > 0, -(-other // np.maximum(fold, 1)), rows + 1)
                least = np.minimum(least, np.minimum(one * -(-other // widths), across).min(axis=1, initial=rows + 1))
            short, long = self.sides(cycles)
            crossing = least_heights(columns, rows, 1, short, long)
            self._curves[key] = np.minimum(np.concatenate(([rows + 1], np.maximum(least, crossing[1:]))), rows + 1)
        return self._curves[key]

    def cycles(self, area: Rectangle) -> Cycles:
        """Return the cycles on a rectangle, of the part of it that is used."""
        a, b = self._sides[:, None], self._sides[None, :]
        has = np.zeros(self._total.shape, dtype=bool)
        for width, height in ((area.width, area.height), (area.height, area.width)):
            has |= (a * -(-b // width) <= height) | (b * -(-a // width) <= height)
        at = np.unravel_index(int(np.where(has, self._total, np.inf).argmin()), has.shape)
        short, long = sorted((area.width, area.height))
        border = max(self._border[0] / short, self._border[1] / long)
        cost = self._cost
        return Cycles(float(cost.compute[at]), float(cost.sram[at]), max(float(cost.fabric[at]), border))


@dataclass(frozen=True, slots=True, eq=False)
class TimedBlock:
    """A block as the placement engine sees it (`Sized`): its times, and the cores for what it holds."""

    times: RectangleTimes
    least: int

    @property
    def work(self) -> float:
        """Cycles of one core, where cores are used best."""
        return self.times.work

    @property
    def slowest(self) -> float:
        """Cycles on one core."""
        return self.times.slowest

    def cores(self, cycles: float, columns: int, rows: int) -> int | None:
        """Return the fewest cores on which it takes at most `cycles` cycles; None where the grid has too few."""
        found = self.times.cores(cycles)
        return max(found, self.least) if 0 < found <= columns * rows >= self.least else None

    @property
    def key(self) -> Hashable:
        """What blocks of the same curve have in common."""
        return id(self.times), self.least

    def curve(self, cycles: float, columns: int, rows: int) -> Curve:
        """Return its curve on a grid."""
        heights = self._heights(cycles, columns, rows)
        return Curve(heights, heights if columns == rows else self._heights(cycles, rows, columns))

    def _heights(self, cycles: float, columns: int, rows: int) -> Ints:
        holding = -(-self.least // np.arange(1, columns + 1))
        found = self.times.heights(cycles, columns, rows).copy()
        found[1:] = np.minimum(np.maximum(found[1:], holding), rows + 1)
        return found

    def time(self, area: Rectangle) -> float:
        """Return the cycles it takes on a rectangle."""
        return self.times.cycles(area).total


def rectangle_times(passing: Passing, device: Device, precision: str, seq: int, room: int) -> RectangleTimes:
    """Return the cycles of a block for one sequence of `seq` tokens on all rectangles of a device.

    `room` are the bytes of a core for vectors on their way.
    """
    sides = sides_of(passing.ops, seq, device.cores)
    costs = _Rectangles(device, precision, seq, sides, room)
    found = cheaper(costs.tokens_cut(passing), costs.weights_stay(passing))
    return RectangleTimes(found, sides, passing.border)


def sides_of(ops: Ops, seq: int, most: int) -> Ints:
    """Return the numbers of cores at which some op of a block has one vector, weight or token less on each."""
    found = {1}
    for size, times in {(seq, 1), *(pair for op, _ in ops for pair in _sizes(op))}:
        counts = np.arange(1, isqrt(size) + 2)
        for sides in (counts, -(-size // counts)):
            found.update(times * int(side) for side in sides if times * side <= most)
    ordered = np.array(sorted(found), dtype=np.int64)
    if len(ordered) <= SIDES:
        return ordered
    # Thinned out evenly; what divides a size stays as likely as any.
    index = np.unique(np.linspace(0, len(ordered) - 1, SIDES).round().astype(np.int64))
    chosen: Ints = ordered[index]
    return chosen


def _sizes(op: Op) -> tuple[tuple[int, int], ...]:
    """Return what an op may cut over a side, with what it does so many times beside each other."""
    match op:
        case WeightProduct(inner, outer) | WeightGradient(inner, outer):
            return (inner, 1), (outer, 1)
        case TokenProduct(heads=heads, width=width, keys=keys):
            return (heads, 1), (width, heads), (keys, 1)
        case VectorPass(features=features):
            return ((features, 1),)
        case OtherProduct():
            return ()
        case _:
            assert_never(op)


class _Rectangles(OpCosts):
    """The cycles of ops on rectangles with X cores along one side and Y along the other, [X, Y]."""

    def __init__(self, device: Device, precision: str, seq: int, sides: Ints, room: int) -> None:
        sides_ = sides.astype(np.float64)
        super().__init__(device, precision, seq, sides_[:, None], sides_[None, :])
        self._room = room
        self._whole = float(seq)
        # A side that is folded is no line: what has to go all along it takes no longer than along the grid's.
        most = float(max(device.columns, device.rows))
        self._allreduces = Allreduces(self._machine, np.minimum(self._x, most))
        self._over_y = Allreduces(self._machine, np.minimum(self._y, most))

    def tokens_cut(self, passing: Passing) -> Cost:
        """Return the cycles with tokens over Y and features over X."""
        return self.ops(passing.ops, 1)

    def weights_stay(self, passing: Passing) -> Cost:
        """Return the cycles with weights, or keys and values, where they are, and all tokens passing."""
        heads = max((op.heads for op, _ in passing.ops if isinstance(op, TokenProduct)), default=0)
        total = Cost(self._nothing, self._nothing, self._nothing)
        for ops, back in ((passing.forward, False), (passing.back, True)):
            for op, times in ops:
                total += self._staying(op, heads, back=back).times(times)
        return total

    def _staying(self, op: Op, heads: int, *, back: bool) -> Cost:
        x, y = self._x, self._y
        match op:
            case WeightProduct(inner, outer) if back:
                return self._dot(outer, inner, y, x, 1.0)
            case WeightProduct(inner, outer):
                return self._dot(inner, outer, x, y, 1.0)
            case WeightGradient(inner, outer):
                return self._own(np.ceil(inner / x), np.ceil(outer / y))
            case TokenProduct():
                parts = np.maximum(1.0, np.floor(x / op.heads))
                own = np.ceil(op.heads / x)
                if op.mixes:
                    return self._dot(op.keys, op.width, y, parts, own)
                return self._dot(op.width, op.keys, parts, y, own)
            case OtherProduct(macs=macs):
                return self._other(macs / (x * y * self._whole), np.full_like(x * y, self._whole))
            case VectorPass():
                return self._spread(op, heads)
            case _:
                assert_never(op)

    def _pieces(self, waiting: Floats) -> Floats:
        """Return in how many pieces the tokens pass where so many vectors wait in a core."""
        longest = np.floor(self._room / (self._machine.number * (waiting + WAITING)))
        found: Floats = np.ceil(self._whole / np.clip(longest, 1.0, self._whole))
        return found

    def _vectors(self, count: Floats, pieces: Floats) -> Floats:
        """Return the cycles of vector instructions over all tokens."""
        found: Floats = count * (pieces * self._machine.vector + self._whole / self._machine.lanes)
        return found

    def _words_of_all(self) -> float:
        return float(np.ceil(self._whole / self._machine.entries)) * self._machine.word

    def _dot(self, inner: int, outer: int, a: Floats, b: Floats, times: Floats | float) -> Cost:
        """Return a dot whose inner features lie over `a` cores and whose outer ones over `b`, so often on each core."""
        machine = self._machine
        k, n, adds = np.ceil(inner / a), np.ceil(outer / b), (a > 1).astype(np.float64)
        pieces = self._pieces(np.minimum(k, n))
        way = (a - 1) * machine.hand_on + (b > 1) * ((b - 1) * machine.relay + machine.step)
        compute = pieces * machine.task + self._vectors(times * n * (k + adds), pieces) + way
        fabric = times * np.maximum(k, n * adds) * self._words_of_all()
        sram = times * k * n * self._whole * machine.number / self._device.read
        return Cost(compute, sram, fabric)

    def _own(self, k: Floats, n: Floats) -> Cost:
        """Return the gradients of a core's own weights: sums over all tokens, each added to what it has."""
        machine = self._machine
        pieces = self._pieces(np.minimum(k, n))
        wide = machine.lanes * min(1.0, machine.number / GRADIENT_BYTES)
        added = pieces * (k * machine.vector + k * n / wide)
        compute = pieces * machine.task + self._vectors(k * n, pieces) + added
        sram = k * n * self._whole * machine.number / self._device.read
        return Cost(compute, sram, np.maximum(k, n) * self._words_of_all())

    def _spread(self, op: VectorPass, heads: int) -> Cost:
        """Return an op on every entry: features over all cores; or, as a dot leaves them, over the cores of one side,
        tokens over the other.

        Where there are heads, features are those of their keys over Y, tokens over the cores of a head. Sums are over
        the keys, or else over all features.
        """
        machine, x, y, whole = self._machine, self._x, self._y, self._whole
        nothing = self._nothing
        if not heads:
            cost = self._passing(np.ceil(op.features / (x * y)), np.full((1, 1), whole))
            for side, other in ((x, y), (y, x)):
                cost = cheaper(cost, self._passing(np.ceil(op.features / side), np.ceil(whole / other)))
            words = np.full((1, 1), np.ceil(whole / machine.entries))
            sums = self._allreduces.cycles(words) + self._over_y.cycles(words) if op.sums else nothing
            return cost + Cost(sums, nothing, nothing)
        own = np.ceil(heads / x)
        length = np.ceil(whole / np.maximum(1.0, np.floor(x / heads)))
        cost = self._passing(own * np.ceil(op.features / (heads * y)), length)
        sums = self._over_y.cycles(own * np.ceil(length / machine.entries)) if op.sums else nothing
        return cost + Cost(sums, nothing, nothing)

    def _passing(self, count: Floats, length: Floats) -> Cost:
        """Return an op on `count` vectors of `length` tokens on each core."""
        machine = self._machine
        longest = self._room / (machine.number * (1 + WAITING))
        compute = machine.loop + count * (np.ceil(length / longest) * machine.vector + length / machine.lanes)
        return Cost(compute, count * length * self._moved, self._nothing)


def least_block(passing: Passing, least: int, device: Device, precision: str, seq: int) -> Block:
    """Return what no rectangle and no layout of a block can do without, `least` being the cores for what it holds.

    Every product and pass has its entries, in vectors that are never longer than a sequence, and starts once: a task
    for a product, a loop for a pass. Its operands are read. What crosses the border crosses it.
    """
    machine = machine_of(device, precision)
    moved = max(2 / device.read, 1 / device.write)
    work = read = start = 0.0
    for op, times in passing.ops:
        match op:
            case WeightProduct(inner, outer) | WeightGradient(inner, outer):
                vectors, begun, each = float(inner * outer), machine.task, 1 / device.read
            case TokenProduct(heads=heads, width=width, keys=keys):
                vectors, begun, each = heads * width * keys, machine.task, 1 / device.read
            case OtherProduct(macs=macs):
                vectors, begun, each = macs / seq, machine.task + machine.loop, 1 / device.read
            case VectorPass(features=features):
                vectors, begun, each = features, machine.loop, moved
            case _:
                assert_never(op)
        work += times * vectors * machine.multiply_add(float(seq))
        read += times * vectors * seq * machine.number * each
        start += times * begun
    few, many = passing.border
    return Block(work, least, few, many, start, read)
