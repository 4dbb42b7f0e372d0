"""Plans as JSON-able data: what `--format json` prints, and `placement.json` (`placement.schema.json` describes it)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cgc.program import Device, Program
from cgc.version import VERSION
from cgc_wse.bounds import Bound
from cgc_wse.cost import Cycles, formulas, peak_flops
from cgc_wse.kernels import Work
from cgc_wse.mode import Lever
from cgc_wse.place.geometry import Rectangle
from cgc_wse.plan import Figure, Placed, Plan

FORMAT = "cgc-placement"
FORMAT_VERSION = 1
OVERLAP = {
    "decode": "nothing inside a square of cores; squares work on different sequences, and weights stream while ops run",
    "resident": "compute, SRAM and fabric of a block overlap completely, blocks run side by side, and what crosses the "
    "link off the wafer overlaps with all of it",
    "streaming": "compute, SRAM and fabric of a block overlap completely, weights and gradients cross the link while "
    "their block computes; blocks follow one another; the first layer's weights and all inputs overlap with nothing",
}
"""What is taken to happen at the same time."""


def placement_json(program: Program, plan: Plan, bound: Bound) -> str:
    """Return the text of `placement.json`: where every block is, on what device, for what job."""
    data = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "cgc": VERSION,
        "model": program.name,
        "file": program.file,
        "device": device_data(plan.device),
        "mode": plan.mode,
        "job": job_data(plan),
        "seconds_per_step": plan.seconds,
        "bound": bound_data(plan, bound),
        "layout": layout_data(plan),
        "passes": plan.passes,
        "memory": [_figure(figure) for figure in plan.memory],
        "phases": [
            {
                "name": phase.name,
                "runs": phase.runs,
                "seconds": phase.seconds,
                "blocks": [_placed_data(placed) for placed in phase.placed],
            }
            for phase in plan.phases
        ],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _placed_data(placed: Placed) -> dict[str, Any]:
    area, kernel = placed.area, placed.kernel
    return {
        "path": placed.path,
        "layer": placed.layer,
        "kind": kernel.kind,
        "library": kernel.library,
        "x": area.x,
        "y": area.y,
        "width": area.width,
        "height": area.height,
        "cores": area.cores,
        "parameters": kernel.parameters,
        "bytes": placed.bytes,
        "cycles": cycles_data(placed.cycles),
        "bound": placed.cycles.bound,
    }


def bound_data(plan: Plan, bound: Bound) -> dict[str, Any]:
    """Return what no plan of this mode can beat, and by what part this one is longer."""
    return {"seconds_per_step": bound.seconds, "gap": bound.gap(plan), "formula": bound.formula}


def device_data(device: Device) -> dict[str, Any]:
    """Return a device's figures; bytes, hertz, bytes per second and cycles."""
    return {
        "name": device.name,
        "columns": device.columns,
        "rows": device.rows,
        "cores": device.cores,
        "memory": device.memory,
        "clock": device.clock,
        "multiply_adds": device.multiply_adds,
        "read": device.read,
        "write": device.write,
        "link": device.link,
        "hop": device.hop,
        "colors": device.colors,
        "off_wafer": device.off_wafer,
        "power": device.power,
        "code": device.code,
        "task": device.task,
        "loop": device.loop,
        "vector": device.vector,
        "shift": device.shift,
        "ramp": device.ramp,
        "relay": device.relay,
        "queue": device.queue,
    }


def job_data(plan: Plan) -> dict[str, Any]:
    """Return what is run."""
    job = plan.job
    return {
        "purpose": job.purpose,
        "batch": job.sequences,
        "seq": job.seq,
        "precision": job.precision,
        "wafers": job.wafers,
        "recompute": job.recompute,
    }


def layout_data(plan: Plan) -> dict[str, Any] | None:
    """Return how weight streaming cuts tensors; None where blocks have rectangles of their own."""
    cut = plan.layout
    if cut is None:
        return None
    return {"features": cut.features, "tokens": cut.tokens, "along": cut.along, "cores": cut.cores, "text": cut.text()}


