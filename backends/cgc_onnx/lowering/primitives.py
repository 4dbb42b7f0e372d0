"""One primitive operator → ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from cgc.ir.dims import Dim, add
from cgc.ir.graph import Node
from cgc.ir.ops import (
    Binary,
    BinaryKind,
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
    UnaryKind,
    Where,
)
from cgc.ir.rules import union
from cgc.ir.types import is_float
from cgc_onnx.lowering.contraction import contract, packed_rows
from cgc_onnx.lowering.scope import Scope
from cgc_onnx.parameters.layout import Parameter
from cgc_onnx.proto import ELEMENT_TYPES
from cgc_onnx.writer import Tensor

UNARY: dict[UnaryKind, str] = {
    "neg": "Neg",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "floor": "Floor",
    "not": "Not",
}
BINARY: dict[BinaryKind, str] = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "max": "Max",
    "min": "Min",
    "mod": "Mod",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "eq": "Equal",
    "and": "And",
    "or": "Or",
}
REDUCE: dict[ReduceKind, str] = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}


def lower(scope: Scope, node: Node) -> tuple[Tensor, ...]:
    """Write the nodes of one application of a primitive and return its results, axes in any order.

    Raises:
        TargetError: a size that must be known is not.
    """
    match node.op:
        case Call() | Repeat():
            raise AssertionError("structure is written by cgc_onnx.lowering.functions")
        case TopK():
            return _top_k(scope, node, node.op)
        case _:
            return (_single(scope, node, node.op),)


def _single(scope: Scope, node: Node, op: Op) -> Tensor:
    match op:
        case Constant() | Position():
            return _source(scope, op)
        case Unary():
            return _unary(scope, node, op.kind)
        case Binary():
            return _binary(scope, node, op.kind)
        case Where():
            return _where(scope, node)
        case Dot():
            return contract(scope, node, op)
        case Gather():
            return _gather(scope, node, op.dim)
        case Scatter():
            return _scatter(scope, node, op)
        case Cast() | Reduce() | Scan():
            return _along(scope, node, op)
        case Rename() | Transpose() | Split() | Merge() | Slice():
            return _moved(scope, node, op)
        case Concat():
            return _concat(scope, node, op)
        case TopK() | Call() | Repeat():
            raise AssertionError("handled by lower")
        case _:
            assert_never(op)


def _source(scope: Scope, op: Constant | Position) -> Tensor:
    writer = scope.writer
    if isinstance(op, Constant):
        return writer.scalar(op.value, op.dtype)
    zero, one = (writer.scalar(value, "i64").name for value in (0, 1))
    name = writer.one("Range", (zero, scope.shapes.scalar(op.dim.size), one), f"{scope.prefix}{op.dim.name}.position")
    return writer.note(Tensor(name, (op.dim,), "i64"))


def _unary(scope: Scope, node: Node, kind: UnaryKind) -> Tensor:
    (x,) = (scope.tensor(value) for value in node.inputs)
    writer, wish = scope.writer, scope.wish(node.output)
    if kind == "rsqrt":
        return writer.tensor("Reciprocal", (writer.one("Sqrt", (x.name,), f"{wish}.sqrt"),), x, wish)
    if kind == "erf" and x.dtype == "f64":
        # ONNX Runtime has no Erf in double precision.
        single = writer.one("Cast", (x.name,), f"{wish}.single", to=ELEMENT_TYPES["f32"])
        result = writer.one("Erf", (single,), f"{wish}.erf")
        return writer.tensor("Cast", (result,), x, wish, to=ELEMENT_TYPES["f64"])
    return writer.tensor(UNARY[kind], (x.name,), x, wish)


def _binary(scope: Scope, node: Node, kind: BinaryKind) -> Tensor:
    on_one_axis = _on_one_axis(scope, node, kind)
    if on_one_axis:
        return on_one_axis
    a, b = (scope.tensor(value) for value in node.inputs)
    dims = union((a.type, b.type))
    left, right = scope.shapes.align(a, dims), scope.shapes.align(b, dims)
    writer, wish = scope.writer, scope.wish(node.output)
    if kind == "ne":
        name = writer.one("Not", (writer.one("Equal", (left, right), f"{wish}.equal"),), wish)
    elif kind == "mod" and is_float(a.dtype):
        # The remainder has the sign of the divisor, as for integers; ONNX's float Mod follows the dividend.
        whole = writer.one("Floor", (writer.one("Div", (left, right), f"{wish}.ratio"),), f"{wish}.floor")
        name = writer.one("Sub", (left, writer.one("Mul", (whole, right), f"{wish}.whole")), wish)
    else:
        name = writer.one(BINARY[kind], (left, right), wish)
    return scope.result(name, dims, node.output.type)


def _on_one_axis(scope: Scope, node: Node, kind: BinaryKind) -> Tensor | None:
    """Write arithmetic of a weight's product with a parameter of its shape, a bias, before the product's axis is split
    into dimensions; None where it is something else.
    """
    for index, value in enumerate(node.inputs):
        parameter, count = scope.operand(value), len(value.type.dims)
        if not isinstance(parameter, Parameter) or parameter.loops or count < 2 or kind not in ("add", "sub", "mul"):
            continue
        x = scope.tensor(node.inputs[1 - index])
        whole = scope.shapes.before_reshape(x)
        if x.dims[-count:] != value.type.dims or whole.dims[:-1] != x.dims[:-count]:
            continue
        names = [whole.name, scope.matrix(value, (count,)).name]
        wish = scope.wish(node.output)
        done = scope.writer.tensor(BINARY[kind], names[::-1] if index == 0 else names, whole, f"{wish}.merged")
        return scope.shapes.reshape(done, x.dims, wish)
    return None


def _where(scope: Scope, node: Node) -> Tensor:
    operands = [scope.tensor(value) for value in node.inputs]
    dims = union(tuple(x.type for x in operands))
    condition, a, b = (scope.shapes.align(x, dims) for x in operands)
    writer, wish = scope.writer, scope.wish(node.output)
    if node.output.type.dtype == "bool":
        # ONNX Runtime has no Where over booleans.
        yes = writer.one("And", (condition, a), f"{wish}.yes")
        no = writer.one("And", (writer.one("Not", (condition,), f"{wish}.not"), b), f"{wish}.no")
        return scope.result(writer.one("Or", (yes, no), wish), dims, node.output.type)
    return scope.result(writer.one("Where", (condition, a, b), wish), dims, node.output.type)


def _gather(scope: Scope, node: Node, dim: str) -> Tensor:
    packed = scope.packed_rows(node.inputs[0])
    if packed:
        return packed_rows(
            scope, node.inputs[0].type.dims[1:], scope.tensor(node.inputs[1]), packed, scope.wish(node.output)
        )
    table, index = (scope.tensor(value) for value in node.inputs)
    writer, wish = scope.writer, scope.wish(node.output)
    shared = [name for name in index.names if name in table.names]
    if not shared:
        axis = table.axis(dim)
        name = writer.one("Gather", (table.name, index.name), wish, axis=axis)
        return scope.result(name, (*table.dims[:axis], *index.dims, *table.dims[axis + 1 :]), node.output.type)
    rest = [name for name in table.names if name not in shared and name != dim]
    table = scope.shapes.transpose(table, [*shared, dim, *rest])
    index = scope.shapes.transpose(index, [*shared, *(name for name in index.names if name not in shared)])
    where = index.name
    if index.dtype == "i32":
        where = writer.one("Cast", (where,), f"{wish}.index", to=ELEMENT_TYPES["i64"])
    where = scope.shapes.unsqueeze(where, (len(index.dims),))
    name = writer.one("GatherND", (table.name, where), wish, batch_dims=len(shared))
    return scope.result(name, (*index.dims, *table.dims[len(shared) + 1 :]), node.output.type)


def _scatter(scope: Scope, node: Node, op: Scatter) -> Tensor:
    """Zeros with `dim` and the aligned dimensions in front, to which `ScatterND` adds rows of the rest."""
    x, index = (scope.tensor(value) for value in node.inputs)
    writer, shapes, wish = scope.writer, scope.shapes, scope.wish(node.output)
    aligned = [name for name in index.names if name not in op.over]
    rest = [name for name in x.names if name not in op.over and name not in aligned]
    x = shapes.transpose(x, [*op.over, *aligned, *rest])
    places = x.dims[: len(x.dims) - len(rest)]
    dims = (op.dim, *x.dims[len(op.over) :])
    if index.dtype == "i32":
        name = writer.one("Cast", (index.name,), f"{wish}.index", to=ELEMENT_TYPES["i64"])
        index = replace(index, name=name, dtype="i64")
    coordinates = [index, *(_source(scope, Position(x.type.dim(name))) for name in aligned)]
    where = _coordinates(scope, coordinates, places, wish)
    zeros = writer.one("Expand", (writer.scalar(0, x.dtype).name, shapes.sizes(dims)), f"{wish}.zeros")
    name = writer.one("ScatterND", (zeros, where, x.name), wish, reduction="add")
    return scope.result(name, dims, node.output.type)


def _coordinates(scope: Scope, each: Sequence[Tensor], places: tuple[Dim, ...], wish: str) -> str:
    """Return the name of `each`, spread over `places`, as the entries of one more axis."""
    writer, shapes = scope.writer, scope.shapes
    columns = []
    for x in each:
        spread = shapes.align(x, places)
        if x.dims != places:
            spread = writer.one("Expand", (spread, shapes.sizes(places)), f"{wish}.spread")
        columns.append(shapes.unsqueeze(spread, (len(places),)))
    if len(columns) == 1:
        return columns[0]
    return writer.one("Concat", columns, f"{wish}.where", axis=len(places))


def _along(scope: Scope, node: Node, op: Cast | Reduce | Scan) -> Tensor:
    (x,) = (scope.tensor(value) for value in node.inputs)
    writer, wish = scope.writer, scope.wish(node.output)
    match op:
        case Cast():
            if op.dtype == x.dtype:
                return x
            return scope.result(
                writer.one("Cast", (x.name,), wish, to=ELEMENT_TYPES[op.dtype]), x.dims, node.output.type
            )
        case Reduce():
            if not op.over:
                return x
            axes = sorted(x.axis(name) for name in op.over)
            name = writer.one(REDUCE[op.kind], (x.name, writer.integers(*axes)), wish, keepdims=0)
            return scope.result(name, tuple(dim for dim in x.dims if dim.name not in op.over), node.output.type)
        case Scan():
            axis = writer.scalar(x.axis(op.over), "i64").name
            return writer.tensor("CumSum", (x.name, axis), x, wish)


def _moved(scope: Scope, node: Node, op: Rename | Transpose | Split | Merge | Slice) -> Tensor:
    (x,) = (scope.tensor(value) for value in node.inputs)
    wish = scope.wish(node.output)
    match op:
        case Rename():
            return x.renamed(dict(op.names))
        case Transpose():
            # Dimensions are found by name, so their order only matters where a function or the graph ends.
            return x
        case Split():
            axis = x.axis(op.dim)
            return scope.shapes.reshape(x, (*x.dims[:axis], *op.into, *x.dims[axis + 1 :]), wish)
        case Merge():
            if len(op.dims) == 1:
                return x.renamed({op.dims[0]: op.into})
            kept = [name for name in x.names if name not in op.dims[1:]]
            groups = [op.dims if name == op.dims[0] else (name,) for name in kept]
            return scope.shapes.merge(x, groups, [op.into if len(group) > 1 else group[0] for group in groups], wish)
        case Slice():
            axis = x.axis(op.dim)
            start, end = (scope.shapes.vector(size) for size in (op.start, add(op.start, op.into.size)))
            name = scope.writer.one("Slice", (x.name, start, end, scope.writer.integers(axis)), wish)
            return scope.result(name, (*x.dims[:axis], op.into, *x.dims[axis + 1 :]), node.output.type)


def _concat(scope: Scope, node: Node, op: Concat) -> Tensor:
    first, *others = (
        scope.tensor(value).renamed({dim: op.into}) for value, dim in zip(node.inputs, op.dims, strict=True)
    )
    operands = [first, *(scope.shapes.transpose(x, first.names) for x in others)]
    axis = first.axis(op.into)
    name = scope.writer.one("Concat", [x.name for x in operands], scope.wish(node.output), axis=axis)
    whole = Dim(op.into, node.output.type.dim(op.into).size)
    return scope.result(name, (*first.dims[:axis], whole, *first.dims[axis + 1 :]), node.output.type)


def _top_k(scope: Scope, node: Node, op: TopK) -> tuple[Tensor, ...]:
    (x,) = (scope.tensor(value) for value in node.inputs)
    axis = x.axis(op.dim)
    dims = (*x.dims[:axis], op.into, *x.dims[axis + 1 :])
    count = scope.shapes.vector(op.into.size)
    names = scope.writer.emit(
        "TopK", (x.name, count), [scope.wish(value) for value in node.outputs], attributes={"axis": axis}
    )
    return tuple(scope.result(name, dims, value.type) for name, value in zip(names, node.outputs, strict=True))
