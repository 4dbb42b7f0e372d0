"""Passes keep the meaning of a graph: the same numbers before and after, on a library model and on loops in loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from small_graphs import NESTED, graphs, program

import cgc
from cgc.driver import PASSES, UsageError, after_pass
from cgc.interpret import BadInput, interpret
from cgc.ir.graph import Graph, Node, Region, walk
from cgc.ir.ops import Binary, Call, Repeat
from cgc.ir.verify import verify
from cgc.passes.dead_code import eliminate_dead_code
from cgc.passes.inline import has_loops_in_functions, inline
from cgc.passes.unroll import unroll
from cgc.weights import initialize, random_inputs

Arrays = dict[str, np.ndarray[Any, Any]]
TINY = Path(__file__).parents[2] / "examples/tiny.cg"


def tiny() -> Graph:
    return cgc.load(TINY, layers=3, width=16, heads=2, vocab=17).graph


def nested() -> Graph:
    return program(NESTED).graph


GRAPHS = {"tiny": tiny, "nested": nested}
SIZES = {"batch": 2, "seq": 5}


def all_nodes(graph: Graph) -> Iterator[Node]:
    for region in (graph.body, *(function.body for function in graph.functions)):
        yield from walk(region)


def unstacked(graph: Graph, weights: Arrays) -> Arrays:
    """Return the weights of the unrolled graph, by looking every loop's name up in the parameter's path."""
    names = {node.path for node in walk(inline(graph).body) if isinstance(node.op, Repeat)}
    result: Arrays = {}
    for param in graph.params:
        parts = param.name.split(".")
        at = [i for i in range(1, len(parts)) if ".".join(parts[:i]) in names]
        assert len(at) == param.stacked
        for index in itertools.product(*(range(size) for size in weights[param.name].shape[: len(at)])):
            count = dict(zip(at, index, strict=True))
            path = [f"{part}.{count[i + 1]}" if i + 1 in count else part for i, part in enumerate(parts)]
            result[".".join(path)] = weights[param.name][index]
    return result


def same(a: Arrays, b: Arrays) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].shape == b[name].shape and a[name].dtype == b[name].dtype
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("first", ["", "inline", "dead_code"])
@pytest.mark.parametrize("then", PASSES)
def test_numbers_stay(name: str, first: str, then: str) -> None:
    graph = GRAPHS[name]()
    weights, inputs = initialize(graph, 1), random_inputs(graph, SIZES, 1)
    before = interpret(graph, weights, inputs)
    after = after_pass(after_pass(graph, first) if first else graph, then)
    if then == "unroll":
        weights = unstacked(graph, weights)
        assert {param.name for param in after.params} == weights.keys()
    same(before, interpret(after, weights, inputs))


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_numbers_of_random_graphs_stay(graph: Graph) -> None:
    weights, inputs = initialize(graph, 0), random_inputs(graph, {"batch": 2, "seq": 3}, 0)
    try:
        before = interpret(graph, weights, inputs)
    except BadInput:
        reject()  # it looks up an index that a table does not have
    same(before, interpret(verify(inline(graph)), weights, inputs))
    same(before, interpret(verify(eliminate_dead_code(graph)), weights, inputs))
    unrolled = verify(unroll(graph))
    assert not any(isinstance(node.op, Repeat) for node in all_nodes(unrolled))
    split = {param.name for param in unrolled.params} != {param.name for param in graph.params}
    if split:
        weights["h.0.w"], weights["h.1.w"] = weights.pop("h.w")
    same(before, interpret(unrolled, weights, inputs))


@pytest.mark.parametrize("name", GRAPHS)
def test_what_each_pass_removes(name: str) -> None:
    graph = GRAPHS[name]()
    flat = verify(inline(graph))
    assert not flat.functions
    assert not any(isinstance(node.op, Call) for node in all_nodes(flat))
    assert flat.params == graph.params and flat.inputs == graph.inputs and flat.outputs == graph.outputs
    unrolled = verify(unroll(graph))
    assert not any(isinstance(node.op, Repeat) for node in all_nodes(unrolled))
    assert unrolled.parameter_count == graph.parameter_count
    assert all(param.stacked == 0 for param in unrolled.params)


def test_calls_stay_where_no_loop_stands_in_a_block() -> None:
    graph = tiny()
    assert not has_loops_in_functions(graph) and has_loops_in_functions(nested())
    unrolled = unroll(graph)
    assert unrolled.functions == graph.functions
    calls = [node for node in unrolled.body.nodes if isinstance(node.op, Call)]
    assert [node.path for node in calls if node.path.startswith("h.1.")] == [
        "h.1.ln_1",
        "h.1.attention",
        "h.1.ln_2",
        "h.1.mlp",
    ]


def test_parameters_of_one_loop_stay_in_place() -> None:
    names = [param.name for param in unroll(tiny()).params]
    assert names[:2] == ["wte", "wpe"]
    assert names[-2:] == ["ln_f.scale", "ln_f.bias"]
    assert names[2:5] == ["h.0.ln_1.scale", "h.1.ln_1.scale", "h.2.ln_1.scale"]


def test_inlined_paths_are_the_user_s() -> None:
    paths = {node.path for node in walk(inline(tiny()).body)}
    assert {"h", "h.attention.q.y", "h.attention.mixed.weights", "ln_f.centered", "logits"} <= paths


@pytest.mark.parametrize("name", GRAPHS)
def test_dead_code_keeps_what_is_alive_and_only_that(name: str) -> None:
    graph = eliminate_dead_code(GRAPHS[name]())
    assert eliminate_dead_code(graph) == graph
    kept = graph.body.nodes
    value = kept[0].output
    waste = Node(Binary("add"), (value, value), (replace(value, name="waste"),))
    wasteful = verify(replace(graph, body=replace(graph.body, nodes=(*kept[:1], waste, *kept[1:]))))
    assert eliminate_dead_code(wasteful) == graph


def test_dead_code_without_outputs_that_need_anything() -> None:
    graph = nested()
    body = Region(graph.body.arguments, graph.body.nodes, graph.body.arguments[:1])
    after = verify(eliminate_dead_code(replace(graph, body=body, outputs=("x",))))
    assert after.body.nodes == () and after.functions == ()
    assert after.params == graph.params


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_any_number_of_turns(outer: int, inner: int, seed: int) -> None:
    graph = program(NESTED, outer=outer, inner=inner).graph
    weights, inputs = initialize(graph, seed), random_inputs(graph, {"batch": 2}, seed)
    unrolled = verify(unroll(graph))
    same(interpret(graph, weights, inputs), interpret(unrolled, unstacked(graph, weights), inputs))
    assert len([param for param in unrolled.params if param.name.startswith("o.")]) == outer * (2 + 3 * inner)


def test_a_loop_in_a_block_alone_is_unrolled() -> None:
    text = NESTED[NESTED.index("block turned") :]
    head = "model m(width = 4, inner = 2) {\ninput x[batch, width]\noutput y = turned(x)\n}\n"
    graph = program(head + text).graph
    unrolled = verify(unroll(graph))
    assert not any(isinstance(node.op, Repeat) for node in all_nodes(unrolled))
    weights, inputs = initialize(graph, 0), random_inputs(graph, {"batch": 2}, 0)
    same(interpret(graph, weights, inputs), interpret(unrolled, unstacked(graph, weights), inputs))


def test_an_unknown_pass() -> None:
    with pytest.raises(
        UsageError, match="there is no pass `fold`; there are elaborate, inline, unroll, dead_code, autodiff, kv_cache"
    ):
        after_pass(nested(), "fold")
