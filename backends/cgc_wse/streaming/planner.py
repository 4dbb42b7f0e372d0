"""A plan of weight streaming: the search's choice as blocks, figures and times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cgc.program import Device
from cgc.target import TargetError
from cgc_wse.cost import Cycles, Resource
from cgc_wse.job import Job
from cgc_wse.op_work import KernelWork, StageWork
from cgc_wse.place.geometry import Rectangle
from cgc_wse.plan import Bottleneck, Direction, Figure, Phase, Placed, Plan, Sweep, code_figures, gigabytes
from cgc_wse.streaming.search import Choice, Near, Search, streams


@dataclass(frozen=True, slots=True)
class _Part:
    """A block in one direction: the runs `first` to `last` of its stage, and of each run in a pass its seconds, those
    that its weights alone take, and its cycles for one sequence.
    """

    stage: StageWork
    kernel: KernelWork
    direction: Direction
    first: int
    last: int
    seconds: float
    streamed: float
    cycles: Cycles

    @property
    def total(self) -> float:
        """Seconds of all runs in a pass."""
        return (self.last - self.first) * self.seconds


def plan_streaming(
    works: tuple[StageWork, ...],
    job: Job,
    device: Device,
    reason: str,
    input_bytes: int,
    output_bytes: int,
    near: Near | None = None,
) -> Plan:
    """Return the streaming plan; `input_bytes` enter and `output_bytes` leave the wafer for one sequence.

    With `near` only what is like it is tried.

    Raises:
        TargetError: CG0601 where one sequence does not fit on the wafer.
    """
    search = Search(works, job, device)
    choice = search.best(near)
    if choice is None:
        raise _too_long(search, job, device)
    parts = tuple(_parts(search, works, job, device, choice))
    outside = job.batch * (input_bytes + (0 if job.purpose == "training" else output_bytes)) / device.off_wafer
    first = works[0].stage.streamed * job.number / device.off_wafer
    seconds = choice.seconds + first + outside
    layout = search.wafer.layouts[choice.layout]
    return Plan(
        job=job,
        device=device,
        mode="streaming",
        reason=reason,
        phases=tuple(_phases(works, parts, job, device, choice)),
        memory=(*_memory(search, job, choice, layout.cores), *code_figures(device)),
        time=_time(parts, choice, first, outside),
        seconds=seconds,
        bottleneck=_bottleneck(parts, choice, first + outside),
        policy=_policy(job, choice),
        at_once=choice.sequences,
        layout=layout,
        sweeps=tuple(_sweeps(works, parts)),
        passes=choice.passes,
        in_work=max(choice.slices),
    )


def _time(parts: tuple[_Part, ...], choice: Choice, first: float, outside: float) -> tuple[Figure, ...]:
    streaming = choice.passes * sum((part.last - part.first) * part.streamed for part in parts)
    busiest = max(choice.slices)
    return (
        Figure("sequences at once", choice.sequences, "sequences", "in a pass: what the SRAM has room for"),
        Figure("passes", choice.passes, "passes", "batch / sequences at once, rounded up"),
        Figure("in work", busiest, "sequences", "of those in one layer; its weights pass anew for each such slice"),
        Figure("streaming", streaming, "seconds", "weights past every layer as often as needed / off_wafer"),
        Figure(
            "layers",
            choice.seconds,
            "seconds",
            "sum over blocks of max(cycles / clock, weights, gradients / off_wafer)",
        ),
        Figure("first layer", first, "seconds", "its weight bytes / off_wafer: nothing to overlap with"),
        Figure("inputs and outputs", outside, "seconds", "their bytes / off_wafer; in training there are no outputs"),
        Figure("step", choice.seconds + first + outside, "seconds", "layers + first layer + inputs and outputs"),
    )


def _too_long(search: Search, job: Job, device: Device) -> TargetError:
    needed = search.least(1)
    over, capacity = needed - device.data, device.cores * device.data
    shown = f"{gigabytes(needed * device.cores)} on all cores, {needed:,.0f} B on the fullest"
    seq = max(1, int(job.seq * device.data / needed))
    return TargetError(
        "CG0601",
        f"one sequence of {job.seq} tokens does not fit even with the weights streamed: {shown}, {over:,.0f} B more "
        f"than the SRAM of a core of {device.name} ({device.data:,} B; {gigabytes(capacity)} in all)",
        f"`--seq {seq}` is about what fits, or a device with more memory or cores",
    )


def _parts(search: Search, works: tuple[StageWork, ...], job: Job, device: Device, choice: Choice) -> Iterator[_Part]:
    """Yield every block in every direction that it runs in."""
    for s, work in enumerate(works):
        for kernel in work.kernels:
            costs, scalars = search.costs(kernel, choice.slices[s]), streams(kernel)
            for direction, index, first, last in _directions(
                work, job, choice.stored[s], turns=s == len(works) - 1 and work.stage.runs == 1
            ):
                cycles = costs[index].cycles(choice.layout)
                streamed = scalars[index] * job.number / device.off_wafer
                # A pass has slices that are all full, or one that is not: it is counted as a part of one.
                slices = choice.sequences / choice.slices[s]
                seconds = slices * max(cycles.total / device.clock, streamed)
                if seconds:
                    each = cycles.scaled(1 / choice.slices[s])
                    yield _Part(work, kernel, direction, first, last, seconds, slices * streamed, each)


def _directions(
    work: StageWork, job: Job, stored: tuple[int, ...], *, turns: bool
) -> Iterator[tuple[Direction, int, int, int]]:
    """Yield (direction, index into `Search.costs`, first run, run after the last)."""
    runs = work.stage.runs
    yield "forward", 0, 0, runs
    if job.purpose != "training":
        return
    yield "backward", 1, 0, runs
    levels = stored or (runs,)
    # The first runs are those that store most. A last stage that runs once `turns` at once and makes nothing again.
    for level, (at_least, more) in enumerate(zip(levels, (*levels[1:], 0), strict=True)):
        if at_least > more and not turns:
            yield "again", 2 + level, more, at_least


def _phases(
    works: tuple[StageWork, ...], parts: tuple[_Part, ...], job: Job, device: Device, choice: Choice
) -> Iterator[Phase]:
    """Yield a phase for each block, which has the whole wafer to itself; its cycles are those of one sequence."""
    whole = sum(part.total for part in parts)
    area = Rectangle(0, 0, device.columns, device.rows)
    for s, work in enumerate(works):
        for kernel, block in zip(work.kernels, work.stage.kernels, strict=True):
            own = [part for part in parts if part.kernel is kernel]
            cycles = Cycles(0.0, 0.0, 0.0)
            for part in own:
                cycles = cycles.plus(part.cycles.scaled((part.last - part.first) / work.stage.runs))
            seconds = choice.seconds * sum(part.total for part in own) / whole
            held = (block.received + block.sent) * job.number * choice.slices[s]
            placed = Placed(block.path, work.stage.name, block, area, cycles, min(held, device.cores * device.memory))
            yield Phase(block.path, work.stage.runs, (placed,), seconds)


def _sweeps(works: tuple[StageWork, ...], parts: tuple[_Part, ...]) -> Iterator[Sweep]:
    """Yield what a pass does, stage by stage; blocks in the order in which they run."""
    for work in works:
        groups: dict[tuple[Direction, int, int], list[_Part]] = {}
        for part in parts:
            if part.stage is work:
                groups.setdefault((part.direction, part.first, part.last), []).append(part)
        for (direction, first, last), found in groups.items():
            blocks = tuple((part.kernel.path, part.seconds, part.streamed) for part in found)
            ordered = blocks[::-1] if direction == "backward" else blocks
            yield Sweep(work.stage.name, direction, first, last, work.stage.runs, ordered)


def _memory(search: Search, job: Job, choice: Choice, cores: int) -> tuple[Figure, ...]:
    """Return the bytes of all cores, each with as much as the fullest."""
    at = choice.layout
    stored = float(search.boundary(choice.sequences)[at])
    for s, runs in enumerate(choice.stored):
        if not runs:
            continue
        for level, (at_least, more) in enumerate(zip(runs, (*runs[1:], 0), strict=True)):
            stored += (at_least - more) * float(search.stored(s, level, choice.sequences)[at])
    in_work, passing = search.in_work(choice.slices, at)
    number = f"{job.number} B ({job.precision})"
    kept = (
        "what enters every layer, and more of it where there is room"
        if job.purpose == "training"
        else ("what enters and leaves a layer")
    )
    return (
        Figure("weights", 0, "bytes", "they pass through and are stored nowhere"),
        *(
            (
                Figure("gradients", 0, "bytes", "they leave as they are made, and are summed up outside"),
                Figure("optimizer", 0, "bytes", "outside, beside the weights"),
            )
            if job.purpose == "training"
            else ()
        ),
        Figure("activations", int(stored * cores), "bytes", f"sequences at once * {kept} * {number}"),
        Figure(
            "in work", int(in_work * cores), "bytes", f"sequences in work * tensors between a layer's blocks * {number}"
        ),
        Figure(
            "buffers", int(passing * cores), "bytes", "vectors, weights and sums on their way, one each way, each twice"
        ),
    )


def _bottleneck(parts: tuple[_Part, ...], choice: Choice, outside: float) -> Bottleneck:
    """Return what takes most of the step."""
    shares: dict[tuple[Resource, str], float] = {("off-wafer", ""): outside}
    for part in parts:
        streams_longer = part.seconds <= part.streamed
        key: tuple[Resource, str] = ("off-wafer", "") if streams_longer else (part.cycles.bound, part.kernel.path)
        shares[key] = shares.get(key, 0.0) + choice.passes * part.total
    resource, path = max(shares, key=lambda key: shares[key])
    return Bottleneck(resource, path)


def _policy(job: Job, choice: Choice) -> str:
    if job.purpose != "training":
        return "the wafer holds what enters and leaves a layer"
    text = "what enters a layer is stored, the rest is made again on the way back (recomputation)"
    if job.recompute:
        return f"{text}, as asked for"
    more = [runs[1:] for runs in choice.stored if len(runs) > 1]
    if not any(any(levels) for levels in more):
        return text
    counts = ", ".join(f"{sum(levels) / max(1, levels[0]):.1f} tensors" for levels in more if any(levels))
    layers = ", ".join(f"{levels[0]}" for levels in more if any(levels))
    return f"what enters a layer is stored; {layers} layers store on average {counts} more, the rest is made again"
