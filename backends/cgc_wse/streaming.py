"""Weight streaming: one layer after another has the whole wafer, its weights stream in, its gradients stream out.

While a layer is on the wafer its blocks share the cores in proportion to their work, every sequence of the pass flows
through them, and the next layer's weights arrive. A pass takes as many sequences as the SRAM has room for; a step takes
as many passes as its batch needs. In training the wafer keeps, for each sequence of a pass, either what every block
received, or only what entered each layer, and then runs each layer forward once more on the way back: the faster of the
two is taken. The optimizer and the weights live outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from cgc.program import Device
from cgc.target import TargetError
from cgc_wse.cost import Resource, core_cycles, kernel_cycles
from cgc_wse.job import GRADIENT_BYTES, Job
from cgc_wse.kernels import Kernel, Stage, Work
from cgc_wse.placement import Rectangle
from cgc_wse.plan import Bottleneck, Figure, Phase, Placed, Plan, gigabytes
from cgc_wse.sizing import Demand, size_and_place

IN_WORK = 2
"""Sequences in work inside a layer at one time: one in its blocks, one on its way between them."""


@dataclass(frozen=True, slots=True)
class _Policy:
    """What is kept: `per_sequence` elements of each sequence; whether a layer runs forward again on the way back."""

    text: str
    per_sequence: int
    again: bool


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One stage going forward or back: cycles for one sequence and where, bytes streamed in or out of one run."""

    stage: Stage
    cycles: float
    path: str
    bound: Resource
    streamed: float


def plan_streaming(
    stages: tuple[Stage, ...], job: Job, device: Device, reason: str, input_bytes: int, output_bytes: int
) -> Plan:
    """Return the streaming plan; `input_bytes` enter and `output_bytes` leave the wafer for one sequence.

    Raises:
        TargetError: CG0601 where one sequence does not fit beside the weights of a layer, CG0602 where the weights of
            two layers do not fit, or those of a block in no rectangle, CG0603 where a layer has more blocks than the
            wafer has cores.
    """
    fixed = _fixed(stages, job)
    capacity = device.cores * device.memory
    held = int(sum(figure.value for figure in fixed))
    if held > capacity:
        raise TargetError(
            "CG0602",
            f"streaming does not fit either: the weights of two layers and what is in work take {gigabytes(held)}, "
            f"{gigabytes(held - capacity)} more than the SRAM of {device.name} ({gigabytes(capacity)})",
            "a smaller width, a shorter `--seq`, or a device with more memory or cores",
        )
    outside = input_bytes + (0 if job.purpose == "training" else output_bytes)
    plans = [
        _plan(stages, policy, fixed, job, device, reason, outside)
        for policy in _policies(stages, job)
        if held + policy.per_sequence * job.number <= capacity
    ]
    if not plans:
        raise _too_long(stages, job, device, held, capacity)
    return min(plans, key=lambda plan: plan.seconds)


def _too_long(stages: tuple[Stage, ...], job: Job, device: Device, held: int, capacity: int) -> TargetError:
    one = min(policy.per_sequence for policy in _policies(stages, job)) * job.number
    over = held + one - capacity
    weights = 2 * max(stage.streamed for stage in stages) * job.number
    room, varying = capacity - weights, held - weights + one
    hint = "a device with more memory or cores"
    if room > 0 and varying > 0:
        hint = f"`--seq {max(1, int(job.seq * room / varying))}` is about what fits, or {hint}"
    return TargetError(
        "CG0601",
        f"one sequence of {job.seq} tokens does not fit beside the weights of a layer: {gigabytes(one)} of activations "
        f"and {gigabytes(held)} in work, {gigabytes(over)} more than the SRAM of {device.name} ({gigabytes(capacity)})",
        hint,
    )


def _policies(stages: tuple[Stage, ...], job: Job) -> list[_Policy]:
    if job.purpose == "forward":
        widest = max(stage.entering for stage in stages)
        return [_Policy("the wafer holds what enters and leaves a layer", 2 * widest, again=False)]
    everything = sum(stage.runs * stage.kept for stage in stages)
    inputs = sum(stage.runs * stage.entering for stage in stages)
    return [
        _Policy("every block keeps what it received for its backward pass", everything, again=False),
        _Policy("only what enters a layer is kept; each layer runs forward again on the way back", inputs, again=True),
    ]


