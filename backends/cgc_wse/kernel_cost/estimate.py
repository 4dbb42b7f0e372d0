"""What an estimate says, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cgc.program import Device

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles of one kernel by one algorithm.

    `total` parts add up to the cycles, `inside` parts are contained in those; `formulas` say how each comes about.
    `memory` is what a core holds, in bytes.
    """

    algorithm: str
    total: Mapping[str, float]
    inside: Mapping[str, float]
    formulas: Mapping[str, str]
    memory: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def cycles(self) -> float:
        """The sum of the parts."""
        return sum(self.total.values())


@dataclass(frozen=True, slots=True)
class Answer:
    """An estimate with what it is of, the alternatives, and what was done to the sizes."""

    op: str
    device: Device
    columns: int
    rows: int
    dtype: str
    sizes: Mapping[str, int]
    tile: Mapping[str, int]
    chosen: Estimate
    alternatives: tuple[Estimate, ...]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether a core has room for its part."""
        return self.chosen.memory <= self.device.memory

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        chosen = self.chosen
        return {
            "op": self.op,
            "device": self.device.name,
            "grid": {"columns": self.columns, "rows": self.rows},
            "dtype": self.dtype,
            "sizes": dict(self.sizes),
            "tile": dict(self.tile),
            "algorithm": chosen.algorithm,
            **chosen.counts,
            "cycles": round(chosen.cycles, 3),
            "seconds": chosen.cycles / self.device.clock,
            "parts": {name: round(value, 3) for name, value in {**chosen.total, **chosen.inside}.items()},
            "adds_up": list(chosen.total),
            "formulas": dict(chosen.formulas),
            "alternatives": [
                {
                    "algorithm": other.algorithm,
                    **other.counts,
                    "cycles": round(other.cycles, 3),
                    "memory_per_core": other.memory,
                    "fits": other.memory <= self.device.memory,
                }
                for other in self.alternatives
            ],
            "memory_per_core": chosen.memory,
            "memory_available": self.device.memory,
            "fits": self.fits,
            "notes": list(self.notes),
        }

    def table(self) -> RenderableType:
        """Return the answer as tables."""
        from rich.console import Group
        from rich.table import Table

        chosen = self.chosen
        sizes = ", ".join(f"{name} = {size:,}" for name, size in self.sizes.items())
        tile = ", ".join(f"{name} = {size:,}" for name, size in self.tile.items())
        head = f"{self.op} ({_name(chosen)}) on {self.columns} x {self.rows} cores of {self.device.name}, {self.dtype}"
        parts = Table(box=None, pad_edge=False)
        parts.add_column("part")
        parts.add_column("cycles", justify="right")
        parts.add_column("formula")
        for name, value in chosen.total.items():
            parts.add_row(name.replace("_", " "), f"{value:,.1f}", chosen.formulas.get(name, ""))
        for name, value in chosen.inside.items():
            parts.add_row(f"  of which {name.replace('_', ' ')}", f"{value:,.1f}", chosen.formulas.get(name, ""))
        seconds = chosen.cycles / self.device.clock
        parts.add_row("total", f"{chosen.cycles:,.1f}", f"{seconds * 1e6:,.2f} us at {self.device.clock / 1e6:g} MHz")
        verdict = "fits in" if self.fits else "does NOT fit in"
        lines = [f"sizes: {sizes}; a core's part: {tile}"]
        lines.append(f"memory: {chosen.memory:,} B of a core, {verdict} {self.device.memory:,} B")
        lines += [f"note: {note}" for note in self.notes]
        others = Table(box=None, pad_edge=False)
        others.add_column("alternative")
        others.add_column("cycles", justify="right")
        others.add_column("memory of a core", justify="right")
        for other in self.alternatives:
            others.add_row(_name(other), f"{other.cycles:,.1f}", f"{other.memory:,} B")
        return Group(head, *lines, "", parts, *(("", others) if self.alternatives else ()))


def _name(estimate: Estimate) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in estimate.counts.items())
    return f"{estimate.algorithm}, {counts}" if counts else estimate.algorithm
