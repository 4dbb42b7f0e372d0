"""Trained models exported for `transformers` give the same logits there; public checkpoints pass through unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cgc_torch import TARGET
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import cgc
from cgc.cli import main
from cgc.diagnostics import InputError
from cgc.importers.export_folder import parse_bytes
from cgc.parametrize.fold import folded

FAMILIES = {
    "gpt2": "gpt2(vocab=61, context=32, layers=2, width=64, heads=4{})",
    "gpt_neox": "gpt_neox(vocab=61, context=32, layers=2, width=64, heads=4, ffn=96{})",
    "llama": "llama(vocab=61, context=32, layers=2, width=64, heads=4, kv_heads=2, ffn=96{})",
}
MUP = """
mup {{
    scale width from 32, heads from 2{}
    parametrization = {}
    init std = 0.08
    lr       = 1e-2
    multiply embedding by 10
    multiply attention by 1.5
}}
"""


def source(family: str, tied: bool, parametrization: str) -> str:
    """Return a file with a small model of a family."""
    text = f"use std/{family}\n\nmodel m = {FAMILIES[family].format(f', tied={str(tied).lower()}')}\n"
    if parametrization == "sp":
        return text + "\ntrain {\n    lr = 1e-2\n}\n"
    more = ", kv_heads from 1" if family == "llama" else ""
    return text + MUP.format(more + (", layers from 1" if parametrization == "completep" else ""), parametrization)


def run(*arguments: object) -> str:
    """Run `cgc`, which has to succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def trained(file: Path, steps: int = 3) -> torch.nn.Module:
    """Return the live module after a few steps on random tokens, so that every parameter has moved."""
    program = cgc.load(file).program
    module = TARGET.to_torch(program, None)
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 1.0)
    optimizer: Any = module.configure_optimizers()  # type: ignore[operator]
    for _ in range(steps):
        tokens = torch.randint(61, (4, 17))
        logits = module(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return module


CASES = [(family, tied, table) for family in FAMILIES for tied in (True, False) for table in ("sp", "mup")]
DEEP = [(family, tied, "completep") for family in FAMILIES for tied in (True, False)]


@pytest.mark.parametrize(
    ("family", "tied", "parametrization"),
    [*CASES, DEEP[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in DEEP[1:])],
)
def test_trained_models_are_the_same_in_transformers(
    family: str, tied: bool, parametrization: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.cg"
    file.write_text(source(family, tied, parametrization))
    module = trained(file)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    run("export-weights", file, "--weights", tmp_path / "model.safetensors", "-o", tmp_path / "hub")
    public = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hub").eval()
    assert public.dtype == torch.float32
    tokens = torch.randint(61, (3, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours, theirs = module(tokens), public(tokens).logits
    assert (ours - theirs).abs().max() <= 2e-5 * ours.abs().max()
    changed = bool(folded(cgc.load(file).program))
    assert changed == (parametrization != "sp")


def test_export_takes_every_layout(tmp_path: Path) -> None:
    file = tmp_path / "m.cg"
    file.write_text(source("llama", False, "mup"))
    save_file(trained(file, 1).state_dict(), tmp_path / "module.safetensors")
    made = []
    own, again = tmp_path / "own.safetensors", tmp_path / "again.safetensors"
    run("import-weights", file, "--weights", tmp_path / "module.safetensors", "-o", own, "--layout", "own")
    run("import-weights", file, "--weights", own, "-o", again)
    for name in ("module", "own", "again"):
        run("export-weights", file, "--weights", tmp_path / f"{name}.safetensors", "-o", tmp_path / name)
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1] == made[2]
    before, after = load_file(tmp_path / "module.safetensors"), load_file(again)
    assert all(torch.equal(before[key], after[key]) for key in before) and before.keys() == after.keys()


@pytest.mark.parametrize("change", ["width=128", "layers=3"])
def test_weights_of_another_size_are_one_fault(change: str, tmp_path: Path) -> None:
    file = tmp_path / "m.cg"
    file.write_text(source("gpt2", True, "sp"))
    save_file(TARGET.to_torch(cgc.load(file).program, None).state_dict(), tmp_path / "model.safetensors")
    words = ["export-weights", str(file), "--set", change, "--weights", str(tmp_path / "model.safetensors")]
    result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "hub"), "--format", "json"])
    (fault,) = json.loads(result.stdout)["diagnostics"]
    assert result.exit_code == 1 and fault["code"] == "CG0704" and not (tmp_path / "hub").exists()


