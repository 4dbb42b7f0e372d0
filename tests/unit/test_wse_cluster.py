"""Decoding, many wafers, whole runs, energy, and memory tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cgc_wse import TARGET
from cgc_wse.cluster import CHINCHILLA, counts_to_compare
from cgc_wse.ledger import tensor_rows
from cgc_wse.mode import workload_of
from cgc_wse.plan import Plan
from click.testing import CliRunner
from wafer_plans import LAYERS, ONE, TRAIN, device, example, planned, program_of

from cgc import load_device
from cgc.cli import main
from cgc.program import Program
from cgc.services import DecodeRequest
from cgc.target import CompileOptions, TargetError

EXAMPLES = Path(__file__).parents[2] / "examples"


def compiled(program: Program, **options: Any) -> Any:
    return TARGET.compile(program, CompileOptions(**{"device": "wse2", **options})).data


def figures(plan: Plan) -> dict[str, float]:
    return {figure.name: figure.value for figure in (*plan.time, *plan.memory)}


# ---- decoding
@pytest.mark.parametrize("context", [1024, 4096])
def test_one_request_takes_as_long_as_the_kernels_say(context: int) -> None:
    program = example("llama_8b.cg")
    found, _ = planned(program, load_device("wse2"), mode="decode", seq=context + 1)
    answer = TARGET.decode_cost(program, DecodeRequest("wse2", context)).to_json()
    assert found.tokens_per_second == pytest.approx(answer["tokens_per_second"], rel=1e-3)
    assert f"{answer['grid']['columns']} x {answer['grid']['rows']}" in found.reason


def test_llama_decodes_as_fast_as_waferllm_measured() -> None:
    """2700 tokens/s for one request (He et al., OSDI 2025), on its grids."""
    found, _ = planned(example("llama_8b.cg"), load_device("wse2"), mode="decode", seq=4096)
    assert found.tokens_per_second == pytest.approx(2700, rel=0.2)


def test_the_cache_is_counted_for_every_sequence() -> None:
    program = example("llama_8b.cg")
    one, _ = planned(program, load_device("wse2"), mode="decode", seq=2048)
    four, _ = planned(program, load_device("wse2"), mode="decode", seq=2048, batch=4)
    # Keys and values: 32 layers of 8 heads of 128, two bytes each.
    each = 2 * 32 * 8 * 128 * 2 * 2048
    assert figures(one)["KV cache"] == each
    assert figures(four)["KV cache"] == 4 * each
    assert figures(one)["weights"] == 2 * program.graph.parameter_count  # type: ignore[operator]
    # Squares work on different sequences: four take less than four times one.
    assert one.seconds <= four.seconds < 4 * one.seconds
    assert four.tokens_per_second > one.tokens_per_second
    rows = tensor_rows(workload_of(program.graph, four.job), four)
    assert sum(row["bytes"] * row["runs"] for row in rows if row["category"] == "KV cache") == 4 * each
    assert sum(row["bytes"] * row["runs"] for row in rows if row["category"] == "weights") == figures(one)["weights"]


def test_decoding_streams_weights_that_do_not_fit() -> None:
    program = example("cerebras_gpt/13b.cg")
    small = replace(load_device("wse2"), memory=24 << 10)
    found, _ = planned(program, small, mode="decode")
    assert found.mode == "streaming"
    values = figures(found)
    assert values["streaming"] == pytest.approx(2 * program.graph.parameter_count / small.off_wafer, rel=0.02)  # type: ignore[operator]
    assert found.seconds >= values["streaming"]
    with pytest.raises(TargetError) as raised:
        planned(program, small, mode="decode", run="pipelined")
    assert raised.value.code == "CG0655"


def test_too_many_requests_is_a_diagnostic_that_says_how_many_fit() -> None:
    program = example("llama_8b.cg")
    with pytest.raises(TargetError) as raised:
        planned(program, load_device("wse2"), mode="decode", batch=200)
    assert raised.value.code == "CG0611"
    assert "more than" in str(raised.value)
    fewer = int(raised.value.hint.split("`--batch ")[1].split("`")[0])
    assert 1 <= fewer < 200
    planned(program, load_device("wse2"), mode="decode", batch=max(1, fewer * 2 // 3))


def test_what_cannot_decode() -> None:
    text = "model m(width = 4) {\n    input x[width]\n    output y = linear(x, width -> width)\n}\n"
    with pytest.raises(TargetError) as raised:
        planned(program_of(text), load_device("wse2"), mode="decode")
    assert raised.value.code == "CG0610"


def test_weights_of_two_layers_that_do_not_fit() -> None:
    with pytest.raises(TargetError) as raised:
        planned(program_of(LAYERS), device(1, 1, 200), mode="decode", run="streaming")
    assert raised.value.code == "CG0602"


# ---- many wafers
def test_wafers_share_a_batch() -> None:
    program = example("cerebras_gpt/111m.cg")
    found = compiled(program, wafers=7, run="streaming")
    main_plan = found["plans"]["training"]
    assert main_plan["batch"] == 120
    assert main_plan["wafers"] == 7
    assert main_plan["tokens_per_step"] == 120 * 2048
    rows = {row["wafers"]: row for row in found["cluster"]["rows"]}
    assert set(rows) == {1, 3, 7, 14}
    assert rows[7]["batch_per_wafer"] == 18
    assert rows[7]["even"] == pytest.approx(120 / 126)
    assert rows[7]["seconds_per_step"] == main_plan["seconds_per_step"]
    assert rows[1]["of_linear"] == 1
    alone = compiled(program, run="streaming")["plans"]["training"]
    assert rows[1]["seconds_per_step"] == alone["seconds_per_step"]
    # FLOPs and peak both grow: the part of the peak that is used stays below 1.
    assert 0 < main_plan["utilization"] < 1
    assert compiled(program)["cluster"] is None


def test_a_pipeline_on_many_wafers_exchanges_gradients() -> None:
    program = example("cerebras_gpt/111m.cg")
    one, _ = planned(program, load_device("wse2"), run="pipelined", batch=60)
    two, _ = planned(program, load_device("wse2"), run="pipelined", batch=120, wafers=2)
    exchange = 4 * program.graph.parameter_count / load_device("wse2").off_wafer  # type: ignore[operator]
    assert two.seconds == pytest.approx(one.seconds + exchange)


def test_more_wafers_than_sequences_is_a_diagnostic() -> None:
    with pytest.raises(TargetError) as raised:
        planned(example("cerebras_gpt/111m.cg"), load_device("wse2"), wafers=121)
    assert raised.value.code == "CG0656"


def test_recomputing_is_for_training() -> None:
    for mode in ("prefill", "decode"):
        with pytest.raises(TargetError) as raised:
            planned(example("cerebras_gpt/111m.cg"), load_device("wse2"), mode=mode, recompute=True)
        assert raised.value.code == "CG0640"


def test_numbers_of_wafers_that_are_compared() -> None:
    assert counts_to_compare(16, 1000) == (1, 4, 8, 16, 32)
    assert counts_to_compare(2, 3) == (1, 2, 3)


# ---- a whole run
def test_the_run_of_the_train_item() -> None:
    found = compiled(example("cerebras_gpt/111m.cg"))
    run, step = found["run"], found["plans"]["training"]["seconds_per_step"]
    assert run["steps"] == 9037
    assert run["tokens"] == 9037 * 120 * 2048
    assert run["seconds"] == pytest.approx(9037 * step)
    assert (run["hours"], run["days"]) == pytest.approx((run["seconds"] / 3600, run["seconds"] / 86400))


@pytest.mark.parametrize(
    ("entry", "tokens"),
    [("tokens = 20 per param", 20 * 32), ("tokens = 1M tokens", 1_000_000), ("steps = 7 steps", 7 * 48)],
)
def test_tokens_and_steps(entry: str, tokens: int) -> None:
    text = ONE + TRAIN.replace("train {\n", f"train {{\n    {entry}\n")
    run = compiled(program_of(text))["run"]
    assert run["tokens"] == tokens
    assert run["steps"] == -(-tokens // 48)


def test_without_tokens_the_run_is_compute_optimal() -> None:
    run = compiled(program_of(ONE + TRAIN))["run"]
    assert run["tokens_per_parameter"] == CHINCHILLA
    assert compiled(program_of(ONE))["run"] is None
    assert compiled(program_of(ONE + TRAIN), mode="prefill")["run"] is None


def test_energy_where_the_device_states_power() -> None:
    program = program_of(ONE + TRAIN)
    program = replace(program, devices=(replace(load_device("wse2"), name="mine", power=100.0),))
    found = compiled(program, device=None, wafers=3)
    step = found["plans"]["training"]["seconds_per_step"]
    assert found["energy"]["watts"] == 300
    assert found["energy"]["joules_per_step"] == pytest.approx(300 * step)
    assert found["energy"]["joules_per_token"] == pytest.approx(300 * step / 48)
    assert found["energy"]["joules_per_run"] == pytest.approx(300 * found["run"]["seconds"])
    assert compiled(program, device="tiny16")["energy"] is None


# ---- memory, tensor by tensor
def test_tensors_of_a_pipeline_add_up_to_its_figures() -> None:
    program = example("tiny.cg")
    plan, job = planned(program, load_device("wse2"), run="pipelined", batch=1)
    rows = tensor_rows(workload_of(program.graph, job), plan)
    sums: dict[str, int] = {}
    for row in rows:
        sums[row["category"]] = sums.get(row["category"], 0) + row["bytes"] * row["runs"]
    values = {figure.name: figure.value for figure in plan.memory}
    # One sequence in flight: every block keeps what it received of one.
    assert sums["activations in flight"] == values.pop("activations")
    # What passes is no tensor of the model.
    assert values.pop("buffers") > 0
    wafer = load_device("wse2")
    assert values.pop("code") == wafer.code * wafer.cores > 0
    assert {name: sums[name] for name in values} == values
    assert {row["tensor"] for row in rows if row["category"] == "weights"} == {p.name for p in program.graph.params}


def test_tensors_of_weight_streaming_are_no_more_than_its_figures() -> None:
    program = example("cerebras_gpt/111m.cg")
    plan, job = planned(program, load_device("wse2"), run="streaming", recompute=True)
    rows = tensor_rows(workload_of(program.graph, job), plan)
    entering = sum(row["bytes"] * row["runs"] for row in rows if row["category"] == "activations")
    assert entering == 12 * 120 * 2048 * 768 * 2 - 120 * 2048 * 768 * 2  # what enters 10 layers and what follows
    values = {figure.name: figure.value for figure in plan.memory}
    # Vectors are rounded up to whole tokens and features.
    assert entering <= values["activations"] <= 1.3 * entering


# ---- the command
def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(main, ["compile", *arguments, "-o", str(tmp_path / "out"), "--format", "json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    tiny = str(EXAMPLES / "tiny.cg")
    for mode, purpose in (("train", "training"), ("prefill", "forward"), ("decode", "decode")):
        found = json.loads(run(tiny, "--target=wse-sim", "--mode", mode, "--run", "auto").output)
        assert found["report"]["primary"] == purpose
        assert {Path(name).name for name in found["written"]} == {
            "placement.json", "placement.svg", "viewer.html", "trace.json",
        }  # fmt: skip
    found = json.loads(run(tiny, "--target=wse-sim", "--run", "streaming", "--recompute", "--wafers", "2").output)
    assert found["report"]["plans"]["training"]["mode"] == "streaming"
    assert found["report"]["plans"]["training"]["recompute"] is True
    assert run(tiny, "--target=torch", "--mode", "train").exit_code == 2
    assert run(tiny, "--target=onnx", "--wafers", "2").exit_code == 2
    assert run(tiny, "--target=wse-sim", "--mode", "guess").exit_code == 2
    wrong = run(tiny, "--target=wse-sim", "--device", "tiny16", "--run", "pipelined", "--batch", "64")
    assert wrong.exit_code == 1
    assert json.loads(wrong.output)["diagnostics"][0]["code"] == "CG0655"
