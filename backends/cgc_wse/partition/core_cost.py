"""Cycles of one core: what a node takes on a tile, from the constants of the device.

    local work    loops * loop + instructions * vector + entries / lanes

A vector instruction runs over one dimension of a product, or over a whole tile of anything else. Views, and constants,
which stand in instructions, take nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from cgc_wse.partition.layout import Shape
from cgc_wse.partition.program import WORD


@dataclass(frozen=True, slots=True)
class Clock:
    """A device's constants in cycles.

    `word` is what a link word takes on a link, `outside` on the link off the wafer; `ramp` is the way between core and
    router, `hop` that between routers, `lanes` the 32-bit entries that an instruction takes a cycle, `queue` the words
    that a router has room for at the end of a link.
    """

    task: float
    loop: float
    vector: float
    lanes: float
    ramp: float
    hop: float
    word: float
    outside: float
    queue: int = 16

    @property
    def relay(self) -> float:
        """Cycles until the head of a sum has passed through a core: in, one addition, out."""
        return 2 * self.ramp + 1


def clock_of(device: Device) -> Clock:
    """Return the constants of a device for entries of 32 bit, of which two 16-bit lanes take one."""
    return Clock(
        task=device.task,
        loop=device.loop,
        vector=device.vector,
        lanes=device.multiply_adds / 2,
        ramp=device.ramp,
        hop=device.relay or device.hop,
        word=WORD / device.link,
        outside=WORD * device.clock / device.off_wafer,
        queue=device.queue,
    )


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
            return clock.loop + clock.vector + entries / clock.lanes
        case Gather() | Scatter():
            indices = prod(size for name, size in space if node.inputs[1].type.has(name))
            return clock.loop + indices * clock.vector + entries / clock.lanes
        case Scan(over):
            return clock.loop + dict(space)[over] * clock.vector + entries / clock.lanes
        case TopK(dim, into):
            rounds = dict(space)[into.name]
            length = _length(node, dim)
            return clock.loop + rounds * clock.vector + entries * length / clock.lanes
        case Call() | Repeat():
            raise AssertionError("calls are inlined and loops unrolled before")
        case _:
            assert_never(node.op)


def _length(node: Node, dim: str) -> int:
    size = node.inputs[0].type.dim(dim).size
    return size if isinstance(size, int) else 1


def _product(space: Shape, over: tuple[str, ...], entries: int, clock: Clock) -> float:
    """Vectors run over the longest dimension of the result, loops over all but the second longest of the others."""
    kept = [*sorted((size for name, size in space if name not in over), reverse=True), 1, 1]
    instructions = entries / kept[0]
    return instructions / kept[1] * clock.loop + instructions * (clock.vector + kept[0] / clock.lanes)