PUBLIC: dict[str, Any] = {
    "gpt2": transformers.GPT2Config(
        vocab_size=61, n_positions=32, n_embd=48, n_layer=3, n_head=4, activation_function="gelu_new",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "gpt2 untied": transformers.GPT2Config(
        vocab_size=61, n_positions=32, n_embd=48, n_layer=2, n_head=4, tie_word_embeddings=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "gpt_neox": transformers.GPTNeoXConfig(
        vocab_size=61, max_position_embeddings=32, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, rotary_pct=0.25,
    ),
    "gpt_neox tied": transformers.GPTNeoXConfig(
        vocab_size=61, max_position_embeddings=32, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, use_parallel_residual=False, tie_word_embeddings=True,
    ),
    "llama grouped": transformers.LlamaConfig(
        vocab_size=61, max_position_embeddings=32, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=96,
    ),
    "llama tied": transformers.LlamaConfig(
        vocab_size=61, max_position_embeddings=32, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, intermediate_size=96, tie_word_embeddings=True, attention_bias=True,
    ),
}  # fmt: skip


def tensors(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Return the type and the bytes of every tensor in a folder, whatever its files."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                found[name] = (str(tensor.dtype), tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PUBLIC)
def test_public_checkpoints_pass_through_byte_by_byte(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(3)
    public = transformers.AutoModelForCausalLM.from_config(PUBLIC[name]).to(dtype)
    for parameter in public.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    public.save_pretrained(tmp_path / "in", max_shard_size="40KB")
    assert (tmp_path / "in/model.safetensors.index.json").is_file()
    run("import", tmp_path / "in/config.json", "-o", tmp_path / "m.cg")
    for size in ("40KB", "5GB"):
        out = tmp_path / f"out{size}"
        run("export-weights", tmp_path / "m.cg", "--weights", tmp_path / "in", "-o", out, "--shard-size", size)
        assert tensors(out) == tensors(tmp_path / "in")
        assert (out / "model.safetensors.index.json").is_file() == (size == "40KB")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out40KB")
    tokens = torch.randint(61, (2, 9))
    with torch.no_grad():
        assert torch.equal(again.to(dtype)(tokens).logits, public.eval()(tokens).logits)


def test_bf16_rounds_as_pytorch_does(tmp_path: Path) -> None:
    file = tmp_path / "m.cg"
    file.write_text(source("gpt2", True, "sp"))
    state = trained(file, 1).state_dict()
    state["ln_f.bias"][:4] = torch.tensor([float("nan"), float("inf"), 1e-40, 3.4e38])
    save_file(state, tmp_path / "model.safetensors")
    for kind, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        run("export-weights", file, "--weights", tmp_path / "model.safetensors", "-o", tmp_path / kind, "--dtype", kind)
        found = load_file(tmp_path / kind / "model.safetensors")
        for name, ours in (("transformer.wte.weight", "wte"), ("transformer.ln_f.bias", "ln_f.bias")):
            torch.testing.assert_close(found[name], state[ours].to(dtype), rtol=0, atol=0, equal_nan=True)
        assert json.loads((tmp_path / kind / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


NOT_FOLDABLE = """
use std/llama

model m = llama(vocab=61, context=32, layers=2, width=64, heads=4, ffn=96)

mup {
    scale width from 32, heads from 2
    lr = 1e-2
    override h.norm_1.scale {
        multiply by 2
    }
    override h.mlp.hidden.gate.w {
        multiply by 3
    }
}
"""

TWO_USES = """
use std/nn

model m(vocab = 64, width = 64) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
    y = x + gelu(x)
    output logits = dot(y, embed, over width)
}

mup {
    scale width from 32
    lr = 1e-2
    multiply embedding by 10
}
"""


def test_multipliers_of_single_weights_fold_too(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(NOT_FOLDABLE)
    scales = folded(cgc.load(tmp_path / "m.cg").program)
    assert scales["h.norm_1.scale"] == 2 and scales["h.mlp.hidden.gate.w"] == 3


def test_what_cannot_be_folded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(TWO_USES)
    with pytest.raises(InputError) as caught:
        folded(cgc.load(tmp_path / "m.cg").program)
    (fault,) = caught.value.diagnostics
    assert fault.code == "CG0686" and "`embed` by 10" in fault.message and fault.labels


def test_other_families_have_no_folder(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(TWO_USES.replace("    multiply embedding by 10\n", ""))
    program = cgc.load(tmp_path / "m.cg")
    module = TARGET.to_torch(program.program, None)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    words = ["export-weights", "m.cg", "--weights", "model.safetensors", "-o", "hub"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and "CG1008" in result.output and not (tmp_path / "hub").exists()


def test_sizes_of_shards() -> None:
    assert (parse_bytes("5GB"), parse_bytes("40KB"), parse_bytes("1.5mb")) == (5 * 10**9, 40_000, 1_500_000)
    for text in ("5", "GB", "0GB", "infGB", "-1MB", "nanMB"):
        with pytest.raises(cgc.driver.UsageError, match="--shard-size"):
            parse_bytes(text)
