"""Placements are legal and complete: every block has cores of its own on the grid, enough for what it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cgc_wse.data import block_rows
from cgc_wse.job import Job, other_purpose
from cgc_wse.mode import plan, workload_of
from cgc_wse.place.division import DoesNotFit, Share, divide, group, water_level
from cgc_wse.place.geometry import Rectangle, faults
from cgc_wse.plan import Plan
from hypothesis import example as at
from hypothesis import given, settings
from hypothesis import strategies as st
from wafer_plans import device, example, planned, program_of

from cgc import load_device
from cgc.analysis.flops import forward_work
from cgc.program import Device, Program
from cgc.target import TargetError

MODELS = ("from_scratch.cg", "tiny.cg", "gpt2_small.cg", "llama_8b.cg", "cerebras_gpt/111m.cg", "cerebras_gpt/13b.cg")
DEVICES = ("wse1", "wse2", "wse3", "tiny16")
TABLE = """
model m(vocab = 20000, width = 64, hidden = 512, layers = 40, context = 64) {
    input tokens[batch, seq <= context] : id of vocab
    param table[vocab, width] ~ zeros()
    x = table[tokens]
    x = x + linear(linear(x, width -> hidden), hidden -> width)
    repeat layers as h {
        x = x + linear(linear(x, width -> hidden), hidden -> width)
    }
    output y = x
}
"""
NO_WAY = {"CG0601", "CG0602", "CG0603"}


def check_plan(found: Plan, program: Program, job: Job) -> None:
    """Check everything a plan promises."""
    wafer = found.device
    for phase in found.phases:
        areas = [placed.area for placed in phase.placed]
        assert areas
        assert faults(areas, wafer.columns, wafer.rows) == []
        check_disjoint(areas, wafer)
        for placed in phase.placed:
            assert placed.bytes <= placed.area.cores * wafer.memory, placed.path
        assert phase.runs >= 1
        assert phase.seconds > 0
    assert 0 < found.bytes <= wafer.cores * wafer.memory
    assert 1 <= found.at_once <= job.batch
    if found.mode == "resident":
        (phase,) = found.phases
        # Buffers and code are of cores, whatever block has them.
        beside = {figure.name: figure.value for figure in found.memory if figure.name in ("buffers", "code")}
        assert beside.get("code", 0) == wafer.code * wafer.cores
        assert sum(placed.bytes for placed in phase.placed) + sum(beside.values()) == found.bytes
        assert len({placed.path for placed in phase.placed}) == len(phase.placed)
    check_sums(found, program, job)


def check_disjoint(areas: list[Rectangle], wafer: Device) -> None:
    """Check in another way than the product does that rectangles do not overlap: their cores are counted once each."""
    assert all(area.width >= 1 and area.height >= 1 for area in areas)
    assert all(0 <= area.x <= area.x + area.width <= wafer.columns for area in areas)
    assert all(0 <= area.y <= area.y + area.height <= wafer.rows for area in areas)
    for i, a in enumerate(areas):
        for b in areas[i + 1 :]:
            apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
            assert apart, (a, b)


def check_sums(found: Plan, program: Program, job: Job) -> None:
    """Check that the rows of the report add up to what the analysis says of the graph."""
    rows = block_rows(found)
    matmul, other = forward_work(program.graph).at(dict(job.sizes))
    assert sum(2 * row["work"]["multiply_adds"] * row["layers"] for row in rows) == matmul
    assert sum(row["work"]["other_operations"] * row["layers"] for row in rows) == other
    assert sum(row["parameters"] for row in rows) == program.graph.parameter_count


@pytest.mark.parametrize("wafer", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_examples_on_devices(name: str, wafer: str) -> None:
    program = example(name)
    try:
        found, job = planned(program, load_device(wafer))
    except TargetError as error:
        assert error.code in NO_WAY
        assert wafer == "tiny16"
        return
    check_plan(found, program, job)


def test_small_models_fit_where_they_should() -> None:
    fits = {}
    for name in MODELS:
        try:
            fits[name] = planned(example(name), load_device("wse2"), run="pipelined")[0].mode
        except TargetError as error:
            fits[name] = error.code
    assert fits == dict.fromkeys(MODELS, "resident") | {"cerebras_gpt/13b.cg": "CG0655"}


@st.composite
def wafers(draw: st.DrawFn) -> Device:
    """Return a device of any shape, whose figures need not be in proportion."""
    base = device(draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(256, 100_000)))
    multiply_adds, read, write, link = (float(draw(st.integers(1, 64))) for _ in range(4))
    off_wafer = draw(st.sampled_from((1e6, 1e9, 1e12)))
    return replace(base, multiply_adds=multiply_adds, read=read, write=write, link=link, off_wafer=off_wafer)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_models_of_any_size_on_devices_of_any_shape(data: st.DataObject) -> None:
    heads, layers = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    sizes = {"heads": heads, "width": 8 * heads, "layers": layers, "vocab": data.draw(st.integers(1, 400))}
    program = example(data.draw(st.sampled_from(("tiny.cg", "from_scratch.cg"))), context=32, **sizes)
    wafer = data.draw(wafers())
    options = {"batch": data.draw(st.integers(1, 9)), "seq": data.draw(st.integers(1, 32))}
    purpose = data.draw(st.booleans())
    try:
        found, job = planned(program, wafer, **options)
        if purpose:
            job = other_purpose(job)
            found = plan(workload_of(program.graph, job), job, wafer)
    except TargetError as error:
        assert error.code in NO_WAY
        assert error.hint
        return
    check_plan(found, program, job)


def test_streamed_weights_fit_in_the_rectangle_of_their_block() -> None:
    """A table does little work for its size: in proportion to that it would get a core or two."""
    found, job = planned(program_of(TABLE), device(32, 32, 6000))
    assert found.mode == "streaming"
    check_plan(found, program_of(TABLE), job)


# ---- the floorplan by itself

SHARES = st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(SHARES, st.integers(1, 30), st.integers(1, 30))
def test_a_division_fills_the_area(layers: list[list[float]], columns: int, rows: int) -> None:
    tree = group([group([Share(weight) for weight in layer]) for layer in layers])
    blocks = sum(map(len, layers))
    area = Rectangle(0, 0, columns, rows)
    if blocks > area.cores:
        with pytest.raises(DoesNotFit):
            divide(tree, area)
        return
    areas = divide(tree, area)
    assert len(areas) == blocks
    assert faults(areas, columns, rows) == []
    assert sum(one.cores for one in areas) == area.cores


@at(blocks=[(2.2250738585e-313, 1), (0.0, 1)], cores=2)
@at(blocks=[(1e-313, 1), (1e-320, 50)], cores=60)
@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 50)), min_size=1, max_size=20), st.integers(1, 500))
def test_cores_are_shared_by_work_above_what_is_needed(blocks: list[tuple[float, int]], cores: int) -> None:
    work, least = [w for w, _ in blocks], [n for _, n in blocks]
    if sum(least) > cores:
        with pytest.raises(DoesNotFit):
            water_level(work, least, cores)
        return
    wanted = water_level(work, least, cores)
    assert all(one >= n - 1e-6 * cores for one, n in zip(wanted, least, strict=True))
    assert sum(wanted) <= cores * (1 + 1e-9) + 1e-9
    if sum(work) > 0 and all(w > 0 for w in work):
        assert sum(wanted) == pytest.approx(cores)


RECTANGLES = st.lists(
    st.builds(Rectangle, st.integers(-1, 9), st.integers(-1, 9), st.integers(0, 5), st.integers(0, 5)), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(RECTANGLES)
def test_faults_are_found_exactly_where_there_are_some(areas: list[Rectangle]) -> None:
    cores = [(x, y) for a in areas for x in range(a.x, a.x + a.width) for y in range(a.y, a.y + a.height)]
    legal = all(a.cores > 0 for a in areas) and len(set(cores)) == len(cores)
    legal = legal and all(0 <= x < 10 and 0 <= y < 10 for x, y in cores)
    assert (faults(areas, 10, 10) == []) == legal
