"""Write the nodes that a pass adds: primitives, and what is made of a few of them.

Sums and broadcasts follow the names of dimensions. A value may lack dimensions that its type would have: it is then
the same along them, and only `full` writes them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, product
from cgc.ir.graph import NOWHERE, Location, Node, Region, Value
from cgc.ir.ops import (
    Binary,
    BinaryKind,
    Cast,
    Constant,
    Gather,
    Op,
    Position,
    Reduce,
    Rename,
    Transpose,
    Unary,
    UnaryKind,
    Where,
)
from cgc.ir.types import DType, TensorType


def spare_name(name: str, taken: Iterable[str]) -> str:
    """Return `name` with as many primes behind it as make it none of `taken`."""
    known = set(taken)
    while name in known:
        name += "'"
    return name


class Emitter:
    """Appends nodes to one region; numbers and positions are written once in it."""

    def __init__(self, builder: Builder, prefix: str = "") -> None:
        self.builder = builder
        self._prefix = prefix
        self._path = ""
        self._location = NOWHERE
        self._known: dict[object, Value] = {}
        self._taken = 0

    def region(self) -> Emitter:
        """Return an emitter for a region inside this one."""
        return Emitter(self.builder.region(), self._prefix)

    def at(self, path: str, location: Location) -> None:
        """Let what follows stand at a place of the user's model, below this emitter's prefix."""
        self._path = ".".join(part for part in (self._prefix, path) if part)
        self._location = location

    def value(self, wish: str, type: TensorType) -> Value:
        """Return a new argument."""
        return self.builder.value(wish, type)

    def finish(self, arguments: Iterable[Value], results: Iterable[Value]) -> Region:
        """Return the region written so far."""
        return self.builder.finish(tuple(arguments), tuple(results))

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes written so far."""
        return self.builder.finish((), ()).nodes

    def take(self) -> tuple[Node, ...]:
        """Return the nodes written since the last time."""
        nodes = self.nodes()
        taken, self._taken = nodes[self._taken :], len(nodes)
        return taken

    # ---- primitives

    def add(self, op: Op, *inputs: Value, wish: str = "") -> tuple[Value, ...]:
        """Append a node and return its results."""
        return self.builder.add(op, *inputs, wish=wish, path=self._path, location=self._location)

    def one(self, op: Op, *inputs: Value, wish: str = "") -> Value:
        """Append a node and return its only result."""
        (value,) = self.add(op, *inputs, wish=wish)
        return value

    def source(self, op: Constant | Position) -> Value:
        """Return a number, or the positions along a dimension."""
        key = (op, type(op.value) if isinstance(op, Constant) else None)
        if key not in self._known:
            self._known[key] = self.one(op)
        return self._known[key]

    def number(self, value: float, dtype: DType) -> Value:
        """Return a scalar."""
        return self.source(Constant(float(value), dtype))

    def binary(self, kind: BinaryKind, a: Value, b: Value | float) -> Value:
        """Return `a kind b`; a number takes the dtype of `a`."""
        other = b if isinstance(b, Value) else self.number(b, a.type.dtype)
        return self.one(Binary(kind), a, other)

    def mul(self, a: Value, b: Value | float) -> Value:
        """Return `a · b`."""
        return self.binary("mul", a, b)

    def unary(self, kind: UnaryKind, x: Value) -> Value:
        """Return `kind(x)`."""
        return self.one(Unary(kind), x)

    def where(self, condition: Value, a: Value, b: Value | float) -> Value:
        """Return `a` where the condition holds, else `b`; a number takes the dtype of `a`."""
        other = b if isinstance(b, Value) else self.number(b, a.type.dtype)
        return self.one(Where(), condition, a, other)

    def cast(self, x: Value, dtype: DType) -> Value:
        """Return `x` in another dtype."""
        return x if x.type.dtype == dtype else self.one(Cast(dtype), x)

    def transpose(self, x: Value, order: tuple[str, ...]) -> Value:
        """Return `x` with its dimensions in this order."""
        return x if x.type.names == order else self.one(Transpose(order), x)

    def sum(self, x: Value, over: tuple[str, ...]) -> Value:
        """Return `x` summed over those of its dimensions that `over` names."""
        names = tuple(name for name in x.type.names if name in over)
        return self.one(Reduce("sum", names), x) if names else x

    # ---- what is made of them

    def zeros(self, type: TensorType) -> Value:
        """Return zeros of this type."""
        return self.full(self.number(0.0, type.dtype), type)

    def widened(self, x: Value, dims: tuple[Dim, ...]) -> Value:
        """Return `x` with those of `dims` that it lacks, the same along them."""
        for dim in dims:
            if not x.type.has(dim.name):
                x = self.one(Where(), self._everywhere(dim), x, x)
        return x

    def full(self, x: Value, type: TensorType) -> Value:
        """Return `x` with all dimensions of `type`, in its order."""
        return self.transpose(self.widened(x, type.dims), type.names)

    def sum_to(self, x: Value, whole: TensorType, part: TensorType) -> Value:
        """Return `x`, a value over the dimensions of `whole`, summed over those that `part` lacks."""
        gone = [dim for dim in whole.dims if not part.has(dim.name)]
        lacking = [dim for dim in gone if not x.type.has(dim.name)]
        x = self.sum(x, tuple(dim.name for dim in gone))
        return self._counted("mul", x, lacking) if lacking else x

    def per_count(self, x: Value, dims: Sequence[Dim]) -> Value:
        """Return `x` divided by the number of entries of `dims`."""
        return self._counted("div", x, dims)

    def reversed(self, x: Value, dim: Dim) -> Value:
        """Return `x` with its entries along `dim` from the last to the first."""
        name = spare_name(dim.name, x.type.names)
        backward = self._backward(Dim(name, dim.size))
        return self.one(Rename(((name, dim.name),)), self.one(Gather(dim.name), x, backward))

    def _counted(self, kind: BinaryKind, x: Value, dims: Sequence[Dim]) -> Value:
        # 16 bits cannot hold a large count, though they may hold the result.
        wide: DType = "f32" if x.type.dtype in ("f16", "bf16") else x.type.dtype
        result = self.binary(kind, self.cast(x, wide), self.count(dims, wide))
        return self.cast(result, x.type.dtype)

    def _backward(self, dim: Dim) -> Value:
        """Return the positions along `dim` from the last to the first."""
        key = ("backward", dim)
        if key not in self._known:
            positions = self.source(Position(dim))
            last = self.one(Reduce("max", (dim.name,)), positions)
            self._known[key] = self.binary("sub", last, positions)
        return self._known[key]

    def count(self, dims: Sequence[Dim], dtype: DType) -> Value:
        """Return the number of entries of `dims` as a scalar."""
        known = product(tuple(dim.size for dim in dims if isinstance(dim.size, int)))
        assert isinstance(known, int)
        result = self.number(float(known), dtype)
        for dim in dims:
            if not isinstance(dim.size, int):
                result = self.mul(result, self._length(dim, dtype))
        return result

    def _length(self, dim: Dim, dtype: DType) -> Value:
        key = ("length", dim, dtype)
        if key not in self._known:
            last = self.one(Reduce("max", (dim.name,)), self.source(Position(dim)))
            self._known[key] = self.binary("add", self.cast(last, dtype), 1.0)
        return self._known[key]

    def _everywhere(self, dim: Dim) -> Value:
        key = ("everywhere", dim)
        if key not in self._known:
            self._known[key] = self.one(Binary("ge"), self.source(Position(dim)), self.source(Constant(0, "i64")))
        return self._known[key]