def _fixed(stages: tuple[Stage, ...], job: Job) -> tuple[Figure, ...]:
    """Return the bytes that do not depend on how many sequences are on the wafer."""
    largest = max(stage.streamed for stage in stages)
    training = job.purpose == "training"
    work = IN_WORK * max(stage.kept if training else stage.held for stage in stages) * job.number
    number = f"{job.number} B ({job.precision})"
    weights = Figure("weights", 2 * largest * job.number, "bytes", f"2 * parameters of the largest layer * {number}")
    what = "what a layer's blocks keep" if training else "what a layer's blocks that sum over positions receive"
    in_work = Figure("in work", work, "bytes", f"{IN_WORK} sequences * {what} * {number}")
    if not training:
        return weights, in_work
    each = GRADIENT_BYTES + job.number
    formula = f"parameters of the largest layer * ({GRADIENT_BYTES} B of sums + {job.number} B leaving)"
    gradients = Figure("gradients", largest * each, "bytes", formula)
    return weights, gradients, Figure("optimizer", 0, "bytes", "outside, beside the weights"), in_work


def _areas(stage: Stage, policy: _Policy, job: Job, device: Device) -> list[Rectangle]:
    if len(stage.kernels) > device.cores:
        raise TargetError(
            "CG0603",
            f"`{stage.name}` has {len(stage.kernels)} blocks, {device.name} has {device.cores} cores",
            "every block gets a core of its own: use a larger device",
        )

    def demand(kernel: Kernel) -> Demand:
        work, crossings = _step(kernel, policy, job)
        alone = max(core_cycles(work, device, job.number))
        least = max(1, -(-kernel.parameters * job.number // device.memory))
        return Demand(alone, least, lambda area: kernel_cycles(kernel, work, crossings, area, device, job.number))

    demands = [demand(kernel) for kernel in stage.kernels]
    areas = size_and_place([demands], Rectangle(0, 0, device.columns, device.rows))
    if areas is None:
        raise TargetError(
            "CG0602",
            f"the blocks of `{stage.name}` need {sum(one.least for one in demands):,} of the {device.cores:,} cores of "
            f"{device.name} for their weights, and no placement in whole rectangles was found that gives each enough",
            "a smaller width, or a device with more memory or cores",
        )
    return areas


def _step(kernel: Kernel, policy: _Policy, job: Job) -> tuple[Work, int]:
    """Return a kernel's work for one sequence of a step, and how often its border is crossed."""
    if job.purpose == "forward":
        return kernel.forward, 1
    return (kernel.training + kernel.forward, 3) if policy.again else (kernel.training, 2)


def _sweep(stage: Stage, areas: list[Rectangle], job: Job, device: Device, *, back: bool, again: bool) -> _Sweep:
    """Return what one run of a stage costs in one direction."""
    best = _Sweep(stage, 0.0, "", "compute", stage.streamed * job.number)
    for kernel, area in zip(stage.kernels, areas, strict=True):
        work, crossings = kernel.forward, 1
        if back:
            work = kernel.remade + kernel.backward + (kernel.forward if again else Work())
            crossings = 1 + again
        cycles = kernel_cycles(kernel, work, crossings, area, device, job.number)
        if cycles.total > best.cycles or not best.path:
            best = _Sweep(stage, cycles.total, kernel.path, cycles.bound, best.streamed)
    return best


def _plan(
    stages: tuple[Stage, ...],
    policy: _Policy,
    fixed: tuple[Figure, ...],
    job: Job,
    device: Device,
    reason: str,
    outside: int,
) -> Plan:
    areas = [_areas(stage, policy, job, device) for stage in stages]
    capacity = device.cores * device.memory
    held = sum(figure.value for figure in fixed)
    each = policy.per_sequence * job.number
    fits = int((capacity - held) // each) if each else job.batch
    passes = -(-job.batch // min(fits, job.batch))
    at_once = -(-job.batch // passes)
    training = job.purpose == "training"
    sweeps = [_sweep(s, a, job, device, back=False, again=False) for s, a in zip(stages, areas, strict=True)]
    if training:
        sweeps += [_sweep(s, a, job, device, back=True, again=policy.again) for s, a in zip(stages, areas, strict=True)]
    # All passes are full but the last, which takes what is left.
    counts = [at_once] * (passes - 1) + [job.batch - at_once * (passes - 1)]
    busy = {
        stage.name: sum(_seconds(w, n, device) for w in sweeps if w.stage is stage for n in counts) for stage in stages
    }
    first = stages[0].streamed * job.number / device.off_wafer
    tokens = job.batch * outside / device.off_wafer
    seconds = sum(busy.values()) + first + tokens
    one = sum(w.stage.runs * w.cycles for w in sweeps) / device.clock
    stream = sum(w.stage.runs * w.streamed for w in sweeps) / device.off_wafer
    time = (
        Figure("one sequence", one, "seconds", "sum over layers and directions of cycles of the slowest block / clock"),
        Figure(
            "streaming", stream, "seconds", f"weight bytes of all layers{', twice,' if training else ''} / off_wafer"
        ),
        Figure(
            "sequences at once", at_once, "sequences", "SRAM left / activations of one sequence, spread over the passes"
        ),
        Figure("passes", passes, "passes", "batch / sequences at once, rounded up"),
        Figure("layers", sum(busy.values()), "seconds", "sum over layers of max(sequences * one sequence, streaming)"),
        Figure("first layer", first, "seconds", "its weight bytes / off_wafer: nothing to overlap with"),
        Figure("inputs and outputs", tokens, "seconds", f"bytes of {'inputs' if training else 'both'} / off_wafer"),
        Figure("step", seconds, "seconds", "layers + first layer + inputs and outputs"),
    )
    formula = f"sequences at once * {'elements kept' if training else 'elements'} * {job.number} B ({job.precision})"
    memory = (*fixed, Figure("activations", at_once * each, "bytes", formula))
    phases = tuple(
        _phase(stage, area, policy, job, device, busy[stage.name]) for stage, area in zip(stages, areas, strict=True)
    )
    bottleneck = _bottleneck(sweeps, counts, device, first + tokens)
    return Plan(job, device, "streaming", reason, phases, memory, time, seconds, bottleneck, policy.text, at_once)


def _seconds(sweep: _Sweep, sequences: int, device: Device) -> float:
    """Return the time of all runs of a stage in one direction: compute and streaming overlap, in and out as well."""
    return sweep.stage.runs * max(sequences * sweep.cycles / device.clock, sweep.streamed / device.off_wafer)


def _bottleneck(sweeps: list[_Sweep], counts: list[int], device: Device, outside: float) -> Bottleneck:
    """Return what takes most of the step."""
    shares: dict[tuple[Resource, str], float] = {("off-wafer", ""): outside}
    for sweep in sweeps:
        for n in counts:
            streams = sweep.streamed / device.off_wafer > n * sweep.cycles / device.clock
            key: tuple[Resource, str] = ("off-wafer", "") if streams else (sweep.bound, sweep.path)
            shares[key] = shares.get(key, 0.0) + _seconds(sweep, n, device)
    resource, path = max(shares, key=lambda key: shares[key])
    return Bottleneck(resource, path)


def _phase(stage: Stage, areas: list[Rectangle], policy: _Policy, job: Job, device: Device, seconds: float) -> Phase:
    placed = []
    for kernel, area in zip(stage.kernels, areas, strict=True):
        work, crossings = _step(kernel, policy, job)
        cycles = kernel_cycles(kernel, work, crossings, area, device, job.number)
        placed.append(Placed(kernel.path, stage.name, kernel, area, cycles, kernel.parameters * job.number))
    return Phase(stage.name, stage.runs, tuple(placed), seconds)
