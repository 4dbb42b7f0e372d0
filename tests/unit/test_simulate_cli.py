"""`cgc simulate`: what it prints, and what it says of wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cgc.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"layers": 1, "width": 16, "vocab": 24, "context": 8, "heads": 2}
TINY = (str(EXAMPLES / "tiny.cg"), *(f"--set={name}={size}" for name, size in SIZES.items()))
SMALL = "device small {{\n    grid          = {grid}\n    memory        = {memory}\n    clock         = 850 MHz\n"
SMALL += "    multiply_adds = 4 per cycle\n    read          = 16 B per cycle\n    write         = 8 B per cycle\n"
SMALL += "    link          = 4 B per cycle\n    hop           = 1 cycles\n    colors        = 24\n"
SMALL += "    off_wafer     = 100 Gb/s\n}}\n"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def data(*arguments: str) -> Any:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def code(*arguments: str) -> tuple[str, str]:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 1, result.output
    (diagnostic,) = json.loads(result.output)["diagnostics"]
    assert diagnostic["hint"]
    return str(diagnostic["code"]), str(diagnostic["message"])


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """Write a device and return its path."""

    def write(grid: str, memory: str = "48 KiB") -> str:
        path = tmp_path / "small.cg"
        path.write_text(SMALL.format(grid=grid, memory=memory))
        return str(path)

    return write


def test_training_is_what_a_file_with_a_train_item_is_for(small: Any) -> None:
    found = data(*TINY, "--device", small("3 x 3", "64 KiB"))
    assert (found["mode"], found["run"], found["ok"]) == ("train", "pipelined", True)
    assert found["difference"] < found["tolerance"] == 1e-4
    assert "loss" in found["differences"]
    assert found["memory"]["exact_in_every_core"]
    assert found["memory"]["simulated"] == found["memory"]["analytic"] <= found["memory"]["available"]
    assert sum(found["memory"]["categories"].values()) == found["memory"]["analytic"]
    assert found["cycles"]["simulated"] == pytest.approx(found["cycles"]["analytic"], rel=0.2)
    assert found["busiest_link"]["words"] > 0
    assert {op["path"] for op in found["ops"]} > {"h.0.attention.q.y", "h.0.mlp.up.y", "logits"}
    assert len(found["regions"]) > 1


def test_text_has_names_of_the_user(small: Any) -> None:
    result = run(*TINY, "--device", small("2 x 2"), "--mode", "decode", "--run", "streaming", "--seq", "4")
    assert result.exit_code == 0
    assert "decode: batch 2, 4 tokens, on 2 x 2 cores" in result.output
    assert "h.0.attention.q.y" in result.output
    assert "the same in every core" in result.output
    assert "1 rectangle(s)" in result.output


def test_same_seed_same_answer(small: Any) -> None:
    device = small("2 x 2")
    arguments = (*TINY, "--device", device, "--mode", "prefill", "--batch", "1")
    assert data(*arguments) == data(*arguments)
    assert data(*arguments)["differences"] != data(*arguments, "--seed", "1")["differences"]


def test_what_does_not_fit_pipelined_is_streamed(small: Any) -> None:
    device = small("1 x 2", "32 KiB")
    found = data(*TINY, "--device", device, "--mode", "prefill", "--set", "layers=6")
    assert found["run"] == "streaming"
    assert "bytes" in found["reason"]


def test_too_large(small: Any) -> None:
    which, message = code(*TINY, "--device", small("1 x 1", "8 KiB"), "--mode", "train", "--run", "pipelined")
    assert (which == "CG0641" and "more than its" in message) or "less" in message
    which, message = code(str(EXAMPLES / "gpt2_small.cg"), "--mode", "prefill")
    assert which == "CG0641" and "bytes" in message


def test_too_many_cores() -> None:
    which, message = code(*TINY, "--device", "wse2")
    assert which == "CG0642" and "745,500 cores" in message


def test_modes_and_sizes_that_a_model_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "m.cg"
    path.write_text(
        "use std/nn\n\nmodel m(width = 8) {\n    input x[batch, width]\n    output y = linear(x, width -> width)\n}\n"
    )
    assert code(str(path), "--mode", "train")[0] == "CG0640"
    assert code(str(path), "--mode", "decode")[0] == "CG0640"
    assert code(str(path), "--seq", "3")[0] == "CG0604"
    assert code(*TINY, "--seq", "9")[0] == "CG0604"
    assert data(str(path))["mode"] == "prefill"
    path.write_text("model m(width = 8) {\n    input x[rows, width]\n    output y = x * 2\n}\n")
    assert code(str(path))[0] == "CG0606"
