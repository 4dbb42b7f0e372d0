"""A plan for decoding: one token for each of a batch of sequences, keys and values of earlier tokens on the wafer.

Layers fill squares of cores one after another, as in `kernel_cost.decode`, which times them; a square works on one
sequence at a time, the squares on different ones as in a pipeline. Weights that do not fit stream past, layer by layer,
every sequence using them once; keys and values always stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from cgc.ir.graph import Graph
from cgc.program import Device
from cgc.target import TargetError
from cgc_wse.cost import Cycles
from cgc_wse.decoding.bound import LeastLayer, least_layer
from cgc_wse.flatten import FlatStage, flatten
from cgc_wse.job import Job
from cgc_wse.kernel_cost.decode import (
    SIDES,
    TOKEN,
    DecodeContext,
    cached_dims,
    decode_steps,
    entering_entries,
    held_bytes,
    move_cycles,
)
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.kernels import Kernel, Work, stages_from
from cgc_wse.place.geometry import Rectangle
from cgc_wse.plan import Bottleneck, Figure, Phase, Placed, Plan, code_figures, gigabytes

SMALLER = (30, 45, 60, 75, 90, 105, 120, 150, 180, 210)
"""Squares tried beside those of `cgc cost decode`: small models are faster on them, and several sequences at a time."""
FINE = 16
"""Up to so many squares, every number of them is tried; beyond, some."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One run of a stage: bytes of its weights and of the caches of all sequences, its cycles and multiply-adds for one
    token, and the op that takes most of them.
    """

    name: str
    weights: int
    caches: int
    cycles: float
    macs: int
    slowest: str

    @property
    def bytes(self) -> int:
        """Bytes that stay."""
        return self.weights + self.caches


@dataclass(frozen=True, slots=True)
class _Square:
    layers: tuple[_Layer, ...]

    @property
    def cycles(self) -> float:
        """Cycles for one token of one sequence."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Bytes that stay in it."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def name(self) -> str:
        """Its layers: `h.3 to h.7`."""
        first, last = self.layers[0].name, self.layers[-1].name
        return first if first == last else f"{first} to {last}"


def plan_decode(graph: Graph, job: Job, device: Device, run: str | None = None) -> Plan:
    """Return the plan of a step in which every sequence has `job.seq` tokens, the newest with it.

    Raises:
        TargetError: CG0610 where the model has no tokens to go through, CG0602 and CG0611 where it does not fit on the
            device, CG0655 where it does not fit in the way asked for.
    """
    if all(symbol.name != TOKEN for symbol in graph.symbols):
        text = f"the inputs of `{graph.name}` have no dimension `{TOKEN}` of open size"
        raise TargetError("CG0610", text, "write the input as `input tokens[batch, seq <= context]`")
    cached = cached_dims(graph)
    stages = flatten(graph, dict(job.sizes))
    machine = machine_of(device, job.precision)
    most = min(device.columns, device.rows)
    sides = [side for side in (*SMALLER, *SIDES) if side <= most] or [most]
    plans = [
        _pipelined(squares, side, job, device, _move(stages, side, machine))
        for side in sides
        for squares in _squares(_layers(stages, cached, job, machine, side), side, job, device)
    ]
    if plans and run != "streaming":
        return min(plans, key=lambda plan: plan.seconds)
    layers = _layers(stages, cached, job, machine, sides[-1])
    resident, streaming = _Fit(layers, sides, device), _StreamingFit(layers, sides[-1], device)
    if run == "pipelined":
        hints = ["`--run streaming`"] * streaming.part(1) + _smaller(resident.part, job)
        raise _not_fitting("CG0655", layers, sum(layer.bytes for layer in layers), job, device, hints)
    if streaming.ahead <= streaming.capacity and not streaming.part(1):
        hints = _smaller(lambda part: streaming.part(part) or (run is None and resident.part(part)), job)
        needed = streaming.ahead + sum(layer.caches for layer in layers)
        raise _not_fitting("CG0611", layers, needed, job, device, hints)
    return _streaming(streaming, job, run)


