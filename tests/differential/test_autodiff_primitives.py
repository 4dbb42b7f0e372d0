"""The derivative of every primitive, in every arrangement of axes, against `torch.autograd` in 64 bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from gradients import Arrays, autograd, check, compare, derived, samples, trained, with_weighted_loss
from onnx_programs import BATCH, KEY, SEQ, build, tensor
from test_onnx_primitives import CASES
from torch_meaning import run

from cgc.interpret import interpret
from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, multiply, subtract, symbol
from cgc.ir.graph import Graph, Value
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
)
from cgc.ir.types import DType, TensorType, is_float

A, B, C = Dim("a", 4), Dim("b", 6), Dim("c", 5)
A_PRIME = Dim("a'", 3)
SIZES = {"batch": 3, "seq": 5}
X = tensor(BATCH, SEQ, A, B)


def applied(op: Op, *types: TensorType) -> Graph:
    """Return the graph of one op on inputs of these types, each of which is squared before and after.

    The squares make gradients depend on every value on the way, and the inputs have other uses beside the op.
    """

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        operands = inputs[1:]
        results = builder.add(op, *operands)
        squares = [builder.one(Binary("mul"), x, x) for x in results if is_float(x.type.dtype)]
        return [*results, *squares]

    inputs = {"sizes": tensor(BATCH, SEQ, dtype="bool")} | {f"x{index}": type for index, type in enumerate(types)}
    return build(body, inputs).graph


def check_op(op: Op, *types: TensorType, data: Arrays | None = None, seed: int = 0) -> None:
    graph = with_weighted_loss(trained(applied(op, *types)))
    check(graph, samples(graph, SIZES, seed) | dict(data or {}), SIZES)


UNARY_FLOATS = [kind for kind in UNARY_KINDS if kind != "not"]


@pytest.mark.parametrize("kind", UNARY_FLOATS)
@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
def test_unary(kind: UnaryKind, dtype: DType) -> None:
    x = tensor(BATCH, A, dtype=dtype)
    positive = kind in ("log", "sqrt", "rsqrt")
    rng = np.random.default_rng(1)
    values = rng.uniform(0.1, 4, (3, 4)) if positive else rng.uniform(-3, 3, (3, 4))
    check_op(Unary(kind), x, data={"x0": values})


@pytest.mark.parametrize("kind", UNARY_FLOATS)
def test_unary_at_its_edges(kind: UnaryKind) -> None:
    """Zero, the ends of the domain, infinities, and arguments so large that a careless formula overflows."""
    values = np.array([[0.0, -0.0, 1.0, -1.0], [1e-300, 40.0, -40.0, 800.0], [-800.0, np.inf, -np.inf, 0.5]])
    graph = with_weighted_loss(trained(applied(Unary(kind), tensor(BATCH, A))))
    arrays = samples(graph, SIZES, 0) | {"x0": values, "weight.1": np.zeros((3, 4))}
    if kind in ("log", "sqrt", "rsqrt"):
        arrays["x0"] = np.abs(values)
    check(graph, arrays, SIZES)


ARITHMETIC = [kind for kind in BINARY_KINDS if kind not in COMPARISONS | LOGICAL]
ARRANGEMENTS = {
    "aligned": ((SEQ, A), (SEQ, A)),
    "turned": ((SEQ, A), (A, SEQ)),
    "the right lacks some": ((BATCH, SEQ, A), (A,)),
    "the left lacks some": ((A,), (SEQ, B, A)),
    "each lacks one": ((A, SEQ), (SEQ, B)),
    "nothing in common": ((A,), (B, SEQ)),
    "a number on the left": ((), (SEQ,)),
    "a number on the right": ((BATCH, A), ()),
    "numbers": ((), ()),
}


@pytest.mark.parametrize("kind", ARITHMETIC)
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_binary(kind: BinaryKind, name: str) -> None:
    left, right = (tensor(*dims) for dims in ARRANGEMENTS[name])
    graph = with_weighted_loss(trained(applied(Binary(kind), left, right)))
    arrays = samples(graph, SIZES, 2)
    if kind == "pow":
        arrays["x0"] = np.abs(arrays["x0"]) + 0.1
    if kind in ("div", "mod"):
        arrays["x1"] = arrays["x1"] + np.sign(arrays["x1"]) * 0.3
    check(graph, arrays, SIZES)


@pytest.mark.parametrize("kind", ARITHMETIC)
@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
def test_binary_of_other_floats(kind: BinaryKind, dtype: DType) -> None:
    x = np.random.default_rng(1).uniform(0.5, 2, (3, 4))
    check_op(Binary(kind), tensor(BATCH, A, dtype=dtype), tensor(A, dtype=dtype), data={"x0": x})


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_binary_with_itself(kind: BinaryKind) -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        return [builder.one(Binary(kind), inputs[0], inputs[0])]

    graph = with_weighted_loss(trained(build(body, {"x": tensor(A, B)}).graph))
    check(graph, samples(graph, SIZES, 0) | {"x": np.random.default_rng(0).uniform(0.5, 2, (4, 6))}, SIZES)


@pytest.mark.parametrize("kind", ["max", "min"])
def test_ties_are_shared(kind: BinaryKind) -> None:
    """As `torch.maximum` and `torch.minimum`: each operand gets half where both are the extremum."""
    x = np.array([[0.0, 1, 2, -1], [3, 3, -0.0, 0], [2, 2, 2, 2]])
    check_op(Binary(kind), tensor(BATCH, A), tensor(A), data={"x0": x, "x1": np.array([0.0, 1, 2, 0])})


def test_powers_at_their_edges() -> None:
    """Zero to the zero, zero to positive and negative powers, powers of one, and of negative numbers."""
    base = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, -2, -2, -2, -2, 0.5, -0.0, 3], np.float64)
    power = np.array([0, 1, 2, 3, 0.5, -1, 0, -3, 0, 2, 3, 0, -1, -0.5, 2, 1], np.float64)
    d = Dim("d", len(base))
    graph = with_weighted_loss(trained(applied(Binary("pow"), tensor(d), tensor(d))))
    arrays = samples(graph, SIZES, 0) | {"x0": base, "x1": power, "weight.1": np.zeros(len(base))}
    check(graph, arrays, SIZES)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -0.5])
def test_power_known_at_compile_time(power: float) -> None:
    """Only the base is differentiated for: x ^ 2 at a negative x and at 0 must not meet a logarithm."""

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        return [builder.one(Binary("pow"), inputs[0], builder.one(Constant(power, "f32")))]

    graph = with_weighted_loss(trained(build(body, {"x": tensor(B)}).graph))
    x = np.array([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]) if power == int(power) else np.array([0, 0.1, 0.5, 1, 2, 3])
    check(graph, samples(graph, SIZES, 0) | {"x": x}, SIZES)


def test_remainders() -> None:
    """Both signs on both sides, and quotients that a division rounds up to a whole number."""
    a = np.array([5.5, -5.5, 5.5, -5.5, 6.0, -6.0, 0.0, 1.0, 0.3, 0.9, 4.35, 1e-20, -1e-20])
    b = np.array([2.0, 2.0, -2.0, -2.0, 2.0, 2.0, 3.0, 0.1, 0.1, 0.3, 0.01, 3.0, 3.0])
    d = Dim("d", len(a))
    check_op(Binary("mod"), tensor(d), tensor(d), data={"x0": a, "x1": b})


@pytest.mark.parametrize("dims", [((SEQ,), (SEQ, A), (SEQ, A)), ((SEQ, A), (A,), (SEQ,)), ((A,), (), (A, BATCH))])
def test_where(dims: tuple[tuple[Dim, ...], ...]) -> None:
    condition, a, b = dims
    check_op(Where(), tensor(*condition, dtype="bool"), tensor(*a), tensor(*b))
    if a and b:
        check_op(Where(), tensor(BATCH, dtype="bool"), tensor(*a), tensor(*b))


def test_what_is_not_chosen_does_not_poison() -> None:
    """The gradient of a branch that is not taken is zero even where its own derivative has none."""

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        x = inputs[0]
        zero = builder.one(Constant(0.0, "f32"))
        minus = builder.one(Constant(float("-inf"), "f32"))
        positive = builder.one(Binary("gt"), x, zero)
        masked = builder.one(Where(), positive, x, minus)
        largest = builder.one(Reduce("max", ("b",)), masked)
        weights = builder.one(Unary("exp"), builder.one(Binary("sub"), masked, largest))
        return [builder.one(Binary("div"), weights, builder.one(Reduce("sum", ("b",)), weights))]

    graph = with_weighted_loss(trained(build(body, {"x": tensor(A, B)}).graph))
    arrays = samples(graph, SIZES, 3)
    arrays["x"][:, 0] = 1.0
    check(graph, arrays, SIZES)


@pytest.mark.parametrize("source", ["f64", "f32", "f16", "bf16"])
@pytest.mark.parametrize("target", ["f64", "f32", "f16", "bf16"])
def test_cast(source: DType, target: DType) -> None:
    check_op(Cast(target), tensor(BATCH, A, dtype=source))


DOTS: dict[str, tuple[tuple[str, ...], TensorType, TensorType]] = {
    "vectors": (("a",), tensor(A), tensor(A)),
    "matrix": (("a",), tensor(BATCH, SEQ, A), tensor(A, C)),
    "matrix on the left": (("a",), tensor(C, A), tensor(BATCH, SEQ, A)),
    "two reduced": (("b", "a"), X, tensor(A, C, B)),
    "aligned": (("b",), X, tensor(BATCH, KEY, A, B)),
    "aligned, nothing else": (("b",), tensor(BATCH, B), tensor(B, BATCH)),
    "all reduced": (("a", "b", "seq", "batch"), X, X),
    "outer": ((), tensor(SEQ, A), tensor(C, B)),
    "elementwise": ((), tensor(SEQ, A), tensor(A, SEQ)),
    "outer and aligned": ((), tensor(SEQ, A), tensor(C, A)),
    "kept on both sides": (("seq",), tensor(A, SEQ, BATCH, B), tensor(SEQ, C, BATCH)),
}


@pytest.mark.parametrize("name", DOTS)
def test_dot(name: str) -> None:
    over, a, b = DOTS[name]
    check_op(Dot(over), a, b)


def test_dot_with_itself() -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        other = builder.one(Rename((("a", "e"),)), inputs[0])
        return [builder.one(Dot(("b",)), inputs[0], other), builder.one(Dot(("a", "b")), inputs[0], inputs[0])]

    graph = with_weighted_loss(trained(build(body, {"x": tensor(A, B)}).graph))
    check(graph, samples(graph, SIZES, 0), SIZES)


@pytest.mark.parametrize("kind", REDUCE_KINDS)
@pytest.mark.parametrize("over", [("b",), ("b", "seq"), ("batch",), ("seq", "batch", "a", "b"), ()])
def test_reduce(kind: str, over: tuple[str, ...]) -> None:
    check_op(Reduce(kind, over), X)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("over", [("a",), ("batch", "a")])
def test_entries_that_reach_the_extremum_share_the_gradient(kind: str, over: tuple[str, ...]) -> None:
    x = np.array([[1.0, 2, 2, 1], [0, 0, 0, 0], [-1, 2, -1, 0]])
    check_op(Reduce(kind, over), tensor(BATCH, A), data={"x0": x})  # type: ignore[arg-type]


def test_extremum_of_infinities() -> None:
    x = np.array([[-np.inf, 1, 2, -np.inf], [-np.inf, -np.inf, 0, 0], [3, 2, 1, -np.inf]])
    graph = with_weighted_loss(trained(applied(Reduce("max", ("a",)), tensor(BATCH, A))))
    check(graph, samples(graph, SIZES, 0) | {"x0": x}, SIZES)


@pytest.mark.parametrize("over", ["seq", "b"])
def test_scan(over: str) -> None:
    check_op(Scan(over), X)


def test_scan_keeps_small_gradients_beside_large_ones() -> None:
    """What stands last goes into the last sum alone: its gradient must not be a difference of large sums."""
    graph = with_weighted_loss(trained(applied(Scan("a"), tensor(A))))
    arrays = samples(graph, SIZES, 0) | {"weight.0": np.array([1e20, 1.0, 1.0, 1e-3]), "weight.1": np.zeros(4)}
    found = interpret(derived(graph), arrays, arrays, np.float64)["grad.x0"]
    np.testing.assert_allclose(found, autograd(graph, arrays, SIZES)["grad.x0"], rtol=1e-12)


INDEX = tensor(BATCH, SEQ, dtype="i64", of=A)
GATHERS: dict[str, tuple[TensorType, TensorType]] = {
    "rows": (tensor(A, B), INDEX),
    "in the middle": (tensor(C, A, B), INDEX),
    "a vector": (tensor(A), INDEX),
    "one row": (tensor(A, B), tensor(dtype="i64", of=A)),
    "aligned": (X, INDEX),
    "aligned in part": (tensor(SEQ, A, B), tensor(C, SEQ, dtype="i32", of=A)),
    "aligned, nothing else": (tensor(BATCH, SEQ, A), INDEX),
    "aligned, and more of the table": (tensor(B, SEQ, A), tensor(SEQ, dtype="i64", of=A)),
}


@pytest.mark.parametrize("name", GATHERS)
def test_gather(name: str) -> None:
    check_op(Gather("a"), *GATHERS[name])


def scatters() -> dict[str, tuple[Op, tuple[TensorType, ...]]]:
    """Return the scatters of the targets' tests that add floats."""
    found: dict[str, tuple[Op, tuple[TensorType, ...]]] = {}
    for name, program in CASES.items():
        (*_, node) = program.graph.body.nodes
        if isinstance(node.op, Scatter) and is_float(node.inputs[0].type.dtype):
            found[name] = (node.op, tuple(value.type for value in node.inputs))
    return found


