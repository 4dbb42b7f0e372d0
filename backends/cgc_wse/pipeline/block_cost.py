"""The cycles of a block for one sequence on every rectangle of cores, for a pipeline of blocks.

All of a block's ops have one layout, the faster of these:

- tokens over one side of the rectangle, features over the other, weights passing the cores of a column: `op_cost`;
- weights stay, each core with ⌈inner / A⌉ · ⌈outer / B⌉ of them; all tokens pass, and sums go along the A cores. Of
  attention the keys and values of the sequence stay so, heads and a head's width over A, keys over B. With k and n the
  weights of a core along the two sides, and S tokens in vectors of at most p,

      compute = ⌈S / p⌉ * task + n * (k + 1) * (⌈S / p⌉ * vector + S / lanes) + the ways along A and B
      fabric  = max(k, n) * words of S
      sram    = k * n * S * bytes / read

  p is such that what waits of a vector has room in the core's buffers: the fewer of k and n, and four. Sums go in one
  chain, or in two phases where that is sooner: then n * (k + 2).

A gradient of weights that stay is a dot on each core, and so is that of keys and values; the gradient of what came in
is the same dot the other way round. Ops on single entries find their features spread over the cores of one side, tokens
over the other, or features over all cores. A block may leave cores of its rectangle idle.

`unavoidable_times` is the same without what another plan might do without: ways, sums over a side, and tokens that pass
in more than one piece. It has every number of cores at which something is less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import assert_never

import numpy as np

from cgc.program import Device
from cgc_wse.job import GRADIENT_BYTES
from cgc_wse.kernel_cost.lines import Allreduces, Floats
from cgc_wse.op_cost import Cost, OpCosts, cheaper
from cgc_wse.op_work import Op, Ops, OtherProduct, TokenProduct, VectorPass, WeightGradient, WeightProduct
from cgc_wse.pipeline.block_times import RectangleTimes
from cgc_wse.place.shapes import Ints

WAITING = 4
"""Vectors that wait in a core beside those of a product: two that arrive, two that leave."""

SIDES = 256
"""So many numbers of cores along a side are looked at, at most; half as many where sums along it take long to time."""


BOUNDING = 640
"""The bound looks at so many."""


@dataclass(frozen=True, slots=True)
class Passing:
    """What a sequence of a step makes a block do: ops as they are and ops on the way back; `border` are the cycles of
    one core's link for what crosses the short side of the rectangle, and the long one.
    """

    forward: Ops
    back: Ops
    border: tuple[float, float]

    def own_sums(self, op: Op) -> int:
        """Return how often an op on the way back is the gradient of keys or values: once for each time it was done,
        where both its operands have gradients.
        """
        forward, back = dict(self.forward).get(op, 0), dict(self.back).get(op, 0)
        return forward if isinstance(op, TokenProduct) and back >= 2 * forward else 0

    @property
    def ops(self) -> Ops:
        """All ops."""
        return (*self.forward, *self.back)


class BlockTimes:
    """The cycles of a block for one sequence of `seq` tokens on all rectangles of a device, for any buffers."""

    def __init__(self, passing: Passing, device: Device, precision: str, seq: int) -> None:
        """Prepare; what buffers do not change is computed once."""
        self._passing = passing
        sums = any(isinstance(op, VectorPass) and op.sums for op, _ in passing.ops)
        self._sides = sides_of(passing.ops, seq, device.cores, SIDES // 2 if sums else SIDES)
        self._costs = _Rectangles(device, precision, seq, self._sides, device.data)
        self._cut = self._costs.tokens_cut(passing)
        self._known: dict[int, RectangleTimes] = {}

    def at(self, room: int) -> RectangleTimes:
        """Return the times where `room` bytes of a core are for vectors on their way."""
        if room not in self._known:
            found = cheaper(self._cut, self._costs.weights_stay(self._passing, room))
            self._known[room] = RectangleTimes(found, self._sides, self._passing.border)
        return self._known[room]


def unavoidable_times(passing: Passing, device: Device, precision: str, seq: int) -> RectangleTimes:
    """Return cycles that a block takes at least, in either layout, on all rectangles of a device.

    Between two numbers of cores along a side that are looked at, a block takes at least what it does at the end, and
    has at least the cores of the start: nothing gets longer with more cores but where there is a second one to add to,
    or where cores begin to share a head.
    """
    sides = _bounding(sides_of(passing.ops, seq, device.cores), passing.ops)
    ends = np.append(sides[1:] - 1, max(device.cores, int(sides[-1])))
    costs = _Unavoidable(device, precision, seq, ends)
    found = cheaper(costs.tokens_cut(passing), costs.weights_stay(passing, device.data))
    return RectangleTimes(found, sides, passing.border)


def _bounding(sides: Ints, ops: Ops) -> Ints:
    """Return no more numbers of cores than can be looked at, with those from which something gets longer."""
    kept = {1, 2, *(op.heads + 1 for op, _ in ops if isinstance(op, TokenProduct))}
    count = min(len(sides), BOUNDING)
    chosen = sides[np.unique(np.linspace(0, len(sides) - 1, count).round().astype(np.int64))]
    found: Ints = np.unique(np.append(chosen, sorted(kept)))
    return found


def sides_of(ops: Ops, seq: int, most: int, count: int | None = None) -> Ints:
    """Return the numbers of cores at which some op of a block has one vector, weight or token less on each.

    No more than `count` of them, evenly thinned out.
    """
    found = {1}
    for size, times in {(seq, 1), *(pair for op, _ in ops for pair in _sizes(op, seq))}:
        counts = np.arange(1, isqrt(size) + 2)
        for sides in (counts, -(-size // counts)):
            found.update(times * int(side) for side in sides if times * side <= most)
    ordered = np.array(sorted(found), dtype=np.int64)
    if count is None or len(ordered) <= count:
        return ordered
    chosen: Ints = ordered[np.unique(np.linspace(0, len(ordered) - 1, count).round().astype(np.int64))]
    return chosen


def _sizes(op: Op, seq: int) -> tuple[tuple[int, int], ...]:
    """Return what an op may cut over a side, with what it does so many times beside each other."""
    match op:
        case WeightProduct(inner, outer) | WeightGradient(inner, outer):
            return (inner, 1), (outer, 1)
        case TokenProduct(heads=heads, width=width, keys=keys):
            alike = (heads, 1), (keys, 1), (width, heads), (keys, heads), (seq, heads)
            return (*alike, (heads * width, 1), (heads * keys, 1))
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

    def weights_stay(self, passing: Passing, room: int) -> Cost:
        """Return the cycles with weights, or keys and values, where they are, and all tokens passing; `room` bytes of a
        core are for vectors on their way.
        """
        self._room = room
        heads = max((op.heads for op, _ in passing.ops if isinstance(op, TokenProduct)), default=0)
        total = Cost.of(self._nothing, self._nothing, self._nothing)
        for ops, back in ((passing.forward, False), (passing.back, True)):
            for op, times in ops:
                sums = passing.own_sums(op) if back else 0
                total += self._staying(op, heads, back=back).times(times - sums)
                if sums and isinstance(op, TokenProduct):
                    total += self._gradient_of_keys(op).times(sums)
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
                parts, own = self._parts(op.heads), np.ceil(op.heads / x)
                if op.mixes:
                    return self._dot(op.keys, op.width, y, parts, own)
                return self._dot(op.width, op.keys, parts, y, own)
            case OtherProduct(macs=macs):
                return self._other(macs / (x * y * self._whole), np.full_like(x * y, self._whole))
            case VectorPass():
                return self._spread(op, heads)
            case _:
                assert_never(op)

    def _parts(self, heads: int) -> Floats:
        """Return the cores along X that share a head."""
        found: Floats = np.maximum(1.0, np.floor(self._x / heads))
        return found

    def _gradient_of_keys(self, op: TokenProduct) -> Cost:
        """Return the sums over tokens for the keys or values of a core."""
        width, keys = np.ceil(op.width / self._parts(op.heads)), np.ceil(op.keys / self._y)
        return self._own(np.ceil(op.heads / self._x) * width, keys)

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
        compute = pieces * machine.task + self._vectors(times * n * k, pieces)
        compute = compute + self._added(times * n * adds, pieces, a) + self._flooded(b)
        fabric = times * np.maximum(k, n * adds) * self._words_of_all()
        sram = times * k * n * self._whole * machine.number / self._device.read
        return Cost.of(compute, sram, fabric)

    def _added(self, count: Floats, pieces: Floats, cores: Floats) -> Floats:
        """Return the cycles of adding up vectors along cores, as a chain or in two phases, `count` of them at each.

        In two phases the first core of a group receives twice.
        """
        machine = self._machine
        group = np.ceil(np.sqrt(cores))
        one = self._vectors(count, pieces) + (cores - 1) * machine.hand_on
        depth = group + np.ceil(cores / group) - 2
        two = self._vectors(2 * count, pieces) + (cores - 1) * machine.relay + depth * machine.step
        return np.minimum(one, two)

    def _flooded(self, cores: Floats) -> Floats:
        """Return the cycles until what one of so many cores sends has come to all."""
        machine = self._machine
        found: Floats = (cores > 1) * ((cores - 1) * machine.relay + machine.step)
        return found

    def _own(self, k: Floats, n: Floats) -> Cost:
        """Return the gradients of a core's own weights: sums over all tokens, each added to what it has."""
        machine = self._machine
        pieces = self._pieces(np.minimum(k, n))
        wide = machine.lanes * min(1.0, machine.number / GRADIENT_BYTES)
        added = pieces * (k * machine.vector + k * n / wide)
        compute = pieces * machine.task + self._vectors(k * n, pieces) + added
        sram = k * n * self._whole * machine.number / self._device.read
        return Cost.of(compute, sram, np.maximum(k, n) * self._words_of_all())

    def _spread(self, op: VectorPass, heads: int) -> Cost:
        """Return an op on every entry.

        Where there are heads, features are those of their keys over Y, tokens lie over the cores of a head. Sums are
        over the keys, or else over all features.
        """
        x, y, whole = self._x, self._y, np.full((1, 1), self._whole)
        if heads:
            length = np.ceil(self._whole / self._parts(heads))
            own = np.ceil(heads / x)
            cost = self._passing(own * np.ceil(op.features / (heads * y)), length)
            return cost + self._summed(self._over_y, own * length) if op.sums else cost
        cost = self._passing(np.ceil(op.features / (x * y)), whole)
        for side, other in ((x, y), (y, x)):
            cost = cheaper(cost, self._passing(np.ceil(op.features / side), np.ceil(whole / other)))
        if op.sums:
            cost = cost + self._summed(self._allreduces, whole) + self._summed(self._over_y, whole)
        return cost

    def _summed(self, over: Allreduces, entries: Floats) -> Cost:
        """Return the sums of so many entries of each core over a side."""
        return Cost.of(over.cycles(np.ceil(entries / self._machine.entries)), self._nothing, self._nothing)

    def _passing(self, count: Floats, length: Floats) -> Cost:
        """Return an op on `count` vectors of `length` tokens on each core."""
        machine = self._machine
        longest = self._room / (machine.number * (1 + WAITING))
        compute = machine.loop + count * (np.ceil(length / longest) * machine.vector + length / machine.lanes)
        return Cost.of(compute, count * length * self._moved, self._nothing)


