"""The analytic model against the simulator, case by case: `python -m cgc_wse.simulate.compare`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from cgc import load_device
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.program import Device, Program
from cgc.weights import initialize, random_inputs
from cgc_wse.partition.analytic import estimate
from cgc_wse.partition.flat import Flat, forward_graph
from cgc_wse.partition.lower import lower
from cgc_wse.partition.memory import peaks
from cgc_wse.partition.planner import plan
from cgc_wse.partition.program import Partitioned
from cgc_wse.simulate.cases import Case, cases, source
from cgc_wse.simulate.machine import Run, run
from cgc_wse.simulate.travel import analytic, simulated, travels


@dataclass(frozen=True, slots=True)
class Compared:
    """A case with its cycles by the simulator and by formula, and its memory by both."""

    case: Case
    simulated: float
    analytic: float
    memory: int
    expected: int
    difference: float

    @property
    def error(self) -> float:
        """How far the formula is off, of what the simulator says."""
        return abs(self.analytic / self.simulated - 1)


def program_of(case: Case) -> Program:
    """Return the program of a case."""
    (program,) = elaborate_file(source(case), "case.cg").programs
    return program


def partitioned(case: Case, device: Device) -> tuple[Flat, Partitioned]:
    """Return a case's program on a device of its shape with memory enough."""
    free = {name: size for name, size in case.sizes if name in ("batch", "seq")}
    flat = forward_graph(program_of(case).graph, free)
    shaped = replace(device, rows=case.rows, columns=case.columns, memory=1 << 24)
    return flat, lower(flat, plan(flat, shaped, "pipelined", price=case.price, whole=True), shaped)


def compared(case: Case, device: Device) -> Compared:
    """Return what both say of a case."""
    flat, program = partitioned(case, device)
    weights, inputs = initialize(flat.graph, 0), random_inputs(flat.graph, {}, 0)
    found = run(program, flat.sizes, {**weights, **inputs})
    expected = interpret(flat.graph, weights, inputs)
    most = max(peaks(program).values())
    return Compared(
        case, found.cycles, estimate(program).cycles, max(found.memory.values()), most, _difference(found, expected)
    )


def _difference(found: Run, expected: dict[str, Any]) -> float:
    return max(
        float(np.max(np.abs(found.outputs[name] - array)) / max(1e-9, float(np.max(np.abs(array)))))
        for name, array in expected.items()
    )


def table(rows: Iterable[Compared]) -> str:
    """Return the comparison as Markdown."""
    lines = [
        "| op or block | sizes | cores | simulated | analytic | off by |",
        "|---|---|---|---:|---:|---:|",
    ]
    errors: list[float] = []
    for row in rows:
        case = row.case
        errors.append(row.error)
        lines.append(
            f"| {case.name} | {case.shown} | {case.rows} x {case.columns} | {row.simulated:,.0f} | {row.analytic:,.0f} "
            f"| {100 * (row.analytic / row.simulated - 1):+.1f}% |"
        )
    lines.append("")
    lines.append(f"{len(errors)} cases: median {100 * median(errors):.1f}%, worst {100 * max(errors):.1f}%")
    return "\n".join(lines) + "\n"


def collectives(device: Device) -> str:
    """Return the errors of collectives and changes of layout alone, by kind, as Markdown."""
    errors: dict[str, list[float]] = {}
    for travel in travels():
        cycles = simulated(travel, device).cycles
        errors.setdefault(travel.name, []).append(abs(analytic(travel, device) / cycles - 1))
    lines = ["| collective | cases | median | worst |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {len(found)} | {100 * median(found):.1f}% | {100 * max(found):.1f}% |"
        for name, found in errors.items()
    ]
    every = [error for found in errors.values() for error in found]
    lines += ["", f"{len(every)} cases: median {100 * median(every):.1f}%, worst {100 * max(every):.1f}%"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print both tables."""
    device = load_device(sys.argv[1] if len(sys.argv) > 1 else "tiny16")
    sys.stdout.write(table(compared(case, device) for case in cases()))
    sys.stdout.write("\n" + collectives(device))


if __name__ == "__main__":
    main()
