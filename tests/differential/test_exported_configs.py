"""Exported configurations make, in the public implementations, models of the same size; theirs can be imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cgc
from cgc.importers.configuration import import_text
from cgc.importers.export import export_text
from cgc.model import Model

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {
    "gpt2": "vocab=97, context=48, layers=3, width=48, heads=4, ffn=50, eps=1e-6",
    "gpt_neox": "vocab=97, context=48, layers=2, width=44, heads=2, rotary=6, parallel=false, base=500",
    "llama": "vocab=97, context=48, layers=2, width=64, heads=4, ffn=96, kv_heads=2, head=32, base=500",
}
OWN = {family: f"use std/{family}\n\nmodel m = {family}({sizes})\n" for family, sizes in SIZES.items()}


def _public(config: Any) -> Any:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


def _count(module: torch.nn.Module) -> int:
    return sum({id(p): p.numel() for p in module.parameters()}.values())


def _exported(model: Model, folder: Path) -> Any:
    (folder / "config.json").write_text(export_text(model.program, "hub"))
    return transformers.AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("name", ["gpt2_small", "llama_8b", "tiny", "cerebras_gpt/111m", "cerebras_gpt/13b"])
def test_exported_examples_count_the_same(name: str, tmp_path: Path) -> None:
    model = cgc.load(EXAMPLES / f"{name}.cg")
    assert _count(_public(_exported(model, tmp_path))) == model.parameter_count


@pytest.mark.parametrize("family", OWN)
def test_exported_models_have_all_their_settings(family: str, tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(OWN[family])
    model = cgc.load(tmp_path / "m.cg")
    config = _exported(model, tmp_path)
    assert _count(_public(config)) == model.parameter_count
    sizes = dict(model.program.arguments)
    assert (config.num_attention_heads, config.max_position_embeddings) == (sizes["heads"], sizes["context"])
    if family == "gpt2":
        assert config.layer_norm_epsilon == 1e-6 and config.activation_function == "gelu"
    else:
        assert config.rope_parameters["rope_theta"] == 500
    if family == "gpt_neox":
        assert config.rope_parameters["partial_rotary_factor"] * 22 == pytest.approx(6)
        assert config.use_parallel_residual is False
    if family == "llama":
        assert config.head_dim == 32 and config.num_key_value_heads == 2


@pytest.mark.parametrize("family", OWN)
def test_what_the_public_library_writes_can_be_imported(family: str, tmp_path: Path) -> None:
    """Its files have every default in them, by the newest names."""
    (tmp_path / "m.cg").write_text(OWN[family])
    model = cgc.load(tmp_path / "m.cg")
    _public(_exported(model, tmp_path)).config.save_pretrained(tmp_path / "again")
    text = (tmp_path / "again" / "config.json").read_text()
    (tmp_path / "again.cg").write_text(import_text(text, "config.json", "m"))
    again = cgc.load(tmp_path / "again.cg")
    assert again.program.arguments == model.program.arguments
    assert json.loads(text)["model_type"] == family
