"""The textual form of graphs: what is printed parses back to an equal graph, and what is none is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from small_graphs import NESTED, A, B, build, graphs, one, program, tensor

import cgc
from cgc.ir.graph import Graph, Init, Location, Param, walk
from cgc.ir.ops import Binary, Call, Constant, Repeat, Unary
from cgc.ir.read import MalformedGraphText, parse_graph
from cgc.ir.text import print_graph
from cgc.ir.to_networkx import to_networkx
from cgc.ir.verify import verify
from cgc.passes.inline import inline
from cgc.record import record

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*EXAMPLES.glob("*.cg"), *EXAMPLES.glob("cerebras_gpt/*.cg")])


def places(graph: Graph) -> list[object]:
    """Return what equality of graphs leaves out: every place."""
    found: list[object] = [graph.location, *(param.location for param in graph.params)]
    found += [node.location for node in walk(graph.body)]
    for function in graph.functions:
        found += [function.location, *(node.location for node in walk(function.body))]
        found += [param.location for param in function.params]
    return found


def same(graph: Graph) -> None:
    text = print_graph(graph)
    back = parse_graph(text)
    assert back == graph
    assert places(back) == places(graph)
    assert print_graph(back) == text
    assert str(graph) == text
    verify(back)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    same(cgc.load(path).graph)


def test_nested_loops_and_what_passes_make_of_them() -> None:
    graph = program(NESTED).graph
    same(graph)
    same(inline(graph))


@given(graphs())
@settings(max_examples=100, deadline=None)
def test_random_graphs(graph: Graph) -> None:
    same(graph)


@pytest.mark.parametrize(
    "doc",
    [
        "x @ y",
        "mail @ a.cg:1:2-3:4",
        'a "quote", a \\ and {"braces": [1]}',
        "two\nlines",
        "\u2028 \u2029 \x85 \x0b \x0c \x1c \t",
        "; %x : f32[] ~ = é 漢",
        "",
    ],
)
@pytest.mark.parametrize("place", [Location("", 0, 0, 0, 0), Location("my models/a @ b.cg", 1, 2, 3, 4)])
def test_any_text_may_stand_in_a_comment_or_an_argument(doc: str, place: Location) -> None:
    graph = program(
        "model m(width = 8) {\ninput x[batch, width]\noutput y = f(x)\n}\nblock f(x) {\nreturn x + 1\n}\n"
    ).graph
    (function,) = graph.functions
    function = replace(
        function, doc=doc, static=(("kind", doc), ("dims", (doc, "b")), ("n", 3), ("on", True)), location=place
    )
    same(replace(graph, functions=(function,)))


def test_a_comment_above_a_block_is_kept() -> None:
    graph = program(
        "model m(width = 8) {\ninput x[batch, width]\noutput y = f(x)\n}\n# a @ b\nblock f(x) {\nreturn x + 1\n}\n"
    ).graph
    assert parse_graph(print_graph(graph)).functions[0].doc == "a @ b"


@pytest.mark.parametrize("value", [0.1, 1e-300, -0.0, float("inf"), float("-inf"), 3, -(2**62), True, False])
def test_constants_are_exact(value: float) -> None:
    dtype = "bool" if isinstance(value, bool) else "i64" if isinstance(value, int) else "f32"
    graph = one(Constant(value, dtype, "n / 2"))  # type: ignore[arg-type]
    (node,) = parse_graph(print_graph(graph)).body.nodes
    assert isinstance(node.op, Constant)
    assert (type(node.op.value), repr(node.op.value), node.op.text) == (type(value), repr(value), "n / 2")


@pytest.mark.parametrize(
    "init",
    [Init("constant"), Init("constant", 1.0), Init("uniform", limit=0.1), Init("normal", -1.5, 1e-9)],
)
def test_parameters_keep_their_distribution(init: Init) -> None:
    graph = build(lambda _, inputs, params: [params[0]], {}, {"h.0.w'": tensor(A, B)})
    param = Param(graph.params[0].value, init, Location("f.cg", 1, 2, 3, 4), stacked=1)
    same(replace(graph, params=(param,)))


GOOD = print_graph(
    build(
        lambda b, inputs, _: [b.one(Binary("add"), b.one(Unary("exp"), inputs[0]), inputs[1])],
        {"x": tensor(A), "z": tensor(A)},
    )
)


def test_the_text_is_what_the_documentation_says() -> None:
    assert GOOD == (
        "graph sample format 1\nsymbol batch\nsymbol seq <= context=9\n\n"
        "input %x : f32[a=2]\ninput %z : f32[a=2]\n"
        '%unary : f32[a=2] = unary %x {"kind": "exp"}\n'
        '%binary : f32[a=2] = binary %unary, %z {"kind": "add"}\noutput y0 = %binary\n'
    )
    assert print_graph(parse_graph(GOOD.replace("\n", "\r\n\r\n"))) == GOOD


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("format 1", "format 2", 1),
        ("graph sample", "program sample", 1),
        ("graph sample format 1", "graph sample", 1),
        ("= unary", "= unry", 7),
        ("unary %x", "unary %nothing", 7),
        ("f32[a=2] = unary", "f99[a=2] = unary", 7),
        ("f32[a=2] = unary", "f32[a=2 = unary", 7),
        ("f32[a=2] = unary", "f32[a=1/0] = unary", 7),
        ("f32[a=2] = unary", "f32[a=+] = unary", 7),
        ('{"kind": "exp"}', '{"kind": "exp"', 7),
        ('{"kind": "exp"}', '{"sort": "exp"}', 7),
        ('{"kind": "exp"}', "", 7),
        ('{"kind": "exp"}', '{"kind": "exp", "over": 3}', 7),
        ("output y0 = %binary", "output y0 = %nothing", 9),
        (GOOD, "", 1),
        (GOOD, "graph", 1),
        (GOOD, "\x00\n\n{", 1),
    ],
)
def test_what_is_no_graph(old: str, new: str, line: int) -> None:
    assert old in GOOD
    with pytest.raises(MalformedGraphText) as caught:
        parse_graph(GOOD.replace(old, new))
    assert str(caught.value).startswith(f"line {line}")


@pytest.mark.parametrize("end", ["end", "return", "yield"])
def test_a_text_that_stops_in_a_block(end: str) -> None:
    text = print_graph(program(NESTED).graph)
    cut = text[: text.index(f"  {end} " if end != "end" else "\nend")]
    with pytest.raises(MalformedGraphText):
        parse_graph(cut)


def test_networkx_has_every_node_and_edge() -> None:
    graph = program(NESTED).graph
    net = to_networkx(graph)
    flat = inline(graph)
    ops = [node for node in walk(flat.body) if not isinstance(node.op, Repeat | Call)]
    kinds = [data["op"] for _, data in net.nodes(data=True)]
    # Calls are entered at every call; `turned` is called twice with one body, so its nodes may not fall together.
    assert sorted(kinds) == sorted(
        [*(["input"] * 1), *(["output"] * 2), *(["param"] * len(graph.params))]
        + [type(node.op).__name__.lower() for node in ops]
    )
    assert net.number_of_edges() == sum(len(node.inputs) for node in ops) + len(graph.outputs)
    assert net.nodes["param:first"]["path"] == "first"
    assert net.nodes["param:first"]["line"] == 4
    assert net.in_degree("output:y_out") == 1
    assert all({"op", "path", "block", "line", "file"} <= data.keys() for _, data in net.nodes(data=True))
    assert {data["block"] for _, data in net.nodes(data=True)} >= {"", "o", "o.linear", "o.i.mixed.layer_norm"}


def test_networkx_edges_carry_types() -> None:
    net = to_networkx(parse_graph(GOOD))
    edges = {(source, target): data for source, target, data in net.edges(data=True)}
    assert edges["input:x", "/unary"] == {"type": "f32[a=2]", "value": "x"}
    assert edges["/unary", "/binary"] == {"type": "f32[a=2]", "value": "unary"}
    assert edges["/binary", "output:y0"]["value"] == "binary"
    assert len(edges) == 4


def test_records_are_values() -> None:
    @record(frozen=True)
    class Pair:
        a: int
        b: int = 2

    assert Pair(1) == Pair(1, 2) == Pair(b=2, a=1)
    assert len({Pair(1), Pair(1, 2), Pair(2)}) == 2
    assert repr(Pair(1)).endswith("Pair(a=1, b=2)")
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            Pair(*wrong)
    with pytest.raises(AttributeError):
        Pair(1).a = 3  # type: ignore[misc]
