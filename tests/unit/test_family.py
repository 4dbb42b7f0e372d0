"""Families: every model for its own tokens, resumed without a trace, read by `cgc scaling`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cgc.cli import main
from cgc.experiments import family as module
from cgc.experiments.family import Member, members, train_member
from cgc.scaling_laws.runs import read_runs

MODELS = """use std/gpt2

model small = gpt2(vocab=256, context=8, layers=1, width=8, heads=1)
model large = gpt2(vocab=256, context=8, layers=1, width=16, heads=2)

train {
    tokens    = 0.5 per param
    batch     = 4 sequences
    lr        = 1e-2
    optimizer = adamw(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    schedule  = warmup(64 tokens) then linear(to=0.1)
    clip      = 1.0
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    (tmp_path / "models.cg").write_text(MODELS)
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 60)
    return tmp_path


def trained(folder: Path, out: str, *words: str) -> Any:
    command = ["family", str(folder / "models.cg"), "--data", str(folder / "text.txt"), "-o", str(folder / out), *words]
    return CliRunner().invoke(main, command)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_from_end_to_end(folder: Path) -> None:
    result = trained(folder, "out", "--format", "json")
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)["runs"]
    assert [run["model"] for run in runs] == ["small", "large"]
    for run in runs:
        steps = round(run["parameters"] / 2 / 32)
        assert run["tokens"] == 32 * steps and 0.5 < run["val_loss"] < 5.6
        lines = log(folder / "out" / run["model"])
        assert lines[-1]["step"] == steps and lines[-1]["flops"] == run["flops"] and lines[-1]["val_loss"] > 0
        assert lines[-1]["lr"] < 0.25 * 1e-2
    again = {run.name: run for run in read_runs([str(folder / "out")])}
    assert {name: (run.compute, run.loss) for name, run in again.items()} == {
        run["model"]: (run["flops"], run["val_loss"]) for run in runs
    }
    before = (folder / "out/small/log.jsonl").read_bytes()
    assert "small: loss" in trained(folder, "out").stdout and (folder / "out/small/log.jsonl").read_bytes() == before
    other = trained(folder, "out", "--lr", "1e-3", "--only", "small", "--format", "json")
    assert json.loads(other.stdout)["runs"][0]["val_loss"] != runs[0]["val_loss"]


class _Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 17, 40])
def test_a_killed_run_leaves_no_trace(at: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(module, "LOG_EVERY", 5)

    def member(out: str) -> Member:
        (found,) = [one for one in members((str(folder / "models.cg"),), {}, folder / out, 3) if one.name == "small"]
        return found

    whole = train_member(member("whole"), str(folder / "text.txt"), lambda _: None)
    steps = module._steps

    def cut(*arguments: Any) -> Any:
        for line in steps(*arguments):
            if line["step"] == at:
                raise _Killed
            yield line

    monkeypatch.setattr(module, "_steps", cut)
    with pytest.raises(_Killed):
        train_member(member("cut"), str(folder / "text.txt"), lambda _: None)
    assert at == 1 or (folder / "cut/small/state.safetensors").is_file()
    monkeypatch.setattr(module, "_steps", steps)
    started: list[int] = []
    again = train_member(member("cut"), str(folder / "text.txt"), lambda text: started.append(int(text.split()[2])))
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert log(folder / "cut/small") == log(folder / "whole/small")
    assert min(started) > at - 1 and not (folder / "cut/small/state.safetensors").exists()


def test_a_state_that_is_damaged_is_passed_over(folder: Path) -> None:
    assert trained(folder, "out", "--only", "small").exit_code == 0
    result = (folder / "out/small/result.json").read_text()
    (folder / "out/small/result.json").unlink()
    (folder / "out/small/state.safetensors").write_bytes(b"no state")
    assert trained(folder, "out", "--only", "small").exit_code == 0
    again = json.loads((folder / "out/small/result.json").read_text())
    assert {**again, "seconds": 0} == {**json.loads(result), "seconds": 0}


def test_a_run_that_diverges_has_no_loss(folder: Path) -> None:
    result = trained(folder, "out", "--lr", "1e30", "--only", "small", "--format", "json")
    assert result.exit_code == 0 and json.loads(result.stdout)["runs"][0]["val_loss"] is None
    shown = trained(folder, "out", "--lr", "1e30", "--only", "small")
    assert "diverged" in shown.stdout


def test_wrong_usage(folder: Path) -> None:
    assert trained(folder, "out", "--only", "nothing").exit_code == 2
    (folder / "twice.cg").write_text(MODELS)
    words = ["family", str(folder / "models.cg"), str(folder / "twice.cg"), "--data", "x", "-o", str(folder / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "two models are called" in result.output
    (folder / "models.cg").write_text(MODELS.replace("    batch     = 4 sequences\n", ""))
    result = trained(folder, "out")
    assert result.exit_code == 1 and "CG0680" in result.output
    (folder / "models.cg").write_text(MODELS)
    (folder / "text.txt").write_bytes(np.arange(100, dtype=np.uint8).tobytes())
    result = trained(folder, "out")
    assert result.exit_code == 1 and "CG0006" in result.output
