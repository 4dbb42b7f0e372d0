"""Resident or streaming: which, and why; and what a better device would change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgc.ir.dims import evaluate
from cgc.ir.graph import Graph, Value
from cgc.ir.types import BYTES, is_float
from cgc.program import Device
from cgc.target import TargetError
from cgc_wse.job import Job
from cgc_wse.kernels import Stage, stages_of
from cgc_wse.plan import Plan
from cgc_wse.resident import NotResident, plan_resident
from cgc_wse.streaming import plan_streaming


@dataclass(frozen=True, slots=True)
class Workload:
    """A job on a graph: its stages, and the bytes that enter and leave the wafer for one sequence."""

    stages: tuple[Stage, ...]
    input_bytes: int
    output_bytes: int


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

    stages = stages_of(graph, sizes)
    if not stages:
        text = f"`{graph.name}` computes nothing: its outputs are inputs or parameters as they are"
        raise TargetError("CG0607", text, "give it an output that is computed")
    return Workload(stages, count(graph.inputs), count(graph.body.results))


def plan(workload: Workload, job: Job, device: Device) -> Plan:
    """Return the plan of `job` on `device`: resident where everything fits on the wafer, else streaming.

    Raises:
        TargetError: it fits in neither way.
    """
    try:
        return plan_resident(workload.stages, job, device, workload.input_bytes, workload.output_bytes)
    except NotResident as why:
        reason = f"resident does not fit: {why}"
    return plan_streaming(workload.stages, job, device, reason, workload.input_bytes, workload.output_bytes)


def levers(workload: Workload, job: Job, device: Device, seconds: float) -> tuple[Lever, ...]:
    """Return what doubling each figure of the device does to the time of a step, all else equal."""
    better = {
        "multiply_adds": replace(device, multiply_adds=2 * device.multiply_adds),
        "read and write": replace(device, read=2 * device.read, write=2 * device.write),
        "link": replace(device, link=2 * device.link),
        "off_wafer": replace(device, off_wafer=2 * device.off_wafer),
        "memory": replace(device, memory=2 * device.memory),
        "rows": replace(device, rows=2 * device.rows),
    }
    plans = {name: plan(workload, job, changed) for name, changed in better.items()}
    return tuple(Lever(name, seconds / other.seconds, other.mode) for name, other in plans.items())
