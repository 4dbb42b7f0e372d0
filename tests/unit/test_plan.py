"""`cgc plan`: what a run takes, counted by hand and against the published family."""

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
from cgc.planning import ModelPlan, Rate, frontier_loss, plan_model
from cgc.program import Program
from cgc.training_run import training_run

EXAMPLES = Path(__file__).parents[2] / "examples"
FAMILY = EXAMPLES / "cerebras_gpt"
PUBLISHED = {
    "111m": (2.22e9, 2.6e18, 2.608),
    "256m": (5.12e9, 1.3e19, 2.349),
    "590m": (1.18e10, 6.1e19, 2.181),
    "1.3b": (2.63e10, 2.8e20, 1.997),
    "2.7b": (5.30e10, 1.1e21, 1.834),
    "6.7b": (1.33e11, 6.3e21, 1.704),
    "13b": (2.57e11, 2.3e22, 1.572),
}
"""Tokens, training FLOPs as printed, Pile test loss (Dey et al. 2023, tables 3 and 8)."""


def plan(*words: str) -> Any:
    result = CliRunner().invoke(main, ["plan", *words, "--format", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["models"]


def planned(program: Program, **more: Any) -> ModelPlan:
    return plan_model(program, **{"where": None, "device": None, "batch": None, "seq": None, **more})


def test_the_published_family() -> None:
    found = {entry["model"]: entry for entry in plan(str(FAMILY))}
    assert len(found) == 12
    for size, (tokens, flops, loss) in PUBLISHED.items():
        entry = found[f"cerebras_gpt_{size.replace('.', '_')}"]
        vocab, seq = 50257, 2048
        sizes: dict[str, Any] = dict(load_program(str(FAMILY / f"{size}.cg"), {}).arguments)
        w, layers = sizes["width"], sizes["layers"]
        assert entry["tokens"] == pytest.approx(tokens, rel=0.003)
        d = entry["tokens"]
        products = 6 * (12 * layers * w * w + vocab * w) * d
        scores = 12 * layers * w * seq * d
        assert entry["flops"]["graph"] == products + scores
        assert entry["flops"]["causal"] == products + scores * (seq + 1) // (2 * seq)
        # positions are looked up once for all sequences of a step
        lookups = 4 * vocab * w * d + 4 * seq * w * seq * entry["steps"]
        assert entry["flops"]["algorithmic"] == products + scores + lookups
        assert entry["flops"]["six_nd"] == 6 * entry["parameters"] * d
        assert entry["non_embedding_parameters"] == entry["parameters"] - (vocab + seq) * w
        # scores counted twice are all that the printed column has more, within what its two digits can say
        digit = 10 ** (len(str(int(flops))) - 2)
        assert abs(entry["flops"]["algorithmic"] + scores - flops) <= 0.6 * digit
        assert frontier_loss(flops) == pytest.approx(loss, rel=0.011)


def test_by_hand() -> None:
    text = """
model m(vocab = 10, width = 4, context = 8) {
    input tokens[batch, seq <= context] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = embed[tokens]
    k = x as [seq -> key]
    mixed = dot(dot(x, k, over width), k, over key)
    output logits = dot(mixed, embed, over width)
}

train {
    steps    = 100 steps
    batch    = 3 sequences
    schedule = warmup(240 tokens) then linear(to=0.1)
}
"""
    (program,) = elaborate_file(text, "m.cg").programs
    made = planned(program, where=Rate(1000.0, 0.5))
    run = made.run
    assert (run.steps, run.tokens_per_step, run.tokens, run.chosen) == (100, 24, 2400, "steps")
    assert [(phase.shape, phase.steps) for phase in run.phases] == [("warmup", 10), ("linear", 90)]
    assert [run.rate(step) for step in (0, 9, 10, 55, 99)] == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.11])
    assert run.rate(1000) == pytest.approx(0.1)
    scores, logits = 2 * (2 * 8 * 8 * 4), 2 * 8 * 4 * 10
    assert made.flops.graph == 3 * (scores + logits) * 300
    assert made.flops.causal == 3 * (scores * 9 // 16 + logits) * 300
    assert made.flops.algorithmic == made.flops.graph + 4 * 10 * 8 * 4 * 300
    assert made.parameters == 40 and made.time is not None
    assert made.time.step == 3 * (scores + logits) * 3 / 500 and made.time.run == 100 * made.time.step


def test_tokens_per_parameter_and_overrides() -> None:
    program = load_program(str(EXAMPLES / "scaling/sp.cg"), {}, "bytes_8k")
    assert planned(program).run.steps == round(20 * 8432 / (8 * 64))
    assert planned(program, batch=2, seq=32).run.steps == round(20 * 8432 / 64)
    without = planned(load_program(str(EXAMPLES / "from_scratch.cg"), {}))
    assert not without.batched and without.run.chosen == "20 per parameter"
    assert without.to_json()["steps"] is None and without.to_json()["tokens"] == without.run.tokens


def test_times_on_a_wafer() -> None:
    (one,) = plan(str(FAMILY / "111m.cg"), "--device", "wse2")
    (two,) = plan(str(FAMILY / "111m.cg"), "--device", "wse2", "--batch", "240")
    assert one["time"]["mode"] == "resident" and one["time"]["device"] == "wse2"
    assert one["time"]["run"] == pytest.approx(one["steps"] * one["time"]["step"])
    assert two["time"]["step"] > 1.5 * one["time"]["step"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "wse2", "--flops-rate", "1e12"], "not both"),
        (["--utilization", "0.4"], "--flops-rate"),
        (["--flops-rate", "0"], "Invalid value"),
        (["--flops-rate", "1e12", "--utilization", "1.5"], "Invalid value"),
        (["--model", "nothing"], "no model"),
    ],
)
def test_wrong_usage(words: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["plan", str(EXAMPLES / "tiny.cg"), *words])
    assert result.exit_code == 2 and says in result.output


def test_faults(tmp_path: Path) -> None:
    for words, code in (
        ([str(EXAMPLES / "from_scratch.cg"), "--device", "wse2"], "CG0680"),
        ([str(EXAMPLES / "tiny.cg"), "--seq", "65"], "CG0680"),
        ([str(tmp_path / "nothing.cg")], "CG0001"),
        ([str(EXAMPLES / "tiny.cg"), "--device", "nothing"], "CG0508"),
    ):
        result = CliRunner().invoke(main, ["plan", *words])
        assert result.exit_code == 1 and code in result.output, result.output
    assert CliRunner().invoke(main, ["plan", str(tmp_path)]).exit_code == 2
    text = "model m(width = 4) {\n    input x[batch, width]\n    output y = x + 1\n}\n"
    (program,) = elaborate_file(text, "m.cg").programs
    with pytest.raises(InputError, match="no tokens"):
        training_run(program, 1)


def test_the_table_names_its_conventions() -> None:
    result = CliRunner().invoke(main, ["plan", str(FAMILY / "13b.cg"), "--flops-rate", "1e15", "--utilization", "0.4"])
    assert result.exit_code == 0
    for text in ("cerebras_gpt_13b", "12.9B", "257B", "720 × 2048", "masked", "1.585"):
        assert text in result.stdout
