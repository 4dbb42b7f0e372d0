"""Imports of random configurations: there and back the same, and never a traceback for broken ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgc.diagnostics import InputError
from cgc.diagnostics.codes import CODES
from cgc.diagnostics.render import render
from cgc.driver import load_program, parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.importers.configuration import import_text
from cgc.importers.export import export_text
from cgc.program import Program
from cgc.show.params import params_data
from cgc.syntax.parser import parse
from cgc.syntax.printer import format_file

EXAMPLES = Path(__file__).parents[2] / "examples" / "cerebras_gpt"
SEEDS = [export_text(load_program(str(EXAMPLES / f"{name}.cg")), "modelzoo") for name in ("111m", "1.3b_mup")]
SEEDS += [export_text(load_program(str(EXAMPLES / "111m.cg")), "hub")]

ACTIVATIONS = st.sampled_from(["gelu", "gelu_new", "relu", "silu"])
SMALL = st.integers(1, 6)
RATES = st.sampled_from([1e-4, 6e-4, 1.2e-4, 2.7e-3, 6e-3, 1 / 3e3])
STDS = st.sampled_from([0.02, 0.01, 0.08, 1 / 3, 0.004472135954999579])


def program(text: str) -> Program:
    (found,) = parametrize_checked(elaborate_file(text, "m.cg"), "none").programs
    return found


@st.composite
def hub(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["gpt2", "gpt_neox", "llama"]))
    heads, head = draw(SMALL), 2 * draw(SMALL)
    width = heads * head
    eps, std = draw(st.sampled_from([1e-5, 1e-6, 1e-12])), draw(STDS)
    common = {"model_type": kind, "vocab_size": draw(SMALL) * 10, "initializer_range": std}
    if kind == "gpt2":
        return common | {
            "n_positions": draw(SMALL) * 8, "n_embd": width, "n_head": heads, "n_layer": draw(SMALL),
            "n_inner": draw(st.sampled_from([None, 4 * width, 3 * width + 1])), "layer_norm_epsilon": eps,
            "activation_function": draw(ACTIVATIONS),
        }  # fmt: skip
    common |= {
        "max_position_embeddings": draw(SMALL) * 8, "hidden_size": width, "num_attention_heads": heads,
        "num_hidden_layers": draw(SMALL), "intermediate_size": draw(st.integers(1, 99)),
    }  # fmt: skip
    base = draw(st.sampled_from([10000, 500000.0, 12345.678]))
    if kind == "gpt_neox":
        return common | {
            "rotary_pct": 2 * draw(st.integers(1, head // 2)) / head + 1e-9 * (head > 12), "rotary_emb_base": base,
            "use_parallel_residual": draw(st.booleans()), "hidden_act": draw(ACTIVATIONS), "layer_norm_eps": eps,
        }  # fmt: skip
    groups = draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0]))
    dims = draw(st.sampled_from([None, head, 2 * head]))
    return common | {"num_key_value_heads": groups, "head_dim": dims, "rope_theta": base, "rms_norm_eps": eps}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hub())
def test_hub_configurations_there_and_back(config: dict[str, Any]) -> None:
    try:
        text = import_text(json.dumps(config), "config.json", "m")
    except InputError as error:
        # a part of a head that rounding takes an entry from
        assert [fault.code for fault in error.diagnostics] == ["CG1006"] and "rotary_pct" in config
        return
    assert format_file(parse(text, "m.cg")) == text
    sizes = dict(program(text).arguments)
    assert sizes["vocab"] == config["vocab_size"]
    assert sizes["width"] == config.get("n_embd", config.get("hidden_size"))
    assert sizes["std"] == config["initializer_range"]
    assert sizes["eps"] == next(value for key, value in config.items() if "eps" in key)
    again = import_text(export_text(program(text), "hub"), "config.json", "m")
    assert dict(program(again).arguments) == sizes
    assert again == text


def initializer(std: float) -> str:
    return f"{{name: truncated_normal, mean: 0.0, std: {std!r}, a: {-2 * std!r}, b: {2 * std!r}}}"


@st.composite
def modelzoo(draw: st.DrawFn) -> str:
    heads, head, layers = draw(SMALL), draw(st.integers(1, 12)), draw(SMALL)
    width, rate = heads * head, draw(RATES)
    ffn = draw(st.sampled_from([4 * width, 3 * width]))
    model = [
        "name: gpt3", "vocab_size: 50", "max_position_embeddings: 16", f"hidden_size: {width}", f"num_heads: {heads}",
        f"num_hidden_layers: {layers}", f"filter_size: {ffn}", f"layer_norm_epsilon: {draw(RATES)}",
        "nonlinearity: gelu",
        *(f"{name}initializer: {initializer(draw(STDS))}" for name in ("", "embedding_", "output_layer_")),
    ]  # fmt: skip
    if draw(st.booleans()):
        base = draw(st.integers(1, 40))
        base_ffn = draw(st.sampled_from([4 * base, 3 * base]))
        model += [f"mup_base_hidden_size: {base}", f"mup_base_filter_size: {base_ffn}", "scale_qk_dot_by_d: true"]
    model += draw(st.lists(st.sampled_from(["embeddings_scale: 10", "output_logits_alpha: 2.5"]), unique=True))
    end = draw(st.sampled_from([0.0, rate / 10, rate / 3, 1e-5]))
    last = draw(st.sampled_from(["LinearLR", "CosineDecayLR"]))
    schedule = [
        f"- LinearLR: {{initial_learning_rate: 0.0, end_learning_rate: {rate!r}, total_iters: {draw(SMALL)}}}",
        f"- {last}: {{initial_learning_rate: {rate!r}, end_learning_rate: {end!r}, total_iters: {draw(SMALL)}}}",
        f"- ConstantLR: {{learning_rate: {end!r}, total_iters: {draw(SMALL)}}}",
    ][: draw(st.integers(1, 3))]
    lines = ["trainer:", "  init:", "    model:", *(f"      {line}" for line in model), "    optimizer:"]
    lines += [f"      AdamW: {{betas: [0.9, {draw(STDS)}], eps: {draw(RATES)}, weight_decay: 0.1}}", "    schedulers:"]
    lines += ["    - SequentialLR:", "        schedulers:", *(f"        {line}" for line in schedule)]
    lines += ["    precision: {enabled: true, fp16_type: bfloat16, max_gradient_norm: 1.0}"]
    lines += [f"    loop: {{max_steps: {draw(SMALL)}}}", "  fit:", "    train_dataloader: {batch_size: 8}"]
    return "\n".join(lines) + "\n"


def close(a: Any, b: Any) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a if key != "reason")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(modelzoo())
def test_modelzoo_configurations_there_and_back(config: str) -> None:
    text = import_text(config, "m.yaml", "m")
    assert format_file(parse(text, "m.cg")) == text
    found = program(text)
    again = program(import_text(export_text(found, "modelzoo"), "m.yaml", "m"))
    assert close(params_data(again), params_data(found))
    ours, theirs = found.train, again.train
    assert ours is not None and theirs is not None
    assert (theirs.steps, theirs.batch, theirs.optimizer, theirs.clip) == (
        ours.steps, ours.batch, ours.optimizer, ours.clip,
    )  # fmt: skip
    assert [(p.shape, p.length) for p in theirs.schedule] == [(p.shape, p.length) for p in ours.schedule]
    assert close([p.to for p in theirs.schedule], [p.to for p in ours.schedule])


TOKEN = re.compile(r"[A-Za-z_]\w*|[-+.\deE]+|\s+|.")
ABSURD = st.sampled_from(
    (
        *(
            "",
            "0",
            "-1",
            "1e999",
            "1e300",
            "1e-320",
            "9" * 30,
            "null",
            "true",
            "~",
            "[]",
            "{}",
            '"x"',
            "- ",
            "&a ",
            "*a",
        ),
        *("!!x ", ": ", "\n", "\t", "{", "}", "[", "]", '"', "'", "|", "%", "#", "\x00", "\ufeff", "\ud7ff", "<<: "),
        *("? ", "AdamW", "0x1f", "1:30", "yes", ".inf", ".nan", "2001-01-01", "1_000", "heads", "1099511627776"),
    )
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10**6), ABSURD), min_size=1, max_size=4))
def test_broken_configurations_have_diagnostics(seed: str, changes: list[tuple[int, str]]) -> None:
    tokens = TOKEN.findall(seed)
    for at, new in changes:
        tokens[at % len(tokens)] = new
    text = "".join(tokens)
    try:
        made = import_text(text, "m.yaml", "m")
    except InputError as error:
        assert error.diagnostics and all(fault.code in CODES for fault in error.diagnostics)
        assert all(fault.location.file == "m.yaml" for fault in error.diagnostics)
        assert "m.yaml" in render(error.diagnostics, error.sources)
    else:
        assert format_file(parse(made, "m.cg")) == made
        assert program(made).name == "m"
