"""What `cgc place` prints: of a solution that was found, and of one that was checked."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from cgc_wse.place.bound import Bounds
from cgc_wse.place.contest import Solved
from cgc_wse.place.kgraph import Contest
from cgc_wse.place.solution import Scored

if TYPE_CHECKING:
    from rich.console import RenderableType


def plain(value: Fraction | float) -> str:
    """Return a number for people: `33,152`, `34,225.5`."""
    return f"{float(value):,.2f}".rstrip("0").rstrip(".")


def gap(value: float, bound: float) -> float | None:
    """Return by what part a value is over its bound; None where the bound is 0."""
    return value / bound - 1 if bound > 0 else None


@dataclass(frozen=True, slots=True)
class ContestAnswer:
    """A legal solution of a problem; with `solved` and the text of its file, `solution`, where it was made here."""

    contest: Contest
    scored: Scored
    bounds: Bounds
    method: str = ""
    seed: int = 0
    solved: Solved | None = None
    solution: str = ""

    @property
    def _time_bound(self) -> float:
        return self.bounds.time / self.contest.ticks

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        contest, scored, grid = self.contest, self.scored, self.contest.engine
        data: dict[str, Any] = {
            "problem": contest.name,
            "legal": True,
            "kernels": len(contest.kernels),
            "connections": len(grid.nets),
            "columns": grid.columns,
            "rows": grid.rows,
            "time": float(scored.time),
            "slowest": scored.slowest,
            "wire_length": scored.wire,
            "score": scored.score,
            "weights": {
                "wdeltat": contest.time_weight,
                "wlength": grid.wire_cost,
                "wadapter": contest.adapter_weight,
            },
            "time_bound": self._time_bound,
            "time_gap": gap(float(scored.time), self._time_bound),
            "score_bound": self.bounds.score,
            "score_gap": gap(scored.score, self.bounds.score),
            "area_used": scored.area / (grid.columns * grid.rows),
        }
        if self.solved is not None:
            data |= {
                "method": self.method,
                "seed": self.seed,
                "steps": self.solved.steps,
                "cut": self.solved.cut or None,
                "seconds": self.solved.seconds,
            }
        return data

    def table(self) -> RenderableType:
        """Return it for printing."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        contest, scored, grid = self.contest, self.scored, self.contest.engine
        title = f"{contest.name or 'problem'}: {len(contest.kernels)} kernels, {len(grid.nets)} connections"
        table = Table(box=None, pad_edge=True)
        for column in ("", "value", "lower bound", "gap"):
            table.add_column(column, justify="right" if column else "left")
        table.add_column("", style="dim")
        bound = self._time_bound
        table.add_row(
            "time",
            plain(scored.time),
            plain(bound),
            _percent(gap(float(scored.time), bound)),
            f"slowest: {scored.slowest}",
        )
        table.add_row("wire length", plain(scored.wire), "", "", "between centres, L1")
        formula = f"{plain(contest.time_weight)} * time + {plain(grid.wire_cost)} * wire length"
        table.add_row(
            "score",
            plain(scored.score),
            plain(self.bounds.score),
            _percent(gap(scored.score, self.bounds.score)),
            formula,
        )
        used = scored.area / (grid.columns * grid.rows)
        table.add_row("cores used", f"{100 * used:.1f}%", "", "", f"of {grid.columns} x {grid.rows}")
        notes = [Text("legal: no overlap, on the grid, memory and parameters within their limits")]
        if contest.adapter_weight:
            notes.append(Text(f"the adapter cost (wadapter={plain(contest.adapter_weight)}) is not part of the score"))
        if self.solved is not None:
            notes += [Text(line) for line in self._search()]
        return Group(Text(title, style="bold"), table, *notes)

    def _search(self) -> list[str]:
        assert self.solved is not None
        line = f"method {self.method}, {self.solved.seconds:.1f} s"
        if self.solved.steps:
            line += f", seed {self.seed}, {self.solved.steps:,} steps of annealing"
        lines = [line]
        if self.solved.cut:
            lines.append(f"{self.solved.cut} cut the search: more time would go on from here, and may find better")
        return lines


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.2f}%"
