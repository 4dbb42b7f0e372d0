"""What the estimate of a decode step or of a prefill says, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cgc.program import Device

if TYPE_CHECKING:
    from rich.console import RenderableType

KINDS = {
    "gemv": "2 * task + Kt * (vector + Nt / lanes) + allreduce over P",
    "attention": "scores and mixing: the same over cached tokens",
    "reductions": "loop + vector + entries / lanes + 2 * task + allreduce over P",
    "element by element": "loop + vector + entries / lanes",
    "gathers": "task + broadcast over P",
    "moves": "task + a vector moved over P hops, once for each further square",
}
"""Kinds of ops of a decode step, in the order of the table, with their formulas."""

PREFILL_KINDS = {
    "gemm": "MeshGEMM: (P / 2 + P) * task + skew + P * max(compute, exchange)",
    "attention": "scores and mixing: P steps over the keys of a row, and sums or copies over a head's columns",
    "reductions": "loop + features * (vector + tokens / lanes) + 2 * task + allreduce over P",
    "element by element": "loop + features * (vector + tokens / lanes)",
    "gathers": "task + broadcast over P",
    "moves": "task + a matrix moved over P hops, once for each further square",
}
"""The same of a prefill."""


@dataclass(frozen=True, slots=True)
class Step:
    """An op of the model: where, of which kind, how often, and the cycles of each time."""

    path: str
    kind: str
    times: int
    cycles: float

    @property
    def total(self) -> float:
        """Cycles of all times."""
        return self.times * self.cycles


@dataclass(frozen=True, slots=True)
class Trial:
    """A decode step or a prefill on `squares` squares of `side` cores; the device has room for `room`."""

    side: int
    squares: int
    steps: tuple[Step, ...]
    room: int = 0

    @property
    def cycles(self) -> float:
        """Cycles of the step."""
        return sum(step.total for step in self.steps)

    def parts(self, kinds: Mapping[str, str]) -> dict[str, float]:
        """Return the cycles by kind of op."""
        return {kind: sum(step.total for step in self.steps if step.kind == kind) for kind in kinds}


@dataclass(frozen=True, slots=True)
class DecodeAnswer:
    """The best of the trials, and all of them. `tokens` are made by all cycles of a trial; `context` stand before."""

    model: str
    device: Device
    dtype: str
    context: int
    best: Trial
    trials: tuple[Trial, ...]
    op: str = "decode"
    tokens: int = 1

    @property
    def kinds(self) -> Mapping[str, str]:
        """Kinds of ops with their formulas."""
        return KINDS if self.op == "decode" else PREFILL_KINDS

    def rate(self, trial: Trial) -> float:
        """Return tokens a second."""
        return self.tokens * self.device.clock / trial.cycles

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        best = self.best
        return {
            "op": self.op,
            "model": self.model,
            "device": self.device.name,
            "dtype": self.dtype,
            "context": self.context,
            "tokens": self.tokens,
            "grid": {"columns": best.side, "rows": best.side},
            "squares": best.squares,
            "fits": best.squares <= best.room,
            "cycles": round(best.cycles, 3),
            "seconds": best.cycles / self.device.clock,
            "tokens_per_second": self.rate(best),
            "parts": {kind: round(cycles, 3) for kind, cycles in best.parts(self.kinds).items()},
            "formulas": dict(self.kinds),
            "steps": [
                {"op": step.path, "kind": step.kind, "times": step.times, "cycles": round(step.cycles, 3)}
                for step in best.steps
            ],
            "grids": [
                {
                    "grid": f"{trial.side}x{trial.side}",
                    "squares": trial.squares,
                    "cycles": round(trial.cycles, 3),
                    "tokens_per_second": self.rate(trial),
                }
                for trial in self.trials
            ],
        }

    def table(self) -> RenderableType:
        """Return the answer as tables."""
        from rich.console import Group
        from rich.table import Table

        best = self.best
        squares = f"{best.squares} square{'s' if best.squares > 1 else ''} of {best.side} x {best.side} cores"
        what = (
            f"one new token after {self.context:,}" if self.op == "decode" else f"a prefill of {self.tokens:,} tokens"
        )
        head = f"{self.model}: {what}, on {squares} of {self.device.name}, {self.dtype}"
        if best.squares > best.room:
            head += f" (which has room for {best.room}: memory is ignored, as asked for)"
        rate = f"{self.rate(best):,.0f} tokens/s: {best.cycles:,.0f} cycles at {self.device.clock / 1e6:g} MHz"
        parts = Table(box=None, pad_edge=False)
        for title in ("part", "ops", "cycles", "share"):
            parts.add_column(title, justify="left" if title == "part" else "right")
        parts.add_column("formula")
        for kind, cycles in best.parts(self.kinds).items():
            count = sum(step.times for step in best.steps if step.kind == kind)
            parts.add_row(kind, f"{count:,}", f"{cycles:,.0f}", f"{cycles / best.cycles:.1%}", self.kinds[kind])
        sides = Table(box=None, pad_edge=False)
        for title in ("grid", "squares", "cycles", "tokens/s"):
            sides.add_column(title, justify="right")
        for trial in self.trials:
            grid = f"{trial.side} x {trial.side}"
            sides.add_row(grid, f"{trial.squares}", f"{trial.cycles:,.0f}", f"{self.rate(trial):,.0f}")
        return Group(head, rate, "", parts, "", sides)
