"""Single collectives and changes of layout, for holding their formulas to the simulator where nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgc.program import Device
from cgc_wse.partition.core_cost import clock_of
from cgc_wse.partition.formulas import move_cycles, sum_cycles, summing
from cgc_wse.partition.layout import Axis, Digit, Layout, Shape, copies, split
from cgc_wse.partition.messages import chains, travelling
from cgc_wse.partition.program import Buffer, Move, Partitioned, Sum
from cgc_wse.place.geometry import Rectangle
from cgc_wse.simulate.machine import Run, run


@dataclass(frozen=True, slots=True)
class Travel:
    """A tensor that is brought from one layout to another, or added up."""

    name: str
    shape: Shape
    before: Layout
    after: Layout

    @property
    def sums(self) -> bool:
        """Whether parts are added up."""
        return any(digit.kind == "sum" for digit in self.before.digits)


def program_of(travel: Travel, device: Device) -> Partitioned:
    """Return the program that does nothing else."""
    rows, columns = travel.before.shape
    area = Rectangle(0, 0, columns, rows)
    source = Buffer(1, "x", "x", travel.shape, "f32", travel.before, area, "activations", 1, "x")
    result = Buffer(2, "y", "y", travel.shape, "f32", travel.after, area, "activations", 2)
    step = (
        Sum(source, result, "sum", chains(source, result, 0))
        if travel.sums
        else Move(source, result, travelling(source, result, 0))
    )
    shaped = replace(device, rows=rows, columns=columns, memory=1 << 24)
    return Partitioned(shaped, (step,), (travel.name,), (source,), {"y": result}, {})


def analytic(travel: Travel, device: Device) -> float:
    """Return the cycles by formula."""
    clock = clock_of(device)
    if not travel.sums:
        return move_cycles(travel.shape, 4, travel.before, travel.after, clock)
    columns = any(digit.kind == "sum" for digit in travel.before.columns)
    before = travel.before.columns if columns else travel.before.rows
    after = travel.after.columns if columns else travel.after.rows
    return sum_cycles(summing(travel.shape, 4, before, after, travel.after), clock)


def simulated(travel: Travel, device: Device) -> Run:
    """Run it on zeros."""
    import numpy as np

    return run(program_of(travel, device), {}, {"x": np.zeros([size for _, size in travel.shape], np.float32)})


def _sum(parts: int) -> Axis:
    return (Digit("sum", parts),)


def _one(parts: int) -> Axis:
    return (Digit("one", parts, at=parts // 2),)


def _by(dim: str, parts: int) -> Axis:
    return (split(dim, parts),) if parts > 1 else ()


def travels() -> list[Travel]:
    """Return collectives of a few words and of many, on lines and rectangles."""
    found: list[Travel] = []
    for rows, columns in ((1, 8), (6, 1), (4, 4), (3, 5), (8, 8), (16, 4)):
        for a, b in ((rows, columns), (32, 64), (240, 240)):
            shape: Shape = (("a", a), ("b", b))
            found += _of(shape, rows, columns)
    return found


def _of(shape: Shape, rows: int, columns: int) -> list[Travel]:
    by_row, by_column, whole = _by("a", rows), _by("b", columns), Layout(copies(rows), copies(columns))
    tiles = Layout(by_row, by_column)
    found = [
        Travel("gather everywhere", shape, tiles, whole),
        Travel("broadcast", shape, Layout(_one(rows) if rows > 1 else (), _one(columns) if columns > 1 else ()), whole),
    ]
    if columns > 1:
        found += [
            Travel("gather along rows", shape, tiles, Layout(by_row, copies(columns))),
            Travel("reduce along rows", shape, Layout(by_row, _sum(columns)), Layout(by_row, _one(columns))),
            Travel("reduce and scatter", shape, Layout(by_row, _sum(columns)), tiles),
        ]
    if rows > 1:
        found += [
            Travel("gather along columns", shape, tiles, Layout(copies(rows), by_column)),
            Travel("reduce along columns", shape, Layout(_sum(rows), by_column), Layout(_one(rows), by_column)),
        ]
    if rows > 1 and columns > 1:
        found += [
            Travel("transpose", shape, tiles, Layout(_by("b", rows), _by("a", columns))),
            Travel("rows to columns", shape, Layout(by_row, copies(columns)), Layout(copies(rows), _by("a", columns))),
        ]
    elif columns > 1:
        found.append(Travel("all to all", shape, Layout((), by_column), Layout((), _by("a", columns))))
    return found
