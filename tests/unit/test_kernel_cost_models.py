"""Decoding and prefill of whole models on squares of cores: against kernels, and against what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
from cgc_wse import TARGET
from cgc_wse.kernel_cost.decode import Packing, packed
from cgc_wse.kernel_cost.gemm import cut, estimate_gemm
from cgc_wse.kernel_cost.machine import machine_of
from click.testing import CliRunner
from wafer_plans import device, example, program_of

from cgc import load_device
from cgc.cli import main
from cgc.program import Program
from cgc.services import DecodeRequest
from cgc.target import TargetError

QWEN2_72B = (
    "use std/llama\n\nmodel qwen = llama(\n    vocab=152064, context=8192, layers=80, width=8192, heads=64, "
    "kv_heads=8, ffn=29568, base=1000000, eps=1e-6\n)\n"
)
ONE_GEMM = (
    "model one(width = 128, out = 256, context = 64) {\n    input x[batch, seq <= context, width]\n"
    "    output y = linear(x, width -> out, bias=false)\n}\n"
)


def program(tmp_path: Path, text: str) -> Program:
    from cgc.driver import load_program

    path = tmp_path / "m.cg"
    path.write_text(text, encoding="utf-8")
    return load_program(str(path))


def test_the_large_model_decodes_as_fast_as_was_published(tmp_path: Path) -> None:
    """Qwen2-72B at 840 tokens/s for a request (He et al. 2025, abstract), on its grids; it fits on no wafer."""
    model = program(tmp_path, QWEN2_72B)
    with pytest.raises(TargetError) as raised:
        TARGET.decode_cost(model, DecodeRequest("wse2", 4096))
    assert raised.value.code == "CG0611"
    assert "--ignore-memory" in raised.value.hint
    found = TARGET.decode_cost(model, DecodeRequest("wse2", 4096, ignore_memory=True)).to_json()
    assert found["tokens_per_second"] == pytest.approx(840, rel=0.2)
    assert found["fits"] is False
    assert found["squares"] > 4


def test_runs_fill_squares_in_order() -> None:
    wafer = device(20, 10, 10)  # squares of 10 x 10 cores have 1000 B; there are two
    assert packed([400, 500, 600, 300], 10, wafer, anyway=False) == Packing(2, 2, (2,))
    assert packed([400, 700, 600], 10, wafer, anyway=False) is None
    assert packed([400, 700, 600], 10, wafer, anyway=True) == Packing(3, 2, (1, 2))
    assert packed([1500], 10, wafer, anyway=False) is None
    assert packed([1500, 400], 10, wafer, anyway=True) == Packing(2, 2, ())
    assert packed([200, 2500, 400], 10, wafer, anyway=True) == Packing(4, 2, (1,))


def test_a_prefill_of_one_product_is_that_gemm() -> None:
    found = TARGET.prefill_cost(program_of(ONE_GEMM), DecodeRequest("wse2", 64, 16)).to_json()
    expected = estimate_gemm(machine_of(load_device("wse2"), "f16"), cut(16, 16, 64, 128, 256), "mesh").cycles
    assert found["cycles"] == pytest.approx(expected)
    assert found["tokens_per_second"] == pytest.approx(64 * 850e6 / expected)
    assert found["parts"]["gemm"] == found["cycles"]


def test_parts_of_a_prefill_add_up_and_grow() -> None:
    model = example("gpt2_small.cg")
    before = 0.0
    for tokens in (128, 256, 512, 1024):
        found = TARGET.prefill_cost(model, DecodeRequest("wse2", tokens)).to_json()
        assert sum(found["parts"].values()) == pytest.approx(found["cycles"])
        assert found["cycles"] >= before
        assert found["tokens"] == tokens
        before = found["cycles"]
    # A sequence at once is faster than its tokens one by one.
    one = TARGET.decode_cost(model, DecodeRequest("wse2", 1023)).to_json()
    assert before < 1024 * one["cycles"] / 10


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["cost", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    tiny = str(Path(__file__).parents[2] / "examples/tiny.cg")
    code, text = run("prefill", tiny, "--seq", "32", "--grid", "64x64")
    assert code == 0
    assert "a prefill of 32 tokens, on 1 square of 64 x 64 cores of wse2" in text
    assert run("prefill", tiny, "--grid", "64x32")[0] == 2
    assert run("prefill", tiny, "--seq", "100000")[0] == 1
    path = tmp_path / "qwen.cg"
    path.write_text(QWEN2_72B, encoding="utf-8")
    assert run("prefill", str(path))[0] == 1
    code, text = run("prefill", str(path), "--seq", "1024", "--ignore-memory")
    assert code == 0
    assert "memory is ignored, as asked for" in text
