"""The messages of each kind of step: parts that travel, chains that sum, what crosses the west edge."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from cgc_wse.partition.layout import Tile, values
from cgc_wse.partition.moves import Core, cores_of, held, parts
from cgc_wse.partition.program import Buffer, Message, words_of

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
    have = source.tiles()
    groups: dict[tuple[object, ...], list[Core]] = defaultdict(list)
    for core in cores_of(source.area):
        groups[_others(source, core)].append(core)
    found: list[Message] = []
    wanted = held(result.layout, result.shape, result.area)
    for group in groups.values():
        members = [core for core in group if core in have]
        targets = [core for core in members if core in wanted]
        for low, high in zip(reversed(targets), targets, strict=True):
            # What goes farthest goes first, either way.
            for target, arm in ((low, members[: members.index(low)]), (high, members[: members.index(high) : -1])):
                region = wanted[target]
                after: int | None = None
                for here, there in pairwise([*arm, target]):
                    found.append(Message(here, (there,), region, words_of(source, region), color, after))
                    after = len(found) - 1
    return tuple(found)


def _others(source: Buffer, core: Core) -> tuple[object, ...]:
    """Return what tells a core's group from the others: its digits along all but the axis that is summed, in full.

    One axis is summed at a time, the columns first.
    """
    column, row = core[0] - source.area.x, core[1] - source.area.y
    layout = source.layout
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
