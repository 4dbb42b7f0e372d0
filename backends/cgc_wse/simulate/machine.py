"""The wafer runs a partitioned program: every core its steps in order, with its own clock, memory and numbers.

Local work takes its cycles on the core. A step with messages starts its tasks, sends what the core has to send, and
ends when all of that has left the core and all that was to come has come. A core that sums on a chain hands on what
comes as it comes: its message starts when the head of the one before is there. What crosses the west edge waits for
its turn on the link off the wafer, in each direction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cgc.interpret import Array
from cgc_wse.partition.core_cost import clock_of, work_cycles
from cgc_wse.partition.layout import Tile, count, overlap, tile
from cgc_wse.partition.memory import code_bytes
from cgc_wse.partition.messages import EDGE
from cgc_wse.partition.moves import Core, cores_of
from cgc_wse.partition.program import (
    Buffer,
    Load,
    Local,
    Message,
    Move,
    Partitioned,
    Step,
    Store,
    Sum,
    View,
    messages,
    reads,
    writes,
)
from cgc_wse.simulate.fabric import Delivery, Fabric, Flight
from cgc_wse.simulate.memory import Memories
from cgc_wse.simulate.tiles import Arithmetic, combined


class Deadlock(Exception):
    """Cores wait for what never comes: the program is wrong."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave: results by name, cycles, the most bytes of each core, and the words that each link carried.

    `started` is for each step when its first core began it, `ended` when its last core was through, `longest` what it
    took the core that it took longest, waiting for others not counted in local work.
    """

    outputs: dict[str, Array]
    cycles: float
    memory: Mapping[Core, int]
    carried: Mapping[tuple[Core, Core], int]
    busy: Mapping[Core, float]
    started: Mapping[int, float]
    ended: Mapping[int, float]
    longest: Mapping[int, float]


@dataclass(slots=True)
class _Core:
    """A core: where it is in its program, its clock, its tensors; what it waits for, and until when at least."""

    program: list[int]
    at: int = 0
    time: float = 0.0
    waiting: int = 0
    entered: bool = False
    begun: float = 0.0
    until: float = 0.0
    arrays: dict[int, Array] = field(default_factory=dict)


@dataclass(slots=True)
class _Part:
    """A message of a step: what it carries, once it is known."""

    step: int
    index: int
    message: Message
    flight: Flight
    payload: Array | None = None
    next: list[int] = field(default_factory=list)


def run(program: Partitioned, sizes: Mapping[str, int], arrays: Mapping[str, Any]) -> Run:
    """Run a program on `arrays` of its inputs and parameters by name.

    Raises:
        OutOfMemory: a core has no room for a tensor.
        Deadlock: the program waits for itself.
    """
    return _Machine(program, sizes, arrays).run()


class _Machine:
    def __init__(self, program: Partitioned, sizes: Mapping[str, int], arrays: Mapping[str, Any]) -> None:
        self._program = program
        self._clock = clock_of(program.device)
        self._arithmetic = Arithmetic(sizes)
        self._outside: dict[str, Array] = {name: np.asarray(array) for name, array in arrays.items()}
        self._fabric = Fabric(self._clock, self._delivered, self._injected, self._wake)
        self._memories = Memories(program.device.memory, code_bytes(program))
        self._cores = {core: _Core([]) for core in self._memories.most}
        self._by_buffer: dict[int, dict[Core, Tile]] = {}
        self._parts: dict[int, list[_Part]] = {}
        self._sends: dict[int, dict[Core, list[_Part]]] = {}
        self._expected: dict[int, dict[Core, int]] = {}
        self._mail: defaultdict[tuple[int, Core], list[tuple[Tile, Array, float]]] = defaultdict(list)
        self._heads: dict[tuple[int, int], float] = {}
        self._queue: list[int] = []
        self._posted: dict[int, int] = {}
        self._posted_at: defaultdict[int, float] = defaultdict(float)
        self._entering = 0.0
        self._leaving = 0.0
        self._unstored: dict[str, int] = {}
        self._stored_at: dict[str, float] = {}
        self._results: dict[str, Array] = {}
        self._busy: defaultdict[Core, float] = defaultdict(float)
        self._started: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._longest: dict[int, float] = {}
        self._finished = 0.0

    # ---- preparation

    def run(self) -> Run:
        """Run everything."""
        self._prepare()
        for core in self._cores:
            self._fabric.at(0.0, core)
        with np.errstate(all="ignore"):
            last = self._fabric.run()
        stuck = [core for core, state in self._cores.items() if state.at < len(state.program)]
        if stuck or self._queue:
            state = self._cores[stuck[0]] if stuck else None
            where = f"core {stuck[0]} at step {state.program[state.at]}" if state else f"load {self._queue[0]}"
            raise Deadlock(f"{len(stuck)} cores wait for what never comes: {where}")
        outputs = {name: self._gathered(buffer) for name, buffer in self._program.outputs.items()}
        outputs |= {name: self._results[value] for name, value in self._program.outside.items()}
        cycles = max([last, self._finished, *(core.time for core in self._cores.values())])
        return Run(
            outputs=outputs,
            cycles=cycles,
            memory=self._memories.most,
            carried=self._fabric.carried,
            busy=self._busy,
            started=self._started,
            ended=self._ended,
            longest=self._longest,
        )

    def _prepare(self) -> None:
        program = self._program
        relevant: defaultdict[Core, dict[int, None]] = defaultdict(dict)
        for index, step in enumerate(program.steps):
            concerned = {buffer.area for buffer in (*reads(step), *writes(step))}
            concerned |= {writes(program.steps[load])[0].area for load in program.posts.get(index, ())}
            concerned |= {buffer.area for buffer in program.freed.get(index, ())}
            for area in concerned:
                for core in cores_of(area):
                    relevant[core][index] = None
            self._routes(index, step)
        for core, steps in relevant.items():
            self._cores[core].program = list(steps)
        for buffer in program.resident:
            array = whole_input(buffer, self._outside)
            for core, part in self._tile(buffer).items():
                self._store_tile(core, buffer, array[_slices(part)].copy())
        for buffer in program.freed.get(-1, ()):
            for core in self._tile(buffer):
                self._release(core, buffer)
        self._queue.sort(key=lambda index: (_load(program.steps[index]).posted, index))

    def _routes(self, index: int, step: Step) -> None:
        """Make the messages of a step, and count what every core is to get."""
        found = messages(step)
        if isinstance(step, Load):
            self._queue.append(index)
            self._posted[index] = len(self._tile(step.result))
        if isinstance(step, Store):
            self._unstored[step.name] = len(found)
            self._results[step.name] = np.zeros([size for _, size in step.source.shape], _numpy(step.source))
        if isinstance(step, Local | View):
            return
        parts: list[_Part] = []
        sends: dict[Core, list[_Part]] = {}
        expected: dict[Core, int] = {}
        for at, message in enumerate(found):
            part = _Part(index, at, message, self._fabric.flight(message.source, message.targets, message.words, None))
            part.flight.key = part
            parts.append(part)
            sends.setdefault(message.source, []).append(part)
            if message.after is not None:
                parts[message.after].next.append(at)
            for core in message.targets:
                expected[core] = expected.get(core, 0) + 1
        self._parts[index], self._sends[index], self._expected[index] = parts, sends, expected

    def _tile(self, buffer: Buffer) -> dict[Core, Tile]:
        if buffer.id not in self._by_buffer:
            self._by_buffer[buffer.id] = buffer.tiles()
        return self._by_buffer[buffer.id]

    # ---- memory

    def _store_tile(self, core: Core, buffer: Buffer, array: Array) -> None:
        if buffer.owns:
            self._memories.allocate(core, buffer, array.size * buffer.entry)
        self._cores[core].arrays[buffer.id] = array

    def _release(self, core: Core, buffer: Buffer) -> None:
        self._memories.free(core, buffer)
        self._cores[core].arrays.pop(buffer.id, None)

    # ---- a core goes on

    def _wake(self, what: object, time: float) -> None:
        if isinstance(what, tuple):
            self._go_on(what, time)
        else:
            self._load_next(time)

    def _go_on(self, core: Core, time: float) -> None:
        state = self._cores[core]
        state.time = max(state.time, time)
        while state.at < len(state.program):
            index = state.program[state.at]
            step = self._program.steps[index]
            if not state.entered:
                state.entered, state.begun = True, state.time
                self._started.setdefault(index, state.time)
                self._post(core, index, state.time)
                if isinstance(step, Local | View):
                    self._work(core, state, step)
                elif self._communicate(core, state, index, step):
                    return
            if state.waiting:
                return
            self._conclude(core, state, index, step)
            state.at += 1
            state.entered = False

    def _conclude(self, core: Core, state: _Core, index: int, step: Step) -> None:
        """A step is through: put together what came, and free what nothing reads any more."""
        if isinstance(step, Move | Sum | Load):
            self._assemble(core, index, step)
        for buffer in self._program.freed.get(index, ()):
            self._release(core, buffer)
        self._ended[index] = max(self._ended.get(index, 0.0), state.time)
        self._longest[index] = max(self._longest.get(index, 0.0), state.time - state.begun)

    def _post(self, core: Core, index: int, time: float) -> None:
        """Make room for what is to be loaded."""
        for load in self._program.posts.get(index, ()):
            buffer = _load(self._program.steps[load]).result
            part = self._tile(buffer).get(core)
            if part is None:
                continue
            self._store_tile(core, buffer, np.empty(_lengths(part), _numpy(buffer)))
            self._posted[load] -= 1
            self._posted_at[load] = max(self._posted_at[load], time)
            if not self._posted[load]:
                self._fabric.at(time, "load")

    # ---- local work

    def _work(self, core: Core, state: _Core, step: Local | View) -> None:
        if isinstance(step, View):
            self._look(core, state, step)
            return
        wanted = [self._tile(buffer).get(core) for buffer in step.results]
        if wanted[0] is None:
            return
        row, column = core[1] - step.results[0].area.y, core[0] - step.results[0].area.x
        work = tile(step.work, step.space, row, column)
        assert work is not None
        given = [_of(self._tile(buffer), core, buffer) for buffer in step.operands]
        operands = [
            state.arrays[b.id] if b.id in state.arrays else np.zeros(_lengths(part), _numpy(b))
            for b, part in zip(step.operands, given, strict=True)
        ]
        tiles = [part for part in wanted if part is not None]
        made = self._arithmetic.local(step.node, operands, given, tiles)
        for buffer, array in zip(step.results, made, strict=True):
            self._store_tile(core, buffer, _own(array))
        names = zip(step.space, work, strict=True)
        cycles = work_cycles(step.node, tuple((name, high - low) for (name, _), (low, high) in names), self._clock)
        state.time += cycles
        self._busy[core] += cycles

    def _look(self, core: Core, state: _Core, step: View) -> None:
        wanted, given = self._tile(step.result).get(core), self._tile(step.source).get(core)
        if wanted is None or given is None:
            return
        array = state.arrays[step.source.id]
        if step.node is None:
            inside = tuple(slice(w[0] - g[0], w[1] - g[0]) for w, g in zip(wanted, given, strict=True))
            state.arrays[step.result.id] = array[inside]
        else:
            state.arrays[step.result.id] = self._arithmetic.view(step.node, array, given, wanted)

    # ---- communication

    def _communicate(self, core: Core, state: _Core, index: int, step: Move | Sum | Load | Store) -> bool:
        """Start a step with messages; returns whether the core has to wait."""
        sends, expected = self._sends[index].get(core, []), self._expected[index].get(core, 0)
        arrived = self._mail[index, core]
        if isinstance(step, Move | Sum):
            wanted = self._tile(step.result).get(core)
            if wanted is not None and step.result.owns:
                self._memories.allocate(core, step.result, count(wanted) * step.result.entry)
        if not sends and not expected:
            return False
        state.time += self._clock.task
        state.until = max([state.time, *(tail for _, _, tail in arrived)])
        state.waiting = len(sends) + expected - len(arrived)
        for part in sends:
            self._offer(part, state.time)
        if not state.waiting:
            state.time = state.until
        return state.waiting > 0

    def _offer(self, part: _Part, time: float) -> None:
        """Send a message, or wait for the one that it hands on."""
        step = self._program.steps[part.step]
        source = reads(step)[0]
        core = part.message.source
        after = part.message.after
        own = self._cores[core].arrays[source.id][_inside(part.message.region, self._tile(source)[core])]
        if after is None:
            part.payload = own.copy()
            self._fabric.send(part.flight, time)
            return
        head = self._heads.get((part.step, after))
        if head is None:
            part.payload = None
            return
        before = self._parts[part.step][after].payload
        assert isinstance(step, Sum) and before is not None
        part.payload = combined(step.kind, before, own)
        self._fabric.send(part.flight, max(time, head + 1))

    def _injected(self, flight: Flight, time: float) -> None:
        part = flight.key
        assert isinstance(part, _Part)
        self._tick(part.message.source, time)

    def _tick(self, core: Core, time: float) -> None:
        """One of the things that a core waits for has happened."""
        state = self._cores[core]
        state.until = max(state.until, time)
        state.waiting -= 1
        if not state.waiting:
            self._fabric.at(state.until, core)

    def _delivered(self, delivery: Delivery) -> None:
        part = delivery.flight.key
        assert isinstance(part, _Part) and part.payload is not None
        if delivery.core[0] == EDGE:
            self._left(part, delivery.tail)
            return
        index, core = part.step, delivery.core
        state = self._cores[core]
        here = state.entered and state.program[state.at] == index
        self._mail[index, core].append((part.message.region, part.payload, delivery.tail))
        if part.next:
            self._heads[index, part.index] = delivery.head
            if here:
                for after in part.next:
                    self._offer(self._parts[index][after], max(state.time, delivery.head + 1))
        if here:
            self._tick(core, delivery.tail)

    def _assemble(self, core: Core, index: int, step: Move | Sum | Load) -> None:
        """Put together what a core has and what came to it."""
        wanted = self._tile(step.result).get(core)
        arrived = self._mail.pop((index, core), [])
        if wanted is None:
            return
        state = self._cores[core]
        array = np.zeros(_lengths(wanted), _numpy(step.result))
        if array.dtype.kind == "f":
            array.fill(np.nan)
        own = self._tile(step.source).get(core) if not isinstance(step, Load) else None
        if own is not None and not isinstance(step, Load):
            shared = overlap(own, wanted)
            if shared is not None:
                array[_inside(shared, wanted)] = state.arrays[step.source.id][_inside(shared, own)]
        ends = (
            [m for m in self._parts[index] if not m.next and core in m.flight.targets] if isinstance(step, Sum) else []
        )
        if isinstance(step, Sum):
            for end in ends:
                assert end.payload is not None
                at = _inside(end.message.region, wanted)
                array[at] = combined(step.kind, array[at], end.payload)
        else:
            for region, payload, _ in arrived:
                array[_inside(region, wanted)] = payload
        state.arrays[step.result.id] = array

    # ---- the west edge

    def _load_next(self, time: float) -> None:
        """Let the next loads onto the link off the wafer, once their cores have made room."""
        while self._queue:
            index = self._queue[0]
            step = _load(self._program.steps[index])
            if self._posted[index] or self._unstored.get(step.name, 0):
                return
            self._queue.pop(0)
            source = (
                self._results[step.name] if step.name in self._unstored else whole_input(step.result, self._outside)
            )
            ready = max(time, self._posted_at[index], self._stored_at.get(step.name, 0.0))
            for part in self._parts[index]:
                part.payload = source[_slices(part.message.region)].copy()
                self._entering = max(self._entering, ready) + part.message.words * self._clock.outside
                self._fabric.enter(part.flight, self._entering)

    def _left(self, part: _Part, time: float) -> None:
        step = self._program.steps[part.step]
        assert isinstance(step, Store) and part.payload is not None
        self._leaving = max(self._leaving, time) + part.message.words * self._clock.outside
        self._results[step.name][_slices(part.message.region)] = part.payload
        self._unstored[step.name] -= 1
        self._finished = max(self._finished, self._leaving)
        self._stored_at[step.name] = self._leaving
        if not self._unstored[step.name]:
            self._fabric.at(self._leaving, "load")

    def _gathered(self, buffer: Buffer) -> Array:
        """Return a tensor from the cores that hold it."""
        found = np.zeros([size for _, size in buffer.shape], _numpy(buffer))
        for core, part in self._tile(buffer).items():
            found[_slices(part)] = self._cores[core].arrays[buffer.id]
        return found


def whole_input(buffer: Buffer, arrays: Mapping[str, Array]) -> Array:
    """Return an input as the wafer computes with it."""
    array = arrays[buffer.home or buffer.value]
    return np.asarray(array, _numpy(buffer))


def _numpy(buffer: Buffer) -> Any:
    if buffer.dtype == "bool":
        return np.dtype("?")
    return np.dtype("i8") if buffer.dtype in ("i64", "i32") else np.dtype("f4")


def _own(array: Array) -> Array:
    """Return an array that shares no memory with others, as a core's own tile."""
    return array if array.base is None else array.copy()


def _load(step: Step) -> Load:
    assert isinstance(step, Load)
    return step


def _of(tiles: Mapping[Core, Tile], core: Core, buffer: Buffer) -> Tile:
    """Return a core's tile, which may be empty."""
    if core in tiles:
        return tiles[core]
    found = tile(buffer.layout, buffer.shape, core[1] - buffer.area.y, core[0] - buffer.area.x)
    assert found is not None, "an operand lies with every core that works"
    return found


def _lengths(part: Tile) -> tuple[int, ...]:
    return tuple(high - low for low, high in part)


def _slices(part: Tile) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in part)


def _inside(part: Tile, outer: Tile) -> tuple[slice, ...]:
    """Return where a part stands in a tile."""
    return tuple(slice(p[0] - o[0], p[1] - o[0]) for p, o in zip(part, outer, strict=True))
