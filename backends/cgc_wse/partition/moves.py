"""Messages that bring a tensor from one layout to another.

Every core that needs a part gets it from the nearest core that holds it, itself first; a part that several cores need
from one travels once, along a tree of X-Y routes. Broadcast, all-gather, all-to-all, shift and transposition are all
of this kind; they differ in the layouts alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from cgc_wse.partition.layout import Layout, Shape, Tile, count, overlap, tiles
from cgc_wse.place.geometry import Rectangle

Core: TypeAlias = tuple[int, int]
"""Column and row on the wafer."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tensor on its way: from `source` to all of `targets`, one of which may be the source itself."""

    source: Core
    targets: tuple[Core, ...]
    region: Tile


@lru_cache(maxsize=4096)
def cores_of(area: Rectangle) -> tuple[Core, ...]:
    """Return the cores of a rectangle, row by row."""
    return tuple((area.x + c, area.y + r) for r in range(area.height) for c in range(area.width))


@lru_cache(maxsize=4096)
def held(layout: Layout, shape: Shape, area: Rectangle) -> Mapping[Core, Tile]:
    """Return the tile of every core that holds one with entries in it."""
    found = zip(cores_of(area), tiles(layout, shape), strict=True)
    return {core: tile for core, tile in found if tile is not None and count(tile)}


@lru_cache(maxsize=1024)
def parts(shape: Shape, before: Layout, area: Rectangle, after: Layout, target: Rectangle) -> tuple[Part, ...]:
    """Return the parts that fill `after` on `target` out of `before` on `area`, sources row by row.

    A source's parts that go farthest come first. A part whose only target is its source does not travel.
    """
    holders: dict[Tile, list[Core]] = defaultdict(list)
    for core, tile in held(before, shape, area).items():
        holders[tile].append(core)
    takers: dict[Tile, list[Core]] = defaultdict(list)
    for core, tile in held(after, shape, target).items():
        takers[tile].append(core)
    found: dict[tuple[Core, Tile], list[Core]] = defaultdict(list)
    for wanted, cores in takers.items():
        for tile, sources in holders.items():
            region = overlap(wanted, tile)
            if region is not None:
                near = set(sources)
                for core in cores:
                    found[core if core in near else _nearest(core, sources), region].append(core)
    ordered = sorted(
        found.items(), key=lambda item: (item[0][0][1], item[0][0][0], -_farthest(item[0][0], item[1]), item[0][1])
    )
    return tuple(Part(source, tuple(targets), region) for (source, region), targets in ordered)


def _farthest(source: Core, targets: list[Core]) -> int:
    return max(abs(x - source[0]) + abs(y - source[1]) for x, y in targets)


def _nearest(core: Core, sources: list[Core]) -> Core:
    if len(sources) == 1:
        return sources[0]
    return min(sources, key=lambda s: (abs(s[0] - core[0]) + abs(s[1] - core[1]), s[1], s[0]))


@lru_cache(maxsize=100_000)
def tree(source: Core, targets: tuple[Core, ...]) -> Mapping[Core, tuple[Core, ...]]:
    """Return the tree along which a part travels: for each router the routers that it hands the part on to."""
    children: dict[Core, list[Core]] = {}
    seen = {source}
    for target in targets:
        here = target
        while here not in seen:
            seen.add(here)
            before = _before(source, here)
            children.setdefault(before, []).append(here)
            here = before
    return {here: tuple(there) for here, there in children.items()}


def _before(source: Core, core: Core) -> Core:
    """Return the core before another one on the way to it: along the row first, then along the column."""
    x, y = core
    if y != source[1]:
        return x, y - 1 if y > source[1] else y + 1
    return (x - 1 if x > source[0] else x + 1), y