def least_layers(graph: Graph, job: Job, device: Device, *, resident: bool) -> list[LeastLayer]:
    """Return the bound of every layer; where the plan is not `resident`, squares need not hold the weights."""
    cached, stages, machine = cached_dims(graph), flatten(graph, dict(job.sizes)), machine_of(device, job.precision)
    layers: list[LeastLayer] = []
    for stage, owned in zip(stages, stages_from(stages), strict=True):
        weights, caches = owned.parameters * machine.number, held_bytes(stage, cached, machine.number)[1] * job.batch
        held = (weights, caches) if resident else (weights, 0)
        found = least_layer(stage, cached, machine, *held, device if resident else replace(device, memory=1 << 60))
        layers += [found] * stage.runs
    return layers


def _layers(stages: list[FlatStage], cached: frozenset[str], job: Job, machine: Machine, side: int) -> list[_Layer]:
    context = DecodeContext(cached, side, machine)
    layers: list[_Layer] = []
    # A parameter that several stages use lives in one of them.
    for stage, owned in zip(stages, stages_from(stages), strict=True):
        steps = list(decode_steps(stage, context))
        weights, caches = owned.parameters * machine.number, held_bytes(stage, cached, machine.number)[1]
        cycles = sum(step.total for step in steps) / stage.runs
        macs = sum(a.multiply_adds * a.times for group in stage.groups for a in group.applications) // max(1, job.seq)
        slowest = max(steps, key=lambda step: step.total).path.rpartition(" ")[0] if steps else stage.name
        for index in range(stage.runs):
            name = stage.name if stage.runs == 1 else f"{stage.name}.{index}"
            layers.append(_Layer(name, weights, caches * job.batch, cycles, macs, slowest))
    return layers


