"""What `cgc check --scaling` prints: exponents of every tensor in every direction of growth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgc.analysis.exponents import ZERO
from cgc.parametrize.check import Check, Finding, shown_power
from cgc.program import Program

if TYPE_CHECKING:
    from rich.table import Table


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
