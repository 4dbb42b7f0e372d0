"""What no plan can beat: a lower bound on the time of a step, for each way to run. It holds under the model's own
costs.

Resident: every block needs cores for its work, its starts, its memory and its border, in some rectangle of whole tiles
(`block_cost.unavoidable_times`); all together have those of the wafer, whatever their rectangles and their order. Ways
take nothing, nor do sums over a side beside their additions, nor buffers. Streaming: one layout for all layers, any
passes and slices, whatever is stored where it fits. Decoding: `decoding.bound`. The link off the wafer is counted in
all three.
"""

from __future__ import annotations

from dataclasses import dataclass

from cgc_wse.decoding.bound import least_resident, least_streaming
from cgc_wse.decoding.planner import least_layers
from cgc_wse.job import GRADIENT_BYTES
from cgc_wse.mode import Workload
from cgc_wse.pipeline.block_cost import unavoidable_times
from cgc_wse.pipeline.block_times import TimedBlock, Way
from cgc_wse.pipeline.planner import passing_of
from cgc_wse.place.blocks import least_cycles
from cgc_wse.plan import Plan
from cgc_wse.streaming.bound import least_seconds
from cgc_wse.streaming.search import Search


@dataclass(frozen=True, slots=True)
class Bound:
    """No plan of the kind that `formula` describes takes fewer than `seconds` for a step."""

    seconds: float
    formula: str

    def gap(self, plan: Plan) -> float:
        """Return by what part a plan's step is longer: 0 is the best there can be."""
        return plan.seconds / self.seconds - 1


def bound_of(plan: Plan, workload: Workload) -> Bound:
    """Return the bound on plans of the same job, device and mode."""
    if plan.job.purpose == "decode":
        return _decoding(plan, workload)
    return _resident(plan, workload) if plan.mode == "resident" else _streaming(plan, workload)


def _figure(plan: Plan, name: str) -> float:
    """Return a part of the time of a step; 0 where it has none of that name."""
    return next((figure.value for figure in plan.time if figure.name == name), 0.0)


def _resident(plan: Plan, workload: Workload) -> Bound:
    job, device = plan.job, plan.device
    placed = [one for phase in plan.phases for one in phase.placed]
    works = {work.path: work for stage in workload.works for work in stage.kernels}
    passing = {one.kernel.path: passing_of(one.kernel, works[one.kernel.path], job, device) for one in placed}
    known = {one: unavoidable_times(one, device, job.precision, job.seq) for one in dict.fromkeys(passing.values())}
    blocks = [
        TimedBlock((Way(known[passing[one.kernel.path]], 0, max(1, -(-one.bytes // device.data))),)) for one in placed
    ]
    turns = job.batch + plan.depth - 1
    pipeline = turns * least_cycles(blocks, device.columns, device.rows) / device.clock
    # The link, and what of the optimizer and the exchange of gradients no placement changes.
    rest = _figure(plan, "gradients")
    if job.purpose == "training":
        state = job.number + GRADIENT_BYTES + job.optimizer_state
        read = sum(one.kernel.parameters for one in placed) * state
        rest += read / (device.read * device.cores * device.clock)
    text = "work in whole tiles, starts, memory and borders of all blocks on the cores there are, in any rectangles, "
    return Bound(max(pipeline, _figure(plan, "off-wafer")) + rest, text + "nothing having a way to go; the link")


def _streaming(plan: Plan, workload: Workload) -> Bound:
    search = Search(workload.works, plan.job, plan.device)
    rest = _figure(plan, "first layer") + _figure(plan, "inputs and outputs")
    text = "any one layout, any passes and slices, whatever is stored where it fits; the link"
    return Bound(least_seconds(search, plan.job.batch) + rest, text)


def _decoding(plan: Plan, workload: Workload) -> Bound:
    job, device = plan.job, plan.device
    layers = least_layers(workload.graph, job, device, resident=plan.mode == "resident")
    if plan.mode == "resident":
        text = "even parts, starts, and sums along a side by any algorithm, on squares of any sides that hold them"
        return Bound(least_resident(layers, job.batch, device), text)
    text = "even parts, starts, and sums along a side by any algorithm, on a square of any side; the link"
    return Bound(least_streaming(layers, job.batch, device), text)
