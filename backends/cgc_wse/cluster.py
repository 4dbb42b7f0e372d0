"""Many wafers, a whole training run, and energy: what a plan means beyond one step on one wafer.

Data parallel: every wafer has a part of the batch, the same weights go to all of them (SwarmX broadcasts what MemoryX
holds), and their gradients are summed on the way back, so that a wafer's link carries the same bytes whatever their
number. What shrinks is each wafer's batch, and with it how long it computes while weights pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from cgc.ir.dims import evaluate
from cgc.program import Program
from cgc_wse.job import Job
from cgc_wse.plan import Plan

CHINCHILLA = 20
"""Tokens per parameter at the least loss for a given compute (Hoffmann et al. 2022, arXiv 2203.15556)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens to train on, and where the number comes from."""

    tokens: float
    source: str


def parameters(program: Program) -> int:
    """Return the number of trained scalars."""
    return evaluate(program.graph.parameter_count, {})


def budget_of(program: Program, job: Job) -> Budget:
    """Return the tokens that the `train` item asks for, or the compute-optimal number where it names none."""
    train, params = program.train, parameters(program)
    if train is not None and train.tokens is not None:
        amount = train.tokens
        if amount.unit == "per param":
            return Budget(amount.value * params, f"tokens = {amount.value:g} per param in the `train` item")
        return Budget(amount.value, "tokens in the `train` item")
    if train is not None and train.steps is not None:
        return Budget(train.steps.value * job.tokens, f"{train.steps.value:,.0f} steps in the `train` item")
    return Budget(float(CHINCHILLA * params), f"{CHINCHILLA} tokens per parameter (Hoffmann et al. 2022)")


def run_data(program: Program, plan: Plan) -> dict[str, Any]:
    """Return the whole training run: steps, tokens, seconds."""
    budget = budget_of(program, plan.job)
    steps = ceil(budget.tokens / plan.job.tokens)
    seconds = steps * plan.seconds
    return {
        "tokens": budget.tokens,
        "source": budget.source,
        "tokens_per_parameter": budget.tokens / max(1, parameters(program)),
        "steps": steps,
        "seconds": seconds,
        "hours": seconds / 3600,
        "days": seconds / 86400,
        "wafers": plan.job.wafers,
        "formula": "steps * step; steps = tokens / (batch * seq), rounded up",
    }


def energy_data(plan: Plan, run_seconds: float | None) -> dict[str, Any] | None:
    """Return joules, or None where the device states no power. What that power is of, the device's file says."""
    watts = plan.device.power * plan.job.wafers
    if not watts:
        return None
    found = {
        "watts": watts,
        "joules_per_step": watts * plan.seconds,
        "joules_per_token": watts * plan.seconds / plan.job.tokens,
        "formula": "power of the device * wafers * step; the device's file says what draws that power",
    }
    return found if run_seconds is None else {**found, "joules_per_run": watts * run_seconds}


def counts_to_compare(wafers: int, sequences: int) -> tuple[int, ...]:
    """Return the numbers of wafers that are shown beside one that was asked for: from 1 to twice as many."""
    found = {1, max(1, wafers // 4), max(1, wafers // 2), wafers, min(2 * wafers, sequences)}
    return tuple(sorted(found))


def scaling_data(plans: dict[int, Plan]) -> dict[str, Any]:
    """Return how the time of a step of one batch falls with the number of wafers; `plans` are by that number."""
    alone = plans[1]
    rows = []
    for wafers, plan in sorted(plans.items()):
        job = plan.job
        speedup = alone.seconds / plan.seconds
        rows.append(
            {
                "wafers": wafers,
                "batch_per_wafer": job.batch,
                "mode": plan.mode,
                "seconds_per_step": plan.seconds,
                "tokens_per_second": plan.tokens_per_second,
                "speedup": speedup,
                "of_linear": speedup / wafers,
                # Wafers whose part of the batch is smaller than the largest part wait.
                "even": job.sequences / (job.batch * wafers),
                "streaming_seconds": _seconds(plan, "streaming"),
                "bound": plan.bottleneck.resource,
            }
        )
    return {
        "rows": rows,
        "formula": "speedup over 1 wafer at the same batch / wafers; each has batch / wafers sequences, rounded up",
        "limit": _limit(plans[max(plans)]),
    }


def _seconds(plan: Plan, name: str) -> float:
    return next((figure.value for figure in plan.time if figure.name == name), 0.0)


def _limit(plan: Plan) -> str:
    """Say what bounds the scaling."""
    if plan.mode == "resident" and plan.job.purpose != "training":
        return "each wafer holds the whole model; its pipeline fills and drains every step"
    if plan.mode == "resident":
        return (
            "each wafer holds the whole model; its pipeline fills and drains every step, and gradients are exchanged "
            "in a time that does not fall with their number"
        )
    share = _seconds(plan, "streaming") / plan.seconds
    return (
        f"a wafer's part of the batch: with {plan.job.batch} sequences vectors are shorter, and the weights take "
        f"{100 * share:.0f}% of the step to pass, a time that does not fall with the number of wafers"
    )
