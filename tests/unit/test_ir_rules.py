"""The type rule of every primitive: what comes out, and which rule a misfit breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_graphs import BATCH, NESTED, SEQ, A, B, C, program, tensor

from cgc.ir.dims import Dim, add, multiply, subtract, symbol
from cgc.ir.graph import Node, walk
from cgc.ir.ops import (
    BINARY_KINDS,
    COMPARISONS,
    LOGICAL,
    OPS,
    REDUCE_KINDS,
    UNARY_KINDS,
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
    opcode,
)
from cgc.ir.rules import RuleViolation, infer, union
from cgc.ir.types import DTYPES, DType, TensorType

T = tensor
FLOATS = ("f64", "f32", "f16", "bf16")
SPLIT_C = (Dim("left", 2), Dim("right", 2))
LONG = Dim("long", add(symbol("seq"), 2))
IDS = T(BATCH, dtype="i64", of=A)

FITS: list[tuple[str, Op, list[TensorType], list[TensorType]]] = [
    ("constant", Constant(2, "i32"), [], [T(dtype="i32")]),
    ("position", Position(SEQ), [], [T(SEQ, dtype="i64", of=SEQ)]),
    ("unary forgets what is indexed", Unary("neg"), [IDS], [T(BATCH, dtype="i64")]),
    ("binary, the larger gives the order", Binary("add"), [T(A), T(B, A)], [T(B, A)]),
    ("binary, the first of equals", Binary("add"), [T(A, B), T(B, A)], [T(A, B)]),
    ("binary, nothing shared", Binary("mul"), [T(A), T(B)], [T(A, B)]),
    ("binary, each has its own", Binary("mul"), [T(A, B), T(B, C)], [T(A, B, C)]),
    ("binary, scalar", Binary("sub"), [T(), T(B, A)], [T(B, A)]),
    ("where", Where(), [T(B, dtype="bool"), T(A), T()], [T(B, A)]),
    ("where, largest last", Where(), [T(B, dtype="bool"), T(), T(A, B)], [T(A, B)]),
    ("where of integers", Where(), [T(dtype="bool"), T(A, dtype="i64"), T(dtype="i64")], [T(A, dtype="i64")]),
    ("cast", Cast("i32"), [T(A, SEQ)], [T(A, SEQ, dtype="i32")]),
    ("dot", Dot(("a",)), [T(BATCH, SEQ, A), T(C, A)], [T(BATCH, SEQ, C)]),
    ("dot aligned", Dot(("a",)), [T(BATCH, A), T(C, A, BATCH)], [T(BATCH, C)]),
    ("dot of all", Dot(("b", "a")), [T(A, B), T(B, A)], [T()]),
    ("dot over nothing", Dot(()), [T(A), T(A, B)], [T(A, B)]),
    ("reduce", Reduce("max", ("b", "batch")), [T(BATCH, A, B)], [T(A)]),
    ("reduce integers", Reduce("sum", ("a",)), [T(A, dtype="i32")], [T(dtype="i32")]),
    ("scan", Scan("a"), [T(A, B)], [T(A, B)]),
    ("gather", Gather("a"), [T(A, B), T(BATCH, SEQ, dtype="i32")], [T(BATCH, SEQ, B)]),
    ("gather aligned", Gather("a"), [T(B, A, BATCH, C), IDS], [T(BATCH, B, C)]),
    ("gather keeps what the table indexes", Gather("a"), [T(A, dtype="i64", of=B), IDS], [T(BATCH, dtype="i64", of=B)]),
    ("scatter", Scatter(A, ("batch", "seq")), [T(BATCH, SEQ, B), T(SEQ, BATCH, dtype="i32", of=A)], [T(A, B)]),
    ("scatter aligned", Scatter(A, ("seq",)), [T(B, SEQ, BATCH), T(BATCH, SEQ, dtype="i64")], [T(A, B, BATCH)]),
    ("scatter over what the index lacks", Scatter(A, ("b", "batch")), [T(BATCH, B), IDS], [T(A)]),
    ("scatter everything to one place", Scatter(A, ()), [T(B, dtype="i64"), T(dtype="i64")], [T(A, B, dtype="i64")]),
    ("rename", Rename((("a", "b"), ("b", "a"))), [T(A, B)], [T(Dim("b", 2), Dim("a", 3))]),
    ("transpose", Transpose(("c", "a", "b")), [T(A, B, C)], [T(C, A, B)]),
    ("split", Split("c", SPLIT_C), [T(A, C, B)], [T(A, *SPLIT_C, B)]),
    ("split symbolic", Split("n", (SEQ, A)), [T(Dim("n", multiply(2, symbol("seq"))))], [T(SEQ, A)]),
    ("merge stands where the first stood", Merge(("c", "a"), "n"), [T(A, B, C)], [T(B, Dim("n", 8))]),
    ("merge in order", Merge(("a", "b"), "n"), [T(A, B, C)], [T(Dim("n", 6), C)]),
    ("merge under an old name", Merge(("a", "b"), "b"), [T(A, B)], [T(Dim("b", 6))]),
    ("slice to the end", Slice("c", 1, Dim("p", 3)), [T(A, C)], [T(A, Dim("p", 3))]),
    ("slice of what is not known", Slice("seq", 5, Dim("p", 3)), [T(SEQ)], [T(Dim("p", 3))]),
    ("slice symbolic", Slice("long", 2, SEQ), [T(LONG)], [T(SEQ)]),
    ("concat", Concat(("a", "b"), "n"), [T(A, C), T(C, B)], [T(Dim("n", 5), C)]),
    ("concat symbolic", Concat(("seq", "a"), "n"), [T(SEQ), T(A)], [T(Dim("n", LONG.size))]),
    ("concat under an old name", Concat(("a", "a"), "a"), [T(A), T(A)], [T(Dim("a", 4))]),
    ("top_k", TopK("c", Dim("k", 4)), [T(A, C)], [T(A, Dim("k", 4)), T(A, Dim("k", 4), dtype="i64", of=C)]),
]


@pytest.mark.parametrize(("name", "op", "operands", "results"), FITS, ids=[fit[0] for fit in FITS])
def test_results(name: str, op: Op, operands: list[TensorType], results: list[TensorType]) -> None:
    assert infer(op, tuple(operands)) == tuple(results)


MISFITS: list[tuple[Op, list[TensorType], str, tuple[int, ...], str]] = [
    (Constant(1, "f32"), [T()], "arity", (), ""),
    (Position(A), [T()], "arity", (), ""),
    (Unary("exp"), [], "arity", (), ""),
    (Binary("add"), [T()], "arity", (), ""),
    (Where(), [T(), T()], "arity", (), ""),
    (Dot(()), [T()], "arity", (), ""),
    (Gather("a"), [T(A)], "arity", (), ""),
    (TopK("a", A), [T(A), T(A)], "arity", (), ""),
    (Merge((), "n"), [T(A)], "arity", (), ""),
    (Concat(("a", "a"), "n"), [T(A)], "arity", (), ""),
    (Concat((), "n"), [], "arity", (), ""),
    (Binary("add"), [T(A), T(A, dtype="f16")], "dtype", (0, 1), ""),
    (Binary("lt"), [T(A), T(A, dtype="i64")], "dtype", (0, 1), ""),
    (Binary("add"), [T(Dim("a", 2)), T(Dim("a", 3), B)], "size", (0, 1), "a"),
    (Binary("add"), [T(SEQ), T(Dim("seq", symbol("batch")))], "size", (0, 1), "seq"),
    (Where(), [T(A), T(A), T(A)], "dtype", (0,), ""),
    (Where(), [T(A, dtype="bool"), T(A), T(A, dtype="i64")], "dtype", (1, 2), ""),
    (Where(), [T(A, dtype="bool"), T(B), T(Dim("a", 3))], "size", (0, 2), "a"),
    (Dot(("a",)), [T(A, dtype="i64"), T(A, dtype="i64")], "dtype", (0, 1), ""),
    (Dot(("a",)), [T(A), T(A, dtype="f64")], "dtype", (0, 1), ""),
    (Dot(("a",)), [T(B), T(A)], "missing-dim", (0,), "a"),
    (Dot(("a",)), [T(A), T(B)], "missing-dim", (1,), "a"),
    (Dot(("a", "a")), [T(A), T(A)], "duplicate-dim", (0,), ""),
    (Dot(("a",)), [T(A), T(Dim("a", 3))], "size", (0, 1), "a"),
    (Dot(("a",)), [T(A, B), T(A, Dim("b", 4))], "size", (0, 1), "b"),
    (Reduce("sum", ("b",)), [T(A)], "missing-dim", (0,), "b"),
    (Reduce("sum", ("a", "a")), [T(A)], "duplicate-dim", (0,), ""),
    (Reduce("max", ("a",)), [T(A, dtype="bool")], "dtype", (0,), ""),
    (Reduce("mean", ("a",)), [T(A, dtype="i64")], "dtype", (0,), ""),
    (Scan("b"), [T(A)], "missing-dim", (0,), "b"),
    (Scan("a"), [T(A, dtype="bool")], "dtype", (0,), ""),
    (Gather("b"), [T(A), IDS], "missing-dim", (0,), "b"),
    (Gather("a"), [T(A), T(BATCH)], "dtype", (1,), ""),
    (Gather("a"), [T(A), T(BATCH, dtype="bool")], "dtype", (1,), ""),
    (Gather("a"), [T(A, B), T(A, dtype="i64")], "duplicate-dim", (1,), "a"),
    (Gather("a"), [T(A, B), T(Dim("b", 4), dtype="i64")], "size", (0, 1), "b"),
    (Scatter(A, ()), [T(B)], "arity", (), ""),
    (Scatter(A, ("b",)), [T(C), T(dtype="i64")], "missing-dim", (0,), "b"),
    (Scatter(A, ("b",)), [T(B), T(C, dtype="i64")], "missing-dim", (0,), "c"),
    (Scatter(A, ("b",)), [T(B, dtype="bool"), T(B, dtype="i64")], "dtype", (0,), ""),
    (Scatter(A, ("b",)), [T(B), T(B)], "dtype", (1,), ""),
    (Scatter(A, ("a",)), [T(A), T(A, dtype="i64")], "duplicate-dim", (1,), "a"),
    (Scatter(A, ("b",)), [T(B, A), T(B, dtype="i64")], "duplicate-dim", (0,), "a"),
    (Scatter(A, ("b",)), [T(B), T(Dim("b", 4), dtype="i64")], "size", (0, 1), "b"),
    (Rename((("c", "d"),)), [T(A)], "missing-dim", (0,), "c"),
    (Rename((("a", "b"),)), [T(A, B)], "duplicate-dim", (0,), "b"),
    (Rename((("a", "c"), ("a", "d"))), [T(A, B)], "duplicate-dim", (0,), ""),
    (Transpose(("a",)), [T(A, B)], "missing-dim", (0,), ""),
    (Transpose(("a", "a", "b")), [T(A, B)], "missing-dim", (0,), ""),
    (Split("b", SPLIT_C), [T(B)], "size", (0,), "b"),
    (Split("c", (Dim("l", 2), Dim("l", 2))), [T(C)], "duplicate-dim", (0,), "l"),
    (Split("c", SPLIT_C), [T(A)], "missing-dim", (0,), "c"),
    (Split("c", (Dim("a", 2), Dim("r", 2))), [T(A, C)], "duplicate-dim", (0,), "a"),
    (Merge(("a", "c"), "n"), [T(A, B)], "missing-dim", (0,), "c"),
    (Merge(("a", "a"), "n"), [T(A, B)], "duplicate-dim", (0,), ""),
    (Merge(("a", "b"), "c"), [T(A, B, C)], "duplicate-dim", (0,), "c"),
    (Slice("b", 2, A), [T(B)], "size", (0,), "b"),
    (Slice("b", -1, A), [T(B)], "size", (0,), "b"),
    (Slice("a", 0, A), [T(B)], "missing-dim", (0,), "a"),
    (Slice("b", 0, A), [T(A, B)], "duplicate-dim", (0,), "a"),
    (Concat(("a", "b"), "n"), [T(A), T(A)], "missing-dim", (1,), "b"),
    (Concat(("a", "a"), "n"), [T(A), T(A, dtype="i64")], "dtype", (0, 1), ""),
    (Concat(("a", "a"), "n"), [T(A, B), T(A, C)], "size", (0, 1), ""),
    (Concat(("a", "a"), "n"), [T(A, B), T(A, Dim("b", 9))], "size", (0, 1), ""),
    (Concat(("a", "a"), "b"), [T(A, B), T(A, B)], "duplicate-dim", (0,), "b"),
    (TopK("b", A), [T(A)], "missing-dim", (0,), "b"),
    (TopK("b", A), [T(A, B)], "duplicate-dim", (0,), "a"),
    (TopK("b", Dim("k", 4)), [T(A, B)], "size", (0,), "b"),
    (TopK("b", A), [T(B, dtype="bool")], "dtype", (0,), ""),
    (Call("nothing", "nothing", 0), [], "signature", (), ""),
]


@pytest.mark.parametrize(
    ("op", "operands", "rule", "which", "dim"),
    MISFITS,
    ids=[f"{i}-{opcode(m[0])}-{m[2]}" for i, m in enumerate(MISFITS)],
)
def test_misfits(op: Op, operands: list[TensorType], rule: str, which: tuple[int, ...], dim: str) -> None:
    with pytest.raises(RuleViolation) as caught:
        infer(op, tuple(operands))
    assert (caught.value.rule, caught.value.operands, caught.value.dim) == (rule, which, dim)
    assert str(caught.value)


def _accepts(op: Op, *operands: TensorType) -> bool:
    try:
        (result,) = infer(op, operands)
    except RuleViolation as violation:
        assert violation.rule == "dtype"
        return False
    wanted = "bool" if isinstance(op, Binary) and op.kind in COMPARISONS else operands[0].dtype
    assert result == T(A, dtype=wanted)
    return True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", UNARY_KINDS)
def test_dtypes_of_unary(kind: UnaryKind, dtype: DType) -> None:
    wanted = {"not": ("bool",), "neg": (*FLOATS, "i64", "i32"), "abs": (*FLOATS, "i64", "i32")}.get(kind, FLOATS)
    assert _accepts(Unary(kind), T(A, dtype=dtype)) == (dtype in wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", BINARY_KINDS)
def test_dtypes_of_binary(kind: BinaryKind, dtype: DType) -> None:
    if kind in LOGICAL:
        wanted: tuple[str, ...] = ("bool",)
    elif kind == "div":
        wanted = FLOATS
    else:
        wanted = (*FLOATS, "i64", "i32", *(("bool",) if kind in ("eq", "ne") else ()))
    assert _accepts(Binary(kind), T(A, dtype=dtype), T(A, dtype=dtype)) == (dtype in wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_reduce(dtype: DType) -> None:
    for kind in REDUCE_KINDS:
        wanted = FLOATS if kind == "mean" else (*FLOATS, "i64", "i32")
        assert _accepts(Reduce(kind, ("b",)), T(A, B, dtype=dtype)) == (dtype in wanted)


def test_union_takes_the_first_of_the_largest() -> None:
    assert union((T(A), T(B, C), T(C, B), T(Dim("d", 1)))) == (B, C, A, Dim("d", 1))
    assert union(()) == ()


def _find(kind: type[Op]) -> tuple[Node, tuple[TensorType, ...]]:
    node = next(node for node in walk(program(NESTED).graph.body) if isinstance(node.op, kind))
    return node, tuple(value.type for value in node.inputs)


def test_a_call_takes_exactly_the_function_s_types() -> None:
    graph = program(NESTED).graph
    node, types = _find(Call)
    assert isinstance(node.op, Call)
    assert infer(node.op, types, graph.function) == tuple(value.type for value in node.outputs)
    for wrong in (types[:-1], (*types, types[0]), (types[0].with_dims(types[0].dims[::-1]), *types[1:])):
        with pytest.raises(RuleViolation, match=r"takes \(f32") as caught:
            infer(node.op, wrong, graph.function)
        assert caught.value.rule == "signature"
    with pytest.raises(RuleViolation):
        infer(replace(node.op, args=node.op.args + 1), types, graph.function)


def test_a_loop_takes_stacked_parameters_and_gives_what_it_carries() -> None:
    node, types = _find(Repeat)
    op = node.op
    assert isinstance(op, Repeat)
    assert infer(op, types) == types[: op.carried]
    unstacked = tuple(x.with_dims(x.dims[1:]) if x.has(op.stack.name) else x for x in types)
    longer = replace(op, stack=Dim(op.stack.name, 99))
    for other, operands in ((op, unstacked), (op, types[:-1]), (longer, types), (replace(op, carried=0), types)):
        with pytest.raises(RuleViolation) as caught:
            infer(other, operands)
        assert caught.value.rule == "signature"


def test_every_op_has_cases() -> None:
    assert {type(fit[1]) for fit in FITS} | {Call, Repeat} == set(OPS)
    assert {type(misfit[0]) for misfit in MISFITS} | {Repeat, Cast} == set(OPS)
    assert subtract(LONG.size, 2) == SEQ.size


def test_types() -> None:
    x = T(SEQ, A, dtype="i64", of=B)
    assert (x.names, x.shape, x.count) == (("seq", "a"), (SEQ.size, 2), multiply(2, SEQ.size))
    assert (x.dim("a"), x.axis("a"), x.has("b")) == (A, 1, False)
    assert str(x) == "i64[seq, a=2] of b=3"
    for look_up in (x.dim, x.axis):
        with pytest.raises(KeyError):
            look_up("b")
