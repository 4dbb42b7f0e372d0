"""Whole models in PyTorch, eager, compiled and from written files, against NumPy; intrinsics against definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cgc_torch import TARGET
from cgc_torch.live import save_weights, to_torch
from onnx_programs import largest_difference

from cgc.driver import load_program
from cgc.interpret import interpret
from cgc.program import Program
from cgc.weights import initialize, random_inputs

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"vocab": 61, "context": 32, "layers": 2, "width": 32, "heads": 4}
SIZES = ((1, 1), (2, 7), (3, 32))

MIXTURE = """
use std/nn
use std/attention
use std/positions
use std/loss

model mixture(vocab = 61, context = 32, layers = 2, inner = 2, width = 24, heads = 4, experts = 6, ffn = 32) {
    dim head = width / heads
    dim chosen = 2
    input tokens[batch, seq <= context] : id of vocab
    input targets[batch, seq] : id of vocab
    param wte[vocab, width] ~ uniform(limit=0.1)
    x = wte[tokens]
    total = mean(x, over width)
    repeat layers as outer {
        repeat inner as h {
            x = x + biased(layer_norm(x, over width))
            total = total + mean(x, over width)
        }
        x = x + route(rms_norm(x, over width))
    }
    lambda = layer_norm(x, over width)
    output logits = dot(lambda, wte, over width)
    output loss = cross_entropy(logits, targets)
    output sums = total
}

block biased(x[batch, seq, width]) {
    q = linear(x, width -> heads head)
    k = linear(x, width -> head) as [seq -> key]
    v = linear(x, width -> head) as [seq -> key]
    bias = alibi(seq, key, heads)
    return linear(attend_with_bias(q, k, v, bias, over head, seq -> key), heads head -> width)
}

block route(x[batch, seq, width]) {
    param up[experts, width, ffn] ~ normal(std=0.1)
    param down[experts, ffn, width] ~ normal(std=0.1)
    scores = linear(x, width -> experts, bias=false)
    gate, which = top_k(scores, experts -> chosen)
    gate = softmax(gate, over chosen)
    hidden = silu(dot(x, up[which], over width))
    return dot(gate, dot(hidden, down[which], over ffn), over chosen)
}
"""

BLOCKS = """
use std/nn
use std/attention
use std/positions

