"""Every primitive as a Python expression over PyTorch tensors whose axes stand in the order of the graph's types."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import assert_never

from cgc.ir.dims import Dim, add
from cgc.ir.ops import (
    Binary,
    BinaryKind,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Position,
    Primitive,
    Reduce,
    Rename,
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
from cgc.ir.types import TensorType
from cgc_torch.expressions import (
    AND,
    COMPARE,
    OR,
    PRODUCT,
    SUM,
    TORCH_DTYPES,
    Expr,
    aligned,
    arranged,
    axes_text,
    axis_text,
    call,
    flattened,
    infix,
    number,
    prefix,
    sequence,
    slice_text,
    sliced,
    unflattened,
)
from cgc_torch.products import contraction
from cgc_torch.sizes import Sizes

_OPERATORS: dict[BinaryKind, tuple[str, int]] = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "mod": ("%", PRODUCT),
    "and": ("&", AND),
    "or": ("|", OR),
    "lt": ("<", COMPARE),
    "le": ("<=", COMPARE),
    "gt": (">", COMPARE),
    "ge": (">=", COMPARE),
    "eq": ("==", COMPARE),
    "ne": ("!=", COMPARE),
}


def lower(op: Primitive, operands: Sequence[Expr], types: Sequence[TensorType], to: TensorType, sizes: Sizes) -> Expr:
    """Return the expression for `op` on `operands` of `types`; `to` is the type of its (first) result.

    A `top_k` is an expression for the pair of its results.
    """
    match op:
        case Constant():
            return _constant(op, sizes)
        case Position():
            return call("torch.arange", sizes.dim(op.dim), f"device={sizes.device()}")
        case Unary():
            return _unary(op.kind, operands[0], types[0])
        case Binary():
            return _binary(op.kind, operands, types, to, sizes)
        case Where():
            return _where(operands, types, to, sizes)
        case Cast():
            return _cast(operands[0], types[0], op, sizes)
        case Dot():
            return contraction(op.over, operands, types)
        case Reduce() | Scan():
            return _running(op, tensor(operands[0], types[0], sizes), types[0])
        case Gather() | Scatter():
            return _indexed(op, operands, types, sizes)
        case TopK():
            rank, axis = len(types[0].dims), types[0].axis(op.dim)
            return call("top_k", operands[0], sizes.dim(op.into), f"dim={axis_text(axis, rank)}")
        case Rename() | Transpose() | Split() | Merge() | Slice() | Concat():
            return _moved(op, operands, types, sizes)
        case _:
            assert_never(op)


def tensor(x: Expr, type: TensorType, sizes: Sizes) -> Expr:
    """Return `x` as a tensor: a number becomes one without axes."""
    if not x.number:
        return x
    return call("torch.tensor", x, f"dtype={TORCH_DTYPES[type.dtype]}", f"device={sizes.device()}")


def _constant(op: Constant, sizes: Sizes) -> Expr:
    """Return the number, or what it is in sizes that have names here: `math.sqrt(self.head)`."""
    value = op.value
    plain = number(float(value) if op.dtype in ("f64", "f32", "f16", "bf16") else value)
    if isinstance(value, bool) or not math.isfinite(value):
        return plain
    root = re.fullmatch(r"sqrt\((\w+)\)", op.text)
    if root and not root[1][0].isdigit():
        size = round(value * value)
        if size > 1 and math.sqrt(size) == value:
            name = sizes.dim(Dim(root[1], size))
            return plain if name.text.isdigit() else Expr(f"math.sqrt({name.text})", number=True)
    elif re.fullmatch(r"[A-Za-z_]\w*", op.text) and value == int(value):
        name = sizes.dim(Dim(op.text, int(value)))
        return plain if name.text.lstrip("-").isdigit() else name
    return plain


def _unary(kind: UnaryKind, x: Expr, type: TensorType) -> Expr:
    match kind:
        case "neg":
            return prefix("-", x)
        case "not":
            return call("torch.logical_not", x) if x.number else prefix("~", x)
        case _:
            if x.number:
                x = call("torch.tensor", x, f"dtype={TORCH_DTYPES[type.dtype]}")
            return call(f"torch.{kind}", x)


def _binary(
    kind: BinaryKind, operands: Sequence[Expr], types: Sequence[TensorType], to: TensorType, sizes: Sizes
) -> Expr:
    a, b = (aligned(x, type.names, to.names) for x, type in zip(operands, types, strict=True))
    if a.number and b.number:
        # Python's division by zero raises where a tensor's gives infinity; bool has no torch operators in Python.
        a = tensor(a, types[0], sizes)
    match kind:
        case "pow":
            return a.method("square()") if b.text in ("2", "2.0") else call("torch.pow", a, b)
        case "max" | "min":
            if a.number or b.number:
                bound, x = (a, b) if a.number else (b, a)
                return x.method(f"clamp({'min' if kind == 'max' else 'max'}={bound.text})")
            return call(f"torch.{kind}imum", a, b)
        case _:
            operator, level = _OPERATORS[kind]
            return infix(a, operator, b, level)


def _where(operands: Sequence[Expr], types: Sequence[TensorType], to: TensorType, sizes: Sizes) -> Expr:
    condition, a, b = (aligned(x, type.names, to.names) for x, type in zip(operands, types, strict=True))
    condition = tensor(condition, types[0], sizes)
    if a.number and b.number:
        a = tensor(a, types[1], sizes)
    return call("torch.where", condition, a, b)


def _cast(x: Expr, type: TensorType, op: Cast, sizes: Sizes) -> Expr:
    if op.dtype == type.dtype:
        return x
    short = {"f32": "float()", "i64": "long()", "bool": "bool()"}.get(op.dtype, f"to({TORCH_DTYPES[op.dtype]})")
    return tensor(x, type, sizes).method(short)


def _running(op: Reduce | Scan, x: Expr, type: TensorType) -> Expr:
    if isinstance(op, Reduce):
        return reduced(op, x, type)
    dtype = ", dtype=torch.int32" if type.dtype == "i32" else ""
    return x.method(f"cumsum(dim={axis_text(type.axis(op.over), len(type.dims))}{dtype})")


def reduced(op: Reduce, x: Expr, type: TensorType, keep: bool = False) -> Expr:
    """Return `x` reduced, with its axes kept at size one if `keep`."""
    if not op.over:
        return x
    axes = sorted(type.axis(name) for name in op.over)
    method = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}[op.kind]
    arguments = [] if len(axes) == len(type.dims) and not keep else [f"dim={axes_text(axes, len(type.dims))}"]
    arguments += ["keepdim=True"] if keep else []
    # PyTorch sums 32-bit integers in 64 bits.
    arguments += ["dtype=torch.int32"] if type.dtype == "i32" and op.kind == "sum" else []
    return x.method(f"{method}({', '.join(arguments)})")


def _moved(
    op: Rename | Transpose | Split | Merge | Slice | Concat,
    operands: Sequence[Expr],
    types: Sequence[TensorType],
    sizes: Sizes,
) -> Expr:
    x, type = operands[0], types[0]
    names, rank = list(type.names), len(type.dims)
    match op:
        case Rename():
            return x
        case Transpose():
            return arranged(x, names, op.order)
        case Split():
            return unflattened(x, type.axis(op.dim), rank, [sizes.dim(dim).text for dim in op.into])
        case Merge():
            kept = [name for name in names if name not in op.dims[1:]]
            apart = [part for name in kept for part in (op.dims if name == op.dims[0] else (name,))]
            return flattened(arranged(x, names, apart), apart.index(op.dims[0]), len(op.dims), rank)
        case Slice():
            return _sliced(op, x, type, sizes)
        case Concat():
            parts = [x]
            for other, other_type, dim in zip(operands[1:], types[1:], op.dims[1:], strict=True):
                want = [dim if name == op.dims[0] else name for name in names]
                parts.append(arranged(other, other_type.names, want))
            joined = sequence([part.text for part in parts])
            return call("torch.cat", joined, f"dim={axis_text(type.axis(op.dims[0]), rank)}")
        case _:
            assert_never(op)


def _sliced(op: Slice, x: Expr, type: TensorType, sizes: Sizes) -> Expr:
    whole = type.dim(op.dim)
    if op.into.size == whole.size:
        return x
    end = add(op.start, op.into.size)
    second_half = op.start == op.into.size and end == whole.size
    start = "" if op.start == 0 else (sizes.dim(op.into) if second_half else sizes.offset(op.start)).text
    stop = "" if end == whole.size else (sizes.dim(op.into) if not start else sizes.size(end)).text
    return sliced(x, type.axis(op.dim), len(type.dims), slice_text(start, stop))


def _indexed(op: Gather | Scatter, operands: Sequence[Expr], types: Sequence[TensorType], sizes: Sizes) -> Expr:
    match op:
        case Gather():
            return _gather(op, operands, types, sizes)
        case Scatter():
            return _scatter(op, operands, types, sizes)


def _gather(op: Gather, operands: Sequence[Expr], types: Sequence[TensorType], sizes: Sizes) -> Expr:
    table, index = operands
    names, wanted = types[0].names, types[1].names
    shared = [name for name in names if name != op.dim and name in wanted]
    rest = [name for name in names if name != op.dim and name not in wanted]
    if index.number:
        index = tensor(index, types[1], sizes)
    if not shared:
        table = arranged(table, names, [op.dim, *rest])
        weight = table.text.startswith("self.") and len(rest) == 1 and len(wanted) > 0
        return call("F.embedding", index, table) if weight else table.indexed(index.text)
    if not rest and wanted == tuple(shared):
        table = arranged(table, names, [*shared, op.dim])
        index = index if types[1].dtype == "i64" else index.method("long()")
        return table.method(f"gather(-1, {index.indexed('..., None').text})").method("squeeze(-1)")
    table = arranged(table, names, [*shared, op.dim, *rest])
    each: list[str] = []
    for name in shared:
        every = call("torch.arange", sizes.dim(types[1].dim(name)), f"device={sizes.device()}")
        each.append(aligned(every, [name], wanted).text)
    return table.indexed(", ".join([*each, index.text]))


def _scatter(op: Scatter, operands: Sequence[Expr], types: Sequence[TensorType], sizes: Sizes) -> Expr:
    x, index = (tensor(operand, type, sizes) for operand, type in zip(operands, types, strict=True))
    index = index if types[1].dtype == "i64" else index.method("long()")
    names, kept = types[0].names, [dim for dim in types[0].dims if dim.name not in op.over]
    rest = [dim.name for dim in kept if not types[1].has(dim.name)]
    aligned_dims = [dim for dim in kept if types[1].has(dim.name)]
    order = [*(name for name in names if name not in rest), *rest]
    places = order[: len(order) - len(rest)]
    x = arranged(x, names, order)
    index = aligned(index, types[1].names, places)
    if len(types[1].dims) < len(places):
        lengths = [sizes.dim(types[0].dim(name)).text for name in places]
        index = index.method(f"expand({', '.join(lengths)})")
    every = [call("torch.arange", sizes.dim(dim), f"device={sizes.device()}") for dim in aligned_dims]
    where = [index, *(aligned(e, [d.name], places) for e, d in zip(every, aligned_dims, strict=True))]
    made = [op.dim, *aligned_dims, *(types[0].dim(name) for name in rest)]
    zeros = x.method(f"new_zeros({', '.join(sizes.dim(dim).text for dim in made)})")
    added = zeros.method(f"index_put({sequence([e.text for e in where])}, {x.text}, accumulate=True)")
    return arranged(added, [dim.name for dim in made], [op.dim.name, *(dim.name for dim in kept)])