@pytest.mark.parametrize("name", scatters())
def test_scatter(name: str) -> None:
    op, types = scatters()[name]
    check_op(op, *types)


TOPS: dict[str, tuple[TopK, TensorType]] = {
    "last": (TopK("b", Dim("best", 3)), X),
    "first": (TopK("a", Dim("best", 2)), tensor(A, SEQ)),
    "all": (TopK("a", Dim("best", 4)), tensor(BATCH, A)),
    "one": (TopK("b", Dim("best", 1)), tensor(B)),
    "under the same name": (TopK("b", Dim("b", 2)), tensor(SEQ, B, A)),
    "under the same name, primes taken": (TopK("a", Dim("a", 2)), tensor(A_PRIME, A)),
}


@pytest.mark.parametrize("name", TOPS)
def test_top_k(name: str) -> None:
    check_op(*TOPS[name])


def test_top_k_of_ties() -> None:
    check_op(
        TopK("a", Dim("best", 2)), tensor(BATCH, A), data={"x0": np.array([[1.0, 2, 2, 2], [0] * 4, [3, 1, 3, 1]])}
    )


PAIR, EACH = Dim("pair", 2), Dim("each", 3)
MOVES: dict[str, tuple[Op, tuple[TensorType, ...]]] = {
    "rename": (Rename((("seq", "key"), ("a", "e"))), (X,)),
    "rename crosswise": (Rename((("a", "b"), ("b", "a"))), (X,)),
    "rename in a row": (Rename((("a", "b"), ("b", "c"))), (X,)),
    "transpose": (Transpose(("b", "seq", "a", "batch")), (X,)),
    "split": (Split("b", (PAIR, EACH)), (X,)),
    "split under its own name": (Split("b", (Dim("b", 2), EACH)), (X,)),
    "split first": (Split("a", (Dim("left", 2), Dim("right", 2))), (tensor(A, SEQ),)),
    "split of one": (Split("one", ()), (tensor(SEQ, Dim("one", 1)),)),
    "merge": (Merge(("a", "b"), "ab"), (X,)),
    "merge under a name of its own": (Merge(("a", "b"), "b"), (X,)),
    "merge of free sizes": (Merge(("batch", "seq"), "rows"), (X,)),
    "merge of what stands apart": (Merge(("b", "seq"), "bs"), (X,)),
    "merge of one": (Merge(("a",), "other"), (X,)),
    "slice": (Slice("b", 2, EACH), (X,)),
    "slice at the start": (Slice("b", 0, EACH), (X,)),
    "slice at the end": (Slice("b", 3, EACH), (X,)),
    "slice of all": (Slice("b", 0, Dim("whole", 6)), (X,)),
    "slice under its own name": (Slice("b", 1, Dim("b", 2)), (X,)),
    "slice of a free size": (Slice("seq", 2, Dim("tail", subtract(symbol("seq"), 2))), (X,)),
    "slice from a free start": (Slice("seq", subtract(symbol("seq"), 1), Dim("last", 1)), (X,)),
    "concat": (Concat(("b", "each"), "whole"), (X, tensor(BATCH, A, SEQ, EACH))),
    "concat of three": (Concat(("b", "b", "pair"), "whole"), (tensor(B, A), tensor(A, B), tensor(A, PAIR))),
    "concat under a name of an operand": (Concat(("b", "each"), "b"), (tensor(A, B), tensor(EACH, A))),
    "concat of free sizes": (Concat(("seq", "key"), "both"), (tensor(SEQ, A), tensor(A, KEY))),
    "concat of one": (Concat(("b",), "whole"), (X,)),
    "position": (Position(Dim("longer", multiply(symbol("seq"), 2))), ()),
}


