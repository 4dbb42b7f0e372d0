"""The allreduce of `collectives` on many lines of cores at once: for searches over all layouts.

A phase is linear in its words, so that what one word takes on each line says what any number does.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, TypeAlias

import numpy as np

from cgc_wse.kernel_cost.collectives import NOTHING, Phase, broadcast_phase, group_counts, grouping, meeting_phases
from cgc_wse.kernel_cost.machine import Machine

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


class Allreduces:
    """`collectives.allreduce_cycles` on lines of so many cores each: the best groups on every line.

    Nothing is computed before it is asked for.
    """

    def __init__(self, machine: Machine, cores: Floats) -> None:
        """Prepare for lines whose numbers of cores are whole."""
        self._machine = machine
        self._cores = cores
        self._known: dict[tuple[tuple[int, ...], bytes], Floats] = {}

    def cycles(self, words: Floats) -> Floats:
        """Return the cycles with their start, for the words that each line has in every core (shapes broadcast)."""
        key = words.shape, words.tobytes()
        if key not in self._known:
            self._known[key] = self._of_each(words) if words.shape == self._cores.shape else self._of_all(words)
        return self._known[key]

    def _of_each(self, words: Floats) -> Floats:
        """Return the cycles of lines with as many numbers of words."""
        lines = tuple(int(one) for one in self._cores.reshape(-1))
        return _cycles(self._machine, lines, words.reshape(-1, 1)).reshape(self._cores.shape)

    def _of_all(self, words: Floats) -> Floats:
        """Return the cycles where every line may have every number of words, each pair of them once."""
        lines, line = np.unique(self._cores, return_inverse=True)
        amounts, amount = np.unique(words, return_inverse=True)
        found = _cycles(self._machine, tuple(int(one) for one in lines), amounts[:, None, None])
        return found[amount.reshape(words.shape), line.reshape(self._cores.shape)]


def _cycles(machine: Machine, lines: tuple[int, ...], words: Floats) -> Floats:
    """Return the cycles of lines in their fastest groups; `words` has an axis of length one for them."""
    phases, amount = _together(lines), words * machine.word
    travel = []
    for contention, load, distance, depth in phases:
        way = np.maximum(contention * amount, load * amount + distance * machine.relay)
        travel.append(way + machine.step * depth)
    total = np.maximum(travel[0], travel[1]) + np.maximum(travel[2], travel[3]) + travel[4]
    starts = machine.task * np.where(np.array(lines) > 1, 2.0, 1.0)
    found: Floats = starts + total.min(axis=-1)
    return found


@lru_cache(maxsize=64)
def _together(lines: tuple[int, ...]) -> Floats:
    """Return the phases of several lines: [phase, (C, E / N, L, D), lines, groups], the last groups again and again."""
    found = [_phases(line) for line in lines]
    most = max(one.shape[1] for one in found)
    padded = [np.pad(one, ((0, 0), (0, most - one.shape[1]), (0, 0)), mode="edge") for one in found]
    return np.moveaxis(np.stack(padded, axis=1), -1, 1)


@cache
def _phases(cores: int) -> Floats:
    """Return the phases of one word in all groups that are worth trying: [phase, groups, (C, E / N, L, D)].

    The phases are those of the two chains in a group, of the two over the groups, and of the way back.
    """
    choices = []
    for count in group_counts(cores):
        cut = grouping(cores, count)
        inner, outer = _meeting(cut.size, 1), _meeting(cut.groups, cut.size)
        choices.append([*inner, *outer, broadcast_phase(cut.farthest + 1, 1)])
    found = np.array(
        [[(one.contention, one.load, one.distance, one.depth) for one in choice] for choice in choices],
        dtype=np.float64,
    )
    return found.swapaxes(0, 1)


def _meeting(cores: int, hops: int) -> tuple[Phase, Phase]:
    return meeting_phases(cores, 1, hops) if cores > 1 else (NOTHING, NOTHING)
