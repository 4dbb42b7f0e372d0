"""Derivatives of loops of every form, kept and unrolled, with and without recomputation, against `torch.autograd`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from gradients import check, derived, samples, trained, with_weighted_loss
from onnx_programs import BATCH, SEQ, build, tensor

from cgc.elaborate.files import elaborate_file
from cgc.ir.builder import Builder
from cgc.ir.dims import Dim
from cgc.ir.graph import Graph, Value, walk
from cgc.ir.ops import Binary, Cast, Constant, Dot, Gather, Op, Position, Reduce, Rename, Repeat, Unary, Where
from cgc.ir.types import TensorType
from cgc.passes.autodiff import GRADIENT
from cgc.passes.inline import inline

A = Dim("a", 4)
TURNS, ROUNDS = Dim("turns", 3), Dim("rounds", 2)
SIZES = {"batch": 2, "seq": 3}
X = tensor(BATCH, A)
W = tensor(A)

Inside = Callable[[Builder, Sequence[Value]], tuple[Sequence[Value], Sequence[Value]]]
"""Writes a loop's body; returns the carried results and the collected ones."""


def loop(
    builder: Builder,
    inside: Inside,
    carried: Sequence[Value],
    shared: Sequence[Value] = (),
    stacked: Sequence[Value] = (),
    stack: Dim = TURNS,
    reverse: bool = False,
) -> tuple[Value, ...]:
    """Write a loop and return its results."""
    inner = builder.region()
    types = [*(value.type for value in (*carried, *shared)), *(v.type.with_dims(v.type.dims[1:]) for v in stacked)]
    arguments = [inner.value(f"in_{index}", type) for index, type in enumerate(types)]
    results, collected = inside(inner, arguments)
    body = inner.finish(tuple(arguments), (*results, *collected))
    op = Repeat("h", stack, len(carried), len(shared), body, len(collected), reverse)
    return builder.add(op, *carried, *shared, *stacked, path="h")


def mul(builder: Builder, *values: Value) -> Value:
    result = values[0]
    for value in values[1:]:
        result = builder.one(Binary("mul"), result, value)
    return result


def plus(builder: Builder, a: Value, b: Value) -> Value:
    return builder.one(Binary("add"), a, b)


def bent(builder: Builder, x: Value) -> Value:
    return builder.one(Unary("tanh"), x)


Whole = Callable[[Builder, Sequence[Value]], Sequence[Value]]
CASES: dict[str, tuple[dict[str, TensorType], Whole]] = {}


def case(name: str, **inputs: TensorType) -> Callable[[Whole], Whole]:
    def note(whole: Whole) -> Whole:
        CASES[name] = (inputs, whole)
        return whole

    return note


STACKED = tensor(TURNS, A)


