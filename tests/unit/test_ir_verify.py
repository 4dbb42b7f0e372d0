"""The verifier: every kind of broken graph is caught, and valid ones pass unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from small_graphs import NESTED, A, B, graphs, program, tensor

from cgc.ir.dims import Dim, symbol
from cgc.ir.graph import Graph, Init, Node, Param, Region, Symbol, Value
from cgc.ir.ops import Binary, Call, Repeat, Unary
from cgc.ir.verify import InvalidGraph, verify

X, W = Value("x", tensor(A, B)), Value("w", tensor(A))
Y, Z = Value("y", tensor(A, B)), Value("z", tensor(A, B))
EXP = Node(Unary("exp"), (X,), (Y,))
MUL = Node(Binary("mul"), (Y, W), (Z,))
PARAM = Param(W, Init("constant"))
GOOD = Graph("good", (), (PARAM,), (), Region((X, W), (EXP, MUL), (Z,)), ("out",))


def nodes(*changed: Node, results: tuple[Value, ...] = (Z,)) -> Graph:
    return replace(GOOD, body=Region((X, W), changed, results))


STACKED = Value("w", tensor(Dim("n", 3), A))


def loop(body: Region, output: Value = Z, carried: int = 1, shared: int = 0) -> Graph:
    op = Repeat("h", Dim("n", 3), carried, shared, body)
    node = Node(op, (X, STACKED), (output,))
    return replace(
        GOOD, params=(replace(PARAM, value=STACKED, stacked=1),), body=Region((X, STACKED), (node,), (output,))
    )


IN_X, IN_W, IN_Y = Value("a", X.type), Value("b", W.type), Value("c", X.type)
TURN = Node(Binary("mul"), (IN_X, IN_W), (IN_Y,))
TWICE = Value("y", tensor(A, Dim("a", 3)))


def test_good_graphs_come_back() -> None:
    assert verify(GOOD) is GOOD
    good = loop(Region((IN_X, IN_W), (TURN,), (IN_Y,)))
    assert verify(good) is good


@given(graphs())
@settings(max_examples=50, deadline=None)
def test_whatever_the_builder_makes_is_valid(graph: Graph) -> None:
    assert verify(graph) is graph


BROKEN: dict[str, tuple[Graph, str]] = {
    "used before it is defined": (nodes(MUL, EXP), "`y` is not visible"),
    "never defined": (nodes(MUL), "`y` is not visible"),
    "defined twice": (nodes(EXP, EXP, MUL), "`y` is defined twice"),
    "an argument redefined": (nodes(replace(EXP, outputs=(X,)), results=(X,)), "`x` is defined twice"),
    "used with another type": (
        nodes(EXP, replace(MUL, inputs=(Value("y", tensor(B)), W))),
        "`y` is not visible where it is used, or has another type",
    ),
    "result not of the rule's type": (
        nodes(replace(EXP, outputs=(Value("y", tensor(B, A)),)), results=()),
        "unary → `y` gives f32[a=2, b=3]",
    ),
    "result of another dtype": (
        nodes(replace(EXP, outputs=(Value("y", tensor(A, B, dtype="f16")),)), results=()),
        "gives f32",
    ),
    "too many results": (nodes(replace(EXP, outputs=(Y, Z))), "gives f32"),
    "no result": (nodes(replace(EXP, outputs=())), "gives f32"),
    "an operand too few": (nodes(EXP, replace(MUL, inputs=(Y,))), "takes 2 operands"),
    "an op that does not take the dtype": (nodes(replace(EXP, op=Unary("not"))), "`not` does not take f32"),
    "a dimension twice": (replace(GOOD, body=Region((TWICE, W), (), (W,))), "`y` has a dimension twice"),
    "an output that nothing defines": (nodes(EXP, MUL, results=(Value("q", X.type),)), "`q` is not visible"),
    "an output of another type": (nodes(EXP, MUL, results=(Value("z", W.type),)), "`z` is not visible"),
    "more results than names": (nodes(EXP, MUL, results=(Z, Y)), "1 output names for 2 results"),
    "more names than results": (replace(GOOD, outputs=("out", "more")), "2 output names for 1 results"),
    "a name for two outputs": (
        replace(nodes(EXP, MUL, results=(Z, Y)), outputs=("out", "out")),
        "2 output names for 2 results",
    ),
    "a parameter that is no argument": (
        replace(GOOD, params=(PARAM, replace(PARAM, value=Value("v", W.type)))),
        "the last arguments are not the parameters",
    ),
    "parameters before inputs": (replace(GOOD, body=replace(GOOD.body, arguments=(W, X))), "the last arguments"),
    "a parameter of another type": (replace(GOOD, params=(replace(PARAM, value=Value("w", X.type)),)), "the last"),
    "an unknown function": (
        nodes(Node(Call("f", "f", 1), (X,), (Y,)), MUL),
        "function `f` is called before it is defined",
    ),
    "an undeclared size": (
        replace(GOOD, body=Region((Value("x", tensor(Dim("n", symbol("n")))), W), (), (W,))),
        "size n of `x` is not declared",
    ),
    "a body that sees outside": (
        loop(Region((IN_X, IN_W), (replace(TURN, inputs=(X, IN_W)),), (IN_Y,))),
        "`x` is not visible",
    ),
    "a body that yields what it has not": (loop(Region((IN_X, IN_W), (), (IN_Y,))), "`c` is not visible"),
    "a body that changes a type": (loop(Region((IN_X, IN_W), (TURN,), (IN_W,))), "does not carry the types"),
    "a body that yields too much": (loop(Region((IN_X, IN_W), (TURN,), (IN_Y, IN_X))), "collects 0 values"),
    "a body with a broken node": (
        loop(Region((IN_X, IN_W), (replace(TURN, op=Binary("and")),), (IN_Y,))),
        "`and` does not take f32",
    ),
    "a body that takes a name from outside": (
        loop(Region((X, IN_W), (replace(TURN, inputs=(X, IN_W)),), (IN_Y,))),
        "`x` is defined twice",
    ),
    "a parameter that is not stacked": (loop(Region((IN_X, STACKED), (), (IN_X,))), "defined twice"),
    "a loop's result of another type": (loop(Region((IN_X, IN_W), (TURN,), (IN_Y,)), Value("z", W.type)), "gives f32"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    graph, says = BROKEN[name]
    with pytest.raises(InvalidGraph) as caught:
        verify(graph)
    assert says in str(caught.value)


def test_the_message_names_the_graph_or_the_function() -> None:
    with pytest.raises(InvalidGraph, match=r"^graph `good`: `y` is defined twice$"):
        verify(BROKEN["defined twice"][0])
    with pytest.raises(InvalidGraph, match=f"^function `{FUNCTIONS.functions[0].name}`: "):
        verify(_first(FUNCTIONS, body=replace(FUNCTIONS.functions[0].body, nodes=())))


FUNCTIONS = program(NESTED).graph


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda graph: replace(graph, functions=graph.functions[::-1]), "is called before it is defined"),
        (lambda graph: replace(graph, functions=graph.functions[1:]), "is called before it is defined"),
        (lambda graph: replace(graph, functions=(graph.functions[0], *graph.functions)), "is defined twice"),
        (lambda graph: _first(graph, params=graph.functions[0].params[::-1]), "the last arguments are not the param"),
        (lambda graph: _first(graph, body=replace(graph.functions[0].body, results=())), "gives "),
        (lambda graph: _first(graph, body=replace(graph.functions[0].body, nodes=())), "is not visible"),
    ],
)
def test_broken_functions(change: Callable[[Graph], Graph], says: str) -> None:
    verify(FUNCTIONS)
    with pytest.raises(InvalidGraph, match=says):
        verify(change(FUNCTIONS))


def _first(graph: Graph, **changes: object) -> Graph:
    return replace(graph, functions=(replace(graph.functions[0], **changes), *graph.functions[1:]))  # type: ignore[arg-type]


def test_a_function_does_not_see_what_is_around_it() -> None:
    (first, *rest) = FUNCTIONS.functions
    outside = FUNCTIONS.params[0].value
    stolen = replace(first, body=replace(first.body, results=(outside, *first.body.results[1:])))
    with pytest.raises(InvalidGraph, match="`first` is not visible"):
        verify(replace(FUNCTIONS, functions=(stolen, *rest)))


def test_declared_sizes_may_be_used() -> None:
    n = Value("x", tensor(Dim("n", symbol("n"))))
    verify(replace(GOOD, symbols=(Symbol("n"),), body=Region((n, W), (), (n,))))
