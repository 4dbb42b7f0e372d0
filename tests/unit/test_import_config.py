"""`cgc import` and `cgc export-config` for configurations of the model hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cgc.cli import main
from cgc.diagnostics import InputError
from cgc.driver import load_program
from cgc.elaborate.files import elaborate_file
from cgc.importers.configuration import import_text
from cgc.importers.export import export_text
from cgc.importers.recipe import is_name, name_from, number_text
from cgc.program import Program
from cgc.syntax.parser import parse
from cgc.syntax.printer import format_file

ROOT = Path(__file__).parents[2]

# as published: `gpt2`, `EleutherAI/pythia-160m` and a Llama 3 8B
GPT2 = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.0, "bos_token_id": 50256,
    "embd_pdrop": 0.0, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "resid_pdrop": 0.0, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
}  # fmt: skip
PYTHIA = {
    "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 12, "num_hidden_layers": 12,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 50304,
}  # fmt: skip
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip


def made(config: dict[str, Any], **changes: Any) -> str:
    """Return the model's line of an import; a change to `...` takes a field out."""
    changed = {key: value for key, value in {**config, **changes}.items() if value is not ...}
    text = import_text(json.dumps(changed, indent=2), "config.json", "m")
    assert format_file(parse(text, "m.cg")) == text
    assert text.startswith("# Made by `cgc import` from config.json.\nuse std/")
    return " ".join(text.partition("\n\n")[2].split()).replace("( ", "(").replace(" )", ")")


def program(text: str) -> Program:
    (found,) = elaborate_file(text, "m.cg").programs
    return found


def faults(config: Any, **changes: Any) -> list[tuple[str, str]]:
    changed = {key: value for key, value in {**config, **changes}.items() if value is not ...}
    with pytest.raises(InputError) as raised:
        import_text(json.dumps(changed, indent=2), "config.json")
    assert all(fault.location.file == "config.json" and fault.hint for fault in raised.value.diagnostics)
    return [(fault.code, fault.message) for fault in raised.value.diagnostics]


def test_published_configurations() -> None:
    sizes = "vocab=50257, context=1024, layers=12, width=768, heads=12"
    assert made(GPT2) == f'model m = gpt2({sizes}, activation="gelu_tanh")'
    assert made(PYTHIA) == "model m = gpt_neox(vocab=50304, context=2048, layers=12, width=768, heads=12)"
    assert made(LLAMA) == (
        "model m = llama(vocab=128256, context=8192, layers=32, width=4096, heads=32, ffn=14336, kv_heads=8, "
        "base=500000)"
    )


def test_every_field_of_gpt2_is_read_by_both_its_names() -> None:
    names = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
    }
    other = {names.get(key, key): value for key, value in GPT2.items() if key != "n_ctx"}
    assert made(other) == made(GPT2)
    text = made(
        GPT2, n_inner=1000, layer_norm_epsilon=1e-6, initializer_range=0.05, activation_function="swish", n_layer=3
    )
    assert text == (
        "model m = gpt2(vocab=50257, context=1024, layers=3, width=768, heads=12, ffn=1000, std=0.05, eps=1e-6, "
        'activation="silu")'
    )


def test_fields_of_gpt_neox() -> None:
    text = made(
        PYTHIA, rotary_pct=0.5, rotary_emb_base=5e5, use_parallel_residual=False, layer_norm_eps=1e-6,
        hidden_act="gelu_new", intermediate_size=1000, initializer_range=0.01,
    )  # fmt: skip
    assert text == (
        "model m = gpt_neox(vocab=50304, context=2048, layers=12, width=768, heads=12, ffn=1000, rotary=32, "
        'base=500000, eps=1e-6, std=0.01, activation="gelu_tanh", parallel=false)'
    )
    newer = {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5}
    without = {"rotary_pct": ..., "rotary_emb_base": ...}
    assert "rotary=32, base=500000" in made(PYTHIA, **without, rope_parameters=newer)


