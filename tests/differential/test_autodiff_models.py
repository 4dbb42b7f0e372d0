"""Gradients of the standard library's blocks, its families and the examples, against `torch.autograd`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cgc_torch.live import to_torch
from cgc_torch.weights import from_state, to_state
from gradients import Array, autograd, check, compare, samples, trained, with_weighted_loss
from torch.nn.functional import cross_entropy

from cgc.analysis.memory import memory
from cgc.driver import check as check_file
from cgc.driver import load_program
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.dims import evaluate
from cgc.ir.graph import Graph, walk
from cgc.ir.ops import Repeat
from cgc.ir.verify import verify
from cgc.passes.loss import NotALanguageModel, with_loss
from cgc.program import Program
from cgc.training import gradient_graph

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SIZES = {"batch": 2, "seq": 5}

HEAD = """
model blocks(width = 8, heads = 4, kv_heads = 2, hidden = 6, limit = 7, vocab = 11) {
    dim head = width / heads
    dim group = heads / kv_heads
    dim other = 8
    input x[batch, seq <= limit, width]
    input ids[batch, seq] : id of vocab
BODY
}
"""
QKV = """
    q = linear(x, width -> heads head, std=0.4)
    k = linear(x, width -> heads head, std=0.4) as [seq -> key]
    v = linear(x, width -> heads head, std=0.4) as [seq -> key]
