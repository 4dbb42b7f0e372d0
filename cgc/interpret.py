"""The reference semantics in NumPy: what every target is tested against.

A value's array has its axes in the order of the type's dimensions. Floats run in one dtype throughout (float32 unless
asked otherwise); arrays are dropped after their last use, and loops read slices of stacked parameters without copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, assert_never

import numpy as np

from cgc.erf import erf
from cgc.ir.dims import Size, evaluate
from cgc.ir.graph import Function, Graph, Node, Region, Value
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

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


Observer: TypeAlias = Callable[[Value, Array], None]
"""Is shown a value and its array."""


class BadInput(ValueError):
    """Weights or inputs do not fit the graph; the message names the value."""


def interpret(
    graph: Graph,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    dtype: Any = np.float32,
    observe: Observer | None = None,
) -> dict[str, Array]:
    """Run `graph`; returns the outputs by name.

    `weights` are arrays by parameter path (stacked parameters with their loop dimensions first), `inputs` by name. Free
    sizes are read off the inputs' shapes. `dtype` is what floats are computed in. `observe` is shown every value as it
    is made, in each turn of a loop.

    Raises:
        BadInput: something is missing or has the wrong shape, sizes contradict each other or exceed their limit, or an
            index is out of range.
    """
    sizes = bind_sizes(graph, inputs)
    machine = _Machine(graph.functions, sizes, np.dtype(dtype), observe)
    arguments = [machine.argument(value, inputs, "input") for value in graph.inputs]
    arguments += [machine.argument(param.value, weights, "parameter") for param in graph.params]
    with np.errstate(all="ignore"):
        results = machine.region(graph.body, arguments)
    return dict(zip(graph.outputs, results, strict=True))


def apply(node: Node, operands: list[Array], dtype: Any = np.float32) -> list[Array]:
    """Apply one primitive, whose sizes are all known, to arrays of its operands' types; returns its results."""
    with np.errstate(all="ignore"):
        return _Machine((), {}, np.dtype(dtype), None).primitive(node, operands)


