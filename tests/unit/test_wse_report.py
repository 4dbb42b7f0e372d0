"""Blocks of a pipeline against figures worked out by hand, and the choice between resident and streaming."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cgc_wse import TARGET
from cgc_wse.job import job_of, other_purpose
from cgc_wse.mode import levers, plan, workload_of
from cgc_wse.plan import duration, gigabytes
from rich.console import Console
from wafer_plans import LAYERS, ONE, TRAIN, device, example, planned, program_of

from cgc.analysis.flops import forward_work, training_flops
from cgc.diagnostics import InputError
from cgc.driver import Request, Timings, compile_program
from cgc.target import CompileOptions, TargetError

SMALL = replace(
    device(4, 2, 1024), clock=1e9, multiply_adds=4.0, read=16.0, write=8.0, link=4.0, off_wafer=1e9, hop=3.0
)


def figures(found: Any) -> dict[str, float]:
    """Return the numbers of a plan by name; the optimizer has bytes and, as `optimizer pass`, seconds."""
    values = {figure.name: figure.value for figure in found.memory}
    times = {figure.name: figure.value for figure in found.time}
    return values | {name if name not in values else f"{name} pass": value for name, value in times.items()}


def test_forward_pass_of_one_block() -> None:
    found, job = planned(program_of(ONE), SMALL, batch=5)
    (placed,) = found.phases[0].placed
    assert (job.purpose, job.precision, job.batch, job.seq) == ("forward", "f16", 5, 16)
    assert (placed.area.width, placed.area.height) == (4, 2)
    entered, left = 16 * 8, 16 * 4
    # 8 inputs over 2 cores, 4 outputs over 4: 4 multiply-adds of 16 tokens and a sum that comes, over 1 hop and 3.
    ways = (SMALL.hop + 5) + (3 * SMALL.hop + 5)
    assert placed.cycles.compute == pytest.approx(SMALL.task + (4 + 1) * (SMALL.vector + 16 / 4) + ways)
    # One operand of each multiply-add is read, two bytes each; four inputs of every token come along a row.
    assert (placed.cycles.sram, placed.cycles.fabric) == (4 * 16 * 2 / 16, 4 * 16 / 2)
    assert placed.cycles.bound == "compute"
    interval = placed.cycles.total / 1e9
    outside, hops = 5 * 2 * (entered + left) / 1e9, (4 + 2) * 3 / 1e9
    assert figures(found) == {
        "weights": 2 * 32,
        "activations": 0,
        # Seven sixteenths of eight cores: of the half of what is left, what is whole.
        "buffers": 8 * 7 * 1024 // 16,
        "one sequence": interval,
        "stages": 1,
        "pipeline": 5 * interval,
        "off-wafer": outside,
        "wafer crossing": hops,
        "step": pytest.approx(max(5 * interval, outside) + hops),
    }
    assert (found.bottleneck.resource, found.bottleneck.path) == ("off-wafer", "")


def test_training_step_of_one_block() -> None:
    found, job = planned(program_of(ONE + TRAIN), replace(SMALL, off_wafer=1e12), run="pipelined")
    (placed,) = found.phases[0].placed
    assert (job.purpose, job.precision, job.batch) == ("training", "bf16", 3)
    # Forward, and one product for the weight's gradient: inputs of the model have none.
    tasks, additions = 2 * SMALL.task, SMALL.vector + 2 * 4 / 4
    ways = (SMALL.hop + 5) + (3 * SMALL.hop + 5)
    # Those of the gradient are sums over the 16 tokens, and are added up in float32, at two lanes.
    most = tasks + (2 * 4 + 1) * (SMALL.vector + 16 / 4) + 4 * additions + ways
    assert tasks + 2 * 4 * 16 / 4 < placed.cycles.compute <= most
    assert placed.cycles.sram == 2 * 4 * 16 * 2 / 16
    assert placed.cycles.fabric == 2 * 4 * 16 / 2
    values = figures(found)
    # f32 sums of gradients; f32 copy and two moments; what the product received, of the one sequence in flight.
    assert (values["weights"], values["gradients"]) == (2 * 32, 4 * 32)
    assert (values["optimizer"], values["activations"]) == ((4 + 8) * 32, 2 * 16 * 8)
    update = 32 * (2 + 4 + 4 + 8) / (16 * 8 * 1e9)
    assert values["optimizer pass"] == pytest.approx(update)
    assert values["step"] == pytest.approx(3 * placed.cycles.total / 1e9 + (4 + 2) * 3 / 1e9 + update)


def test_numbers_of_four_bytes_take_two_lanes() -> None:
    half, _ = planned(program_of(ONE + TRAIN), SMALL, run="pipelined")
    full, _ = planned(program_of(ONE + TRAIN.replace("bf16", "f32")), SMALL, run="pipelined")
    a, b = (found.phases[0].placed[0].cycles for found in (half, full))
    assert (b.sram, b.fabric) == (2 * a.sram, 2 * a.fabric)
    # Twice the entries' cycles, but not the starts: 9 vectors of 16 tokens, and what is added in float32 either way.
    assert b.compute == pytest.approx(a.compute + 9 * 16 / 4)


def test_a_pipeline_until_the_last_byte_then_none() -> None:
    program = program_of(LAYERS)
    # 64 weights of 2 B in each core, and five entries on their way.
    exact, _ = planned(program, device(16, 1, 2 * 64 + 2 * 5), run="pipelined")
    assert (exact.mode, exact.bytes) == ("resident", 16 * 2 * (64 + 5))
    with pytest.raises(TargetError) as raised:
        planned(program, device(16, 1, 2 * 64 + 2 * 5 - 1), run="pipelined")
    assert raised.value.code == "CG0655"
    assert "the blocks need 32 of 16 cores" in str(raised.value)
    less = device(16, 1, 2 * 64 - 1)
    with pytest.raises(TargetError) as raised:
        planned(program, less, run="pipelined")
    assert raised.value.code == "CG0655"
    assert "2.05 KB" in str(raised.value)
    assert "2.03 KB of SRAM" in str(raised.value)
    found, _ = planned(program, less)
    assert found.mode == "streaming"
    assert found.reason.startswith("resident does not fit: 2.05 KB")


def test_the_faster_way_is_taken_and_both_times_are_named() -> None:
    program = program_of(LAYERS)
    times = {}
    for run in ("pipelined", "streaming"):
        times[run] = planned(program, device(16, 4, 4096), run=run, batch=8)[0].seconds
    found, _ = planned(program, device(16, 4, 4096), batch=8)
    assert found.seconds == min(times.values())
    assert found.mode == ("resident" if times["pipelined"] <= times["streaming"] else "streaming")
    for seconds in times.values():
        assert duration(seconds) in found.reason


def test_what_fits_in_no_way_is_a_diagnostic(tmp_path: Path) -> None:
    program = replace(program_of(LAYERS), devices=(device(4, 1, 120),))
    with pytest.raises(InputError) as raised:
        compile_program(program, "wse-sim", tmp_path / "out", Request(), Timings())
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "CG0601"
    assert "more than the SRAM of a core of d (120 B" in diagnostic.message
    assert diagnostic.hint.startswith("`--seq ")
    assert not (tmp_path / "out").exists()
    shorter = int(diagnostic.hint.split()[1].rstrip("`"))
    compile_program(program, "wse-sim", tmp_path / "out", Request(seq=max(1, shorter // 2)), Timings())


def test_more_blocks_than_cores_is_a_diagnostic() -> None:
    text = LAYERS.replace("        x = linear", "        x = linear(x, width -> width)\n        x = linear")
    with pytest.raises(TargetError) as raised:
        planned(program_of(text), device(1, 1, 1 << 20), run="pipelined")
    assert raised.value.code == "CG0603"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (CompileOptions(seq=17), "CG0604"),
        (CompileOptions(batch=0), "CG0604"),
    ],
)
def test_options_that_cannot_be_honoured(options: CompileOptions, code: str) -> None:
    with pytest.raises(TargetError) as raised:
        TARGET.compile(program_of(ONE), options)
    assert raised.value.code == code


def test_a_size_without_a_limit_has_to_be_given() -> None:
    program = program_of(ONE.replace("seq <= context", "seq"))
    with pytest.raises(TargetError) as raised:
        TARGET.compile(program, CompileOptions())
    assert raised.value.code == "CG0606"
    assert TARGET.compile(program, CompileOptions(seq=3)).data["plans"]["forward"]["seq"] == 3


@pytest.mark.parametrize("name", ["tiny.cg", "gpt2_small.cg"])
def test_the_data_of_the_report_adds_up(name: str) -> None:
    program = example(name)
    data = TARGET.compile(program, CompileOptions(batch=2, device="wse2")).data
    sizes = {"batch": 2, "seq": dict(program.arguments)["context"]}
    assert data["parameters"] == program.graph.parameter_count
    assert data["flops"]["forward"] == forward_work(program.graph).at(sizes)[0]  # type: ignore[arg-type]
    assert data["flops"]["training"] == training_flops(program.graph, sizes)  # type: ignore[arg-type]
    for made in data["plans"].values():
        assert made["memory_total"] == sum(figure["value"] for figure in made["memory"]) <= made["memory_capacity"]
        assert made["tokens_per_second"] == pytest.approx(made["tokens_per_step"] / made["seconds_per_step"])
        assert made["flops_per_step"] == data["flops"][made["purpose"]]
        assert 0 < made["utilization"] < 1
        (step,) = (figure["value"] for figure in made["time"] if figure["name"] == "step")
        assert step == made["seconds_per_step"]


def test_the_report_shows_its_numbers() -> None:
    program = example("tiny.cg")
    compilation = TARGET.compile(program, CompileOptions(device="wse2"))
    console = Console(width=160, file=StringIO())
    with console.capture() as capture:
        console.print(compilation.report)
    text = capture.get()
    made = compilation.data["plans"]["training"]
    for shown in (
        f"{program.graph.parameter_count:,}",
        duration(made["seconds_per_step"]),
        duration(compilation.data["run"]["seconds"]),
        gigabytes(made["memory_total"]),
        made["reason"],
        f"{made['bottleneck']['resource']} of {made['bottleneck']['path']}",
    ):
        assert shown in text


def test_a_better_device_is_not_slower() -> None:
    program = example("tiny.cg")
    for job in (job_of(program, CompileOptions()), other_purpose(job_of(program, CompileOptions()))):
        wafer = device(64, 48, 48 << 10)
        work = workload_of(program.graph, job)
        for lever in levers(work, job, plan(work, job, wafer)):
            assert lever.speedup >= 0.97, lever


def test_nothing_to_compute_is_a_diagnostic() -> None:
    with pytest.raises(TargetError) as raised:
        TARGET.compile(program_of("model m(width = 4) {\n    input x[width]\n    output y = x\n}\n"), CompileOptions())
    assert raised.value.code == "CG0607"


def test_statements_of_one_name_before_and_after_a_loop_are_two_rows() -> None:
    text = LAYERS.replace("    repeat", "    x = 2 * x\n    repeat").replace(
        "    output y = x", "    x = x * x * x\n    output y = x"
    )
    program = program_of(text)
    data = TARGET.compile(program, CompileOptions(device="wse2")).data
    rows = data["plans"]["forward"]["blocks"]
    assert [row["path"] for row in rows] == ["x", "h.linear", "x_2"]
    assert [row["work"]["other_operations"] * row["layers"] for row in rows] == [16 * 8, 0, 2 * 16 * 8]


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "train"},
        {"mode": "prefill", "batch": 8},
        {"mode": "decode", "batch": 4},
        {"mode": "decode", "batch": 4, "run": "streaming"},
        {"mode": "train", "run": "streaming"},
    ],
    ids=str,
)
def test_the_fullest_core_has_no_less_than_the_mean(options: dict[str, Any]) -> None:
    data = TARGET.compile(example("tiny.cg"), CompileOptions(device="wse2", **options)).data
    for made in data["plans"].values():
        mean = made["memory_total"] / data["device"]["cores"]
        assert mean <= made["memory_fullest_core"] <= data["device"]["memory"]