"""
BODIES = {
    "linear": "output y = linear(x, width -> hidden, std=0.5)",
    "linear, no bias": "output y = linear(x, width -> heads hidden, bias=false, std=0.5)",
    "linear from two": "output y = linear(linear(x, width -> heads head), heads head -> width, std=0.5)",
    "linear onto itself": "output y = linear(linear(x, width -> width, std=0.5), width -> width, std=0.5)",
    "layer_norm": "output y = layer_norm(x, over width)",
    "layer_norm of two": "output y = layer_norm(linear(x, width -> heads head), over heads head, eps=0.1)",
    "layer_norm in the middle": "output y = layer_norm(linear(x, width -> heads head), over heads)",
    "rms_norm": "output y = rms_norm(x, over width)",
    "softmax": "output y = softmax(x, over width)",
    "softmax of two, free": "output y = softmax(x, over seq width)",
    "log_softmax": "output y = log_softmax(x, over width)",
    "relu": "output y = relu(x)",
    "silu": "output y = silu(x)",
    "gelu": "output y = gelu(x)",
    "gelu_tanh": "output y = gelu_tanh(x)",
    "swiglu": "output y = swiglu(x, width -> hidden, std=0.5, bias=true)",
    "activate": 'output y = activate(x, kind="gelu") + activate(x, kind="silu") * activate(x, kind="relu")',
    "causal": f"{QKV}\n    output y = exp(causal(dot(q, k, over head), seq, key))",
    "attend": f"{QKV}\n    output y = attend(q, k, v, over head, seq -> key)",
    "attend_with_bias": f"""{QKV}
    bias = alibi(seq, key, heads)
    output y = attend_with_bias(q, k, v, bias, over head, seq -> key)""",
    "attention": "output y = attention(x, std=0.5, out_std=0.5)",
    "grouped_attention": "output y = grouped_attention(x, std=0.5, out_std=0.5, bias=true)",
    "multi_query_attention": "output y = multi_query_attention(x, std=0.5, out_std=0.5)",
    "learned_positions": "output y = x * learned_positions(seq, limit, width, std=0.5)",
    "rope": "output y = rope(linear(x, width -> heads head, std=0.5), along seq, over head)",
    "partial_rope": "dim rotary = 4\n    output y = partial_rope(x, along seq, over width, rotary)",
    "partial_rope of all": "dim rotary = 8\n    output y = partial_rope(x, along seq, over width, rotary)",
    "alibi": "output y = x * sum(alibi(seq, other, heads), over other heads)",
    "cross_entropy": "output y = cross_entropy(linear(x, width -> vocab, std=0.5), ids)",
}


def block_graph(name: str) -> Graph:
    (program,) = elaborate_file(HEAD.replace("BODY", f"    {BODIES[name]}"), "m.cg").programs
    return program.graph


@pytest.mark.parametrize("name", BODIES)
def test_block(name: str) -> None:
    graph = with_weighted_loss(trained(block_graph(name)))
    check(graph, samples(graph, SIZES, 3), SIZES)


def test_every_block_of_the_library_is_covered() -> None:
    library = "".join(
        (ROOT / f"grammar/std/{file}.cg").read_text() for file in ("nn", "attention", "positions", "loss")
    )
    assert set(re.findall(r"^block (\w+)", library, re.M)) <= {re.split(r"[ ,]", name)[0] for name in BODIES}


MODELS = {
    "gpt2": ("gpt2", "layers=3, width=8, heads=2"),
    "gpt2 untied, gelu_tanh": ("gpt2", 'layers=2, width=8, heads=2, tied=false, activation="gelu_tanh"'),
    "gpt2, one layer": ("gpt2", "layers=1, width=8, heads=2"),
    "gpt_neox": ("gpt_neox", "layers=2, width=16, heads=2"),
    "gpt_neox in a row, tied": ("gpt_neox", "layers=2, width=16, heads=2, parallel=false, tied=true, bias=false"),
    "llama": ("llama", "layers=2, width=8, heads=4, ffn=12"),
    "llama grouped": ("llama", "layers=2, width=8, heads=4, kv_heads=2, ffn=12, bias=true, mlp_bias=true"),
    "llama multi-query, tied": ("llama", "layers=2, width=8, heads=4, kv_heads=1, ffn=12, tied=true"),
}
SMALL = {"layers": 2, "vocab": 13, "context": 8, "width": 32, "heads": 4}
MORE = {"llama_8b.cg": {"kv_heads": 2, "ffn": 12}}
FILES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.cg") if path.parent.name != "errors")


def family(name: str) -> Program:
    kind, sizes = MODELS[name]
    text = f"use std/{kind}\nmodel m = {kind}(vocab=13, context=8, {sizes}, std=0.3)\n"
    return elaborate_file(text, "m.cg").programs[0]


def random_weights(program: Program) -> dict[str, Array]:
    """Return weights of the size of the initial ones, but none that are all zeros or ones."""
    rng = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for param in program.graph.params:
        shape = tuple(evaluate(size, {}) for size in param.type.shape)
        found[param.name] = param.init.mean + rng.normal(0, 0.3, shape)
    return found


def batches(program: Program) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    (tokens,) = program.graph.inputs
    assert tokens.type.indexes is not None
    vocab = evaluate(tokens.type.indexes.size, {})
    return {name: rng.integers(0, vocab, (2, 5)) for name in (tokens.name, "targets")}


def by_autograd(program: Program, weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the loss and its gradients from the module that the target `torch` makes."""
    module: Any = to_torch(program, weights).double()
    module.load_state_dict({key: torch.tensor(a) for key, a in to_state(program, weights).items()})
    logits = module(torch.tensor(inputs[program.graph.inputs[0].name]))
    loss = cross_entropy(logits.flatten(0, -2), torch.tensor(inputs["targets"]).flatten())
    loss.backward()
    slopes = {key: p.grad.numpy() for key, p in module.named_parameters(remove_duplicate=False)}
    found = from_state(program, slopes)
    return {"loss": np.asarray(loss.item())} | {f"grad.{p.name}": found[p.name] for p in program.graph.params}


