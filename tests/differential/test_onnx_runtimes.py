"""Folders that other runtimes of language models load as they are: onnxruntime-genai, and optimum where it is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx_decoding import compiled, public_greedy, session
from test_public_models import FAMILIES

from cgc.cli import main
from cgc.weights_verification import Comparison

NEW = 24
FLAGS = {"newest": (), "ort": ("--runtime", "ort"), "old": ("--opset", "18")}


def public(family: str, seed: int = 1) -> tuple[Any, str]:
    torch.manual_seed(seed)
    model, source = FAMILIES[family]()
    return model.eval(), source


def prompt_without_end(model: Any, count: int) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Return a prompt after which the model never finds token 0 likeliest, which ends a sequence, and what it finds."""
    for seed in range(20):
        prompt = np.random.default_rng(seed).integers(1, 97, (1, 6))
        tokens = public_greedy(model, prompt, count)[0].tolist()
        if 0 not in tokens:
            return prompt, tokens
    raise AssertionError("every prompt leads to token 0")


QUICK = [("gpt2", "newest"), ("gpt_neox", "old"), ("llama grouped", "ort")]


@pytest.mark.parametrize(
    ("family", "flags"),
    [
        pytest.param(family, flags, marks=() if (family, flags) in QUICK else pytest.mark.slow)
        for family in ("gpt2", "gpt_neox", "llama", "llama grouped", "llama multi-query")
        for flags in FLAGS
    ],
)
def test_genai_generates_the_same_tokens(family: str, flags: str, tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    model, source = public(family)
    folder = compiled(source, model, tmp_path, *FLAGS[flags])
    prompt, expected = prompt_without_end(model, NEW)
    loaded = genai.Model(str(folder))
    options = genai.GeneratorParams(loaded)
    options.set_search_options(max_length=prompt.shape[1] + NEW, do_sample=False)
    generator = genai.Generator(loaded, options)
    generator.append_tokens(prompt[0].tolist())
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    assert found == expected


@pytest.mark.parametrize("more", [(), ("--last-logits",)])
@pytest.mark.parametrize(("family", "flags"), [("gpt2", "newest"), ("llama grouped", "ort")])
def test_genai_generates_the_same_tokens_for_prompts_of_several_lengths(
    family: str, flags: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    model, source = public(family)
    for config in (model.config, model.generation_config):
        config.pad_token_id, config.eos_token_id = 0, 96
    folder = compiled(source, model, tmp_path, *FLAGS[flags], *more)
    prompts = [np.random.default_rng(seed).integers(1, 96, (1, length)) for seed, length in ((3, 6), (4, 4))]
    loaded = genai.Model(str(folder))
    options = genai.GeneratorParams(loaded)
    options.set_search_options(max_length=14, batch_size=2, do_sample=False)
    generator = genai.Generator(loaded, options)
    generator.append_tokens(
        np.stack([np.pad(prompt[0], (0, 6 - prompt.shape[1])) for prompt in prompts]).astype(np.int32)
    )
    found: list[list[int]] = []
    while not generator.is_done() and len(found) < 8:
        generator.generate_next_token()
        found.append([int(token) for token in generator.get_next_tokens()])
    assert [list(row) for row in zip(*found, strict=True)] == [
        public_greedy(model, prompt, len(found))[0].tolist() for prompt in prompts
    ]
    assert len(found) > 3


@pytest.mark.parametrize(("flags", "more"), [*((flags, ()) for flags in FLAGS), ("ort", ("--last-logits",))])
def test_optimum_generates_the_same_tokens(flags: str, more: tuple[str, ...], tmp_path: Path) -> None:
    runtime = pytest.importorskip("optimum.onnxruntime")
    model, source = public("llama grouped")
    folder = compiled(source, model, tmp_path, *FLAGS[flags], *more)
    prompt, expected = prompt_without_end(model, NEW)
    loaded = runtime.ORTModelForCausalLM.from_pretrained(str(folder), use_io_binding=False)
    found = loaded.generate(torch.tensor(prompt), max_new_tokens=NEW, do_sample=False)
    assert found[0, prompt.shape[1] :].tolist() == expected


def test_the_folder_says_what_the_model_is(tmp_path: Path) -> None:
    model, source = public("llama grouped")
    model.config.eos_token_id, model.config.bos_token_id = 5, 4
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 4, [5, 6]
    folder = compiled(source, model, tmp_path, "--runtime", "ort")
    settings = json.loads((folder / "genai_config.json").read_text())
    decoder = settings["model"]["decoder"]
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (2, 2, 16)
    assert decoder["num_attention_heads"] == 4 and settings["model"]["context_length"] == 48
    assert settings["model"]["eos_token_id"] == [5, 6] and settings["model"]["bos_token_id"] == 4
    assert settings["search"]["past_present_share_buffer"]
    assert (folder / "config.json").read_text() == (tmp_path / "hub" / "config.json").read_text()


def test_a_model_with_a_second_input_is_none_for_genai(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(
        "use std/attention\n\nmodel m(vocab = 24, kinds = 3, width = 16, heads = 2) {\n    dim head = width / heads\n"
        "    input tokens[batch, seq <= 32] : id of vocab\n    input kind[batch] : id of kinds\n"
        "    param embed[vocab, width] ~ normal(std=1)\n    param what[kinds, width] ~ normal(std=1)\n"
        "    x = embed[tokens] + what[kind]\n    x = x + attention(x)\n"
        "    output logits = dot(x, embed, over width)\n}\n"
    )
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(main, [*words, "--kv-cache"]).exit_code == 0
    assert not (tmp_path / "out" / "genai_config.json").exists()
    names = [value.name for value in session(tmp_path / "out").get_inputs()]
    assert names[:3] == ["input_ids", "kind", "attention_mask"]


@pytest.mark.parametrize("family", ["gpt2", pytest.param("gpt_neox", marks=pytest.mark.slow), "llama multi-query"])
def test_verify_with_weights_agrees_with_pytorch(family: str, tmp_path: Path) -> None:
    model, source = public(family)
    model.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source, encoding="utf-8")
    words = ["verify", str(tmp_path / "m.cg"), "--target", "onnx", "--weights", str(tmp_path / "hub")]
    run = CliRunner().invoke(main, [*words, "--tokens", "20", "--format", "json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.output)
    assert found["ok"] and len(found["runs"]) == 5
    assert (found["sequences"], found["prompt"], found["tokens"]) == (2, 16, 20)
    assert [run["equal_tokens"] for run in found["runs"]] == [0, 0, 40, 40, 40]
    assert all(run["difference"] < 1e-5 for run in found["runs"])


def test_verify_is_given_as_many_tokens_as_the_model_takes_and_no_more(tmp_path: Path) -> None:
    model, source = public("gpt2")
    model.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source, encoding="utf-8")
    words = ["verify", str(tmp_path / "m.cg"), "--weights", str(tmp_path / "hub"), "--format", "json"]
    context = model.config.n_positions
    most = json.loads(CliRunner().invoke(main, [*words, "--tokens", str(context - 1)]).output)
    assert most["ok"] and (most["prompt"], most["tokens"]) == (1, context - 1)
    assert {run["equal_tokens"] for run in most["runs"]} == {0, 2 * (context - 1)}
    more = CliRunner().invoke(main, [*words, "--tokens", str(context)])
    assert more.exit_code == 2 and f"takes {context} at most" in more.output


def test_verify_names_weights_that_are_not_finite(tmp_path: Path) -> None:
    model, source = public("gpt2")
    model.transformer.h[1].mlp.c_fc.bias.data[3] = float("nan")
    model.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source, encoding="utf-8")
    run = CliRunner().invoke(main, ["verify", str(tmp_path / "m.cg"), "--weights", str(tmp_path / "hub")])
    assert run.exit_code == 1 and "CG0708" in run.output and "`h.mlp.up.b`" in run.output


def test_a_difference_is_one() -> None:
    assert Comparison("onnx", "x", 1e-6, 10, 10, 0.0).ok
    assert Comparison("onnx", "x", 1e-6, 10, 9, 1e-6).ok, "two tokens that PyTorch does not tell apart either"
    assert not Comparison("onnx", "x", 1e-2, 10, 10, 0.0).ok
    assert not Comparison("onnx", "x", 1e-6, 10, 9, 1e-2).ok
