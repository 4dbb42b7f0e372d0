"""A program as the `config.json` of the model hub."""

from __future__ import annotations

import json
import math
from typing import Any

from cgc.program import Program

_ACTIVATIONS = {"gelu_tanh": "gelu_new"}
"""Names there of activations that have another here."""


def hub_text(program: Program) -> str:
    """Return the configuration of a program of a library's family; what it cannot say is left out."""
    sizes = dict(program.arguments)
    match program.family:
        case "gpt2":
            config = _gpt2(sizes)
        case "gpt_neox":
            config = _gpt_neox(sizes)
        case _:
            config = _llama(sizes)
    return json.dumps(config, indent=2) + "\n"


def _activation(sizes: dict[str, Any]) -> str:
    name = str(sizes["activation"])
    return _ACTIVATIONS.get(name, name)


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def _part(rotary: int, head: int) -> float:
    """Return a part of a head that is `rotary` entries when the product is cut off to a whole number."""
    part = rotary / head
    return part if int(head * part) == rotary else math.nextafter(part, 1.0)


def _gpt2(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of GPT-2; dropout is said to be none, for the library's default is another."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": sizes["vocab"],
        "n_positions": sizes["context"],
        "n_embd": sizes["width"],
        "n_layer": sizes["layers"],
        "n_head": sizes["heads"],
        "n_inner": sizes["ffn"],
        "activation_function": _activation(sizes),
        "layer_norm_epsilon": sizes["eps"],
        "initializer_range": sizes["std"],
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": sizes["tied"],
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _gpt_neox(sizes: dict[str, Any]) -> dict[str, Any]:
    head = sizes["width"] // sizes["heads"]
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": sizes["vocab"],
        "max_position_embeddings": sizes["context"],
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["ffn"],
        "hidden_act": _activation(sizes),
        "rotary_pct": _part(sizes["rotary"], head),
        "rotary_emb_base": _plain(sizes["base"]),
        "use_parallel_residual": sizes["parallel"],
        "attention_bias": sizes["bias"],
        "layer_norm_eps": sizes["eps"],
        "initializer_range": sizes["std"],
        "tie_word_embeddings": sizes["tied"],
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _llama(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes["vocab"],
        "max_position_embeddings": sizes["context"],
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "head_dim": sizes["head"],
        "intermediate_size": sizes["ffn"],
        "hidden_act": "silu",
        "rope_theta": _plain(sizes["base"]),
        "attention_bias": sizes["bias"],
        "mlp_bias": sizes["mlp_bias"],
        "rms_norm_eps": sizes["eps"],
        "initializer_range": sizes["std"],
        "tie_word_embeddings": sizes["tied"],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
