"""One step of decoding: a model's ops for one new token, one after another on a square of P × P cores.

Weights stay on the wafer, keys and values of earlier tokens too. The vector of the new token is cut along one side of
the square and present along the other; a GEMV sums along the side the vector is cut along and leaves its result cut
along the other, so the next GEMV starts from there (He et al., WaferLLM, OSDI 2025). Every op of the graph is one of

- weights: a GEMV (`gemv`);
- scores: keys are cut along the rows, heads along the columns, P / heads columns each; a core multiplies its part of
  the keys, and the columns of a head add up their parts;
- mixing: a GEMV whose inner dimension is the cached tokens;
- a reduction of a vector: its entries on a core, then an allreduce along a side;
- element by element: one vector instruction in a loop of its own, loop + vector + entries / lanes;
- a gather: a broadcast along a side.

A layer is never cut: layers fill squares in order, and the token's vector moves on where the next square begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from cgc.ir.dims import SymbolicSize, evaluate
from cgc.ir.graph import Graph, Value, walk
from cgc.ir.ops import Dot, Gather, Reduce, opcode
from cgc.program import Device, Program
from cgc.services import DecodeRequest
from cgc.target import TargetError
from cgc_wse.flatten import Application, FlatStage, flatten
from cgc_wse.kernel_cost.collectives import Phase, allreduce_cycles, broadcast_phase
from cgc_wse.kernel_cost.decode_answer import DecodeAnswer, Step, Trial
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.kernel_cost.requests import check_grid
from cgc_wse.plan import gigabytes

TOKEN = "seq"
"""The dimension, and the symbol of its size, along which tokens stand; of it one is new."""

SIDES = (240, 300, 360, 420, 480, 540, 600, 660, 720)
"""Squares tried where none is asked for: WaferLLM's range."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a stage: bytes that stay on the wafer for it."""

    stage: FlatStage
    held: int


