"""The partitioned program, spelled out: buffers with their tiles, and steps in order.

Every core runs the steps that concern it, in this order. A buffer is allocated in its cores when the step that fills it
starts, and freed after the last step that reads it. A buffer with a `root` shows entries of that one and takes no
memory of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from cgc.ir.graph import Node
from cgc.ir.ops import ReduceKind
from cgc.ir.types import DType
from cgc.program import Device
from cgc_wse.kernel_cost.machine import LINK_WORD
from cgc_wse.partition.flat import Category
from cgc_wse.partition.layout import Layout, Shape, Tile, count
from cgc_wse.partition.moves import Core, held
from cgc_wse.place.geometry import Rectangle

ENTRY_BYTES: dict[DType, int] = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 4, "i32": 4, "bool": 1}
"""Bytes of an entry in a core: integers are indices of 32 bit."""
CODE = 96
"""Bytes of instructions that one kind of local work, or of communication, takes in a core."""
DESCRIPTOR = 16
"""Bytes that describe one step: which kernel, which tensors. Equal layers in one core share them."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor (`value`, in the user's words `label`) in a layout on a rectangle of cores.

    `home` names the parameter or input that is in it before the program starts. Of a panel, which has entries of a part
    of the tensor only, `start` says where that part begins in each dimension.
    """

    id: int
    value: str
    label: str
    shape: Shape
    dtype: DType
    layout: Layout
    area: Rectangle
    category: Category
    root: int
    home: str = ""
    start: tuple[int, ...] = ()

    @property
    def entry(self) -> int:
        """Bytes of an entry."""
        return ENTRY_BYTES[self.dtype]

    @property
    def owns(self) -> bool:
        """Whether it takes memory."""
        return self.root == self.id

    def tiles(self) -> Mapping[Core, Tile]:
        """Return the tiles of the cores that hold one with entries in it."""
        return held(self.layout, self.shape, self.area)

    def in_tensor(self, tile: Tile) -> Tile:
        """Return a part of the buffer as a part of the tensor."""
        if not self.start:
            return tile
        return tuple((low + at, high + at) for (low, high), at in zip(tile, self.start, strict=True))


@dataclass(frozen=True, slots=True)
class Message:
    """A part of a tensor from one core to others. `after` is the message whose head has to have come first.

    `words` are link words; `color` is the virtual channel.
    """

    source: Core
    targets: tuple[Core, ...]
    region: Tile
    words: int
    color: int
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """Each core applies a node to its tiles of `operands`, its part of the work being `work`.

    A product of panels is added to what is in the buffer `onto`, which its result is another name of.
    """

    node: Node
    operands: tuple[Buffer, ...]
    results: tuple[Buffer, ...]
    work: Layout
    space: Shape
    onto: Buffer | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Another name, shape or part for what is in a buffer: nothing moves. `node` is None for a part."""

    node: Node | None
    source: Buffer
    result: Buffer


@dataclass(frozen=True, slots=True)
class Move:
    """A tensor is brought to another layout, or to another rectangle."""

    source: Buffer
    result: Buffer
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """Parts are put together along chains of cores; each hands on what came with its own part added."""

    source: Buffer
    result: Buffer
    kind: ReduceKind
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """A tensor comes from outside, over the link off the wafer and the west edge.

    Cores make room for it at the step `posted`, and wait for it at this one.
    """

    name: str
    result: Buffer
    messages: tuple[Message, ...]
    posted: int


@dataclass(frozen=True, slots=True)
class Store:
    """A tensor leaves over the west edge and the link off the wafer."""

    name: str
    source: Buffer
    messages: tuple[Message, ...]


Step: TypeAlias = Local | View | Move | Sum | Load | Store


def reads(step: Step) -> tuple[Buffer, ...]:
    """Return the buffers a step reads."""
    match step:
        case Local():
            return step.operands if step.onto is None else (*step.operands, step.onto)
        case View() | Move() | Sum() | Store():
            return (step.source,)
        case Load():
            return ()


def writes(step: Step) -> tuple[Buffer, ...]:
    """Return the buffers a step fills."""
    match step:
        case Local():
            return step.results
        case View() | Move() | Sum() | Load():
            return (step.result,)
        case Store():
            return ()


def messages(step: Step) -> tuple[Message, ...]:
    """Return the messages of a step."""
    return () if isinstance(step, Local | View) else step.messages


@dataclass(frozen=True)
class Partitioned:
    """A program for a device. `resident` buffers are there at the start, `outputs` hold the results at the end.

    `outside` are results that have left the wafer; `paths` say for each step where in the model it stands.
    """

    device: Device
    steps: tuple[Step, ...]
    paths: tuple[str, ...]
    resident: tuple[Buffer, ...]
    outputs: dict[str, Buffer]
    outside: dict[str, str]
    regions: tuple[tuple[str, Rectangle], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def posts(self) -> dict[int, list[int]]:
        """For each step the loads that make room at it."""
        found: dict[int, list[int]] = {}
        for index, step in enumerate(self.steps):
            if isinstance(step, Load):
                found.setdefault(step.posted, []).append(index)
        return found

    @cached_property
    def freed(self) -> dict[int, tuple[Buffer, ...]]:
        """For each step the buffers that nothing reads after it; outputs stay."""
        owners = {buffer.id: buffer for buffer in self.buffers() if buffer.owns}
        last: dict[int, int] = {}
        for index, step in enumerate(self.steps):
            for buffer in (*reads(step), *writes(step)):
                last[buffer.root] = index
        for buffer in self.resident:
            last.setdefault(buffer.id, -1)
        kept = {buffer.root for buffer in self.outputs.values()}
        found: dict[int, list[Buffer]] = {}
        for root, index in last.items():
            if root not in kept:
                found.setdefault(index, []).append(owners[root])
        return {index: tuple(buffers) for index, buffers in found.items()}

    def buffers(self) -> Iterator[Buffer]:
        """Yield every buffer once."""
        yield from self.resident
        for step in self.steps:
            yield from writes(step)

    def areas(self, step: Step) -> set[Rectangle]:
        """Return the rectangles that a step concerns."""
        return {buffer.area for buffer in (*reads(step), *writes(step))}


def tile_bytes(buffer: Buffer, tile: Tile) -> int:
    """Return the bytes of a tile."""
    return count(tile) * buffer.entry


def words_of(buffer: Buffer, region: Tile) -> int:
    """Return the link words that a part of a buffer takes."""
    return -(-count(region) * buffer.entry // LINK_WORD)
