"""Cycles of one core: what a node takes on a tile, as `kernel_cost.machine` has local work.

A vector instruction runs over one dimension of a product, or over a whole tile of anything else. Views, and constants,
which stand in instructions, take nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import assert_never

from cgc.ir.graph import Node
from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)
from cgc.program import Device
from cgc_wse.kernel_cost.machine import LINK_WORD, Machine, machine_of
from cgc_wse.partition.layout import Shape


@dataclass(frozen=True, slots=True)
class Clock(Machine):
    """A device's constants in cycles; `outside` is what a link word takes on the link off the wafer, `queue` the words
    that a router has room for at the end of a link.
    """

    outside: float = 0.0
    queue: int = 16


def clock_of(device: Device) -> Clock:
    """Return the constants of a device for entries of 32 bit, of which two 16-bit lanes take one."""
    machine = machine_of(device, "f32")
    outside = LINK_WORD * device.clock / device.off_wafer
    return Clock(**asdict(machine), outside=outside, queue=device.queue)


def work_cycles(node: Node, space: Shape, clock: Clock) -> float:
    """Return the cycles of a node on a tile of its iteration space."""
    entries = prod(size for _, size in space)
    if not entries:
        return 0.0
    match node.op:
        case Constant() | Rename() | Transpose() | Split() | Merge() | Slice():
            return 0.0
        case Dot(over):
            return _product(space, over, entries, clock)
        case Position() | Unary() | Binary() | Where() | Cast() | Reduce() | Concat():
            return clock.elementwise(entries)
        case Gather() | Scatter():
            indices = prod(size for name, size in space if node.inputs[1].type.has(name))
            return clock.local(1, indices, entries)
        case Scan(over):
            return clock.local(1, dict(space)[over], entries)
        case TopK(dim, into):
            rounds = dict(space)[into.name]
            length = _length(node, dim)
            return clock.local(1, rounds, entries * length)
        case Call() | Repeat():
            raise AssertionError("calls are inlined and loops unrolled before")
        case _:
            assert_never(node.op)


def _length(node: Node, dim: str) -> int:
    size = node.inputs[0].type.dim(dim).size
    return size if isinstance(size, int) else 1


def _product(space: Shape, over: tuple[str, ...], entries: int, clock: Clock) -> float:
    """Vectors run over the longest dimension of the result, inner loops over the second longest, as in the measured
    GEMM; where it has no second one, over the longest that is summed over, as in the measured GEMV.
    """
    kept = [*sorted((size for name, size in space if name not in over), reverse=True), 1, 1]
    summed = max((size for name, size in space if name in over), default=1)
    inner = kept[1] if kept[1] > 1 else summed
    return clock.product(kept[0], inner, entries / (kept[0] * inner))
