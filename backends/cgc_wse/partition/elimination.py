"""Choosing one option for each of many variables so that the sum of costs is smallest.

Costs belong to single variables and to pairs. Variables are eliminated one after another: the tables that speak of one
are added up and minimized over it, which leaves a table over its neighbours. That is exact, and cheap where no variable
has many neighbours left when its turn comes, as in the chains and branches of a network. Where a table would become too
large, the variable is fixed first, to its best option by costs so far; every variable is then looked at again with the
others held, until nothing improves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Table: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
LARGEST = 1_000_000
"""Entries of a table that is still made."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`alone[v][i]` is the cost of option i of variable v, `pairs[v, w][i, j]` (v < w) that of two options together."""

    alone: Sequence[Table]
    pairs: Mapping[tuple[int, int], Table]

    def cost(self, options: Sequence[int]) -> float:
        """Return the cost of a choice for every variable."""
        single = sum(float(costs[option]) for costs, option in zip(self.alone, options, strict=True))
        return single + sum(float(table[options[v], options[w]]) for (v, w), table in self.pairs.items())


@dataclass(frozen=True, slots=True)
class Solution:
    """An option for each variable, and whether none is better."""

    options: tuple[int, ...]
    cost: float
    exact: bool


def solve(problem: Problem, largest: int = LARGEST) -> Solution:
    """Return the cheapest choice; the first of equals, so that the result does not depend on chance."""
    count = len(problem.alone)
    sizes = [len(costs) for costs in problem.alone]
    factors: list[tuple[tuple[int, ...], Table]] = [((v,), problem.alone[v]) for v in range(count)]
    factors += sorted(((pair, table) for pair, table in problem.pairs.items()), key=lambda one: one[0])
    left = set(range(count))
    order: list[tuple[int, tuple[int, ...], Table]] = []
    fixed: dict[int, int] = {}
    neighbours = {v: {w for scope, _ in factors for w in scope if v in scope and w != v} for v in range(count)}
    while left:
        v = min(left, key=lambda v: (_size(neighbours[v], sizes), v))
        if _size(neighbours[v], sizes) * sizes[v] > largest:
            busiest = max(left, key=lambda w: (len(neighbours[w]), -w))
            fixed[busiest] = int(np.argmin(_alone(busiest, factors)))
            factors = [_held(scope, table, busiest, fixed[busiest]) for scope, table in factors]
            for w in neighbours[busiest]:
                neighbours[w].discard(busiest)
            left.discard(busiest)
            continue
        scope = tuple(sorted(neighbours[v]))
        total = np.zeros([sizes[w] for w in scope] + [sizes[v]])
        rest: list[tuple[tuple[int, ...], Table]] = []
        for own, table in factors:
            if v in own:
                total = total + _aligned(own, table, (*scope, v), sizes)
            else:
                rest.append((own, table))
        order.append((v, scope, total))
        factors = [*rest, (scope, total.min(axis=-1))]
        for w in scope:
            neighbours[w] |= set(scope) - {w}
            neighbours[w].discard(v)
        left.discard(v)
    chosen = dict(fixed)
    for v, scope, total in reversed(order):
        chosen[v] = int(np.argmin(total[tuple(chosen[w] for w in scope)]))
    options = [chosen[v] for v in range(count)]
    if fixed:
        options = _improved(problem, options)
    return Solution(tuple(options), problem.cost(options), not fixed)


def _size(scope: set[int], sizes: Sequence[int]) -> int:
    size = 1
    for v in scope:
        size *= sizes[v]
    return size


def _alone(v: int, factors: Sequence[tuple[tuple[int, ...], Table]]) -> Table:
    """Return what each option of a variable costs at least."""
    total: Any = 0.0
    for scope, table in factors:
        if v in scope:
            axes = tuple(axis for axis, w in enumerate(scope) if w != v)
            total = total + table.min(axis=axes)
    return np.asarray(total)


def _held(scope: tuple[int, ...], table: Table, v: int, option: int) -> tuple[tuple[int, ...], Table]:
    if v not in scope:
        return scope, table
    return tuple(w for w in scope if w != v), np.asarray(np.take(table, option, axis=scope.index(v)))


def _aligned(own: tuple[int, ...], table: Table, scope: tuple[int, ...], sizes: Sequence[int]) -> Table:
    """Return a table with its axes where `scope` has them."""
    order = [w for w in scope if w in own]
    moved = np.transpose(table, [own.index(w) for w in order])
    return moved.reshape([sizes[w] if w in own else 1 for w in scope])


def _improved(problem: Problem, options: list[int]) -> list[int]:
    """Change one variable at a time to its best option, until nothing improves."""
    touching: dict[int, list[tuple[int, Table]]] = {v: [] for v in range(len(options))}
    for (v, w), table in problem.pairs.items():
        touching[v].append((w, table))
        touching[w].append((v, table.T))
    changed = True
    while changed:
        changed = False
        for v, own in touching.items():
            total = np.array(problem.alone[v], np.float64)
            for w, table in own:
                total = total + table[:, options[w]]
            best = int(np.argmin(total))
            if total[best] < total[options[v]] - 1e-9:
                options[v], changed = best, True
    return options
