"""Sweeps: what is swept, what is kept, what happens to trials that die, and what comes out."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner

from cgc.cli import main
from cgc.diagnostics import InputError
from cgc.driver import UsageError
from cgc.experiments.data import read_bytes, split, windows
from cgc.experiments.sweep import Plan, Trial, curves, parse_over, summary
from cgc.experiments.training import schedule
from cgc.experiments.workers import ATTEMPTS, Report, on_this_machine

MODEL = """use std/gpt2

model bytes = gpt2(vocab=256, context=16, layers=1, width=16, heads=2)

mup {
    scale width from 16
    lr = 1e-2
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.cg").write_text(MODEL, encoding="utf-8")
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 60, encoding="utf-8")
    return tmp_path


def sweep(folder: Path, *more: str) -> Any:
    words = ["sweep", str(folder / "model.cg"), "--over", "lr=1e-3,1e-2", "--widths", "16,32"]
    words += ["--data", str(folder / "text.txt"), "--steps", "3", "--batch", "2", "--seq", "8"]
    return CliRunner().invoke(main, [*words, "-o", str(folder / "out"), "--workers", "1", *more])


def test_a_sweep_from_end_to_end(folder: Path) -> None:
    first = sweep(folder, "--format", "json")
    assert first.exit_code == 0, first.output
    data = json.loads(first.stdout)
    assert {(row["width"], row["lr"]) for row in data["trials"]} == {(16, 1e-3), (16, 1e-2), (32, 1e-3), (32, 1e-2)}
    assert set(data["best"]) == {"16", "32"}
    rows = list(csv.DictReader((folder / "out" / "results.csv").open()))
    assert len(rows) == 4 and all(4.0 < float(row["held_out_loss"]) < 7.0 for row in rows)
    for name in ("sweep.svg", "sweep.png"):
        assert (folder / "out" / name).stat().st_size > 1000
    before = (folder / "out" / "results.csv").read_bytes()
    lost = sorted((folder / "out" / "trials").iterdir())[1]
    kept = {path: path.stat().st_mtime_ns for path in (folder / "out" / "trials").iterdir() if path != lost}
    lost.write_text("{ half a fi", encoding="utf-8")
    again = sweep(folder)
    assert again.exit_code == 0 and "3 of 4 trials are done already" in again.output
    assert (folder / "out" / "results.csv").read_bytes() == before, "trials are deterministic"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished trials are not run again"


def test_another_sweep_in_the_same_folder_starts_anew(folder: Path) -> None:
    assert sweep(folder).exit_code == 0
    again = sweep(folder, "--batch", "3")
    assert again.exit_code == 0 and "done already" not in again.output


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--over", "lr"), "write `--over"),
        (("--over", "lr=0"), "above 0"),
        (("--over", "lr=a"), "numbers"),
        (("--over", "depth=1"), "no `depth`"),
        (("--widths", "16,x"), "numbers"),
        (("--widths", "17"), "17"),
    ],
)
def test_wrong_words(folder: Path, more: tuple[str, ...], says: str) -> None:
    run = sweep(folder, *more)
    assert run.exit_code in (1, 2) and says in run.output and "Traceback" not in run.output
    assert not (folder / "out").exists()


def test_data_that_cannot_be_used(folder: Path) -> None:
    missing = sweep(folder, "--data", str(folder / "none.txt"))
    assert missing.exit_code == 1 and "CG0006" in missing.output
    short = sweep(folder, "--data", str(folder / "model.cg"))
    assert short.exit_code == 1 and "too few" in short.output
    small = sweep(folder, "--set", "vocab=64")
    assert small.exit_code == 1 and "vocabulary of 64" in small.output


@dataclass(frozen=True)
class Stub:
    """A trial that ends as it is told: with a result, an error, or the death of its process (`always`, or once)."""

    name: str
    ending: str = "result"
    mark: str = ""

    def run(self) -> dict[str, Any]:
        if self.ending == "error":
            raise ValueError("no")
        if self.ending == "once" and not Path(self.mark).exists():
            Path(self.mark).touch()
            os._exit(3)
        if self.ending == "always":
            os._exit(3)
        return {"name": self.name}


def reports(*stubs: Stub) -> Iterator[Report]:
    return on_this_machine(cast("list[Trial]", list(stubs)), 2)


def test_trials_that_die_take_no_other_with_them(tmp_path: Path) -> None:
    good = [Stub(f"good {at}") for at in range(5)]
    found = list(reports(good[0], Stub("dead", "always"), *good[1:], Stub("once", "once", str(tmp_path / "mark"))))
    results = [report.result["name"] for report in found if report.result is not None]
    assert sorted(results) == sorted([*(stub.name for stub in good), "once"])
    deaths = [report for report in found if report.result is None and report.trial.name == "dead"]
    assert [report.again for report in deaths] == [True] * (ATTEMPTS - 1) + [False]
    assert all("killed" in report.death for report in deaths)


def test_an_error_is_reported_and_the_rest_goes_on() -> None:
    found = {report.trial.name: report for report in reports(Stub("bad", "error"), Stub("good"))}
    assert found["bad"].death == "ValueError: no" and found["good"].result == {"name": "good"}


def test_best_values_and_how_far_they_move() -> None:
    plan = cast(Plan, _Plan())
    losses = {(16, 1e-3): 3.0, (16, 2e-3): 2.0, (16, 4e-3): 2.5, (64, 1e-3): 1.5, (64, 2e-3): 1.9, (64, 4e-3): None}
    results = [{"width": w, "lr": lr, "seed": 0, "held_out_loss": loss} for (w, lr), loss in losses.items()]
    found = curves(plan, results)
    assert [curve.best.value for curve in found if curve.best] == [2e-3, 1e-3]
    assert summary(plan, found)["moves_by_doublings"] == pytest.approx(1.0)


class _Plan:
    over, values, widths = "lr", (1e-3, 2e-3, 4e-3), (16, 64)


def test_parse_over() -> None:
    assert parse_over("lr=2e-3,1e-3,1e-3") == ("lr", (1e-3, 2e-3))
    with pytest.raises(UsageError):
        parse_over("2=3")


def test_the_schedule_warms_up_and_ends_at_a_tenth() -> None:
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == 1.0 and rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_windows_are_followed_by_what_follows_them(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(bytes(range(128)) * 20)
    tokens = read_bytes(path, 256)
    seen, held_out = split(tokens)
    assert len(seen) + len(held_out) == len(tokens) and len(held_out) == pytest.approx(len(tokens) / 10, abs=1)
    inputs, targets = windows(seen, 4, 10, np.random.default_rng(0))
    assert inputs.shape == targets.shape == (4, 10)
    assert np.array_equal((inputs + 1) % 128, targets)
    with pytest.raises(InputError):
        read_bytes(path, 100)
