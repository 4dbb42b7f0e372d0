"""What `cgc scaling` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from cgc.scaling_laws.study import Foretold, Interval, Study


def study_table(study: Study) -> Table:
    """Return the laws of a study as a table for the terminal."""
    from rich.table import Table

    what = "log loss" if study.method.space == "log" else "loss"
    method = f"{'Huber on' if study.method.robust else 'least squares of'} the {what}"
    caption = f"{len(study.runs)} runs, {method}; in brackets 95% of {study.samples} bootstraps, seed {study.seed}."
    caption += " Held out: the runs of the largest compute, foretold by the others."
    table = Table(caption=caption, caption_justify="left")
    for column in ("L(f)", "exponent", "irreducible", "rms", "held out"):
        table.add_column(column)
    goal = next((found.foretold for found in study.fits if found.foretold is not None), None)
    if goal is not None:
        table.add_column(f"at {goal.name}")
    for found in study.fits:
        law, chosen = found.fit.law, found is study.preferred and len(study.fits) > 1
        base = f" + {law.irreducible:.4f}" if found.fit.free == 3 else ""
        cells = [
            f"(f / {law.scale:.4g})^{-law.exponent:.4f}{base}{'  ← preferred' if chosen else ''}",
            f"{-law.exponent:.4f}{_bracketed(found.intervals.get('exponent'), 4)}",
            f"{law.irreducible:.4f}{_bracketed(found.intervals.get('irreducible'), 2)}" if base else "",
            f"{found.fit.rms:.4f}",
            _foretold(found.held_out),
        ]
        table.add_row(*cells, *([_foretold(found.foretold)] if goal is not None else []))
    return table


def _bracketed(pair: Interval | None, digits: int) -> str:
    return "" if pair is None else f" ({pair[0]:.{digits}f} to {pair[1]:.{digits}f})"


def _foretold(foretold: Foretold | None) -> str:
    if foretold is None:
        return "too few runs"
    text = f"{foretold.loss:.4f}{_bracketed(foretold.interval, 3)}"
    return text if foretold.error is None else f"{text}, measured {foretold.measured:.4f}: {foretold.error:+.2%}"


def undetermined_lines(study: Study) -> list[str]:
    """Return a line for each form that the runs do not determine."""
    return [f"{form}: {why}" for form, why in study.undetermined]
