"""The collectives of `collectives` on many lines of cores at once: for searches over all layouts.

A phase is linear in its words, so that what one word takes on each line says what any number does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cgc_wse.kernel_cost.collectives import NOTHING, Phase, broadcast_phase, group_counts, grouping, meeting_phases
from cgc_wse.kernel_cost.machine import Machine

if TYPE_CHECKING:
    Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True)
class Phases:
    """Phases of one word each, `contention` and the others as in `Phase`; all of one shape."""

    contention: Floats
    load: Floats
    distance: Floats
    depth: Floats

    def cycles(self, machine: Machine, words: Floats) -> Floats:
        """Return the cycles of each for so many words: `Phase.cycles`."""
        travel = np.maximum(
            self.contention * (machine.word * words),
            self.load * (machine.word * words) + self.distance * machine.relay,
        )
        found: Floats = travel + machine.step * self.depth
        return found


def phases(rows: Sequence[Sequence[Phase]]) -> Phases:
    """Return a table of phases of one word as arrays."""
    parts = np.array([[(p.contention, p.load, p.distance, p.depth) for p in row] for row in rows], dtype=np.float64)
    return Phases(*np.moveaxis(parts, -1, 0))


class Allreduces:
    """`collectives.allreduce_cycles` on lines of `cores` cores each: the best groups on every line."""

    def __init__(self, machine: Machine, cores: Sequence[int]) -> None:
        """Prepare the phases of all groups that are worth trying on each line."""
        self._machine = machine
        self._starts: Floats = machine.task * np.where(np.array(cores) > 1, 2.0, 1.0)
        self._known: dict[bytes, Floats] = {}
        counts = [group_counts(line) for line in cores]
        most = max(len(found) for found in counts)
        # Every line gets as many choices, the last of them again and again.
        choices = [[*found, *[found[-1]] * (most - len(found))] for found in counts]
        pairs = [[(line, groups) for groups in found] for line, found in zip(cores, choices, strict=True)]
        inner = [[_meeting(grouping(*pair).size, 1) for pair in row] for row in pairs]
        outer = [[_meeting(grouping(*pair).groups, grouping(*pair).size) for pair in row] for row in pairs]
        self._inner = [phases([[two[i] for two in row] for row in inner]) for i in (0, 1)]
        self._outer = [phases([[two[i] for two in row] for row in outer]) for i in (0, 1)]
        self._back = phases([[_back(*pair) for pair in row] for row in pairs])

    def cycles(self, words: Floats) -> Floats:
        """Return the cycles with their start, for the words that each line has in every core."""
        key = words.tobytes()
        if key not in self._known:
            each, machine = words[:, None], self._machine
            inner, outer = (
                np.maximum(*(one.cycles(machine, each) for one in two)) for two in (self._inner, self._outer)
            )
            total = inner + outer + self._back.cycles(machine, each)
            self._known[key] = self._starts + total.min(axis=1)
        return self._known[key]


def _meeting(cores: int, hops: int) -> tuple[Phase, Phase]:
    return meeting_phases(cores, 1, hops) if cores > 1 else (NOTHING, NOTHING)


def _back(cores: int, groups: int) -> Phase:
    return broadcast_phase(grouping(cores, groups).farthest + 1, 1)
