"""Pipelined (all of it resident) or streaming: which, and why; and what a better device would change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgc.ir.dims import evaluate
from cgc.ir.graph import Graph, Value
from cgc.ir.types import BYTES, is_float
from cgc.program import Device
from cgc.target import TargetError
from cgc_wse.decoding.planner import plan_decode
from cgc_wse.flatten import FlatStage, flatten
from cgc_wse.job import Job
from cgc_wse.kernels import Stage, stages_from
from cgc_wse.op_work import StageWork, stage_work, token_dims
from cgc_wse.pipeline.planner import NotResident, TooManyBlocks, plan_resident
from cgc_wse.plan import Plan, duration
from cgc_wse.streaming.planner import plan_streaming
from cgc_wse.streaming.search import Near


@dataclass(frozen=True, slots=True)
class Workload:
    """A job on a graph: its stages, and the bytes that enter and leave the wafer for one sequence.

    `flat` are the stages op by op, `works` the same as weight streaming sees them.
    """

    stages: tuple[Stage, ...]
    input_bytes: int
    output_bytes: int
    flat: tuple[FlatStage, ...]
    works: tuple[StageWork, ...]
    graph: Graph


@dataclass(frozen=True, slots=True)
class Lever:
    """A device twice as good in one respect, and how many times as fast a step is on it."""

    name: str
    speedup: float
    mode: str


def workload_of(graph: Graph, job: Job) -> Workload:
    """Return the work of `job` on `graph`.

    Raises:
        TargetError: CG0607 where there is none.
    """
    sizes = dict(job.sizes)

    def count(values: tuple[Value, ...]) -> int:
        return sum(
            evaluate(value.type.count, sizes) * (job.number if is_float(value.type.dtype) else BYTES[value.type.dtype])
            for value in values
        )

    flat = tuple(flatten(graph, sizes))
    if not flat:
        text = f"`{graph.name}` computes nothing: its outputs are inputs or parameters as they are"
        raise TargetError("CG0607", text, "give it an output that is computed")
    stages, dims = stages_from(flat), token_dims(graph)
    works = tuple(stage_work(one, stage, dims) for one, stage in zip(flat, stages, strict=True))
    return Workload(stages, count(graph.inputs), count(graph.body.results), flat, works, graph)


def plan(
    workload: Workload,
    job: Job,
    device: Device,
    run: str | None = None,
    *,
    hurry: bool = False,
    near: Near | None = None,
) -> Plan:
    """Return the plan of `job` on `device`: as `run` says (`pipelined`, `streaming`), else the faster of the two.

    In a `hurry` the placement of a pipeline is not searched for long; streaming is searched `near` a known choice.

    Raises:
        TargetError: it fits in neither way (CG0601), or not in the one asked for (CG0603, CG0655); as `plan_decode`.
    """

    def streaming(reason: str) -> Plan:
        return plan_streaming(workload.works, job, device, reason, workload.input_bytes, workload.output_bytes, near)

    if job.purpose == "decode":
        return plan_decode(workload.graph, job, device, run)
    if run == "streaming":
        return streaming("as asked for")
    try:
        sizes = workload.input_bytes, workload.output_bytes
        resident = plan_resident(workload.works, job, device, *sizes, hurry=hurry)
    except NotResident as why:
        if run == "pipelined":
            hint = (
                "`--run streaming` keeps weights outside; a smaller `--seq` keeps less, in training `--recompute` too"
            )
            code = "CG0603" if isinstance(why, TooManyBlocks) else "CG0655"
            raise TargetError(code, f"the pipeline does not fit: {why}", hint) from why
        return streaming(f"resident does not fit: {why}")
    if run == "pipelined":
        return replace(resident, reason=f"as asked for; {resident.reason}")
    try:
        other = streaming("")
    except TargetError:
        return replace(resident, reason=f"{resident.reason}; streaming does not fit")
    times = f"{duration(resident.seconds)} a step resident, {duration(other.seconds)} streaming"
    if other.seconds < resident.seconds:
        return replace(other, reason=f"it is faster: {times}")
    return replace(resident, reason=f"{resident.reason}, and it is faster: {times}")


def levers(workload: Workload, job: Job, main: Plan, run: str | None = None) -> tuple[Lever, ...]:
    """Return what doubling each figure of the device of a plan does to the time of a step, all else equal.

    Pipelines are placed in a hurry, the plan's own too, and streaming is searched near the plan. The other way to run
    is tried where what is doubled is what it lacks.
    """
    device = main.device
    seconds = main.seconds
    near, own, lacking = None, "pipelined", {"off_wafer", "memory"}
    if main.mode == "streaming":
        near, own, lacking = Near(main.at_once, main.in_work), "streaming", {"memory", "rows"}
    if main.mode == "resident":
        seconds = plan(workload, job, device, run, hurry=True).seconds
    better = {
        "multiply_adds": replace(device, multiply_adds=2 * device.multiply_adds),
        "read and write": replace(device, read=2 * device.read, write=2 * device.write),
        "link": replace(device, link=2 * device.link),
        "off_wafer": replace(device, off_wafer=2 * device.off_wafer),
        "memory": replace(device, memory=2 * device.memory),
        "rows": replace(device, rows=2 * device.rows),
    }
    plans = {
        name: plan(
            workload,
            job,
            changed,
            run if run or name in lacking or job.purpose == "decode" else own,
            hurry=True,
            near=near,
        )
        for name, changed in better.items()
    }
    return tuple(Lever(name, seconds / other.seconds, other.mode) for name, other in plans.items())
