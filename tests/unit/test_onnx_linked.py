"""Weights that stay in the checkpoint: where the graph's data lies, what is linked, and what bad files come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cgc_onnx.parameters import linked
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

import cgc
from cgc.checkpoints import hub_tensors, write_checkpoint_file
from cgc.checkpoints import write_weights as write_own
from cgc.cli import main
from cgc.interpret import interpret
from cgc.model import Model

SOURCES = {
    "gpt2": "use std/gpt2\n\nmodel m = gpt2(vocab=31, context=8, layers=2, width=12, heads=3, std=0.3)\n",
    "gpt_neox": "use std/gpt_neox\n\nmodel m = gpt_neox(vocab=31, context=8, layers=2, width=24, heads=3, std=0.3)\n",
    "llama": (
        "use std/llama\n\n"
        "model m = llama(vocab=31, context=8, layers=2, width=16, heads=4, kv_heads=2, ffn=20, std=0.3)\n"
    ),
}
Arrays = dict[str, np.ndarray[Any, Any]]
TOKENS = np.arange(10).reshape(2, 5)


def model_in(folder: Path, family: str) -> Model:
    (folder / "m.cg").write_text(SOURCES[family], encoding="utf-8")
    return cgc.load(folder / "m.cg")


def compiled(folder: Path, weights: Path, *flags: str) -> Result:
    words = ["compile", str(folder / "m.cg"), "--target=onnx", "--weights", str(weights), "-o", str(folder / "out")]
    return CliRunner().invoke(main, [*words, *flags])


def initializers(folder: Path) -> dict[str, Any]:
    """Return where each initializer of the model in `folder` lies: its file, offset and length."""
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    return {tensor.name: {e.key: e.value for e in tensor.external_data} for tensor in graph.initializer}


def logits(folder: Path) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    result: np.ndarray[Any, Any] = session.run(["logits"], {"tokens": TOKENS})[0]
    return result


def agrees(model: Model, weights: Any, folder: Path, tolerance: float = 1e-5) -> bool:
    expected = interpret(model.graph, weights, {"tokens": TOKENS})["logits"]
    return bool(np.abs(logits(folder) - expected).max() <= tolerance * np.abs(expected).max())


@pytest.mark.parametrize("family", SOURCES)
def test_nothing_is_copied_from_the_layout_of_the_hub(family: str, tmp_path: Path) -> None:
    model = model_in(tmp_path, family)
    weights = model.initialize(1)
    file = tmp_path / "model.safetensors"
    write_checkpoint_file(file, model.program, weights)
    assert compiled(tmp_path, file).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "model.safetensors"]
    assert (tmp_path / "out" / "model.safetensors").samefile(file)
    places = initializers(tmp_path / "out").values()
    assert {place["location"] for place in places} == {"model.safetensors"}
    assert sum(int(place["length"]) for place in places) == 4 * model.parameter_count
    assert agrees(model, weights, tmp_path / "out")


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("kind", ["f16", "bf16", "f64"])
def test_other_precisions_stay_as_they_are_and_are_cast(family: str, kind: str, tmp_path: Path) -> None:
    import ml_dtypes

    dtype: Any = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f64": np.float64}[kind]
    model = model_in(tmp_path, family)
    weights = model.initialize(1)
    tensors = {name: np.ascontiguousarray(array).astype(dtype) for name, array in hub_tensors(model.program, weights)}
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    assert compiled(tmp_path, file).exit_code == 0
    assert {place["location"] for place in initializers(tmp_path / "out").values()} == {"model.safetensors"}
    assert agrees(model, model.load_weights(file), tmp_path / "out", 2e-5)


@pytest.mark.parametrize("family", SOURCES)
def test_shards_are_linked_one_by_one(family: str, tmp_path: Path) -> None:
    model = model_in(tmp_path, family)
    weights = model.initialize(1)
    names: dict[str, str] = {}
    shards: list[Arrays] = [{}, {}]
    for at, (name, array) in enumerate(hub_tensors(model.program, weights)):
        shards[at % 2][name] = np.ascontiguousarray(array)
        names[name] = f"model-0000{at % 2 + 1}-of-00002.safetensors"
    hub = tmp_path / "hub"
    hub.mkdir()
    for at, shard in enumerate(shards):
        save_file(shard, hub / f"model-0000{at + 1}-of-00002.safetensors")
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert compiled(tmp_path, hub).exit_code == 0
    assert {place["location"] for place in initializers(tmp_path / "out").values()} == set(names.values())
    assert agrees(model, weights, tmp_path / "out")


@pytest.mark.parametrize("family", SOURCES)
def test_files_in_cgcs_own_layout_are_linked_layer_by_layer(family: str, tmp_path: Path) -> None:
    model = model_in(tmp_path, family)
    weights = model.initialize(1)
    write_own(tmp_path / "own.safetensors", model.program, weights)
    assert compiled(tmp_path, tmp_path / "own.safetensors").exit_code == 0
    assert {place["location"] for place in initializers(tmp_path / "out").values()} == {"own.safetensors"}
    assert agrees(model, weights, tmp_path / "out")


def test_data_that_is_not_aligned_is_copied(tmp_path: Path) -> None:
    model = model_in(tmp_path, "llama")
    weights = model.initialize(1)
    file = tmp_path / "model.safetensors"
    write_checkpoint_file(file, model.program, weights)
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    shifted = (length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :]
    file.write_bytes(shifted)
    assert compiled(tmp_path, file).exit_code == 0
    assert {place["location"] for place in initializers(tmp_path / "out").values()} == {"model.onnx.data"}
    assert agrees(model, weights, tmp_path / "out")


def test_symbolic_links_and_links_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_in(tmp_path, "gpt2")
    weights = model.initialize(1)
    write_checkpoint_file(tmp_path / "blob", model.program, weights)
    link = tmp_path / "model.safetensors"
    link.symlink_to(tmp_path / "blob")
    assert compiled(tmp_path, link).exit_code == 0
    out = tmp_path / "out" / "model.safetensors"
    assert out.samefile(tmp_path / "blob") and not out.is_symlink()
    assert compiled(tmp_path, link).exit_code == 0, "once more, where the link is there already"

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(linked.os, "link", refuse)
    assert compiled(tmp_path, link).exit_code == 0
    assert not out.samefile(tmp_path / "blob")
    assert agrees(model, weights, tmp_path / "out")
    monkeypatch.undo()
    assert compiled(tmp_path, link, "--copy-weights").exit_code == 0
    assert out.stat().st_nlink == 1
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"), full_check=True)


def test_a_checkpoint_that_is_no_part_of_a_model_is_not_replaced(tmp_path: Path) -> None:
    model = model_in(tmp_path, "gpt2")
    write_checkpoint_file(tmp_path / "model.safetensors", model.program, model.initialize(1))
    other = tmp_path / "out" / "model.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"somebody's only copy")
    run = compiled(tmp_path, tmp_path / "model.safetensors")
    assert run.exit_code == 1 and "CG0004" in run.output
    assert [path.name for path in other.parent.iterdir()] == ["model.safetensors"]
    assert other.read_bytes() == b"somebody's only copy"
    other.with_name("model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x032.0")
    assert compiled(tmp_path, tmp_path / "model.safetensors").exit_code == 1
    assert other.read_bytes() == b"somebody's only copy"
    other.with_name("model.onnx").unlink()
    other.unlink()
    other.with_name("config.json").write_text('{"mine": 1}')
    assert compiled(tmp_path, tmp_path / "model.safetensors", "--kv-cache").exit_code == 1
    assert [path.name for path in other.parent.iterdir()] == ["config.json"]
    assert other.with_name("config.json").read_text() == '{"mine": 1}'
    for flags in ((), ("--copy-weights",), ()):
        assert compiled(tmp_path, tmp_path / "model.safetensors", *flags).exit_code == 0


def test_what_an_earlier_compilation_left_is_named(tmp_path: Path) -> None:
    model = model_in(tmp_path, "gpt2")
    write_checkpoint_file(tmp_path / "model.safetensors", model.program, model.initialize(1))
    assert "no part of it" not in compiled(tmp_path, tmp_path / "model.safetensors", "--kv-cache").output
    again = compiled(tmp_path, tmp_path / "model.safetensors")
    left = "config.json, genai_config.json, generation_config.json"
    assert f"also there, and no part of it: {left}" in again.output
    data = json.loads(compiled(tmp_path, tmp_path / "model.safetensors", "--format", "json").output)
    assert data["report"]["not_written"] == left.split(", ")


def test_a_checkpoints_own_folder_has_nothing_left_over(tmp_path: Path) -> None:
    model = model_in(tmp_path, "gpt2")
    (tmp_path / "out").mkdir()
    write_checkpoint_file(tmp_path / "out" / "model.safetensors", model.program, model.initialize(1))
    (tmp_path / "out" / "config.json").write_text("{}")
    run = compiled(tmp_path, tmp_path / "out", "--quantize", "int4", "--block", "16", "--runtime", "ort")
    assert run.exit_code == 0 and "no part of it" not in run.output


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_entries_that_are_not_finite_are_not_converted(precision: str, tmp_path: Path) -> None:
    model = model_in(tmp_path, "gpt2")
    tensors = {name: np.array(array) for name, array in hub_tensors(model.program, model.initialize(1))}
    tensors["transformer.h.1.mlp.c_fc.weight"][3, 5] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    run = compiled(tmp_path, tmp_path / "model.safetensors", "--precision", precision)
    assert run.exit_code == 1 and "CG0708" in run.output and "`h.1.mlp.up.w`" in run.output
    assert not (tmp_path / "out").exists()


def _missing(tensors: Arrays) -> None:
    del tensors["transformer.h.1.mlp.c_fc.weight"]


def _extra(tensors: Arrays) -> None:
    tensors["transformer.h.1.mlp.c_fc.adapter"] = np.zeros(3, np.float32)


def _shape(tensors: Arrays) -> None:
    tensors["transformer.h.1.mlp.c_fc.weight"] = np.zeros((12, 47), np.float32)


def _dtype(tensors: Arrays) -> None:
    tensors["transformer.h.1.mlp.c_fc.weight"] = np.zeros((12, 48), np.int32)


@pytest.mark.parametrize(
    ("fault", "code"), [(_missing, "CG0702"), (_extra, "CG0703"), (_shape, "CG0704"), (_dtype, "CG0705")]
)
@pytest.mark.parametrize("flags", [(), ("--kv-cache",), ("--precision", "f16"), ("--quantize", "int4")])
def test_tensors_that_do_not_fit_are_named(
    fault: Callable[[Arrays], None], code: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    model = model_in(tmp_path, "gpt2")
    tensors = {name: np.ascontiguousarray(array) for name, array in hub_tensors(model.program, model.initialize(1))}
    fault(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    run = compiled(tmp_path, tmp_path / "model.safetensors", *flags)
    assert run.exit_code == 1
    assert code in run.output and "transformer.h.1.mlp.c_fc" in run.output
    assert not (tmp_path / "out").exists()


NAME = "transformer.h.1.mlp.c_fc.weight"


def _offsets(begin: int, end: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[NAME]["data_offsets"] = [begin, end]

    return change


def _longer(header: dict[str, Any]) -> None:
    header[NAME]["shape"] = [12, 1 << 40]


def _negative(header: dict[str, Any]) -> None:
    header[NAME]["shape"] = [-12, -48]


def _nothing(_: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "cut"),
    [
        (_nothing, 100),
        (_offsets(0, 2304), 0),
        (_offsets(1 << 50, (1 << 50) + 2304), 0),
        (_offsets(-2304, 0), 0),
        (_offsets(2304, 0), 0),
        (_longer, 0),
        (_negative, 0),
    ],
    ids=["cut off", "overlapping", "beyond the end", "before the start", "backwards", "shape too large", "negative"],
)
def test_headers_that_lie_are_refused(change: Callable[[dict[str, Any]], None], cut: int, tmp_path: Path) -> None:
    model = model_in(tmp_path, "gpt2")
    file = tmp_path / "model.safetensors"
    write_checkpoint_file(file, model.program, model.initialize(1))
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length : len(data) - cut])
    run = compiled(tmp_path, file)
    assert run.exit_code == 1
    assert "CG0701" in run.output
    assert ("transformer." in run.output) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "a/../../b.safetensors", "c:\\x"])
def test_an_index_does_not_lead_out_of_its_folder(name: str, tmp_path: Path) -> None:
    model = model_in(tmp_path, "gpt2")
    write_checkpoint_file(tmp_path / "secret.safetensors", model.program, model.initialize(1))
    hub = tmp_path / "hub"
    hub.mkdir()
    index = {tensor: name for tensor, _ in hub_tensors(model.program, model.initialize(1))}
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    run = compiled(tmp_path, hub)
    assert run.exit_code == 1 and "CG0706" in run.output and not (tmp_path / "out").exists()
