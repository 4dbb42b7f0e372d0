"""What a simulation says, as data and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cgc.ir.ops import Constant, Position, opcode
from cgc.program import Device
from cgc_wse.partition.analytic import Estimate
from cgc_wse.partition.fit import Fitted
from cgc_wse.partition.flat import Flat
from cgc_wse.partition.memory import Peak
from cgc_wse.partition.messages import EDGE
from cgc_wse.partition.program import Load, Local, Move, Store, Sum, writes
from cgc_wse.simulate.machine import Run

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

TOLERANCE = 1e-4
"""Largest difference, relative to the largest magnitude of an output, that counts as equal in float32."""
SHOWN = 24
"""Rows of the table of ops; `--format json` has all ops."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A run with what it is held to: the reference's results, the analytic memory and cycles."""

    program: str
    device: Device
    mode: str
    batch: int
    seq: int
    seed: int
    flat: Flat
    fitted: Fitted
    run: Run
    estimate: Estimate
    peak: Peak
    differences: Mapping[str, float]
    faults: tuple[str, ...]

    @property
    def difference(self) -> float:
        """The largest of all outputs."""
        return max(self.differences.values(), default=0.0)

    @property
    def exact(self) -> bool:
        """Whether every core held at most exactly what was predicted."""
        return dict(self.run.memory) == dict(self.fitted.memory)

    @property
    def ok(self) -> bool:
        """Whether the results are those of the reference, the memory as predicted and the program valid."""
        return self.difference <= TOLERANCE and self.exact and not self.faults

    @property
    def busiest(self) -> tuple[str, int]:
        """The link that carries most words, and how many."""
        if not self.run.carried:
            return "none", 0
        link = max(self.run.carried, key=lambda one: (self.run.carried[one], -one[0][1], -one[0][0]))
        ends = ["outside" if core[0] == EDGE else f"({core[0]}, {core[1]})" for core in link]
        return f"{ends[0]} to {ends[1]}", self.run.carried[link]

    @property
    def utilization(self) -> float:
        """The part of all cores' cycles in which they computed."""
        return sum(self.run.busy.values()) / (self.device.cores * self.run.cycles) if self.run.cycles else 0.0

    def ops(self) -> list[dict[str, Any]]:
        """Return each op with its layout, its rectangle, and the cycles that it takes the core it takes longest.

        With an op go the sums it leaves; what it waits for and what is moved to it do not count.
        """
        cycles: dict[str, float] = {}
        for index, step in enumerate(self.fitted.program.steps):
            if isinstance(step, Local | Sum):
                name = writes(step)[0].value
                cycles[name] = cycles.get(name, 0.0) + self.run.longest.get(index, 0.0)
        found: list[dict[str, Any]] = []
        for node, place in zip(self.flat.graph.body.nodes, self.fitted.plan.places, strict=True):
            if isinstance(node.op, Constant | Position):
                continue
            area = place.area
            found.append(
                {
                    "path": node.path,
                    "op": opcode(node.op),
                    "value": node.outputs[0].name,
                    "work": str(place.choice),
                    "result": str(place.choice.result),
                    "area": {"x": area.x, "y": area.y, "width": area.width, "height": area.height},
                    "cycles": round(cycles.get(node.outputs[0].name, 0.0), 1),
                }
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        link, words = self.busiest
        return {
            "ok": self.ok,
            "model": self.program,
            "device": {"name": self.device.name, "columns": self.device.columns, "rows": self.device.rows},
            "mode": self.mode,
            "run": self.fitted.plan.run,
            "reason": self.fitted.plan.reason,
            "batch": self.batch,
            "seq": self.seq,
            "seed": self.seed,
            "difference": self.difference,
            "tolerance": TOLERANCE,
            "differences": dict(self.differences),
            "faults": list(self.faults),
            "cycles": {
                "simulated": round(self.run.cycles, 1),
                "analytic": round(self.estimate.cycles, 1),
                "seconds": self.run.cycles / self.device.clock,
            },
            "utilization": self.utilization,
            "memory": {
                "simulated": max(self.run.memory.values()),
                "analytic": self.fitted.most,
                "exact_in_every_core": self.exact,
                "available": self.device.memory,
                "core": list(self.peak.core),
                "categories": dict(self.peak.categories),
                "tensors": [{"path": p, "category": c, "bytes": b} for p, c, b in self.peak.tensors],
            },
            "busiest_link": {"link": link, "words": words},
            "steps": self._counts(),
            "regions": [
                {"name": name, "x": a.x, "y": a.y, "width": a.width, "height": a.height}
                for name, a in self.fitted.program.regions
            ],
            "ops": self.ops(),
        }

    def _counts(self) -> dict[str, int]:
        kinds = {Local: "local work", Move: "moves", Sum: "sums", Load: "loads", Store: "stores"}
        counts = {name: sum(isinstance(s, kind) for s in self.fitted.program.steps) for kind, name in kinds.items()}
        sent = sum(len(getattr(step, "messages", ())) for step in self.fitted.program.steps)
        return {**counts, "messages": sent}

    def table(self) -> RenderableType:
        """Return the answer as tables."""
        from rich.console import Group

        device, plan = self.device, self.fitted.plan
        head = (
            f"{self.program}, {self.mode}: batch {self.batch}, {self.seq} tokens, on {device.columns} x {device.rows} "
            f"cores of {device.name}"
        )
        lines = [f"run: {plan.run} ({plan.reason}); {len(self.fitted.program.regions)} rectangle(s)"]
        lines += [f"FAULT: {fault}" for fault in self.faults[:5]]
        return Group(head, *lines, "", self._figures(), "", self._outputs(), "", self._layouts())

    def _figures(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("")
        table.add_column("simulated", justify="right")
        table.add_column("analytic", justify="right")
        table.add_column("")
        off = 100 * (self.estimate.cycles / self.run.cycles - 1) if self.run.cycles else 0.0
        time = f"{off:+.1f}%; {self.run.cycles / self.device.clock * 1e6:,.1f} us at {self.device.clock / 1e6:g} MHz"
        table.add_row("cycles", f"{self.run.cycles:,.0f}", f"{self.estimate.cycles:,.0f}", time)
        shares = ", ".join(f"{name} {size:,}" for name, size in self.peak.categories.items())
        same = "the same in every core" if self.exact else "DIFFERENT"
        core = f"{same}; core ({self.peak.core[0]}, {self.peak.core[1]}): {shares}; {self.device.memory:,} there"
        table.add_row("bytes of the fullest core", f"{max(self.run.memory.values()):,}", f"{self.fitted.most:,}", core)
        link, words = self.busiest
        table.add_row("words on the busiest link", f"{words:,}", "", link)
        table.add_row("cores computing", f"{100 * self.utilization:.1f}%", "", "of all cores and cycles")
        return table

    def _outputs(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("output")
        table.add_column("largest relative difference", justify="right")
        table.add_column("")
        ordered = sorted(self.differences.items(), key=lambda one: -one[1])
        for name, gap in ordered[:6]:
            table.add_row(name, f"{gap:.1e}", "ok" if gap <= TOLERANCE else "DIFFERS")
        if len(ordered) > 6:
            table.add_row(f"{len(ordered) - 6} more", f"at most {ordered[6][1]:.1e}", "")
        return table

    def _layouts(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("heaviest op of", "", "work", "result", "cores"):
            table.add_column(column)
        table.add_column("cycles", justify="right")
        ops = self.ops()
        heaviest: dict[str, int] = {}
        for index, op in enumerate(ops):
            best = heaviest.setdefault(op["path"], index)
            if op["cycles"] > ops[best]["cycles"]:
                heaviest[op["path"]] = index
        chosen = sorted(heaviest.values(), key=lambda i: (-ops[i]["cycles"], i))[:SHOWN]
        for index in sorted(chosen):
            op, area = ops[index], ops[index]["area"]
            cores = f"{area['width']} x {area['height']} at ({area['x']}, {area['y']})"
            table.add_row(op["path"] or op["value"], op["op"], op["work"], op["result"], cores, f"{op['cycles']:,.0f}")
        return table
