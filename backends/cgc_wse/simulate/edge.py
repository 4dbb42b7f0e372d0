"""The west edge: what comes in from outside and what leaves, over one link each way.

Loads take their turns in the order in which the program makes room for them: one waits until all its cores have done so
and, if it brings back what was stored, until all of that is outside. What has come over that link enters the mesh one
message after the other in each row, so that what was asked for first is there first, however slow the row's link is.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cgc.interpret import Array
from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.program import Load, Message, Store
from cgc_wse.simulate.arrays import given, numpy_type, slices
from cgc_wse.simulate.fabric import Fabric
from cgc_wse.simulate.flight import Flight

LOAD = "load"
"""What wakes the edge up."""


@dataclass(slots=True)
class Parcel:
    """A message of a step: what it carries, once that is known, and the messages before and after it on a chain.

    It is sent once its core has come to the step (`ready`) and the `head` of the one before has come to the core.
    """

    step: int
    index: int
    message: Message
    flight: Flight
    before: Parcel | None = None
    next: list[Parcel] = field(default_factory=list)
    payload: Array | None = None
    ready: float | None = None
    head: float | None = None


class Edge:
    """Everything outside of the wafer: `arrays` by name at first, then what is stored."""

    def __init__(self, clock: Clock, fabric: Fabric, arrays: Mapping[str, Any]) -> None:
        self._clock = clock
        self._fabric = fabric
        self.arrays: dict[str, Array] = {name: np.asarray(array) for name, array in arrays.items()}
        self._queue: list[tuple[int, int, Load]] = []
        self._lacking: dict[int, int] = {}
        self._room_at: defaultdict[int, float] = defaultdict(float)
        self._coming: dict[str, int] = {}
        self._stored_at: dict[str, float] = {}
        self._results: dict[str, Array] = {}
        self._in = 0.0
        self._entering: dict[int, deque[tuple[Flight, float]]] = {}
        self.finished = 0.0

    @property
    def waiting(self) -> list[int]:
        """The loads that have not begun."""
        return [index for _, index, _ in self._queue]

    def result(self, name: str) -> Array:
        """Return what was stored under a name."""
        return self._results[name]

    def expect_load(self, index: int, step: Load, cores: int) -> None:
        """Learn of a load, for which so many cores make room."""
        self._queue.append((step.posted, index, step))
        self._lacking[index] = cores

    def expect_store(self, step: Store, count: int) -> None:
        """Learn of a tensor that will be stored, in so many messages."""
        self._coming[step.name] = count
        self._results[step.name] = np.zeros([size for _, size in step.source.shape], numpy_type(step.source))

    def begin(self) -> None:
        """Put the loads in the order of their turns."""
        self._queue.sort(key=lambda one: one[:2])

    def make_room(self, index: int, time: float) -> None:
        """A core has made room for a load."""
        self._lacking[index] -= 1
        self._room_at[index] = max(self._room_at[index], time)
        if not self._lacking[index]:
            self._fabric.at(time, LOAD)

    def load(self, time: float, parcels: Mapping[int, Sequence[Parcel]]) -> None:
        """Let the next loads onto the link, as many as can begin; a part enters the mesh once it is complete."""
        while self._queue:
            _, index, step = self._queue[0]
            if self._lacking[index] or self._coming.get(step.name, 0):
                return
            self._queue.pop(0)
            source = self._results[step.name] if step.name in self._coming else given(step.result, self.arrays)
            ready = max(time, self._room_at[index], self._stored_at.get(step.name, 0.0))
            for parcel in parcels[index]:
                parcel.payload = source[slices(parcel.message.region)].copy()
                self._in = max(self._in, ready) + parcel.message.words * self._clock.outside
                self._enter(parcel.flight, self._in)

    def _enter(self, flight: Flight, time: float) -> None:
        """Let a message into the mesh from `time` on, behind those that enter in its row already."""
        row = flight.source[1]
        if row in self._entering:
            self._entering[row].append((flight, time))
            return
        self._entering[row] = deque()
        self._fabric.send(flight, time)

    def entered(self, flight: Flight, time: float) -> None:
        """All of a message is in the mesh at `time`: the next one in its row may follow."""
        row = flight.source[1]
        if self._entering[row]:
            after, ready = self._entering[row].popleft()
            self._fabric.send(after, max(ready, time))
        else:
            del self._entering[row]

    def store(self, step: Store, parcel: Parcel, time: float) -> None:
        """A part has come to the edge, all of it at `time`."""
        assert parcel.payload is not None
        self.finished = max(self.finished, time) + parcel.message.words * self._clock.outside
        self._results[step.name][slices(parcel.message.region)] = parcel.payload
        self._stored_at[step.name] = self.finished
        self._coming[step.name] -= 1
        if not self._coming[step.name]:
            self._fabric.at(self.finished, LOAD)
