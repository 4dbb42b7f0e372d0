"""How a layer lies on the wafer, and the cycles of its ops for all such layouts at once.

Features are cut over X cores along one side, tokens over Y; where X is a half, a third, … of that side, as many groups
of tokens stand beside each other. With T tokens and F features a core has vectors of t = ⌈T / Y⌉ tokens for
f = ⌈F / X⌉ features. A dot with weights is the inner loop of the measured GEMM (`kernel_cost`), its vectors running
along the tokens, and one vector more in each turn, which comes from the other cores of the row or goes to them:

    compute = turns * (f + 1) * (vector + t / lanes) + task + the way along the row
    fabric  = max(turns * words of t, turns * f * bytes / link)
    sram    = turns * f * t * bytes / read

A turn is one output or one input. By outputs, the row adds up what each core has of one (a chain); by inputs, one core
sends its own to all (a broadcast): the cheaper is taken. Collectives are those of `kernel_cost.collectives`. What
arrives starts the instruction (Lie 2023), so that turns have no `loop` to start, which ops on what lies in memory have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

import numpy as np

from cgc.program import Device
from cgc_wse.job import GRADIENT_BYTES
from cgc_wse.kernel_cost.lines import Allreduces
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.plan import Layout
from cgc_wse.streaming.work import Op, OtherProduct, TokenProduct, VectorPass, WeightGradient, WeightProduct

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def layouts(device: Device, *, whole: bool = False) -> tuple[Layout, ...]:
    """Return every way to cut features over a side of the wafer, or unless `whole` over an equal part of one."""
    found: list[Layout] = []
    for features in _parts(device.columns)[: 1 if whole else None]:
        found.append(Layout(features, (device.columns // features) * device.rows, "columns"))
    for features in _parts(device.rows)[: 1 if whole else None]:
        found.append(Layout(features, (device.rows // features) * device.columns, "rows"))
    return tuple(found)


def _parts(side: int) -> list[int]:
    return sorted({side // groups for groups in range(1, side + 1)}, reverse=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles for every layout, by what takes them."""

    compute: Floats
    sram: Floats
    fabric: Floats

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.compute + other.compute, self.sram + other.sram, self.fabric + other.fabric)

    def times(self, count: float) -> Cost:
        """Return the cost of `count` repetitions."""
        return Cost(self.compute * count, self.sram * count, self.fabric * count)

    @property
    def total(self) -> Floats:
        """The time, all three overlapping."""
        return np.maximum(np.maximum(self.compute, self.sram), self.fabric)


class Wafer:
    """A device and an element type: the cycles of ops on all layouts."""

    def __init__(self, device: Device, precision: str, seq: int, *, whole: bool = False) -> None:
        """Prepare for tokens in sequences of `seq`, on the layouts of `layouts`."""
        self.layouts = layouts(device, whole=whole)
        self._device = device
        self._machine: Machine = machine_of(device, precision)
        self._seq = seq
        self._x: Floats = np.array([layout.features for layout in self.layouts], dtype=np.float64)
        self._y: Floats = np.array([layout.tokens for layout in self.layouts], dtype=np.float64)
        self._crosses: Floats = (self._x > 1).astype(np.float64)
        # The ways along a row: of a chain of sums, and of a broadcast.
        self._chain: Floats = (self._x - 1) * self._machine.hand_on
        self._flood: Floats = self._crosses * ((self._x - 1) * self._machine.relay + self._machine.step)
        self._allreduces = Allreduces(self._machine, [layout.features for layout in self.layouts])
        self._known: dict[tuple[Op, int], Cost] = {}
        self._nothing: Floats = np.zeros_like(self._x)

    def length(self, sequences: int) -> Floats:
        """Return the tokens of a core: those of one sequence, which ⌊Y / sequences⌋ cores share, or of several."""
        share = np.maximum(1.0, np.floor(self._y / sequences))
        return np.ceil(self._seq / share) * np.ceil(sequences / self._y)

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
        total = Cost(self._nothing, self._nothing, self._nothing)
        for op, times in ops:
            total += self._one(op, sequences).times(times)
        return total

    def _one(self, op: Op, sequences: int) -> Cost:
        if (op, sequences) not in self._known:
            self._known[op, sequences] = self._cost(op, sequences)
        return self._known[op, sequences]

    def _cost(self, op: Op, sequences: int) -> Cost:
        length = self.length(sequences)
        match op:
            case WeightProduct(inner=inner, outer=outer):
                chain = self._product(outer, inner, length, self._chain)
                return _cheaper(chain, self._product(inner, outer, length, self._flood))
            case WeightGradient(inner=inner, outer=outer):
                return _cheaper(self._gradient(outer, inner, length), self._gradient(inner, outer, length))
            case TokenProduct():
                return self._over_tokens(op, length)
            case OtherProduct(macs=macs):
                vectors = macs * sequences / (self._x * self._y * length)
                compute = self._machine.task + self._machine.loop + vectors * self._machine.multiply_add(length)
                return self._plain(compute, vectors * length)
            case VectorPass():
                return self._pass(op, length)
            case _:
                assert_never(op)

    def _local(self, features: int) -> Floats:
        return np.ceil(features / self._x)

    def _words(self, length: Floats) -> Floats:
        return np.ceil(length / self._machine.entries)

    def _plain(self, compute: Floats, reads: Floats) -> Cost:
        return Cost(compute, reads * self._machine.number / self._device.read, self._nothing)

    def _product(self, turns: int, features: int, length: Floats, way: Floats) -> Cost:
        """Return a dot with weights in `turns` turns, the last of which has a way along the row left."""
        machine, local = self._machine, self._local(features)
        compute = machine.task + turns * (local + self._crosses) * machine.multiply_add(length) + way
        rows = turns * self._words(length) * self._crosses * machine.word
        weights = turns * local * machine.number / self._device.link
        sram = turns * local * length * machine.number / self._device.read
        return Cost(compute, sram, np.maximum(rows, weights))

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
        return Cost(compute, sram, np.maximum(rows, sums))

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
        way = (parts - 1) * machine.hand_on
        return Cost(machine.task + way + sequences * compute, sequences * sram, sequences * fabric)

    def _pass(self, op: VectorPass, length: Floats) -> Cost:
        """Return one op on every entry: two vectors read and one written at most.

        A task starts it, as all ops here: it is told from outside, with the weights.
        """
        machine, device, local = self._machine, self._device, self._local(op.features)
        moved = max(2 / device.read, 1 / device.write) * machine.number
        cost = Cost(
            machine.task + machine.loop + local * machine.multiply_add(length), local * length * moved, self._nothing
        )
        if not op.sums:
            return cost
        return cost + self._plain(self._crosses * self._allreduces.cycles(self._words(length)), self._nothing)


def _cheaper(first: Cost, second: Cost) -> Cost:
    """Return, for every layout, the one of two costs that takes less time."""
    takes = first.total <= second.total
    return Cost(
        np.where(takes, first.compute, second.compute),
        np.where(takes, first.sram, second.sram),
        np.where(takes, first.fabric, second.fabric),
    )
