"""Messages on the mesh: the links that one takes, and how far its words are on each of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

from cgc_wse.partition.messages import EDGE
from cgc_wse.partition.moves import Core, tree

Link = tuple[Core, Core | str]
"""From a router to the next one, or `IN` and `OUT` between a core and its router."""
IN, OUT = "in", "out"
ROOT = -1
"""What stands for the link before the first ones."""


@dataclass(frozen=True, slots=True)
class Way:
    """A tree of links, each after its parent.

    `parent` and `children` are by index, `starts` are the links without a parent; `ends` are the links that end in a
    core (or outside), `end` says by link which one that is.
    """

    links: tuple[Link, ...]
    parent: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    end: tuple[Core | None, ...]
    ends: dict[Core, int]


@lru_cache(maxsize=100_000)
def way_of(source: Core, targets: tuple[Core, ...]) -> Way:
    """Return the links of a message; what comes from outside is in no core before."""
    paths, wanted = tree(source, targets), frozenset(targets)
    links: list[Link] = []
    parent: list[int] = []
    ends: dict[Core, int] = {}

    def add(link: Link, before: int) -> int:
        links.append(link)
        parent.append(before)
        return len(links) - 1

    routers = [(source, ROOT if source[0] == EDGE else add((source, IN), ROOT))]
    for router, before in routers:
        for there in paths.get(router, ()):
            index = add((router, there), before)
            if there[0] == EDGE:
                ends[there] = index
            else:
                routers.append((there, index))
        if router in wanted:
            ends[router] = add((router, OUT), before)
    children: list[list[int]] = [[] for _ in links]
    end: list[Core | None] = [None for _ in links]
    for index, before in enumerate(parent):
        if before != ROOT:
            children[before].append(index)
    for core, index in ends.items():
        end[index] = core
    starts = tuple(index for index, before in enumerate(parent) if before == ROOT)
    return Way(tuple(links), tuple(parent), tuple(map(tuple, children)), starts, tuple(end), ends)


@dataclass(slots=True, eq=False)
class Line:
    """A link at work: the cycles to its far end, until when it is taken, what waits for it, and whether it will be
    looked at when it is free.
    """

    link: Link
    way: float
    until: float = 0.0
    called: bool = False
    waiting: deque[tuple[Flight, int]] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Flight:
    """A message on its way. `number` orders messages whose heads come at once; `after` is one whose words it hands on.

    Its words travel in packets of half a queue: `come` counts those whose heads are where a link begins, `gone` those
    that have begun to cross it, `asks` marks links that it waits for. `room` is when a core has made room, `fed` the
    packets that are there to be handed on.
    """

    number: int
    source: Core
    targets: tuple[Core, ...]
    words: int
    packets: int
    key: object = None
    after: Flight | None = None
    handing_on: list[Flight] = field(default_factory=list)
    way: Way | None = None
    lines: tuple[Line, ...] = ()
    come: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    asks: bytearray = field(default_factory=bytearray)
    room: dict[Core, float] = field(default_factory=dict)
    fed: int = 0

    def begin(self) -> Way:
        """Set out."""
        self.way = way_of(self.source, self.targets)
        count = len(self.way.links)
        self.come, self.gone, self.asks = [0] * count, [0] * count, bytearray(count)
        return self.way