@pytest.mark.parametrize("name", [name for name in MOVES if name != "position"])
def test_what_moves_entries(name: str) -> None:
    op, types = MOVES[name]
    check_op(op, *types)


def test_concat_of_one_value_with_itself_and_of_one_that_is_not_trained() -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        fixed = builder.one(Cast("f32"), inputs[1])
        twice = builder.one(Concat(("a", "a", "a"), "whole"), inputs[0], fixed, inputs[0])
        return [builder.one(Binary("mul"), twice, twice)]

    program = build(body, {"x": tensor(B, A), "ids": tensor(B, A, dtype="i64")})
    graph = with_weighted_loss(trained(program.graph))
    check(graph, samples(graph, SIZES, 0), SIZES)


@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
def test_gradients_that_are_the_same_along_a_dimension(kind: str) -> None:
    """A sum hands its gradient on without the dimensions it summed over; whatever stands before has to cope."""
    after: dict[str, tuple[Op, tuple[TensorType, ...]]] = {
        **MOVES,
        "dot": (Dot(("a",)), (tensor(BATCH, SEQ, A), tensor(A, C))),
        "outer": (Dot(()), (tensor(SEQ, A), tensor(C, A))),
        "add": (Binary("add"), (tensor(SEQ, A), tensor(B, A))),
        "mul": (Binary("mul"), (tensor(SEQ, A), tensor(B))),
        "where": (Where(), (tensor(BATCH, dtype="bool"), tensor(SEQ, A), tensor(B))),
        "scan": (Scan("seq"), (X,)),
        "gather": (Gather("a"), (tensor(A, B), INDEX)),
        "gather aligned": (Gather("a"), (X, INDEX)),
        "top_k": (TopK("b", Dim("best", 3)), (X,)),
        "max": (Reduce("max", ("a",)), (X,)),
        **scatters(),
    }
    del after["position"]
    for op, types in after.values():
        for some in (0, 1, None):
            _check_reduced(op, types, kind, some)


