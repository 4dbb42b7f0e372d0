"""The examples and the families against the public implementations: parameter counts, and logits on shared weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import cgc
from cgc.model import Model
from cgc.target import load_target

EXAMPLES = Path(__file__).parents[2] / "examples"
TOLERANCE = 1e-5
"""Relative to the largest logit, in float32."""

GPT2_LAYOUT = [
    *(f"cerebras_gpt/{size}.cg" for size in ("111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b")),
    *(f"cerebras_gpt/{size}_mup.cg" for size in ("111m", "256m", "590m", "1.3b", "2.7b")),
    "gpt2_small.cg",
    "tiny.cg",
]


def _sizes(model: Model) -> dict[str, Any]:
    return dict(model.program.arguments)


def _count(module: torch.nn.Module) -> int:
    return sum({id(p): p.numel() for p in module.parameters()}.values())


@pytest.mark.parametrize("name", GPT2_LAYOUT)
def test_counts_equal_gpt2(name: str) -> None:
    model = cgc.load(EXAMPLES / name)
    sizes = _sizes(model)
    config = transformers.GPT2Config(
        vocab_size=sizes["vocab"],
        n_positions=sizes["context"],
        n_embd=sizes["width"],
        n_layer=sizes["layers"],
        n_head=sizes["heads"],
        n_inner=sizes["ffn"],
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.device("meta"):
        public = transformers.GPT2LMHeadModel(config)
    public.tie_weights()
    assert model.parameter_count == _count(public)


def test_count_equals_llama() -> None:
    model = cgc.load(EXAMPLES / "llama_8b.cg")
    sizes = _sizes(model)
    config = transformers.LlamaConfig(
        vocab_size=sizes["vocab"],
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
        intermediate_size=sizes["ffn"],
        max_position_embeddings=sizes["context"],
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        public = transformers.LlamaForCausalLM(config)
    assert model.parameter_count == _count(public)


def test_from_scratch_counts_by_hand() -> None:
    vocab, context, layers, width, hidden = 256, 128, 3, 96, 384
    block = 2 * 2 * width + 4 * width * width + 2 * width * hidden
    expected = (vocab + context) * width + layers * block + 2 * width
    assert cgc.load(EXAMPLES / "from_scratch.cg").parameter_count == expected


def _gpt2(activation: str, eps: float = 1e-5, tied: bool = True, heads: int = 4) -> tuple[Any, str]:
    config = transformers.GPT2Config(
        vocab_size=97, n_positions=48, n_embd=48, n_layer=3, n_head=heads, initializer_range=0.2,
        layer_norm_epsilon=eps, activation_function=activation, tie_word_embeddings=tied, bos_token_id=0,
        eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    kind = {"gelu": "gelu", "gelu_new": "gelu_tanh"}[activation]
    sizes = f'vocab=97, context=48, layers=3, width=48, heads={heads}, activation="{kind}", eps={eps}'
    sizes += f", tied={_word(tied)}"
    return transformers.GPT2LMHeadModel(config), f"use std/gpt2\n\nmodel m = gpt2({sizes})\n"


def _word(value: bool) -> str:
    return str(value).lower()


def _gpt_neox(parallel: bool = True, bias: bool = True, tied: bool = False) -> tuple[Any, str]:
    config = transformers.GPTNeoXConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=48, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
        use_parallel_residual=parallel, attention_bias=bias, tie_word_embeddings=tied, attn_implementation="eager",
    )  # fmt: skip
    sizes = f"vocab=97, context=48, layers=2, width=64, heads=4, parallel={_word(parallel)}"
    sizes += f", bias={_word(bias)}, tied={_word(tied)}"
    return transformers.GPTNeoXForCausalLM(config), f"use std/gpt_neox\n\nmodel m = gpt_neox({sizes})\n"


def _llama(kv_heads: int, head: int = 16, tied: bool = False, bias: bool = False) -> tuple[Any, str]:
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=kv_heads,
        head_dim=head, intermediate_size=96, max_position_embeddings=48, initializer_range=0.2, rms_norm_eps=1e-5,
        tie_word_embeddings=tied, attention_bias=bias, mlp_bias=bias, bos_token_id=0, eos_token_id=0,
        attn_implementation="eager",
    )  # fmt: skip
    sizes = f"vocab=97, context=48, layers=2, width=64, heads=4, kv_heads={kv_heads}, head={head}, ffn=96"
    sizes += f", tied={_word(tied)}, bias={_word(bias)}, mlp_bias={_word(bias)}"
    return transformers.LlamaForCausalLM(config), f"use std/llama\n\nmodel m = llama({sizes})\n"


FAMILIES = {
    "gpt2": lambda: _gpt2("gelu"),
    "gpt2 tanh": lambda: _gpt2("gelu_new"),
    "gpt2 large eps": lambda: _gpt2("gelu", 0.1),
    "gpt_neox": _gpt_neox,
    "gpt_neox one after the other": lambda: _gpt_neox(parallel=False),
    "llama": lambda: _llama(4),
    "llama grouped": lambda: _llama(2),
    "llama multi-query": lambda: _llama(1),
    "gpt2 three heads": lambda: _gpt2("gelu", heads=3),
    "gpt2 with an output matrix": lambda: _gpt2("gelu", tied=False),
    "gpt_neox tied, without biases": lambda: _gpt_neox(bias=False, tied=True),
    "llama tied": lambda: _llama(2, tied=True),
    "llama with biases": lambda: _llama(2, bias=True),
    "llama wide heads": lambda: _llama(2, 32),
}
SHAPES = ((1, 1), (3, 7), (2, 48))
"""Batch and sequence: a single token, something odd, and a full context."""


def _runs(model: Model) -> Iterator[tuple[str, Any]]:
    yield "numpy", lambda weights, inputs: model.run(weights, **inputs)
    for target in ("torch", "onnx"):
        yield from load_target(target).evaluators(model.program)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_public_implementation(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    public, source = FAMILIES[family]()
    public.eval()
    # Biases and norms start at zeros and ones there; random ones show a mix-up.
    with torch.no_grad():
        for parameter in public.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    public.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source)
    model = cgc.load(tmp_path / "m.cg")
    weights = dict(model.load_weights(tmp_path / "hub"))
    tokens = {shape: torch.randint(0, 97, shape) for shape in SHAPES}
    with torch.no_grad():
        expected = {shape: public(ids).logits.numpy() for shape, ids in tokens.items()}
    names = []
    for name, run in _runs(model):
        names.append(name)
        for shape, ids in tokens.items():
            logits = np.asarray(run(weights, {"tokens": ids.numpy()})["logits"])
            difference = np.abs(logits - expected[shape]).max() / np.abs(expected[shape]).max()
            assert difference <= TOLERANCE, f"{name} at batch, seq = {shape}: {difference:.1e}"
    assert len(names) == 6, names
