"""The mesh at work: messages over links, event by event.

A router hands the head of a message on `hop` cycles after it got it, over every link that the message's tree has there,
as soon as that link is free; between core and router there is a link each way, `ramp` cycles long. Queues are finite:
at the end of every link a message has room for `queue` words, and each waits where it is until the next link is free
and there is room behind it. So a message that is blocked fills its queues, one router after the other, back to the core
that sends it; where its tree forks, the branch that waits holds up the others; and what a core has made no room for yet
waits before it.

Words go in packets of half a queue. A packet takes a link when it has come there and the last but one before it has
begun to leave the queue at the far end on all its branches; it then crosses in one go. A link takes packets in the
order in which they may go (of equals, that of the earlier message first), so that messages which share it take turns.
Every message has queues of its own, as each virtual channel of the machine has: none can keep another one from going on
for ever.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.messages import EDGE
from cgc_wse.partition.moves import Core
from cgc_wse.simulate.flight import IN, ROOT, Flight, Line, Link

FED, INJECT, HEAD, AGAIN, FREE, WAKE = range(6)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what, as soon as it is known when it will be so.

    `head`: the head of a message first reaches a core; `tail`: all of it is in that core; `left`: all of it has left
    its own, or what is outside; `wake`: what was put in the queue by `at`.
    """

    head: Callable[[Flight, float], None]
    tail: Callable[[Flight, Core, float], None]
    left: Callable[[Flight, float], None]
    wake: Callable[[object, float], None]


