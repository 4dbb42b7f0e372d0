"""What `cgc plan` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cgc.planning import MEASURED, ModelPlan

if TYPE_CHECKING:
    from rich.table import Table

_NOTE = (
    "FLOPs of the whole run; 6ND: the usual formula. graph: 3 × the products of the forward pass, masked scores too. "
    "algorithmic: lookups too, as Cerebras-GPT counts. "
    "Pile loss: (algorithmic / 5.984e22)^-0.0737 + 0.5066, that paper's frontier for its data and vocabulary; "
    "* outside of what it was fitted to."
)


def plan_table(plans: Sequence[ModelPlan]) -> Table:
    """Return the plans of a family as a table for the terminal, one line for each model."""
    from rich.table import Table

    where = next((plan.time.device for plan in plans if plan.time is not None), None)
    table = Table(caption=_NOTE, caption_justify="left")
    table.add_column("model", no_wrap=True)
    for column in ("parameters", "non-emb.", "tokens", "batch", "steps", "6ND", "graph", "algorithmic", "Pile loss"):
        table.add_column(column, justify="right", no_wrap=True)
    if where is not None:
        table.add_column(f"a step on {where}", justify="right")
        table.add_column("the run", justify="right", no_wrap=True)
    for plan in plans:
        run, flops = plan.run, plan.flops
        outside = "" if MEASURED[0] <= flops.algorithmic <= MEASURED[1] else "*"
        cells = [plan.model, short(plan.parameters), short(plan.non_embedding), short(run.tokens)]
        cells += [f"{run.batch} × {run.seq}", f"{run.steps:,}"] if plan.batched else ["", ""]
        cells += [f"{number:.3g}" for number in (flops.six_nd, flops.graph, flops.algorithmic)]
        cells.append(f"{plan.loss:.3f}{outside}")
        if plan.time is not None:
            mode = "" if plan.time.mode == "rate" else f", {plan.time.mode}"
            cells += [f"{duration(plan.time.step)}{mode}" if plan.batched else "", duration(plan.time.run)]
        table.add_row(*cells)
    return table


def short(count: float) -> str:
    """Return a count with three digits: `111M`, `2.22B`."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """Return a time with three digits, in the unit that suits it: `1.57 days`, `42 ms`."""
    for unit, size in (("years", 365.25 * 86400), ("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
