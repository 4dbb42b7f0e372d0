"""Simulated annealing over slicing trees and the time of the slowest kernel together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from random import Random

import numpy as np

from cgc_wse.place.moves import change
from cgc_wse.place.problem import CurveLibrary, PlaceProblem
from cgc_wse.place.tree import Nested, SlicingTree, Spot

PENALTY = 3.0
"""How much dearer than time an overflow is taken to be: r² of a tree r times as long as the grid says what it needs at
least.
"""
TIME_MOVES = 0.08
"""How often the time is changed instead of the tree."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A slicing tree for kernels that take at most `time` ticks, and what it costs."""

    cost: float
    time: int
    nested: Nested


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, and from which temperature to which, both in units of the cost."""

    steps: int
    hot: float
    cold: float


class Annealer:
    """Holds a tree and a time and changes them.

    A tree that is r times as long as the grid (r > 1) is taken to need r² times the time: it is not legal, but it may
    lead to one that is.
    """

    def __init__(self, problem: PlaceProblem, library: CurveLibrary, levels: Sequence[int], random: Random) -> None:
        self.problem, self.library, self.levels, self.random = problem, library, levels, random
        self.neighbours: list[list[int]] = [[] for _ in problem.kernels]
        for a, b in problem.nets:
            self.neighbours[a].append(b)
            self.neighbours[b].append(a)
        self._across = np.arange(library.columns + 1) / problem.columns

    def run(self, start: Arrangement, schedule: Schedule, go_on: Callable[[], bool]) -> tuple[Arrangement, int]:
        """Return the cheapest legal arrangement seen, and the steps made; `go_on` is asked every 64 steps."""
        if len(self.problem.kernels) < 2:
            return start, 0
        random, levels = self.random, self.levels
        tree = SlicingTree(start.nested, len(self.problem.kernels))
        level = next((i for i, time in enumerate(levels) if time >= start.time), len(levels) - 1)
        tree.set_curves(self.library.curves(levels[level]))
        cost, _ = self._cost(tree, levels[level])
        best = start
        steps, cooling = 0, schedule.cold / schedule.hot
        for steps in range(schedule.steps):
            if steps % 64 == 0 and not go_on():
                break
            temperature = schedule.hot * cooling ** (steps / schedule.steps)
            before, old = tree.snapshot(), level
            if random.random() < TIME_MOVES:
                level += random.choice((-4, -2, -1, -1, -1, 1, 1, 2, 4))
                if not 0 <= level < len(levels):
                    level = old
                    continue
                tree.set_curves(self.library.curves(levels[level]))
            elif not change(tree, self.neighbours, self.library.kinds, random):
                continue
            new, legal = self._cost(tree, levels[level])
            if new <= cost or random.random() < exp((cost - new) / temperature):
                cost = new
                if legal and new < best.cost:
                    best = Arrangement(new, levels[level], tree.nested())
            else:
                tree.restore(before)
                level = old
        return best, steps + 1

    def _cost(self, tree: SlicingTree, time: int) -> tuple[float, bool]:
        """Return what a tree costs, and whether it is on the grid; infinite where it is too large by far."""
        problem = self.problem
        width, height = problem.columns, problem.rows
        heights = tree.heights_of(tree.root)
        legal = heights.item(width) <= height
        factor = 1.0
        if not legal:
            longer = np.maximum(self._across, heights / problem.rows)
            width = int(longer.argmin())
            height = heights.item(width)
            if height > self.library.rows:
                return float("inf"), False
            factor = 1 + PENALTY * (longer.item(width) ** 2 - 1)
        spots = tree.rectangles(width, height)
        return problem.tick_cost * time * factor + problem.wire_cost * wire(spots, problem.nets), legal


def wire(spots: Sequence[Spot], nets: Sequence[tuple[int, int]]) -> float:
    """Return the sum over nets of the L1 distance of the two centres."""
    x = [2 * left + width for left, _, width, _ in spots]
    y = [2 * low + height for _, low, _, height in spots]
    return sum(abs(x[a] - x[b]) + abs(y[a] - y[b]) for a, b in nets) / 2
