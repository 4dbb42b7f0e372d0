"""Weights of few bits, or in another precision: what is stored, how far results are off, and what cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cgc_onnx.parameters.quantization import Quantization, quantize
from click.testing import CliRunner
from onnx_decoding import compiled, empty_caches, input_shapes, runner, session
from test_public_models import FAMILIES

from cgc.cli import main

Array = np.ndarray[Any, Any]
FLAGS = {
    "int8": (("--quantize", "int8"), 0.06),
    "int8 of the runtime": (("--quantize", "int8", "--runtime", "ort"), 0.1),
    "int4, blocks of 16": (("--quantize", "int4", "--block", "16"), 0.7),
    "int4 of the runtime": (("--quantize", "int4", "--block", "16", "--runtime", "ort"), 0.8),
    "bf16": (("--precision", "bf16"), 0.03),
    "f16": (("--precision", "f16"), 0.005),
}
"""Flags, and how far logits may be off relative to the largest: these small models have large weights."""


def _logits(folder: Path, prompt: Array) -> Array:
    loaded = session(folder)
    shapes = input_shapes(loaded)
    inputs = {
        "input_ids": prompt,
        "attention_mask": np.ones(prompt.shape, np.int64),
        "position_ids": np.tile(np.arange(prompt.shape[1]), (len(prompt), 1)),
        **empty_caches(shapes, len(prompt)),
    }
    return np.asarray(runner(loaded)({name: array for name, array in inputs.items() if name in shapes})["logits"])


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("family", ["gpt2", pytest.param("gpt_neox", marks=pytest.mark.slow), "llama grouped"])
def test_logits_are_near(family: str, flags: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    public, source = FAMILIES[family]()
    words, tolerance = FLAGS[flags]
    folder = compiled(source, public.eval(), tmp_path, *words)
    prompt = np.random.default_rng(3).integers(1, 97, (2, 6))
    with torch.no_grad():
        expected = public(torch.tensor(prompt)).logits.numpy()
    error = np.abs(_logits(folder, prompt) - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < tolerance
    assert not (folder / "model.safetensors").exists()
    assert (folder / "model.onnx.data").stat().st_size < 0.8 * (tmp_path / "hub" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("operator", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_are_the_nearest(bits: Any, operator: bool) -> None:
    how = Quantization(bits, 16, operator)
    rows = np.random.default_rng(0).standard_normal((5, 48)).astype(np.float32)
    rows[2, 16:32] = 0
    stored, scales = quantize(rows, how)
    assert stored.shape == (5, 48 * bits // 8) and scales.shape == (5, 3)
    integers = stored.astype(np.int16)
    if bits == 4:
        integers = np.stack([integers & 15, integers >> 4], -1).reshape(5, 48)
    half = 1 << (bits - 1)
    signed = integers - half if operator else (integers + half) % (2 * half) - half
    again = signed.reshape(5, 3, 16) * scales[..., None]
    # the side of the block that its largest entry is not on lacks one integer
    assert (np.abs(again - rows.reshape(5, 3, 16)) <= np.abs(scales[..., None]) * 1.001).all()
    assert (np.abs(again - rows.reshape(5, 3, 16)) <= np.abs(scales[..., None]) * 0.501).mean() > 0.9
    assert (again[2, 1] == 0).all()


def test_the_same_bytes_every_time_and_from_drawn_weights(tmp_path: Path) -> None:
    source = "use std/gpt2\n\nmodel m = gpt2(vocab=64, context=8, layers=2, width=32, heads=2)\n"
    (tmp_path / "m.cg").write_text(source)
    contents = []
    for run in ("a", "b"):
        words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "3", "--quantize", "int4"]
        assert CliRunner().invoke(main, [*words, "-o", str(tmp_path / run)]).exit_code == 0
        contents.append([(path.name, path.read_bytes()) for path in sorted((tmp_path / run).iterdir())])
    assert contents[0] == contents[1]
    file = onnx.load(str(tmp_path / "a" / "model.onnx"), load_external_data=False)
    onnx.checker.check_model(str(tmp_path / "a" / "model.onnx"), full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in file.graph.initializer}
    assert kinds["h.0.attention.q.w.i4"] == onnx.TensorProto.INT4
    assert kinds["wte"] == onnx.TensorProto.FLOAT, "looked up as well as multiplied by"


@pytest.mark.parametrize(
    "flags",
    [
        ("--quantize", "int3"),
        ("--quantize", "int4", "--block", "33"),
        ("--quantize", "int4", "--opset", "18"),
        ("--block", "32"),
        ("--precision", "f8"),
    ],
)
def test_what_cannot_be_stored_is_said(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text("use std/gpt2\n\nmodel m = gpt2(vocab=8, context=8, layers=1, width=8, heads=2)\n")
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(main, [*words, *flags])
    assert run.exit_code == 1 and "CG0710" in run.output and not (tmp_path / "out").exists()
