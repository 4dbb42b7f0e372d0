"""The fastest way to stream: the layout, sequences a pass and a slice, and what is kept for the way back.

A pass takes n sequences through all layers and, in training, back again. The wafer keeps what enters each layer for
all n; a layer is worked on in slices of m sequences, for each of which its weights pass once more. Where there is room
left, layers also store tensors that their blocks need for the way back, those first that spare most work; what is not
stored is made again from what entered. Memory is counted on the core that has most: whole vectors, whole features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cgc.program import Device
from cgc_wse.job import Job
from cgc_wse.kernel_cost.lines import Floats
from cgc_wse.op_cost import Cost
from cgc_wse.op_work import KernelWork, OtherProduct, StageWork
from cgc_wse.streaming.layout import Wafer

LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Into how many passes a batch, and into how many slices a pass, is cut."""

NEARBY = (0.5, 0.75, 1.5, 2.0, 2.5)
"""How much larger are those sizes that are tried near a known one."""

MOST_BETWEEN = 16
"""Sizes tried between two of the ladder."""

MOST_LOOKED_AT = 1 << 14
"""Sizes that are looked at for these."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How to stream: `layout` is an index, `sequences` are those of a pass, `slices` those in work at a time in each
    stage; `stored` says for each stage how many of its runs store at least each of its levels. `seconds` are those of
    all passes.
    """

    layout: int
    sequences: int
    passes: int
    stored: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Directions:
    """Seconds of one run of a stage for a pass, for every layout: forward, made again at every level, back."""

    forward: Floats
    again: tuple[Floats, ...]
    back: Floats

    def times(self, count: int) -> _Directions:
        """Return the seconds of `count` of them."""
        return _Directions(count * self.forward, tuple(count * again for again in self.again), count * self.back)

    def plus(self, other: _Directions) -> _Directions:
        """Return the seconds of both."""
        again = tuple(a + b for a, b in zip(self.again, other.again, strict=True))
        return _Directions(self.forward + other.forward, again, self.back + other.back)


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass of n sequences in slices of m, for every layout; infinite seconds where it does not fit."""

    seconds: Floats
    stored: tuple[tuple[Floats, ...], ...]
    slices: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class _Alone:
    """A stage that stands alone, for every slice and layout: bytes of a core, seconds of a pass."""

    sizes: tuple[int, ...]
    work: Floats
    seconds: Floats


def cut(count: int) -> list[int]:
    """Return the sizes of parts worth trying for `count` things: a whole, a half, a third, …"""
    return list(dict.fromkeys(-(-count // parts) for parts in (*LADDER, count) if parts <= count))


def between(count: int, sizes: Sequence[int], size: int) -> list[int]:
    """Return the sizes of equal parts of `count` between the neighbours of `size` in a ladder, the largest first."""
    at = sizes.index(size)
    high = sizes[at - 1] if at else size
    low = sizes[at + 1] if at + 1 < len(sizes) else size
    parts = range(-(-count // high), -(-count // low) + 1)
    if len(parts) <= high - low:
        found = dict.fromkeys(-(-count // number) for number in _thinned(parts))
    else:
        # Of millions of small parts only few have a size of their own.
        found = dict.fromkeys(one for one in _thinned(range(high, low - 1, -1)) if -(-count // -(-count // one)) == one)
    return [one for one in list(found)[:: -(-len(found) // MOST_BETWEEN)] if one not in sizes]


@dataclass(frozen=True, slots=True)
class Near:
    """What a similar device does best: sequences a pass, and of those in one layer."""

    sequences: int
    slice_: int


def around(size: int, sizes: Sequence[int]) -> list[int]:
    """Return a size, and a few of a ladder that are up to about twice or half as large."""
    near = (min(sizes, key=lambda one: abs(one - factor * size)) for factor in NEARBY)
    return list(dict.fromkeys((size, *near)))


def _thinned(numbers: range) -> range:
    """Return the numbers, evenly thinned out where there are more than can be looked at."""
    return numbers[:: -(-len(numbers) // MOST_LOOKED_AT)]


class Search:
    """A job on a device, for all layouts at once."""

    def __init__(self, works: Sequence[StageWork], job: Job, device: Device, *, whole: bool = False) -> None:
        """Prepare; nothing is computed yet. `whole` is as for `layouts`."""
        self.wafer = Wafer(device, job.precision, job.seq, whole=whole)
        self._works = works
        self._job = job
        self._device = device
        self._known: dict[tuple[int, int, int], _Directions] = {}
        self._held: dict[tuple[int, int], Floats] = {}
        self._alone: dict[tuple[int, int], _Alone] = {}
        self._widest = max(f for work in works for f in (*work.entering, *work.kept, *work.crossing, *work.leaving, 1))

    def best(self, near: Near | None = None) -> Choice | None:
        """Return the fastest choice, the first of equals, or of those `near` one; None where nothing fits."""
        found: Choice | None = None
        sizes = cut(self._job.batch)
        if near is not None:
            for sequences in around(near.sequences, sizes):
                found = self._better(found, sequences, around(min(near.slice_, sequences), cut(sequences)))
            if found is not None:
                return found
        for sequences in sizes:
            found = self._better(found, sequences, cut(sequences))
        if found is None:
            return None
        # Between the sizes of the ladder there may be better ones: as many slices, and other passes.
        parts = -(-found.sequences // max(found.slices))
        for sequences in between(self._job.batch, sizes, found.sequences):
            found = self._better(found, sequences, [-(-sequences // count) for count in {parts, parts + 1}])
        return found

    def _better(self, found: Choice | None, sequences: int, slices: Sequence[int]) -> Choice | None:
        """Return the fastest choice with so many sequences a pass, in one of the slices, or else what was found."""
        passes = -(-self._job.batch // sequences)
        last = self._job.batch - (passes - 1) * sequences
        if (self.boundary(sequences) > self._device.data).all():
            return found
        for slice_ in slices:
            one = self._pass(sequences, slice_)
            if not np.isfinite(one.seconds).any():
                continue
            total = passes * one.seconds
            if last != sequences:
                total = (passes - 1) * one.seconds + self._pass(last, min(slice_, last)).seconds
            index = int(np.argmin(total))
            if found is None or total[index] < found.seconds:
                stored = tuple(tuple(int(runs[index]) for runs in stage) for stage in one.stored)
                chosen = tuple(int(s[index]) for s in one.slices)
                found = Choice(index, sequences, passes, stored, chosen, float(total[index]))
        return found

    def least(self, sequences: int) -> float:
        """Return the bytes that the fullest core needs at least, where they are fewest, one sequence in work."""
        work = _largest([self._work(stage, 1) for stage in range(len(self._works))])
        return float((self.boundary(sequences) + self.buffers(1) + work).min())

    @property
    def _number(self) -> int:
        return self._job.number

    @property
    def _training(self) -> bool:
        return self._job.purpose == "training"

    def buffers(self, slice_: int) -> Floats:
        """Return the bytes of a core for what passes it."""
        return self.wafer.buffers(slice_, self._widest)

    def boundary(self, sequences: int) -> Floats:
        """Return the bytes of a core for what enters layers; going forward only, for what enters and leaves one."""
        if self._training:
            features: Iterable[int] = (f for w in self._works for f in w.entering * w.stage.runs)
            return self._number * self.wafer.entries(features, sequences)
        between = [self.wafer.entries((*w.entering, *w.leaving), sequences) for w in self._works[:-1] or self._works]
        return self._number * _largest(between)

    def stored(self, stage: int, level: int, sequences: int) -> Floats:
        """Return the bytes of a core for what one run of a stage stores at a level beside what enters it."""
        return self._number * self.wafer.entries(self._works[stage].levels[level], sequences)

    def in_work(self, slices: Sequence[int], layout: int) -> tuple[float, float]:
        """Return the bytes of a core for the stage in work that has most: tensors, and what passes the core."""
        pairs = [
            (float(self._work(stage, slice_)[layout]), float(self.buffers(slice_)[layout]))
            for stage, slice_ in enumerate(slices)
        ]
        return max(pairs, key=sum)

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self._works)

    @property
    def memory(self) -> int:
        """Bytes of a core."""
        return self._device.data

    @property
    def trains(self) -> bool:
        """Whether sequences go back as well."""
        return self._training

    @property
    def stores(self) -> bool:
        """Whether more may be stored than what enters a layer."""
        return self._training and not self._job.recompute

    def runs(self, stage: int) -> int:
        """Return how often a stage runs."""
        return self._works[stage].stage.runs

    def work_of(self, stage: int, slice_: int) -> Floats:
        """Return the bytes of a core for what is in work inside one stage."""
        return self._work(stage, slice_)

    def slice_seconds(self, stage: int, slice_: int) -> tuple[Floats, tuple[Floats, ...], Floats]:
        """Return the seconds of one run for one slice: forward, made again at every level, back."""
        found = self._slice(stage, slice_)
        return found.forward, found.again, found.back

    def falls(self, stage: int) -> bool:
        """Return whether a stage has ops that may take less time for more sequences, by rounding."""
        kernels = self._works[stage].kernels
        ops = (op for kernel in kernels for part in (kernel.forward, kernel.back, *kernel.again) for op, _ in part)
        return any(isinstance(op, OtherProduct) for op in ops)

    def _work(self, stage: int, slice_: int) -> Floats:
        key = stage, slice_
        if key not in self._held:
            work = self._works[stage]
            features = (*work.crossing, *work.kept) if self._training else work.crossing
            self._held[key] = self._number * self.wafer.entries(features, slice_)
        return self._held[key]

    def _pass(self, sequences: int, slice_: int) -> _Pass:
        """Return a pass whose looped stages are worked on in slices of `slice_` sequences."""
        looped = [s for s, work in enumerate(self._works) if work.stage.runs > 1]
        free = self._device.data - self.boundary(sequences)
        in_work = np.zeros_like(free)
        if looped:
            in_work = self.buffers(slice_) + _largest([self._work(s, slice_) for s in looped])
        left = free - in_work
        fits = left >= 0
        stored: list[tuple[Floats, ...]] = []
        seconds = np.where(fits, 0.0, np.inf)
        slices: list[Floats] = []
        for s in range(len(self._works)):
            runs, left = self._stored(s, sequences, left) if s in looped and fits.any() else ((), left)
            stored.append(runs)
        for s in range(len(self._works)):
            size = np.full_like(left, slice_)
            if fits.any():
                one, size = (
                    (self._stage(s, sequences, slice_, stored[s]), size)
                    if s in looped
                    else self._best_slice(s, sequences, left + in_work)
                )
                seconds = seconds + one
            slices.append(size)
        return _Pass(seconds, tuple(stored), tuple(slices))

    def _stored(self, stage: int, sequences: int, left: Floats) -> tuple[tuple[Floats, ...], Floats]:
        """Return how many runs of a stage store each level, where `left` bytes of a core are free, and what is left."""
        total = self._works[stage].stage.runs
        runs = np.full_like(left, total)
        found = [runs]
        levels = len(self._works[stage].levels) if self._training and not self._job.recompute else 1
        for level in range(1, levels):
            each = self.stored(stage, level, sequences) - self.stored(stage, level - 1, sequences)
            # A level is stored by more runs only when all have the one before it.
            room = np.clip(np.floor(left / np.maximum(each, 1e-9)), 0, total)
            runs = np.where(runs == total, room, 0.0)
            left = left - runs * each
            found.append(runs)
        return tuple(found), left

    def _best_slice(self, stage: int, sequences: int, left: Floats) -> tuple[Floats, Floats]:
        """Return the seconds of a stage that stands alone, and the slice for each layout at which it is fastest."""
        key = stage, sequences
        if key not in self._alone:
            sizes = cut(sequences)
            work = np.stack([self._work(stage, size) + self.buffers(size) for size in sizes])
            seconds = np.stack([self._stage(stage, sequences, size, ()) for size in sizes])
            self._alone[key] = _Alone(tuple(sizes), work, seconds)
        alone = self._alone[key]
        possible = np.where(alone.work <= left, alone.seconds, np.inf)
        which = possible.argmin(axis=0)
        return possible.min(axis=0), np.array(alone.sizes, dtype=np.float64)[which]

    def _stage(self, stage: int, sequences: int, slice_: int, stored: tuple[Floats, ...]) -> Floats:
        """Return the seconds of all runs of a stage in a pass; a last stage that runs once turns round at once."""
        found, runs = self._directions(stage, sequences, slice_), self._works[stage].stage.runs
        if not self._training:
            return runs * found.forward
        seconds = runs * (found.forward + found.back)
        if runs == 1 and stage == len(self._works) - 1:
            return seconds
        if not stored:
            return seconds + runs * found.again[0]
        # Runs that store a level, but not the next one, make again what that level lacks.
        beyond = (*stored[1:], np.zeros_like(stored[0]))
        for at_least, more, again in zip(stored, beyond, found.again, strict=False):
            seconds = seconds + (at_least - more) * again
        return seconds

    def _directions(self, stage: int, sequences: int, slice_: int) -> _Directions:
        key = stage, sequences, slice_
        if key not in self._known:
            full, rest = divmod(sequences, slice_)
            found = self._slice(stage, slice_).times(full)
            self._known[key] = found.plus(self._slice(stage, rest)) if rest else found
        return self._known[key]

    def _slice(self, stage: int, slice_: int) -> _Directions:
        """Return the seconds of one slice: each block computes while its weights pass, and gradients the other way."""
        key = stage, slice_, slice_
        if key not in self._known:
            levels = len(self._works[stage].levels)
            sums = [np.zeros(len(self.wafer.layouts)) for _ in range(levels + 2)]
            for kernel in self._works[stage].kernels:
                for total, cost, streamed in zip(sums, self.costs(kernel, slice_), streams(kernel), strict=True):
                    seconds = streamed * self._number / self._device.off_wafer
                    total += np.maximum(cost.total / self._device.clock, seconds)
            self._known[key] = _Directions(sums[0], tuple(sums[2:]), sums[1])
        return self._known[key]

    def costs(self, kernel: KernelWork, sequences: int) -> list[Cost]:
        """Return the cycles of a block for some sequences: forward, back, and made again at every level."""
        if not self._training:
            nothing = self.wafer.ops((), sequences)
            return [self.wafer.ops(kernel.forward, sequences), nothing, *(nothing for _ in kernel.again)]
        return [self.wafer.ops(ops, sequences) for ops in (kernel.forward, kernel.back, *kernel.again)]


def _largest(arrays: Sequence[Floats]) -> Floats:
    """Return the largest of several numbers for every layout."""
    found: Floats = np.maximum.reduce(arrays)
    return found


def streams(kernel: KernelWork) -> list[int]:
    """Return the scalars that cross the link off the wafer, the way that has more: as `Search.costs`."""
    again = [kernel.weights if ops else 0 for ops in kernel.again]
    return [kernel.weights, max(kernel.weights, kernel.trained), *again]
