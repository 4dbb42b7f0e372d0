"""Everything the target makes of a program, in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cgc.analysis.flops import forward_work, training_flops
from cgc.program import Device, Program
from cgc.target import CompileOptions, StepTime, TargetError
from cgc_wse.cost import peak_flops
from cgc_wse.data import device_data, lever_data, placement_json, plan_data
from cgc_wse.job import Job, job_of, other_purpose
from cgc_wse.mode import levers, plan, workload_of
from cgc_wse.picture import picture
from cgc_wse.report import NOT_MODELLED, report

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class WaferResult:
    """The texts of the files, the report, and the report as data."""

    placement: str
    picture: str
    report: RenderableType
    data: Mapping[str, Any]


def compile_for_wafer(program: Program, device: Device, options: CompileOptions) -> WaferResult:
    """Plan `program` on `device` and describe the plan.

    Raises:
        TargetError: it does not fit, or a size is wrong.
    """
    job = job_of(program, options)
    workload = workload_of(program.graph, job)
    main = plan(workload, job, device)
    flops = _flops(program, job)
    other = other_purpose(job)
    try:
        other_data: dict[str, Any] = plan_data(plan(workload, other, device), flops[other.purpose])
    except TargetError as error:
        other_data = {"error": str(error), "code": error.code}
    data: dict[str, Any] = {
        "model": program.name,
        "file": program.file,
        "device": device_data(device),
        "peak_flops": peak_flops(device),
        "parameters": program.graph.parameter_count,
        "flops": {
            "forward": flops["forward"],
            "training": flops["training"],
            "forward_formula": "2 * multiply-adds of all dots of a step, masked scores too",
            "training_formula": "3 * forward: two more dots for the gradients of each; nothing made again",
        },
        "primary": job.purpose,
        "plans": {job.purpose: plan_data(main, flops[job.purpose]), other.purpose: other_data},
        "levers": lever_data(levers(workload, job, device, main.seconds)),
        "not_modelled": list(NOT_MODELLED),
    }
    return WaferResult(placement_json(program, main), picture(main, program.name), report(data), data)


def training_step(program: Program, device: Device, options: CompileOptions) -> StepTime:
    """Return the time of a training step (TargetError: it does not fit on `device`, or a size is wrong)."""
    job = job_of(program, options)
    job = job if job.purpose == "training" else other_purpose(job)
    found = plan(workload_of(program.graph, job), job, device)
    return StepTime(found.seconds, device.name, found.mode)


def _flops(program: Program, job: Job) -> dict[str, int]:
    sizes = {**dict(job.sizes), "batch": job.batch}
    matmul, _ = forward_work(program.graph).at(sizes)
    return {"forward": matmul, "training": training_flops(program.graph, sizes)}
