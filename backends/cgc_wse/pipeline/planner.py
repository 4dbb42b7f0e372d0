"""The whole model on the wafer: every block of every layer owns a rectangle, sequences flow through as in a pipeline.

A layer (one run of a `repeat`), and what stands before and after the layers, is one stage of the pipeline. In training
each stage takes one sequence forward and one backward in turn (1F1B: Narayanan et al. 2019, PipeDream), so stage s of
S holds S - s sequences at a time, s from 0; the pipeline drains at the end of each step, where the optimizer runs.
Going forward, blocks pass positions on as they come; only a block that sums over positions has a whole sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cgc.program import Device
from cgc_wse.cost import update_seconds
from cgc_wse.job import GRADIENT_BYTES, Job
from cgc_wse.kernels import Kernel, Stage
from cgc_wse.op_work import KernelWork, StageWork
from cgc_wse.pipeline.block_cost import WAITING, BlockTimes, Passing
from cgc_wse.pipeline.block_times import TimedBlock, Way
from cgc_wse.place.blocks import place_blocks
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.sizing import Demand, size_and_place
from cgc_wse.plan import Bottleneck, Figure, Phase, Placed, Plan, code_figures, gigabytes

LEFT = (0.5, 0.8)
"""Vectors on their way get such parts of what a core has left."""

SIXTEENTHS = 16
"""In so many parts a core's memory is cut for them."""


@dataclass(frozen=True, slots=True)
class _Bytes:
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def plus(self, more: _Bytes) -> _Bytes:
        return _Bytes(
            self.weights + more.weights,
            self.gradients + more.gradients,
            self.optimizer + more.optimizer,
            self.activations + more.activations,
        )


@dataclass(frozen=True, slots=True)
class _Item:
    """A kernel of one run: its path, what it must hold, and its times."""

    path: str
    layer: str
    kernel: Kernel
    bytes: _Bytes
    block: TimedBlock


class NotResident(Exception):
    """The model cannot be resident; the message says why, with numbers."""


class TooManyBlocks(NotResident):
    """There are more blocks than cores."""


def pipeline_stages(stages: tuple[Stage, ...]) -> int:
    """Return the number of stages of the pipeline: every run of a `repeat` is one."""
    return sum(stage.runs for stage in stages)


def plan_resident(
    works: tuple[StageWork, ...],
    job: Job,
    device: Device,
    input_bytes: int,
    output_bytes: int,
    *,
    hurry: bool = False,
) -> Plan:
    """Return the resident plan; `input_bytes` enter and `output_bytes` leave the wafer for one sequence.

    In a `hurry` its placement is not searched for long.

    Raises:
        NotResident: it does not fit.
    """
    stages = tuple(work.stage for work in works)
    blocks = sum(stage.runs * len(stage.kernels) for stage in stages)
    if blocks > device.cores:
        raise TooManyBlocks(f"{blocks:,} blocks want a core each, {device.name} has {device.cores:,}")
    # Bytes are summed by stage first, so that a model of any size is turned down before its layers are listed.
    memory = _ledger(stages, job)
    used, capacity = sum(figure.value for figure in memory), device.cores * device.data
    if used > capacity:
        parts = ", ".join(f"{figure.name} {gigabytes(figure.value)}" for figure in memory)
        raise NotResident(f"{gigabytes(used)} ({parts}) against {gigabytes(capacity)} of SRAM")
    layers = _layers(works, job, device)
    areas = _place(layers, device, hurry=hurry)
    items = [item for layer in layers for item in layer]
    found = [item.block.best(area) for item, area in zip(items, areas, strict=True)]
    placed = tuple(
        Placed(item.path, item.layer, item.kernel, area, cycles, item.bytes.total, room)
        for item, area, (cycles, room) in zip(items, areas, found, strict=True)
    )
    passing = sum(room * area.cores for area, (_, room) in zip(areas, found, strict=True))
    buffers = Figure("buffers", passing, "bytes", "vectors on their way, a part of what each core has left")
    memory = (*memory, buffers, *code_figures(device))
    reason = f"all of it fits: {gigabytes(used)} of {gigabytes(capacity)} of SRAM"
    return _timed(placed, memory, job, device, reason, pipeline_stages(stages), input_bytes, output_bytes)


def _runs(stages: tuple[Stage, ...]) -> Iterator[tuple[Stage, int, int]]:
    """Yield (stage, index of the run, place in the pipeline)."""
    place = 0
    for stage in stages:
        for run in range(stage.runs):
            yield stage, run, place
            place += 1


def in_flight(place: int, total: int, job: Job) -> int:
    """Return how many sequences stage `place` of `total` keeps activations of."""
    return min(total - place, job.batch)