@case("stacked and shared", x=X, s=W, w=STACKED)
def _plain(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [plus(i, bent(i, mul(i, a[0], a[2])), a[1])], []

    return loop(b, inside, v[:1], v[1:2], v[2:])


@case("two carried change places", x=X, y=X, w=STACKED)
def _swapped(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [a[1], mul(i, a[0], a[2])], []

    return loop(b, inside, v[:2], (), v[2:])


@case("one result twice, and arguments as results", x=X, y=X, s=X)
def _same(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        z = mul(i, a[0], a[1], a[2])
        return [z, a[2]], [z, z, a[0], a[2]]

    return loop(b, inside, v[:2], v[2:])


@case("only collected values are read", x=X, w=STACKED)
def _collected(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        y = bent(i, mul(i, a[0], a[1]))
        return [y], [mul(i, y, y), a[1]]

    _, squares, slices = loop(b, inside, v[:1], (), v[1:])
    return [squares, b.one(Reduce("sum", ("turns", "a")), slices)]


@case("in reverse, collecting", x=X, w=STACKED)
def _reverse(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        y = bent(i, mul(i, a[0], a[1]))
        return [y], [plus(i, y, a[1])]

    return loop(b, inside, v[:1], (), v[1:], reverse=True)


@case("nothing carried", s=X, w=STACKED)
def _mapped(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [], [bent(i, mul(i, a[0], a[1]))]

    return loop(b, inside, (), v[:1], v[1:])


@case("what is collected feeds the next loop", x=X, w=STACKED)
def _chained(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def first(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        y = bent(i, mul(i, a[0], a[1]))
        return [y], [y]

    def second(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [mul(i, a[0], a[1], a[2])], []

    y, kept = loop(b, first, v[:1], (), v[1:])
    return loop(b, second, [y], (), [kept, v[1]])


@case("a carried whole number decides", x=X, w=STACKED)
def _counted(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        one = i.one(Constant(1, "i64"))
        odd = i.one(Binary("eq"), i.one(Binary("mod"), a[1], i.one(Constant(2, "i64"))), one)
        y = i.one(Where(), odd, mul(i, a[0], a[2]), plus(i, a[0], a[2]))
        scaled = mul(i, y, i.one(Cast("f32"), a[1]))
        return [scaled, plus(i, a[1], one)], [a[1]]

    return loop(b, inside, [v[0], b.one(Constant(1, "i64"))], (), v[1:])


@case("a value is dropped on the way", x=X, w=STACKED)
def _dropped(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    """The second carried value is rounded, so that nothing flows through it; the first starts anew each turn."""

    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [mul(i, a[1], a[2]), i.one(Unary("floor"), a[1])], [mul(i, a[0], a[2])]

    return loop(b, inside, [v[0], v[0]], (), v[1:])


@case("one operand in all places", x=STACKED)
def _everywhere(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        rows = i.one(Rename((("turns", "rows"),)), a[1])
        return [bent(i, mul(i, a[0], a[2]))], [i.one(Dot(("rows",)), rows, i.one(Rename((("turns", "rows"),)), a[0]))]

    return loop(b, inside, v, v, v)


@case("values with the loop's own dimension", x=tensor(TURNS, A), w=STACKED)
def _own(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        position = i.one(Cast("f32"), i.one(Position(TURNS)))
        return [bent(i, mul(i, a[0], a[1], position))], []

    return loop(b, inside, v[:1], (), v[1:])


@case("the loop's own dimension with primes", x=tensor(TURNS, Dim("turns'", 2), A), w=STACKED)
def _primed(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [bent(i, mul(i, a[0], a[1]))], []

    return loop(b, inside, v[:1], (), v[1:])


@case("gradients that are the same along a dimension", x=X, s=tensor(BATCH), w=STACKED)
def _flat(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    """The carried, shared and stacked gradients all lack dimensions before they are written out."""

    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        total = i.one(Reduce("sum", ("batch", "a")), a[0])
        return [plus(i, plus(i, a[0], a[1]), a[2])], [total]

    y, totals = loop(b, inside, v[:1], v[1:2], v[2:])
    return [b.one(Reduce("mean", ("batch", "a")), y), b.one(Reduce("max", ("turns",)), totals)]


@case("what is looked up is shared", table=tensor(Dim("rows", 5), A), x=X, w=STACKED)
def _looked_up(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        row = i.one(Gather("rows"), a[2], a[1])
        return [bent(i, mul(i, a[0], row, a[3])), plus(i, a[1], i.one(Constant(1, "i64")))], []

    return loop(b, inside, [v[1], b.one(Constant(2, "i64"))], v[:1], v[2:])


@case("a loop in a loop, stacked twice", x=X, s=W, w=tensor(TURNS, ROUNDS, A))
def _nested(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def within(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [plus(i, bent(i, mul(i, a[0], a[2])), a[1])], [a[0]]

    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        y, kept = loop(i, within, a[:1], a[1:2], a[2:], ROUNDS)
        return [mul(i, y, a[1])], [kept]

    return loop(b, inside, v[:1], v[1:2], v[2:])


@case("a loop in a loop over what is the same in all turns", x=X, s=X, w=STACKED)
def _fixed(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def within(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        return [bent(i, mul(i, a[0], a[1]))], []

    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        (same,) = loop(i, within, [a[1]], [a[1]], (), ROUNDS)
        return [mul(i, a[0], same, a[2])], []

    return loop(b, inside, v[:1], v[1:2], v[2:])


@case("once", x=X, w=tensor(Dim("once", 1), A))
def _once(b: Builder, v: Sequence[Value]) -> Sequence[Value]:
    def inside(i: Builder, a: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        y = bent(i, mul(i, a[0], a[1]))
        return [y], [y]

    return loop(b, inside, v[:1], (), v[1:], Dim("once", 1))


def graph_of(name: str) -> Graph:
    inputs, whole = CASES[name]
    # What is stacked stands under the loop's path, as the front end has it.
    types = {"h.w" if name == "w" else name: type for name, type in inputs.items()}
    types["sizes"] = tensor(BATCH, SEQ, dtype="bool")
    graph = build(lambda b, values, _: whole(b, values[:-1]), types).graph
    return with_weighted_loss(trained(graph))


@pytest.mark.parametrize("name", CASES)
def test_loop(name: str) -> None:
    graph = graph_of(name)
    for seed in (0, 1):
        check(graph, samples(graph, SIZES, seed), SIZES)


SOURCES = {
    "loops in loops, in blocks": """
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
""",
    "three deep, several carried, operands from every level": """
model deep(width = 4, a = 2, b = 3, c = 2) {
    input x[batch, seq, width]
    param s[width] ~ normal(std=1)
    total = mean(x, over width)
    repeat a as p {
        param u[width] ~ normal(std=1)
        repeat b as q {
            param v[width] ~ normal(std=1)
            y = x * u
            repeat c as r {
                param w[width] ~ normal(std=1)
                x = tanh(x * w + v * s) + y * 0.5
                total = total + mean(x * u, over width)
            }
        }
        x = x + s
    }
    output y = x
    output t = total
}
""",
    "one matrix in every turn and outside": """
model tied(width = 4, layers = 3) {
    input x[batch, width]
    dim out = width
    param shared[width, out] ~ normal(std=0.5)
    y = dot(x, shared, over width) as [out -> width]
    repeat layers as h {
        y = y + tanh(dot(y, shared, over width) as [out -> width]) * linear(y, width -> width, std=0.5)
    }
    output z = dot(y, shared, over width)
}
""",
    "two loops over one number of layers": """
model two(width = 4, layers = 2) {
    input x[batch, seq, width]
    repeat layers as encoder {
        x = x + silu(linear(x, width -> width, std=0.5))
    }
    memory = rms_norm(x, over width) as [seq -> key]
    repeat layers as decoder {
        x = x + attend(linear(x, width -> width, std=0.5), memory, memory, over width, seq -> key)
    }
    output y = x
}
""",
}


def program_graph(name: str) -> Graph:
    found = elaborate_file(SOURCES[name], "m.cg")
    return found.programs[0].graph


@pytest.mark.parametrize("name", SOURCES)
def test_loops_of_the_language(name: str) -> None:
    graph = with_weighted_loss(trained(inline(program_graph(name))))
    check(graph, samples(graph, SIZES, 1), SIZES)


def test_a_function_in_a_loop_is_inlined_and_the_same() -> None:
    """`autodiff` takes graphs with calls as they are."""
    graph = with_weighted_loss(trained(program_graph("loops in loops, in blocks")))
    assert graph.functions
    check(graph, samples(graph, SIZES, 1), SIZES)


def loops(graph: Graph) -> list[Repeat]:
    """Return the loops of the forward pass, those that are run again for the backward one among them."""
    return [n.op for n in walk(graph.body) if isinstance(n.op, Repeat) and not n.path.startswith(GRADIENT)]


@pytest.mark.parametrize("name", CASES)
def test_loops_that_compute_again_collect_what_they_carry_and_no_more(name: str) -> None:
    graph = graph_of(name)
    own = max(op.collected for op in loops(graph))
    assert all(op.collected <= own + op.carried for op in loops(derived(graph, recompute=True)))


def test_what_is_the_same_in_all_turns_is_not_collected() -> None:
    text = derived(graph_of("a loop in a loop over what is the same in all turns"))
    (outer,) = [n for n in text.body.nodes if isinstance(n.op, Repeat) and not n.op.reverse]
    assert isinstance(outer.op, Repeat)
    shapes = [value.type.names for value in outer.outputs[outer.op.carried :]]
    assert ("turns", "rounds", "batch", "a") not in shapes


def ops_of(graph: Graph) -> list[Op]:
    return [node.op for node in walk(graph.body)]


def test_loops_stay_loops() -> None:
    found = ops_of(derived(graph_of("a loop in a loop, stacked twice")))
    assert [op.reverse for op in found if isinstance(op, Repeat)] == [False, False, True, True]


def test_nothing_flows_where_nothing_depends() -> None:
    def body(b: Builder, v: Sequence[Value], _: Sequence[Value]) -> list[Value]:
        return [b.one(Unary("floor"), v[0]), v[1]]

    graph = with_weighted_loss(trained(build(body, {"x": X, "y": X, "sizes": tensor(BATCH, SEQ, dtype="bool")}).graph))
    check(graph, samples(graph, SIZES, 0), SIZES)
