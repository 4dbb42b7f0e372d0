"""Weights of few bits, or in another precision: what is stored, how far results are off, and what cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cgc_onnx.parameters.quantization import Quantization, quantize
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx_decoding import compiled, empty_caches, input_shapes, runner, session
from test_public_models import FAMILIES

import cgc
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


def _quantized(rows: Array, how: Quantization) -> tuple[Array, ...]:
    """Quantize a matrix whose rows are cut into blocks: a standard tensor has them along its first axis."""
    return quantize(rows if how.operator else rows.T, how, "w")


def _unpacked(stored: tuple[Array, ...], how: Quantization, rows: int, columns: int) -> tuple[Array, Array]:
    """Return what `_quantized` stored as a matrix again, and the scale of each entry."""
    count = columns // how.block
    shape, by_block = ((rows, columns), (rows, count)) if how.operator else ((columns, rows), (count, rows))
    if how.bits == 4:
        integers = np.stack([stored[0] & 15, stored[0] >> 4], -1).reshape(shape)
        points = np.stack([stored[2] & 15, stored[2] >> 4], -1)
        zeros = points.reshape(rows, -1)[:, :count] if how.operator else points.reshape(-1)[: rows * count]
    else:
        integers, zeros = stored[0].reshape(shape), np.full(by_block, 128 if how.operator else 0, np.uint8)
    half, signed = 1 << (how.bits - 1), (integers.astype(np.int16), zeros.reshape(by_block).astype(np.int16))
    if not how.operator:
        signed = (signed[0] + half) % (2 * half) - half, (signed[1] + half) % (2 * half) - half
    axis = 1 if how.operator else 0
    zero, scales = (np.repeat(each, how.block, axis) for each in (signed[1], stored[1].reshape(by_block)))
    entries = (signed[0] - zero) * scales
    return (entries, scales) if how.operator else (entries.T, scales.T)


def _error(found: Array, wanted: Array, block: int) -> Array:
    return ((found - wanted).astype(np.float64).reshape(-1, block) ** 2).sum(-1)


def _plain(rows: Array, block: int) -> Array:
    """Return a matrix rounded to 4 bits as it is done most often: the largest entry of a block is -8, zero is 0."""
    blocks = rows.reshape(-1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = np.where(largest == 0, 1, largest / np.float32(-8))
    return (np.clip(np.rint(blocks / scales), -8, 7) * scales).reshape(rows.shape)


@pytest.mark.parametrize("operator", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_are_the_nearest(bits: Any, operator: bool) -> None:
    how = Quantization(bits, 16, operator)
    rows = np.random.default_rng(0).standard_normal((5, 48)).astype(np.float32)
    rows[2, 16:32] = 0
    rows[3, :16] = 2.5
    stored = _quantized(rows, how)
    assert [part.nbytes for part in stored[:2]] == [5 * 48 * bits // 8, 5 * 3 * 4]
    # three zero points to a row: an operator begins a byte with each row
    assert bits == 8 or stored[2].nbytes == (10 if operator else 8)
    again, scales = _unpacked(stored, how, 5, 48)
    assert (np.abs(again - rows) <= np.abs(scales) * 1.001).mean() > 0.98
    assert (np.abs(again - rows) <= np.abs(scales) * 0.501).mean() > 0.9
    assert (again[2, 16:32] == 0).all()
    assert np.allclose(again[3, :16], 2.5, rtol=2 / 255)


@pytest.mark.parametrize(("block", "less"), [(16, 0.1), (32, 0.08), (64, 0.07), (128, 0.06)])
@pytest.mark.parametrize("draw", ["standard_normal", "laplace"])
def test_4_bits_are_nearer_than_plain_rounding(draw: str, block: int, less: float) -> None:
    size = (256, 1024)
    random = np.random.default_rng(0)
    rows = (random.laplace(size=size) if draw == "laplace" else random.standard_normal(size)).astype(np.float32)
    how = Quantization(4, block, True)
    again, _ = _unpacked(_quantized(rows, how), how, *size)
    found, plain = (np.sqrt(_error(each, rows, block).sum()) for each in (again, _plain(rows, block)))
    assert found < (1 - less) * plain


@given(
    arrays(np.float32, (4, 32), elements=st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.0)),
    st.sampled_from([16, 32]),
    st.booleans(),
)
def test_no_block_is_far_off(rows: Array, block: int, operator: bool) -> None:
    """Nothing is further off than half a step of a block's whole range, in the mean of its squares."""
    how = Quantization(4, block, operator)
    again, _ = _unpacked(_quantized(rows, how), how, 4, 32)
    blocks = rows.astype(np.float64).reshape(-1, block)
    span = np.maximum(blocks.max(-1), 0) - np.minimum(blocks.min(-1), 0)
    # the zero point is an integer, so that one end may be cut off by half a step
    assert (_error(again, rows, block) <= block * (span / 15) ** 2 * 1.01 + 1e-9).all()


