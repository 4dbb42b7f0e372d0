"""Every primitive as emitted PyTorch source against the NumPy meaning, on several shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cgc_torch.live import load_weights, to_torch
from onnx_programs import BATCH, KEY, NORMAL, SEQ, SYMBOLS, build, function, largest_difference, sample, tensor
from test_onnx_primitives import CASES, one

from cgc.interpret import interpret
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim
from cgc.ir.graph import Function, Graph, Param, Value
from cgc.ir.ops import (
    BINARY_KINDS,
    LOGICAL,
    OPS,
    UNARY_KINDS,
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
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
from cgc.ir.types import DType
from cgc.ir.verify import verify
from cgc.program import Program

A, B, C = Dim("a", 4), Dim("b", 6), Dim("c", 5)
LAYERS, ROUNDS = Dim("layers", 3), Dim("rounds", 2)
X = tensor(BATCH, SEQ, A, B)

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


def compare(program: Program, weights: Arrays, inputs: Arrays, tolerance: float = 1e-5) -> None:
    """Check the live module, which is the emitted source, against the reference."""
    double = any(value.type.dtype == "f64" for value in program.graph.body.arguments)
    expected = interpret(program.graph, weights, inputs, np.float64 if double else np.float32)
    module = to_torch(program)
    if weights:
        load_weights(module, program, weights)
    with torch.no_grad():
        result = module(**{name: torch.from_numpy(np.asarray(array)) for name, array in inputs.items()})
    found = result if isinstance(result, dict) else {program.graph.outputs[0]: result}
    assert list(found) == list(program.graph.outputs)
    for name, value in zip(program.graph.outputs, program.graph.body.results, strict=True):
        got = found[name].detach().numpy()
        wanted = np.asarray(expected[name])
        assert (
            str(got.dtype)
            == {"f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "bool": "bool"}[value.type.dtype]
        )
        assert largest_difference(wanted.astype(got.dtype), got) <= tolerance, name


def compare_at(program: Program, seed: int, tolerance: float = 1e-5) -> None:
    rng = np.random.default_rng(seed)
    sizes = {"batch": int(rng.integers(1, 4)), "seq": int(rng.integers(1, 7))}
    weights = sample({param.name: param.type for param in program.graph.params}, sizes, rng)
    compare(program, weights, sample({v.name: v.type for v in program.graph.inputs}, sizes, rng), tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_primitive(name: str, seed: int) -> None:
    compare_at(CASES[name], seed)


@pytest.mark.parametrize("kind", UNARY_KINDS)
def test_unary(kind: str) -> None:
    fits: dict[str, list[DType]] = {"not": ["bool"], "neg": ["f64", "f32", "i64", "i32"], "abs": ["f32", "i64", "i32"]}
    for dtype in fits.get(kind, ["f64", "f32"]):
        program = one(Unary(kind), tensor(BATCH, A, dtype=dtype))  # type: ignore[arg-type]
        inputs = sample({"x0": program.graph.inputs[0].type}, {"batch": 3}, np.random.default_rng(0))
        if kind in ("log", "sqrt", "rsqrt"):
            inputs["x0"] = np.abs(inputs["x0"]) + inputs["x0"].dtype.type(0.1)
        compare(program, {}, inputs, 1e-6)


def _dtypes(kind: str) -> list[DType]:
    if kind in LOGICAL:
        return ["bool"]
    if kind == "div":
        return ["f32", "f64"]
    return ["f32", "f64", "i64", "i32"]


@pytest.mark.parametrize("kind", BINARY_KINDS)
@pytest.mark.parametrize(
    "dims", [((BATCH, SEQ, A), (A,)), ((A,), (SEQ, B, A)), ((A, SEQ), (SEQ, B)), ((), (SEQ,)), ((SEQ, A), (A, SEQ))]
)
def test_binary(kind: str, dims: tuple[tuple[Dim, ...], tuple[Dim, ...]]) -> None:
    for dtype in _dtypes(kind):
        program = one(Binary(kind), tensor(*dims[0], dtype=dtype), tensor(*dims[1], dtype=dtype))  # type: ignore[arg-type]
        types = {value.name: value.type for value in program.graph.inputs}
        inputs = sample(types, {"batch": 2, "seq": 3}, np.random.default_rng(1))
        if kind == "pow":
            inputs = {name: np.abs(array) for name, array in inputs.items()}
        compare(program, {}, inputs, 1e-6)


@pytest.mark.parametrize("kind", BINARY_KINDS)
@pytest.mark.parametrize("side", [0, 1])
def test_binary_with_a_number(kind: str, side: int) -> None:
    """Numbers stay Python numbers in the source; types and values are those of tensors nevertheless."""
    for dtype in _dtypes(kind):
        number = Constant(True if dtype == "bool" else 2 if dtype in ("i64", "i32") else 1.5, dtype)

        def body(
            builder: Builder, inputs: Sequence[Value], _: Sequence[Value], number: Constant = number
        ) -> list[Value]:
            constant = builder.one(number)
            operands = (inputs[0], constant) if side else (constant, inputs[0])
            alone = builder.one(Binary(kind), constant, constant)  # type: ignore[arg-type]
            return [builder.one(Binary(kind), *operands), alone]  # type: ignore[arg-type]

        program = build(body, {"x": tensor(SEQ, A, dtype=dtype)})
        inputs = sample({"x": tensor(SEQ, A, dtype=dtype)}, {"seq": 3}, np.random.default_rng(3))
        if kind == "pow":
            inputs = {name: np.abs(array) for name, array in inputs.items()}
        compare(program, {}, inputs, 1e-6)


@pytest.mark.parametrize("source", ["f64", "f32", "i64", "i32", "bool"])
@pytest.mark.parametrize("target", ["f64", "f32", "i64", "i32", "bool"])
def test_cast(source: DType, target: DType) -> None:
    program = one(Cast(target), tensor(BATCH, A, dtype=source))
    inputs = sample({"x0": program.graph.inputs[0].type}, {"batch": 3}, np.random.default_rng(2))
    if source in ("f64", "f32"):
        inputs["x0"] = (inputs["x0"] * 5).astype(inputs["x0"].dtype)
    compare(program, {}, inputs)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1.5, "f32"), (float("-inf"), "f32"), (0.1, "f64"), (-3, "i64"), (7, "i32"), (True, "bool"), (-0.0, "f32")],
)
def test_constant(value: float, dtype: DType) -> None:
    compare_at(one(Constant(value, dtype)), 0)


def test_ops_on_numbers_alone() -> None:
    def body(builder: Builder, _: Sequence[Value], __: Sequence[Value]) -> list[Value]:
        two, zero = builder.one(Constant(2.0, "f32")), builder.one(Constant(0.0, "f32"))
        yes, count = builder.one(Constant(True, "bool")), builder.one(Constant(7, "i32"))
        return [
            builder.one(Unary("exp"), two),
            builder.one(Unary("neg"), two),
            builder.one(Unary("not"), yes),
            builder.one(Binary("div"), two, zero),
            builder.one(Where(), yes, two, zero),
            builder.one(Where(), yes, count, count),
            builder.one(Cast("i64"), two),
            builder.one(Reduce("sum", ()), count),
            builder.one(Dot(()), two, two),
        ]

    with np.errstate(divide="ignore"):
        compare_at(build(body, {"x": tensor(SEQ)}), 0)


def test_ties_go_to_the_lower_index() -> None:
    program = one(TopK("b", Dim("k", 3)), tensor(SEQ, B))
    compare(program, {}, {"x0": np.array([[1, 2, 2, 0, 2, 1], [0, 0, 0, 0, 0, 0]], np.float32)})


def test_result_that_is_an_input_or_given_twice() -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        doubled = builder.one(Binary("add"), inputs[0], inputs[0])
        return [inputs[0], doubled, doubled, params[0], builder.one(Rename((("a", "e"),)), doubled)]

    compare_at(build(body, {"x": tensor(SEQ, A)}, {"w": tensor(A, B)}), 0)


def test_index_shared_table_at_positions() -> None:
    """A table read at positions is sliced, wherever its dimension stands and whoever else needs the positions."""
    table, half = tensor(C, Dim("context", 9), A), Dim("context", 4)

    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> list[Value]:
        positions = builder.one(Position(Dim("seq", SEQ.size)))
        few = builder.one(Position(Dim("few", half.size)))
        return [
            builder.one(Gather("context"), params[0], positions),
            builder.one(Gather("context"), params[0], few),
            builder.one(Binary("mul"), positions, positions),
            builder.one(Scan("a"), inputs[0]),
        ]

    compare_at(build(body, {"x": tensor(SEQ, A)}, {"w": table}), 1)


def _loops() -> Program:
    """Two loops in each other: two values go around, one is shared, parameters are stacked once and twice."""
    names = Names()
    known: dict[str, Function] = {}
    builder = Builder(names, known.__getitem__)
    x, shared = builder.value("x", tensor(SEQ, A)), builder.value("shared", tensor(A))
    w = builder.value("outer.w", tensor(LAYERS, A))
    inner_w = builder.value("outer.inner.w", tensor(LAYERS, ROUNDS, A))
    outer = builder.region()
    outer_x, outer_y = outer.value("x", tensor(SEQ, A)), outer.value("y", tensor(SEQ, A))
    outer_s, outer_w = outer.value("shared", tensor(A)), outer.value("w", tensor(A))
    outer_inner_w = outer.value("inner_w", tensor(ROUNDS, A))
    inner = outer.region()
    inner_x, inner_y = inner.value("x", tensor(SEQ, A)), inner.value("y", tensor(SEQ, A))
    inner_s, own = inner.value("shared", tensor(A)), inner.value("w", tensor(A))
    turned = inner.one(Binary("mul"), inner_x, own, wish="x")
    moved = inner.one(Binary("add"), inner_y, inner_s, wish="y")
    inner_region = inner.finish((inner_x, inner_y, inner_s, own), (moved, turned))
    again = Repeat("inner", ROUNDS, 2, 1, inner_region)
    a, b = outer.add(again, outer_x, outer_y, outer_s, outer_inner_w, wish="x")
    end = outer.one(Binary("sub"), a, outer_w, wish="x")
    outer_region = outer.finish((outer_x, outer_y, outer_s, outer_w, outer_inner_w), (end, b))
    op = Repeat("outer", LAYERS, 2, 1, outer_region)
    p, q = builder.add(op, x, x, shared, w, inner_w, wish="x")
    last = builder.one(Binary("add"), p, x, wish="x")
    region = builder.finish((x, shared, w, inner_w), (last, q))
    params = (Param(w, NORMAL, stacked=1), Param(inner_w, NORMAL, stacked=2))
    graph = verify(Graph("loops", SYMBOLS, params, (), region, ("first", "second")))
    return Program("loops", graph, "loops", (), None, None, (), None, "loops.cg")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loops_in_loops(seed: int) -> None:
    compare_at(_loops(), seed)


def test_loop_without_parameters_and_over_a_computed_stack() -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        doubled = builder.one(Binary("add"), inputs[1], inputs[1])
        inside = builder.region()
        x, step = inside.value("carried", tensor(SEQ, A)), inside.value("step", tensor(A))
        region = inside.finish((x, step), (inside.one(Binary("sub"), x, step),))
        (stepped,) = builder.add(Repeat("steps", LAYERS, 1, 0, region), inputs[0], doubled)
        plain = builder.region()
        y = plain.value("carried", tensor(SEQ, A))
        halved = plain.one(Binary("mul"), y, plain.one(Constant(0.5, "f32")))
        return builder.add(Repeat("r", ROUNDS, 1, 0, plain.finish((y,), (halved,))), stepped)

    compare_at(build(body, {"x": tensor(SEQ, A), "steps": tensor(LAYERS, A)}), 0)


def _halves() -> Function:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> list[Value]:
        left = builder.one(Slice("b", 0, Dim("half", 3)), inputs[0])
        right = builder.one(Slice("b", 3, Dim("half", 3)), inputs[0])
        return [builder.one(Binary("mul"), left, params[0], wish="left"), right]

    return function("halves", body, {"x": tensor(SEQ, B)}, {"w": tensor(Dim("half", 3))})


def test_block_of_several_results_and_one_called_twice() -> None:
    halves = _halves()

    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> list[Value]:
        first = builder.add(Call("halves", "once", 1), inputs[0], params[0])
        again = builder.add(Call("halves", "once", 1), inputs[0], params[0])
        other = builder.add(Call("halves", "other", 1), inputs[0], params[1])
        joined = builder.one(Concat(("half", "half"), "b"), first[0], other[1])
        return [joined, again[1], other[0]]

    params = {"once.w": tensor(Dim("half", 3)), "other.w": tensor(Dim("half", 3))}
    compare_at(build(body, {"x": tensor(SEQ, B)}, params, (halves,)), 0)


def test_parameters_that_are_not_handed_on_as_the_front_end_does() -> None:
    """A block whose parameter is also used elsewhere, or is computed, becomes a function of its parameters."""
    halves = _halves()

    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> list[Value]:
        first = builder.add(Call("halves", "once", 1), inputs[0], params[0])
        doubled = builder.one(Binary("add"), params[0], params[0])
        second = builder.add(Call("halves", "twice", 1), inputs[0], doubled)
        return [first[0], second[0]]

    compare_at(build(body, {"x": tensor(SEQ, B)}, {"once.w": tensor(Dim("half", 3))}, (halves,)), 0)


def test_block_that_needs_sizes_and_a_device_of_its_caller() -> None:
    def grid(builder: Builder, _: Sequence[Value], __: Sequence[Value]) -> list[Value]:
        rows, columns = builder.one(Position(SEQ)), builder.one(Position(KEY))
        return [builder.one(Binary("sub"), rows, columns)]

    def outer(builder: Builder, _: Sequence[Value], __: Sequence[Value]) -> Sequence[Value]:
        return builder.add(Call("grid", "grid", 0))

    first = function("grid", grid, {})
    second = function("around", outer, {}, known=(first,))

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        (cells,) = builder.add(Call("around", "around", 0))
        return [builder.one(Binary("add"), builder.one(Cast("f32"), cells), inputs[0])]

    compare_at(build(body, {"x": tensor(SEQ, KEY)}, functions=(first, second)), 0)


def test_long_expressions_are_cut_and_keep_their_meaning() -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> list[Value]:
        x = inputs[0]
        for index in range(40):
            x = builder.one(Binary("add" if index % 2 else "mul"), x, params[index % 3])
        turned = builder.one(Transpose(("a", "seq")), builder.one(Unary("tanh"), x))
        return [builder.one(Split("a", (Dim("p", 2), Dim("r", 2))), turned)]

    params = {f"a_rather_long_name_{index}": tensor(A) for index in range(3)}
    compare_at(build(body, {"x": tensor(SEQ, A)}, params), 0)


def test_every_op_is_covered() -> None:
    tested: set[type[Op]] = {type(node.op) for program in CASES.values() for node in program.graph.body.nodes}
    assert tested | {Unary, Binary, Cast, Constant, Call, Repeat} == set(OPS)
