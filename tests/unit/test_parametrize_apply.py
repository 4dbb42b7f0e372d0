"""Multipliers put into graphs: a factor behind the use of a parameter is the parameter times the factor."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgc.driver import parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.graph import Graph
from cgc.ir.ops import Call, Repeat
from cgc.ir.verify import verify
from cgc.parametrize.apply import apply
from cgc.parametrize.uses import Use, Uses, find_uses
from cgc.passes.inline import inline
from cgc.weights import initialize, random_inputs

SIZES = "vocab=13, context=8, layers=2"
OWN = """
model m(vocab = 13, width = 12, heads = 2, layers = 2, inner = 2, experts = 3) {
    dim head = width / heads
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=0.3)
    x = embed[tokens] * 2
    repeat layers as outer {
        repeat inner as h {
            x = x + multi_query_attention(layer_norm(x, over width))
            x = twice(rms_norm(x, over width)) + x
        }
        x = x + twice(x) + route(x)
    }
    y = twice(-x)
    output logits = linear(layer_norm(y, over width), width -> vocab) / 3
    output sums = sum(y, over width)
}

block twice(x[..., width]) {
    return linear(gelu(linear(x, width -> width)), width -> width, bias=false)
}

block route(x[batch, seq, width]) {
    param up[experts, width, heads, head] ~ normal(std=0.1)
    gate = softmax(linear(x, width -> experts, bias=false), over experts)
    return linear(relu(dot(gate, dot(x, up, over width), over experts)), heads head -> width)
}
"""
MODELS = {
    "gpt2": f"use std/gpt2\nmodel m = gpt2({SIZES}, width=12, heads=2)\n",
    "llama": f"use std/llama\nmodel m = llama({SIZES}, width=16, heads=4, kv_heads=2, ffn=10)\n",
    "gpt_neox": f"use std/gpt_neox\nmodel m = gpt_neox({SIZES}, width=32, heads=2)\n",
    "own blocks": OWN,
}
FACTORS = st.sampled_from([0.125, 0.5, 2.0, 3.0, -1.5])


@cache
def model(name: str) -> tuple[Graph, Uses, tuple[Use, ...]]:
    """Return a graph, its uses, and those of them whose parameter has no other."""
    (program,) = elaborate_file(MODELS[name], "model.cg").programs
    copies = inline(program.graph), inline(program.graph)
    uses = find_uses(copies)
    counts: dict[str, int] = {}
    for use in uses.uses:
        for param in use.params:
            counts[param] = counts.get(param, 0) + 1
    single = tuple(use for use in uses.uses if len(use.params) == 1 and counts[next(iter(use.params))] == 1)
    return program.graph, uses, single


def place(use: Use) -> tuple[int, int | None]:
    return use.index, use.operand if use.kind == "elementwise" else None


def outputs(graph: Graph, scaled: dict[str, float], seed: int) -> list[np.ndarray[Any, Any]]:
    weights = {name: w.astype(np.float64) * 3 + 0.05 for name, w in initialize(graph, seed).items()}
    weights |= {name: weights[name] * factor for name, factor in scaled.items()}
    inputs = random_inputs(graph, {"batch": 2, "seq": 5}, seed)
    return list(interpret(graph, weights, inputs, np.float64).values())


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), data=st.data())
def test_a_factor_is_the_parameter_scaled(name: str, data: st.DataObject) -> None:
    graph, _, single = model(name)
    chosen = data.draw(st.dictionaries(st.sampled_from(range(len(single))), FACTORS, max_size=6))
    changed = verify(apply(graph, {place(single[at]): factor for at, factor in chosen.items()}))
    scaled = {next(iter(single[at].params)): factor for at, factor in chosen.items()}
    expected = outputs(graph, scaled, 1)
    for way in (changed, inline(changed)):
        for got, wanted in zip(outputs(way, {}, 1), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)
    assert [param.name for param in changed.params] == [param.name for param in graph.params]
    assert (changed == graph) == (not chosen)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_a_factor_of_scores_is_that_of_queries(name: str) -> None:
    graph, uses, _ = model(name)
    (scores,) = (use for use in uses.uses if use.kind == "scores" and use.contracted[0] > 1)
    changed = verify(apply(graph, {(scores.index, None): 0.5}))
    queries = {param.name: 0.5 for param in graph.params if param.name.startswith("h.attention.q.")}
    assert queries
    np.testing.assert_allclose(outputs(changed, {}, 2)[0], outputs(graph, queries, 2)[0], rtol=1e-9, atol=1e-9)
    assert {f.block for f in changed.functions if f.library} == {f.block for f in graph.functions if f.library}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_a_factor_of_branches_is_that_of_what_writes_them(name: str) -> None:
    graph, uses, _ = model(name)
    assert len(uses.branches) == 2
    changed = verify(apply(graph, {(branch.index, branch.operand): 0.25 for branch in uses.branches}))
    ends = ("h.attention.out.", "h.mlp.down.")
    writers = {param.name: 0.25 for param in graph.params if param.name.startswith(ends)}
    np.testing.assert_allclose(outputs(changed, {}, 2)[0], outputs(graph, writers, 2)[0], rtol=1e-9, atol=1e-9)


def test_tied_embeddings_are_scaled_at_each_use_apart() -> None:
    graph, uses, _ = model("gpt2")
    lookup, product = (use for use in uses.uses if use.params == {"wte"})
    assert (lookup.kind, product.kind) == ("lookup", "product")
    assert lookup.feeds and not product.feeds
    plain = outputs(graph, {}, 0)[0]
    np.testing.assert_allclose(outputs(apply(graph, {place(product): 0.5}), {}, 0)[0], plain / 2, rtol=1e-9)
    assert np.abs(outputs(apply(graph, {place(lookup): 0.5}), {}, 0)[0] - plain).max() > 1e-3


def instances(graph: Graph) -> list[tuple[str, str]]:
    """Return the calls at the top level and in its loops: their names, and which function they call."""
    found: list[tuple[str, str]] = []
    regions = [graph.body]
    while regions:
        for node in regions.pop().nodes:
            if isinstance(node.op, Call):
                found.append((node.op.instance, node.op.function))
            elif isinstance(node.op, Repeat):
                regions.append(node.op.body)
    return found


THREE = """
model m(width = 4, out = width) {
    input x[batch, width]
    a = half(x)
    b = half(relu(a))
    c = half(relu(b))
    output y = half(relu(c))
}

