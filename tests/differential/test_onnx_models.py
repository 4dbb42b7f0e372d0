"""Whole models, the examples shrunken among them, in both runtimes against the NumPy reference."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from cgc_onnx.evaluate import onnxruntime_evaluator
from cgc_onnx.lowering.intrinsics import INTRINSICS
from onnx_programs import check_file, compare, inputs_of, largest_difference, params_of, sample

from cgc.driver import load_program
from cgc.program import Program

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GPT2 = {"vocab": 61, "context": 16, "layers": 2, "width": 24, "heads": 3}
SMALL: dict[str, dict[str, int]] = {
    "from_scratch.cg": {"vocab": 61, "context": 16, "layers": 2, "width": 24, "heads": 3},
    "gpt2_small.cg": GPT2,
    "tiny.cg": GPT2,
    "llama_8b.cg": {
        "vocab": 61,
        "context": 16,
        "layers": 2,
        "width": 24,
        "heads": 6,
        "kv_heads": 2,
        "ffn": 40,
    },
    "cerebras_gpt/13b.cg": GPT2,
    "cerebras_gpt/111m_mup.cg": GPT2,
}
SIZES = ({"batch": 1, "seq": 1}, {"batch": 3, "seq": 7}, {"batch": 2, "seq": 16})

MODELS = {
    "neox": "use std/gpt_neox\nmodel m = gpt_neox(vocab=61, context=16, layers=2, width=48, heads=3)\n",
    "gpt2 by tanh": """use std/gpt2
model m = gpt2(vocab=61, context=16, layers=2, width=24, heads=3, activation="gelu_tanh")
""",
    "many queries": """use std/attention
model m(width = 24, heads = 4) {
    dim head = width / heads
    input x[batch, seq, width]
    output y = multi_query_attention(x)
}
""",
    "grouped queries": """use std/attention
model m(width = 24, kv_heads = 2, group = 2, head = 6) {
    input x[batch, seq, width]
    output y = grouped_attention(x)
}
""",
    "biased by distance": """use std/attention
use std/positions
model m(width = 24, heads = 6) {
    dim head = width / heads
    input x[batch, seq, width]
    q = linear(x, width -> heads head)
    k = linear(x, width -> heads head) as [seq -> key]
    v = linear(x, width -> heads head) as [seq -> key]
    output y = attend_with_bias(q, k, v, alibi(seq, key, heads), over head, seq -> key)
}
""",
    "without a batch": """use std/attention
model m(width = 24, heads = 4) {
    dim head = width / heads
    input x[seq, width]
    q = linear(x, width -> heads head)
    k = linear(x, width -> heads head) as [seq -> key]
    v = linear(x, width -> heads head) as [seq -> key]
    output y = attend(q, k, v, over head, seq -> key)
}
""",
    "heads first": """use std/attention
model m(heads = 3, head = 4) {
    input q[heads, seq, batch, head]
    input k[batch, heads, key, head]
    input v[batch, heads, key, head]
    output y = attend(q, k, v, over head, seq -> key)
}
""",
    "loss": """use std/loss
model m(vocab = 11) {
    input logits[batch, seq, vocab]
    input targets[batch, seq] : id of vocab
    output loss = cross_entropy(logits, targets)
}
""",
    "norms over other axes": """use std/nn
model m(width = 6, heads = 3) {
    input x[batch, heads, seq, width]
    a = layer_norm(x, over width)
    b = rms_norm(a, over heads)
    c = layer_norm(b, over heads)
    d = softmax(c, over heads)
    output e = log_softmax(d, over seq)
}
""",
    "activations": """use std/nn
model m(width = 6, ffn = 8) {
    input x[batch, seq, width]
    output a = gelu(x)
    output b = gelu_tanh(x)
    output c = silu(x)
    output d = relu(x)
    output e = linear(x, width -> width)
    output f = swiglu(x, width -> ffn)
}
""",
    "learned positions": """use std/positions
model m(width = 6, context = 16) {
    input x[batch, seq, width]
    output y = x + learned_positions(seq, context, width)
}
""",
}


def _example(name: str) -> Program:
    return load_program(str(EXAMPLES / name), SMALL[name])


def _written(name: str, folder: Path) -> Program:
    path = folder / "m.cg"
    path.write_text(MODELS[name], encoding="utf-8")
    return load_program(str(path))


def _compare(program: Program) -> None:
    for seed, sizes in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        sizes = {symbol.name: sizes.get(symbol.name, 5) for symbol in program.graph.symbols}
        weights = sample(params_of(program), sizes, rng)
        scaled = {name: array * np.float32(0.2) for name, array in weights.items()}
        compare(program, scaled, sample(inputs_of(program), sizes, rng))


@pytest.mark.parametrize("name", SMALL)
def test_example(name: str) -> None:
    _compare(_example(name))


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, tmp_path: Path) -> None:
    _compare(_written(name, tmp_path))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("flat", [False, True])
def test_checker_passes_with_and_without_weights(name: str, flat: bool, tmp_path: Path) -> None:
    program = _example(name)
    check_file(program, tmp_path, flat=flat)
    weights = sample(params_of(program), {}, np.random.default_rng(0))
    check_file(program, tmp_path, flat=flat, weights=weights)


def test_every_example_emits_at_full_size(tmp_path: Path) -> None:
    for path in sorted(EXAMPLES.glob("*.cg")) + sorted(EXAMPLES.glob("cerebras_gpt/*.cg")):
        model = check_file(load_program(str(path)), tmp_path)
        assert model.graph.output[0].name == "logits"
        assert (tmp_path / "model.onnx").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["gpt2_small.cg", "llama_8b.cg"])
def test_operators_agree_with_the_definitions(name: str) -> None:
    """A program whose library blocks go by another name is written from primitives alone."""
    program = _example(name)
    rng = np.random.default_rng(5)
    weights = sample(params_of(program), {}, rng)
    inputs = sample(inputs_of(program), {"batch": 2, "seq": 9}, rng)
    graph = program.graph
    anonymous = tuple(replace(function, library="") for function in graph.functions)
    plain = replace(program, graph=replace(graph, functions=anonymous))
    operators = onnxruntime_evaluator(program)(weights, inputs)["logits"]
    primitives = onnxruntime_evaluator(plain)(weights, inputs)["logits"]
    assert largest_difference(np.asarray(primitives), np.asarray(operators)) < 1e-5


def _operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for function in model.functions for node in function.node} | {
        node.op_type for node in model.graph.node
    }


def test_standard_operators_are_used(tmp_path: Path) -> None:
    gpt2 = _operators(check_file(_example("gpt2_small.cg"), tmp_path))
    assert {"Attention", "LayerNormalization", "Gelu", "MatMul", "Gemm"} <= gpt2
    assert not {"Transpose", "Einsum", "Erf", "Exp"} & gpt2
    llama = _operators(check_file(_example("llama_8b.cg"), tmp_path))
    assert {"Attention", "RMSNormalization"} <= llama
    assert not {"Transpose", "Einsum"} & llama


def test_every_intrinsic_is_a_block_of_the_library() -> None:
    for library, block in INTRINSICS:
        source = files("cgc.std") / f"{library.removeprefix('std/')}.cg"
        assert f"block {block}(" in source.read_text(encoding="utf-8")
