"""Messages on links, held to a simulation that moves every single word in every single cycle."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random

import pytest
from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.moves import Core, tree
from cgc_wse.simulate.fabric import Delivery, Fabric, Flight

RAMP, HOP = 2, 1
CLOCK = Clock(
    task=0, loop=0, vector=0, shift=1, relay=HOP, ramp=RAMP, lanes=1, entries=1, number=4, memory=0, word=1, outside=1
)

Sent = tuple[Core, tuple[Core, ...], int, int]
"""Source, targets, words, the cycle it is sent in."""
Times = dict[tuple[int, Core], tuple[float, float]]
"""Of each message (by number, from 1) at each target: when its head and when its tail was there."""


def by_events(messages: list[Sent]) -> Times:
    found: Times = {}

    def delivered(delivery: Delivery) -> None:
        found[delivery.flight.number, delivery.core] = (delivery.head, delivery.tail)

    def ignore(flight: Flight, time: float) -> None:
        pass

    fabric = Fabric(CLOCK, delivered, ignore, lambda what, time: None)
    for source, targets, words, start in messages:
        fabric.send(fabric.flight(source, targets, words, None), start)
    fabric.run()
    return found


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
    fabric = Fabric(CLOCK, lambda delivery: None, lambda flight, time: None, lambda what, time: None)
    cores = tuple((x, y) for x in range(4) for y in range(3) if (x, y) != (0, 0))
    fabric.send(fabric.flight((0, 0), cores, 6, None), 0)
    fabric.run()
    assert len(fabric.carried) == 11
    assert set(fabric.carried.values()) == {6}
