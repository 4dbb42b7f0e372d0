"""The reference meaning of every primitive against NumPy written by hand, whole models by hand, and bad inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_graphs import BATCH, NESTED, SEQ, SYMBOLS, A, B, C, apply, build, one, program, tensor

from cgc.interpret import BadInput, bind_sizes, interpret
from cgc.ir.dims import Dim, add, divide, symbol
from cgc.ir.graph import Graph
from cgc.ir.ops import (
    BINARY_KINDS,
    REDUCE_KINDS,
    UNARY_KINDS,
    Binary,
    BinaryKind,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Position,
    Reduce,
    ReduceKind,
    Rename,
    Scan,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    UnaryKind,
    Where,
)
from cgc.ir.types import TensorType
from cgc.weights import initialize, random_inputs

Array = np.ndarray[Any, Any]
T = tensor
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3)).astype(np.float32)
Y = RNG.standard_normal((3, 2)).astype(np.float32)
V = RNG.standard_normal(2).astype(np.float32)
CUBE = RNG.standard_normal((2, 3, 4)).astype(np.float32)
ABC = T(A, B, C)


def equal(got: Array, wanted: object, dtype: object = np.float32) -> None:
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wanted)


def close(got: Array, wanted: Any) -> None:
    assert got.shape == np.shape(wanted)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


UNARY: dict[UnaryKind, Any] = {
    "neg": lambda x: -x,
    "abs": abs,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "erf": math.erf,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "floor": math.floor,
}


@pytest.mark.parametrize("kind", [kind for kind in UNARY_KINDS if kind != "not"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unary(kind: UnaryKind, dtype: Any) -> None:
    x = np.abs(X) + 0.25 if kind in ("log", "sqrt", "rsqrt") else X * 3
    x = x.astype(dtype)
    (got,) = apply(Unary(kind), (T(A, B), x), dtype=dtype)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, np.vectorize(UNARY[kind])(x.astype(float)), rtol=1e-5, atol=1e-7)


def test_not() -> None:
    (got,) = apply(Unary("not"), (T(A, dtype="bool"), [True, False]))
    equal(got, [False, True], bool)


def test_sigmoid_does_not_overflow() -> None:
    (got,) = apply(Unary("sigmoid"), (T(C), [-1e30, -80, 80, 1e30]))
    np.testing.assert_allclose(got, [0, math.exp(-80), 1, 1], rtol=1e-5)


BINARY: dict[BinaryKind, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "max": max,
    "min": min,
    "mod": lambda a, b: a - math.floor(a / b) * b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


@pytest.mark.parametrize("kind", [kind for kind in BINARY_KINDS if kind not in ("and", "or")])
def test_binary_aligns_by_name(kind: BinaryKind) -> None:
    a = np.array([[0.5, 1.5, 2.0], [3.0, 4.5, 0.25]])
    b = np.array([[0.5, 2.0], [1.5, 4.5], [1.0, 0.75]])
    (got,) = apply(Binary(kind), (T(A, B), a), (T(B, A), b), dtype=np.float64)
    wanted = [[BINARY[kind](a[i, j], b[j, i]) for j in range(3)] for i in range(2)]
    assert got.dtype == (bool if isinstance(wanted[0][0], np.bool_ | bool) else float)
    np.testing.assert_allclose(got, wanted)


@pytest.mark.parametrize(("kind", "wanted"), [("and", [[1, 0], [0, 0]]), ("or", [[1, 1], [1, 0]])])
def test_logic(kind: BinaryKind, wanted: list[list[int]]) -> None:
    two = T(Dim("p", 2), dtype="bool")
    (got,) = apply(Binary(kind), (two, [True, False]), (T(Dim("q", 2), dtype="bool"), [True, False]))
    equal(got, np.array(wanted, bool), bool)


def test_binary_with_missing_dimensions() -> None:
    (got,) = apply(Binary("sub"), (T(A), V), (T(B, A), Y))
    equal(got, V[None, :] - Y)
    (got,) = apply(Binary("sub"), (T(A), V), (T(B), Y[:, 0]))
    equal(got, V[:, None] - Y[:, 0][None, :])
    (got,) = apply(Binary("mod"), (T(dtype="i64"), -7), (T(dtype="i64"), 3))
    equal(got, 2, np.int64)


def test_where() -> None:
    condition = np.array([True, False, True])
    (got,) = apply(Where(), (T(B, dtype="bool"), condition), (T(A), V), (T(), np.float32(9)))
    equal(got, [[v if c else 9 for v in V] for c in condition])


@pytest.mark.parametrize(
    ("target", "dtype", "wanted"),
    [("i64", np.int64, [-1, 0, 1, 2]), ("i32", np.int32, [-1, 0, 1, 2]), ("bool", bool, [1, 1, 1, 1])],
)
def test_cast_truncates_toward_zero(target: Any, dtype: Any, wanted: list[int]) -> None:
    (got,) = apply(Cast(target), (T(C), [-1.9, -0.5, 1.5, 2.99]))
    equal(got, np.array(wanted, dtype), dtype)


def test_floats_run_in_one_dtype() -> None:
    for dtype in (np.float32, np.float64):
        (got,) = apply(Cast("f16"), (T(A, dtype="i64"), [1, 70000]), dtype=dtype)
        equal(got, [1, 70000], dtype)
    (got,) = interpret(one(Constant(0.1, "f32")), {}, {}, np.float64).values()
    assert got == 0.1 and got.shape == ()


DOTS: list[tuple[tuple[str, ...], TensorType, TensorType, str]] = [
    (("b",), T(A, B), T(B, C), "ab,bc->ac"),
    (("b",), T(A, B), T(C, B), "ab,cb->ac"),
    (("b",), T(B, A), T(C, A, B), "ba,cab->ac"),
    (("a", "b"), T(A, B, C), T(B, A), "abc,ba->c"),
    (("b", "a"), T(A, B), T(A, B), "ab,ab->"),
    ((), T(A, B), T(B, C), "ab,bc->abc"),
    ((), T(A), T(C), "a,c->ac"),
]


@pytest.mark.parametrize(("over", "left", "right", "formula"), DOTS, ids=[case[3] for case in DOTS])
def test_dot(over: tuple[str, ...], left: TensorType, right: TensorType, formula: str) -> None:
    x, y = (np.random.default_rng(1).standard_normal(t.shape) for t in (left, right))  # type: ignore[arg-type]
    (got,) = apply(Dot(over), (left, x), (right, y), dtype=np.float64)
    np.testing.assert_allclose(got, np.einsum(formula, x, y))
    assert got.shape == np.einsum(formula, x, y).shape


@pytest.mark.parametrize("kind", REDUCE_KINDS)
def test_reduce(kind: ReduceKind) -> None:
    by_hand: Any = {"sum": sum, "mean": lambda v: sum(v) / len(v), "max": max, "min": min}[kind]
    (got,) = apply(Reduce(kind, ("c", "a")), (ABC, CUBE))
    close(got, [by_hand([float(CUBE[i, j, k]) for i in range(2) for k in range(4)]) for j in range(3)])
    (got,) = apply(Reduce(kind, ()), (ABC, CUBE))
    equal(got, CUBE)


def test_reduce_of_integers_stays_one() -> None:
    (got,) = apply(Reduce("sum", ("a",)), (T(A, dtype="i32"), [1, 2]))
    equal(got, 3, np.int32)


def test_scan() -> None:
    (got,) = apply(Scan("b"), (ABC, CUBE))
    close(got, np.stack([CUBE[:, : j + 1].astype(float).sum(1) for j in range(3)], 1))
    (got,) = apply(Scan("a"), (T(A, dtype="i32"), [3, 4]))
    equal(got, [3, 7], np.int32)


def test_gather() -> None:
    index = np.array([[2, 0, 1, 2], [1, 1, 0, 2]])
    (got,) = apply(Gather("b"), (T(B, A), Y), (T(Dim("d", 2), C, dtype="i64"), index))
    equal(got, [[[Y[index[d, c], a] for a in range(2)] for c in range(4)] for d in range(2)])


def test_gather_aligns_shared_dimensions() -> None:
    index = np.array([[3, 0], [1, 1], [2, 3]])
    (got,) = apply(Gather("c"), (ABC, CUBE), (T(B, A, dtype="i32"), index))
    equal(got, [[CUBE[a, b, index[b, a]] for a in range(2)] for b in range(3)])
    (got,) = apply(Gather("c"), (ABC, CUBE), (T(B, dtype="i64"), [3, 0, 1]))
    equal(got, [[CUBE[a, b, [3, 0, 1][b]] for a in range(2)] for b in range(3)])


def test_split_and_merge_are_row_major() -> None:
    x = np.arange(8.0).reshape(2, 4)
    (got,) = apply(Split("c", (Dim("l", 2), Dim("r", 2))), (T(A, C), x))
    equal(got, [[[0, 1], [2, 3]], [[4, 5], [6, 7]]])
    (got,) = apply(Merge(("c", "a"), "n"), (T(A, C), x))
    equal(got, [0, 4, 1, 5, 2, 6, 3, 7])
    (got,) = apply(Merge(("c", "a"), "n"), (ABC, CUBE))
    equal(got, [[CUBE[a, b, c] for c in range(4) for a in range(2)] for b in range(3)])
    (got,) = apply(Merge(("a", "c"), "n"), (ABC, CUBE))
    equal(got, np.transpose([[CUBE[a, b, c] for a in range(2) for c in range(4)] for b in range(3)]))


def test_reordering() -> None:
    (got,) = apply(Transpose(("c", "a", "b")), (ABC, CUBE))
    equal(got, [[[CUBE[a, b, c] for b in range(3)] for a in range(2)] for c in range(4)])
    (got,) = apply(Rename((("a", "z"),)), (T(A), V))
    equal(got, V)
    (got,) = apply(Slice("b", 1, Dim("p", 2)), (ABC, CUBE))
    equal(got, CUBE[:, 1:3])


def test_concat_aligns_what_is_beside() -> None:
    (got,) = apply(Concat(("b", "c"), "n"), (T(A, B), X), (T(C, A), CUBE[0, :2].T))
    equal(got, np.array([[*X[a], *CUBE[0, a]] for a in range(2)]))
    (got,) = apply(Concat(("a", "a"), "a"), (T(A, B), X), (T(B, A), Y))
    equal(got, np.array([*X, *Y.T]))


def test_top_k_takes_the_lower_index_of_equals() -> None:
    x = np.array([[1, 5, 5, -2], [0, 0, 0, 0]], np.float32)
    values, indices = apply(TopK("c", Dim("k", 3)), (T(A, C), x))
    equal(values, [[5, 5, 1], [0, 0, 0]])
    equal(indices, [[1, 2, 0], [0, 1, 2]], np.int64)
    values, indices = apply(TopK("a", Dim("k", 1)), (T(A, C), x))
    equal(values, [[1, 5, 5, 0]])
    equal(indices, [[0, 0, 0, 1]], np.int64)


def test_position_and_symbolic_sizes() -> None:
    longer = Dim("longer", add(symbol("seq"), 2))
    graph = build(
        lambda b, inputs, _: [
            b.one(Position(longer)),
            b.one(Slice("longer", symbol("seq"), A), b.one(Position(longer))),
        ],
        {"x": T(SEQ)},
    )
    positions, tail = interpret(graph, {}, {"x": np.zeros(5)}).values()
    equal(positions, range(7), np.int64)
    equal(tail, [5, 6], np.int64)


def test_loops_against_a_python_loop() -> None:
    graph = program(NESTED).graph
    w = initialize(graph, 3)
    x = RNG.standard_normal((2, 4)).astype(np.float32)

    def linear(v: Array, path: str, *at: int) -> Array:
        return np.asarray(v @ w[f"{path}.w"][at] + w[f"{path}.b"][at])

    def mixed(a: Array, i: tuple[int, int]) -> Array:
        mean = a.mean(-1, keepdims=True)
        norm = (a - mean) / np.sqrt(((a - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
        norm = norm * w["o.i.mixed.layer_norm.scale"][i] + w["o.i.mixed.layer_norm.bias"][i]
        return np.asarray(norm * w["o.i.mixed.how"][i] + x)

    def turned(v: Array, path: str) -> Array:
        for t in range(2):
            v = v + np.sin(linear(v, f"{path}.t.linear", t))
        return v

    y = x * w["first"]
    for o in range(3):
        y = y + np.tanh(linear(y, "o.linear", o))
        for i in range(2):
            y = mixed(y, (o, i))
        y = y * np.float32(0.5)
    got = interpret(graph, w, {"x": x})
    close(got["y_out"], y)
    close(got["z_out"], turned(turned(y, "z"), "turned") + x)


def test_weights_and_inputs_are_not_changed() -> None:
    graph = program(NESTED).graph
    w, inputs = initialize(graph, 0), random_inputs(graph, {"batch": 2}, 0)
    before = {name: array.copy() for name, array in {**w, **inputs}.items()}
    first = interpret(graph, w, inputs)
    second = interpret(graph, w, inputs)
    for name, array in {**w, **inputs}.items():
        np.testing.assert_array_equal(array, before[name])
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


TWO = build(
    lambda b, inputs, params: [b.one(Gather("a"), params[0], inputs[1]), inputs[0]],
    {"x": T(BATCH, SEQ), "ids": T(SEQ, dtype="i64", of=A)},
    {"w": T(A, B)},
)
GOOD = {"x": np.zeros((1, 4)), "ids": np.array([0, 1, 1, 0])}


@pytest.mark.parametrize(
    ("inputs", "weights", "says"),
    [
        ({"x": GOOD["x"]}, {"w": X}, "input `ids` is missing"),
        (GOOD, {}, "parameter `w` is missing"),
        (GOOD, {"w": Y}, r"parameter `w` has shape \(3, 2\), not \(2, 3\)"),
        (GOOD, {"w": X[None]}, r"parameter `w` has shape"),
        (GOOD | {"x": np.zeros(4)}, {"w": X}, r"input `x` has 1 axes, not f32\[batch, seq\]"),
        (GOOD | {"x": np.zeros((1, 3))}, {"w": X}, "`seq` is 3 in one input and 4 in `ids`"),
        (GOOD | {"ids": np.array([0, 1, 2, 0])}, {"w": X}, r"input `ids` has an index outside 0 … 1 \(a\)"),
        (GOOD | {"ids": np.array([0, -1, 1, 0])}, {"w": X}, r"index outside 0 … 1 \(a\)"),
        ({"x": np.zeros((1, 10)), "ids": np.zeros(10, int)}, {"w": X}, "`seq` is 10, more than context=9"),
    ],
)
def test_bad_input(inputs: Any, weights: Any, says: str) -> None:
    interpret(TWO, {"w": X}, GOOD)
    with pytest.raises(BadInput, match=says):
        interpret(TWO, weights, inputs)


def test_an_index_from_inside_is_checked_too() -> None:
    graph = build(
        lambda b, inputs, _: [b.one(Gather("a"), inputs[0], b.one(Cast("i64"), inputs[1]))],
        {"x": T(A), "where": T(C)},
    )
    equal(interpret(graph, {}, {"x": V, "where": np.array([0, 1, 1, 0])})["y0"], V[[0, 1, 1, 0]])
    for index in (-1, 2):
        with pytest.raises(BadInput, match=r"outside 0 … 1 \(a\)"):
            interpret(graph, {}, {"x": V, "where": np.array([0, 1, index, 0])})


def test_sizes_are_read_off_the_inputs() -> None:
    assert bind_sizes(TWO, GOOD) == {"batch": 1, "seq": 4}
    assert [symbol.name for symbol in SYMBOLS] == ["batch", "seq"]
    assert bind_sizes(_halves(), {"x": np.zeros(4)}) == {"seq": 4}


def _halves() -> Graph:
    half = Dim("half", divide(symbol("seq"), 2))
    return build(lambda b, inputs, _: [b.one(Slice("seq", 0, half), inputs[0])], {"x": T(SEQ)})


def test_a_size_that_does_not_come_out_is_no_silent_rounding() -> None:
    equal(interpret(_halves(), {}, {"x": np.arange(4)})["y0"], [0, 1])
    with pytest.raises(ValueError, match="3/2"):
        interpret(_halves(), {}, {"x": np.arange(3)})