@pytest.mark.parametrize("operator", [True, False])
def test_parts_are_written_as_the_whole_is(operator: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks to a row and an odd number of rows: no part but the last may end within a byte of zero points."""
    (tmp_path / "m.cg").write_text(
        "use std/llama\n\nmodel m = llama(vocab=97, context=8, layers=1, width=48, heads=3, ffn=80)\n"
    )
    words = [
        "compile",
        str(tmp_path / "m.cg"),
        "--target",
        "onnx",
        "--seed",
        "3",
        "--quantize",
        "int4",
        "--block",
        "16",
    ]
    words += ["--runtime", "ort"] if operator else []
    contents = []
    for limit in (1 << 24, 1 << 10):
        monkeypatch.setattr("cgc_onnx.parameters.weights.BLOCK", limit)
        out = tmp_path / str(limit)
        run = CliRunner().invoke(main, [*words, "-o", str(out)])
        assert run.exit_code == 0, run.output
        contents.append((out / "model.onnx.data").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("bits", [4, 8])
def test_entries_of_any_size_are_as_near(bits: Any, size: float) -> None:
    how = Quantization(bits, 32, True)
    rows = np.random.default_rng(0).uniform(-1, 1, (16, 64)).astype(np.float32)
    usual, large = (_unpacked(_quantized(each, how), how, 16, 64)[0] for each in (rows, rows * np.float32(size)))
    assert np.allclose(large.astype(np.float64) / size, usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama grouped"])
@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_the_runtime_multiplies_by_standard_tensors_as_they_are(family: str, kind: str, tmp_path: Path) -> None:
    """`DequantizeLinear` and what multiplies by it become one operator: no matrix of floats is made."""
    torch.manual_seed(1)
    public, source = FAMILIES[family]()
    folder = compiled(source, public.eval(), tmp_path, "--quantize", kind, "--block", "16")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    written = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    optimized = onnx.load(str(tmp_path / "optimized.onnx"), load_external_data=False)
    ops = [node.op_type for node in optimized.graph.node]
    matrices = sum(node.op_type == "DequantizeLinear" for node in written.graph.node)
    assert matrices > 8 and ops.count("MatMulNBits") == matrices and "DequantizeLinear" not in ops


TIED = """model tied(vocab = 21, width = 32, deep = 2, wide = 16) {
    input tokens[batch, seq] : id of vocab
    input more[batch] : id of vocab
    param table[SHAPE] ~ normal(std=1)
    x = table[tokens]
    output rows = x
    output others = table[more]
    output logits = dot(x, table, over OVER)
}
"""


@pytest.mark.parametrize("flat", [(), ("--flat",)])
@pytest.mark.parametrize(("kind", "bits"), [("int4", 4), ("int8", 8)])
@pytest.mark.parametrize(
    ("shape", "over", "order"),
    [
        ("vocab, width", "width", (0, 1)),
        ("width, vocab", "width", (1, 0)),
        ("vocab, deep, wide", "deep wide", (0, 1, 2)),
    ],
)
def test_rows_of_a_matrix_are_looked_up_as_it_is_stored(
    shape: str, over: str, order: tuple[int, ...], kind: str, bits: Any, flat: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "m.cg").write_text(TIED.replace("SHAPE", shape).replace("OVER", over))
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out"), *flat]
    run = CliRunner().invoke(main, [*words, "--quantize", kind, "--block", "16", "--runtime", "ort"])
    assert run.exit_code == 0, run.output
    assert [path.stat().st_size < 21 * 32 * 4 * 0.6 for path in (tmp_path / "out").glob("*.data")] == [True]
    how = Quantization(bits, 16, True, True)
    table = cgc.load(tmp_path / "m.cg").initialize(1)["table"].transpose(order)
    again, _ = _unpacked(quantize(table.reshape(21, 32), how, "table"), how, 21, 32)
    tokens, more = np.array([[0, 20, 3], [7, 7, 1]]), np.array([19, 2])
    loaded = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    rows, others, logits = loaded.run(["rows", "others", "logits"], {"tokens": tokens, "more": more})
    assert np.allclose(rows.reshape(2, 3, 32), again[tokens], rtol=1e-6, atol=0)
    assert np.allclose(others.reshape(2, 32), again[more], rtol=1e-6, atol=0)
    wanted = again[tokens] @ again.T
    assert np.abs(logits - wanted).max() < 0.02 * np.abs(wanted).max()


def _wte(folder: Path, width: int, *flags: str) -> int:
    """Return the type of the tied embedding of a model in blocks of 16."""
    source = f"use std/gpt2\n\nmodel m = gpt2(vocab=8, context=8, layers=1, width={width}, heads=2)\n"
    (folder / "m.cg").write_text(source, encoding="utf-8")
    words = ["compile", str(folder / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(folder / "out")]
    assert CliRunner().invoke(main, [*words, "--block", "16", *flags]).exit_code == 0
    graph = onnx.load(str(folder / "out" / "model.onnx"), load_external_data=False).graph
    return {tensor.name: tensor.data_type for tensor in graph.initializer}["wte"]


@pytest.mark.parametrize(
    ("width", "flags"),
    [
        (32, ("--quantize", "int4", "--runtime", "ort", "--opset", "22")),
        (32, ("--quantize", "int4")),
        # ONNX Runtime before 1.27 reads other zero points than these rows have
        (48, ("--quantize", "int4", "--runtime", "ort")),
    ],
)
def test_rows_are_looked_up_in_floats_where_the_runtime_may_not_do_otherwise(
    width: int, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert _wte(tmp_path, width, *flags) == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(("width", "kind"), [(32, "int4"), (48, "int8")])
def test_rows_are_looked_up_as_they_are_stored(width: int, kind: str, tmp_path: Path) -> None:
    assert _wte(tmp_path, width, "--quantize", kind, "--runtime", "ort") == onnx.TensorProto.UINT8
    graph = onnx.load(str(tmp_path / "out" / "model.onnx"), load_external_data=False).graph
    places = {x.name: [(e.key, e.value) for e in x.external_data] for x in graph.initializer}
    assert places["wte"] == places["wte.rows"], "the same bytes"


SPOKEN = """model m(vocab = 24, width = 32) {
    input tokens[batch, seq] : id of vocab
    param table[vocab, width] ~ normal(std=1)
    output logits = MADE
}
block head(x[batch, seq, width], t[vocab, width]) {
    return dot(x, t, over width)
}
"""


@pytest.mark.parametrize(
    ("made", "flags", "hint"),
    [
        ("dot(table[tokens], table, over width)", (), "--runtime ort"),
        ("dot(table[tokens], table, over width) + sum(table, over width)", ("--runtime", "ort"), "several ways"),
        ("head(table[tokens], table)", ("--runtime", "ort"), "several ways"),
    ],
)
def test_why_nothing_is_quantized(made: str, flags: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(SPOKEN.replace("MADE", made))
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(main, [*words, "--quantize", "int4", "--block", "16", *flags])
    assert run.exit_code == 1 and "CG0710" in run.output and hint in run.output


ONCE_MORE = """model m(vocab = 24, width = 32, layers = 2) {
    input tokens[batch, seq] : id of vocab
    param table[vocab, width] ~ normal(std=1)
    x = table[tokens]
    repeat layers as h {
        x = turn(x)
    }
    output logits = BOTH
    output rows = x
}
block turn(x[batch, seq, width]) {
    dim kinds = 6
    param own[kinds, width] ~ normal(std=1)
    which = dot(x, own, over width)
    return x + dot(which, own, over kinds)
}
"""


@pytest.mark.parametrize("both", ["dot(x, table, over width)", "dot(x + table[tokens], table, over width)"])
def test_a_table_used_again_and_again(both: str, tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(ONCE_MORE.replace("BOTH", both))
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(main, [*words, "--quantize", "int8", "--block", "16", "--runtime", "ort"])
    assert run.exit_code == 0, run.output
    model = cgc.load(tmp_path / "m.cg")
    tokens = np.array([[0, 20, 3], [7, 7, 1]])
    wanted = model.run(model.initialize(1), tokens=tokens)
    loaded = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    found = loaded.run(["logits"], {"tokens": tokens})[0]
    assert np.abs(found - wanted["logits"]).max() < 0.05 * np.abs(wanted["logits"]).max()


def test_a_table_that_is_only_looked_up_stays_in_floats(tmp_path: Path) -> None:
    torch.manual_seed(1)
    public, source = FAMILIES["llama grouped"]()
    folder = compiled(source, public.eval(), tmp_path, "--quantize", "int4", "--block", "16", "--runtime", "ort")
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert "GatherBlockQuantized" not in {node.op_type for node in nodes}
    assert {x.name: x.data_type for x in model.graph.initializer}["embed"] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("entry", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_what_is_no_number_is_not_quantized(entry: float, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    public, source = FAMILIES["gpt2"]()
    with torch.no_grad():
        public.transformer.h[0].mlp.c_fc.weight[3, 5] = entry
    public.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source)
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--quantize", kind, "--block", "16"]
    words += ["--weights", str(tmp_path / "hub" / "model.safetensors"), "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 1 and "CG0708" in run.output and "`h.0.mlp.up.w`" in run.output
    assert not (tmp_path / "out").exists()


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
        ("--quantize", "int4", "--block", "0"),
        ("--quantize", "int4", "--block", "256"),  # no width is a multiple of it
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


def test_an_entry_beyond_a_precision_is_said(tmp_path: Path) -> None:
    torch.manual_seed(1)
    public, source = FAMILIES["gpt2"]()
    with torch.no_grad():
        public.transformer.h[0].mlp.c_fc.weight[3, 5] = 70000
    public.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source)
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--weights", str(tmp_path / "hub")]
    run = CliRunner().invoke(main, [*words, "--precision", "f16", "-o", str(tmp_path / "out")])
    assert run.exit_code == 1 and "CG0710" in run.output and "`h.0.mlp.up.w`" in run.output
    assert not (tmp_path / "out").exists()
    run = CliRunner().invoke(main, [*words, "--precision", "bf16", "-o", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
