"""What a graph means in PyTorch, written apart from the compiler's own targets: what its gradients are held to.

Every primitive is the PyTorch function of that name on tensors whose axes stand in the order of the type, so that
`torch.autograd` differentiates the whole graph. Loops are Python loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import torch
from torch import Tensor

from cgc.ir.dims import Dim, Size, evaluate
from cgc.ir.graph import Graph, Node, Region
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
from cgc.ir.types import DType, TensorType, is_float

DTYPES: dict[DType, torch.dtype] = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "bool": torch.bool,
}


def run(graph: Graph, arguments: Mapping[str, Tensor], sizes: Mapping[str, int], double: bool = True) -> list[Tensor]:
    """Return the results of `graph`. With `double` all floats are computed in 64 bit, else each in its own type."""
    meaning = _Meaning(graph, sizes, double)
    return meaning.region(graph.body, [arguments[value.name] for value in graph.body.arguments])


class _Meaning:
    def __init__(self, graph: Graph, sizes: Mapping[str, int], double: bool) -> None:
        self._functions = {function.name: function for function in graph.functions}
        self._sizes = sizes
        self._double = double

    def _dtype(self, dtype: DType) -> torch.dtype:
        return torch.float64 if self._double and is_float(dtype) else DTYPES[dtype]

    def _size(self, size: Size) -> int:
        return evaluate(size, self._sizes)

    def _shape(self, type: TensorType) -> list[int]:
        return [self._size(size) for size in type.shape]

    def region(self, region: Region, arguments: Sequence[Tensor]) -> list[Tensor]:
        known = {value.name: x for value, x in zip(region.arguments, arguments, strict=True)}
        for node in region.nodes:
            results = self._node(node, [known[value.name] for value in node.inputs])
            for value, x in zip(node.outputs, results, strict=True):
                assert list(x.shape) == self._shape(value.type), (node, x.shape)
                assert x.dtype == self._dtype(value.type.dtype), (node, x.dtype)
                known[value.name] = x
        return [known[value.name] for value in region.results]

    def _node(self, node: Node, xs: list[Tensor]) -> list[Tensor]:
        match node.op:
            case Call(function=name):
                return self.region(self._functions[name].body, xs)
            case Repeat():
                return self._repeat(node.op, xs)
            case TopK(dim, into):
                axis = node.inputs[0].type.axis(dim)
                values, places = torch.sort(xs[0], dim=axis, descending=True, stable=True)
                count = self._size(into.size)
                return [values.narrow(axis, 0, count), places.narrow(axis, 0, count)]
            case op:
                return [self._one(op, xs, [value.type for value in node.inputs], node.output.type)]

    def _repeat(self, op: Repeat, xs: list[Tensor]) -> list[Tensor]:
        carried, shared = xs[: op.carried], xs[op.carried : op.carried + op.shared]
        stacked = xs[op.carried + op.shared :]
        count = self._size(op.stack.size)
        collected: list[dict[int, Tensor]] = [{} for _ in range(op.collected)]
        for index in reversed(range(count)) if op.reverse else range(count):
            results = self.region(op.body, [*carried, *shared, *(x[index] for x in stacked)])
            carried = results[: op.carried]
            for whole, part in zip(collected, results[op.carried :], strict=True):
                whole[index] = part
        return [*carried, *(torch.stack([whole[index] for index in range(count)]) for whole in collected)]

    def _one(self, op: Op, xs: list[Tensor], types: list[TensorType], out: TensorType) -> Tensor:
        match op:
            case Constant(value, dtype):
                return torch.tensor(value, dtype=self._dtype(dtype))
            case Position(dim):
                return torch.arange(self._size(dim.size))
            case Unary(kind):
                return _UNARY[kind](xs[0])
            case Binary(kind):
                return _BINARY[kind](*_aligned(xs, types, out))
            case Where():
                return torch.where(*_aligned(xs, types, out))
            case Cast(dtype):
                return xs[0].to(self._dtype(dtype))
            case Dot():
                return torch.einsum(_equation(types, out), *xs)
            case Reduce() | Scan():
                return _along(op, xs[0], types[0])
            case Gather(dim):
                return xs[0][tuple(self._places(d, dim, xs[1], types[1], out) for d in types[0].dims)]
            case Scatter(dim):
                places = tuple(self._places(d, dim.name, xs[1], types[1], types[0]) for d in out.dims)
                whole = torch.zeros(self._shape(out), dtype=xs[0].dtype)
                spread = [torch.broadcast_to(place, xs[0].shape) for place in places]
                return whole.index_put(tuple(spread), xs[0], accumulate=True)
            case Rename() | Transpose() | Split() | Merge() | Slice():
                return self._reshaped(op, xs[0], types[0], out)
            case Concat(dims):
                first = types[0].names
                parts = [
                    _ordered(x, type, [name if d == dims[0] else d for d in first])
                    for x, type, name in zip(xs, types, dims, strict=True)
                ]
                return torch.cat(parts, dim=first.index(dims[0]))
            case Call() | Repeat() | TopK():
                raise AssertionError("handled before")
            case _:
                assert_never(op)

    def _places(self, dim: Dim, looked_up: str, index: Tensor, type: TensorType, out: TensorType) -> Tensor:
        """Return the indices along one dimension of a table, over the dimensions of `out`."""
        if dim.name == looked_up:
            return _spread(index.long(), type, out)
        return _spread(torch.arange(self._size(dim.size)), TensorType((dim,), "i64"), out)

    def _reshaped(
        self, op: Rename | Transpose | Split | Merge | Slice, x: Tensor, type: TensorType, out: TensorType
    ) -> Tensor:
        match op:
            case Rename():
                return x
            case Transpose(order):
                return _ordered(x, type, order)
            case Split():
                return x.reshape(self._shape(out))
            case Merge(dims, into):
                parts = [name for d in out.names for name in (dims if d == into else (d,))]
                return _ordered(x, type, parts).reshape(self._shape(out))
            case Slice(dim, start, into):
                return x.narrow(type.axis(dim), self._size(start), self._size(into.size))


def _ordered(x: Tensor, type: TensorType, order: Sequence[str]) -> Tensor:
    return x.permute([type.axis(name) for name in order])


def _spread(x: Tensor, type: TensorType, out: TensorType) -> Tensor:
    x = _ordered(x, type, [name for name in out.names if type.has(name)])
    for axis, name in enumerate(out.names):
        if not type.has(name):
            x = x.unsqueeze(axis)
    return x


def _aligned(xs: list[Tensor], types: list[TensorType], out: TensorType) -> list[Tensor]:
    return [_spread(x, type, out) for x, type in zip(xs, types, strict=True)]


def _equation(types: list[TensorType], out: TensorType) -> str:
    letters: dict[str, str] = {}
    for name in (*types[0].names, *types[1].names):
        letters.setdefault(name, "abcdefghijklmnopqrstuvwxyz"[len(letters)])
    a, b, to = ("".join(letters[name] for name in type.names) for type in (*types, out))
    return f"{a},{b}->{to}"


def _along(op: Reduce | Scan, x: Tensor, type: TensorType) -> Tensor:
    if isinstance(op, Scan):
        return x.cumsum(type.axis(op.over), dtype=x.dtype)
    if not op.over:
        return x
    axes = [type.axis(name) for name in op.over]
    match op.kind:
        case "sum":
            return x.sum(axes, dtype=x.dtype)
        case "mean":
            return x.mean(axes)
        case "max":
            return x.amax(axes)
        case "min":
            return x.amin(axes)


_UNARY: dict[UnaryKind, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "floor": torch.floor,
    "not": torch.logical_not,
}

_BINARY: dict[BinaryKind, Callable[[Any, Any], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "max": torch.maximum,
    "min": torch.minimum,
    "mod": torch.remainder,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
    "and": torch.logical_and,
    "or": torch.logical_or,
}
