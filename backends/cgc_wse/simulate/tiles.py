"""What a core computes: a node applied to tiles, with real numbers.

A tile is a tensor of its own with smaller dimensions, so that most nodes mean the same on it. Those that speak of
positions (generated positions, tables and indices) are shifted to where the tile begins; sums over nothing give what
changes no sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

from cgc.interpret import Array, apply
from cgc.ir.dims import Dim, evaluate
from cgc.ir.graph import Node, Value
from cgc.ir.ops import Gather, Position, Reduce, ReduceKind, Scatter, Slice
from cgc.ir.types import TensorType
from cgc_wse.partition.layout import Tile
from cgc_wse.partition.rules import shape_of
from cgc_wse.simulate.arrays import lengths

_Key: TypeAlias = tuple[int, tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]


class Arithmetic:
    """Applies the nodes of one program."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._nodes: dict[_Key, tuple[Node, Node]] = {}

    def local(
        self, node: Node, operands: Sequence[Array], given: Sequence[Tile], wanted: Sequence[Tile]
    ) -> list[Array]:
        """Apply `node` to tiles; `wanted` are the results' tiles."""
        match node.op:
            case Position():
                return [np.arange(*wanted[0][0])]
            case Gather(dim):
                return [self._gather(node, dim, operands, given, wanted[0])]
            case Scatter():
                return [self._scatter(node, operands, wanted[0])]
            case Reduce():
                return [self._reduce(node, node.op, operands[0])]
            case _:
                return apply(self._on(node, given, wanted), list(operands))

    def view(self, node: Node, operand: Array, given: Tile, wanted: Tile) -> Array:
        """Apply a node that only shows its operand."""
        (found,) = apply(self._on(node, [given], [wanted]), [operand])
        return found

    def _on(self, node: Node, given: Sequence[Tile], wanted: Sequence[Tile]) -> Node:
        """Return the node with the types of tiles; tiles of equal sizes share one."""
        key = (id(node), tuple(map(lengths, given)), tuple(map(lengths, wanted)))
        found = self._nodes.get(key)
        if found is None:
            op = node.op
            if isinstance(op, Slice):
                size = key[2][0][node.outputs[0].type.axis(op.into.name)]
                op = replace(op, start=evaluate(op.start, self._sizes), into=Dim(op.into.name, size))
            inputs = tuple(_typed(value, shape) for value, shape in zip(node.inputs, key[1], strict=True))
            outputs = tuple(_typed(value, shape) for value, shape in zip(node.outputs, key[2], strict=True))
            # The node itself is kept with the copy: its identity is the key.
            found = self._nodes[key] = (node, Node(op, inputs, outputs))
        return found[1]

    def _reduce(self, node: Node, op: Reduce, x: Array) -> Array:
        """A mean is the sum of what a core has over the number of all entries, so that means of parts add up."""
        type_ = node.inputs[0].type
        axes = tuple(type_.axis(name) for name in op.over)
        match op.kind:
            case "mean":
                shape = dict(shape_of(type_, self._sizes))
                return np.asarray(np.sum(x, axis=axes) / prod(shape[name] for name in op.over), x.dtype)
            case "sum":
                return np.asarray(np.sum(x, axis=axes), x.dtype)
            case "max" | "min":
                return np.asarray(getattr(np, op.kind)(x, axis=axes, initial=_neutral(op.kind, x.dtype)), x.dtype)

    def _gather(self, node: Node, dim: str, operands: Sequence[Array], given: Sequence[Tile], wanted: Tile) -> Array:
        """Look up what lies in the core's part of the table; what lies elsewhere counts as zero."""
        table, index = operands
        start, end = given[0][node.inputs[0].type.axis(dim)]
        inside = (index >= start) & (index < end)
        if not inside.any():
            return np.zeros(lengths(wanted), table.dtype)
        found = self._on(node, given, [wanted])
        (picked,) = apply(found, [table, np.where(inside, index - start, 0)])
        if inside.all():
            return picked
        order = node.outputs[0].type.names
        spread = inside.transpose([node.inputs[1].type.axis(name) for name in order if node.inputs[1].type.has(name)])
        shape = [picked.shape[i] if node.inputs[1].type.has(name) else 1 for i, name in enumerate(order)]
        return np.where(spread.reshape(shape), picked, np.zeros((), picked.dtype))

    def _scatter(self, node: Node, operands: Sequence[Array], wanted: Tile) -> Array:
        """Add what points into the core's part of the result; the rest goes to an entry that is dropped."""
        x, index = operands
        op = node.op
        assert isinstance(op, Scatter)
        start, end = wanted[0]
        inside = (index >= start) & (index < end)
        place = np.where(inside, index - start, end - start)
        size = end - start + 1
        result = Value(
            "",
            TensorType(
                (
                    Dim(op.dim.name, size),
                    *(
                        Dim(d.name, high - low)
                        for d, (low, high) in zip(node.outputs[0].type.dims[1:], wanted[1:], strict=True)
                    ),
                ),
                node.outputs[0].type.dtype,
            ),
        )
        inputs = tuple(_typed(v, a.shape) for v, a in zip(node.inputs, operands, strict=True))
        (found,) = apply(Node(replace(op, dim=Dim(op.dim.name, size)), inputs, (result,)), [x, place])
        return found[:-1]


def _typed(value: Value, shape: tuple[int, ...]) -> Value:
    dims = tuple(Dim(dim.name, size) for dim, size in zip(value.type.dims, shape, strict=True))
    return Value(value.name, TensorType(dims, value.type.dtype))


def _neutral(kind: ReduceKind, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return -np.inf if kind == "max" else np.inf
    limits = np.iinfo(dtype)
    return limits.min if kind == "max" else limits.max


def combined(kind: ReduceKind, a: Array, b: Array) -> Array:
    """Return two parts of a result put together."""
    return np.asarray({"max": np.maximum, "min": np.minimum}.get(kind, np.add)(a, b))
