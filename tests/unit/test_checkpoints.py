"""Weights through files: the hub's layouts against independent code and the hub's own library, and broken files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import cgc
from cgc.checkpoints import Arrays, hub_shapes, hub_tensors, read_checkpoint_file, write_checkpoint_file, write_weights
from cgc.diagnostics import Diagnostic, InputError
from cgc.elaborate.files import elaborate_file
from cgc.ir.dims import evaluate
from cgc.program import Program
from cgc.tensor_file import read_tensors

GPT2 = 'use std/gpt2\nmodel a = gpt2(vocab=13, context=8, layers=3, width=12, heads=3, activation="gelu_tanh")\n'
NEOX = "use std/gpt_neox\nmodel a = gpt_neox(vocab=13, context=8, layers=3, width=32, heads=4)\n"
LLAMA = "use std/llama\nmodel a = llama(vocab=13, context=8, layers=3, width=32, heads=4, kv_heads=2, ffn=48)\n"
# a weight from a dimension to itself, a repeat in a repeat, and parameters joined between the dimensions of an axis
NESTED = """model net(layers = 2, width = 4, heads = 2, deep = 3) {
    dim head = width / heads
    input x[batch, width]
    repeat layers as h {
        y = linear(x, width -> width)
        q = linear(x, width -> heads head, bias=false)
        k = linear(x, width -> heads head, bias=false)
        x = x + y * dot(q, k, over heads head)
        repeat deep as g {
            x = rms_norm(x, over width)
        }
    }
    output x = x
}
checkpoint net {
    "h.{h}.y.weight" [width', width] = h.y.w
    "h.{h}.y.bias" [width] = h.y.b
    "h.{h}.qk" [width, (heads * head)] = h.q.w, h.k.w
    "norm.{g}.{h}" [width] = h.g.rms_norm.scale
}
"""


def program_of(text: str) -> Program:
    (program,) = elaborate_file(text, "test.cg").programs
    return program


def random_weights(program: Program) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    shapes = {p.name: [evaluate(size, {}) for size in p.type.shape] for p in program.graph.params}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and (a[k] == b[k]).all() for k in a)


def faults(path: Path, program: Program) -> tuple[Diagnostic, ...]:
    with pytest.raises(InputError) as caught:
        read_checkpoint_file(path, program)
    return caught.value.diagnostics


@pytest.mark.parametrize("text", [GPT2, NEOX, LLAMA, NESTED])
def test_what_is_written_is_read_again(text: str, tmp_path: Path) -> None:
    program, path = program_of(text), tmp_path / "model.safetensors"
    weights = random_weights(program)
    write_checkpoint_file(path, program, weights)
    assert same(read_checkpoint_file(path, program), weights)
    assert same(read_checkpoint_file(tmp_path, program), weights)
    assert {name: array.shape for name, array in load_file(path).items()} == hub_shapes(program)
    own = tmp_path / "own.safetensors"
    write_weights(own, program, weights)
    assert same(load_file(own), weights)
    assert same(read_checkpoint_file(own, program), weights)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.safetensors", "own.safetensors"]


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    program = program_of(GPT2)
    for name in ("a", "b"):
        write_checkpoint_file(tmp_path / name, program, random_weights(program))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_gpt2_joins_queries_keys_and_values_one_after_the_other() -> None:
    program = program_of(GPT2)
    weights = random_weights(program)
    hub = dict(hub_tensors(program, weights))
    for layer in range(3):
        columns = [weights[f"h.attention.{name}.w"][layer].reshape(12, 12) for name in "qkv"]
        assert (hub[f"transformer.h.{layer}.attn.c_attn.weight"] == np.concatenate(columns, axis=1)).all()
        biases = [weights[f"h.attention.{name}.b"][layer].reshape(12) for name in "qkv"]
        assert (hub[f"transformer.h.{layer}.attn.c_attn.bias"] == np.concatenate(biases)).all()
        out = weights["h.attention.out.w"][layer].reshape(12, 12)
        assert (hub[f"transformer.h.{layer}.attn.c_proj.weight"] == out).all()


def test_neox_joins_queries_keys_and_values_head_by_head() -> None:
    program = program_of(NEOX)
    weights = random_weights(program)
    hub = dict(hub_tensors(program, weights))
    for layer in range(3):
        rows = []
        for head in range(4):
            for name in "qkv":
                rows += [weights[f"h.attention.{name}.w"][layer, :, head, i] for i in range(8)]
        joined = hub[f"gpt_neox.layers.{layer}.attention.query_key_value.weight"]
        assert joined.shape == (96, 32)
        assert (joined == np.stack(rows)).all()


def test_a_weight_from_a_dimension_to_itself_is_stored_transposed() -> None:
    program = program_of(NESTED)
    weights = random_weights(program)
    hub = dict(hub_tensors(program, weights))
    assert (hub["h.1.y.weight"] == weights["h.y.w"][1].T).all()
    assert (hub["norm.2.1"] == weights["h.g.rms_norm.scale"][1, 2]).all()
    assert (hub["h.0.qk"][:, 0:2] == weights["h.q.w"][0, :, 0]).all()
    assert (hub["h.0.qk"][:, 2:4] == weights["h.k.w"][0, :, 0]).all()


def gpt2_hub() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=13, n_positions=8, n_embd=12, n_layer=3, n_head=3, bos_token_id=0, eos_token_id=0)
    )


def neox_hub() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=13,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=8,
        )
    )


def llama_hub() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=13,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=8,
            rms_norm_eps=1e-5,
        )
    )


@pytest.mark.parametrize(("text", "make"), [(GPT2, gpt2_hub), (NEOX, neox_hub), (LLAMA, llama_hub)])
def test_files_of_the_hubs_library(text: str, make: Callable[[], Any], tmp_path: Path) -> None:
    """Its file is read, gives its logits, and is written again tensor by tensor; it reads ours."""
    import torch

    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "hub", max_shard_size="20KB")
    assert (tmp_path / "hub" / "model.safetensors.index.json").exists()
    source = tmp_path / "test.cg"
    source.write_text(text)
    ours = cgc.load(source)
    weights = ours.load_weights(tmp_path / "hub")
    assert same(ours.load_weights(tmp_path / "hub" / "model.safetensors.index.json"), weights)
    tokens = np.random.default_rng(0).integers(0, 13, (2, 8))
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits.numpy()
    logits = ours.run(weights, tokens=tokens)["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    write_checkpoint_file(tmp_path / "model.safetensors", ours.program, weights)
    model.config.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


# ---- variants of a right file


def hub_arrays(program: Program) -> dict[str, np.ndarray[Any, Any]]:
    return dict(hub_tensors(program, random_weights(program)))


def test_a_prefix_may_be_missing_and_ignored_tensors_may_be_there(tmp_path: Path) -> None:
    program, path = program_of(GPT2), tmp_path / "old.safetensors"
    arrays = {name.removeprefix("transformer."): array for name, array in hub_arrays(program).items()}
    arrays["h.0.attn.bias"] = np.zeros((1, 1), np.float32)
    arrays["lm_head.weight"] = np.zeros((1, 1), np.float32)
    save_file(arrays, path)
    assert same(read_checkpoint_file(path, program), random_weights(program))


def test_shorter_numbers_are_widened(tmp_path: Path) -> None:
    program = program_of(GPT2)
    weights = random_weights(program)
    path = tmp_path / "half.safetensors"
    save_file({name: array.astype(np.float16) for name, array in hub_arrays(program).items()}, path)
    halves = read_checkpoint_file(path, program)
    assert all((halves[k] == weights[k].astype(np.float16)).all() and halves[k].dtype == np.float32 for k in weights)
    save_file({name: array.astype(np.float64) for name, array in hub_arrays(program).items()}, path)
    assert same(read_checkpoint_file(path, program), weights)


def test_brain_floats_are_widened(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    program = program_of(GPT2)
    tensors = {name: torch.tensor(array).bfloat16() for name, array in hub_arrays(program).items()}
    save_torch(tensors, tmp_path / "model.safetensors")
    read = read_checkpoint_file(tmp_path, program)
    for name, array in random_weights(program).items():
        assert (read[name] == torch.tensor(array).bfloat16().float().numpy()).all()


# ---- faults


def test_tensors_that_are_missing_unclaimed_or_wrong_are_named_at_once(tmp_path: Path) -> None:
    program, path = program_of(GPT2), tmp_path / "bad.safetensors"
    arrays = hub_arrays(program)
    del arrays["transformer.ln_f.bias"], arrays["transformer.h.1.mlp.c_fc.bias"]
    arrays["surplus"] = np.zeros(2, np.float32)
    arrays["transformer.wpe.weight"] = np.zeros((9, 12), np.float32)
    arrays["transformer.ln_f.weight"] = np.zeros(12, np.int64)
    save_file(arrays, path)
    found = {fault.code: fault for fault in faults(path, program)}
    assert sorted(found) == ["CG0702", "CG0703", "CG0704", "CG0705"]
    assert "`transformer.h.1.mlp.c_fc.bias`, `transformer.ln_f.bias`" in found["CG0702"].message
    assert "`surplus`" in found["CG0703"].message
    assert "`transformer.wpe.weight` has the shape [9, 12]; the model's is [8, 12]" in found["CG0704"].message
    assert "I64" in found["CG0705"].message
    assert all(fault.hint for fault in found.values())


def test_a_checkpoint_of_another_size_is_one_fault_a_tensor(tmp_path: Path) -> None:
    write_checkpoint_file(tmp_path / "a.safetensors", program_of(GPT2), random_weights(program_of(GPT2)))
    wider = program_of(GPT2.replace("width=12", "width=24"))
    found = faults(tmp_path / "a.safetensors", wider)
    assert {fault.code for fault in found} == {"CG0704"}
    assert len(found) == 16
    shallower = program_of(GPT2.replace("layers=3", "layers=2"))
    (fault,) = faults(tmp_path / "a.safetensors", shallower)
    assert fault.code == "CG0703"
    assert fault.message.endswith("and 6 more, which no parameter claims")
    assert "as many layers" in fault.hint


def header(entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 64,
        b"PK\x03\x04" * 16,
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{]",
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        header({"a": TENSOR}),
        header({"a": {**TENSOR, "shape": [3]}}) + b"\0" * 8,
        header({"a": {**TENSOR, "shape": [2, 10**30]}}) + b"\0" * 8,
        header({"a": {**TENSOR, "shape": [-2]}}) + b"\0" * 8,
        header({"a": {**TENSOR, "shape": None}}) + b"\0" * 8,
        header({"a": {**TENSOR, "data_offsets": [8, 0]}}) + b"\0" * 8,
        header({"a": {**TENSOR, "data_offsets": [0]}}) + b"\0" * 8,
        header({"a": {**TENSOR, "dtype": 7}}) + b"\0" * 8,
        header({"a": 5}),
        header({"a": TENSOR}) + b"\0" * 9,
        header({"a": {**TENSOR, "data_offsets": [4, 12]}}) + b"\0" * 12,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345678\n",
    ],
)
def test_broken_files(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(data)
    (fault,) = faults(path, program_of(GPT2))
    assert fault.code == "CG0701" and fault.hint


def test_what_a_file_is_instead_is_said(tmp_path: Path) -> None:
    program = program_of(GPT2)
    pointer = tmp_path / "model.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345678\n")
    assert "git lfs pull" in faults(pointer, program)[0].hint
    index = tmp_path / "model.safetensors.index.json"
    pointer.rename(index)
    assert "git lfs pull" in faults(index, program)[0].hint
    pickled = tmp_path / "pytorch_model.bin"
    index.rename(pickled)
    pickled.write_bytes(b"PK\x03\x04" * 16)
    (tmp_path / "optimizer.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "training_args.bin").write_bytes(b"PK\x03\x04")
    for path in (pickled, tmp_path):
        assert "torch.load('pytorch_model.bin'" in faults(path, program)[0].hint
    pickled.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345678\n")
    assert "git lfs pull" in faults(pickled, program)[0].hint
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert "fetch the index" in faults(tmp_path, program)[0].hint


def test_the_way_to_convert_what_pytorch_pickled_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    program = program_of(GPT2)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in hub_arrays(program).items()}
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (fault,) = faults(tmp_path, program)
    monkeypatch.chdir(tmp_path)
    first, then = re.findall("`([^`]+)`", fault.hint)
    exec(f"import torch\n{first}\n{then}", {})
    assert len(read_checkpoint_file(tmp_path, program)) == len(program.graph.params)


def test_a_fault_in_a_shard_names_it(tmp_path: Path) -> None:
    program = program_of(GPT2)
    arrays = hub_arrays(program)
    arrays["transformer.wpe.weight"] = np.zeros((9, 12), np.float32)
    names = {name: f"{at % 2}.safetensors" for at, name in enumerate(arrays)}
    for file in set(names.values()):
        save_file({name: array for name, array in arrays.items() if names[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (fault,) = faults(tmp_path, program)
    assert f"`transformer.wpe.weight` in `{names['transformer.wpe.weight']}` has the shape" in fault.message


def test_places_without_a_checkpoint(tmp_path: Path) -> None:
    program = program_of(GPT2)
    assert faults(tmp_path / "absent.safetensors", program)[0].code == "CG0701"
    assert "no `model.safetensors`" in faults(tmp_path, program)[0].message
    assert faults(Path("a\0b"), program)[0].code == "CG0701"


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "x/../../a", "..", "", "..\\a", "a\0b", "c:a"])
def test_an_index_cannot_point_elsewhere(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError) as caught:
        read_tensors(path)
    assert caught.value.diagnostics[0].code == "CG0706"


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": 5}}', "[" * 100_000])
def test_broken_indexes(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError) as caught:
        read_tensors(tmp_path)
    assert caught.value.diagnostics[0].code == "CG0701"
    assert "not an index of shards" in caught.value.diagnostics[0].message


def test_an_index_of_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    save_file({"b": np.zeros(2, np.float32)}, tmp_path / "s.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "s.safetensors"}}')
    with pytest.raises(InputError, match="no such tensor"):
        read_tensors(tmp_path)


def test_a_family_without_a_layout_reads_and_writes_its_own(tmp_path: Path) -> None:
    program = replace(program_of(GPT2), checkpoint=None)
    weights, path = random_weights(program), tmp_path / "own.safetensors"
    write_weights(path, program, weights)
    assert same(read_checkpoint_file(path, program), weights)
    with pytest.raises(InputError, match="CG0707"):
        write_checkpoint_file(path, program, weights)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    program = program_of(GPT2)
    with pytest.raises(InputError, match="CG0004"):
        write_checkpoint_file(tmp_path / "absent" / "a.safetensors", program, random_weights(program))
    with pytest.raises(ValueError, match="announced"):
        write_weights(tmp_path / "a", program, {name: np.zeros(1, np.float32) for name in random_weights(program)})
    assert list(tmp_path.iterdir()) == []