def test_fields_of_llama() -> None:
    assert "head=64, eps=1e-6" in made(LLAMA, head_dim=64, rms_norm_eps=1e-6, rope_theta=10000)
    assert "kv_heads" not in made(LLAMA, num_key_value_heads=...)
    # what the library of the hub takes for granted is not what the family does
    assert "eps=1e-6" in made(LLAMA, rms_norm_eps=...)


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        (GPT2, {"attn_pdrop": 0.1}, ("CG1005", "`attn_pdrop` is 0.1, which cannot be expressed")),
        (GPT2, {"scale_attn_weights": False}, ("CG1005", "`scale_attn_weights` is false, which cannot be expressed")),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, ("CG1005", "`scale_attn_by_inverse_layer_idx` is true")),
        (GPT2, {"activation_function": "mish"}, ("CG1005", "`activation_function` is 'mish'")),
        (GPT2, {"add_cross_attention": True}, ("CG1005", "`add_cross_attention` is true")),
        (GPT2, {"n_layers": 3}, ("CG1004", "`n_layers` is no field that is known here")),
        (GPT2, {"n_layer": ...}, ("CG1002", "`n_layer` is missing")),
        (GPT2, {"n_layer": ..., "n_head": None}, ("CG1002", "`n_layer` and `n_head` are missing")),
        (GPT2, {"n_layer": -1}, ("CG1003", "`n_layer` is -1")),
        (GPT2, {"n_layer": 1.5}, ("CG1003", "`n_layer` is 1.5")),
        (GPT2, {"n_layer": "12"}, ("CG1003", '`n_layer` is "12"')),
        (GPT2, {"n_layer": True}, ("CG1003", "`n_layer` is true")),
        (GPT2, {"n_layer": [12]}, ("CG1003", "`n_layer` is a list")),
        (GPT2, {"n_layer": 10**30}, ("CG1003", "`n_layer` is 1000")),
        (GPT2, {"layer_norm_epsilon": 0}, ("CG1003", "`layer_norm_epsilon` is 0")),
        (GPT2, {"n_ctx": 512}, ("CG1006", "`n_ctx` is 512, and `n_positions` is 1024")),
        (GPT2, {"n_head": 7}, ("CG1006", "`n_embd` is 768, which 7 does not divide")),
        (GPT2, {"model_type": "bert"}, ("CG1007", "models of type `bert` are not known")),
        (GPT2, {"model_type": ...}, ("CG1007", "this is no configuration that is known")),
        (PYTHIA, {"hidden_dropout": 0.1}, ("CG1005", "`hidden_dropout` is 0.1")),
        (PYTHIA, {"rotary_pct": 0.01}, ("CG1006", "rotary positions turn 0 entries of a head of 64")),
        (PYTHIA, {"rotary_pct": 1.5}, ("CG1003", "`rotary_pct` is 1.5")),
        (PYTHIA, {"rope_parameters": {"rope_theta": 7.0}}, ("CG1006", "`rope_parameters.rope_theta` is 7")),
        (LLAMA, {"hidden_act": "gelu"}, ("CG1005", '`hidden_act` is "gelu"')),
        (LLAMA, {"num_key_value_heads": 5}, ("CG1006", "`num_attention_heads` is 32, which 5 does not divide")),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, ("CG1005", '`rope_scaling.rope_type` is "ll')),
        (LLAMA, {"rope_scaling": {"factor": 8}}, ("CG1004", "`rope_scaling.factor` is no field")),
        (LLAMA, {"quantization_config": {"bits": 4}}, ("CG1005", "`quantization_config` is a mapping")),
    ],
)
def test_what_is_wrong_is_said(config: dict[str, Any], changes: dict[str, Any], expected: tuple[str, str]) -> None:
    ((code, message),) = faults(config, **changes)
    assert code == expected[0] and message.startswith(expected[1])


def test_all_faults_are_found_in_one_run() -> None:
    found = faults(GPT2, n_layer=-1, attn_pdrop=0.1, new_field=3, scale_attn_weights=False)
    assert sorted(code for code, _ in found) == ["CG1003", "CG1004", "CG1005", "CG1005"]


def test_a_fault_is_shown_at_its_line() -> None:
    text = json.dumps({**GPT2, "n_layer": -1}, indent=2)
    with pytest.raises(InputError) as raised:
        import_text(text, "config.json")
    (fault,) = raised.value.diagnostics
    line = text.split("\n")[fault.location.line - 1]
    assert line[fault.location.column - 1 : fault.location.end_column - 1] == "-1"


def test_dropout_can_be_left_out_on_purpose() -> None:
    text = json.dumps({**GPT2, "attn_pdrop": 0.1, "resid_pdrop": 0.1})
    assert import_text(text, "c.json", "m", True) == import_text(json.dumps(GPT2), "c.json", "m")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1, 2", '{"a" 1}', '{"a": 1,}', '{"a": 1} x', '{"a": 1, "a": 2}', '{"a": nope}', '{"a": 1e999}',
        "{a: 1}",
        '{"a": ' + "9" * 5000 + "}", "[" * 100_000, '{"a":' * 10_000, '{"a": "\\q"}', '{"a": "open}', '{"a": NaN}',
        "a: [", "a: &x [*x]", "a: !!python/object:os.system {}", "? [1]\n: 2", "a: 1\n---\nb: 2", "<<: 1", "\ta: 1",
        "a: *nothing", 'a: "\\UFFFFFFFF"', "a: " + "{b: " * 100, "a: 1\na: 2", "%", "a: b: c", "\u0007",
        "{" + "a: [" * 90,
    ],
)  # fmt: skip
def test_broken_text_is_a_diagnostic(text: str) -> None:
    with pytest.raises(InputError) as raised:
        import_text(text, "config.json")
    assert [fault.code for fault in raised.value.diagnostics] == ["CG1001"]