def _check_reduced(op: Op, types: tuple[TensorType, ...], kind: str, some: int | None) -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        y = builder.add(op, *inputs[1:])[0]
        names = y.type.names if some is None else y.type.names[some : some + 1]
        return [builder.one(Reduce(kind, names), y)]  # type: ignore[arg-type]

    inputs = {"sizes": tensor(BATCH, SEQ, dtype="bool")} | {f"x{index}": type for index, type in enumerate(types)}
    graph = with_weighted_loss(trained(build(body, inputs).graph))
    check(graph, samples(graph, SIZES, 5), SIZES)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_mean_of_more_entries_than_its_type_can_count(dtype: DType) -> None:
    """66,000 is beyond the largest f16: the gradient of a mean over so many is small, not zero or NaN."""
    many = Dim("many", 66_000)
    graph = with_weighted_loss(
        trained(build(lambda b, x, _: [b.one(Reduce("mean", ("many",)), x[0])], {"x": tensor(many, dtype=dtype)}).graph)
    )
    arrays = samples(graph, SIZES, 0) | {"weight.0": np.asarray(2.0)}
    expected = autograd(graph, arrays, SIZES, double=False)["grad.x"]
    assert expected[0] > 0
    np.testing.assert_allclose(as_typed(derived(graph), arrays)["grad.x"], expected, rtol=1e-2)


