"""The mesh at work: messages over links, event by event.

A router hands the head of a message on `hop` cycles after it got it, over every link that the message's tree has there,
as soon as that link is free; the link is then taken for as long as the message has words. Messages take a link in the
order in which their heads come (of equals, the earlier message first), and wait in the router until then: buffers are
as large as they need to be, one for each color. Between core and router there is a link each way, `ramp` cycles long.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.messages import EDGE
from cgc_wse.partition.moves import Core, tree

INJECT, ROUTE, WAKE = 0, 1, 2


@dataclass(slots=True)
class Flight:
    """A message on its way. `number` orders messages whose heads come at once."""

    number: int
    source: Core
    targets: frozenset[Core]
    words: int
    paths: Mapping[Core, tuple[Core, ...]]
    key: object = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message has come to a core: its head at `head`, all of it at `tail`."""

    flight: Flight
    core: Core
    head: float
    tail: float


class Fabric:
    """Links and the queue of events.

    `delivered` is called when the head of a message reaches a core, `injected` when a core has begun to send one, with
    the time at which it is out; `wake` for what was put in the queue by `at`.
    """

    def __init__(
        self,
        clock: Clock,
        delivered: Callable[[Delivery], None],
        injected: Callable[[Flight, float], None],
        wake: Callable[[object, float], None],
    ) -> None:
        self._clock = clock
        self._delivered = delivered
        self._injected = injected
        self._wake = wake
        self._events: list[tuple[float, int, int, int, Flight | None, object]] = []
        self._free: defaultdict[tuple[Core, Core | str], float] = defaultdict(float)
        self.carried: defaultdict[tuple[Core, Core], int] = defaultdict(int)
        self._number = 0
        self._order = 0

    def flight(self, source: Core, targets: tuple[Core, ...], words: int, key: object) -> Flight:
        """Return a message with its tree of X-Y routes."""
        self._number += 1
        return Flight(self._number, source, frozenset(targets), words, tree(source, targets), key)

    def send(self, flight: Flight, time: float) -> None:
        """Let the source send a message from `time` on."""
        self._push(time, INJECT, flight, flight.source)

    def enter(self, flight: Flight, time: float) -> None:
        """Let a message that is complete at the edge enter there at `time`."""
        self._push(time, ROUTE, flight, flight.source)

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
        while self._events:
            time, kind, _, _, flight, where = heapq.heappop(self._events)
            if kind == WAKE:
                self._wake(where, time)
            elif kind == INJECT:
                assert flight is not None
                start, end = self._take((flight.source, "in"), time, flight)
                self._injected(flight, end)
                self._push(start + self._clock.ramp, ROUTE, flight, flight.source)
            else:
                assert flight is not None and isinstance(where, tuple)
                self._at_router(flight, where, time)
        return time

    def _at_router(self, flight: Flight, router: Core, time: float) -> None:
        for there in flight.paths.get(router, ()):
            start, _ = self._take((router, there), time, flight)
            self.carried[router, there] += flight.words
            self._push(start + self._clock.hop, ROUTE, flight, there)
        if router in flight.targets:
            if router[0] == EDGE:
                self._delivered(Delivery(flight, router, time, time + flight.words * self._clock.word))
                return
            start, end = self._take((router, "out"), time, flight)
            ramp = self._clock.ramp
            self._delivered(Delivery(flight, router, start + ramp, end + ramp))

    def _take(self, link: tuple[Core, Core | str], time: float, flight: Flight) -> tuple[float, float]:
        """Take a link from the first moment it is free; returns when, and until when."""
        start = max(time, self._free[link])
        end = start + flight.words * self._clock.word
        self._free[link] = end
        return start, end