def _bytes(kernel: Kernel, sequences: int, job: Job, runs: int = 1) -> _Bytes:
    """Return what a kernel holds; `runs` of it hold activations of `sequences` sequences together."""
    weights = kernel.parameters * job.number
    if job.purpose == "forward":
        return _Bytes(weights, 0, 0, kernel.held * job.number)
    optimizer = kernel.parameters * job.optimizer_state
    kept = kernel.kept * sequences
    if job.recompute:
        # A block keeps its part of one sequence, of the others only what entered the stage.
        kept = kernel.kept * runs + kernel.entering * (sequences - runs)
    activations = kept * job.number
    return _Bytes(weights, kernel.parameters * GRADIENT_BYTES, optimizer, activations)


def _ledger(stages: tuple[Stage, ...], job: Job) -> tuple[Figure, ...]:
    """Return the bytes of the whole model by what they are."""
    total, place = pipeline_stages(stages), 0
    sums = _Bytes(0, 0, 0, 0)
    for stage in stages:
        sequences = sum(in_flight(place + run, total, job) for run in range(stage.runs))
        for kernel in stage.kernels:
            runs = stage.runs
            one = _bytes(kernel, sequences, job, runs)
            activations = one.activations * (runs if job.purpose == "forward" else 1)
            parts = _Bytes(runs * one.weights, runs * one.gradients, runs * one.optimizer, activations)
            sums = sums.plus(parts)
        place += stage.runs
    number = f"{job.number} B ({job.precision})"
    weights = Figure("weights", sums.weights, "bytes", f"parameters * {number}")
    if job.purpose == "forward":
        formula = f"what blocks that sum over positions receive * {number}"
        return weights, Figure("activations", sums.activations, "bytes", formula)
    what = "what enters, and one sequence's kept," if job.recompute else "kept"
    kept = f"sum over blocks of {what} * min(S - s, batch) * {number}; stage s of S = {total}"
    return (
        weights,
        Figure("gradients", sums.gradients, "bytes", f"parameters * {GRADIENT_BYTES} B (f32 sums)"),
        Figure("optimizer", sums.optimizer, "bytes", f"parameters * {job.optimizer_state} B ({optimizer_note(job)})"),
        Figure("activations", sums.activations, "bytes", kept),
    )


def optimizer_note(job: Job) -> str:
    """Return what the optimizer keeps, in words."""
    copy = "" if job.number == 4 else ", f32 copy"
    return f"{job.optimizer}: f32 moments{copy}"


