"""Every primitive in ONNX Runtime and ONNX's reference evaluator, as functions and flat, against the NumPy meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx_programs import BATCH, KEY, SEQ, build, check_file, compare, compare_at, sample, tensor

from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, multiply, subtract, symbol
from cgc.ir.graph import Value
from cgc.ir.ops import (
    BINARY_KINDS,
    COMPARISONS,
    LOGICAL,
    OPS,
    REDUCE_KINDS,
    UNARY_KINDS,
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
from cgc.ir.types import DTYPES, DType, TensorType
from cgc.program import Program

FLOATS: tuple[DType, ...] = ("f64", "f32", "f16", "bf16")
NUMBERS: tuple[DType, ...] = (*FLOATS, "i64", "i32")
A, B, C = Dim("a", 4), Dim("b", 6), Dim("c", 5)
X = tensor(BATCH, SEQ, A, B)
X_OF_B_C = tensor(SEQ, BATCH, B, C)
ONE = Dim("one", 1)


def one(op: Op, *types: TensorType) -> Program:
    """Return the program that applies one op to inputs of these types."""

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        return builder.add(op, *inputs)

    return build(body, {f"x{index}": type for index, type in enumerate(types)})


def weighted(op: Op, x: TensorType, w: TensorType, flipped: bool = False) -> Program:
    """Return the program that applies one op to an input and a parameter."""

    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        operands = (params[0], inputs[0]) if flipped else (inputs[0], params[0])
        return builder.add(op, *operands)

    return build(body, {"x": x}, {"w": w})


def _cases() -> dict[str, Program]:
    half = Dim("half", 3)
    pairs = (Dim("pair", 2), Dim("each", 3))
    longer = Dim("longer", multiply(symbol("seq"), 2))
    index = tensor(BATCH, SEQ, dtype="i64", of=A)
    tail = Dim("tail", subtract(symbol("seq"), 0))
    cases: dict[str, Program] = {
        "dot vector": one(Dot(("a",)), tensor(A), tensor(A)),
        "dot matrix": one(Dot(("a",)), tensor(BATCH, SEQ, A), tensor(A, C)),
        "dot matrix on the left": one(Dot(("a",)), tensor(C, A), tensor(BATCH, SEQ, A)),
        "dot two reduced": one(Dot(("b", "a")), X, tensor(A, C, B)),
        "dot batched": one(Dot(("b",)), X, tensor(BATCH, KEY, A, B)),
        "dot batched rows only": one(Dot(("b",)), X, tensor(BATCH, B)),
        "dot batched no rows": one(Dot(("b",)), tensor(BATCH, B), tensor(B, BATCH)),
        "dot all reduced": one(Dot(("a", "b", "seq", "batch")), X, X),
        "dot outer": one(Dot(()), tensor(SEQ, A), tensor(C, A)),
        "dot kept on both sides": one(Dot(("seq",)), tensor(A, SEQ, BATCH, B), tensor(SEQ, C, BATCH, half)),
        "dot f64": one(Dot(("a",)), tensor(SEQ, A, dtype="f64"), tensor(A, dtype="f64")),
        "gather rows": one(Gather("a"), tensor(A, B), index),
        "gather inner": one(Gather("a"), tensor(C, A, B), index),
        "gather scalar": one(Gather("a"), tensor(A, B), tensor(dtype="i64", of=A)),
        "gather aligned": one(Gather("a"), X, index),
        "gather aligned in part": one(Gather("a"), tensor(SEQ, A, B), tensor(C, SEQ, dtype="i32", of=A)),
        "gather aligned whole": one(Gather("a"), tensor(BATCH, SEQ, A), index),
        "gather aligned last": one(Gather("a"), tensor(B, SEQ, A), tensor(SEQ, dtype="i64", of=A)),
        "scatter": one(Scatter(A, ("batch", "seq")), tensor(BATCH, SEQ, B), index),
        "scatter inner": one(Scatter(A, ("seq", "batch")), tensor(B, SEQ, C, BATCH), index),
        "scatter scalars": one(Scatter(A, ("batch", "seq")), tensor(SEQ, BATCH), index),
        "scatter everything to one place": one(Scatter(A, ("seq",)), tensor(SEQ, B), tensor(dtype="i64", of=A)),
        "scatter over what the index lacks": one(Scatter(A, ("seq", "b")), X_OF_B_C, tensor(SEQ, dtype="i32", of=A)),
        "scatter aligned": one(Scatter(A, ("seq",)), tensor(SEQ, BATCH, B), index),
        "scatter aligned whole": one(Scatter(A, ()), tensor(BATCH, B, SEQ), index),
        "scatter i64": one(Scatter(A, ("seq",)), tensor(SEQ, B, dtype="i64"), tensor(SEQ, dtype="i64", of=A)),
        "scatter onto a free size": one(Scatter(KEY, ("a",)), tensor(A, SEQ), tensor(A, dtype="i64", of=ONE)),
        "split": one(Split("b", pairs), X),
        "split first": one(Split("a", (Dim("left", 2), Dim("right", 2))), tensor(A, SEQ, BATCH)),
        "merge": one(Merge(("a", "b"), "ab"), X),
        "merge dynamic": one(Merge(("batch", "seq"), "rows"), X),
        "merge apart": one(Merge(("b", "seq"), "bs"), X),
        "merge backwards": one(Merge(("seq", "batch"), "rows"), X),
        "merge one": one(Merge(("a",), "other"), X),
        "rename": one(Rename((("seq", "key"), ("a", "e"))), X),
        "transpose": one(Transpose(("b", "seq", "a", "batch")), X),
        "slice": one(Slice("b", 2, half), X),
        "slice dynamic": one(Slice("seq", 0, tail), X),
        "concat": one(Concat(("b", "half"), "whole"), X, tensor(BATCH, A, SEQ, half)),
        "concat dynamic": one(Concat(("seq", "key"), "both"), tensor(SEQ, A), tensor(A, KEY)),
        "concat one": one(Concat(("b",), "whole"), X),
        "scan": one(Scan("seq"), X),
        "scan i64": one(Scan("a"), tensor(SEQ, A, dtype="i64")),
        "top_k": one(TopK("b", half), X),
        "top_k first axis": one(TopK("a", Dim("k", 2)), tensor(A, SEQ)),
        "where": one(Where(), tensor(B, dtype="bool"), tensor(SEQ, A), tensor(A)),
        "where bool": one(Where(), tensor(SEQ, dtype="bool"), tensor(dtype="bool"), tensor(A, dtype="bool")),
        "position known": one(Position(A)),
        "position": build(lambda b, _, __: [b.one(Position(SEQ)), b.one(Position(longer))], {"x": tensor(BATCH, SEQ)}),
    }
    for kind in ("sum", "max", "min"):
        cases[f"reduce {kind} i64"] = one(Reduce(kind, ("a",)), tensor(SEQ, A, dtype="i64"))
    for kind in REDUCE_KINDS:
        cases[f"reduce {kind}"] = one(Reduce(kind, ("b", "seq")), X)
        cases[f"reduce {kind} whole"] = one(Reduce(kind, ("seq", "batch", "a", "b")), X)
        cases[f"reduce {kind} nothing"] = one(Reduce(kind, ()), tensor(SEQ, A))
    return cases


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_primitive(name: str, seed: int) -> None:
    compare_at(CASES[name], seed)


WEIGHTS: dict[str, tuple[TensorType, TensorType, tuple[str, ...], list[int]]] = {
    "matrix": (tensor(BATCH, SEQ, A), tensor(A, C), ("a",), [4, 5]),
    "vector": (tensor(BATCH, SEQ, A), tensor(A), ("a",), [4]),
    "heads out": (tensor(BATCH, SEQ, A), tensor(A, C, B), ("a",), [4, 30]),
    "heads in": (X, tensor(A, B, C), ("a", "b"), [24, 5]),
    "heads in, otherwise ordered": (X, tensor(B, A, C), ("a", "b"), [24, 5]),
    "tied": (tensor(BATCH, SEQ, A), tensor(C, A), ("a",), [5, 4]),
    "tied with heads": (X, tensor(C, B, A), ("a", "b"), [5, 24]),
    "tied, one row": (tensor(A), tensor(C, A), ("a",), [5, 4]),
    "tied, rows": (tensor(SEQ, A), tensor(C, A), ("a",), [5, 4]),
    "in the middle": (X, tensor(C, A, Dim("d", 2)), ("a",), [5, 4, 2]),
    "shared": (X, tensor(A, B), ("b",), [4, 6]),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("flipped", [False, True])
def test_weight(name: str, flipped: bool, tmp_path: Path) -> None:
    x, w, over, stored = WEIGHTS[name]
    program = weighted(Dot(over), x, w, flipped)
    compare_at(program, 3)
    model = check_file(program, tmp_path, weights={"w": np.zeros(w.shape, np.float32)})
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [stored]


@pytest.mark.parametrize("kind", UNARY_KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_unary(kind: str, dtype: DType) -> None:
    if dtype in ("f16", "bf16"):
        return
    fits = {"not": ("bool",), "neg": ("f64", "f32", "i64", "i32"), "abs": ("f64", "f32", "i64", "i32")}
    if dtype not in fits.get(kind, ("f64", "f32")):
        return
    program = one(Unary(kind), tensor(BATCH, A, dtype=dtype))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    inputs = sample({"x0": program.graph.inputs[0].type}, {"batch": 3}, rng)
    if kind in ("log", "sqrt", "rsqrt"):
        inputs["x0"] = np.abs(inputs["x0"]) + inputs["x0"].dtype.type(0.1)
    compare(program, {}, inputs, 1e-6)


def _binary_dtypes(kind: str) -> list[DType]:
    if kind in LOGICAL:
        return ["bool"]
    floats: list[DType] = ["f32", "f64"]
    if kind == "div":
        return floats
    return [*floats, "i64", "i32", *(["bool"] if kind in ("eq", "ne") else [])]  # type: ignore[list-item]


@pytest.mark.parametrize("kind", BINARY_KINDS)
@pytest.mark.parametrize(
    "dims", [((BATCH, SEQ, A), (A,)), ((A,), (SEQ, B, A)), ((A, SEQ), (SEQ, B)), ((), (SEQ,)), ((SEQ, A), (A, SEQ))]
)
def test_binary(kind: str, dims: tuple[tuple[Dim, ...], tuple[Dim, ...]]) -> None:
    rng = np.random.default_rng(1)
    for dtype in _binary_dtypes(kind):
        program = one(Binary(kind), tensor(*dims[0], dtype=dtype), tensor(*dims[1], dtype=dtype))  # type: ignore[arg-type]
        types = {value.name: value.type for value in program.graph.inputs}
        inputs = sample(types, {"batch": 2, "seq": 3}, rng)
        if kind == "pow":
            inputs["x0"] = np.abs(inputs["x0"])
            if dtype in ("i64", "i32"):
                inputs["x1"] = np.abs(inputs["x1"])
        if kind in COMPARISONS and dtype != "bool" and dims[0] == dims[1][::-1]:
            inputs["x1"] = np.ascontiguousarray(inputs["x0"].T)
        compare(program, {}, inputs, 1e-6)


@pytest.mark.parametrize("source", ["f64", "f32", "i64", "i32", "bool"])
@pytest.mark.parametrize("target", ["f64", "f32", "i64", "i32", "bool"])
def test_cast(source: DType, target: DType) -> None:
    program = one(Cast(target), tensor(BATCH, A, dtype=source))
    types = {"x0": program.graph.inputs[0].type}
    inputs = sample(types, {"batch": 3}, np.random.default_rng(2))
    if source in ("f64", "f32"):
        inputs["x0"] = (inputs["x0"] * 5).astype(inputs["x0"].dtype)
    compare(program, {}, inputs)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1.5, "f32"), (float("-inf"), "f32"), (0.1, "f64"), (-3, "i64"), (7, "i32"), (True, "bool"), (False, "bool")],
)
def test_constant(value: float, dtype: DType) -> None:
    compare_at(one(Constant(value, dtype)), 0)


def test_result_that_is_an_input_or_given_twice() -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        doubled = builder.one(Binary("add"), inputs[0], inputs[0])
        return [inputs[0], doubled, doubled, params[0], builder.one(Rename((("a", "e"),)), doubled)]

    compare_at(build(body, {"x": tensor(SEQ, A)}, {"w": tensor(A, B)}), 0)


def test_ties_go_to_the_lower_index() -> None:
    program = one(TopK("b", Dim("k", 3)), tensor(SEQ, B))
    compare(program, {}, {"x0": np.array([[1, 2, 2, 0, 2, 1], [0, 0, 0, 0, 0, 0]], np.float32)})


CONFORMANCE: dict[str, tuple[Callable[[DType], Program], tuple[DType, ...]]] = {
    "dot": (lambda t: one(Dot(("a",)), tensor(BATCH, SEQ, A, dtype=t), tensor(A, C, dtype=t)), FLOATS),
    "dot batched": (lambda t: one(Dot(("b",)), tensor(BATCH, SEQ, B, dtype=t), tensor(BATCH, KEY, B, dtype=t)), FLOATS),
    "dot outer": (lambda t: one(Dot(()), tensor(SEQ, dtype=t), tensor(C, dtype=t)), FLOATS),
    "gather": (lambda t: one(Gather("a"), tensor(A, B, dtype=t), tensor(SEQ, dtype="i64", of=A)), DTYPES),
    "scatter": (
        lambda t: one(Scatter(A, ("seq",)), tensor(SEQ, B, dtype=t), tensor(SEQ, dtype="i64", of=A)),
        ("f32", "f64"),
    ),
    "split": (lambda t: one(Split("b", (Dim("p", 2), Dim("e", 3))), tensor(SEQ, B, dtype=t)), DTYPES),
    "merge": (lambda t: one(Merge(("a", "b"), "ab"), tensor(SEQ, A, B, dtype=t)), DTYPES),
    "rename": (lambda t: one(Rename((("a", "e"),)), tensor(SEQ, A, dtype=t)), DTYPES),
    "transpose": (lambda t: one(Transpose(("a", "seq")), tensor(SEQ, A, dtype=t)), DTYPES),
    "slice": (lambda t: one(Slice("b", 2, Dim("h", 3)), tensor(SEQ, B, dtype=t)), DTYPES),
    "concat": (lambda t: one(Concat(("a", "b"), "ab"), tensor(SEQ, A, dtype=t), tensor(SEQ, B, dtype=t)), DTYPES),
    "scan": (lambda t: one(Scan("a"), tensor(SEQ, A, dtype=t)), ("f32", "f64", "i32", "i64")),
    "top_k": (lambda t: one(TopK("b", Dim("k", 2)), tensor(SEQ, B, dtype=t)), ("f32", "f64", "i32", "i64")),
    "where": (
        lambda t: one(Where(), tensor(SEQ, dtype="bool"), tensor(SEQ, A, dtype=t), tensor(A, dtype=t)),
        DTYPES,
    ),
    "constant": (lambda t: one(Constant(True if t == "bool" else 1, t)), DTYPES),
    **{
        f"reduce {kind}": (lambda t, kind=kind: one(Reduce(kind, ("a",)), tensor(SEQ, A, dtype=t)), NUMBERS)
        for kind in ("sum", "max", "min")
    },
    "reduce mean": (lambda t: one(Reduce("mean", ("a",)), tensor(SEQ, A, dtype=t)), FLOATS),
}
"""A graph of each primitive for any dtype, and the dtypes it has."""

LACKING = {
    *((name, "bf16") for name in CONFORMANCE),
    ("dot outer", "f16"),
}
"""Where ONNX Runtime has no kernel on a processor, or may have none: there the file is checked, and run in ONNX's
reference evaluator where that knows the dtype."""


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, (_, dtypes) in CONFORMANCE.items() for dtype in dtypes]
)
def test_conformance(name: str, dtype: DType, tmp_path: Path) -> None:
    """Checker, shape inference, ONNX Runtime and the reference evaluator on one small graph."""
    program = CONFORMANCE[name][0](dtype)
    check_file(program, tmp_path)
    if (name, dtype) in LACKING:
        return
    tolerance = 2e-3 if dtype == "f16" else 1e-5
    compare_at(program, 5, tolerance)


def test_every_op_is_covered() -> None:
    tested: set[type[Op]] = {type(node.op) for program in CASES.values() for node in program.graph.body.nodes}
    assert tested | {Unary, Binary, Cast, Constant, Call, Repeat} == set(OPS)
