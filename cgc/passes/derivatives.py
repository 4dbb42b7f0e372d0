"""The derivative of every primitive: the gradient of a node's results in, those of its operands out.

A gradient may lack dimensions of the value it belongs to, or have them in another order: it is the same along those it
lacks. So the gradient of a sum is the gradient of its result as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

from cgc.ir.dims import Dim, Size, add, subtract
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
from cgc.ir.types import TensorType, is_float
from cgc.passes.elementwise_derivatives import binary_gradient, unary_gradient
from cgc.passes.emitter import Emitter, spare_name

Gradients: TypeAlias = list[Value | None]
"""One for each operand; None where nothing flows."""


def gradients(emit: Emitter, node: Node, given: Sequence[Value | None], wanted: Sequence[bool]) -> Gradients:
    """Return the gradients of the operands that are `wanted`; `given` are those of the results, at least one.

    Indices, conditions and whole numbers have none, nor has what is rounded.
    """
    g = given[0]
    if g is None or not is_float(g.type.dtype):
        return [None] * len(node.inputs)
    out = node.outputs[0].type
    match node.op:
        case Constant() | Position():
            return []
        case Unary(kind):
            return [unary_gradient(emit, kind, g, node.inputs[0], node.outputs[0])]
        case Binary(kind):
            parts = binary_gradient(emit, kind, g, node.inputs, node.outputs[0], wanted)
            return [_summed(emit, part, out, x) for part, x in zip(parts, node.inputs, strict=True)]
        case Where():
            return _where(emit, g, node, wanted)
        case Dot():
            return _dot(emit, g, node, wanted)
        case Cast() | Reduce() | Scan():
            return [_of_one(emit, node.op, g, node)]
        case Gather() | Scatter() | TopK():
            return _indexed(emit, node.op, g, node)
        case Rename() | Transpose() | Split() | Merge() | Slice():
            return [_reshaped(emit, node.op, g, node)]
        case Concat() as op:
            return _concat(emit, op, g, node, wanted)
        case Call() | Repeat():
            raise AssertionError("inlined, and handled by the pass")
        case op:
            assert_never(op)


def _summed(emit: Emitter, g: Value | None, out: TensorType, x: Value) -> Value | None:
    return None if g is None else emit.sum_to(g, out, x.type)


def _where(emit: Emitter, g: Value, node: Node, wanted: Sequence[bool]) -> Gradients:
    condition, a, b = node.inputs
    out = node.output.type
    found: Gradients = [None, None, None]
    if wanted[1]:
        found[1] = emit.sum_to(emit.where(condition, g, 0.0), out, a.type)
    if wanted[2]:
        zero = emit.number(0.0, g.type.dtype)
        found[2] = emit.sum_to(emit.where(condition, zero, g), out, b.type)
    return found


def _dot(emit: Emitter, g: Value, node: Node, wanted: Sequence[bool]) -> Gradients:
    """Return one product for each operand: with the other one, over the dimensions that only that one has."""
    out = node.output.type
    g = emit.widened(g, out.dims)
    found: Gradients = [None, None]
    for index, own in enumerate(node.inputs):
        if wanted[index]:
            over = tuple(name for name in out.names if not own.type.has(name))
            found[index] = emit.one(Dot(over), g, node.inputs[1 - index])
    return found


def _of_one(emit: Emitter, op: Cast | Reduce | Scan, g: Value, node: Node) -> Value:
    match op:
        case Cast():
            return emit.cast(g, node.inputs[0].type.dtype)
        case Reduce():
            return _reduce(emit, op, g, node)
        case Scan(over):
            # What stands at i goes into all sums from i on. To sum from the end and not subtract from the whole keeps
            # what is small beside what is large.
            dim = node.output.type.dim(over)
            turned = emit.reversed(emit.widened(g, (dim,)), dim)
            return emit.reversed(emit.one(Scan(over), turned), dim)


def _reduce(emit: Emitter, op: Reduce, g: Value, node: Node) -> Value:
    """Return the gradient of a reduction; that of an extremum is shared evenly by all entries that reach it."""
    (x,) = node.inputs
    match op.kind:
        case "sum":
            return g
        case "mean":
            return emit.per_count(g, [x.type.dim(name) for name in op.over])
        case "max" | "min":
            reached = emit.cast(emit.binary("eq", x, node.output), g.type.dtype)
            share = emit.binary("div", g, emit.sum(reached, op.over))
            return emit.mul(reached, share)
        case kind:
            assert_never(kind)


def _indexed(emit: Emitter, op: Gather | Scatter | TopK, g: Value, node: Node) -> Gradients:
    out = node.outputs[0].type
    match op:
        case Gather(dim):
            table, index = node.inputs
            over = tuple(name for name in index.type.names if not table.type.has(name))
            return [emit.one(Scatter(table.type.dim(dim), over), emit.widened(g, out.dims), index), None]
        case Scatter(dim):
            return [emit.one(Gather(dim.name), emit.widened(g, (dim,)), node.inputs[1]), None]
        case TopK(dim, into):
            g, index = emit.widened(g, out.dims), node.outputs[1]
            name = into.name
            if name == dim:
                name = spare_name(dim, out.names)
                g, index = emit.one(Rename(((dim, name),)), g), emit.one(Rename(((dim, name),)), index)
            return [emit.one(Scatter(node.inputs[0].type.dim(dim), (name,)), g, index)]


def _reshaped(emit: Emitter, op: Rename | Transpose | Split | Merge | Slice, g: Value, node: Node) -> Value:
    x, out = node.inputs[0].type, node.output.type
    match op:
        case Rename(names):
            back = tuple((new, old) for old, new in names if g.type.has(new))
            return emit.one(Rename(back), g) if back else g
        case Transpose():
            return g
        case Split(dim, into):
            # A dimension of size one that was dropped stays away: there is nothing to tell along it.
            g = emit.widened(g, into)
            return emit.one(Merge(tuple(part.name for part in into), dim), g) if into else g
        case Merge(dims, into):
            g = emit.widened(g, (out.dim(into),))
            return emit.one(Split(into, tuple(x.dim(name) for name in dims)), g)
        case Slice(dim, start, into):
            g = emit.widened(g, (into,))
            end = subtract(subtract(x.dim(dim).size, start), into.size)
            return _padded(emit, g, into.name, dim, start, end)


def _padded(emit: Emitter, g: Value, name: str, into: str, before: Size, after: Size) -> Value:
    """Return `g` with zeros before and after it along the dimension `name`, which becomes `into`."""
    parts: list[Value] = [g]
    for at, size in ((0, before), (2, after)):
        if size != 0:
            dims = tuple(Dim(name, size) if dim.name == name else dim for dim in g.type.dims)
            parts.insert(at, emit.zeros(g.type.with_dims(dims)))
    return emit.one(Concat(tuple(name for _ in parts), into), *parts)


def _concat(emit: Emitter, op: Concat, g: Value, node: Node, wanted: Sequence[bool]) -> Gradients:
    g = emit.widened(g, (node.output.type.dim(op.into),))
    start: Size = 0
    found: Gradients = []
    for x, name, needed in zip(node.inputs, op.dims, wanted, strict=True):
        dim = x.type.dim(name)
        found.append(emit.one(Slice(op.into, start, dim), g) if needed else None)
        start = add(start, dim.size)
    return found