model blocks(width = 24, heads = 6, kv_heads = 2, limit = 32) {
    dim head = width / heads
    dim group = heads / kv_heads
    input x[batch, seq <= limit, width]
BODY
}
"""

BODIES = {
    "attention": "    output y = attention(x)",
    "grouped": "    output y = grouped_attention(x)",
    "grouped with bias": "    output y = grouped_attention(x, bias=true)",
    "multi-query": "    output y = multi_query_attention(x)",
    "width to width": "    output y = linear(linear(x, width -> width), width -> width)",
    "softmax over a middle axis": "    output y = softmax(x, over seq)",
    "log_softmax over two axes": "    output y = log_softmax(x, over seq width)",
    "norm over a middle axis": "    h = linear(x, width -> heads head)\n    output y = layer_norm(h, over heads)",
    "norm over two axes": "    h = linear(x, width -> heads head)\n    output y = rms_norm(h, over heads head)",
    "norm over axes of another order": """
    h = linear(x, width -> head heads)
    output y = layer_norm(h, over heads head)""",
    "activations": "    output y = gelu(x) + gelu_tanh(x) * silu(x) - relu(x)",
    "an activation by name": '    output y = activate(x, kind="gelu_tanh")',
    "a gate": "    output y = swiglu(x, width -> width)",
    "rotated halves": "    output y = rope(x, along seq, over width, base=500)",
    "rotated heads": "    h = linear(x, width -> heads head)\n    output y = rope(h, along seq, over head)",
    "rotated along heads": "    h = linear(x, width -> head heads)\n    output y = rope(h, along head, over heads)",
    "heads in another order": "    h = linear(x, width -> head heads)\n    output y = linear(h, heads head -> width)",
    "learned positions": "    output y = x + learned_positions(seq, limit, width)",
    "attention by hand": """
    q = linear(x, width -> heads head)
    k = q as [seq -> past]
    scores = causal(dot(q, k, over head), seq, past)
    output y = dot(softmax(scores, over past), k, over past)""",
    "attention of one head": """
    k = x as [seq -> past]
    output y = attend(x, k, k, over width, seq -> past)""",
    "attention used twice": """
    q = linear(x, width -> heads head)
    k = linear(x, width -> heads head) as [seq -> past]
    first = attend(q, k, k, over head, seq -> past)
    output y = first + attend(first, k, k, over head, seq -> past)
    output z = first""",
}


def weights_of(program: Program) -> dict[str, np.ndarray[Any, Any]]:
    """Return random weights away from the usual zeros and ones, so that nothing is left out unseen."""
    rng = np.random.default_rng(1)
    drawn = initialize(program.graph, 0)
    return {name: (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32) for name, w in drawn.items()}


def compare(program: Program, ways: tuple[str, ...], tolerance: float = 1e-5) -> None:
    weights = weights_of(program)
    evaluators = dict(TARGET.evaluators(program))
    for batch, seq in SIZES:
        inputs = random_inputs(program.graph, {"batch": batch, "seq": seq}, seed=batch)
        expected = interpret(program.graph, weights, inputs)
        for way in ways:
            found = evaluators[way](weights, inputs)
            assert list(found) == list(expected)
            for name in expected:
                assert largest_difference(expected[name], found[name]) <= tolerance, (way, name)


def program_of(text: str, folder: Path) -> Program:
    path = folder / "model.cg"
    path.write_text(text)
    return load_program(str(path), {})


@pytest.mark.parametrize("name", sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*.cg")))
def test_examples(name: str) -> None:
    sizes = dict(SMALL)
    if "llama" in name:
        sizes |= {"kv_heads": 2, "ffn": 48}
    compare(load_program(str(EXAMPLES / name), sizes), ("torch (eager)", "torch (emitted)"))


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("cerebras_gpt/*.cg")))
def test_cerebras_gpt(name: str) -> None:
    compare(load_program(str(EXAMPLES / "cerebras_gpt" / name), SMALL), ("torch (eager)",))


def test_neox(tmp_path: Path) -> None:
    text = "use std/gpt_neox\nmodel small = gpt_neox(vocab=61, context=32, layers=2, width=128, heads=4)\n"
    compare(program_of(text, tmp_path), ("torch (eager)", "torch (emitted)"))


def test_experts_and_several_outputs(tmp_path: Path) -> None:
    compare(program_of(MIXTURE, tmp_path), ("torch (eager)", "torch (emitted)"))


@pytest.mark.parametrize("name", BODIES)
def test_blocks(name: str, tmp_path: Path) -> None:
    compare(program_of(BLOCKS.replace("BODY", BODIES[name]), tmp_path), ("torch (eager)",))


@pytest.mark.parametrize("which", ["gpt2", "mixture"])
def test_one_graph_for_every_shape(which: str, tmp_path: Path) -> None:
    """The module compiles without a graph break, and not once for every sequence length."""
    path = EXAMPLES / "gpt2_small.cg"
    program = load_program(str(path), SMALL) if which == "gpt2" else program_of(MIXTURE, tmp_path)
    weights = weights_of(program)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    module = torch.compile(to_torch(program, weights), fullgraph=True, dynamic=True, backend=backend)
    for seq in (3, 9, 16, 31):
        inputs = random_inputs(program.graph, {"batch": 2, "seq": seq}, seed=seq)
        expected = interpret(program.graph, weights, inputs)
        with torch.no_grad():
            result = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        found = result if isinstance(result, dict) else {"logits": result}
        for name in expected:
            assert largest_difference(expected[name], found[name].numpy()) <= 1e-5
    assert len(graphs) == 1


@pytest.mark.slow
def test_inductor() -> None:
    compare(load_program(str(EXAMPLES / "gpt2_small.cg"), SMALL), ("torch (compiled)",))


def test_attention_has_no_scores_in_the_graph() -> None:
    program = load_program(str(EXAMPLES / "gpt2_small.cg"), SMALL)
    exported = torch.export.export(to_torch(program), (torch.zeros(2, 9, dtype=torch.long),))
    names = [str(node.target) for node in exported.graph.nodes]
    assert names.count("aten.scaled_dot_product_attention.default") == 2
    assert not any("softmax" in name for name in names)


def test_weights_come_back_and_train(tmp_path: Path) -> None:
    program = program_of(MIXTURE, tmp_path)
    weights = weights_of(program)
    module = to_torch(program, weights)
    again = save_weights(module, program)
    assert set(again) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array)
    tokens = torch.zeros(2, 5, dtype=torch.long)
    module(tokens, tokens)["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_drawn_weights_follow_the_distributions() -> None:
    torch.manual_seed(0)
    program = load_program(str(EXAMPLES / "gpt2_small.cg"), SMALL | {"width": 64})
    arrays = save_weights(to_torch(program), program)
    for name, init in program.inits.items():
        array = arrays[name]
        match init.distribution:
            case "constant":
                assert (array == init.mean).all()
            case "normal" | "truncated_normal":
                assert abs(array.std() / init.std - (1.0 if init.distribution == "normal" else 0.88)) < 0.1
                if init.distribution == "truncated_normal":
                    assert np.abs(array).max() <= 2.001 * init.std
            case "uniform":
                assert np.abs(array).max() <= init.limit


def test_more_than_the_context_is_an_error() -> None:
    module = to_torch(load_program(str(EXAMPLES / "gpt2_small.cg"), SMALL))
    with pytest.raises(ValueError, match="seq is 33, at most 32"):
        module(torch.zeros(1, 33, dtype=torch.long))