class Fabric:
    """Links and the queue of events."""

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        self._clock = clock
        self._tell = listeners
        self._packet = max(1, clock.queue // 2, _on_the_way(clock))
        self._events: list[tuple[float, int, int, int, Flight | None, object]] = []
        self._lines: dict[Link, Line] = {}
        self.carried: defaultdict[tuple[Core, Core], int] = defaultdict(int)
        self._number = 0
        self._order = 0

    def flight(
        self, source: Core, targets: tuple[Core, ...], words: int, key: object, after: Flight | None = None
    ) -> Flight:
        """Return a message; one that is `after` another hands on, in its source, what comes there with that."""
        self._number += 1
        made = Flight(self._number, source, targets, words, -(-words // self._packet), key, after)
        if after is not None:
            after.handing_on.append(made)
        return made

    def send(self, flight: Flight, time: float) -> None:
        """Let the source send a message from `time` on."""
        self._push(time, INJECT, flight, ROOT)

    def open(self, flight: Flight, core: Core, time: float) -> None:
        """Let a message into a core from `time` on."""
        flight.room[core] = time
        if flight.way is not None and flight.come[flight.way.ends[core]]:
            self._push(time, AGAIN, flight, flight.way.ends[core])

    def at(self, time: float, what: object) -> None:
        """Call `wake` with `what` at `time`."""
        self._push(time, WAKE, None, what)

    def _push(self, time: float, kind: int, flight: Flight | None, where: object) -> None:
        self._order += 1
        number = flight.number if flight is not None else 0
        heapq.heappush(self._events, (time, kind, number, self._order, flight, where))

    def run(self) -> float:
        """Work through all events; returns the time of the last."""
        time = 0.0
        events = self._events
        while events:
            time, kind, _, _, flight, where = heapq.heappop(events)
            if kind == WAKE:
                self._tell.wake(where, time)
            elif kind == FREE:
                assert isinstance(where, Line)
                self._next(where, time)
            elif flight is not None and isinstance(where, int):
                self._flight(kind, flight, where, time)
        return time

    def _flight(self, kind: int, flight: Flight, index: int, time: float) -> None:
        if kind == HEAD:
            assert flight.way is not None
            come, gone = flight.come, flight.gone
            for there in flight.way.children[index]:
                # Behind a packet that still waits it has nothing to try.
                if gone[there] == come[there]:
                    come[there] += 1
                    self._try(flight, there, time)
                else:
                    come[there] += 1
        elif kind == AGAIN:
            self._try(flight, index, time)
        elif kind == INJECT:
            way = flight.begin()
            flight.lines = tuple(map(self._line, way.links))
            for there in way.starts:
                flight.come[there] = flight.packets if flight.after is None else flight.fed
                self._try(flight, there, time)
        else:
            flight.fed += 1
            if flight.way is not None:
                flight.come[0] = flight.fed
                self._try(flight, 0, time)

    def _line(self, link: Link) -> Line:
        found = self._lines.get(link)
        if found is None:
            way = self._clock.ramp if isinstance(link[1], str) else self._clock.relay
            found = self._lines[link] = Line(link, way)
        return found

    def _try(self, flight: Flight, index: int, time: float) -> None:
        """Let the next packet over a link if it is there, has room behind it, and the link is free; else it waits."""
        if flight.asks[index] or not self._may_go(flight, index, time):
            return
        line = flight.lines[index]
        if line.until <= time and not line.waiting:
            self._go(flight, index, line, time)
            return
        flight.asks[index] = 1
        line.waiting.append((flight, index))
        self._call(line)

    def _call(self, line: Line) -> None:
        """Look at a link again when it is free, if something waits for it."""
        if line.waiting and not line.called:
            line.called = True
            self._push(line.until, FREE, None, line)

    def _may_go(self, flight: Flight, index: int, time: float) -> bool:
        """Tell whether the next packet is where a link begins, and has room where it ends."""
        way, packet = flight.way, flight.gone[index]
        assert way is not None
        if packet >= flight.come[index]:
            return False
        core = way.end[index]
        if core is None:
            if packet < 2:
                return True
            gone = flight.gone
            return all(packet < gone[there] + 2 for there in way.children[index])
        if core[0] == EDGE:
            return True
        room = flight.room.get(core)
        if room is None:
            return False
        if room > time:
            self._push(room, AGAIN, flight, index)
            return False
        return True

    def _next(self, line: Line, time: float) -> None:
        """A link is free: it takes what has waited longest."""
        line.called = False
        flight, index = line.waiting.popleft()
        flight.asks[index] = 0
        self._go(flight, index, line, time)
        self._call(line)

    def _go(self, flight: Flight, index: int, line: Line, time: float) -> None:
        """A packet crosses a link."""
        way = flight.way
        assert way is not None
        flight.gone[index] += 1
        last = flight.gone[index] == flight.packets
        words = self._packet if not last else flight.words - self._packet * (flight.packets - 1)
        line.until = time + words * self._clock.word
        core = way.end[index]
        if core is None:
            self._push(time + line.way, HEAD, flight, index)
        else:
            self._arrive(flight, index, core, time + line.way, line.until + line.way)
        if line.link[1] == IN:
            if last:
                self._tell.left(flight, line.until)
        elif not isinstance(line.link[1], str):
            self.carried[line.link] += words  # type: ignore[index]
            if last and line.link[0][0] == EDGE:
                self._tell.left(flight, line.until)
        before, gone, come = way.parent[index], flight.gone, flight.come
        if before != ROOT and gone[before] < come[before] and gone[before] == gone[index] + 1:
            # There was no room for the next packet but one, and now there may be.
            self._try(flight, before, time)
        if gone[index] < come[index]:
            self._try(flight, index, time)

    def _arrive(self, flight: Flight, index: int, core: Core, head: float, tail: float) -> None:
        """A packet comes to a core."""
        gone = flight.gone[index]
        if gone == 1:
            self._tell.head(flight, head)
        for other in flight.handing_on:
            self._push(head + 1, FED, other, ROOT)
        if gone == flight.packets:
            self._tell.tail(flight, core, tail)


def _on_the_way(clock: Clock) -> int:
    """Return the words that are on the longest link at a time."""
    return int(-(-max(clock.ramp, clock.relay) // clock.word))
