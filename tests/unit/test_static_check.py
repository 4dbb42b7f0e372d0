"""The static coordinate check: each seeded fault at its line and nowhere else, and silence about what is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from faulty_scaling import FAULTS, GPT2, HEADS, MLP, RESIDUAL, TABLE, edit, mup, table

from cgc.diagnostics import Diagnostic, InputError
from cgc.driver import check, parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.parametrize.check import Finding
from cgc.parametrize.model import scaling_check

ROOT = Path(__file__).parents[2]


def faults_in(text: str) -> list[Diagnostic]:
    """Return what `cgc check` reports of a file with this text."""
    try:
        parametrize_checked(elaborate_file(text, "model.cg"), "all")
    except InputError as error:
        return list(error.diagnostics)
    return []


def findings(text: str) -> list[Finding]:
    """Return all facts of the check, whatever is wrong."""
    (program,) = parametrize_checked(elaborate_file(text, "model.cg"), "none").programs
    made = scaling_check(program)
    assert made is not None
    return made.findings()


def marked(text: str) -> list[tuple[int, str]]:
    lines = enumerate(text.split("\n"), start=1)
    return sorted((line, code) for line, row in lines for code in re.findall(r"# (CG\d{4})", row))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_at_its_line_alone(name: str) -> None:
    text = FAULTS[name]
    assert marked(text), "the text says what is expected"
    found = faults_in(text)
    assert {diagnostic.location.file for diagnostic in found} == {"model.cg"}
    assert sorted((diagnostic.location.line, diagnostic.code) for diagnostic in found) == marked(text)
    assert all(diagnostic.hint for diagnostic in found)


MODELS = {"mlp": MLP, "residual": RESIDUAL, "heads": HEADS, "gpt2": GPT2}


@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_the_faults_are_right_without_them(name: str) -> None:
    """Otherwise the faults above would prove little."""
    assert faults_in(MODELS[name] + mup("width from 32")) == []
    assert faults_in(table(model=MODELS[name])) == []
    if name in ("residual", "gpt2"):
        for alpha in (0.5, 0.75, 1.0):
            assert faults_in(table(model=MODELS[name], scale="width from 32, layers from 2", alpha=alpha)) == []


# ---- messages


def test_a_message_has_the_exponent_and_the_remedy() -> None:
    (start,) = faults_in(FAULTS["hidden weights start as given"])
    assert "`linear.w` and `linear_2.w`" in start.message and "grows as width grows: Θ(n^(1/2))" in start.message
    assert "multiply the initial standard deviation by 1 / m ^ (1/2)" in start.hint
    (rate,) = faults_in(FAULTS["the rate of hidden weights falls too fast"])
    assert "less and less as width grows: Θ(n^-1)" in rate.message
    assert "multiply the learning rate by m," in rate.hint
    (scores,) = faults_in(FAULTS["the root of the head"])
    assert "the scores" in scores.message and "1 / (size * given)" in scores.hint
    (deep,) = faults_in(FAULTS["branches of full size"])
    assert "`h.linear_2.w` adds to the residual stream grows as layers grows: Θ(n^1)" in deep.message
    assert "1 / depth" in deep.hint
    (deep,) = faults_in(FAULTS["a rate that falls with depth"])
    assert "multiply the learning rate by depth," in deep.hint


def test_what_is_no_score_is_not_called_one() -> None:
    start, change = faults_in(FAULTS["mixed values times the root of head"])
    assert "grows as width grows: Θ(n^(1/2))" in start.message and "training moves `dot_2` too much" in change.message
    assert "multiply the product by 1 / m ^ (1/2)" in start.hint == change.hint
    (scores,) = faults_in(FAULTS["queries and keys of length one"])
    assert "vanish as width grows: Θ(n^-1)" in scores.message and "rms_norm" in scores.hint


def test_the_remedy_mends() -> None:
    (found,) = faults_in(FAULTS["the rate of hidden weights falls with the root"])
    assert "by 1 / m ^ (1/2)" in found.hint
    mended = edit(FAULTS["the rate of hidden weights falls with the root"], ("lr / sqrt(m)", "lr / sqrt(m) / m ^ 0.5"))
    assert faults_in(mended) == []


# ---- what is right

LAYERS = "layers=4, vocab=64, context=32"
LLAMA = f"use std/llama\nmodel m = llama({LAYERS}, width=64, heads=8, kv_heads=4, ffn=96)\n"
FAMILIES = {
    "gpt2": (f"use std/gpt2\nmodel m = gpt2({LAYERS}, width=64, heads=4)\n", "width from 32"),
    "gpt2, heads grow": (f"use std/gpt2\nmodel m = gpt2({LAYERS}, width=64, heads=4)\n", "width from 32, heads from 2"),
    "gpt2, ffn of its own": (
        f"use std/gpt2\nmodel m = gpt2({LAYERS}, width=64, heads=4, ffn=160)\n",
        "width from 32, ffn from 80",
    ),
    "gpt2, ffn three times": (
        f"use std/gpt2\nmodel m = gpt2({LAYERS}, width=64, heads=4, ffn=3 * 64)\n",
        "ffn from 96",
    ),
    "gpt2, relu": (
        f'use std/gpt2\nmodel m = gpt2({LAYERS}, width=64, heads=4, activation="relu")\n',
        "width from 32, heads from 2",
    ),
    "llama": (LLAMA, "width from 32, heads from 4, kv_heads from 2, ffn from 48"),
    "llama, larger heads": (LLAMA, "width from 32, ffn from 48"),
    "llama, fewer groups": (LLAMA, "width from 32, heads from 4, ffn from 48"),
    "llama, ffn stays": (LLAMA, "width from 32"),
    "llama, only ffn": (LLAMA, "ffn from 48"),
    "gpt_neox": (f"use std/gpt_neox\nmodel m = gpt_neox({LAYERS}, width=64, heads=4)\n", "width from 32"),
    "gpt_neox, heads grow": (
        f"use std/gpt_neox\nmodel m = gpt_neox({LAYERS}, width=64, heads=4)\n",
        "width from 32, heads from 2",
    ),
    "from_scratch": ((ROOT / "examples/from_scratch.cg").read_text(encoding="utf-8"), "width from 48"),
    "from_scratch, heads grow": (
        (ROOT / "examples/from_scratch.cg").read_text(encoding="utf-8"),
        "width from 48, heads from 3",
    ),
}
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mup": ("", ()),
    "completep": (", layers from 1", ("parametrization = completep",)),
    "completep at 0.5": (", layers from 1", ("parametrization = completep", "alpha = 0.5")),
    "completep in width": ("", ("parametrization = completep",)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_right(name: str, way: str) -> None:
    model, scale = FAMILIES[name]
    more, lines = WAYS[way]
    assert faults_in(model + mup(scale + more, *lines)) == []


HEAD = """
model m(vocab = 64, width = 64, heads = 8, layers = 4, inner = 2, ffn = 96) {
    dim head = width / heads
    dim kv_heads = heads / 2
    dim group = heads / kv_heads
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width]   ~ normal(std=0.02)
    param unembed[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
"""
TIED = "    output logits = dot(layer_norm(x, over width), embed, over width)\n"
UNTIED = "    output logits = dot(rms_norm(x, over width), unembed, over width)\n"
BODIES = {
    "MHA, tied": f"    x = x + attention(layer_norm(x, over width))\n{TIED}",
    "GQA, untied": f"    x = x + grouped_attention(rms_norm(x, over width))\n{UNTIED}",
    "MQA, no biases": f"    x = x + multi_query_attention(rms_norm(x, over width), bias=false)\n{UNTIED}",
    "an output matrix with a bias": "    output logits = linear(gelu(linear(x, width -> width)), width -> vocab)\n",
    "no hidden layer": "    output logits = dot(x, unembed, over width)\n",
    "an output as wide as the model": "    output y = linear(x, width -> width)\n",
    "an encoder": "    x = x + attention(x)\n    output y = layer_norm(x, over width)\n",
    "no norm": f"    x = x + linear(relu(linear(x, width -> width)), width -> width)\n{UNTIED}",
    "a gate": f"    x = x + linear(swiglu(x, width -> width), width -> width, bias=false)\n{UNTIED}",
    "residual without repeat": f"    x = x + linear(x, width -> width)\n    x = x + attention(x)\n{TIED}",
    "positions of sines": f"    x = rope(x, along seq, over width)\n    x = x + attention(x)\n{TIED}",
    "norms after": f"""    repeat layers as h {{
        x = layer_norm(x + linear(gelu(linear(x, width -> width)), width -> width), over width)
    }}
{TIED}""",
    "normalized queries": f"""    repeat layers as h {{
        y = rms_norm(x, over width)
        q = rms_norm(linear(y, width -> heads head), over head)
        k = rms_norm(linear(y, width -> heads head), over head) as [seq -> key]
        x = x + linear(attend(q, k, k, over head, seq -> key), heads head -> width)
    }}
{TIED}""",
    "repeat in repeat": f"""    repeat layers as outer {{
        repeat inner as h {{
            x = x + linear(rms_norm(x, over width), width -> width)
        }}
        x = x + attention(layer_norm(x, over width))
    }}
{TIED}""",
    "a mean by hand": f"    x = x - sum(x, over width) / width\n    x = x + linear(x, width -> width)\n{TIED}",
    "a narrow place": f"    x = x + linear(gelu(linear(x, width -> inner)), inner -> width)\n{TIED}",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scale", ["width from 32", "width from 32, heads from 4"])
@pytest.mark.parametrize("name", BODIES)
def test_models_written_from_scratch_are_right(name: str, scale: str, way: str) -> None:
    more, lines = WAYS[way]
    more = (", layers from 2, inner from 1" if "inner as" in BODIES[name] else ", layers from 2") if more else ""
    more = more if "repeat layers" in BODIES[name] else ""
    assert faults_in(HEAD + BODIES[name] + "}\n" + mup(scale + more, *lines)) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.cg")) + sorted(ROOT.glob("examples/cerebras_gpt/*.cg")))
def test_examples_are_right(path: Path) -> None:
    check(str(path))


# ---- standard parametrization


@pytest.mark.parametrize("name", ["gpt2", "llama, larger heads", "gpt_neox", "from_scratch"])
def test_sp_is_unstable_at_its_matrices_and_scores(name: str) -> None:
    model, scale = FAMILIES[name]
    found = findings(model + mup(scale, "parametrization = sp"))
    faulty = {(f.fact.kind, f.tensor) for f in found if f.faults}
    matrices = {(f.fact.kind, f.tensor) for f in found if f.fact.kind == "product"}
    scores = {(f.fact.kind, f.tensor) for f in found if f.fact.kind == "scores" and f.fact.scale.after > 0}
    assert len(matrices) >= 7 and len(scores) == 1
    assert faulty == matrices | scores
    steady = {f.fact.kind for f in found if not f.faults}
    assert {"lookup", "elementwise"} <= steady or name == "from_scratch"
    assert {f.tensor for f in found if f.fact.kind == "lookup"} <= {f.tensor for f in found if not f.faults}


@pytest.mark.parametrize("name", ["gpt2", "llama, larger heads"])
def test_sp_by_how_much(name: str) -> None:
    """A sum of n terms: the root at the start, n after updates that line up."""
    model, scale = FAMILIES[name]
    for finding in findings(model + mup(scale, "parametrization = sp")):
        if finding.fact.kind == "product" and finding.names == ("width",) and "down" not in finding.tensor:
            assert (finding.fact.scale.init, finding.fact.own) == (0.5, 1.0), finding.tensor


def test_the_library_sp_is_not_held_against_a_model_that_is_compiled() -> None:
    checked = elaborate_file(MLP + mup("width from 32", "parametrization = sp"), "model.cg")
    assert len(parametrize_checked(checked, "usual").programs) == 1
    with pytest.raises(InputError):
        parametrize_checked(checked, "all")
    own = elaborate_file(
        MLP + TABLE.replace("lr   = lr / m ", "lr = lr ") + mup("width from 32", "parametrization = mine"), "model.cg"
    )
    with pytest.raises(InputError):
        parametrize_checked(own, "usual")
