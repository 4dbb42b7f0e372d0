"""`cgc compile --kv-cache`: one ONNX graph for prefill and decoding; greedy tokens are the public implementation's."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator
from onnx_decoding import compiled, empty_caches, greedy, input_shapes, public_greedy, runner, session
from test_public_models import FAMILIES

import cgc
from cgc.cli import main

NEW = 12
CHOSEN = ["gpt2", "gpt_neox", "llama", "llama grouped", "llama multi-query", "llama tied"]
FLAGS = {
    "newest": (),
    "ort": ("--runtime", "ort"),
    "ort, flat": ("--runtime", "ort", "--flat"),
    "old": ("--opset", "18"),
    "old ort": ("--runtime", "ort", "--opset", "18"),
}
Array = np.ndarray[Any, Any]


def public(family: str) -> tuple[Any, str]:
    torch.manual_seed(1)
    model, source = FAMILIES[family]()
    return model.eval(), source


def late(prompt: Array) -> Array:
    """Return a mask by which the second row starts two tokens late."""
    mask = np.ones(prompt.shape, np.int64)
    mask[1, :2] = 0
    return mask


QUICK = [("gpt2", "newest"), ("gpt2", "ort"), ("gpt_neox", "old"), ("gpt_neox", "ort"), ("llama grouped", "newest")]
QUICK += [("llama grouped", "ort"), ("llama multi-query", "old ort"), ("llama tied", "ort, flat")]


@pytest.mark.parametrize(
    ("family", "flags"),
    [
        pytest.param(family, flags, marks=() if (family, flags) in QUICK else pytest.mark.slow)
        for family in CHOSEN
        for flags in FLAGS
    ],
)
def test_greedy_tokens_equal_the_public_implementation(family: str, flags: str, tmp_path: Path) -> None:
    model, source = public(family)
    loaded = session(compiled(source, model, tmp_path, *FLAGS[flags]))
    prompt = np.random.default_rng(3).integers(1, 97, (2, 6))
    found = greedy(runner(loaded), input_shapes(loaded), prompt, late(prompt), NEW)
    assert found[:1].tolist() == public_greedy(model, prompt[:1], NEW).tolist()
    assert found[1:].tolist() == public_greedy(model, prompt[1:, 2:], NEW).tolist()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama grouped"])
@pytest.mark.parametrize("flags", [(), ("--opset", "18")])
def test_onnx_own_evaluator_gives_the_same_tokens(family: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    model, source = public(family)
    folder = compiled(source, model, tmp_path, "--copy-weights", *flags)
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    file = onnx.load(str(folder / "model.onnx"))
    evaluator = ReferenceEvaluator(file)
    names = [value.name for value in file.graph.output]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in file.graph.input
    }
    prompt = np.random.default_rng(3).integers(1, 97, (2, 5))

    def run(inputs: Any) -> dict[str, Array]:
        return dict(zip(names, evaluator.run(None, dict(inputs)), strict=True))

    found = greedy(run, shapes, prompt, late(prompt), 4)
    assert found[:1].tolist() == public_greedy(model, prompt[:1], 4).tolist()
    assert found[1:].tolist() == public_greedy(model, prompt[1:, 2:], 4).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("family", CHOSEN)
def test_128_tokens(family: str, flags: str, tmp_path: Path) -> None:
    model, source = public(family)
    loaded = session(compiled(source.replace("context=48", "context=160"), _longer(model), tmp_path, *FLAGS[flags]))
    prompt = np.random.default_rng(4).integers(1, 97, (2, 8))
    found = greedy(runner(loaded), input_shapes(loaded), prompt, np.ones(prompt.shape, np.int64), 128)
    assert found.tolist() == public_greedy(_longer(model), prompt, 128).tolist()


def _longer(model: Any) -> Any:
    """Return the same model for longer sequences; learned positions are drawn anew."""
    longer = copy.deepcopy(model.config)
    longer.max_position_embeddings = 160  # of GPT-2 too, which calls it `n_positions`
    torch.manual_seed(1)
    return type(model)(longer).eval()


OTHERWISE = """use std/attention
use std/positions
model m(vocab = 24, width = 32, heads = 2) {
    dim head = width / heads
    input words[rows, time <= 32] : id of vocab
    param table[vocab, width] ~ normal(std=1)
    x = table[words]
    q = rope(linear(x, width -> heads head, std=1), along time, over head)
    k = rope(linear(x, width -> heads head, std=1), along time, over head) as [time -> key]
    v = linear(x, width -> heads head, std=1) as [time -> key]
    x = x + linear(attend(q, k, v, over head, time -> key), heads head -> width, std=1)
    output logits = dot(x, table, over width)
}
"""


@pytest.mark.parametrize("more", [(), ("--last-logits",)])
@pytest.mark.parametrize("flags", FLAGS)
def test_dimensions_may_be_called_otherwise(flags: str, more: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(OTHERWISE)
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(main, [*words, "--kv-cache", *FLAGS[flags], *more])
    assert run.exit_code == 0, run.output
    model = cgc.load(tmp_path / "m.cg")
    loaded = session(tmp_path / "out")
    prompt = np.random.default_rng(3).integers(0, 24, (2, 5))
    found = greedy(runner(loaded), input_shapes(loaded), prompt, late(prompt), 8)
    weights = model.initialize(1)
    for row, start in ((0, 0), (1, 2)):
        text = np.concatenate([prompt[row : row + 1, start:], found[row : row + 1]], 1)
        logits = model.run(weights, words=text)["logits"]
        assert logits[0, -9:-1].argmax(-1).tolist() == found[row].tolist()


LAST = [("gpt2", "newest"), ("gpt_neox", "old"), ("llama grouped", "ort"), ("llama multi-query", "old ort")]


@pytest.mark.parametrize(("family", "flags"), LAST)
def test_the_last_logits_are_those_of_each_sequences_last_token(family: str, flags: str, tmp_path: Path) -> None:
    model, source = public(family)
    (tmp_path / "all").mkdir()
    (tmp_path / "last").mkdir()
    every = runner(session(compiled(source, model, tmp_path / "all", *FLAGS[flags])))
    loaded = session(compiled(source, model, tmp_path / "last", *FLAGS[flags], "--last-logits"))
    prompt = np.random.default_rng(3).integers(1, 97, (3, 6))
    mask = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    shapes = input_shapes(loaded)
    inputs = {"input_ids": prompt, "attention_mask": mask, "position_ids": positions, **empty_caches(shapes, 3)}
    expected, found = every(inputs), runner(loaded)(inputs)
    assert found["logits"].shape == (3, 1, 97)
    last = expected["logits"][np.arange(3), [5, 5, 3]][:, None]
    assert np.abs(found["logits"] - last).max() < 1e-5 * np.abs(last).max()
    # one more token of each, behind these
    caches = {name.replace("present", "past_key_values"): x for name, x in found.items() if name != "logits"}
    longer = np.concatenate([mask, np.ones((3, 1), np.int64)], 1)
    step = {"input_ids": prompt[:, :1], "attention_mask": longer, "position_ids": mask.sum(1)[:, None], **caches}
    assert np.abs(runner(loaded)(step)["logits"] - every(step)["logits"]).max() < 1e-5 * np.abs(last).max()


def test_without_padding_the_last_logits_are_those_of_the_last_token(tmp_path: Path) -> None:
    model, source = public("llama grouped")
    loaded = session(compiled(source, model, tmp_path, "--runtime", "ort", "--unpadded", "--last-logits"))
    prompt = np.random.default_rng(3).integers(1, 97, (2, 6))
    found = greedy(runner(loaded), input_shapes(loaded), prompt, np.ones(prompt.shape, np.int64), NEW)
    assert found.tolist() == public_greedy(model, prompt, NEW).tolist()


UNPADDED = ("--runtime", "ort", "--unpadded")
PACKED = {"gpt2 three heads": False, "gpt_neox": None, "llama grouped": True, "llama multi-query": True}
PACKED |= {"llama with biases": True}
"""Whether attention turns queries and keys itself; of GPT-NeoX, too small a part of each head is turned for that."""


@pytest.mark.parametrize("family", PACKED)
def test_unpadded_attention_takes_one_product(family: str, tmp_path: Path) -> None:
    model, source = public(family)
    folder = compiled(source, model, tmp_path, *UNPADDED)
    loaded = session(folder)
    prompt = np.random.default_rng(3).integers(1, 97, (2, 6))
    found = greedy(runner(loaded), input_shapes(loaded), prompt, np.ones(prompt.shape, np.int64), NEW)
    assert found.tolist() == public_greedy(model, prompt, NEW).tolist()
    file = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    (attention,) = (
        node for function in file.functions for node in function.node if node.op_type == "GroupQueryAttention"
    )
    turned = {attribute.name: attribute.i for attribute in attention.attribute}.get("do_rotary") == 1
    assert (list(attention.input[1:3]) == ["", ""], turned) == (PACKED[family] is not None, bool(PACKED[family]))


@pytest.mark.parametrize("sizes", [("--seq", "1"), ("--seq", "1", "--batch", "2")])
@pytest.mark.parametrize("flags", [*FLAGS.values(), UNPADDED], ids=[*FLAGS, "unpadded"])
@pytest.mark.parametrize("family", ["llama grouped", "gpt2 three heads"])
def test_sizes_that_are_given(family: str, flags: tuple[str, ...], sizes: tuple[str, ...], tmp_path: Path) -> None:
    model, source = public(family)
    loaded = session(compiled(source, model, tmp_path, *flags, *sizes))
    prompt = np.array([[5], [60]])
    shapes = input_shapes(loaded)
    assert shapes["input_ids"] == [2 if "--batch" in sizes else "batch_size", 1]
    found = greedy(runner(loaded), shapes, prompt, np.ones(prompt.shape, np.int64), NEW)
    assert found.tolist() == public_greedy(model, prompt, NEW).tolist()


@pytest.mark.parametrize("flags", [(), ("--quantize", "int8", "--block", "16"), ("--flat",)])
def test_a_prompt_in_parts_gives_what_the_whole_gives(flags: tuple[str, ...], tmp_path: Path) -> None:
    model, source = public("llama grouped")
    loaded = session(compiled(source, model, tmp_path / "one", *UNPADDED, *flags))
    apart = session(compiled(source, model, tmp_path / "apart", *UNPADDED[:2], *flags))
    prompt = np.random.default_rng(5).integers(1, 97, (1, 9))
    mask = np.ones(prompt.shape, np.int64)

    def logits(session: Any, cuts: tuple[int, ...]) -> Array:
        state = empty_caches(input_shapes(session), 1)
        for start, end in itertools.pairwise(cuts):
            inputs = {"input_ids": prompt[:, start:end], "attention_mask": mask[:, :end]}
            inputs["position_ids"] = np.arange(start, end)[None]
            results = runner(session)({**inputs, **state})
            state = {
                name.replace("present", "past_key_values"): array
                for name, array in results.items()
                if name.startswith("present.")
            }
        return np.asarray(results["logits"])[:, -1]

    wanted = logits(apart, (0, 9))
    for cuts in ((0, 9), (0, 4, 9), (0, 4, 8, 9)):
        np.testing.assert_allclose(logits(loaded, cuts), wanted, atol=2e-5)


def test_names_and_axes_are_those_of_the_hub(tmp_path: Path) -> None:
    model, source = public("llama grouped")
    loaded = session(compiled(source, model, tmp_path))
    shapes = input_shapes(loaded)
    past = ["batch_size", 2, "past_sequence_length", 16]
    assert list(shapes) == [
        "input_ids",
        "attention_mask",
        "position_ids",
        *(f"past_key_values.{layer}.{part}" for layer in range(2) for part in ("key", "value")),
    ]
    assert shapes["input_ids"] == shapes["position_ids"] == ["batch_size", "sequence_length"]
    assert shapes["past_key_values.1.key"] == shapes["past_key_values.0.value"] == past
    assert {value.name for value in loaded.get_outputs()} == {
        "logits",
        *(f"present.{layer}.{part}" for layer in range(2) for part in ("key", "value")),
    }


@pytest.mark.parametrize(
    ("flags", "there", "missing"),
    [
        ((), {"Attention", "RotaryEmbedding", "RMSNormalization"}, {"Softmax", "Cos", "GroupQueryAttention"}),
        (("--runtime", "ort"), {"GroupQueryAttention", "RotaryEmbedding", "QuickGelu"}, {"Attention", "Softmax"}),
        (UNPADDED, {"GroupQueryAttention", "SkipSimplifiedLayerNormalization"}, {"RotaryEmbedding", "Reshape"}),
        (("--opset", "18"), {"Softmax", "Cos"}, {"Attention", "RotaryEmbedding", "RMSNormalization", "Gelu"}),
    ],
)
def test_operators_are_those_of_the_runtime(
    flags: tuple[str, ...], there: set[str], missing: set[str], tmp_path: Path
) -> None:
    model, source = public("llama grouped")
    folder = compiled(source, model, tmp_path, *flags)
    file = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    inside = {node.op_type for function in file.functions for node in function.node}
    assert there <= inside
    assert not missing & inside
    blocks = {"h", "attention", "mlp"} | ({"swiglu"} if flags == UNPADDED else {"linear"})  # one product of three there
    assert {function.name for function in file.functions} >= blocks


@pytest.mark.parametrize("flags", [("--opset", "12"), ("--opset", "99"), ("--runtime", "abacus")])
def test_unknown_runtimes_and_opsets_are_said(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(public("gpt2")[1], encoding="utf-8")
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "-o", str(tmp_path / "out"), *flags]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 1 and "CG0805" in run.output and not (tmp_path / "out").exists()


def test_what_has_no_cache_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.cg"
    path.write_text("model m(width = 4) {\n    input x[batch, seq, width]\n    output y = x * 2\n}\n")
    run = CliRunner().invoke(
        main, ["compile", str(path), "--target", "onnx", "--kv-cache", "-o", str(tmp_path / "out")]
    )
    assert run.exit_code == 1 and "CG0804" in run.output and not (tmp_path / "out").exists()
    run = CliRunner().invoke(
        main, ["compile", str(path), "--target", "torch", "--kv-cache", "-o", str(tmp_path / "out")]
    )
    assert run.exit_code == 2 and "has no use for it" in run.output


@pytest.mark.parametrize(
    "flags",
    [("--quantize", "int4"), ("--precision", "f16"), ("--copy-weights",), ("--opset", "18"), ("--runtime", "ort")],
)
def test_other_targets_refuse_what_they_would_ignore(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(public("gpt2")[1], encoding="utf-8")
    words = ["compile", str(tmp_path / "m.cg"), "--target", "torch", "-o", str(tmp_path / "out"), *flags]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 2 and f"{flags[0]}: the target `torch` has no use for it" in run.output


def test_padding_is_for_decoding(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(public("gpt2")[1], encoding="utf-8")
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "-o", str(tmp_path / "out"), "--unpadded"]
    assert CliRunner().invoke(main, words).exit_code == 2
