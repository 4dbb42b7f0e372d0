"""`cgc cost`: what it prints, and what it says of wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cgc.cli import main

LLAMA = str(Path(__file__).parents[2] / "examples" / "llama_8b.cg")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["cost", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def data(*arguments: str) -> Any:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def code(*arguments: str) -> str:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 1, result.output
    (diagnostic,) = json.loads(result.output)["diagnostics"]
    assert diagnostic["hint"]
    return str(diagnostic["code"])


GEMM = ("gemm", "--device", "wse3", "--m", "1312", "--k", "1312", "--n", "1312")


def test_gemm() -> None:
    found = data(*GEMM, "--grid", "656x656")
    assert found["tile"] == {"Mt": 2, "Kt": 2, "Nt": 2, "steps": 656}
    assert found["algorithm"] == "mesh"
    assert {"skew", "steps", "compute", "exchange", "start_up"} == set(found["parts"])
    assert [other["algorithm"] for other in found["alternatives"]] == ["cannon", "summa", "allgather"]
    assert found["fits"] and found["notes"] == []
    assert data(*GEMM, "--grid", "656x656", "--algorithm", "summa")["algorithm"] == "summa"
    assert data(*GEMM, "--grid", "656x656") == found


def test_padding_is_said() -> None:
    (note,) = data(*GEMM, "--grid", "600x600")["notes"]
    assert "m = 1,312 is padded to 1,800" in note
    assert note in run(*GEMM, "--grid", "600x600").output


def test_what_does_not_fit_is_said() -> None:
    large = ("gemm", "--grid", "4x4", "--m", "4096", "--k", "4096", "--n", "4096")
    assert data(*large)["fits"] is False
    assert "does NOT fit" in run(*large).output


def test_gemv_names_its_inner_size_in_three_ways() -> None:
    one = data("gemv", "--grid", "16x16", "--m", "128", "--n", "16", "--groups", "4")
    assert one == data("gemv", "--grid", "16x16", "--k", "128", "--n", "16", "--groups", "4")
    assert one == data("gemv", "--grid", "16x16", "--m", "1", "--k", "128", "--n", "16", "--groups", "4")
    assert (one["algorithm"], one["groups"]) == ("grouped", 4)
    best = data("gemv", "--grid", "16x16", "--m", "128", "--n", "16")
    assert all(best["cycles"] <= other["cycles"] for other in best["alternatives"] if other["algorithm"] == "grouped")


@pytest.mark.parametrize("op", ["reduce", "broadcast", "allreduce"])
def test_collectives(op: str) -> None:
    found = data(op, "--device", "wse2", "--grid", "512x1", "--n", "256", "--dtype", "f32")
    assert found["tile"] == {"link words": 256}
    assert found["cycles"] == pytest.approx(found["parts"]["travel"] + found["parts"]["depth"])
    assert "2 T_R + 1" in run(op, "--grid", "64x64", "--n", "8").output


@pytest.mark.parametrize(
    "arguments",
    [
        (*GEMM,),
        (*GEMM, "--grid", "656"),
        (*GEMM, "--grid", "0x4"),
        (*GEMM, "--grid", "-4x4"),
        (*GEMM, "--grid", "4x4", "--algorithm", "fast"),
        (*GEMM, "--grid", "4x4", "--dtype", "f8"),
        ("gemm", "--grid", "4x4", "--m", "0", "--k", "1", "--n", "1"),
        ("gemv", "--grid", "4x4", "--n", "8"),
        ("gemv", "--grid", "4x4", "--m", "8", "--k", "8", "--n", "8"),
        ("gemv", "--grid", "4x4", "--m", "8", "--n", "8", "--groups", "0"),
        ("gemv", "--grid", "4x4", "--m", "8", "--n", "8", "--groups", "2", "--algorithm", "star"),
        ("broadcast", "--grid", "4x4", "--n", "8", "--algorithm", "star"),
        ("decode", LLAMA, "--grid", "400x420"),
        ("decode", LLAMA, "--context", "0"),
        ("convolution",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("CG0608", (*GEMM, "--grid", "9000x4")),
        ("CG0608", ("decode", LLAMA, "--grid", "900x900")),
        ("CG0608", ("decode", LLAMA, "--device", "tiny16")),
        ("CG0609", (*GEMM, "--grid", "8x4", "--algorithm", "cannon")),
        ("CG0609", ("gemv", "--grid", "4x4", "--m", "8", "--n", "8", "--groups", "5")),
        ("CG0508", ("gemm", "--device", "wse9", "--grid", "4x4", "--m", "1", "--k", "1", "--n", "1")),
        ("CG0604", ("decode", LLAMA, "--context", "8192")),
        ("CG0611", ("decode", LLAMA, "--grid", "16x16")),
    ],
)
def test_diagnostics(expected: str, arguments: tuple[str, ...]) -> None:
    assert code(*arguments) == expected


def test_a_model_without_tokens_does_not_decode(tmp_path: Path) -> None:
    path = tmp_path / "plain.cg"
    path.write_text("model m(width = 8) {\n    input x[batch, width]\n    output y = x + 1\n}\n")
    assert code("decode", str(path)) == "CG0610"
    path.write_text("model m(width = 8) {\n    input x[batch, seq, width]\n    output y = x + 1\n}\n")
    assert code("decode", str(path)) == "CG0606"
    assert data("decode", str(path), "--context", "5")["squares"] == 1


def test_llama_decodes_as_fast_as_published() -> None:
    """WaferLLM (OSDI 2025): 2700 tokens/s for one request on a WSE-2; nothing was fitted to it."""
    for context in ("1024", "4096", "8191"):
        found = data("decode", LLAMA, "--device", "wse2", "--context", context)
        assert found["tokens_per_second"] == pytest.approx(2700, rel=0.2)
        assert found["cycles"] == pytest.approx(sum(found["parts"].values()))
        assert 240 <= found["grid"]["columns"] <= 720
        assert found["cycles"] == min(trial["cycles"] for trial in found["grids"])


def test_decode_counts_the_models_dots() -> None:
    found = data("decode", LLAMA, "--context", "100", "--grid", "420x420")
    weights = sum(step["times"] for step in found["steps"] if step["kind"] == "gemv")
    attention = sum(step["times"] for step in found["steps"] if step["kind"] == "attention")
    assert (weights, attention) == (32 * 7 + 1, 32 * 2)
    assert [trial["grid"] for trial in found["grids"]] == ["420x420"]


def test_a_longer_context_takes_longer() -> None:
    cycles = [data("decode", LLAMA, "--grid", "360x360", "--context", c)["cycles"] for c in ("100", "1000", "8000")]
    assert cycles == sorted(cycles)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("two_phase", "two-phase"),
        ("Two-Phase", "two-phase"),
        ("pipeline", "chain"),
        ("vendor", "chain"),
        ("star", "star"),
    ],
)
def test_algorithms_have_the_names_of_papers(written: str, meant: str) -> None:
    assert data("reduce", "--grid", "8x1", "--n", "64", "--algorithm", written)["algorithm"] == meant


def test_auto_is_the_fastest() -> None:
    every = ("allreduce", "--grid", "64x64", "--n", "64")
    found = data(*every, "--algorithm", "auto")
    assert found == data(*every)
    assert found["cycles"] <= min(other["cycles"] for other in found["alternatives"])
    assert {other["algorithm"] for other in found["alternatives"]} >= {"star", "chain", "tree", "snake", "ring"}
