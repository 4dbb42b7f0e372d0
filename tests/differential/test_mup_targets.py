"""Parametrized models in every target: NumPy, PyTorch and ONNX Runtime agree, PyTorch trains and starts as derived."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cgc_onnx.evaluate import onnxruntime_evaluator
from cgc_torch import TARGET
from cgc_torch.live import save_weights, to_torch
from cgc_torch.weights import state_entries
from click.testing import CliRunner
from onnx_programs import largest_difference

from cgc.cli import main
from cgc.driver import load_program
from cgc.interpret import interpret
from cgc.program import Program
from cgc.weights import initialize, random_inputs

SIZES = "vocab=61, context=16, layers=4"
FAMILIES = {
    "gpt2": (f"use std/gpt2\nmodel m = gpt2({SIZES}, width=48, heads=4)", "width from 16, heads from 2"),
    "gpt2 with larger heads": (f"use std/gpt2\nmodel m = gpt2({SIZES}, width=48, heads=2)", "width from 16"),
    "llama": (
        f"use std/llama\nmodel m = llama({SIZES}, width=48, heads=6, kv_heads=2, ffn=80)",
        "width from 24, heads from 3, kv_heads from 1, ffn from 20",
    ),
    "gpt_neox": (f"use std/gpt_neox\nmodel m = gpt_neox({SIZES}, width=96, heads=4)", "width from 32"),
    "experts": (
        """
model m(vocab = 61, context = 16, layers = 2, inner = 2, width = 24, heads = 2, experts = 3) {
    dim head = width / heads
    input tokens[batch, seq <= context] : id of vocab
    param embed[vocab, width] ~ uniform(limit=0.1)
    x = learned_positions(seq, context, width) + embed[tokens]
    repeat layers as outer {
        repeat inner as h {
            x = x + multi_query_attention(layer_norm(x, over width))
            x = x + twice(rms_norm(x, over width))
        }
        x = x + twice(x) + route(x)
    }
    y = twice(x)
    output logits = linear(layer_norm(y, over width), width -> vocab)
}

block twice(x[..., width]) {
    return linear(gelu(linear(x, width -> width)), width -> width, bias=false)
}

