"""Small graphs built node by node, random ones among them, for the tests of the graph, its passes and its meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, multiply, symbol
from cgc.ir.graph import Function, Graph, Init, Location, Param, Symbol, Value
from cgc.ir.ops import (
    Binary,
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
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)
from cgc.ir.rules import RuleViolation
from cgc.ir.types import DType, TensorType
from cgc.ir.verify import verify
from cgc.program import Program

BATCH = Dim("batch", symbol("batch"))
SEQ = Dim("seq", symbol("seq"))
A, B, C = Dim("a", 2), Dim("b", 3), Dim("c", 4)
SYMBOLS = (Symbol("batch"), Symbol("seq", Dim("context", 9)))
PLACE = Location("a file.cg", 3, 5, 3, 9)

Arrays = dict[str, np.ndarray[Any, Any]]
Body = Callable[[Builder, Sequence[Value], Sequence[Value]], Sequence[Value]]


def tensor(*dims: Dim, dtype: DType = "f32", of: Dim | None = None) -> TensorType:
    """Return a tensor type; `of` is the dimension that its entries index."""
    return TensorType(dims, dtype, of)


def build(
    body: Body,
    inputs: Mapping[str, TensorType],
    params: Mapping[str, TensorType] | None = None,
    functions: tuple[Function, ...] = (),
) -> Graph:
    """Return a valid graph whose outputs `y0`, `y1`, … are what `body` returns for the inputs and parameters."""
    builder = Builder(Names(), {function.name: function for function in functions}.__getitem__)
    values = [builder.value(name, type_) for name, type_ in inputs.items()]
    trained = [Param(builder.value(name, type_), Init("normal", std=0.5)) for name, type_ in (params or {}).items()]
    weights = [param.value for param in trained]
    results = tuple(body(builder, values, weights))
    region = builder.finish((*values, *weights), results)
    names = tuple(f"y{index}" for index in range(len(results)))
    return verify(Graph("sample", SYMBOLS, tuple(trained), functions, region, names))


def one(op: Op, *types: TensorType) -> Graph:
    """Return the graph that applies one op to inputs `x0`, `x1`, … of these types."""
    return build(lambda builder, inputs, _: builder.add(op, *inputs), {f"x{i}": t for i, t in enumerate(types)})


def apply(op: Op, *operands: tuple[TensorType, Any], dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    """Run one op on arrays in the interpreter."""
    graph = one(op, *(type_ for type_, _ in operands))
    return list(interpret(graph, {}, {f"x{i}": x for i, (_, x) in enumerate(operands)}, dtype).values())


def program(text: str, **overrides: int | float | bool | str) -> Program:
    """Return the only model of a text."""
    (result,) = elaborate_file(text, "test.cg", overrides).programs
    return result


NESTED = """
model nested(width = 4, outer = 3, inner = 2) {
    input x[batch, width]
    param first[width] ~ normal(std=1)
    y = x * first
    repeat outer as o {
        y = y + tanh(linear(y, width -> width, std=0.5))
        repeat inner as i {
            y = mixed(y, x)
        }
        y = y * 0.5
    }
    z = turned(y)
    output y_out = y
    output z_out = turned(z) + x
}

block mixed(a[batch, width], b[batch, width]) {
    param how[width] ~ normal(std=1)
    return layer_norm(a, over width) * how + b
}

block turned(x[batch, width]) {
    repeat inner as t {
        x = x + sin(linear(x, width -> width, std=0.3))
    }
    return x
}
"""
"""Loops in loops, in blocks, and calls in all of them."""


_POOL: tuple[Op, ...] = (
    Constant(0.5, "f32", "1 / 2"),
    Constant(float("-inf"), "f32"),
    Constant(True, "bool"),
    Constant(-3, "i64"),
    Position(SEQ),
    Position(A),
    Unary("exp"),
    Unary("neg"),
    Unary("not"),
    *(Binary(kind) for kind in ("add", "mul", "lt", "and", "max")),
    Where(),
    Cast("f16"),
    Cast("f32"),
    Dot(("a",)),
    Dot(()),
    Reduce("sum", ("a",)),
    Reduce("max", ("b", "a")),
    Scan("b"),
    Gather("a"),
    Rename((("a", "e"), ("b", "f'"))),
    Transpose(("b", "a")),
    Split("c", (Dim("left", 2), Dim("right", 2))),
    Merge(("b", "a"), "both"),
    Merge(("batch", "seq"), "rows"),
    Slice("b", 1, Dim("part", 2)),
    Concat(("b", "b"), "twice"),
    Concat(("seq", "seq"), "long"),
    TopK("b", Dim("best", 1)),
    Slice("long", multiply(symbol("seq"), 1), Dim("seq", symbol("seq"))),
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw a valid graph of up to a dozen nodes, with a loop now and then."""
    functions: dict[str, Function] = {}
    builder = Builder(Names(), functions.__getitem__)
    inputs = [
        builder.value("x", tensor(BATCH, SEQ, A, B)),
        builder.value("m", tensor(A, B)),
        builder.value("ids", tensor(BATCH, dtype="i64", of=A)),
    ]
    params = [
        Param(builder.value("w", tensor(A, C)), Init("uniform", limit=0.25), PLACE),
        Param(builder.value("h.w", tensor(Dim("turns", 2), A)), Init("truncated_normal", 1.0, 0.02), stacked=1),
    ]
    known = [*inputs, params[0].value]
    for op in draw(st.lists(st.sampled_from(_POOL), max_size=12)):
        count = _arity(op)
        operands = draw(st.lists(st.sampled_from(known), min_size=count, max_size=count))
        try:
            known += builder.add(op, *operands, path=draw(st.sampled_from(["", "h.a"])), location=PLACE)
        except RuleViolation:
            continue
    if draw(st.booleans()):
        known.append(_loop(builder, draw(st.sampled_from([v for v in known if v.type.has("a")])), params[1].value))
    results = tuple(draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)))
    body = builder.finish((*inputs, *(param.value for param in params)), results)
    names = tuple(f"y{index}" for index in range(len(results)))
    return verify(Graph("random", SYMBOLS, tuple(params), (), body, names, PLACE))


def _arity(op: Op) -> int:
    match op:
        case Constant() | Position():
            return 0
        case Binary() | Dot() | Gather() | Concat():
            return 2
        case Where():
            return 3
        case _:
            return 1


def _loop(builder: Builder, carried: Value, stacked: Value) -> Value:
    """Add a loop that carries any value, and sees another and a slice of `h.w` without using them."""
    inside = builder.region()
    x = inside.value("x", carried.type)
    shared = inside.value("shared", carried.type)
    w = inside.value("w", tensor(A))
    twice = inside.one(Transpose(x.type.names), x, path="h.x")
    body = inside.finish((x, shared, w), (twice,))
    return builder.one(Repeat("h", Dim("turns", 2), 1, 1, body), carried, carried, stacked, wish="looped", path="h")