class _Unavoidable(_Rectangles):
    """What is left of the cycles where nothing has a way to go, all tokens pass in one piece, and ops on single entries
    find these spread over the cores as evenly as can be.
    """

    def __init__(self, device: Device, precision: str, seq: int, sides: Ints) -> None:
        super().__init__(device, precision, seq, sides, device.data)
        self._chain = self._flood = np.zeros_like(self._x)
        self._hand_on = 0.0

    def _pieces(self, waiting: Floats) -> Floats:
        return np.ones_like(waiting)

    def _added(self, count: Floats, pieces: Floats, _: Floats) -> Floats:
        return self._vectors(count, pieces)

    def _flooded(self, cores: Floats) -> Floats:
        return np.zeros_like(cores)

    def _pass(self, op: VectorPass, _: Floats) -> Cost:
        return self._spread(op, 0)

    def _other(self, vectors: Floats, length: Floats) -> Cost:
        # The same entries, in vectors as long as they may be.
        return super()._other(vectors * length / self._whole, np.full_like(vectors, self._whole))

    def _spread(self, op: VectorPass, _: int) -> Cost:
        count = op.features / (self._x * self._y)
        compute = self._machine.loop + count * self._machine.multiply_add(self._whole)
        return Cost.of(compute, count * self._whole * self._moved, self._nothing)