block half(x[batch, width]) {
    param w[width, out] ~ normal(std=0.1)
    return dot(x, w, over width) as [out -> width]
}

mup {
    scale width from 2
    multiply a by 3
    multiply b by 3
    multiply c by 5
}
"""


def test_one_copy_for_each_set_of_factors() -> None:
    (program,) = parametrize_checked(elaborate_file(THREE, "model.cg"), "all").programs
    calls = dict(instances(program.graph))
    assert calls["a"] == calls["b"] != calls["c"]
    assert calls["y"] == "half" and len(set(calls.values()) - {"relu"}) == 3
    assert [function.block for function in program.graph.functions].count("half") == 3


def test_a_block_of_the_library_stays_one_where_its_arguments_take_the_factor() -> None:
    graph, _, single = model("own blocks")
    places = {place(use): 2.0 for use in single if use.kind == "product" and "linear" in next(iter(use.params))}
    assert len(places) >= 8
    changed = apply(graph, places)
    blocks = {(function.block, function.library) for function in graph.functions}
    assert {(function.block, function.library) for function in changed.functions} == blocks
    linears = [function for function in changed.functions if function.block == "linear"]
    assert len(linears) == len([function for function in graph.functions if function.block == "linear"])


def test_no_factor_changes_nothing() -> None:
    graph, _, _ = model("gpt2")
    assert apply(graph, {}) is graph