def _move(stages: list[FlatStage], side: int, machine: Machine) -> float:
    """Return the cycles in which the vector of a token moves on to the next square."""
    return move_cycles(machine, side, -(-max(entering_entries(stage) for stage in stages) // side))


def _filled(layers: Sequence[_Layer], capacity: int, longest: float = inf) -> list[_Square] | None:
    """Fill squares with whole layers, in order, none with more than `longest` cycles; None where one alone has more.

    No other way to cut the layers in order has fewer squares.
    """
    squares: list[list[_Layer]] = [[]]
    held, cycles = 0, 0.0
    for layer in layers:
        if layer.bytes > capacity or layer.cycles > longest:
            return None
        if squares[-1] and (held + layer.bytes > capacity or cycles + layer.cycles > longest):
            squares.append([])
            held, cycles = 0, 0.0
        squares[-1].append(layer)
        held, cycles = held + layer.bytes, cycles + layer.cycles
    return [_Square(tuple(square)) for square in squares]


def _balanced(layers: Sequence[_Layer], capacity: int, count: int) -> list[_Square] | None:
    """Return `count` squares at most whose slowest has as few cycles as can be, but for a thousandth of a layer's."""
    low, high = max(layer.cycles for layer in layers), sum(layer.cycles for layer in layers)
    best = _filled(layers, capacity, low)
    if best is not None and len(best) <= count:
        return best
    best = _filled(layers, capacity, high)
    while high - low > low / 1000:
        middle = (low + high) / 2
        found = _filled(layers, capacity, middle)
        if found is not None and len(found) <= count:
            best, high = found, middle
        else:
            low = middle
    return best if best is not None and len(best) <= count else None


def _squares(layers: list[_Layer], side: int, job: Job, device: Device) -> Iterator[list[_Square]]:
    """Yield ways to put layers on squares of one side: on as few as hold them, and for several sequences on more.

    More than there are sequences, whose slowest square would be no slower, are of no use.
    """
    room, capacity = (device.columns // side) * (device.rows // side), side * side * device.data
    squares = _filled(layers, capacity)
    if squares is None or len(squares) > room:
        return
    yield squares
    most = min(room, len(layers), 2 * job.batch)
    for count in range(len(squares), most + 1) if job.batch > 1 else ():
        if count <= FINE or count == most or count % (count // FINE) == 0:
            balanced = _balanced(layers, capacity, count)
            if balanced is not None:
                yield balanced


def _pipelined(squares: list[_Square], side: int, job: Job, device: Device, move: float) -> Plan:
    layers = [layer for square in squares for layer in square.layers]
    across = device.columns // side
    moves = (len(squares) - 1) * move
    once = sum(square.cycles for square in squares) + moves
    slowest = max(squares, key=lambda square: square.cycles)
    cycles = max(once, job.batch * slowest.cycles)
    seconds = cycles / device.clock
    time = (
        Figure(
            "one token", once / device.clock, "seconds", "sum over squares of cycles of their ops, and moves, / clock"
        ),
        Figure(
            "slowest square", slowest.cycles / device.clock, "seconds", f"cycles of the ops of {slowest.name} / clock"
        ),
        Figure("moves", moves / device.clock, "seconds", f"{len(squares) - 1} times a vector over {side} cores"),
        Figure(
            "step", seconds, "seconds", "max(one token, sequences * slowest square): squares work on different ones"
        ),
    )
    placed = tuple(
        _placed(square, Rectangle(side * (i % across), side * (i // across), side, side), device)
        for i, square in enumerate(squares)
    )
    kept = sum(square.bytes for square in squares)
    reason = f"weights, keys and values fit on {len(squares)} squares of {side} x {side} cores: {gigabytes(kept)}"
    layer = max((layer for square in squares for layer in square.layers), key=lambda layer: layer.cycles)
    return Plan(
        job,
        device,
        "resident",
        reason,
        (Phase("the whole model", 1, placed, seconds),),
        (*_memory(layers, job), *code_figures(device)),
        time,
        seconds,
        Bottleneck(placed[0].cycles.bound, layer.slowest),
        "keys and values of every sequence stay on the wafer",
        min(job.batch, len(squares)),
        depth=len(squares),
    )


def _placed(square: _Square, area: Rectangle, device: Device) -> Placed:
    macs = sum(layer.macs for layer in square.layers)
    compute = macs / (device.multiply_adds * area.cores)
    kernel = Kernel(square.name, "layers", "", Work(macs), Work(), Work(), 0, 0, 0, 0, 0)
    return Placed(square.name, square.name, kernel, area, Cycles(compute, 0.0, square.cycles), square.bytes)


def _streaming(fit: _StreamingFit, job: Job, run: str | None) -> Plan:
    """Return a step in which the weights stream past a square that works on the sequences one after another."""
    layers, side, device, ahead, capacity = fit.layers, fit.side, fit.device, fit.ahead, fit.capacity
    weights, caches = sum(layer.weights for layer in layers), sum(layer.caches for layer in layers)
    if ahead > capacity:
        text = (
            f"the weights of two layers take {gigabytes(ahead)}, {gigabytes(ahead - capacity)} more than a square of "
        )
        text += f"{side} x {side} cores of {device.name} ({gigabytes(capacity)})"
        raise TargetError("CG0602", text, "a smaller width, or a device with more memory or cores")
    rows: list[tuple[_Layer, float]] = [
        (layer, max(job.batch * layer.cycles / device.clock, layer.weights / device.off_wafer)) for layer in layers
    ]
    first = layers[0].weights / device.off_wafer
    seconds = sum(time for _, time in rows) + first
    compute = job.batch * sum(layer.cycles for layer in layers) / device.clock
    stream = weights / device.off_wafer
    time = (
        Figure("streaming", stream, "seconds", "weights of all layers / off_wafer"),
        Figure("ops", compute, "seconds", f"sequences * cycles of all ops on {side} x {side} cores / clock"),
        Figure("first layer", first, "seconds", "its weight bytes / off_wafer: nothing to overlap with"),
        Figure(
            "step", seconds, "seconds", "sum over layers of max(sequences * cycles / clock, streaming) + first layer"
        ),
    )
    area = Rectangle(0, 0, side, side)
    phases = tuple(
        Phase(layer.name, 1, (_placed(_Square((layer,)), area, device),), seconds) for layer, seconds in rows
    )
    memory = (
        Figure("weights", ahead, "bytes", f"2 * weights of the largest layer * {job.number} B ({job.precision})"),
        Figure("KV cache", caches, "bytes", _cache_formula(job)),
        *code_figures(device),
    )
    held = f"{gigabytes(weights)} of weights and {gigabytes(caches)} of keys and values"
    reason = "as asked for" if run == "streaming" else f"{held} do not fit on squares of whole layers"
    bound = Bottleneck("off-wafer", "") if stream > compute else Bottleneck("fabric", layers[-1].slowest)
    text = "weights stream past, keys and values stay on the wafer"
    return Plan(job, device, "streaming", reason, phases, memory, time, seconds, bound, text, job.batch)


def _memory(layers: list[_Layer], job: Job) -> tuple[Figure, ...]:
    return (
        Figure(
            "weights", sum(one.weights for one in layers), "bytes", f"parameters * {job.number} B ({job.precision})"
        ),
        Figure("KV cache", sum(one.caches for one in layers), "bytes", _cache_formula(job)),
    )


def _cache_formula(job: Job) -> str:
    return f"{job.batch} sequences * {job.seq:,} tokens * keys and values of all layers * {job.number} B"


@dataclass(frozen=True, slots=True)
class _Fit:
    """Layers that stay on squares, of any side."""

    layers: list[_Layer]
    sides: Sequence[int]
    device: Device

    def part(self, part: float) -> bool:
        """Tell whether they fit with such a part of the keys and values."""
        layers = [replace(layer, caches=ceil(layer.caches * part)) for layer in self.layers]
        for side in self.sides:
            squares = _filled(layers, side * side * self.device.data)
            if squares is not None and len(squares) <= (self.device.columns // side) * (self.device.rows // side):
                return True
        return False


@dataclass(frozen=True, slots=True)
class _StreamingFit:
    """Keys and values that stay on one square, past which the weights stream."""

    layers: list[_Layer]
    side: int
    device: Device

    @property
    def ahead(self) -> int:
        """Bytes of the weights that are there at a time."""
        return 2 * max(layer.weights for layer in self.layers)

    @property
    def capacity(self) -> int:
        """Bytes of the square."""
        return self.side**2 * self.device.data

    def part(self, part: float) -> bool:
        """Tell whether such a part of them fits."""
        return self.ahead + ceil(part * sum(layer.caches for layer in self.layers)) <= self.capacity


def _smaller(fits: Callable[[float], bool], job: Job) -> list[str]:
    """Return the largest batch and the longest sequence whose part of the keys and values `fits`, as options."""
    found = []
    for option, now in (("--batch", job.batch), ("--seq", job.seq)):
        low, high = 0, now  # what is between 1 and `low` fits, `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle / now) else (low, middle)
        found += [f"`{option} {low}`"] * (low > 0)
    return found


def _not_fitting(
    code: str, layers: list[_Layer], needed: int, job: Job, device: Device, hints: list[str]
) -> TargetError:
    capacity = device.cores * device.data
    weights, caches = sum(layer.weights for layer in layers), sum(layer.caches for layer in layers)
    over = f", {gigabytes(needed - capacity)} more than" if needed > capacity else "; in whole layers that is more than"
    return TargetError(
        code,
        f"decoding {job.batch} sequences of {job.seq:,} tokens takes {gigabytes(weights)} of weights and "
        f"{gigabytes(caches)} of keys and values{over} the SRAM of {device.name} ({gigabytes(capacity)})",
        ", or ".join([*hints, "a device with more memory or cores"]),
    )