@pytest.mark.parametrize("text", ["[]", "3", '"gpt2"', "null", "- a", "{}", "trainer: 3", "trainer: {}"])
def test_another_value_is_a_diagnostic(text: str) -> None:
    with pytest.raises(InputError) as raised:
        import_text(text, "config.json")
    assert {fault.code for fault in raised.value.diagnostics} <= {"CG1002", "CG1003", "CG1007"}


def test_aliases_of_aliases_take_no_room() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    with pytest.raises(InputError):
        import_text("\n".join(lines), "config.yaml")


@pytest.mark.parametrize("config", [GPT2, PYTHIA, LLAMA], ids=["gpt2", "gpt_neox", "llama"])
def test_export_and_import_again_is_the_same(config: dict[str, Any]) -> None:
    text = import_text(json.dumps(config), "config.json", "m")
    exported = export_text(program(text), "hub")
    assert import_text(exported, "config.json", "m") == text
    # what is said both times is the same, by the names that newer files have
    again = json.loads(exported)
    assert {key: again[key] for key in again.keys() & config.keys() if not key.endswith("_token_id")} == {
        key: config[key] for key in again.keys() & config.keys() if not key.endswith("_token_id")
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpt2(vocab=9, context=8, layers=2, width=8, heads=2, embed_std=0.1)", "the init of `wte` would be"),
        (
            "gpt2(vocab=9, context=8, layers=2, width=8, heads=2, out_std=0.1)",
            "the init of `h.attention.out.w` would be",
        ),
        (
            "gpt2(vocab=9, context=8, layers=2, width=8, heads=2)\n\nmup {\n    scale width from 4\n}",
            "the init of `h.attention.q.w` would be",
        ),
    ],
)
def test_what_a_hub_cannot_say_is_not_exported(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(f"use std/gpt2\n\nmodel m = {text}\n")
    with pytest.raises(InputError) as raised:
        export_text(load_program(str(tmp_path / "m.cg")), "hub")
    (fault,) = raised.value.diagnostics
    assert fault.code == "CG1008" and message in fault.message and fault.hint


def test_a_family_of_ones_own_is_not_exported() -> None:
    with pytest.raises(InputError) as raised:
        export_text(load_program(str(ROOT / "examples/from_scratch.cg")), "hub")
    assert raised.value.diagnostics[0].code == "CG1008"


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(GPT2))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    assert run("import", "config.json", "-o", "m.cg", "--name", "small") == (0, "wrote m.cg\n")
    assert run("check", "m.cg")[0] == 0
    assert run("fmt", "--check", "m.cg") == (0, "")
    assert run("export-config", "m.cg", "-o", "out/config.json") == (0, "wrote out/config.json\n")
    assert run("export-config", "m.cg", "-o", "out/m.yaml")[0] == 1
    assert (
        run("import", "out/config.json", "--name", "small")[1].partition("\n")[2]
        == Path("m.cg").read_text().partition("\n")[2]
    )
    assert "my_gpt2" in json.loads(run("import", "config.json", "--format", "json")[1])["text"]
    assert run("import", "config.json", "--name", "model")[0] == 2
    assert run("import", "config.json", "-o", "out")[0] == 2
    for missing in ("nothing.json", "out"):
        code, output = run("import", missing, "-o", "x.cg", "--format", "json")
        assert code == 1 and json.loads(output)["diagnostics"][0]["code"] == "CG0001"
    Path("bad.json").write_bytes(b"\xff\xfe")
    Path("large.json").write_text(" " * 300_000)
    assert "CG0003" in run("import", "bad.json", "-o", "x.cg")[1]
    assert "CG0002" in run("import", "large.json", "-o", "x.cg")[1]
    assert not Path("x.cg").exists() and {p.name for p in Path("out").iterdir()} == {"config.json"}


def test_numbers_are_written_as_people_do() -> None:
    numbers = [50257, 500000.0, 0.1, 0.02, 0.006, 6e-5, 1e-5, 1e-6, 1.2e-4, 1e-8, 0.0025, 0.95, 1 / 3, 1e300, 0.01]
    expected = "50257 500000 0.1 0.02 6e-3 6e-5 1e-5 1e-6 1.2e-4 1e-8 2.5e-3 0.95 0.3333333333333333 1e300 0.01"
    assert " ".join(map(number_text, numbers)) == expected
    assert all(float(number_text(number)) == number for number in numbers)


def test_names() -> None:
    assert [name_from(text, "gpt2") for text in ("111M-mup", "config", "", "gpt2", "Big Model", "model")] == [
        *("gpt2_111m_mup", "my_gpt2", "my_gpt2", "my_gpt2", "big_model", "gpt2_model"),
    ]
    assert is_name("a_1") and not is_name("1a") and not is_name("mup") and not is_name("ä")
