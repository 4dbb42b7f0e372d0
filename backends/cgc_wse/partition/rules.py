"""What partitioning means for every op: which dimensions may be split, and what that asks of operands and result.

An op runs over an iteration space: the dimensions of its result and those it sums over. A layout of that space says
which part of the work each core does. Operands then have to lie as the layout says, restricted to their dimensions; the
result lies so too, and what splits a dimension that is summed over leaves sums to be added up along that digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from cgc.ir.dims import evaluate
from cgc.ir.graph import Node, Value
from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    ReduceKind,
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
from cgc.ir.types import TensorType
from cgc_wse.partition.layout import Digit, Layout, Shape, canonical, split

Sizes = Mapping[str, int]


class NoSuchPartition(ValueError):
    """An op cannot run in this layout; the message says why."""


def shape_of(type_: TensorType, sizes: Sizes) -> Shape:
    """Return the dimensions of a type as numbers."""
    return tuple((dim.name, evaluate(dim.size, sizes)) for dim in type_.dims)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an op in a layout asks for: the operands' layouts, and the result's, in which `sum` digits may stand."""

    operands: tuple[Layout, ...]
    result: Layout


def iteration(node: Node, sizes: Sizes) -> Shape:
    """Return the dimensions a node runs over, those of the result first."""
    dims = dict(shape_of(node.outputs[0].type, sizes))
    match node.op:
        case Dot(over):
            dims.update({name: size for name, size in shape_of(node.inputs[0].type, sizes) if name in over})
        case Reduce(over=over):
            own = shape_of(node.inputs[0].type, sizes)
            return tuple(own)
        case Gather(dim):
            dims.setdefault(dim, dict(shape_of(node.inputs[0].type, sizes))[dim])
        case Scatter():
            dims.update({name: size for name, size in shape_of(node.inputs[0].type, sizes) if name not in dims})
        case Merge():
            return shape_of(node.inputs[0].type, sizes)
        case (
            Constant()
            | Position()
            | Unary()
            | Binary()
            | Where()
            | Cast()
            | Scan()
            | Rename()
            | Transpose()
            | Split()
            | Slice()
            | Concat()
            | TopK()
        ):
            pass
        case Call() | Repeat():
            raise AssertionError("calls are inlined and loops unrolled before")
        case _:
            assert_never(node.op)
    return tuple(dims.items())


def splittable(node: Node, sizes: Sizes) -> tuple[str, ...]:
    """Return the dimensions of the iteration space that may be split."""
    names = tuple(name for name, _ in iteration(node, sizes))
    whole = _whole(node)
    return tuple(name for name in names if name not in whole)


def _whole(node: Node) -> set[str]:
    """Return the dimensions of the iteration space that a core has to have whole."""
    match node.op:
        case Scan(over):
            return {over}
        case TopK(into=into) | Slice(into=into):
            return {into.name}
        case Concat(into=name):
            return {name}
        case Gather(dim):
            # A dimension of that name may also be one of the index's: then it is no digit of the table's.
            clash = node.outputs[0].type.has(dim)
            summed = node.inputs[0].type.dtype != "bool"
            return set() if summed and not clash else {dim}
        case Scatter(dim, over):
            return {dim.name} if dim.name in over else set()
        case (
            Constant()
            | Position()
            | Unary()
            | Binary()
            | Where()
            | Cast()
            | Dot()
            | Reduce()
            | Rename()
            | Transpose()
            | Split()
            | Merge()
        ):
            return set()
        case Call() | Repeat():
            raise AssertionError("calls are inlined and loops unrolled before")
        case _:
            assert_never(node.op)


def rule(node: Node, layout: Layout, sizes: Sizes) -> Rule:
    """Return what `node` asks for when its iteration space lies as `layout` says.

    Raises:
        NoSuchPartition: it cannot run so.
    """
    allowed = splittable(node, sizes)
    for digit in layout.digits:
        if digit.kind not in ("split", "copy"):
            raise NoSuchPartition(f"work cannot lie as `{digit}`")
        if digit.kind == "split" and digit.dim not in allowed:
            raise NoSuchPartition(f"`{digit.dim}` has to be whole in a core")
    match node.op:
        case Rename(names):
            back = {new: old for old, new in names}
            return Rule((layout.renamed(back),), layout)
        case Split(dim, into):
            parts = tuple((one.name, evaluate(one.size, sizes)) for one in into)
            return Rule((_merged(layout, parts, dim),), layout)
        case Merge(dims, into=name):
            shape = dict(shape_of(node.inputs[0].type, sizes))
            return Rule((layout,), _merged(layout, tuple((dim, shape[dim]) for dim in dims), name))
        case op:
            summed = _summed(op, node)
            operands = tuple(layout.restricted(value.type.names) for value in _operands(node))
            result = layout.mapped(lambda d: Digit("sum", d.parts) if d.dim in summed else d)
            return Rule(operands, result.restricted(node.outputs[0].type.names))


def _operands(node: Node) -> tuple[Value, ...]:
    return node.inputs


def _summed(op: Op, node: Node) -> set[str]:
    """Return the dimensions that an op sums over."""
    match op:
        case Dot(over):
            return set(over)
        case Reduce(over=over):
            return set(over)
        case Gather(dim):
            return {dim} - set(node.outputs[0].type.names)
        case Scatter(over=over):
            return set(over)
        case _:
            return set()


def _merged(layout: Layout, dims: Shape, into: str) -> Layout:
    """Return the layout of a tensor whose dimensions `dims` are merged into one, where its tiles are the same.

    That is so if the digits stand in the order of the dimensions and each dimension but the last that is split at all
    is split into single entries, all blocks being of one size.
    """
    order = [digit for digit in layout.digits if digit.dim in dict(dims)]
    ranks = [[name for name, _ in dims].index(digit.dim) for digit in order]
    if ranks != sorted(ranks):
        raise NoSuchPartition(f"digits of `{into}` stand in another order than its parts")
    split_dims = [(name, size) for name, size in dims if layout.parts(name) > 1]
    for place, (name, size) in enumerate(split_dims):
        parts = layout.parts(name)
        if size % parts:
            raise NoSuchPartition(f"{parts} parts of `{name}` are of unequal size")
        if place < len(split_dims) - 1 and parts != size:
            raise NoSuchPartition(f"`{name}` is not split into single entries")
    if split_dims:
        names = [name for name, _ in dims]
        before = dims[: names.index(split_dims[-1][0])]
        if any(size > 1 and layout.parts(name) != size for name, size in before):
            raise NoSuchPartition(f"`{split_dims[-1][0]}` is not the first of `{into}`")
    return Layout(
        *(
            canonical(split(into, d.parts) if d in order and d.dim else d for d in axis)
            for axis in (layout.rows, layout.columns)
        )
    )


def reduction(op: Op) -> ReduceKind:
    """Return how the parts of an op's result are put together; a mean's parts are divided before they are summed."""
    return op.kind if isinstance(op, Reduce) and op.kind in ("max", "min") else "sum"
