"""The allreduce of `collectives` on many lines of cores at once: for searches over all layouts.

A phase is linear in its words, so that what one word takes on each line says what any number does.
"""

from __future__ import annotations

from functools import cache
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
            lines, line = np.unique(self._cores, return_inverse=True)
            amounts, amount = np.unique(words, return_inverse=True)
            table = _table(self._machine, tuple(int(one) for one in lines), tuple(float(one) for one in amounts))
            self._known[key] = table[line.reshape(self._cores.shape), amount.reshape(words.shape)]
        return self._known[key]


@cache
def _table(machine: Machine, lines: tuple[int, ...], amounts: tuple[float, ...]) -> Floats:
    """Return the cycles of all lines, for all amounts of words."""
    words = np.array(amounts)[:, None] * machine.word
    rows = []
    for line in lines:
        contention, load, distance, depth = np.moveaxis(_phases(line), -1, 0)[..., None, :]
        travel = np.maximum(contention * words, load * words + distance * machine.relay) + machine.step * depth
        inner, outer, back = np.maximum(travel[0], travel[1]), np.maximum(travel[2], travel[3]), travel[4]
        rows.append(machine.task * (2 if line > 1 else 1) + (inner + outer + back).min(axis=-1))
    return np.array(rows)


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
