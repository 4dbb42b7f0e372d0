"""What no way to stream can beat, with one layout for all layers and any passes, slices and choice of what is stored.

Every sequence of a batch goes through every stage in some slice of m sequences, in some pass of n ≥ m. In one layout it
takes at least the least over m of (forward + back) / m, and of what is made again at least what the memory that n
sequences leave cannot store; and no slice is faster than one of a single sequence, of which there are as many as the
largest slice leaves. Sizes are taken in intervals: for all m from a to b a slice takes at least the seconds of
one of a, and serves at most b sequences; for all n from a to b memory is that of a, and slices are up to b.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cgc_wse.kernel_cost.lines import Floats
from cgc_wse.streaming.search import Search

STEP = 0.025
"""Intervals of sizes are that long, as a part of the size."""


def least_seconds(search: Search, batch: int) -> float:
    """Return the bound on the seconds of all layers and passes for a batch."""
    starts = [start for start in _starts(batch) if (_free(search, start) >= 0).any()]
    intervals = [(first, after - 1) for first, after in pairwise([*starts, min(batch, 2 * starts[-1]) + 1])]
    stages = [_stage(search, stage, [first for first, _ in intervals]) for stage in range(search.stages)]
    ends = np.array([end for _, end in intervals], dtype=np.float64)[:, None]
    best = np.inf
    for count, (first, last) in enumerate(intervals, start=1):
        # In a pass of at most `last` sequences no slice serves more, and those that start beyond it are no slices.
        serves = np.minimum(ends[:count], last)
        free = _free(search, first)
        total = np.where(free >= 0, 0.0, np.inf)
        for number, stage in enumerate(stages):
            total = total + _per_sequence(search, number, stage, serves, (first, last), np.maximum(free, 0.0))
        best = min(best, float(total.min()))
    return batch * best


def _starts(most: int) -> list[int]:
    """Return where the intervals start that cover 1 to `most`."""
    found = [1]
    while found[-1] < most:
        found.append(min(found[-1] + max(1, int(STEP * found[-1])), most))
    return found


def _free(search: Search, sequences: int) -> Floats:
    """Return the bytes of a core that a pass leaves; negative where it does not fit at all."""
    return search.memory - search.boundary(sequences) - search.buffers(1)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Seconds of all runs of a stage, [slice, layout]: there and back, made again with nothing stored, and by how much
    less that is for one run at every level. `work` are the bytes of a core that slices take, in and past a stage.
    """

    both: Floats
    again: Floats
    gains: tuple[Floats, ...]
    work: Floats


def _stage(search: Search, stage: int, slices: list[int]) -> _Stage:
    runs, found = search.runs(stage), [search.slice_seconds(stage, slice_) for slice_ in slices]
    both = runs * np.stack([forward + back if search.trains else forward for forward, _, back in found])
    levels = len(found[0][1]) if search.trains and stage < search.stages - 1 else 0
    again = [np.stack([one[1][level] for one in found]) for level in range(levels)]
    if search.falls(stage):
        # Vectors of some ops are longer in longer slices, and so fewer: by no more than from one start to the next.
        lengths = np.stack([search.wafer.length(slice_) for slice_ in [*slices, slices[-1]]])
        factor = np.minimum(1.0, lengths[:-1] / lengths[1:])
        both, again = both * factor, [seconds * factor for seconds in again]
    stores = runs > 1 and search.stores
    gains = tuple(np.maximum(again[0] - seconds, 0.0) for seconds in again[1:]) if stores else ()
    passing = search.buffers(1)
    work = np.stack([search.work_of(stage, slice_) + search.buffers(slice_) - passing for slice_ in slices])
    return _Stage(both, runs * again[0] if again else np.zeros_like(both), gains, work)


def _per_sequence(
    search: Search, number: int, stage: _Stage, serves: Floats, interval: tuple[int, int], free: Floats
) -> Floats:
    """Return the bound of all runs of a stage for one sequence, by layout; infinite where no slice fits.

    By the largest slice of a pass: no sequence takes less than in the best of the slices up to that one, and there are
    as many slices as are needed, none of which takes less than a slice of one sequence.
    """
    count = len(serves)
    room = free - stage.work[:count]
    seconds = _spared(search, number, stage, slice(0, count), interval[0], room)
    each = np.minimum.accumulate(np.where(room >= 0, seconds / serves, np.inf), axis=0)
    slices = np.ceil(interval[0] / serves)
    least = slices * _spared(search, number, stage, slice(0, 1), interval[0], room) / interval[1]
    found: Floats = np.where(room >= 0, np.maximum(each, least), np.inf).min(axis=0)
    return found


def _spared(search: Search, number: int, stage: _Stage, which: slice, sequences: int, room: Floats) -> Floats:
    """Return the seconds of some slices of a stage where `room` bytes of a core store what is not made again."""
    seconds: Floats = stage.both[which] + stage.again[which]
    if not stage.gains:
        return seconds + np.zeros_like(room)
    spared, most = np.zeros_like(room), np.zeros_like(room)
    for level, gain in enumerate(stage.gains, start=1):
        # Each byte that is stored spares at most what it does at its best.
        each = np.maximum(search.stored(number, level, sequences), 1e-9)
        spared = np.maximum(spared, gain[which] * (np.maximum(room, 0.0) / each))
        most = np.maximum(most, gain[which])
    return seconds - np.minimum(spared, search.runs(number) * most)
