"""What `cgc check --scaling`, `cgc coordcheck` and `cgc sweep` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgc.analysis.growth import ZERO
from cgc.parametrize.check import Check, Finding, shown_power
from cgc.program import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from cgc.experiments.coordcheck import Result
    from cgc.experiments.sweep import Curve, Plan


def scaling_data(check: Check) -> list[dict[str, Any]]:
    """Return all findings as JSON-able data; what is exactly zero, or does not change, has the exponent null."""

    def number(power: float) -> float | None:
        return None if power == ZERO else power

    return [
        {
            "growing": list(finding.names),
            "tensor": finding.tensor,
            "path": finding.path,
            "kind": finding.fact.kind,
            "init": number(finding.fact.scale.init),
            "after": number(finding.fact.scale.after),
            "change": number(finding.fact.scale.change),
            "update": number(finding.fact.own),
            "faults": list(finding.faults),
        }
        for finding in check.findings()
    ]


def scaling_table(program: Program, check: Check) -> Table:
    """Return all findings as a table for the terminal."""
    from rich.table import Table

    name = program.mup.parametrization if program.mup is not None else ""
    caption = (
        "Θ(n^a): a at initialization, of the change while training, and of what the tensor's own update adds. "
        "Wanted: 0; scores and logits may start smaller."
    )
    table = Table(
        title=f"{program.name} under {name}",
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
    )
    for column in ("growing", "tensor", "as"):
        table.add_column(column, no_wrap=True)
    for column in ("init", "change", "update"):
        table.add_column(column, justify="right")
    table.add_column("")
    before: tuple[str, ...] = ()
    for finding in check.findings():
        if finding.names != before and before:
            table.add_section()
        shown = ", ".join(finding.names) if finding.names != before else ""
        before = finding.names
        table.add_row(shown, finding.tensor, finding.fact.kind, *_powers(finding), ", ".join(finding.faults) or "ok")
    return table


def _powers(finding: Finding) -> tuple[str, str, str]:
    scale = finding.fact.scale
    return tuple(  # type: ignore[return-value]
        "-" if power == ZERO else shown_power(power).strip("()")
        for power in (scale.init, scale.change, finding.fact.own)
    )


def slopes_table(result: Result) -> Table:
    """Return the measured slopes of a coordinate check beside the exponents."""
    from rich.table import Table

    widths = ", ".join(map(str, result.setup.widths))
    table = Table(title=f"{result.model} under {result.parametrization}, widths {widths}", title_justify="left")
    for column in ("tensor", "as"):
        table.add_column(column, no_wrap=True)
    for column in ("init", "static", "change", "static"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in result.tensors:
        cells = [
            _slope(row.init_slope),
            _slope(row.init_exponent),
            _slope(row.change_slope),
            _slope(row.change_exponent),
        ]
        table.add_row(row.tensor, row.kind, *cells, ", ".join(row.disagreements) or "ok")
    return table


def _slope(power: float | None) -> str:
    return "-" if power is None else f"{power:.2f}"


def sweep_table(plan: Plan, curves: Sequence[Curve], summary: dict[str, Any]) -> Table:
    """Return the held-out losses of a sweep, the best of every width marked."""
    from rich.table import Table

    moved = summary["moves_by_doublings"]
    caption = "" if moved is None else f"the best {plan.over} moves by {moved:.1f} doublings between widths"
    table = Table(title="held-out loss, nats per byte", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("width", justify="right")
    for value in sorted(plan.values):
        table.add_column(f"{plan.over} {value:g}", justify="right")
    for curve in curves:
        losses = {point.value: point.mean for point in curve.points}
        best = curve.best.value if curve.best is not None else None
        cells = [
            f"{losses[value]:.3f}{'*' if value == best else ''}" if value in losses else ""
            for value in sorted(plan.values)
        ]
        table.add_row(str(curve.width), *cells)
    return table