block route(x[batch, seq, width]) {
    param up[experts, width, heads, head] ~ normal(std=0.1)
    gate = softmax(linear(x, width -> experts, bias=false), over experts)
    return linear(relu(dot(gate, dot(x, up, over width), over experts)), heads head -> width)
}""",
        "width from 8",
    ),
}
SETTINGS = ("init std = 0.08", "lr = 6e-3", "eps = 1e-8", "weight_decay = 0.1", "multiply embedding by 10")
WAYS = {
    "mup": ("", ()),
    "completep": (", layers from 1", ("parametrization = completep",)),
    "completep at 0.5": (", layers from 1", ("parametrization = completep", "alpha = 0.5")),
}
MORE = {
    "gpt2": (
        "multiply h.mlp.up by 0.5",
        "multiply vector by 1.5",
        "multiply residual by 0.25",
        "override wpe {\n    lr = 1e-3\n}",
    ),
    "experts": (
        "multiply outer.twice.linear_2 by 3",
        "multiply hidden by 2",
        "override outer.h {\n    weight_decay = 0.3\n}",
    ),
}


def file_of(name: str, way: str, folder: Path) -> Path:
    model, scale = FAMILIES[name]
    more, lines = WAYS[way]
    said = "\n".join((f"scale {scale}{more}", *SETTINGS, *lines, *MORE.get(name, ())))
    path = folder / "model.cg"
    path.write_text(f"{model}\n\nmup {{\n{said}\n}}\n", encoding="utf-8")
    return path


def program_of(name: str, way: str, folder: Path) -> Program:
    return load_program(str(file_of(name, way, folder)))


ALL = pytest.mark.parametrize(("name", "way"), [(name, way) for name in FAMILIES for way in WAYS])


@ALL
def test_targets_agree(name: str, way: str, tmp_path: Path) -> None:
    program = program_of(name, way, tmp_path)
    rng = np.random.default_rng(1)
    drawn = initialize(program.graph, 0)
    weights = {path: (w + 0.05 * rng.standard_normal(w.shape)).astype(np.float32) for path, w in drawn.items()}
    evaluators = {way: run for way, run in TARGET.evaluators(program) if way in ("torch (eager)", "torch (emitted)")}
    assert len(evaluators) == 2
    evaluators["onnxruntime"] = onnxruntime_evaluator(program)
    evaluators["onnxruntime, flat"] = onnxruntime_evaluator(program, flat=True)
    assert program.scaling is not None
    for seed, sizes in enumerate(({"batch": 1, "seq": 1}, {"batch": 2, "seq": 13})):
        inputs = random_inputs(program.graph, sizes, seed)
        expected = interpret(program.graph, weights, inputs)["logits"]
        plain = interpret(program.scaling.own, weights, inputs)["logits"]
        assert largest_difference(plain, expected) > 1e-2, "the multipliers are in the graph"
        for target, run in evaluators.items():
            assert largest_difference(expected, np.asarray(run(weights, inputs)["logits"])) <= 2e-5, target


def printed(path: Path) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["params", str(path), "--format", "json"])
    assert result.exit_code == 0, result.output
    return {param["name"]: param for param in json.loads(result.output)["params"]}


@ALL
def test_the_optimizer_has_every_parameter_once_as_printed(name: str, way: str, tmp_path: Path) -> None:
    path = file_of(name, way, tmp_path)
    program, params = load_program(str(path)), printed(path)
    module = to_torch(program)
    optimizer: torch.optim.AdamW = module.configure_optimizers()  # type: ignore[operator]
    groups = [(id(p), group) for group in optimizer.param_groups for p in group["params"]]
    assert Counter(key for key, _ in groups) == Counter(id(p) for p in module.parameters())
    by_key = dict(groups)
    named = dict(module.named_parameters())
    seen: set[str] = set()
    for entry in state_entries(program):
        group, param = by_key[id(named.pop(entry.key))], params[entry.param]
        assert group["lr"] == pytest.approx(param["lr"], rel=1e-12), entry.key
        assert group["eps"] == pytest.approx(param["eps"], rel=1e-12), entry.key
        assert group["weight_decay"] == pytest.approx(param["weight_decay"], rel=1e-12), entry.key
        seen.add(entry.param)
    assert named == {} and seen == params.keys()
    distinct = {(p["lr"], p["eps"], p["weight_decay"]) for p in params.values()}
    assert len(distinct) <= len(optimizer.param_groups) <= len(distinct) + 1
    if name == "gpt2":
        assert params["wpe"]["lr"] == 1e-3 and params["wpe"]["overridden"] == ["lr"]


def test_another_rate_scales_all_but_overridden_ones(tmp_path: Path) -> None:
    program = program_of("gpt2", "mup", tmp_path)
    module = to_torch(program)
    plain, doubled = (module.configure_optimizers(rate) for rate in (6e-3, 1.2e-2))  # type: ignore[operator]
    ratios = Counter(b["lr"] / a["lr"] for a, b in zip(plain.param_groups, doubled.param_groups, strict=True))
    assert ratios.keys() == {1.0, 2.0} and ratios[1.0] == 1
    (fixed,) = (a for a, b in zip(plain.param_groups, doubled.param_groups, strict=True) if a["lr"] == b["lr"])
    assert [tuple(p.shape) for p in fixed["params"]] == [(16, 48)]


def test_without_a_rate_the_optimizer_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "model.cg"
    path.write_text(f"{FAMILIES['gpt2'][0]}\n\nmup {{\nscale width from 16\n}}\n")
    program = load_program(str(path))
    module = to_torch(program)
    with pytest.raises(TypeError):
        module.configure_optimizers()  # type: ignore[operator]
    rates = sorted(group["lr"] for group in module.configure_optimizers(0.3).param_groups)  # type: ignore[operator]
    assert rates == pytest.approx([0.1, 0.3])


@ALL
def test_the_live_module_starts_as_derived(name: str, way: str, tmp_path: Path) -> None:
    path = file_of(name, way, tmp_path)
    program, params = load_program(str(path)), printed(path)
    torch.manual_seed(0)
    arrays = save_weights(to_torch(program), program)
    assert arrays.keys() == params.keys()
    for own, param in params.items():
        init, array = param["init"], np.asarray(arrays[own])
        match init["distribution"]:
            case "constant":
                assert (array == init["value"]).all()
                continue
            case "uniform":
                expected = init["limit"] / np.sqrt(3)
                assert np.abs(array).max() <= init["limit"]
            case "truncated_normal":
                expected = init["std"] * 0.8796  # what is left of a standard normal cut at two deviations
                assert np.abs(array).max() <= 2.001 * init["std"]
            case _:
                expected = init["std"]
        assert abs(array.mean()) <= 5 * expected / np.sqrt(array.size), own
        assert array.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * array.size) + 1e-3), own
        assert init["distribution"] == "constant" or array.size >= 48


def test_the_tuned_deviation_is_the_uniform_ones_too(tmp_path: Path) -> None:
    program = program_of("experts", "mup", tmp_path)
    init = program.inits["embed"]
    assert init.distribution == "uniform"
    assert init.limit == pytest.approx(0.08 * np.sqrt(3))
