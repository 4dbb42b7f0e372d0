"""A graph with numbers for its free sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from cgc.ir.dims import Dim, evaluate
from cgc.ir.graph import Graph, Node, Region, Value
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


def with_sizes(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """Return a graph without calls and loops in which every size is a number."""

    def dim(one: Dim) -> Dim:
        return Dim(one.name, evaluate(one.size, sizes))

    def value(one: Value) -> Value:
        indexes = dim(one.type.indexes) if one.type.indexes is not None else None
        return Value(one.name, replace(one.type, dims=tuple(map(dim, one.type.dims)), indexes=indexes))

    def op(one: Op) -> Op:
        match one:
            case Position():
                return Position(dim(one.dim))
            case Scatter():
                return Scatter(dim(one.dim), one.over)
            case Split():
                return Split(one.dim, tuple(map(dim, one.into)))
            case Slice():
                return Slice(one.dim, evaluate(one.start, sizes), dim(one.into))
            case TopK():
                return TopK(one.dim, dim(one.into))
            case (
                Constant()
                | Unary()
                | Binary()
                | Where()
                | Cast()
                | Dot()
                | Reduce()
                | Scan()
                | Gather()
                | Rename()
                | Transpose()
                | Merge()
                | Concat()
            ):
                return one
            case Call() | Repeat():
                raise AssertionError("calls are inlined and loops unrolled before")
            case _:
                assert_never(one)

    nodes = tuple(
        Node(op(n.op), tuple(map(value, n.inputs)), tuple(map(value, n.outputs)), n.path, n.location)
        for n in graph.body.nodes
    )
    body = Region(tuple(map(value, graph.body.arguments)), nodes, tuple(map(value, graph.body.results)))
    params = tuple(replace(p, value=value(p.value)) for p in graph.params)
    return replace(graph, symbols=(), params=params, body=body)
