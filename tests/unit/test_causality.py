"""Which models can be decoded token by token: those whose masks are seen to hide the future, however written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cgc
from cgc.analysis.causality import lookahead
from cgc.decoding import decoding
from cgc.diagnostics import InputError
from cgc.driver import check
from cgc.elaborate.files import elaborate_file
from cgc.interpret import BadInput, interpret
from cgc.ir.graph import Graph
from cgc.passes.inline import inline
from cgc.passes.kv_cache import Cached, NoCache, with_kv_cache
from cgc.passes.unroll import unroll

EXAMPLES = Path(__file__).parents[2] / "examples"

ATTENTION = """
model m(width = 4, window = 3) {
    input x[batch, seq, width]
    q = x * 2
    k = x as [seq -> key]
    scores = dot(q, k, over width)
    pairs = dot(x, k)
    BODY
    output y = mixed
}
"""
SOFTMAX = "\n    mixed = dot(softmax(masked, over key), k, over key)"

CAUSAL = {
    "as the library": "masked = causal(scores, seq, key)" + SOFTMAX,
    "the other way round": "masked = where(position(key) > position(seq), -infinity, scores)" + SOFTMAX,
    "strictly less": "masked = where(position(key) < position(seq) + 1, scores, -infinity)" + SOFTMAX,
    "by distance": "masked = where(position(key) - position(seq) <= 0, scores, -infinity)" + SOFTMAX,
    "by distance, negated": "masked = where(not (position(seq) - position(key) < 0), scores, -infinity)" + SOFTMAX,
    "added": "masked = scores + where(position(key) <= position(seq), 0.0, -infinity)" + SOFTMAX,
    "a large number": "masked = where(position(key) <= position(seq), scores, -1e9)" + SOFTMAX,
    "a large number subtracted": "masked = scores - 1e9 * cast(position(key) > position(seq), f32)" + SOFTMAX,
    "a large number, added by a product": """seen = cast(position(key) <= position(seq), f32)
    masked = scores + -1e5 * (1 - seen)"""
    + SOFTMAX,
    "a window": """seen = position(key) <= position(seq) and position(key) > position(seq) - window
    masked = where(seen, scores, -infinity)"""
    + SOFTMAX,
    "the past alone, and itself": """itself = position(key) == position(seq)
    masked = where(position(key) < position(seq) or itself, scores, -infinity)"""
    + SOFTMAX,
    "bias before the mask": "masked = causal(scores + 0.5 * (position(key) - position(seq)), seq, key)" + SOFTMAX,
    "scaled after the mask": "masked = causal(scores, seq, key) * 0.5" + SOFTMAX,
    "exponentials masked": """weights = exp(scores) * cast(position(key) <= position(seq), f32)
    mixed = dot(weights / sum(weights, over key), k, over key)""",
    "linear attention": "mixed = dot(scores * cast(position(key) <= position(seq), f32), k, over key)",
    "values masked": "mixed = dot(scores, where(position(key) <= position(seq), pairs, 0.0), over key)",
    "sigmoids": "mixed = dot(sigmoid(causal(scores, seq, key)), k, over key)",
    "a running sum": """total = running_sum(pairs, over key)
    mixed = x + sum(where(position(key) == position(seq), total, 0.0), over key)""",
    "a mean over the past": """seen = cast(position(key) <= position(seq), f32)
    mixed = dot(seen, k, over key) / sum(seen, over key) + scores[max(position(seq) - 1, 0) over key]""",
    "the token before": "mixed = x + k[max(position(seq) - 1, 0) over key]",
    "the first token": "mixed = x + k[position(seq) - position(seq) over key]",
    "a max over the past": "mixed = x + max(where(position(key) <= position(seq), pairs, -infinity), over key)",
    "a min over the past": "mixed = x + min(where(position(key) <= position(seq), pairs, infinity), over key)",
    "every other token": """even = abs(position(seq) - position(key)) < 2
    mixed = dot(cast(even and position(key) <= position(seq), f32), k, over key)""",
}
BLIND = {
    "no mask": "masked = scores" + SOFTMAX,
    "one token ahead": "masked = where(position(key) <= position(seq) + 1, scores, -infinity)" + SOFTMAX,
    "the future only": "masked = where(position(key) >= position(seq), scores, -infinity)" + SOFTMAX,
    "an even window": """distance = position(key) - position(seq)
    masked = where(distance < window and distance > -window, scores, -infinity)"""
    + SOFTMAX,
    "a mask that hides too little": "masked = where(position(key) <= position(seq), scores, -2)" + SOFTMAX,
    "a large number made small": "masked = where(position(key) <= position(seq), scores, -10000) * 0.0001" + SOFTMAX,
    "large numbers compared": "masked = where(position(key) * 0 + 20000 < 30000, scores, -infinity)" + SOFTMAX,
    "the same number off everywhere": "masked = scores - 20000" + SOFTMAX,
    "masked with zero before the exponential": "masked = scores * cast(position(key) <= position(seq), f32)" + SOFTMAX,
    "masked after the normalization": """seen = cast(position(key) <= position(seq), f32)
    mixed = dot(softmax(scores, over key) * seen, k, over key)""",
    "a mean of all": "mixed = x + mean(k, over key)",
    "a mean of what is masked to zero": "mixed = x + mean(where(position(key) <= position(seq), pairs, 0.0), over key)",
    "how long the text is": "mixed = x * max(position(key), over key)",
    "the next token": "mixed = x + k[min(position(seq) + 1, position(seq) + 1) over key]",
    "a token by its index": "mixed = x + k[cast(floor(abs(max(x, over width))), i64) over key]",
    "the largest ones": """dim best = 1
    top, which = top_k(scores, key -> best)
    mixed = x * sum(top, over best)""",
    "two renamed": """a = scores as [seq -> row]
    mixed = x * sum(where(position(row) <= position(key), a, 0.0), over row key)""",
}


def graph_of(body: str) -> Graph:
    (program,) = elaborate_file(ATTENTION.replace("BODY", body), "m.cg").programs
    return inline(program.graph)


def whole_and_steps(graph: Graph, cached: Cached, length: int, cuts: list[int]) -> tuple[Any, Any]:
    """Return the output for a whole text, and that of pieces of it, one after another."""
    x = np.random.default_rng(length).normal(size=(2, length, 4))
    state = {
        value.name: np.zeros([{"batch": 2, "past": 0}.get(str(d.size), d.size) for d in value.type.dims])  # type: ignore[call-overload]
        for value in cached.graph.inputs[1:]
    }
    found: list[Any] = []
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        results = interpret(cached.graph, {}, {"x": x[:, start:end], **state}, np.float64)
        at = cached.graph.body.results[0].type.axis("seq")
        found.append((results["y"], at))
        state = {cache.past: results[cache.present] for cache in cached.caches}
    at = graph.body.results[0].type.axis("seq")
    pieces = np.concatenate([np.moveaxis(piece, axis, 0) for piece, axis in found])
    return np.moveaxis(interpret(graph, {}, {"x": x}, np.float64)["y"], at, 0), pieces


@pytest.mark.parametrize("name", CAUSAL)
def test_masks_however_written(name: str) -> None:
    graph = graph_of(CAUSAL[name])
    assert lookahead(graph, "seq") is None
    cached = with_kv_cache(graph)
    for cuts in ([], [1], [3, 4], [1, 2, 3, 4, 5]):
        whole, steps = whole_and_steps(graph, cached, 6, cuts)
        np.testing.assert_allclose(steps, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", BLIND)
def test_what_may_see_the_future_has_no_cache(name: str) -> None:
    with pytest.raises(NoCache):
        with_kv_cache(graph_of(BLIND[name]))


def test_the_message_says_where_and_what() -> None:
    with pytest.raises(NoCache, match="takes the max over `key`, and later tokens are not masked out"):
        with_kv_cache(graph_of(BLIND["no mask"]))
    with pytest.raises(NoCache, match=r"looks up `key` at places that may be later ones"):
        with_kv_cache(graph_of(BLIND["the next token"]))


LOOPED = """
model m(width = 4, layers = 3) {
    input x[batch, seq, width]
    k = x as [seq -> key]
    scores = causal(dot(x, k, over width), seq, key)
    repeat layers as h {
        scores = scores * 0.5 + CHANGE
        x = x + dot(softmax(scores, over key), x as [seq -> key], over key)
    }
    output y = x
}
"""


def test_scores_that_a_loop_carries_around() -> None:
    """A mask that is carried has to hold in every turn, not in the first alone."""
    good = elaborate_file(LOOPED.replace("CHANGE", "dot(x, k, over width)"), "m.cg").programs[0].graph
    assert lookahead(inline(good), "seq") is None
    bad = elaborate_file(LOOPED.replace("scores * 0.5 + CHANGE", "max(scores, -5)"), "m.cg").programs[0].graph
    assert lookahead(inline(bad), "seq") is not None


def test_all_examples_are_causal() -> None:
    for path in sorted(EXAMPLES.rglob("*.cg")):
        if path.parent.name != "errors":
            for program in check(str(path)).programs:
                assert lookahead(inline(program.graph), "seq") is None, (path, program.name)


@pytest.mark.parametrize("tokens", ["seq", "time", "past", "new"])
def test_the_dimension_of_the_tokens_may_have_any_name(tokens: str) -> None:
    text = ATTENTION.replace("BODY", CAUSAL["as the library"]).replace("seq", tokens)
    graph = elaborate_file(text, "m.cg").programs[0].graph
    if tokens == "past":
        with pytest.raises(NoCache, match="of its own"):
            with_kv_cache(graph)
    else:
        cached = with_kv_cache(graph)
        assert len(cached.caches) == 1


WRONG = {
    "keys joined with something": """dim longer = 2 * seq
    both = concat(k, k, key -> longer)
    mixed = x + sum(both, over longer)""",
    "keys merged with entries": "dim flat = width * seq\n    mixed = x * sum(merge(k, key width -> flat), over flat)",
}


@pytest.mark.parametrize("name", WRONG)
def test_keys_that_are_moved_about(name: str) -> None:
    with pytest.raises(NoCache, match=r"works along|depends on"):
        with_kv_cache(graph_of(WRONG[name]))


def test_the_diagnostic_of_a_model_that_sees_the_future() -> None:
    text = ATTENTION.replace("BODY", BLIND["no mask"])
    (program,) = elaborate_file(text, "m.cg").programs
    with pytest.raises(InputError) as caught:
        decoding(program)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "CG0804" and "later tokens are not masked out" in diagnostic.message


SMALL = {"layers": 2, "vocab": 11, "context": 9, "width": 16, "heads": 2}


@pytest.mark.parametrize("name", ["from_scratch.cg", "tiny.cg", "llama_8b.cg", "cerebras_gpt/111m_mup.cg"])
@pytest.mark.parametrize("loops", [True, False])
def test_examples_decode_after_prefills_of_all_lengths(name: str, loops: bool) -> None:
    """A batch of three, prefills of 1 to 8 tokens, then token by token, up to the last place of the context."""
    more = {"kv_heads": 1, "ffn": 24} if name.startswith("llama") else {}
    program = cgc.load(EXAMPLES / name, **SMALL, **more).program
    made = program.graph if loops else unroll(program.graph)
    cached = with_kv_cache(made)
    arrays = {p.name: np.random.default_rng(1).normal(0, 0.3, p.type.shape) for p in made.params}
    tokens = np.random.default_rng(2).integers(0, 11, (3, 9))
    whole = interpret(made, arrays, {"tokens": tokens}, np.float64)["logits"]
    sizes = {"batch": 3, "past": 0}
    for prefill in range(1, 9):
        state = {
            value.name: np.zeros([int(str(sizes.get(str(d.size), d.size))) for d in value.type.dims])
            for value in cached.graph.inputs[1:]
        }
        found: list[Any] = []
        for start, end in pairwise([0, *range(prefill, 10)]):
            results = interpret(cached.graph, arrays, {"tokens": tokens[:, start:end], **state}, np.float64)
            state = {cache.past: results[cache.present] for cache in cached.caches}
            found.append(results["logits"])
        np.testing.assert_allclose(np.concatenate(found, axis=1), whole, rtol=1e-9, atol=1e-9)


def test_beyond_the_context_is_an_error_and_not_a_wrong_answer() -> None:
    cached = with_kv_cache(cgc.load(EXAMPLES / "from_scratch.cg", layers=1, context=4, width=12, heads=2).graph)
    arrays = {p.name: np.zeros(p.type.shape) for p in cached.graph.params}
    sizes = {"batch": 1, "past": 3}
    pasts = {
        v.name: np.zeros([int(str(sizes.get(str(d.size), d.size))) for d in v.type.dims])
        for v in cached.graph.inputs[1:]
    }
    interpret(cached.graph, arrays, {"tokens": np.zeros((1, 1), int), **pasts})
    with pytest.raises(BadInput):
        interpret(cached.graph, arrays, {"tokens": np.zeros((1, 2), int), **pasts})
