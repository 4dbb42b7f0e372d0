"""Weight streaming against figures worked out by hand, and against what was published of Andromeda."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cgc_wse.cost import peak_flops
from cgc_wse.data import block_rows
from cgc_wse.flatten import flatten
from cgc_wse.job import job_of
from cgc_wse.kernels import stages_from
from cgc_wse.mode import workload_of
from cgc_wse.op_work import (
    StageWork,
    TokenProduct,
    VectorPass,
    WeightGradient,
    WeightProduct,
    stage_work,
    token_dims,
)
from cgc_wse.schedule import schedule, visits
from cgc_wse.streaming.andromeda import RUNS, VARIANTS, Variant, published_flops, relative, utilization
from cgc_wse.streaming.layout import Wafer, layouts
from cgc_wse.streaming.search import LADDER, MOST_BETWEEN, between, cut
from hypothesis import given, settings
from hypothesis import strategies as st
from wafer_plans import LAYERS, TRAIN, device, example, planned, program_of

from cgc import load_device
from cgc.analysis.flops import training_flops
from cgc.target import CompileOptions, TargetError

EASY = replace(
    device(8, 4, 4096), clock=1e9, task=100.0, loop=10.0, vector=2.0, ramp=2.0, relay=1.0, hop=1.0, off_wafer=1e12
)
"""4 lanes of 16 bit, 4 bytes a link and cycle, 16 bytes read."""


def at(wafer: Wafer, features: int, along: str) -> int:
    return next(i for i, one in enumerate(wafer.layouts) if (one.features, one.along) == (features, along))


def works_of(name: str, **sizes: int) -> tuple[StageWork, ...]:
    program = example(name, **sizes)
    return workload_of(program.graph, job_of(program, CompileOptions())).works


def test_layouts_cut_a_side_into_equal_parts() -> None:
    found = layouts(device(8, 3, 1024))
    assert {(one.features, one.tokens) for one in found if one.along == "columns"} == {(8, 3), (4, 6), (2, 12), (1, 24)}
    assert {(one.features, one.tokens) for one in found if one.along == "rows"} == {(3, 8), (1, 24)}
    assert all(one.cores <= 21 for one in layouts(device(7, 3, 1024)))
    assert [(one.features, one.tokens) for one in layouts(device(8, 3, 1024), whole=True)] == [(8, 3), (3, 8)]


def test_tokens_of_a_core() -> None:
    wafer = Wafer(EASY, "f16", 16)
    i = at(wafer, 2, "columns")  # 4 groups by 4 rows: tokens over 16 cores
    # 3 sequences: 5 cores each, so 4 tokens; 20: two sequences on the fullest core.
    assert [wafer.length(n)[i] for n in (1, 3, 16, 20)] == [1, 4, 16, 32]
    assert wafer.entries((3, 4), 3)[i] == 4 * (2 + 2)


def test_product_with_weights_by_hand() -> None:
    wafer = Wafer(EASY, "f16", 16)
    i = at(wafer, 4, "columns")  # 2 groups by 4 rows: 8 cores along the tokens
    cost = wafer.ops([(WeightProduct(8, 20), 3)], 2)
    t, vector = 4, 2 + 4 / 4
    # By outputs: 20 turns of ceil(8 / 4) vectors and one that passes, a chain over 3 hops of 1 + 5 cycles.
    # By inputs: 8 turns of ceil(20 / 4) vectors and one that passes, a broadcast over 3 hops.
    outputs, inputs = 100 + 20 * 3 * vector + 3 * 6, 100 + 8 * 6 * vector + 3 * 1 + 5
    assert cost.compute[i] == 3 * min(outputs, inputs) == 3 * inputs
    assert cost.fabric[i] == 3 * max(8 * t / 2, 8 * 5 * 2 / 4)
    assert cost.sram[i] == 3 * 8 * 5 * t * 2 / 16


def test_one_core_along_the_features_passes_nothing_on() -> None:
    wafer = Wafer(EASY, "f16", 16)
    i = at(wafer, 1, "columns")
    cost = wafer.ops([(WeightProduct(8, 20), 1)], 2)
    assert cost.compute[i] == 100 + 8 * 20 * (2 + 1 / 4)
    assert cost.fabric[i] == 8 * 20 * 2 / 4


def test_gradient_of_weights_by_hand() -> None:
    wafer = Wafer(EASY, "f16", 16)
    i = at(wafer, 4, "columns")
    cost = wafer.ops([(WeightGradient(8, 8), 1)], 2)
    # 8 turns: 2 dots of 4 tokens, a vector that passes, and 2 sums of four bytes along the other way (2 lanes).
    assert cost.compute[i] == 100 + 8 * (3 * (2 + 1) + 2 + 2 / 2)
    assert cost.fabric[i] == 8 * max(2, 2 * 4 / 4)


def test_attention_by_hand() -> None:
    wafer = Wafer(EASY, "f16", 16)
    i = at(wafer, 4, "columns")
    scores = wafer.ops([(TokenProduct(2, 6, 16, mixes=False), 1)], 2)
    # 2 heads on 4 cores: 2 cores a head, of whose 6 features each has 3; every key is 3 vectors of 4 tokens and a sum.
    assert scores.compute[i] == 100 + (1 + 5) + 16 * (3 + 1) * (2 + 1) + 16 * 3 / 4
    mixed = wafer.ops([(TokenProduct(2, 6, 16, mixes=True), 1)], 2)
    assert mixed.compute[i] == 100 + (1 + 5) + 6 * (8 + 1) * (2 + 1) + 6 * 8 / 4
    # All heads on one core: nothing to add up along the row.
    one = at(wafer, 1, "columns")
    alone = wafer.ops([(TokenProduct(2, 6, 16, mixes=False), 1)], 2)
    assert alone.compute[one] == 100 + 16 * 12 * (2 + 1 / 4) + 16 * 12 / 4


def test_passes_over_vectors_by_hand() -> None:
    wafer = Wafer(EASY, "f16", 16)
    i = at(wafer, 4, "columns")
    assert wafer.ops([(VectorPass(9), 2)], 2).compute[i] == 2 * (100 + 10 + 3 * (2 + 1))
    # The sum of what 4 cores have of a token: two tasks more, 2 words down a chain of 2 steps, and back over 2 hops.
    summed = wafer.ops([(VectorPass(9, sums=True), 1)], 2).compute[i]
    assert summed == 100 + 10 + 9 + 2 * 100 + (2 + 2 + 2 * 5) + (2 + 2 + 5)


def test_work_of_a_layer_is_all_of_its_multiply_adds() -> None:
    program = example("tiny.cg")
    job = job_of(program, CompileOptions())
    flat = flatten(program.graph, dict(job.sizes))
    dims = token_dims(program.graph)
    for stage, one in zip(stages_from(flat), flat, strict=True):
        macs = 0
        for kernel in stage_work(one, stage, dims).kernels:
            for op, times in kernel.forward:
                if isinstance(op, WeightProduct):
                    macs += times * op.inner * op.outer * job.seq
                elif isinstance(op, TokenProduct):
                    macs += times * op.heads * op.width * op.keys * job.seq
        assert macs == sum(kernel.forward.macs for kernel in stage.kernels)


def test_grouped_queries_are_heads_of_their_own() -> None:
    (_, layer, _) = works_of("llama_8b.cg", layers=1)
    ops = {op for kernel in layer.kernels for op, _ in kernel.forward if isinstance(op, TokenProduct)}
    assert ops == {TokenProduct(32, 128, 8192, mixes=False), TokenProduct(32, 128, 8192, mixes=True)}


def test_levels_store_more_and_make_less_again() -> None:
    (_, layer, _) = works_of("gpt2_small.cg")
    assert layer.levels[0] == ()
    assert sorted(layer.levels[-1]) == sorted(layer.kept)
    assert all(len(more) == len(less) + 1 for less, more in zip(layer.levels, layer.levels[1:], strict=False))
    again = [sum(len(kernel.again[level]) for kernel in layer.kernels) for level in range(len(layer.levels))]
    assert again == sorted(again, reverse=True)
    assert again[-1] == 0
    # What attention makes spares most for its size; the last dot of a layer is never run again.
    assert layer.levels[1] == (12 * 64,)
    (down,) = (kernel for kernel in layer.kernels if kernel.path == "h.mlp.down")
    assert not any(down.again)


def test_parts_of_a_count() -> None:
    assert cut(1) == [1]
    assert cut(6) == [6, 3, 2, 1]
    assert cut(100)[0] == 100
    assert cut(100)[-1] == 1
    assert all(-(-100 // parts) in cut(100) for parts in LADDER if parts <= 100)


@pytest.mark.parametrize("batch", [1, 7, 120])
@pytest.mark.parametrize("purpose", ["train", "prefill"])
def test_a_plan_adds_up(batch: int, purpose: str) -> None:
    wafer = load_device("wse2")
    found, job = planned(example("cerebras_gpt/111m.cg"), wafer, batch=batch, mode=purpose, run="streaming")
    assert found.layout is not None
    values = {figure.name: figure.value for figure in found.time}
    assert values["step"] == pytest.approx(values["layers"] + values["first layer"] + values["inputs and outputs"])
    assert sum(phase.seconds for phase in found.phases) == pytest.approx(values["layers"])
    assert found.bytes <= wafer.cores * wafer.memory
    assert found.at_once * found.passes >= batch > found.at_once * (found.passes - 1)
    order = visits(found)
    assert len({visit.name for visit in order}) == 12
    assert order[0].name == "before h"
    turn = [visit.name for visit in order if visit.direction == "forward"]
    assert turn == ["before h", *(f"h.{i}" for i in range(10)), "after h"]
    back = [visit.name for visit in order if visit.direction == "backward"]
    assert back == (turn[::-1] if purpose == "train" else [])
    length = order[-1].start + order[-1].sweep.seconds
    if batch % found.at_once == 0:
        assert length * found.passes == pytest.approx(values["layers"], rel=0.02)
    assert job.batch == batch
    assert all(row["cycles"]["total"] > 0 for row in block_rows(found))


def test_recomputation_as_an_option_takes_longer_and_stores_less() -> None:
    wafer, program = load_device("wse2"), example("cerebras_gpt/111m.cg")
    usual, _ = planned(program, wafer, run="streaming")
    asked, _ = planned(program, wafer, run="streaming", recompute=True)
    stored = [next(f.value for f in plan.memory if f.name == "activations") for plan in (usual, asked)]
    assert usual.seconds < asked.seconds
    assert stored[0] / usual.at_once > stored[1] / asked.at_once
    pipelined, _ = planned(program, wafer, run="pipelined")
    again, _ = planned(program, wafer, run="pipelined", recompute=True)
    assert again.bytes < pipelined.bytes
    assert again.seconds > pipelined.seconds


def test_one_sequence_that_does_not_fit() -> None:
    with pytest.raises(TargetError) as raised:
        planned(program_of(LAYERS + TRAIN), device(2, 2, 200), run="streaming")
    assert raised.value.code == "CG0601"


def test_a_model_without_tokens_streams() -> None:
    text = "model m(width = 8) {\n    input x[width]\n    output y = linear(x, width -> width)\n}\n"
    found, _ = planned(program_of(text), device(4, 4, 4096), run="streaming")
    assert found.seconds > 0


def test_faster_links_and_more_cores_are_not_slower() -> None:
    program = example("tiny.cg")
    base, _ = planned(program, load_device("wse2"), run="streaming")
    for change in ({"off_wafer": 1e13}, {"multiply_adds": 8.0}, {"rows": 1988}, {"memory": 1 << 17}):
        found, _ = planned(program, replace(load_device("wse2"), **change), run="streaming")
        assert found.seconds <= base.seconds * 1.001, change


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[2]], ids=lambda variant: variant.name)
def test_utilization_on_andromeda_within_a_tenth_of_what_was_published(variant: Variant) -> None:
    programs = {name: example(f"cerebras_gpt/{name}.cg") for name in RUNS}
    found = list(relative(programs, load_device("wse2"), variant))
    assert [name for name, _, _ in found] == ["590m", "6.7b"]
    for name, got, published in found:
        assert abs(got / published - 1) < 0.10, (name, got, published)


def test_the_plan_that_is_printed_is_the_one_held_against_andromeda() -> None:
    program, wafer = example("cerebras_gpt/590m.cg"), load_device("wse2")
    found, job = planned(program, wafer, run="streaming", batch=264)
    flops = training_flops(program.graph, {**dict(job.sizes), "batch": 264})
    printed = flops / (found.seconds * peak_flops(wafer))
    assert printed == pytest.approx(utilization(program, wafer, (1, 264), VARIANTS[0]), rel=0.01)


@pytest.mark.parametrize(
    ("layers", "width", "tokens", "printed"),
    [
        (10, 768, 2.22e9, 2.6e18),
        (14, 1088, 5.12e9, 1.3e19),
        (18, 1536, 1.18e10, 6.1e19),
        (24, 2048, 2.63e10, 2.8e20),
        (32, 2560, 5.30e10, 1.1e21),
        (32, 4096, 1.33e11, 6.3e21),
        (40, 5120, 2.57e11, 2.3e22),
    ],
)
def test_flops_as_the_paper_counts_them(layers: int, width: int, tokens: float, printed: float) -> None:
    """The FLOPs column of Cerebras-GPT (Dey et al. 2023, table 3), to the two digits that are printed."""
    assert float(f"{published_flops(layers, width, 50257, int(tokens), 2048):.1e}") == printed


def test_scaling_on_andromeda_is_linear_within_nine_percent() -> None:
    """Weak and strong alike in the paper: as many sequences a system as there, against one system with all of them."""
    program, wafer = example("cerebras_gpt/6.7b.cg"), load_device("wse2")
    alone = planned(program, wafer, run="streaming", wafers=1)[0].seconds
    for wafers in (2, 4, 8, 16):
        many = planned(program, wafer, run="streaming", wafers=wafers)[0].seconds
        assert alone / (wafers * many) == pytest.approx(1, abs=0.09)


def test_costs_of_all_layouts_are_finite() -> None:
    wafer = Wafer(load_device("wse2"), "bf16", 2048)
    for op in (
        WeightProduct(7, 9),
        WeightGradient(7, 9),
        TokenProduct(3, 5, 2048, mixes=True),
        VectorPass(1, sums=True),
    ):
        for sequences in (1, 5, 3000):
            total = wafer.ops([(op, 1)], sequences).total
            assert np.isfinite(total).all()
            assert (total > 0).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from((512, 4096, 49152))),
    st.sampled_from(("train", "prefill", "decode")),
    st.sampled_from((None, "pipelined", "streaming")),
)
def test_any_model_on_any_device_has_a_plan_or_a_diagnostic(
    heads: int, layers: int, seq: int, batch: int, shape: tuple[int, int, int], mode: str, run: str | None
) -> None:
    program = example("tiny.cg", width=8 * heads, heads=heads, layers=layers)
    wafer = device(*shape)
    try:
        found, job = planned(program, wafer, mode=mode, run=run, batch=batch, seq=seq)
    except TargetError as error:
        assert error.code in ("CG0601", "CG0602", "CG0603", "CG0611", "CG0655")
        assert error.hint
        return
    assert found.seconds > 0
    assert 0 <= found.bytes <= wafer.cores * wafer.memory
    assert found.tokens_per_second == pytest.approx(job.tokens / found.seconds)
    assert job.tokens == (batch if mode == "decode" else batch * seq)
    assert {None: found.mode, "pipelined": "resident", "streaming": "streaming"}[run] == found.mode
    for phase in found.phases:
        for placed in phase.placed:
            area = placed.area
            assert area.x + area.width <= wafer.columns
            assert area.y + area.height <= wafer.rows
            assert placed.bytes <= area.cores * wafer.memory
    spans, _ = schedule(found)
    assert spans


def test_a_loop_at_the_end_makes_again_what_it_did_not_store() -> None:
    program, wafer = program_of(LAYERS + TRAIN), device(16, 4, 4096)
    asked, _ = planned(program, wafer, run="streaming", recompute=True)
    assert {sweep.direction for sweep in asked.sweeps} == {"forward", "backward"}
    # Nothing but what enters a layer is needed here; with an activation between two dots there is.
    text = (LAYERS + TRAIN).replace("x = linear(x", "x = linear(silu(linear(x, width -> width))")
    deeper, _ = planned(program_of(text), wafer, run="streaming", recompute=True)
    assert {sweep.direction for sweep in deeper.sweeps} == {"forward", "again", "backward"}
    stored, _ = planned(program_of(text), wafer, run="streaming")
    assert stored.seconds < deeper.seconds


@pytest.mark.parametrize("count", [1, 2, 7, 60, 997, 4096, 99_991])
def test_sizes_between_are_all_there_are(count: int) -> None:
    """Against every number of parts between the neighbours of a size."""
    sizes = cut(count)
    for at, size in enumerate(sizes):
        high, low = sizes[max(at - 1, 0)], sizes[min(at + 1, len(sizes) - 1)]
        found = list(dict.fromkeys(-(-count // parts) for parts in range(-(-count // high), -(-count // low) + 1)))
        chosen = found[:: -(-len(found) // MOST_BETWEEN)]
        assert between(count, sizes, size) == [one for one in chosen if one not in sizes]


def test_sizes_between_of_any_batch_are_few() -> None:
    """The parts of 10^18 sequences between two and one sequence each are not gone through one by one."""
    sizes = cut(10**18)
    assert all(len(between(10**18, sizes, size)) <= MOST_BETWEEN for size in sizes)