@dataclass(frozen=True, slots=True)
class Packing:
    """Runs on squares: how many, how many the device has room for, and the runs that begin a new one."""

    squares: int
    room: int
    moved: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DecodeContext:
    """What all ops share: the cached dimensions, the side of the square, the machine."""

    cached: frozenset[str]
    side: int
    machine: Machine

    def sizes(self, shape: Mapping[str, int]) -> dict[str, int]:
        """Return the sizes for one new token."""
        return {name: 1 if name == TOKEN else size for name, size in shape.items()}

    def part(self, size: float, cores: int) -> float:
        """Return what the fullest of some cores has of so many things."""
        return -(-size // cores)

    def allreduce(self, cores: int, entries: float) -> float:
        """Return the cycles of an allreduce of some entries of each core, with its start."""
        return allreduce_cycles(self.machine, cores, self.machine.words(int(entries)))

    def broadcast(self, entries: float) -> float:
        """Return the cycles of a broadcast along a side, with its start."""
        machine = self.machine
        return machine.task + broadcast_phase(self.side, machine.words(int(entries))).cycles(machine)


def decode(program: Program, device: Device, request: DecodeRequest) -> DecodeAnswer:
    """Return the cost of one decode step on the best square, or on the one asked for.

    Raises:
        TargetError: CG0608 where the square is none of the device, CG0610 where the model has no tokens to go through,
            CG0604 and CG0606 for a wrong or missing context, CG0611 where the model does not fit.
    """
    context = context_of(program, request.context, new=1)
    cached = cached_dims(program.graph)
    stages = flatten(program.graph, {**{s.name: 1 for s in program.graph.symbols}, TOKEN: context + 1})
    machine = machine_of(device, request.dtype)
    sides = candidate_sides(request.side, device)
    anyway = request.ignore_memory
    found = (_trial(stages, cached, side, machine, device, anyway=anyway) for side in sides)
    trials = [trial for trial in found if trial is not None]
    if not trials:
        held = sum(run.held for run in _runs(stages, cached, machine))
        raise TargetError(
            "CG0611",
            f"weights, keys and values of {context} tokens take {gigabytes(held)}; whole layers of it do not fit in "
            f"the squares of {' or '.join(f'{side} x {side}' for side in sides)} cores that {device.name} has room for",
            "a shorter `--context`, another `--grid`, a larger device, or `--ignore-memory`",
        )
    best = min(trials, key=lambda trial: trial.cycles)
    return DecodeAnswer(program.name, device, request.dtype, context, best, tuple(trials))


def candidate_sides(asked: int, device: Device) -> list[int]:
    """Return the sides of squares to try: the one asked for, or all of `SIDES` that lie on the device.

    Raises:
        TargetError: CG0608 where there is none.
    """
    if asked:
        check_grid(asked, asked, device)
        return [asked]
    sides = [side for side in SIDES if side <= min(device.columns, device.rows)]
    if not sides:
        text = f"squares of {SIDES[0]} to {SIDES[-1]} cores are larger than {device.name}"
        side = min(device.columns, device.rows)
        raise TargetError("CG0608", text, f"choose one, as in `--grid {side}x{side}`")
    return sides


def context_of(program: Program, given: int | None, new: int) -> int:
    """Return how many tokens there are, `new` more coming: those given, or as many as the model takes."""
    symbol = next((symbol for symbol in program.graph.symbols if symbol.name == TOKEN), None)
    if symbol is None:
        text = f"the inputs of `{program.name}` have no dimension `{TOKEN}` of open size"
        raise TargetError("CG0610", text, "write the input as `input tokens[batch, seq <= context]`")
    limit = None if symbol.limit is None else evaluate(symbol.limit.size, {})
    if given is None and limit is None:
        option = "--context" if new else "--seq"
        raise TargetError("CG0606", "how many tokens there are is not known", f"give `{option}`")
    context = given if given is not None else (limit or 1) - new
    if limit is not None and context + new > limit:
        more, option = (" and a new one", "--context") if new else ("", "--seq")
        text = f"{context} tokens{more} are more than `{program.name}` takes ({limit})"
        raise TargetError("CG0604", text, f"`{option} {limit - new}` at most")
    return max(1, context)


def cached_dims(graph: Graph) -> frozenset[str]:
    """Return the dimensions other than `TOKEN` that are as long as there are tokens: keys and values."""

    def values() -> Iterator[Value]:
        for body in (graph.body, *(function.body for function in graph.functions)):
            for node in walk(body):
                yield from node.outputs

    return frozenset(
        dim.name
        for value in values()
        for dim in value.type.dims
        if isinstance(dim.size, SymbolicSize) and TOKEN in dim.size.symbols() and dim.name != TOKEN
    )


def held_tensors(stage: FlatStage, cached: frozenset[str]) -> tuple[dict[int, str], dict[int, str]]:
    """Return the tensors of one run of a stage that stay, each with the block that uses it first: its parameters, and
    keys and values. Where slices of a tensor are used, it is the whole.
    """
    params: dict[int, str] = {}
    caches: dict[int, str] = {}
    for group in stage.groups:
        for application in group.applications:
            for index in application.operands:
                tensor = stage.tensors[index]
                cache = isinstance(application.op, Dot) and cached & tensor.shape.keys() and TOKEN not in tensor.shape
                if tensor.param or cache:
                    (params if tensor.param else caches).setdefault(tensor.root, group.path)
    return params, caches


def held_bytes(stage: FlatStage, cached: frozenset[str], number: int) -> tuple[int, int]:
    """Return the bytes of one run of a stage that stay: of its parameters, and of keys and values of one sequence."""
    params, caches = (sum(prod(stage.tensors[i].shape.values()) for i in t) for t in held_tensors(stage, cached))
    return number * params, number * caches


def _runs(stages: list[FlatStage], cached: frozenset[str], machine: Machine) -> list[_Run]:
    return [
        _Run(stage, held)
        for stage in stages
        for held in [sum(held_bytes(stage, cached, machine.number))]
        for _ in range(stage.runs)
    ]


def packed(held: Iterable[int], side: int, device: Device, *, anyway: bool) -> Packing | None:
    """Return how runs that hold so many bytes fill squares, in order; None where they do not fit on the device.

    A run is never cut, unless they are to be packed `anyway`, on as many squares as that takes.
    """
    room, capacity = (device.columns // side) * (device.rows // side), side * side * device.data
    squares, filled, moved = 1, 0, []
    for index, size in enumerate(held):
        if filled + size > capacity and (filled or size <= capacity):
            squares, filled = squares + 1, 0
            moved.append(index)
        filled += size
        if filled > capacity:
            if not anyway:
                return None
            squares, filled = squares + (filled - 1) // capacity, (filled - 1) % capacity + 1
    if squares > room and not anyway:
        return None
    return Packing(squares, room, tuple(moved))


def _trial(
    stages: list[FlatStage], cached: frozenset[str], side: int, machine: Machine, device: Device, *, anyway: bool
) -> Trial | None:
    """Return the step on squares of `side` cores; None where the model does not fit in those of the device."""
    runs = _runs(stages, cached, machine)
    packing = packed((run.held for run in runs), side, device, anyway=anyway)
    if packing is None:
        return None
    context = DecodeContext(cached, side, machine)
    steps = [step for stage in stages for step in decode_steps(stage, context)]
    if packing.squares > 1:
        moved = max(entering_entries(runs[index].stage) for index in packing.moved or (0,))
        steps.append(Step("next square", "moves", packing.squares - 1, move_cycles(machine, side, -(-moved // side))))
    return Trial(side, packing.squares, tuple(steps), packing.room)


def move_cycles(machine: Machine, side: int, entries: int) -> float:
    """Return the cycles in which `entries` entries of each core move on to the next square, `side` cores away."""
    words = machine.words(entries)
    return machine.task + Phase(words, words, side, 1).cycles(machine)


def entering_entries(stage: FlatStage) -> int:
    """Return the entries of the new token that enter a run of a stage."""
    shapes = (stage.tensors[i].shape for i in stage.entering)
    return max((prod(s for name, s in shape.items() if name != TOKEN) for shape in shapes if TOKEN in shape), default=0)


def decode_steps(stage: FlatStage, context: DecodeContext) -> Iterator[Step]:
    for group in stage.groups:
        for application in group.applications:
            if all(stage.tensors[i].generated for i in application.results):
                continue
            kind, cycles = cost_of(stage, application, context)
            yield Step(f"{group.path} {opcode(application.op)}", kind, stage.runs * application.times, cycles)


def cost_of(stage: FlatStage, application: Application, context: DecodeContext) -> tuple[str, float]:
    """Return the kind of an op and its cycles."""
    operands = [context.sizes(stage.tensors[i].shape) for i in application.operands]
    result = context.sizes(stage.tensors[application.results[0]].shape)
    machine, side = context.machine, context.side
    match application.op:
        case Dot():
            return _dot(operands, result, context)
        case Reduce():
            local = machine.elementwise(_entries(operands[0], context))
            return "reductions", local + context.allreduce(side, _entries(result, context))
        case Gather():
            return "gathers", context.broadcast(context.part(prod(result.values()), side))
        case _:
            return "element by element", machine.elementwise(_entries(result, context))


def _dot(operands: list[dict[str, int]], result: dict[str, int], context: DecodeContext) -> tuple[str, float]:
    machine, side = context.machine, context.side
    union = {name: size for shape in operands for name, size in shape.items()}
    inner = prod(size for name, size in union.items() if name not in result)
    outer = prod(result.values())
    keys = prod(size for name, size in result.items() if name in context.cached)
    if keys == 1:
        k, n = context.part(inner, side), context.part(outer, side)
        mixes = any(name in context.cached for name in union)
        # The GEMV of `gemv`: a core's vectors, and an allreduce along the columns.
        return ("attention" if mixes else "gemv"), machine.local(0, k, k * n) + context.allreduce(side, n)
    heads = outer // keys
    columns = max(1, side // heads)
    length = context.part(keys, side) * context.part(heads, side)
    vectors = context.part(inner, columns)
    return "attention", machine.local(0, vectors, vectors * length) + context.allreduce(columns, length)


def _entries(shape: Mapping[str, int], context: DecodeContext) -> float:
    """Return the entries of a tensor on a core: cached tokens along the rows, all else along the columns."""
    rows = prod(size for name, size in shape.items() if name in context.cached)
    rest = prod(size for name, size in shape.items() if name not in context.cached)
    return context.part(rows, context.side) * context.part(rest, context.side)
