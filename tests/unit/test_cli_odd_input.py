"""The command line with odd input: pipes, numbers that are none, options that do not go together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cgc.cli import main

SMALL = """use std/gpt2

model small = gpt2(vocab=256, context=16, layers=1, width=64, heads=4)

mup {
    scale width from 32, heads from 2
    lr = 6e-3
}
"""
UNSTABLE = SMALL.replace("lr = 6e-3", "parametrization = sp")


@pytest.fixture(name="file")
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.cg").write_text(SMALL, encoding="utf-8")
    return "small.cg"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "pipe"),
        ("fmt", "pipe"),
        ("import", "pipe"),
        ("compile", "small.cg", "--target=wse-sim", "-o", "out", "--device", "pipe.cg"),
        ("compile", "small.cg", "--target=torch", "-o", "out", "--weights", "pipe"),
        ("sweep", "small.cg", "--over", "lr=1e-3", "--widths", "32", "--data", "pipe", "-o", "out"),
    ],
)
def test_a_named_pipe_is_refused_and_not_waited_for(file: str, arguments: tuple[str, ...]) -> None:
    os.mkfifo("pipe")
    os.mkfifo("pipe.cg")
    result = subprocess.run(
        [sys.executable, "-c", "from cgc.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, "Is a named pipe" in result.stderr) == (1, True), result.stderr
    assert "Traceback" not in result.stderr and not Path("out").exists()


def test_what_a_shell_pipes_in_is_read(file: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from cgc.cli import main; main()", "check", "/dev/stdin"],
        input=SMALL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout.startswith("small: ")) == (0, True), result.stderr


def test_check_knows_the_model_it_is_asked_for(file: str) -> None:
    other = SMALL[SMALL.index("model") : SMALL.index("mup")].replace("small =", "other =")
    Path("two.cg").write_text(SMALL + other, encoding="utf-8")
    assert run("check", "two.cg").stdout.count("parameters") == 2
    assert run("check", "two.cg", "--model", "other").stdout.startswith("other: ")
    assert run("check", "two.cg", "--model", "other").stdout.count("parameters") == 1
    result = run("check", "two.cg", "--model", "othr")
    assert result.exit_code == 2 and "did you mean `other`?" in result.stderr


def test_check_scaling_takes_the_options_of_check(file: str) -> None:
    Path("unstable.cg").write_text(UNSTABLE, encoding="utf-8")
    result = run("check", "unstable.cg", "--scaling", "--set", "layers=2", "--timings")
    assert result.exit_code == 1 and "CG0521" in result.stderr and "parametrize" in result.stderr
    assert run("check", file, "--scaling", "--dump-after", "inline").exit_code == 2
    assert run("check", file, "--scaling", "--timings").exit_code == 0


def test_check_scaling_reports_what_it_was_asked_about(file: str) -> None:
    """The file alone has no fault; with the size of `--set` there is one."""
    model = """model m(vocab = 64, width = 64, power = 0) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    x = gelu(linear(embed[tokens], width -> width))
    output logits = dot(x, embed, over width) * width ^ power
}
"""
    Path("power.cg").write_text(f"{model}\nmup {{\n    scale width from 32\n}}\n", encoding="utf-8")
    assert run("check", "power.cg", "--scaling").exit_code == 0
    result = run("check", "power.cg", "--scaling", "--set", "power=1")
    assert result.exit_code == 1 and "CG0520" in result.stderr and "power.cg:5:" in result.stderr


def test_fmt_in_json(file: str) -> None:
    Path("long.cg").write_text(SMALL.replace(" = 6e-3", "=6e-3"), encoding="utf-8")
    result = run("fmt", "--check", "--format", "json", file, "long.cg")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"ok": False, "would_change": ["long.cg"]})
    result = run("fmt", "--format", "json", file, "long.cg")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"ok": True, "formatted": ["long.cg"]})
    Path("broken.cg").write_text("model x", encoding="utf-8")
    result = run("fmt", "--format", "json", "broken.cg")
    assert result.exit_code == 1 and json.loads(result.stdout)["diagnostics"][0]["code"] == "CG0103"


@pytest.mark.parametrize(
    "arguments",
    [
        ("coordcheck", "small.cg", "--widths", "32,nan"),
        ("coordcheck", "small.cg", "--widths", "32,inf"),
        ("coordcheck", "small.cg", "--widths", "32,64", "--lr", "nan"),
        ("coordcheck", "small.cg", "--widths", "32,64", "--lr", "inf"),
        ("sweep", "small.cg", "--over", "lr=nan", "--widths", "32", "--data", "small.cg", "-o", "out"),
        ("sweep", "small.cg", "--over", "lr=1e-3", "--lr", "nan", "--widths", "32", "--data", "small.cg", "-o", "out"),
    ],
)
def test_numbers_that_are_none_are_wrong_usage(file: str, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and "finite" in result.stderr


def test_a_width_that_cannot_be_is_known_before_anything_is_trained(file: str) -> None:
    result = run("coordcheck", file, "--widths", "32,64,72", "--steps", "1", "--seeds", "1")
    assert result.exit_code == 2 and "at width 72, `heads` would be 4.5" in result.stderr
    assert "seed 0" not in result.stderr


def test_a_target_that_computes_nothing_cannot_be_verified(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an empty table and a status that says that something differs."""
    monkeypatch.setattr("cgc.verification.verify_program", lambda *_: [])
    result = run("verify", file, "--target", "wse-sim")
    assert result.exit_code == 2 and "nothing that could be compared" in result.stderr


def test_too_little_memory_is_a_diagnostic(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import cgc.driver

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 8.00 TiB")

    monkeypatch.setattr(cgc.driver, "compile_program", exhausted)
    result = run("compile", file, "--target=torch", "-o", "out")
    assert result.exit_code == 1 and "CG0007" in result.stderr and "8.00 TiB" in result.stderr


def test_every_initial_distribution_has_a_deviation(file: str) -> None:
    data = json.loads(run("params", file, "--format", "json").stdout)
    stds = {entry["name"]: entry["init"]["std"] for entry in data["params"]}
    assert stds["h.ln_1.scale"] == stds["h.attention.q.b"] == 0.0
    assert stds["wte"] == 0.02
    Path("flat.cg").write_text(
        "model m(width = 4) {\n    input x[batch, width]\n    param g[width] ~ uniform(limit=3)\n"
        "    output y = x * g\n}\n",
        encoding="utf-8",
    )
    (entry,) = json.loads(run("params", "flat.cg", "--format", "json").stdout)["params"]
    assert entry["init"] == {"distribution": "uniform", "limit": 3.0, "std": pytest.approx(3**0.5)}
