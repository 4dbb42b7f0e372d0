"""Random programs: their gradients are those of `torch.autograd`; what has a KV cache gives the same step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cg_programs import programs
from hypothesis import HealthCheck, assume, event, given, note, settings
from program_frames import FREE

from cgc.elaborate.files import elaborate_file
from cgc.interpret import bind_sizes, interpret
from cgc.ir.graph import Graph, Value
from cgc.ir.types import is_float
from cgc.ir.verify import verify
from cgc.passes.inline import inline
from cgc.passes.kv_cache import Cached, NoCache, with_kv_cache

sys.path.insert(0, str(Path(__file__).parents[1] / "differential"))
from gradients import autograd, check, derived, samples, trained, with_weighted_loss

Array = np.ndarray[Any, Any]
COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def graph_of(text: str) -> Graph:
    note(text)
    (program,) = elaborate_file(text, "random.cg").programs
    return program.graph


def check_gradients(text: str) -> None:
    graph = graph_of(text)
    assume(any(is_float(value.type.dtype) for value in graph.body.results))
    whole = with_weighted_loss(trained(graph))
    arrays = samples(whole, FREE, 3, spread=0.7)
    sizes = bind_sizes(whole, {value.name: arrays[value.name] for value in whole.inputs})
    expected = autograd(whole, arrays, sizes)
    assume(all(np.isfinite(array).all() for array in expected.values()))
    check(whole, arrays, sizes, 1e-7)


@settings(COMMON, max_examples=40, derandomize=True)
@given(programs())
def test_gradients_of_random_programs(text: str) -> None:
    check_gradients(text)


@pytest.mark.slow
@settings(COMMON, max_examples=1500)
@given(programs(most=25))
def test_gradients_of_many_random_programs(text: str) -> None:
    check_gradients(text)


@settings(COMMON, max_examples=15, derandomize=True)
@given(programs())
def test_gradients_of_random_programs_against_finite_differences(text: str) -> None:
    """A third opinion, of the interpreter alone: how the loss changes along a random direction."""
    graph = inline(graph_of(text))
    assume(any(is_float(value.type.dtype) for value in graph.body.results))
    whole = with_weighted_loss(trained(graph))
    arrays = samples(whole, FREE, 4, spread=0.7)
    found = interpret(derived(whole), arrays, arrays, np.float64)
    ways = samples(whole, FREE, 5)

    def loss_at(step: float) -> float:
        moved = {p.name: arrays[p.name] + step * ways[p.name] for p in whole.params}
        return float(interpret(whole, moved, arrays, np.float64)["loss"])

    slopes = [(loss_at(step) - loss_at(-step)) / (2 * step) for step in (1e-4, 1e-5)]
    # Where the two differences disagree, a kink or a jump lies between: there is no derivative to compare with.
    assume(abs(slopes[0] - slopes[1]) <= 1e-4 * (1 + abs(slopes[1])))
    exact = sum(float((found[f"grad.{p.name}"] * ways[p.name]).sum()) for p in whole.params)
    assert abs(exact - slopes[1]) <= 1e-3 * (1 + abs(exact))


def pieces(cached: Cached, graph: Graph, weights: Any, given: dict[str, Array], cuts: list[int]) -> Iterator[Any]:
    """Yield the outputs of a cached graph for one piece of the text after another."""
    own = {value.name for value in graph.inputs}
    empty = samples(cached.graph, {**FREE, "past": 0}, 0)
    state = {value.name: empty[value.name] for value in cached.graph.inputs if value.name not in own}
    for start, end in zip([0, *cuts], [*cuts, FREE["seq"]], strict=True):
        inputs = {value.name: _piece(given[value.name], value, start, end) for value in graph.inputs}
        results = interpret(cached.graph, weights, inputs | state, np.float64)
        state = {cache.past: results[cache.present] for cache in cached.caches}
        yield {name: results[name] for name in graph.outputs}


def _piece(array: Array, value: Value, start: int, end: int) -> Array:
    if not value.type.has("seq"):
        return array
    return array.take(range(start, end), axis=value.type.axis("seq"))


def check_cache(text: str) -> None:
    graph = inline(graph_of(text))
    try:
        cached = with_kv_cache(graph, "seq")
    except NoCache as error:
        event("nothing renamed" if "nothing is renamed" in str(error) else "no cache")
        assume(False)
    event("cached")
    verify(cached.graph)
    given = samples(graph, FREE, 6, spread=0.7)
    whole = interpret(graph, given, given, np.float64)
    types = {name: value.type for name, value in zip(graph.outputs, graph.body.results, strict=True)}
    for cuts in ([2], [1, 2, 3, 4, 5]):
        found = list(pieces(cached, graph, given, given, cuts))
        for name, type in types.items():
            if type.has("seq") and sum(str(dim.size) == "seq" for dim in type.dims) == 1:
                joined = np.concatenate([each[name] for each in found], axis=type.axis("seq"))
                np.testing.assert_allclose(joined, whole[name], rtol=1e-7, atol=1e-7)
            elif type.has("seq"):
                continue  # an output over pairs of tokens is not laid out step by step
            else:
                np.testing.assert_allclose(found[-1][name], whole[name], rtol=1e-7, atol=1e-7)


@settings(COMMON, max_examples=12, derandomize=True)
@given(programs())
def test_random_programs_with_a_cache_decode_to_the_same(text: str) -> None:
    check_cache(text)


@pytest.mark.slow
@settings(COMMON, max_examples=1500)
@given(programs(most=25))
def test_many_random_programs_with_a_cache_decode_to_the_same(text: str) -> None:
    check_cache(text)