def _layers(works: tuple[StageWork, ...], job: Job, device: Device) -> list[list[_Item]]:
    """Return the blocks of all layers."""
    stages = tuple(work.stage for work in works)
    passing = {
        kernel.path: passing_of(kernel, work, job, device)
        for stage in works
        for kernel, work in zip(stage.stage.kernels, stage.kernels, strict=True)
    }
    total = sum(stage.runs * _amount(kernel, job) for stage in stages for kernel in stage.kernels)
    depth = pipeline_stages(stages)

    # Many blocks do the same.
    times = {one: BlockTimes(one, device, job.precision, job.seq) for one in dict.fromkeys(passing.values())}

    def item(kernel: Kernel, stage: Stage, run: int, place: int) -> _Item:
        held = _bytes(kernel, in_flight(place, depth, job), job)
        cores = max(1.0, device.cores * _amount(kernel, job) / max(1, total))
        known = times[passing[kernel.path]]
        ways = tuple(
            Way(known.at(room), room, max(1, -(-held.total // (device.data - room))))
            for room in rooms(held.total / cores, job, device)
        )
        layer = stage.name if stage.runs == 1 else f"{stage.name}.{run}"
        return _Item(run_path(kernel.path, stage, run), layer, kernel, held, TimedBlock(ways))

    return [[item(kernel, stage, run, place) for kernel in stage.kernels] for stage, run, place in _runs(stages)]


def rooms(held: float, job: Job, device: Device) -> tuple[int, ...]:
    """Return bytes of a core for vectors on their way, where a block holds `held` of it if shared out by work.

    Parts of what is left, in whole sixteenths of a core's memory and up to the half of it; and next to nothing, for
    blocks that need all their cores for what they hold.
    """
    left = max(0.0, device.data - held) / device.data
    parts = {1, *(min(int(SIXTEENTHS * part * left), SIXTEENTHS // 2) for part in LEFT)}
    least = min(job.number * (WAITING + 1), device.data - 1)
    found = {max(device.data * part // SIXTEENTHS, least) for part in parts}
    return tuple(sorted(found if min(parts - {1}, default=1) > 2 else found | {least}))


def _amount(kernel: Kernel, job: Job) -> int:
    """Return the operations of a block, as a measure of the cores it gets."""
    work = kernel.training if job.purpose == "training" else kernel.forward
    return work.macs + work.operations


def passing_of(kernel: Kernel, work: KernelWork, job: Job, device: Device) -> Passing:
    """Return what a sequence of a step makes a block do. Where nothing but what enters a layer is stored, each layer
    runs forward again.
    """
    few, many = crossing_entries(kernel)
    training = job.purpose == "training"
    crossings = (2 + job.recompute) if training else 1
    each = crossings * job.number / device.link
    forward = work.forward * (2 if training and job.recompute else 1)
    return Passing(forward, work.back if training else (), (few * each, many * each))


def crossing_entries(kernel: Kernel) -> tuple[int, int]:
    """Return the entries that cross the short side of a kernel's rectangle going forward, and the long side.

    Where there are dots, inputs run along the rows and sums along the columns, or the other way round. Other blocks let
    their entries pass straight through, over the longer side.
    """
    few, many = sorted((kernel.received, kernel.sent))
    return (few, many) if kernel.forward.macs else (0, many)


def run_path(path: str, stage: Stage, run: int) -> str:
    """Return a path with the index of the run put in: `h.attention.q` in run 3 is `h.3.attention.q`."""
    if stage.runs == 1 and not path.startswith(f"{stage.name}."):
        return path
    head, _, tail = path.partition(".")
    return f"{head}.{run}.{tail}" if tail else f"{head}.{run}"


def _place(layers: list[list[_Item]], device: Device, *, hurry: bool) -> list[Rectangle]:
    """Return a rectangle for each item in which its bytes fit beside its buffers."""
    blocks = [[item.block for item in layer] for layer in layers]
    found = place_blocks(blocks, device.columns, device.rows, hurry=hurry)
    if found is not None:
        return found[1]
    # Where hardly a core is to spare, cuts that count cores find what cuts by work do not.
    demands = [[Demand(block.work, block.least, block.cycles) for block in layer] for layer in blocks]
    areas = size_and_place(demands, Rectangle(0, 0, device.columns, device.rows))
    if areas is not None:
        return areas
    least = sum(block.least for layer in demands for block in layer)
    raise NotResident(
        f"the blocks need {least:,} of {device.cores:,} cores for what they hold, and no placement in whole rectangles "
        "was found that gives every block enough"
    )


def _timed(
    placed: tuple[Placed, ...],
    memory: tuple[Figure, ...],
    job: Job,
    device: Device,
    reason: str,
    depth: int,
    input_bytes: int,
    output_bytes: int,
) -> Plan:
    slowest = max(placed, key=lambda p: p.cycles.total)
    interval = slowest.cycles.total / device.clock
    pipeline = (job.batch + depth - 1) * interval
    hops = (device.columns + device.rows) * device.hop / device.clock
    training = job.purpose == "training"
    outside = job.batch * (input_bytes + (0 if training else output_bytes)) / device.off_wafer
    state = job.number + GRADIENT_BYTES + job.optimizer_state
    update = max(update_seconds(p.kernel, p.area, device, state) for p in placed) if training else 0.0
    exchange = GRADIENT_BYTES * sum(p.kernel.parameters for p in placed) / device.off_wafer
    exchange = exchange if training and job.wafers > 1 else 0.0
    seconds = max(pipeline, outside) + hops + exchange + update
    time = [
        Figure("one sequence", interval, "seconds", f"cycles of the slowest block, {slowest.path}, / clock"),
        Figure("stages", depth, "stages", "runs of every repeat, and what stands before, between and after them"),
        Figure("pipeline", pipeline, "seconds", "(batch + stages - 1) * one sequence"),
        Figure(
            "off-wafer", outside, "seconds", f"bytes of {'inputs' if training else 'inputs and outputs'} / off_wafer"
        ),
        Figure("wafer crossing", hops, "seconds", "(columns + rows) * hop / clock"),
    ]
    if exchange:
        formula = (
            f"parameters * {GRADIENT_BYTES} B / off_wafer: out to be summed over the wafers, back at the same time"
        )
        time.append(Figure("gradients", exchange, "seconds", formula))
    if training:
        formula = f"max over blocks of parameters * {state} B / (read * cores * clock)"
        time.append(Figure("optimizer", update, "seconds", formula))
    whole = "max(pipeline, off-wafer) + wafer crossing" + (" + gradients" if exchange else "")
    whole += " + optimizer" if training else ""
    time.append(Figure("step", seconds, "seconds", whole))
    bottleneck = Bottleneck("off-wafer", "") if outside > pipeline else Bottleneck(slowest.cycles.bound, slowest.path)
    phase = Phase("the whole model", 1, placed, seconds)
    policy = "every block keeps what it received for its backward pass" if training else "nothing is kept"
    if training and job.recompute:
        policy = "only what enters a layer is kept; each layer runs forward again on the way back, as asked for"
    at_once = min(job.batch, depth)
    phases = (phase,)
    return Plan(
        job, device, "resident", reason, phases, memory, tuple(time), seconds, bottleneck, policy, at_once, depth=depth
    )