def bind_sizes(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Return the value of every symbol, read off the shapes of the inputs (errors as `interpret`)."""
    sizes: dict[str, int] = {}
    for value in graph.inputs:
        if value.name not in inputs:
            raise BadInput(f"input `{value.name}` is missing")
        shape = np.shape(inputs[value.name])
        if len(shape) != len(value.type.dims):
            raise BadInput(f"input `{value.name}` has {len(shape)} axes, not {value.type}")
        for dim, size in zip(value.type.dims, shape, strict=True):
            if str(dim.size) in {symbol.name for symbol in graph.symbols}:
                known = sizes.setdefault(str(dim.size), size)
                if known != size:
                    raise BadInput(f"`{dim.name}` is {known} in one input and {size} in `{value.name}`")
    for symbol in graph.symbols:
        limit = symbol.limit
        if limit is not None and symbol.name in sizes and sizes[symbol.name] > evaluate(limit.size, sizes):
            raise BadInput(f"`{symbol.name}` is {sizes[symbol.name]}, more than {limit}")
    return sizes


class _Machine:
    def __init__(
        self, functions: Iterable[Function], sizes: Mapping[str, int], dtype: np.dtype[Any], observe: Observer | None
    ) -> None:
        self._functions = {function.name: function for function in functions}
        self._sizes = sizes
        self._float = dtype
        self._observe = observe

    def _numpy_dtype(self, dtype: DType) -> np.dtype[Any]:
        return self._float if is_float(dtype) else np.dtype({"bool": "?", "i32": "i4"}.get(dtype, "i8"))

    def _size(self, size: Size) -> int:
        return evaluate(size, self._sizes)

    def _shape(self, type_: TensorType) -> tuple[int, ...]:
        return tuple(self._size(size) for size in type_.shape)

    def argument(self, value: Value, given: Mapping[str, Array], what: str) -> Array:
        """Return one argument of the graph as an array of the right shape and dtype."""
        if value.name not in given:
            raise BadInput(f"{what} `{value.name}` is missing")
        array = np.asarray(given[value.name])
        if array.shape != self._shape(value.type):
            raise BadInput(f"{what} `{value.name}` has shape {array.shape}, not {self._shape(value.type)}")
        if not is_float(value.type.dtype) and array.dtype.kind == "f":
            raise BadInput(f"{what} `{value.name}` has numbers of type {array.dtype}, not {value.type.dtype}")
        array = np.asarray(array, self._numpy_dtype(value.type.dtype))
        of = value.type.indexes
        if of is not None and array.size and (array.min() < 0 or array.max() >= self._size(of.size)):
            raise BadInput(f"{what} `{value.name}` has an index outside 0 … {self._size(of.size) - 1} ({of.name})")
        return array

    def primitive(self, node: Node, operands: list[Array]) -> list[Array]:
        """Apply one node."""
        return self._node(node, operands)

    def region(self, region: Region, arguments: list[Array]) -> list[Array]:
        """Run straight-line code."""
        live = dict(zip((value.name for value in region.arguments), arguments, strict=True))
        arguments.clear()
        last: dict[str, int] = {}
        for index, node in enumerate(region.nodes):
            last.update({value.name: index for value in node.inputs})
        last.update({value.name: len(region.nodes) for value in region.results})
        for index, node in enumerate(region.nodes):
            operands = [live[value.name] for value in node.inputs]
            for value in node.inputs:
                if last[value.name] == index:
                    live.pop(value.name, None)
            for value, array in zip(node.outputs, self._node(node, operands), strict=True):
                if value.name in last:
                    live[value.name] = array
                if self._observe is not None:
                    self._observe(value, array)
        return [live[value.name] for value in region.results]

    def _node(self, node: Node, operands: list[Array]) -> list[Array]:
        match node.op:
            case Call(function=name):
                return self.region(self._functions[name].body, operands)
            case Repeat() as op:
                return self._repeat(op, operands)
            case TopK() as op:
                return _top_k(op, operands[0], node.inputs[0].type, self._size(op.into.size))
            case op:
                return [self._single(op, operands, node)]

    def _repeat(self, op: Repeat, operands: list[Array]) -> list[Array]:
        carried, shared = operands[: op.carried], operands[op.carried : op.carried + op.shared]
        stacked = operands[op.carried + op.shared :]
        operands.clear()
        count = self._size(op.stack.size)
        types = [value.type for value in op.body.results[op.carried :]]
        collected = [np.empty((count, *self._shape(type_)), self._numpy_dtype(type_.dtype)) for type_ in types]
        for index in reversed(range(count)) if op.reverse else range(count):
            results = self.region(op.body, [*carried, *shared, *(array[index] for array in stacked)])
            carried = results[: op.carried]
            for whole, part in zip(collected, results[op.carried :], strict=True):
                whole[index] = part
        return [*carried, *collected]

    def _single(self, op: Op, operands: list[Array], node: Node) -> Array:
        types = [value.type for value in node.inputs]
        out = node.output.type
        match op:
            case Constant() | Position():
                return self._made(op)
            case Unary():
                return np.asarray(_unary(op.kind, operands[0]))
            case Binary():
                return np.asarray(_binary(op.kind, *_aligned(operands, types, out)))
            case Where():
                return np.where(*_aligned(operands, types, out))
            case Cast():
                return operands[0].astype(self._numpy_dtype(op.dtype))
            case Dot():
                return _dot(operands, types, out)
            case Reduce() | Scan():
                return _reduced(op, operands[0], types[0])
            case Gather() | Scatter():
                return self._indexed(op, operands, types, out)
            case Rename() | Transpose() | Split() | Merge() | Slice():
                return self._reshaped(op, operands[0], types[0], out)
            case Concat():
                return _concat(op, operands, types)
            case Call() | Repeat() | TopK():
                raise AssertionError("handled by _node")
            case _:
                assert_never(op)

    def _made(self, op: Constant | Position) -> Array:
        if isinstance(op, Constant):
            return np.asarray(op.value, self._numpy_dtype(op.dtype))
        return np.arange(self._size(op.dim.size))

    def _reshaped(
        self, op: Rename | Transpose | Split | Merge | Slice, x: Array, type_: TensorType, out: TensorType
    ) -> Array:
        match op:
            case Rename():
                return x
            case Transpose():
                return _transposed(x, type_, list(op.order))
            case Split() | Merge():
                return self._reshape(op, x, type_, out)
            case Slice():
                start = self._size(op.start)
                index = [slice(None)] * len(type_.dims)
                index[type_.axis(op.dim)] = slice(start, start + self._size(op.into.size))
                return x[tuple(index)]

    def _reshape(self, op: Split | Merge, x: Array, type_: TensorType, out: TensorType) -> Array:
        if isinstance(op, Merge):
            first = type_.axis(op.dims[0])
            rest = [name for name in type_.names if name not in op.dims]
            at = len([name for name in type_.names[:first] if name not in op.dims])
            x = _transposed(x, type_, [*rest[:at], *op.dims, *rest[at:]])
        return x.reshape(self._shape(out))

    def _indexed(self, op: Gather | Scatter, operands: list[Array], types: list[TensorType], out: TensorType) -> Array:
        match op:
            case Gather():
                return self._gather(op, operands, types, out)
            case Scatter():
                return self._scatter(op, operands, types, out)

    def _gather(self, op: Gather, operands: list[Array], types: list[TensorType], out: TensorType) -> Array:
        table, index = operands
        size = self._size(types[0].dim(op.dim).size)
        if index.size and (index.min() < 0 or index.max() >= size):
            raise BadInput(f"an index is outside 0 … {size - 1} ({op.dim})")
        picks: list[Array] = []
        for dim in types[0].dims:
            if dim.name == op.dim:
                picks.append(_spread(index, types[1], out))
            else:
                own = TensorType((dim,), "i64")
                picks.append(_spread(np.arange(self._size(dim.size)), own, out))
        return table[tuple(picks)]

    def _scatter(self, op: Scatter, operands: list[Array], types: list[TensorType], out: TensorType) -> Array:
        x, index = operands
        size = self._size(op.dim.size)
        if index.size and (index.min() < 0 or index.max() >= size):
            raise BadInput(f"an index is outside 0 … {size - 1} ({op.dim.name})")
        places = [np.broadcast_to(_spread(index, types[1], types[0]), x.shape)]
        for dim in out.dims[1:]:
            places.append(_spread(np.arange(self._size(dim.size)), TensorType((dim,), "i64"), types[0]))
        result = np.zeros(self._shape(out), x.dtype)
        np.add.at(result, tuple(np.broadcast_to(place, x.shape) for place in places), x)
        return result


def _transposed(x: Array, type_: TensorType, order: list[str]) -> Array:
    return x.transpose([type_.axis(name) for name in order])


def _spread(x: Array, type_: TensorType, out: TensorType) -> Array:
    """Return `x` with its axes where `out` has them and axes of length one for the rest."""
    order = [name for name in out.names if type_.has(name)]
    x = _transposed(x, type_, order)
    return x.reshape([x.shape[order.index(name)] if name in order else 1 for name in out.names])


def _aligned(operands: list[Array], types: list[TensorType], out: TensorType) -> list[Array]:
    return [_spread(x, type_, out) for x, type_ in zip(operands, types, strict=True)]


def _reduced(op: Reduce | Scan, x: Array, type_: TensorType) -> Array:
    if isinstance(op, Scan):
        return np.cumsum(x, axis=type_.axis(op.over), dtype=x.dtype)
    axes = tuple(type_.axis(name) for name in op.over)
    return np.asarray(getattr(np, op.kind)(x, axis=axes), x.dtype)


def _concat(op: Concat, operands: list[Array], types: list[TensorType]) -> Array:
    order = [op.into if name == op.dims[0] else name for name in types[0].names]
    moved = [
        _transposed(x, type_, [name if wanted == op.into else wanted for wanted in order])
        for x, type_, name in zip(operands, types, op.dims, strict=True)
    ]
    return np.concatenate(moved, axis=order.index(op.into))


def _dot(operands: list[Array], types: list[TensorType], out: TensorType) -> Array:
    """Contract by matrix products, which einsum leaves to the BLAS."""
    letters = {name: index for index, name in enumerate(dict.fromkeys((*types[0].names, *types[1].names)))}
    first, second = ([letters[name] for name in type_.names] for type_ in types)
    result = np.einsum(operands[0], first, operands[1], second, [letters[n] for n in out.names], optimize=True)
    return np.asarray(result, operands[0].dtype)


def _top_k(op: TopK, x: Array, type_: TensorType, count: int) -> list[Array]:
    axis = type_.axis(op.dim)
    order = np.argsort(-x, axis=axis, kind="stable")
    best = np.take(order, np.arange(count), axis=axis)
    return [np.take_along_axis(x, best, axis=axis), best]


def _unary(kind: UnaryKind, x: Array) -> Array:
    match kind:
        case "neg":
            return -x
        case "rsqrt":
            return 1 / np.sqrt(x)
        case "erf":
            return erf(x)
        case "sigmoid":
            # Through the exponential of a negative number, which cannot overflow.
            small = np.exp(-np.abs(x))
            return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)
        case "not":
            return np.logical_not(x)
        case "abs" | "exp" | "log" | "sqrt" | "sin" | "cos" | "tanh" | "floor":
            return np.asarray(getattr(np, kind)(x))
        case _:
            assert_never(kind)


_NUMPY_BINARY: dict[BinaryKind, str] = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "true_divide", "pow": "power", "max": "maximum",
    "min": "minimum", "mod": "mod", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "eq": "equal", "ne": "not_equal", "and": "logical_and", "or": "logical_or",
}  # fmt: skip


def _binary(kind: BinaryKind, a: Array, b: Array) -> Array:
    return np.asarray(getattr(np, _NUMPY_BINARY[kind])(a, b))
