"""The wafer runs a partitioned program: every core its steps in order, with its own clock, memory and numbers.

Local work takes its cycles on the core. A step with messages starts its tasks, sends what the core has to send, and
ends when all of that has left the core and all that was to come has come. What comes before the core has made room,
which it does as it starts a step, waits outside of it. A core that sums on a chain hands on what comes as it comes: its
message starts when the head of the one before is there. What crosses the west edge waits for its turn on the link off
the wafer, in each direction.
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
from cgc_wse.simulate.arrays import given, inside, lengths, numpy_type, own, slices
from cgc_wse.simulate.edge import Edge, Parcel
from cgc_wse.simulate.fabric import Fabric, Listeners
from cgc_wse.simulate.flight import Flight
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
        self._fabric = Fabric(self._clock, Listeners(self._head, self._tail, self._left, self._wake))
        self._edge = Edge(self._clock, self._fabric, arrays)
        self._memories = Memories(program.device.memory, code_bytes(program))
        self._cores = {core: _Core([]) for core in self._memories.most}
        self._by_buffer: dict[int, Mapping[Core, Tile]] = {}
        self._parts: dict[int, list[Parcel]] = {}
        self._sends: dict[int, dict[Core, list[Parcel]]] = {}
        self._comes: dict[int, dict[Core, list[Parcel]]] = {}
        self._mail: defaultdict[tuple[int, Core], list[tuple[Parcel, float]]] = defaultdict(list)
        self._busy: defaultdict[Core, float] = defaultdict(float)
        self._started: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._longest: dict[int, float] = {}
        self._cycles: dict[tuple[int, tuple[int, ...]], float] = {}

    # ---- preparation

    def run(self) -> Run:
        """Run everything."""
        self._prepare()
        for core in self._cores:
            self._fabric.at(0.0, core)
        with np.errstate(all="ignore"):
            last = self._fabric.run()
        stuck = [core for core, state in self._cores.items() if state.at < len(state.program)]
        if stuck or self._edge.waiting:
            state = self._cores[stuck[0]] if stuck else None
            where = f"core {stuck[0]} at step {state.program[state.at]}" if state else f"load {self._edge.waiting[0]}"
            raise Deadlock(f"{len(stuck)} cores wait for what never comes: {where}")
        outputs = {name: self._gathered(buffer) for name, buffer in self._program.outputs.items()}
        outputs |= {name: self._edge.result(value) for name, value in self._program.outside.items()}
        cycles = max([last, self._edge.finished, *(core.time for core in self._cores.values())])
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
            array = given(buffer, self._edge.arrays)
            for core, part in self._tile(buffer).items():
                self._store_tile(core, buffer, array[slices(part)].copy())
        for buffer in program.freed.get(-1, ()):
            for core in self._tile(buffer):
                self._release(core, buffer)
        self._edge.begin()

    def _routes(self, index: int, step: Step) -> None:
        """Make the messages of a step, and count what every core is to get."""
        found = messages(step)
        if isinstance(step, Load):
            self._edge.expect_load(index, step, len(self._tile(step.result)))
        if isinstance(step, Store):
            self._edge.expect_store(step, len(found))
        if isinstance(step, Local | View):
            return
        parts: list[Parcel] = []
        sends: dict[Core, list[Parcel]] = {}
        comes: dict[Core, list[Parcel]] = {}
        for at, message in enumerate(found):
            before = parts[message.after] if message.after is not None else None
            flight = self._fabric.flight(
                message.source, message.targets, message.words, None, before.flight if before is not None else None
            )
            part = Parcel(index, at, message, flight, before)
            flight.key = part
            parts.append(part)
            sends.setdefault(message.source, []).append(part)
            if before is not None:
                before.next.append(part)
            for core in message.targets:
                comes.setdefault(core, []).append(part)
        self._parts[index], self._sends[index], self._comes[index] = parts, sends, comes

    def _tile(self, buffer: Buffer) -> Mapping[Core, Tile]:
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
            self._edge.load(time, self._parts)

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
            self._store_tile(core, buffer, np.empty(lengths(part), numpy_type(buffer)))
            for parcel in self._comes[load].get(core, ()):
                self._fabric.open(parcel.flight, core, time)
            self._edge.make_room(load, time)

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
            state.arrays[b.id] if b.id in state.arrays else np.zeros(lengths(part), numpy_type(b))
            for b, part in zip(step.operands, given, strict=True)
        ]
        tiles = [part for part in wanted if part is not None]
        made = self._arithmetic.local(step.node, operands, given, tiles)
        if step.onto is not None:
            # In place: what was there is known under the new name only from now on.
            made = [np.add(state.arrays[step.onto.id], made[0], out=state.arrays[step.onto.id])]
        for buffer, array in zip(step.results, made, strict=True):
            self._store_tile(core, buffer, array if step.onto is not None else own(array))
        sizes = lengths(work)
        known = self._cycles.get((id(step), sizes))
        if known is None:
            space = tuple((name, size) for (name, _), size in zip(step.space, sizes, strict=True))
            known = self._cycles[id(step), sizes] = work_cycles(step.node, space, self._clock)
        cycles = known
        state.time += cycles
        self._busy[core] += cycles

    def _look(self, core: Core, state: _Core, step: View) -> None:
        wanted, given = self._tile(step.result).get(core), self._tile(step.source).get(core)
        if wanted is None or given is None:
            return
        array = state.arrays[step.source.id]
        if step.node is None:
            part = inside(step.result.in_tensor(wanted), step.source.in_tensor(given))
            state.arrays[step.result.id] = array[part]
        else:
            state.arrays[step.result.id] = self._arithmetic.view(step.node, array, given, wanted)

    # ---- communication

    def _communicate(self, core: Core, state: _Core, index: int, step: Move | Sum | Load | Store) -> bool:
        """Start a step with messages; returns whether the core has to wait."""
        sends, comes = self._sends[index].get(core, []), self._comes[index].get(core, [])
        arrived = self._mail[index, core]
        if isinstance(step, Move | Sum):
            wanted = self._tile(step.result).get(core)
            if wanted is not None and step.result.owns:
                self._memories.allocate(core, step.result, count(wanted) * step.result.entry)
        if not sends and not comes:
            return False
        state.time += self._clock.task
        state.until = max([state.time, *(tail for _, tail in arrived)])
        state.waiting = len(sends) + len(comes) - len(arrived)
        if not isinstance(step, Load):
            for part in comes:
                self._fabric.open(part.flight, core, state.time)
        for part in sends:
            part.ready = state.time
            self._offer(part)
        if not state.waiting:
            state.time = state.until
        return state.waiting > 0

    def _offer(self, part: Parcel) -> None:
        """Send a message once its core has come to the step, and the head of what it hands on to the core."""
        before, time = part.before, part.ready
        if time is None or (before is not None and before.head is None):
            return
        step = self._program.steps[part.step]
        source = reads(step)[0]
        core = part.message.source
        own = self._cores[core].arrays[source.id][inside(part.message.region, self._tile(source)[core])]
        if before is None:
            part.payload = own.copy()
        else:
            assert isinstance(step, Sum) and before.payload is not None and before.head is not None
            part.payload = combined(step.kind, before.payload, own)
            time = max(time, before.head + 1)
        self._fabric.send(part.flight, time)

    def _left(self, flight: Flight, time: float) -> None:
        part = flight.key
        assert isinstance(part, Parcel)
        if part.message.source[0] == EDGE:
            self._edge.entered(flight, time)
        else:
            self._tick(part.message.source, time)

    def _tick(self, core: Core, time: float) -> None:
        """One of the things that a core waits for has happened."""
        state = self._cores[core]
        state.until = max(state.until, time)
        state.waiting -= 1
        if not state.waiting:
            self._fabric.at(state.until, core)

    def _head(self, flight: Flight, time: float) -> None:
        part = flight.key
        assert isinstance(part, Parcel)
        part.head = time if part.head is None else min(part.head, time)
        for after in part.next:
            self._offer(after)

    def _tail(self, flight: Flight, core: Core, time: float) -> None:
        part = flight.key
        assert isinstance(part, Parcel) and part.payload is not None
        index = part.step
        if core[0] == EDGE:
            step = self._program.steps[index]
            assert isinstance(step, Store)
            self._edge.store(step, part, time)
            return
        state = self._cores[core]
        self._mail[index, core].append((part, time))
        if state.entered and state.program[state.at] == index:
            self._tick(core, time)

    def _assemble(self, core: Core, index: int, step: Move | Sum | Load) -> None:
        """Put together what a core has and what came to it."""
        wanted = self._tile(step.result).get(core)
        arrived = self._mail.pop((index, core), [])
        if wanted is None:
            return
        state = self._cores[core]
        array = np.zeros(lengths(wanted), numpy_type(step.result))
        if array.dtype.kind == "f":
            array.fill(np.nan)
        own = self._tile(step.source).get(core) if not isinstance(step, Load) else None
        if own is not None and not isinstance(step, Load):
            shared = overlap(own, wanted)
            if shared is not None:
                array[inside(shared, wanted)] = state.arrays[step.source.id][inside(shared, own)]
        for part, _ in sorted(arrived, key=lambda one: one[0].index) if isinstance(step, Sum) else arrived:
            assert part.payload is not None
            at = inside(part.message.region, wanted)
            if not isinstance(step, Sum):
                array[at] = part.payload
            elif not part.next:
                array[at] = combined(step.kind, array[at], part.payload)
        state.arrays[step.result.id] = array

    def _gathered(self, buffer: Buffer) -> Array:
        """Return a tensor from the cores that hold it."""
        found = np.zeros([size for _, size in buffer.shape], numpy_type(buffer))
        for core, part in self._tile(buffer).items():
            found[slices(part)] = self._cores[core].arrays[buffer.id]
        return found


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
