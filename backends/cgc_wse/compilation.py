"""Everything the target makes of a program, in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cgc.analysis.flops import forward_work, training_flops
from cgc.program import Device, Program
from cgc.services import BlockCost, StepTime
from cgc.target import CompileOptions, TargetError
from cgc_wse.bounds import bound_of
from cgc_wse.cluster import counts_to_compare, energy_data, run_data, scaling_data
from cgc_wse.cost import peak_flops
from cgc_wse.data import block_rows, device_data, lever_data, placement_json, plan_data
from cgc_wse.job import Job, Purpose, job_of, other_purpose
from cgc_wse.ledger import tensor_rows
from cgc_wse.mode import Workload, levers, plan, workload_of
from cgc_wse.picture import picture
from cgc_wse.plan import Plan
from cgc_wse.report import not_modelled, report
from cgc_wse.trace import trace_json
from cgc_wse.viewer.page import viewer_html

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class WaferResult:
    """The texts of the files by name, the report, and the report as data."""

    files: Mapping[str, str]
    report: RenderableType
    data: Mapping[str, Any]


def compile_for_wafer(program: Program, device: Device, options: CompileOptions) -> WaferResult:
    """Plan `program` on `device` and describe the plan.

    Raises:
        TargetError: it does not fit, or a size is wrong.
    """
    job = job_of(program, options)
    workload = workload_of(program.graph, job)
    main = plan(workload, job, device, options.run)
    flops = _flops(program, job)
    bound = bound_of(main, workload)
    plans = {job.purpose: plan_data(main, flops[job.purpose], bound)}
    if options.mode is None:
        plans |= _other(workload, other_purpose(job), device, flops)
    run = run_data(program, main) if job.purpose == "training" else None
    data: dict[str, Any] = {
        "model": program.name,
        "file": program.file,
        "device": device_data(device),
        "peak_flops": peak_flops(device) * job.wafers,
        "parameters": program.graph.parameter_count,
        "flops": {
            "forward": flops["forward"],
            "training": flops["training"],
            "decode": flops["decode"],
            "forward_formula": "2 * multiply-adds of all dots of a step, masked scores too",
            "training_formula": "3 * forward: two more dots for the gradients of each; nothing made again",
            "decode_formula": "forward / seq: one token for each sequence",
        },
        "primary": job.purpose,
        "plans": plans,
        "run": run,
        "energy": energy_data(main, run["seconds"] if run else None),
        "cluster": _cluster(workload, main, options.run),
        "tensors": tensor_rows(workload, main),
        "levers": lever_data(levers(workload, job, main, options.run)),
        "not_modelled": list(not_modelled(main.mode, job.purpose)),
    }
    files = {
        "placement.json": placement_json(program, main, bound),
        "placement.svg": picture(main, program.name),
        "viewer.html": viewer_html(program.name, main, data),
        "trace.json": trace_json(program.name, main),
    }
    return WaferResult(files, report(data), data)


def block_costs(program: Program, device: Device, options: CompileOptions) -> list[BlockCost]:
    """Return what each block costs in a step (errors as `compile_for_wafer`)."""
    job = job_of(program, options)
    found = plan(workload_of(program.graph, job), job, device, options.run)
    rows = block_rows(found)
    # Cycles of a pipeline are those of one run's rectangle: what counts there is cores times cycles.
    work = [row["cycles"]["total"] * row["layers"] * row["cores_most"] for row in rows]
    whole = sum(work) or 1.0
    return [
        BlockCost(
            row["path"],
            row["layers"],
            row["work"]["multiply_adds"] * row["layers"],
            row["parameters"],
            one / whole,
            row["cores_most"],
            row["bound"],
        )
        for row, one in zip(rows, work, strict=True)
    ]


def training_step(program: Program, device: Device, options: CompileOptions) -> StepTime:
    """Return the time of a training step (TargetError: it does not fit on `device`, or a size is wrong)."""
    job = job_of(program, options)
    job = job if job.purpose == "training" else other_purpose(job)
    found = plan(workload_of(program.graph, job), job, device, options.run)
    return StepTime(found.seconds, device.name, found.mode)


def _flops(program: Program, job: Job) -> dict[str, int]:
    sizes = {**dict(job.sizes), "batch": job.sequences}
    matmul, _ = forward_work(program.graph).at(sizes)
    return {
        "forward": matmul,
        "training": training_flops(program.graph, sizes),
        "decode": matmul // max(1, job.seq),
    }


def _other(workload: Workload, job: Job, device: Device, flops: Mapping[str, int]) -> dict[Purpose, Any]:
    """Return the plan for the other purpose, or why there is none; it is shown beside, and placed in a hurry."""
    try:
        other = plan(workload, job, device, hurry=True)
        return {job.purpose: plan_data(other, flops[job.purpose], bound_of(other, workload))}
    except TargetError as error:
        return {job.purpose: {"purpose": job.purpose, "error": str(error), "code": error.code}}


def _cluster(workload: Workload, main: Plan, run: str | None) -> dict[str, Any] | None:
    """Return how the job scales, where more than one wafer was asked for."""
    job = main.job
    if job.wafers == 1:
        return None
    counts = counts_to_compare(job.wafers, job.sequences)
    plans = {n: main if n == job.wafers else plan(workload, job.on(n), main.device, run) for n in counts}
    return scaling_data(plans)