def cycles_data(cycles: Cycles) -> dict[str, float]:
    """Return the cycles of a block for one sequence of a step."""
    return {"total": cycles.total, "compute": cycles.compute, "sram": cycles.sram, "fabric": cycles.fabric}


def plan_data(plan: Plan, flops: int, bound: Bound) -> dict[str, Any]:
    """Return a plan without its rectangles; `flops` are those of one step, for the utilization."""
    limit = plan.bottleneck
    return {
        **job_data(plan),
        "mode": plan.mode,
        "reason": plan.reason,
        "policy": plan.policy,
        "tokens_per_step": plan.job.tokens,
        "sequences_at_once": plan.at_once,
        "flops_per_step": flops,
        "seconds_per_step": plan.seconds,
        "bound": bound_data(plan, bound),
        "tokens_per_second": plan.tokens_per_second,
        "utilization": flops / (plan.seconds * peak_flops(plan.device) * plan.job.wafers),
        "bottleneck": {"resource": limit.resource, "path": limit.path},
        "memory": [_figure(figure) for figure in plan.memory],
        "memory_total": plan.bytes,
        "memory_capacity": plan.device.cores * plan.device.memory,
        "memory_fullest_core": fullest_core(plan),
        "time": [_figure(figure) for figure in plan.time],
        "blocks": block_rows(plan),
        "block_formulas": formulas(plan.mode, plan.job.purpose),
        "overlap": OVERLAP["decode" if plan.job.purpose == "decode" else plan.mode],
        "layout": layout_data(plan),
        "sequences_in_work": plan.in_work,
    }


def fullest_core(plan: Plan) -> int:
    """Return the bytes of the core that holds most; what a block holds is spread evenly over its rectangle."""
    code = plan.device.code
    placed = [each for phase in plan.phases for each in phase.placed]
    if plan.mode == "streaming":  # all layers on the same cores, which also hold what the others keep
        cores = plan.layout.cores if plan.layout is not None else min(each.area.cores for each in placed)
        return code + -(-(plan.bytes - code * plan.device.cores) // cores)
    held: dict[Rectangle, int] = {}
    for each in placed:
        part = -(-each.bytes // each.area.cores) + each.room
        held[each.area] = held.get(each.area, 0) + part
    return code + max(held.values())


def _figure(figure: Figure) -> dict[str, Any]:
    return {"name": figure.name, "value": figure.value, "unit": figure.unit, "formula": figure.formula}


def lever_data(levers: tuple[Lever, ...]) -> list[dict[str, Any]]:
    """Return what doubling each figure of the device would do."""
    return [{"double": lever.name, "speedup": lever.speedup, "mode": lever.mode} for lever in levers]


def block_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return one row for each block of the model, the layers of a `repeat` together; cycles are the slowest layer's."""
    rows: dict[tuple[str, str], list[Placed]] = {}
    for phase in plan.phases:
        for placed in phase.placed:
            rows.setdefault((phase.name, placed.kernel.path), []).append(placed)
    runs = {phase.name: phase.runs for phase in plan.phases}
    return [_block_row(path, found, runs[name] * len(found)) for (name, path), found in rows.items()]


def _block_row(path: str, found: list[Placed], layers: int) -> dict[str, Any]:
    slowest = max(found, key=lambda placed: placed.cycles.total)
    return {
        "path": path,
        "kind": slowest.kernel.kind,
        "layers": layers,
        "parameters": slowest.kernel.parameters * layers,
        "cores_least": min(placed.area.cores for placed in found),
        "cores_most": max(placed.area.cores for placed in found),
        "work": _work_data(slowest.kernel.forward),
        "cycles": cycles_data(slowest.cycles),
        "bound": slowest.cycles.bound,
    }


def _work_data(work: Work) -> Mapping[str, int]:
    return {"multiply_adds": work.macs, "other_operations": work.operations}
