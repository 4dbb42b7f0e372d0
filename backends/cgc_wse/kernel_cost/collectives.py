"""Reductions and broadcasts along a line of cores, and on a rectangle: rows first, then the columns.

A phase in which words travel takes (Luczynski et al., Near-Optimal Wafer-Scale Reduce, HPDC 2024)

    T = max(C, E / N + L) + (2 * T_R + 1) * D    cycles

with C the most link words that any core receives or sends (each of `word` cycles), E the hops of all words together, N
the links used, L the longest way in hops (each of `relay` cycles), D the depth of dependent steps and T_R the cycles
from a core to its router. No start of tasks is in it: kernels made of phases add that, one `task` for each.

Every model of the wafer takes its times of travel from here: `cgc cost`, decoding, weight streaming, pipelines, and the
partition, which the event-level simulator holds to account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import isqrt

from cgc_wse.kernel_cost.machine import Machine


@dataclass(frozen=True, slots=True)
class Phase:
    """What of a phase sets its time: C in words, E / N in words, L in hops, D in steps."""

    contention: float = 0.0
    load: float = 0.0
    distance: float = 0.0
    depth: float = 0.0

    def cycles(self, machine: Machine) -> float:
        """Return T = max(C, E / N + L) + (2 * T_R + 1) * D."""
        travel = max(self.contention * machine.word, self.load * machine.word + self.distance * machine.relay)
        return travel + machine.step * self.depth

    def parts(self, machine: Machine) -> dict[str, float]:
        """Return the two terms of T, in cycles."""
        depth = machine.step * self.depth
        return {"travel": self.cycles(machine) - depth, "depth": depth}


NOTHING = Phase()


def _star(cores: int, words: int) -> Phase:
    """Every core sends straight to the first: C = B (P - 1), E = B P (P - 1) / 2."""
    return Phase(words * (cores - 1), words * cores / 2, cores - 1, 1)


def _chain(cores: int, words: int) -> Phase:
    """Every core adds its part and hands on: C = B, E = B (P - 1), D = P - 1."""
    return Phase(words, words, cores - 1, cores - 1)


def _tree(cores: int, words: int) -> Phase:
    """A binary tree: in round i every 2^(i+1)-th core receives over 2^i hops: C = B R, E = B P R / 2, R rounds."""
    rounds = (cores - 1).bit_length()
    return Phase(words * rounds, words * cores * rounds / (2 * (cores - 1)), cores - 1, rounds)


def _two_phase(cores: int, words: int) -> Phase:
    """Chains in groups of about √P, then a chain of the groups' first cores: C = 2 B, D = (S - 1) + (P / S - 1)."""
    group = isqrt(cores - 1) + 1
    groups = -(-cores // group)
    hops = groups * (group - 1) + (groups - 1) * group
    return Phase(2 * words, words * hops / (cores - 1), cores - 1, group + groups - 2)


REDUCTIONS: dict[str, Callable[[int, int], Phase]] = {
    "star": _star,
    "chain": _chain,
    "tree": _tree,
    "two-phase": _two_phase,
}
"""Reductions to the first core of a line, by name: (cores, link words of each) → phase."""


def ring_phase(cores: int, words: int) -> Phase:
    """Return the phase of a ring allreduce along a line, every core having a neighbour at most two hops away.

    In 2 (P - 1) rounds each core passes on a P-th of the words: C = E / N = 2 B (P - 1) / P, over 2 (P - 1) links, and
    the longest way goes twice round the ring of 2 (P - 1) hops, but for its last edge: L = 4 P - 6 (Luczynski et al.).
    """
    if cores == 1:
        return NOTHING
    share = 2 * words * (cores - 1) / cores
    return Phase(share, share, max(1, 4 * cores - 6), 2 * (cores - 1))


def reduce_phase(algorithm: str, cores: int, words: int) -> Phase:
    """Return the phase of a reduction of `words` link words along `cores` cores; one core has nothing to do."""
    return REDUCTIONS[algorithm](cores, words) if cores > 1 else NOTHING


def broadcast_phase(cores: int, words: int) -> Phase:
    """Routers copy as words pass: C = B, E = B (P - 1) over P - 1 links, L = P - 1, D = 1."""
    return Phase(words, words, cores - 1, 1) if cores > 1 else NOTHING


def meeting_phases(cores: int, words: int, hops: int = 1) -> tuple[Phase, Phase]:
    """Return the phases of two chains from the ends of `cores` cores, `hops` hops apart, that meet in their middle one.

    The longer of them hands on B words over ⌊P / 2⌋ cores. Once the shorter one has come over ⌊(P - 1) / 2⌋, the middle
    receives from both sides, 2 B words in all: the later of the two is what it takes.
    """
    far, near = cores // 2, (cores - 1) // 2
    alone = Phase(words, words, far * hops, far)
    return alone, Phase(2 * words, 2 * words, near * hops, near) if near else alone


def scattering_phases(cores: int, words: int, hops: int = 1) -> tuple[Phase, Phase]:
    """Return the phases of chains that leave a piece of `words` words of the sum in each of `cores` cores.

    Pieces run both ways: a piece passes all cores, and a core in the middle gets P + 1 of them, those that end in it
    and beyond, once the first have come half the way.
    """
    near = (cores - 1) // 2
    alone = Phase(words, words, (cores - 1) * hops, cores - 1)
    many = Phase((cores + 1) * words, (cores + 1) * words, near * hops, near)
    return alone, many if near else alone


def later(machine: Machine, *phases: Phase) -> Phase:
    """Return the phase that ends last of several that run side by side."""
    return max(phases, key=lambda phase: phase.cycles(machine))


def grouped_phases(machine: Machine, cores: int, words: int, groups: int) -> tuple[Phase, Phase, Phase]:
    """Return the phases of the allreduce of WaferLLM's GEMV along a line, in `groups` groups.

    In every group of S = ⌈P / groups⌉ cores two chains run from the ends to the middle one; two chains of the middle
    ones, S apart with links of their own, run to that of the middle group; its core broadcasts.
    """
    if cores == 1:
        return NOTHING, NOTHING, NOTHING
    cut = grouping(cores, groups)
    inner = later(machine, *meeting_phases(cut.size, words)) if cut.size > 1 else NOTHING
    outer = later(machine, *meeting_phases(cut.groups, words, cut.size)) if cut.groups > 1 else NOTHING
    return inner, outer, broadcast_phase(cut.farthest + 1, words)


@dataclass(frozen=True, slots=True)
class Grouping:
    """A line in `groups` groups of `size` cores; the last may have fewer. `farthest` is how far the core is that is
    farthest from the middle of the middle group.
    """

    size: int
    groups: int
    farthest: int


@cache
def grouping(cores: int, groups: int) -> Grouping:
    """Return how a line is cut into about `groups` groups."""
    size = -(-cores // groups)
    groups = -(-cores // size)
    root = min(groups // 2 * size + size // 2, cores - 1)
    return Grouping(size, groups, max(root, cores - 1 - root))


@cache
def group_counts(cores: int) -> tuple[int, ...]:
    """Return the numbers of groups worth trying: those that give groups of different sizes."""
    sizes = {-(-cores // groups) for groups in range(1, cores + 1)}
    return tuple(sorted({-(-cores // size) for size in sizes}))


@cache
def best_groups(machine: Machine, cores: int, words: int) -> int:
    """Return the number of groups at which the grouped allreduce is fastest, the smaller of equals."""
    return min(group_counts(cores), key=lambda groups: grouped_cycles(machine, cores, words, groups))


def allreduce_cycles(machine: Machine, cores: int, words: int) -> float:
    """Return the cycles of an allreduce in the best groups, with its start: a task for each of its two ways."""
    if cores == 1:
        return machine.task
    return 2 * machine.task + grouped_cycles(machine, cores, words, best_groups(machine, cores, words))


def grouped_cycles(machine: Machine, cores: int, words: int, groups: int) -> float:
    """Return the cycles of the grouped allreduce, without the start of tasks."""
    return sum(phase.cycles(machine) for phase in grouped_phases(machine, cores, words, groups))
