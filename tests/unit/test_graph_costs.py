"""Costs in pictures of graphs, and the file for Model Explorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import cgc
from cgc.cli import main
from cgc.drawing import dot_source
from cgc.graph_costs import GraphCosts, costs_of
from cgc.ir.graph import walk
from cgc.ir.ops import Call, Repeat
from cgc.model_explorer import model_explorer_json

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def costs() -> GraphCosts:
    return costs_of(cgc.load(EXAMPLES / "tiny.cg").program, "wse-sim", "wse2")


def collection(costs: GraphCosts | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(model_explorer_json(cgc.load(EXAMPLES / "tiny.cg").graph, costs))
    return found


def test_shares_add_up(costs: GraphCosts) -> None:
    assert sum(block.share for block in costs.blocks) == pytest.approx(1)
    parameters = sum(block.parameters for block in costs.blocks)
    assert parameters == cgc.load(EXAMPLES / "tiny.cg").parameter_count
    whole = costs.of("h")
    assert whole["parameters"] == f"{sum(b.parameters for b in costs.blocks if b.path.startswith('h.')):,}"
    assert "cores" not in whole
    assert costs.of("h.mlp.up")["bound by"] in ("compute", "sram", "fabric")
    assert costs.of("h.mlp.u") == costs.of("nothing") == costs.of("") == {}
    assert 0 < costs.heat("h.mlp") < costs.heat("h") < 1


def test_model_explorer_has_every_primitive_and_every_edge() -> None:
    graph = cgc.load(EXAMPLES / "tiny.cg").graph
    (found,) = collection()["graphs"]
    ids = [node["id"] for node in found["nodes"]]
    assert len(ids) == len(set(ids))
    sources = {edge["sourceNodeId"] for node in found["nodes"] for edge in node["incomingEdges"]}
    assert sources <= set(ids)
    for node in found["nodes"]:
        assert {"id", "label", "namespace", "attrs", "incomingEdges"} <= node.keys()
        assert [edge["targetNodeInputId"] for edge in node["incomingEdges"]] == [
            str(i) for i in range(len(node["incomingEdges"]))
        ]
        assert all(isinstance(attr["key"], str) and isinstance(attr["value"], str) for attr in node["attrs"])
    primitives = 0

    def count(body: Any) -> int:
        inner = 0
        for node in body.nodes:
            if isinstance(node.op, Call):
                inner += count(graph.function(node.op.function).body)
            elif isinstance(node.op, Repeat):
                inner += count(node.op.body)
            else:
                inner += 1
        return inner

    primitives = count(graph.body)
    outside = len(graph.inputs) + len(graph.params) + len(graph.outputs)
    assert len(found["nodes"]) == primitives + outside
    assert primitives >= len([node for node in walk(graph.body) if not isinstance(node.op, Call | Repeat)])


def test_namespaces_are_the_users_blocks(costs: GraphCosts) -> None:
    (found,) = collection(costs)["graphs"]
    groups = found["groupNodeAttributes"]
    assert {"h", "h/attention", "h/attention/q", "h/mlp/up", "ln_f"} <= groups.keys()
    assert groups["h/attention/q"]["block"] == "linear"
    assert groups["h/attention/q"]["time"].endswith("% of a step")
    assert groups["h"]["repeat"].startswith("layers=")
    weights = next(node for node in found["nodes"] if node["id"] == "h.attention.q.w")
    assert (weights["namespace"], weights["label"]) == ("h/attention/q", "w")
    for node in found["nodes"]:
        parts = node["namespace"].split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            assert name in groups or name in ("", "inputs", "outputs", "parameters"), name


def test_the_same_graph_is_the_same_text(costs: GraphCosts) -> None:
    graph = cgc.load(EXAMPLES / "tiny.cg").graph
    assert model_explorer_json(graph, costs) == model_explorer_json(graph, costs)
    assert dot_source(graph, 2, costs) == dot_source(graph, 2, costs)


def test_dot_shows_costs_and_heat(costs: GraphCosts) -> None:
    graph = cgc.load(EXAMPLES / "tiny.cg").graph
    plain, shown = dot_source(graph, 2), dot_source(graph, 2, costs)
    assert "of a step" not in plain
    assert f"time: {costs.of('h.mlp')['time'].split(': ')[-1]}" in shown
    assert costs.of("h.mlp.up")["time"] in dot_source(graph, 3, costs)
    assert plain.count(" -> ") == shown.count(" -> ")
    assert len(set(shown.split('fillcolor="')[1:])) > len(set(plain.split('fillcolor="')[1:])) - 1


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    file = str(EXAMPLES / "tiny.cg")
    for name in ("x.json", "x.dot"):
        result = run(main, ["graph", file, "-o", str(tmp_path / name), "--costs", "--device", "tiny16"])
        assert result.exit_code == 0, result.output
        assert "of a step" in (tmp_path / name).read_text(encoding="utf-8")
    assert run(main, ["graph", file, "-o", str(tmp_path / "y.dot"), "--device", "wse2"]).exit_code == 2
    assert run(main, ["graph", file, "-o", str(tmp_path / "y.dot"), "--costs", "--device", "wse9"]).exit_code == 1