TYPED: dict[str, tuple[Op, tuple[tuple[Dim, ...], ...]]] = {
    **{kind: (Unary(kind), ((BATCH, A),)) for kind in UNARY_FLOATS if kind != "floor"},
    **{kind: (Binary(kind), ((BATCH, A), (A,))) for kind in ARITHMETIC},
    **{f"reduce {kind}": (Reduce(kind, ("a",)), ((BATCH, A),)) for kind in REDUCE_KINDS},
    "dot": (Dot(("a",)), ((BATCH, A), (A, B))),
    "scan": (Scan("a"), ((BATCH, A),)),
    "top_k": (TopK("a", Dim("best", 2)), ((BATCH, A),)),
    "concat": (Concat(("a", "a"), "both"), ((BATCH, A), (BATCH, A))),
}


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-5), ("f16", 1e-2), ("bf16", 8e-2)])
def test_in_its_own_precision(name: str, dtype: DType, tolerance: float) -> None:
    """As a target would run it, every value in the type that it is declared with."""
    op, operands = TYPED[name]
    graph = with_weighted_loss(trained(applied(op, *(tensor(*dims, dtype=dtype) for dims in operands))))
    arrays = samples(graph, SIZES, 1)
    rng = np.random.default_rng(3)
    for place, param in enumerate(graph.params):
        # Far from each other's multiples, and from ties that rounding makes.
        arrays[param.name] = rng.permutation(arrays[param.name].size).reshape(arrays[param.name].shape) * 0.25
        arrays[param.name] = arrays[param.name] * 0.37**place + 0.6
    expected = autograd(graph, arrays, SIZES, double=False)
    compare(expected, as_typed(derived(graph), arrays), name, tolerance)


def as_typed(graph: Graph, arrays: Arrays) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """Run a graph in PyTorch, every float in its own type."""
    import torch
    from torch_meaning import DTYPES

    given = {v.name: torch.tensor(arrays[v.name], dtype=DTYPES[v.type.dtype]) for v in graph.body.arguments}
    results = run(graph, given, SIZES, double=False)
    return {name: x.double().numpy() for name, x in zip(graph.outputs, results, strict=True)}


def test_every_op_is_covered() -> None:
    tested: set[type[Op]] = {type(op) for op, _ in (*MOVES.values(), *TOPS.values(), *scatters().values())}
    assert tested | {Constant, Unary, Binary, Where, Cast, Dot, Reduce, Scan, Gather, Call, Repeat} == set(OPS)
