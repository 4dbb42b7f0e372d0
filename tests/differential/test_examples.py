"""`cgc verify` on every example: a shrunken copy in every target agrees with the NumPy reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgc.driver import check, load_program
from cgc.target import target_names
from cgc.verification import LARGEST, Verification, verify_file, verify_program

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.cg") if path.parent.name != "errors")
SMALL = {"layers": 2, "vocab": 53, "context": 16, "width": 32, "heads": 4}
MORE = {"llama_8b.cg": {"kv_heads": 2, "ffn": 48}}
QUICK = ("onnxruntime", "onnx reference", "torch (eager)", "torch (emitted)")
"""Evaluators for the default run: the compiled module takes half a minute each time."""


def last_model(name: str) -> str:
    """Return the model to look at: of a family in one file, the last."""
    return check(str(EXAMPLES / name)).programs[-1].name


def agrees(found: Verification) -> None:
    """Check that every way of running the model ran, and agrees."""
    assert found.ok, [outcome for outcome in found.outcomes if not outcome.ok]
    assert {outcome.target for outcome in found.outcomes} == {"onnx", "torch", "wse-sim"}
    ways = {outcome.evaluator.partition(" (compiled")[0] for outcome in found.outcomes}
    assert len(ways) >= len(QUICK)


def test_there_are_examples() -> None:
    assert {"tiny.cg", "from_scratch.cg", "cerebras_gpt/13b.cg"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_target_agrees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import cgc_torch.live as live

    whole = live.evaluators
    monkeypatch.setattr(live, "evaluators", lambda p: [(n, run) for n, run in whole(p) if n in QUICK])
    program = load_program(str(EXAMPLES / name), SMALL | MORE.get(name, {}), last_model(name))
    assert program.graph.parameter_count <= LARGEST  # type: ignore[operator]
    outcomes = verify_program(program, tuple(target_names()), seed=1)
    agrees(Verification(program, {}, tuple(outcomes)))


def test_large_models_are_shrunk_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    import cgc_torch.live as live

    whole = live.evaluators
    monkeypatch.setattr(live, "evaluators", lambda p: [(n, run) for n, run in whole(p) if n in QUICK])
    found = verify_file(str(EXAMPLES / "gpt2_small.cg"), {}, None, (), 0, full=False)
    agrees(found)
    assert found.shrunken["layers"] == 2
    assert found.program.graph.parameter_count <= LARGEST  # type: ignore[operator]
    assert found.to_json()["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_cgc_verify_as_it_is(name: str) -> None:
    assert check(str(EXAMPLES / name)).programs
    found = verify_file(str(EXAMPLES / name), {}, last_model(name), (), 0, full=False)
    agrees(found)
    assert any(outcome.evaluator.startswith("torch (compiled") for outcome in found.outcomes)
