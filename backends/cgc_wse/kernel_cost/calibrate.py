"""Where the constants of the WSE-3 come from: least squares on measured GEMM and GEMV of one grid, 144 × 144 cores.

`python -m cgc_wse.kernel_cost.calibrate wse3_measured.csv` prints the constants, which stand in
`grammar/devices/wse3.cg`, and the error of the model on the rows of every grid. The measurements are of WaferLLM's
kernels (He et al., OSDI 2025) on a WSE-3: lines `op,P,Mt,Kt,Nt,groups,cycles`, `#` before a comment.

Of GEMM (`mesh`), with every step bound by its computation, the cycles are linear in `task`, `loop`, `vector` and
`shift`; relative errors are squared. GEMV then has one constant left, `relay`. `ramp` and the rest of the device are
taken as published.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from cgc.program import Device
from cgc_wse.kernel_cost.gemm import Tiles, estimate_gemm
from cgc_wse.kernel_cost.gemv import GROUPED, estimate_gemv
from cgc_wse.kernel_cost.machine import machine_of

CALIBRATED_ON = 144
"""Side of the only grid whose rows are looked at."""

CONSTANTS = ("task", "loop", "vector", "shift", "relay")
_LINEAR = CONSTANTS[:4]
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement on a grid of `side` × `side` cores; sizes are of a core's tile."""

    op: str
    side: int
    m: int
    k: int
    n: int
    groups: int
    cycles: float


def read_rows(text: str) -> list[Row]:
    """Return the measurements in a text."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))

    def number(value: str) -> int:
        return int(value or 0)

    return [
        Row(
            row["op"],
            int(row["P"]),
            number(row["Mt"]),
            number(row["Kt"]),
            number(row["Nt"]),
            number(row["groups"]),
            float(row["cycles"]),
        )
        for row in csv.DictReader(lines)
    ]


def predicted(row: Row, device: Device) -> float:
    """Return the model's cycles for the kernel of a row."""
    machine = machine_of(device, "f16")
    if row.op == "gemm":
        return estimate_gemm(machine, Tiles(row.side, row.side, row.m, row.k, row.n), "mesh").cycles
    return estimate_gemv(machine, row.side, row.m, row.n, GROUPED, row.groups).cycles


def calibrate(rows: Iterable[Row], device: Device) -> dict[str, float]:
    """Return the constants that minimize the sum of squared relative errors on the rows of the calibration's grid."""
    chosen = [row for row in rows if row.side == CALIBRATED_ON]
    gemm = [row for row in chosen if row.op == "gemm"]
    gemv = [row for row in chosen if row.op == "gemv"]
    for _ in range(_ROUNDS):
        device = _fitted(gemm, device, _LINEAR)
        device = _fitted(gemv, device, ("relay",))
    return {name: getattr(device, name) for name in CONSTANTS}


def _fitted(rows: Sequence[Row], device: Device, names: Sequence[str]) -> Device:
    """Return the device with `names` set by least squares; the model is linear in them near their values."""
    start = replace(device, relay=device.relay or device.hop)
    base = np.array([predicted(row, start) for row in rows])
    measured = np.array([row.cycles for row in rows])
    columns = []
    for name in names:
        moved = replace(start, **{name: getattr(start, name) + 0.01})
        columns.append((np.array([predicted(row, moved) for row in rows]) - base) / 0.01)
    slopes = np.stack(columns, axis=1) / measured[:, None]
    change, *_ = np.linalg.lstsq(slopes, (measured - base) / measured, rcond=None)
    return replace(start, **{name: getattr(start, name) + float(d) for name, d in zip(names, change, strict=True)})


def errors(rows: Iterable[Row], device: Device) -> dict[tuple[str, int], list[float]]:
    """Return the relative errors of the model, without sign, by op and side of the grid."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        found.setdefault((row.op, row.side), []).append(abs(predicted(row, device) / row.cycles - 1))
    return dict(sorted(found.items()))


def report(rows: Sequence[Row], device: Device) -> str:
    """Return the constants and the table of errors as text."""
    constants = calibrate(rows, device)
    lines = [
        f"{name:8} {value:8.3f} cycles, {getattr(device, name):g} in {device.name}" for name, value in constants.items()
    ]
    lines += ["", "op    grid       rows  median  worst"]
    held: list[float] = []
    for (op, side), found in errors(rows, device).items():
        used = "  calibrated here" if side == CALIBRATED_ON else ""
        held += [] if used else found
        lines.append(f"{op:5} {side:3} x {side:3}  {len(found):5}  {median(found):6.1%} {max(found):6.1%}{used}")
    for op in ("gemm", "gemv"):
        rest = [
            e for (name, side), es in errors(rows, device).items() if name == op and side != CALIBRATED_ON for e in es
        ]
        lines.append(f"{op:5} elsewhere  {len(rest):5}  {median(rest):6.1%} {max(rest):6.1%}")
    lines.append(f"all   elsewhere  {len(held):5}  {median(held):6.1%} {max(held):6.1%}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from cgc import load_device

    sys.stdout.write(report(read_rows(Path(sys.argv[1]).read_text(encoding="utf-8")), load_device("wse3")))
