"""Generated trees: the reduction along a line that is best under the formula of `collectives`.

Every core of a line adds up what it receives and sends it on, once, so that a reduction to the first core is a tree. Of
those whose subtrees are parts of the line, the last message that a root receives comes from the first core of the rest
of the line: with i cores before that one, it goes i hops. So the least hops of all messages of one word among p cores,
of trees no deeper than D, with no more than C messages into a core and c into the first, are

    E(p, D, c) = min over 0 < i < p of E(i, D, c - 1) + E(p - i, D - 1, C) + i,    E(1, D, c) = 0

(as Auto-Gen in Luczynski et al., Near-Optimal Wafer-Scale Reduce, HPDC 2024, but that C is not lowered for all cores of
the first part). For B words the tree is the one whose

    T = max(B C, B E / (P - 1) + P - 1) + (2 T_R + 1) D

is least, over all D and C. Chains, stars, binary trees and two phases are such trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from cgc_wse.kernel_cost.collectives import NOTHING, REDUCTIONS, Phase, reduce_phase
from cgc_wse.kernel_cost.lines import Floats
from cgc_wse.kernel_cost.machine import Machine

Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

ALL = 32
"""On lines up to so many cores all trees are looked at."""

DEPTH = 32
"""On longer ones those up to that depth, and what has a name."""

MESSAGES = 6
"""And of those, with up to so many messages into a core, or with any number where that takes fewest hops."""


@dataclass(frozen=True, slots=True)
class Trees:
    """The best trees on a line: for each its depth, the most messages into a core, and the hops of one word each."""

    depth: Ints
    messages: Ints
    hops: Floats


def generated_phase(machine: Machine, cores: int, words: int) -> Phase:
    """Return the phase of the best tree for a reduction of `words` link words along `cores` cores.

    Never worse than one of `REDUCTIONS`: on long lines, where not all trees are looked at, these are.
    """
    if cores == 1:
        return NOTHING
    named = [reduce_phase(name, cores, words) for name in REDUCTIONS]
    return min([_generated(machine, cores, words), *named], key=lambda phase: phase.cycles(machine))


def _generated(machine: Machine, cores: int, words: int) -> Phase:
    trees = best_trees(cores)
    travel = np.maximum(
        trees.messages * (words * machine.word),
        trees.hops * (words * machine.word / (cores - 1)) + (cores - 1) * machine.relay,
    )
    at = int((travel + machine.step * trees.depth).argmin())
    load = words * float(trees.hops[at]) / (cores - 1)
    return Phase(words * int(trees.messages[at]), load, cores - 1, int(trees.depth[at]))


@lru_cache(maxsize=32)
def best_trees(cores: int) -> Trees:
    """Return the trees with the fewest hops for every depth and number of messages."""
    deepest = cores - 1 if cores <= ALL else min(cores - 1, DEPTH)
    most = cores - 1 if cores <= ALL else min(cores - 1, MESSAGES)
    rows = [(cores - 1, 1, float(cores - 1))]
    # [C - 1, cores]: trees of no depth have one core.
    shallower = _single(most, cores)
    free = _Free.single(cores)
    for depth in range(1, deepest + 1):
        found, deeper = _single(most, cores), np.empty_like(shallower)
        for messages in range(1, most + 1):
            # With so many into the first core; into the others as many, or more.
            found = _joined(found, shallower)
            deeper[messages - 1] = found[messages - 1]
        rows += [(depth, messages, float(deeper[messages - 1, cores])) for messages in range(1, most + 1)]
        free = free.deeper()
        rows.append((depth, int(free.messages[cores]), float(free.hops[cores])))
        shallower = deeper
    depths, counts, hops = zip(*(row for row in rows if row[2] < np.inf), strict=True)
    return Trees(np.array(depths), np.array(counts), np.array(hops))


def _single(count: int, cores: int) -> Floats:
    """Return the hops of trees of one core, so many times: none; of more cores there are no such trees."""
    hops = np.full((count, cores + 1), np.inf)
    hops[:, 1] = 0.0
    return hops


def _joined(first: Floats, rest: Floats) -> Floats:
    """Return for every p the least of first[i] + rest[p - i] + i over 0 < i < p, and 0 for one core; row by row."""
    cores = first.shape[1] - 1
    found = _single(len(first), cores)
    for i in np.flatnonzero(np.isfinite(first[:, :cores]).any(axis=0)):
        part = found[:, i + 1 :]
        np.minimum(part, (first[:, i : i + 1] + i) + rest[:, 1 : cores + 1 - i], out=part)
    return found


@dataclass(frozen=True, slots=True)
class _Free:
    """The fewest hops of trees of some depth with any number of messages, by cores; `messages` is the most into one of
    their cores, `first` into their first.
    """

    hops: Floats
    messages: Ints
    first: Ints

    @classmethod
    def single(cls, cores: int) -> _Free:
        """Return trees of no depth."""
        hops = np.full(cores + 1, np.inf)
        hops[1] = 0.0
        return cls(hops, np.zeros(cores + 1, dtype=np.int64), np.zeros(cores + 1, dtype=np.int64))

    def deeper(self) -> _Free:
        """Return trees that may be one deeper."""
        cores = len(self.hops) - 1
        new = _Free.single(cores)
        for p in range(2, cores + 1):
            total = new.hops[1:p] + self.hops[p - 1 : 0 : -1] + np.arange(1, p)
            i = int(total.argmin()) + 1
            new.hops[p] = total[i - 1]
            new.first[p] = new.first[i] + 1
            new.messages[p] = max(new.messages[i], new.first[p], self.messages[p - i])
        return new
