"""The cycles of ops whose features are cut over X cores of a rectangle and tokens over Y, for many X and Y at once.

With T tokens and F features a core has vectors of t = ⌈T / Y⌉ tokens for f = ⌈F / X⌉ features. A dot with weights is
the inner loop of the measured GEMM (`kernel_cost`), its vectors running along the tokens, and one vector more in each
turn, which comes from the other cores of the row or goes to them:

    compute = turns * (f + 1) * (vector + t / lanes) + task + the way along the row
    fabric  = max(turns * words of t, turns * f * bytes / link)
    sram    = turns * f * t * bytes / read

A turn is one output or one input. By outputs, the row adds up what each core has of one (a chain); by inputs, one core
sends its own to all (a broadcast): the cheaper is taken. Collectives are those of `kernel_cost.collectives`. What
arrives starts the instruction (Lie 2023), so that turns have no `loop` to start, which ops on what lies in memory have.

Weight streaming cuts the wafer so (`streaming.layout`), a pipeline the rectangle of a block (`pipeline.block_cost`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from cgc.program import Device
from cgc_wse.cost import Cycles
from cgc_wse.job import GRADIENT_BYTES
from cgc_wse.kernel_cost.lines import Allreduces, Floats
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.op_work import Op, OtherProduct, TokenProduct, VectorPass, WeightGradient, WeightProduct


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles for every layout, by what takes them: compute, SRAM and fabric along the first axis."""

    parts: Floats

    @classmethod
    def of(cls, compute: Floats, sram: Floats, fabric: Floats) -> Cost:
        """Return the cost that has these parts, whose shapes broadcast."""
        return cls(np.stack(np.broadcast_arrays(compute, sram, fabric)))

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parts + other.parts)

    def times(self, count: float) -> Cost:
        """Return the cost of `count` repetitions."""
        return Cost(self.parts * count)

    def cycles(self, *at: int) -> Cycles:
        """Return the cycles of one layout."""
        compute, sram, fabric = (float(part[at]) for part in self.parts)
        return Cycles(compute, sram, fabric)

    @property
    def compute(self) -> Floats:
        """Cycles of cores."""
        compute: Floats = self.parts[0]
        return compute

    @property
    def sram(self) -> Floats:
        """Cycles of the memories."""
        sram: Floats = self.parts[1]
        return sram

    @property
    def fabric(self) -> Floats:
        """Cycles of links."""
        fabric: Floats = self.parts[2]
        return fabric

    @property
    def total(self) -> Floats:
        """The time, all three overlapping."""
        total: Floats = self.parts.max(axis=0)
        return total


