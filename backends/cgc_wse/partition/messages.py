"""The messages of each kind of step: parts that travel, chains that sum, what crosses the west edge."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from cgc_wse.partition.layout import Layout, Shape, Tile, values
from cgc_wse.partition.moves import Core, cores_of, held, parts
from cgc_wse.partition.program import Buffer, Message, words_of
from cgc_wse.place.geometry import Rectangle

_Link: TypeAlias = tuple[Core, Core, Tile, int | None]
"""From, to, the part, and the link of the chain before."""
EDGE = -1
"""The column of what is outside, west of the first column of cores."""


def travelling(source: Buffer, result: Buffer, color: int) -> tuple[Message, ...]:
    """Return the messages that fill `result` with what `source` holds; what a core has itself stays in it."""
    found: list[Message] = []
    for part in parts(source.shape, source.layout, source.area, result.layout, result.area):
        targets = tuple(core for core in part.targets if core != part.source)
        if targets:
            found.append(Message(part.source, targets, part.region, words_of(source, part.region), color))
    return tuple(found)


def chains(source: Buffer, result: Buffer, color: int) -> tuple[Message, ...]:
    """Return the messages of sums: towards each core that gets one, a chain from each end of its group.

    What a core sends is what came to it with its own part added.
    """
    found = _chains(source.layout, result.layout, source.shape, source.area)
    return tuple(
        Message(here, (there,), region, words_of(source, region), color, after) for here, there, region, after in found
    )


@lru_cache(maxsize=1024)
def _chains(before: Layout, after: Layout, shape: Shape, area: Rectangle) -> tuple[_Link, ...]:
    have, wanted = held(before, shape, area), held(after, shape, area)
    groups: dict[tuple[object, ...], list[Core]] = defaultdict(list)
    for core in cores_of(area):
        groups[_others(before, core[1] - area.y, core[0] - area.x)].append(core)
    found: list[_Link] = []
    for group in groups.values():
        members = [core for core in group if core in have]
        targets = [core for core in members if core in wanted]
        for low, high in zip(reversed(targets), targets, strict=True):
            # What goes farthest goes first, either way.
            for target, arm in ((low, members[: members.index(low)]), (high, members[: members.index(high) : -1])):
                last: int | None = None
                for here, there in pairwise([*arm, target]):
                    found.append((here, there, wanted[target], last))
                    last = len(found) - 1
    return tuple(found)


def _others(layout: Layout, row: int, column: int) -> tuple[object, ...]:
    """Return what tells a core's group from the others: its digits along all but the axis that is summed, in full.

    One axis is summed at a time, the columns first.
    """
    if any(digit.kind == "sum" for digit in layout.columns):
        axis, index, other = layout.columns, column, row
    else:
        axis, index, other = layout.rows, row, column
    kept = tuple(v for d, v in zip(axis, values(axis, index), strict=True) if d.kind != "sum")
    return (*kept, other)


def entering(result: Buffer, color: int) -> tuple[Message, ...]:
    """Return the messages that bring a tensor in: each tile once, along the row of the first core that gets it."""
    takers: dict[Tile, list[Core]] = defaultdict(list)
    for core, tile in result.tiles().items():
        takers[tile].append(core)
    return tuple(
        Message((EDGE, cores[0][1]), tuple(cores), tile, words_of(result, tile), color)
        for tile, cores in takers.items()
    )


def leaving(source: Buffer, color: int) -> tuple[Message, ...]:
    """Return the messages that take a tensor out: each tile once, along the row of the first core that has it."""
    seen: set[Tile] = set()
    found: list[Message] = []
    for core, tile in source.tiles().items():
        if tile not in seen:
            seen.add(tile)
            found.append(Message(core, ((EDGE, core[1]),), tile, words_of(source, tile), color))
    return tuple(found)
