"""Rectangles for the pipelined run: every block of every layer gets one, in proportion to its work.

A block is what the user called it (`h.0.attention.q`); its gradient and its update run where it does. Where there are
more blocks than cores, neighbours share.
"""

from __future__ import annotations

from collections.abc import Sequence

from cgc.ir.graph import Node
from cgc.ir.ops import Constant, Position
from cgc_wse.partition.core_cost import Clock, work_cycles
from cgc_wse.partition.layout import entries
from cgc_wse.partition.rules import Sizes, iteration, shape_of
from cgc_wse.place.division import Share, divide, group
from cgc_wse.place.geometry import Rectangle

PHASES = ("grad", "adamw")
PREFIXES = tuple(f"{name}." for name in PHASES)


def own_path(path: str) -> str:
    """Return a node's place in the model, without the phase it belongs to."""
    for prefix in PREFIXES:
        if path.startswith(prefix):
            return path.removeprefix(prefix)
    return "" if path in PHASES else path


def blocks(nodes: Sequence[Node], depth: int) -> list[str]:
    """Return the block of every node: its path cut to a layer and `depth` names in it; empty for what has no path."""
    names: list[str] = []
    for node in nodes:
        parts = own_path(node.path).split(".") if not isinstance(node.op, Constant | Position) else [""]
        at = next((i for i, part in enumerate(parts) if part.isdigit()), -1)
        names.append(".".join(parts[: at + 1 + depth]))
    return names


def regions(
    nodes: Sequence[Node], sizes: Sizes, clock: Clock, area: Rectangle, balance: float
) -> tuple[list[int], list[tuple[str, Rectangle]]]:
    """Return for every node the index of its region, and the regions: name and rectangle.

    Areas are in proportion to cycles of work, `balance` of it to what has to be held instead.
    """
    names = blocks(nodes, 1)
    order = list(dict.fromkeys(name for name in names if name))
    if not order:
        return [0] * len(nodes), [("model", area)]
    homes = _homes(nodes, names, order[0], sizes)
    work = dict.fromkeys(order, 0.0)
    for node, name in zip(nodes, homes, strict=True):
        work[name] += work_cycles(node, iteration(node, sizes), clock)
    held = _held(nodes, homes, sizes)
    most, all_work = sum(held.values()) or 1.0, sum(work.values()) or 1.0
    weights = {
        name: (1 - balance) * work[name] / all_work + balance * held.get(name, 0.0) / most + 1e-6 for name in order
    }
    shared = _merged(order, weights, area.cores)
    share = group([Share(sum(weights[name] for name in names)) for names in shared])
    found = divide(share, area)
    index = {name: at for at, names in enumerate(shared) for name in names}
    titles = [names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}" for names in shared]
    return [index[name] for name in homes], list(zip(titles, found, strict=True))


def _homes(nodes: Sequence[Node], names: Sequence[str], first: str, sizes: Sizes) -> list[str]:
    """Return the block of every node; what has no path goes where the largest of what it reads is."""
    homes: list[str] = []
    where: dict[str, str] = {}
    for node, name in zip(nodes, names, strict=True):
        known = [value for value in node.inputs if value.name in where]
        largest = max(known, key=lambda value: entries(shape_of(value.type, sizes)), default=None)
        home = name or (where[largest.name] if largest is not None else first)
        homes.append(home)
        for value in node.inputs:
            where.setdefault(value.name, home)
        where.update({value.name: home for value in node.outputs if not isinstance(node.op, Constant | Position)})
    return homes


def _held(nodes: Sequence[Node], homes: Sequence[str], sizes: Sizes) -> dict[str, float]:
    """Return the entries that each block holds for long: what it is given, and what a later phase reads of it."""
    held: dict[str, float] = {}
    made: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for node, home in zip(nodes, homes, strict=True):
        phase = next((prefix for prefix in PREFIXES if node.path.startswith(prefix)), "")
        for value in node.inputs:
            where, when = made.get(value.name, (home, ""))
            given = value.name not in made
            if value.name not in seen and (given or when != phase):
                seen.add(value.name)
                held[where] = held.get(where, 0.0) + entries(shape_of(value.type, sizes))
        for value in node.outputs:
            made[value.name] = (home, phase)
    return held


def _merged(order: Sequence[str], work: dict[str, float], most: int) -> list[list[str]]:
    """Return the blocks in order, in at most `most` groups of neighbours; those with least work go together first."""
    groups = [[name] for name in order]
    weights = [work[name] for name in order]
    while len(groups) > most:
        at = min(range(len(groups) - 1), key=lambda i: (weights[i] + weights[i + 1], i))
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
        weights[at : at + 2] = [weights[at] + weights[at + 1]]
    return groups
