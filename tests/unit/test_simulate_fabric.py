"""Messages on links: short ones held to a simulation that moves every single word in every single cycle, long ones to
what may never happen on a link or in a queue, and to never waiting without a reason.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.moves import Core, tree
from cgc_wse.simulate.fabric import Fabric, Listeners
from cgc_wse.simulate.flight import IN, OUT, ROOT, Flight

RAMP, HOP = 2, 1
CLOCK = Clock(
    task=0,
    loop=0,
    vector=0,
    shift=1,
    relay=HOP,
    ramp=RAMP,
    lanes=1,
    entries=1,
    number=4,
    memory=0,
    word=1,
    outside=1,
    queue=1000,
)

Sent = tuple[Core, tuple[Core, ...], int, int]
"""Source, targets, words, the cycle it is sent in."""
Times = dict[tuple[int, Core], tuple[float, float]]
"""Of each message (by number, from 1) at each target: when its head and when its tail was there."""


class Recorded(Fabric):
    """Remembers which packet crossed which link when, and when heads and tails were in their cores."""

    def __init__(self, clock: Clock) -> None:
        self.crossed: defaultdict[tuple[Any, int], list[tuple[float, int]]] = defaultdict(list)
        self.tails: dict[tuple[int, Core], float] = {}
        self.left: dict[int, float] = {}
        super().__init__(clock, Listeners(self.first, self.tail, self.gone, lambda what, time: None))

    def first(self, flight: Flight, time: float) -> None:
        assert any(
            self.head(flight.number, core) == time for core in flight.targets if (core, OUT) in self.crossings(flight)
        )

    def crossings(self, flight: Flight) -> set[Any]:
        return {link for link, number in self.crossed if number == flight.number}

    def head(self, number: int, core: Core) -> float:
        return self.crossed[(core, OUT), number][0][0] + RAMP

    def tail(self, flight: Flight, core: Core, time: float) -> None:
        self.tails[flight.number, core] = time

    def gone(self, flight: Flight, time: float) -> None:
        self.left[flight.number] = time

    def _go(self, flight: Flight, index: int, line: Any, time: float) -> None:
        words = min(self._packet, flight.words - self._packet * flight.gone[index])
        self.crossed[line.link, flight.number].append((time, words))
        super()._go(flight, index, line, time)

    @property
    def times(self) -> Times:
        """Heads and tails."""
        return {key: (self.head(*key), tail) for key, tail in self.tails.items()}


def sent(messages: list[Sent], queue: int = 1000, room: float = 0.0) -> tuple[Recorded, list[Flight]]:
    """Send messages into cores that all have room for them from `room` on."""
    fabric = Recorded(replace(CLOCK, queue=queue))
    flights = [fabric.flight(source, targets, words, None) for source, targets, words, _ in messages]
    for flight, (_, targets, _, start) in zip(flights, messages, strict=True):
        for core in targets:
            fabric.open(flight, core, room)
        fabric.send(flight, start)
    fabric.run()
    return fabric, flights


def by_events(messages: list[Sent]) -> Times:
    return sent(messages)[0].times


@dataclass
class Link:
    """A link that carries one word a cycle, of one message until that is through."""

    waiting: list[tuple[int, int]] = field(default_factory=list)
    message: int = 0
    sent: int = 0


def by_words(messages: list[Sent]) -> Times:
    """Every word by itself: a link takes the next word of its message as soon as that has come to its router."""
    links: defaultdict[tuple[object, object], Link] = defaultdict(Link)
    there: defaultdict[tuple[int, object], int] = defaultdict(int)
    coming: defaultdict[int, list[tuple[int, object, object]]] = defaultdict(list)
    found: dict[tuple[int, Core], list[int]] = {}
    trees = {i: tree(source, targets) for i, (source, targets, _, _) in enumerate(messages, start=1)}
    left = sum(words * len(targets) for _, targets, words, _ in messages)
    cycle = 0

    def ask(number: int, place: object) -> None:
        """The head of a message is at a router (or in its core): it wants the links from there."""
        source, targets, _, _ = messages[number - 1]
        if place == ("core", source):
            nexts: list[object] = [source]
        else:
            nexts = list(trees[number].get(place, ()))  # type: ignore[call-overload]
            nexts += [("into", place)] if place in targets else []
        for there_next in nexts:
            links[place, there_next].waiting.append((cycle, number))

    while left:
        for number, (source, _, words, start) in enumerate(messages, start=1):
            if start == cycle:
                there[number, ("core", source)] = words
                ask(number, ("core", source))
        heads = []
        for number, place, _ in coming.pop(cycle, []):
            there[number, place] += 1
            if isinstance(place, tuple) and place[0] == "into":
                core = place[1]
                found.setdefault((number, core), []).append(cycle)
                left -= 1
            elif there[number, place] == 1:
                heads.append((number, place))
        for number, place in sorted(heads, key=lambda one: one[0]):
            ask(number, place)
        for (place, there_next), link in links.items():
            if not link.message and link.waiting:
                link.waiting.sort()
                link.message, link.sent = link.waiting.pop(0)[1], 0
            if link.message and there[link.message, place] > link.sent:
                ramp = isinstance(place[0], str) or isinstance(there_next[0], str)  # type: ignore[index]
                coming[cycle + (RAMP if ramp else HOP)].append((link.message, there_next, place))
                link.sent += 1
                if link.sent == messages[link.message - 1][2]:
                    link.message = 0
        cycle += 1
    # A tail is there when its last word has taken its cycle.
    return {key: (cycles[0], cycles[-1] + 1) for key, cycles in found.items()}


def random_messages(seed: int, columns: int, rows: int, count: int) -> list[Sent]:
    random = Random(seed)
    cores = [(x, y) for x in range(columns) for y in range(rows)]
    messages: list[Sent] = []
    for _ in range(count):
        source = random.choice(cores)
        others = [core for core in cores if core != source]
        targets = tuple(random.sample(others, random.choice([1, 1, 1, 3, len(others)])))
        messages.append((source, targets, random.randint(1, 9), random.randint(0, 12)))
    return messages


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("grid", [(4, 4), (1, 6), (5, 3)])
def test_messages_arrive_when_their_words_do(seed: int, grid: tuple[int, int]) -> None:
    messages = random_messages(seed, *grid, count=5 + 3 * seed)
    assert by_events(messages) == by_words(messages)


def test_one_message() -> None:
    # Two cycles to the router, three hops, two cycles into the core; seven words behind one another.
    assert by_events([((0, 0), ((2, 1),), 7, 10)]) == {(1, (2, 1)): (17, 24)}


def test_two_messages_share_a_link() -> None:
    found = by_events([((0, 0), ((2, 0),), 5, 0), ((1, 0), ((2, 0),), 5, 0)])
    # That of the nearer core is at the link first; the other one waits until it is through.
    assert found[2, (2, 0)] == (5, 10)
    assert found[1, (2, 0)] == (10, 15)


def test_a_broadcast_takes_each_link_once() -> None:
    cores = tuple((x, y) for x in range(4) for y in range(3) if (x, y) != (0, 0))
    fabric, _ = sent([((0, 0), cores, 6, 0)])
    assert len(fabric.carried) == 11
    assert set(fabric.carried.values()) == {6}


# ---- finite queues


def test_a_busy_core_holds_up_its_sender() -> None:
    """50 words over three links into a core that has room from 100 on: four queues of four fill, the rest stays."""
    message: list[Sent] = [((0, 0), ((3, 0),), 50, 0)]
    fabric, _ = sent(message, queue=4, room=100)
    assert fabric.times == {(1, (3, 0)): (100 + RAMP, 100 + RAMP + 50)}
    # What is over the first link when nothing moves any more are the words that have room: four at each of four links.
    by_then = sum(words for time, words in fabric.crossed[((0, 0), IN), 1] if time < 100)
    assert by_then == 4 * 4
    assert fabric.left[1] == 100 + 50 - 4 * 4
    # With room for all of them they would all be gone at once.
    assert sent(message, queue=1000, room=100)[0].left[1] == 50


def test_one_busy_branch_holds_up_the_others() -> None:
    """A broadcast to two cores of which one has no room yet: the other gets what the queues before it let through."""
    fabric = Recorded(replace(CLOCK, queue=4))
    flight = fabric.flight((0, 0), ((1, 0), (2, 0)), 30, None)
    fabric.open(flight, (1, 0), 0)
    fabric.open(flight, (2, 0), 200)
    fabric.send(flight, 0)
    fabric.run()
    assert fabric.head(1, (1, 0)) == RAMP + HOP + RAMP
    early = sum(words for time, words in fabric.crossed[((1, 0), OUT), 1] if time < 200)
    assert early == 4 + 4
    assert fabric.tails[1, (1, 0)] > 200


def test_a_blocked_message_leaves_links_to_others() -> None:
    """What waits before a busy core takes no turn on the links behind it; who shares them gets through."""
    fabric = Recorded(replace(CLOCK, queue=4))
    blocked = fabric.flight((0, 0), ((2, 0),), 40, None)
    other = fabric.flight((0, 0), ((3, 0),), 40, None)
    fabric.open(blocked, (2, 0), 1000)
    fabric.open(other, (3, 0), 0)
    fabric.send(blocked, 0)
    fabric.send(other, 1)
    fabric.run()
    assert fabric.tails[2, (3, 0)] < 100
    assert fabric.tails[1, (2, 0)] == 1000 + RAMP + 40


def test_two_streams_share_a_link_in_turns() -> None:
    """Two long messages through one link take as long as both together, and end within a packet of each other."""
    fabric, _ = sent([((0, 0), ((2, 0),), 400, 0), ((0, 1), ((2, 1),), 400, 0), ((1, 0), ((2, 0),), 400, 0)], queue=8)
    alone, first, second = fabric.tails[2, (2, 1)], fabric.tails[1, (2, 0)], fabric.tails[3, (2, 0)]
    assert alone == RAMP + 2 * HOP + RAMP + 400
    assert max(first, second) == pytest.approx(alone + 400, abs=RAMP + HOP)
    assert abs(first - second) <= 8
    # The farther core cannot get rid of its words earlier than the link lets them through.
    assert fabric.left[1] > 750


def words_at(crossed: list[tuple[float, int]]) -> list[float]:
    """Return when each word begins to cross."""
    return [time + k for time, words in crossed for k in range(words)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("queue", [4, 6, 16])
def test_words_keep_to_links_and_queues(seed: int, queue: int) -> None:
    messages = [(a, b, 7 * words, start) for a, b, words, start in random_messages(seed, 4, 3, count=6 + 3 * seed)]
    fabric, flights = sent(messages, queue=queue, room=20)
    taken: defaultdict[Any, list[tuple[float, float]]] = defaultdict(list)
    for (link, _), crossings in fabric.crossed.items():
        taken[link] += [(time, time + words) for time, words in crossings]
    for spans in taken.values():
        assert all(first[1] <= second[0] for first, second in pairwise(sorted(spans)))
    for flight in flights:
        assert flight.way is not None
        crossings = {index: fabric.crossed[link, flight.number] for index, link in enumerate(flight.way.links)}
        over = {index: words_at(found) for index, found in crossings.items()}
        assert all(len(words) == flight.words for words in over.values())
        for index, before in enumerate(flight.way.parent):
            if before != ROOT:
                # A word goes on when it has come, and comes when there is room.
                length = RAMP if before == 0 else HOP
                assert all(b - a >= length for a, b in zip(over[before], over[index], strict=True))
                assert all(late >= gone for late, gone in zip(over[before][queue:], over[index], strict=False))
        check_reasons(flight, crossings, taken, queue, messages[flight.number - 1][3])


def check_reasons(
    flight: Flight,
    crossings: dict[int, list[tuple[float, int]]],
    taken: dict[Any, list[tuple[float, float]]],
    queue: int,
    start: float,
) -> None:
    """A packet that crosses later than it came has room only then, or the link was taken until then."""
    assert flight.way is not None
    for index, (link, before) in enumerate(zip(flight.way.links, flight.way.parent, strict=True)):
        for at, (time, _) in enumerate(crossings[index]):
            come = crossings[before][at][0] + (RAMP if before == 0 else HOP) if before != ROOT else start
            rooms = [crossings[there][at - 2][0] for there in flight.way.children[index]] if at >= 2 else []
            rooms += [20] if link[1] == OUT else []
            free = any(end == time for _, end in taken[link])
            assert time == max([come, *rooms]) or free
