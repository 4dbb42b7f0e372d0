"""Decoding step by step gives what the whole sequence gives, whatever the steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decodable_models import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

import cgc
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.graph import Graph
from cgc.ir.verify import verify
from cgc.passes.kv_cache import Cached, NoCache, with_kv_cache
from cgc.weights import initialize

EXAMPLES = Path(__file__).parents[2] / "examples"


def graph_of(text: str) -> Graph:
    (program,) = elaborate_file(text, "m.cg").programs
    return program.graph


def empty(cached: Cached, batch: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return caches without a past."""
    names = {cache.past for cache in cached.caches}
    sizes = {"batch": batch, "past": 0}
    return {
        value.name: np.zeros([int(str(sizes.get(str(dim.size), dim.size))) for dim in value.type.dims], np.float32)
        for value in cached.graph.inputs
        if value.name in names
    }


def decoded(
    cached: Cached,
    weights: Any,
    tokens: np.ndarray[Any, Any],
    cuts: list[int],
    mask: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Run a cached graph piece by piece; `cuts` are where a piece ends and the next starts; `mask` is of padding."""
    names = {value.name for value in cached.graph.inputs}
    state = empty(cached, tokens.shape[0])
    found: list[np.ndarray[Any, Any]] = []
    bounds = [0, *cuts, tokens.shape[1]]
    for start, end in pairwise(bounds):
        inputs = {"tokens": tokens[:, start:end], **state}
        if mask is not None:
            padded = {
                "attention_mask": mask[:, :end],
                "position_ids": np.maximum(mask.cumsum(1) - 1, 0)[:, start:end],
            }
            inputs |= {name: array for name, array in padded.items() if name in names}
        results = interpret(cached.graph, weights, inputs, np.float64)
        found.append(results["logits"])
        state = {cache.past: results[cache.present] for cache in cached.caches}
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.data())
def test_steps_give_what_the_whole_gives(name: str, data: st.DataObject) -> None:
    graph = graph_of(MODELS[name])
    cached = with_kv_cache(graph)
    verify(cached.graph)
    length = data.draw(st.integers(2, 9))
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4)))
    weights = initialize(graph, 0)
    tokens = np.random.default_rng(length).integers(0, 11, (2, length))
    whole = interpret(graph, weights, {"tokens": tokens}, np.float64)["logits"]
    assert np.allclose(decoded(cached, weights, tokens, cuts), whole, rtol=1e-9, atol=1e-9)


LEARNED_FOR_KEYS = """
model m(vocab = 11, width = 8) {
    input tokens[batch, seq <= vocab] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = embed[tokens]
    k = (x as [seq -> key]) + embed[position(key) over vocab]
    x = x + attend(x + embed[position(seq) over vocab], k, k, over width, seq -> key)
    output logits = dot(x, embed, over width)
}
"""
PADDED = {**MODELS, "positions of keys": LEARNED_FOR_KEYS}


@pytest.mark.parametrize("name", PADDED)
@settings(deadline=None, max_examples=6, derandomize=True)
@given(st.data())
def test_sequences_that_start_late_give_what_each_gives_alone(name: str, data: st.DataObject) -> None:
    graph = graph_of(PADDED[name])
    cached = with_kv_cache(graph, padded=True)
    verify(cached.graph)
    length = data.draw(st.integers(2, 9))
    late = data.draw(st.integers(0, length - 1))
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=3)))
    weights = initialize(graph, 0)
    tokens = np.random.default_rng(length).integers(0, 11, (2, length))
    mask = np.ones((2, length), np.int64)
    mask[1, :late] = 0
    first = interpret(graph, weights, {"tokens": tokens[:1]}, np.float64)["logits"]
    second = interpret(graph, weights, {"tokens": tokens[1:, late:]}, np.float64)["logits"]
    got = decoded(cached, weights, tokens, cuts, mask)
    assert np.allclose(got[:1], first, rtol=1e-9, atol=1e-9)
    assert np.allclose(got[1:, late:], second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"loops in loops, and one layer outside"}))
def test_what_is_compared_with_queries_is_a_key(name: str) -> None:
    for cache in with_kv_cache(graph_of(MODELS[name])).caches:
        assert cache.role == ("value" if cache.path.split(".")[-1] == "v" else "key")


def test_caches_have_the_names_of_the_model_and_the_loop_in_front() -> None:
    cached = with_kv_cache(graph_of(MODELS["llama grouped"]))
    assert {cache.past for cache in cached.caches} == {"past.h.attention.k", "past.h.attention.v"}
    types = {value.name: value.type for value in cached.graph.inputs}
    assert types["past.h.attention.k"].names[0] == "layers"
    assert "kv_heads" in types["past.h.attention.k"].names and "group" not in types["past.h.attention.k"].names
    assert [cache.present for cache in cached.caches] == list(cached.graph.outputs[1:])
    assert {symbol.name: symbol.limit for symbol in cached.graph.symbols}["past"] is not None


def test_the_examples_can_be_decoded() -> None:
    for name in ("tiny", "from_scratch", "gpt2_small", "llama_8b"):
        program = cgc.load(EXAMPLES / f"{name}.cg").program
        assert len(with_kv_cache(program.graph).caches) == 2


HEAD = "model m(width = 4) {\n    input x[batch, seq, width]\n    k = x as [seq -> key]\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("output y = mean(x, over seq) + sum(k, over key)", "works along `seq`"),
        ("output y = running_sum(x, over seq) + x * sum(k, over key)", "works along `seq`"),
        ("output y = dot(x, x, over seq) + sum(k, over key)", "works along `seq`"),
    ],
)
def test_what_looks_along_the_tokens_cannot_be_kept(body: str, says: str) -> None:
    with pytest.raises(NoCache, match=says):
        with_kv_cache(graph_of(f"{HEAD}    {body}\n}}\n"))


def test_models_without_keys_have_no_cache() -> None:
    with pytest.raises(NoCache, match="no keys"):
        with_kv_cache(graph_of("model m(width = 4) {\n    input x[batch, seq, width]\n    output y = x * 2\n}\n"))
    with pytest.raises(NoCache, match="no dimension `seq`"):
        with_kv_cache(graph_of("model m(width = 4) {\n    input x[batch, width]\n    output y = x * 2\n}\n"))
