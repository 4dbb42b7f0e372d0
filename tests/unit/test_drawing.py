"""Pictures: the same text for the same graph, blocks opened down to a depth, and text that graphviz can read."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from small_graphs import NESTED, A, build, program, tensor

import cgc
from cgc.diagnostics import InputError
from cgc.drawing import FORMATS, dot_source, draw
from cgc.driver import UsageError
from cgc.ir.graph import Graph, walk
from cgc.ir.ops import Constant, Unary
from cgc.ir.read import parse_graph
from cgc.ir.text import print_graph
from cgc.passes.inline import inline

TINY = Path(__file__).parents[2] / "examples/tiny.cg"
NODE = re.compile(r"^ *(n\d+) \[label=<<b>(.*?)</b>", re.M)
EDGE = re.compile(r"^ *(n\d+) -> (n\d+) \[", re.M)
CLUSTER = re.compile(r"^ *subgraph cluster_(n\d+) \{\n *label=<<b>(.*?)</b>", re.M)


def titles(source: str) -> list[str]:
    return [title for _, title in NODE.findall(source)]


def tiny() -> Graph:
    return cgc.load(TINY).graph


@pytest.mark.parametrize("depth", [0, 1, 2, 99])
def test_deterministic(depth: int) -> None:
    graph = tiny()
    source = dot_source(graph, depth)
    assert dot_source(tiny(), depth) == source
    assert dot_source(parse_graph(print_graph(graph)), depth) == source


@pytest.mark.parametrize("make", [tiny, lambda: program(NESTED).graph])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 99])
def test_well_formed(make: object, depth: int) -> None:
    assert callable(make)
    source = dot_source(make(), depth)
    names = [name for name, _ in NODE.findall(source)]
    clusters = [name for name, _ in CLUSTER.findall(source)]
    assert len({*names, *clusters}) == len(names) + len(clusters)
    assert {end for edge in EDGE.findall(source) for end in edge} <= set(names)
    assert source.count("{") == source.count("}") and source.endswith("}\n")


def test_depth_0_shows_the_model_s_own_statements() -> None:
    source = dot_source(tiny(), 0)
    assert CLUSTER.findall(source) == []
    ends, ops = ["tokens", "logits"], ["gather", "position", "gather", "add", "dot over width"]
    assert Counter(titles(source)) == Counter([*ends, *ops, "h: repeat layers=4", "ln_f: layer_norm"])
    # tokens and the position into a lookup each, both into the sum, the sum into the loop, and on to the output
    assert len(EDGE.findall(source)) == 8


def test_each_depth_opens_one_more_level() -> None:
    source = dot_source(tiny(), 1)
    assert [title for _, title in CLUSTER.findall(source)] == ["h: repeat layers=4", "ln_f: layer_norm"]
    assert {"attention", "mlp", "ln_1: layer_norm"} <= set(titles(source))
    source = dot_source(tiny(), 2)
    assert {"attention", "mlp"} <= {title for _, title in CLUSTER.findall(source)}
    assert {"q: linear", "k: linear", "v: linear", "mixed: attend"} <= set(titles(source))
    assert "attention" not in titles(source)


def test_fully_opened_every_primitive_is_there_once() -> None:
    graph = program(NESTED).graph
    source = dot_source(graph, 99)
    flat = inline(graph)
    wanted = [
        node for node in walk(flat.body) if not isinstance(node.op, Constant) and node.op.__class__.__name__ != "Repeat"
    ]
    assert len(NODE.findall(source)) == len(wanted) + len(graph.inputs) + len(graph.outputs)
    assert len(EDGE.findall(source)) > len(wanted)


def test_names_are_quoted() -> None:
    graph = build(lambda b, inputs, _: [b.one(Unary("exp"), inputs[0])], {"x": tensor(A)})
    (node,) = graph.body.nodes
    location = replace(node.location, file='a "b" \\ <c>.cg', line=1)
    body = replace(graph.body, nodes=(replace(node, location=location),))
    source = dot_source(replace(graph, body=body, name='m "<&>"'), 1)
    assert 'digraph "m \\"<&>\\"" {' in source
    assert 'tooltip=" a \\"b\\" \\\\ <c>.cg:1:0"' in source


def test_draw_writes_one_file(tmp_path: Path) -> None:
    path = draw(tiny(), tmp_path / "new" / "tiny.dot", 1)
    assert path.read_text() == dot_source(tiny(), 1)
    assert list(path.parent.iterdir()) == [path]
    draw(tiny(), path, 0)
    assert path.read_text() == dot_source(tiny(), 0)


@pytest.mark.parametrize("name", ["x.gif", "x", ".dot", "x.DOT.txt"])
def test_endings(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a picture ends in one of \.svg, \.png, \.pdf, \.dot"):
        draw(tiny(), tmp_path / name, 1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.dot").mkdir()
    for place in ("file/x.dot", "folder.dot"):
        with pytest.raises(InputError, match="CG0004"):
            draw(tiny(), tmp_path / place, 1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.dot"]


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@pytest.mark.parametrize(("ending", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_graphviz_reads_it(ending: str, magic: bytes, tmp_path: Path) -> None:
    assert ending in FORMATS
    assert draw(program(NESTED).graph, tmp_path / f"x{ending}", 2).read_bytes().startswith(magic)
