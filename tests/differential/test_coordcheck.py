"""The dynamic coordinate check against the static one: real steps of real models have the slopes that types say."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cgc.cli import main
from cgc.experiments.coordcheck import Result, Setup, coordinate_check
from cgc.experiments.sizes import Subject

WIDTHS = (64, 128, 256)
MODELS = {
    "gpt2": ("use std/gpt2", "gpt2(vocab=256, context=64, layers=2, width=128, heads=4)", "scale width from 64"),
    "llama": (
        "use std/llama",
        "llama(vocab=256, context=64, layers=2, width=128, heads=4, kv_heads=2, ffn=4 * width)",
        "scale width from 64",
    ),
    "gpt_neox": (
        "use std/gpt_neox",
        "gpt_neox(vocab=256, context=64, layers=2, width=128, heads=4)",
        "scale width from 64, heads from 2",
    ),
}


def source(name: str, more: str = "init std = 0.08\n    lr = 8e-3") -> str:
    use, model, scale = MODELS[name]
    return f"{use}\n\nmodel small = {model}\n\nmup {{\n    {scale}\n    {more}\n}}\n"


@functools.cache
def result(folder: Path, name: str, more: str = "init std = 0.08\n    lr = 8e-3") -> Result:
    path = folder / f"{name}.cg"
    path.write_text(source(name, more), encoding="utf-8")
    return coordinate_check(Subject(path.as_posix()), Setup(WIDTHS), lambda _: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coordcheck")


@pytest.mark.parametrize("name", MODELS)
def test_slopes_are_the_exponents(folder: Path, name: str) -> None:
    found = result(folder, name)
    assert {row.tensor: row.disagreements for row in found.tensors if row.disagreements} == {}
    assert all(row.init_slope is not None and row.change_slope is not None for row in found.tensors)


def test_many_tensors_are_compared(folder: Path) -> None:
    assert sum(len(result(folder, name).tensors) for name in MODELS) >= 30


def test_standard_parametrization_rises_as_the_exponents_say(folder: Path) -> None:
    found = result(folder, "gpt2", "parametrization = sp\n    lr = 1e-2")
    rows = {(row.tensor, row.kind): row for row in found.tensors}
    assert rows["h.mlp.up.w", "product"].init_exponent == 0.5
    assert rows["h.mlp.down.w", "product"].init_exponent == 1.0
    for (_, kind), row in rows.items():
        assert row.init_slope is not None and row.init_exponent is not None
        # behind scores that saturate the softmax, the slope is a little steeper than the exponents of its inputs
        assert abs(row.init_slope - row.init_exponent) < (0.3 if kind == "product" else 0.5)
    assert (rows["h.mlp.up.w", "product"].change_slope or 0) > 0.7


def test_what_the_table_says_wrongly_is_reported(folder: Path) -> None:
    """Exponents of µP against steps of a model whose logits lack their multiplier."""
    wrong = result(folder, "gpt2", "parametrization = sp\n    lr = 1e-2")
    right = result(folder, "gpt2")
    pairs = zip(wrong.tensors, right.tensors, strict=True)
    apart = [a.tensor for a, b in pairs if abs((a.init_slope or 0) - (b.init_exponent or 0)) > 0.3]
    assert "h.attention.q.w" in apart and "wte" in apart


def test_the_command_writes_report_and_pictures(folder: Path) -> None:
    path = folder / "command.cg"
    path.write_text(source("gpt2"), encoding="utf-8")
    command = ["coordcheck", str(path), "--widths", "64,128", "--seeds", "1", "--steps", "1", "--format", "json"]
    runs = [CliRunner().invoke(main, [*command, "-o", str(folder / name)]) for name in ("a", "b")]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].output
    data = json.loads(runs[0].stdout)
    assert data["widths"] == [64, 128] and data["growing"] == ["width"]
    assert {"tensor", "init_slope", "change_slope", "init_exponent"} <= data["tensors"][0].keys()
    for name in ("coordcheck.json", "coordcheck.svg", "coordcheck.png"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes(), name
    assert (folder / "a" / "coordcheck.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("widths", "says"),
    [("64", "two widths"), ("64,x", "numbers"), ("0,64", "above 0"), ("64,100.5", "above 0"), ("", "at least one")],
)
def test_widths_that_are_none(folder: Path, widths: str, says: str) -> None:
    path = folder / "widths.cg"
    path.write_text(source("gpt2"), encoding="utf-8")
    run = CliRunner().invoke(main, ["coordcheck", str(path), "--widths", widths])
    assert run.exit_code == 2 and says in run.output, run.output


def test_a_width_at_which_heads_do_not_come_out_whole(folder: Path) -> None:
    path = folder / "heads.cg"
    path.write_text(source("gpt_neox"), encoding="utf-8")
    run = CliRunner().invoke(main, ["coordcheck", str(path), "--widths", "64,80"])
    assert run.exit_code == 2 and "`heads` would be 2.5" in run.output, run.output