class OpCosts:
    """A device and an element type: the cycles of ops on all cuts."""

    def __init__(self, device: Device, precision: str, seq: int, x: Floats, y: Floats) -> None:
        """Prepare for tokens in sequences of `seq`; shapes of `x` and `y` broadcast to that of all costs."""
        self._device = device
        self._machine: Machine = machine_of(device, precision)
        self._seq = seq
        # What starts an op on what a core has: nothing, unless it is told from outside.
        self._told = 0.0
        # Cycles of an entry of an op on single entries: two are read and one is written at most.
        self._moved = max(2 / device.read, 1 / device.write) * self._machine.number
        self._x = x
        self._y = y
        self._crosses: Floats = (self._x > 1).astype(np.float64)
        # The ways along a row: of a chain of sums, for each core of it, and of a broadcast.
        self._hand_on = self._machine.hand_on
        self._chain: Floats = (self._x - 1) * self._hand_on
        self._flood: Floats = self._crosses * ((self._x - 1) * self._machine.relay + self._machine.step)
        self._allreduces = Allreduces(self._machine, x)
        self._known: dict[tuple[Op, int], Cost] = {}
        self._lengths: dict[int, Floats] = {}
        self._locals: dict[int, Floats] = {}
        self._nothing: Floats = np.zeros(np.broadcast_shapes(x.shape, y.shape))

    def length(self, sequences: int) -> Floats:
        """Return the tokens of a core: those of one sequence, which ⌊Y / sequences⌋ cores share, or of several."""
        if sequences not in self._lengths:
            share = np.maximum(1.0, np.floor(self._y / sequences))
            self._lengths[sequences] = np.ceil(self._seq / share) * np.ceil(sequences / self._y)
        return self._lengths[sequences]

    def entries(self, features: Iterable[int], sequences: int) -> Floats:
        """Return the entries that a core has of tensors with these features."""
        length = self.length(sequences)
        held = sum((self._local(size) for size in features), self._nothing)
        return length * held

    def buffers(self, sequences: int, widest: int) -> Floats:
        """Return the bytes of what passes a core: vectors and, of `widest` features, weights and sums of gradients.

        One comes and one goes, each twice.
        """
        number = self._machine.number
        return 4 * number * self.length(sequences) + 2 * (number + GRADIENT_BYTES) * self._local(widest)

    def ops(self, ops: Iterable[tuple[Op, int]], sequences: int) -> Cost:
        """Return the cost of ops one after another for `sequences` sequences."""
        total = np.zeros((3, *self._nothing.shape))
        for op, times in ops:
            total += self._one(op, sequences).parts * times
        return Cost(total)

    def _one(self, op: Op, sequences: int) -> Cost:
        if (op, sequences) not in self._known:
            self._known[op, sequences] = self._cost(op, sequences)
        return self._known[op, sequences]

    def _cost(self, op: Op, sequences: int) -> Cost:
        length = self.length(sequences)
        match op:
            case WeightProduct(inner=inner, outer=outer):
                chain = self._product(outer, inner, length, self._chain)
                return cheaper(chain, self._product(inner, outer, length, self._flood))
            case WeightGradient(inner=inner, outer=outer):
                return cheaper(self._gradient(outer, inner, length), self._gradient(inner, outer, length))
            case TokenProduct():
                return self._over_tokens(op, length)
            case OtherProduct(macs=macs):
                return self._other(macs * sequences / (self._x * self._y * length), length)
            case VectorPass():
                return self._pass(op, length)
            case _:
                assert_never(op)

    def _local(self, features: int) -> Floats:
        if features not in self._locals:
            self._locals[features] = np.ceil(features / self._x)
        return self._locals[features]

    def _words(self, length: Floats) -> Floats:
        return np.ceil(length / self._machine.entries)

    def _other(self, vectors: Floats, length: Floats) -> Cost:
        """Return a dot of which only the amount is known, as so many multiply-adds of vectors on each core."""
        machine = self._machine
        return self._plain(machine.task + machine.loop + vectors * machine.multiply_add(length), vectors * length)

    def _plain(self, compute: Floats, reads: Floats) -> Cost:
        return Cost.of(compute, reads * self._machine.number / self._device.read, self._nothing)

    def _product(self, turns: int, features: int, length: Floats, way: Floats) -> Cost:
        """Return a dot with weights in `turns` turns, the last of which has a way along the row left."""
        machine, local = self._machine, self._local(features)
        compute = machine.task + turns * (local + self._crosses) * machine.multiply_add(length) + way
        rows = turns * self._words(length) * self._crosses * machine.word
        weights = turns * local * machine.number / self._device.link
        sram = turns * local * length * machine.number / self._device.read
        return Cost.of(compute, sram, np.maximum(rows, weights))

    def _gradient(self, turns: int, features: int, length: Floats) -> Cost:
        """Return the sums over tokens: on a core, then along all cores with other tokens, four bytes each.

        Nothing waits for the last of them: they leave the wafer.
        """
        machine, local = self._machine, self._local(features)
        wide = machine.number / GRADIENT_BYTES
        added = machine.vector + local / (machine.lanes * min(1.0, wide))
        vectors = (local + self._crosses) * machine.multiply_add(length)
        compute = machine.task + turns * (vectors + added)
        rows = turns * self._words(length) * self._crosses * machine.word
        sums = turns * local * GRADIENT_BYTES / self._device.link
        sram = turns * local * length * machine.number / self._device.read
        return Cost.of(compute, sram, np.maximum(rows, sums))

    def _over_tokens(self, op: TokenProduct, length: Floats) -> Cost:
        """Return a product with the keys or values of the sequence, which come along the cores that share it.

        A head's features lie on c = X / heads cores, or several heads on one; a core that has several sequences takes
        them one after another.
        """
        machine = self._machine
        vector = np.minimum(length, self._seq)
        sequences = np.maximum(1.0, length / self._seq)
        parts = np.maximum(1.0, self._x / op.heads)
        heads = np.ceil(op.heads / self._x)
        split = (parts > 1).astype(np.float64)
        if op.mixes:
            turns = op.width * heads
            vectors = turns * np.ceil(op.keys / parts)
            arriving = op.width * heads * np.ceil(op.keys / parts)
        else:
            turns = op.keys * heads
            vectors = op.keys * np.ceil(op.width * op.heads / self._x)
            arriving = vectors
        compute = (vectors + turns * split) * machine.multiply_add(vector) + arriving / machine.lanes
        rows = turns * split * self._words(vector) * machine.word
        fabric = np.maximum(rows, arriving * machine.number / self._device.link)
        sram = vectors * vector * machine.number / self._device.read
        way = (parts - 1) * self._hand_on
        return Cost.of(machine.task + way + sequences * compute, sequences * sram, sequences * fabric)

    def _pass(self, op: VectorPass, length: Floats) -> Cost:
        """Return one op on every entry: two vectors read and one written at most."""
        machine, local = self._machine, self._local(op.features)
        compute = self._told + machine.loop + local * machine.multiply_add(length)
        cost = Cost.of(compute, local * length * self._moved, self._nothing)
        if not op.sums:
            return cost
        return cost + self._plain(self._crosses * self._allreduces.cycles(self._words(length)), self._nothing)


def cheaper(first: Cost, second: Cost) -> Cost:
    """Return, for every layout, the one of two costs that takes less time."""
    return Cost(np.where(first.total <= second.total, first.parts, second.parts))