def check_model(program: Program) -> None:
    """Check a model against `torch.autograd` twice: through its graph, and through the module made of it."""
    weights, inputs = random_weights(program), batches(program)
    check(with_loss(program.graph), weights | inputs, SIZES)
    found = interpret(verify(gradient_graph(program.graph)), weights, inputs, np.float64)
    # The emitted module makes the angles of rotary positions in 32 bit, whatever the rest is in.
    compare(by_autograd(program, weights, inputs), found, "the module", 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_family(name: str) -> None:
    check_model(family(name))


ALIKE = [name for name in FILES if name.startswith("cerebras_gpt") and "111m" not in name]
"""Shrunken, these are 111m and 111m_mup again, but for a few numbers."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in FILES])
def test_example(name: str) -> None:
    check_model(check_file(str(EXAMPLES / name), SMALL | MORE.get(name, {})).programs[-1])


EXPERTS = """
model mixture(vocab = 13, context = 8, layers = 2, inner = 2, width = 8, heads = 2, experts = 4, ffn = 6) {
    dim head = width / heads
    dim chosen = 2
    input tokens[batch, seq <= context] : id of vocab
    input answers[batch, seq] : id of vocab
    param wte[vocab, width] ~ normal(std=0.5)
    x = wte[tokens]
    total = mean(x, over width)
    repeat layers as outer {
        repeat inner as h {
            x = x + biased(layer_norm(x, over width))
            total = total + mean(x, over width)
        }
        x = x + route(rms_norm(x, over width))
    }
    output logits = dot(layer_norm(x, over width), wte, over width)
    output loss = cross_entropy(logits, answers) + 0.01 * mean(total * total, over batch seq)
}

block biased(x[batch, seq, width]) {
    q = linear(x, width -> heads head, std=0.5)
    k = linear(x, width -> head, std=0.5) as [seq -> key]
    return linear(attend_with_bias(q, k, k, alibi(seq, key, heads), over head, seq -> key), heads head -> width)
}

block route(x[batch, seq, width]) {
    param up[experts, width, ffn] ~ normal(std=0.5)
    param down[experts, ffn, width] ~ normal(std=0.5)
    gate, which = top_k(linear(x, width -> experts, bias=false, std=0.5), experts -> chosen)
    hidden = silu(dot(x, up[which], over width))
    return dot(softmax(gate, over chosen), dot(hidden, down[which], over ffn), over chosen)
}
"""


def test_a_model_with_a_loss_of_its_own() -> None:
    """Experts by the largest scores, loops in loops, several outputs: the one number among them is the loss."""
    (program,) = elaborate_file(EXPERTS, "m.cg").programs
    whole = gradient_graph(program.graph)
    assert whole.outputs[0] == "loss" and [value.name for value in whole.inputs] == ["tokens", "answers"]
    arrays = samples(program.graph, SIZES, 0)
    last = program.graph.body.results[1]
    loss = replace(program.graph, outputs=("loss",), body=replace(program.graph.body, results=(last,)))
    check(loss, arrays, SIZES)
    for recompute in (False, True):
        found = interpret(gradient_graph(program.graph, recompute), arrays, arrays, np.float64)
        compare(autograd(loss, arrays, SIZES), found, f"{recompute=}")


def test_a_loss_needs_tokens_and_logits() -> None:
    with pytest.raises(NotALanguageModel, match="no output"):
        gradient_graph(block_graph("relu"))


@pytest.mark.parametrize("seq", [8, 64])
def test_what_loops_collect(seq: int) -> None:
    """With recomputation the input of each layer; without, beside that of norms and gelu, scores once: heads · seq².

    Scores are 4 · seq² here; of exponentials and weights, and of the steps inside norms, nothing is collected. Of width
    are what two norms centre, queries, keys, values and what attention gives, and two of ffn = 4 · width; the rest are
    single numbers for each token and head, or norm.
    """
    program = load_program(str(EXAMPLES / "tiny.cg"), {"layers": 6, "width": 32, "heads": 4, "vocab": 64})
    kept, again = (gradient_graph(program.graph, recompute) for recompute in (False, True))
    sizes = {"batch": 1, "seq": seq}

    def collected(graph: Graph) -> int:
        loops = [node for node in graph.body.nodes if isinstance(node.op, Repeat) and not node.op.reverse]
        values = [value for node in loops if isinstance(node.op, Repeat) for value in node.outputs[node.op.carried :]]
        return sum(evaluate(value.type.count, sizes) for value in values)

    assert collected(again) == 6 * seq * 32
    assert collected(kept) == 6 * seq * (4 * seq + (6 + 2 * 4) * 32 + 2 * 4 + 2)
    assert memory(again, sizes).peak < memory(kept, sizes).peak


def test_the_graph_does_not_grow_with_the_number_of_layers() -> None:
    def size(layers: int) -> int:
        program = load_program(str(EXAMPLES / "cerebras_gpt/13b.cg"), {"layers": layers})
        return sum(1 for _ in walk(gradient_graph(program.graph).body))

    assert size(2) == size(40) == size(400)
