"""Blocks of a pipeline on rectangles: by hand, against every rectangle there is, and their bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import ceil

import numpy as np
import pytest
from cgc_wse.op_work import Op, Ops, OtherProduct, TokenProduct, VectorPass, WeightGradient, WeightProduct
from cgc_wse.pipeline import block_cost
from cgc_wse.pipeline.block_cost import BlockTimes, Passing, sides_of, unavoidable_times
from cgc_wse.pipeline.block_times import TimedBlock, Way
from cgc_wse.place.geometry import Rectangle
from hypothesis import given, settings
from hypothesis import strategies as st

from cgc import load_device

WSE2 = load_device("wse2")
EASY = replace(WSE2, name="easy", columns=12, rows=9, task=100.0, loop=10.0, vector=2.0, relay=1.0, ramp=2.0)
SEQ = 64
ROOM = 4096

SIZES = st.integers(1, 40)
OPS: st.SearchStrategy[Op] = st.one_of(
    st.builds(WeightProduct, SIZES, SIZES),
    st.builds(WeightGradient, SIZES, SIZES),
    st.builds(TokenProduct, st.integers(1, 5), st.integers(1, 9), st.integers(1, 20), st.booleans()),
    st.builds(VectorPass, SIZES, st.booleans()),
    st.builds(OtherProduct, st.integers(1, 5000)),
)
COUNTED = st.lists(st.tuples(OPS, st.integers(1, 3)), max_size=4, unique_by=lambda one: one[0]).map(tuple)
BORDER = st.tuples(st.floats(0, 2000), st.floats(0, 2000)).map(lambda two: (min(two), max(two)))
PASSING = st.builds(Passing, COUNTED, COUNTED, BORDER).filter(lambda one: bool(one.ops))
AREAS = st.builds(Rectangle, st.just(0), st.just(0), st.integers(1, 12), st.integers(1, 9))


def staying(ops: Ops, x: int, y: int, room: int = ROOM) -> tuple[float, float, float]:
    """Return what takes cycles where weights stay on x · y cores: inputs over the first side."""
    costs = block_cost._Rectangles(EASY, "f16", SEQ, np.array([x, y]), room)
    found = costs.weights_stay(Passing(ops, (), (0.0, 0.0)), room)
    compute, sram, fabric = (np.broadcast_to(part, (2, 2))[0, 1] for part in (found.compute, found.sram, found.fabric))
    return float(compute), float(sram), float(fabric)


def test_weights_stay_by_hand() -> None:
    """8 inputs over 4 cores, 18 outputs over 9: 2 · 2 weights, and a partial sum that comes for each output."""
    ops, chain, broadcast = ((WeightProduct(8, 18), 1),), 3 * (1 + 5), 8 * 1 + 5
    compute, sram, fabric = staying(ops, 4, 9)
    assert compute == 100 + 2 * (2 + 1) * (2 + SEQ / 4) + chain + broadcast
    assert (sram, fabric) == (2 * 2 * SEQ * 2 / 16, 2 * SEQ / 2)
    # Buffers that have room for 7 tokens of the 2 + 4 vectors that wait: 10 pieces, each with its start.
    compute, _, _ = staying(ops, 4, 9, 2 * 6 * 7)
    assert compute == 10 * 100 + 2 * (2 + 1) * (10 * 2 + SEQ / 4) + chain + broadcast


def test_attention_by_hand() -> None:
    """3 heads over 6 cores: 2 cores a head, each with 4 of its 8 features and 2 of 16 keys."""
    compute, _, fabric = staying(((TokenProduct(3, 8, 16, mixes=False), 1),), 6, 8)
    assert compute == 100 + 2 * (4 + 1) * (2 + SEQ / 4) + (1 + 5) + (7 * 1 + 5)
    assert fabric == 4 * SEQ / 2
    compute, _, _ = staying(((TokenProduct(3, 8, 16, mixes=True), 1),), 6, 8)
    assert compute == 100 + 4 * (2 + 1) * (2 + SEQ / 4) + 7 * (1 + 5) + (1 + 5)


def test_a_block_takes_its_faster_layout() -> None:
    """Vectors that are split over the cores of a side cost instructions, and partial sums additions."""
    product, area = Passing(((WeightProduct(8, 18), 1),), (), (0.0, 0.0)), Rectangle(0, 0, 4, 9)
    assert BlockTimes(product, EASY, "f16", SEQ).at(ROOM).cycles(area).total <= staying(product.forward, 4, 9)[0]


def test_the_gradient_of_what_came_in_sums_the_other_way() -> None:
    ops = ((WeightProduct(8, 18), 1),)
    forward, back = (
        BlockTimes(one, EASY, "f16", SEQ).at(ROOM)
        for one in (Passing(ops, (), (0.0, 0.0)), Passing((), ((WeightProduct(18, 8), 1),), (0.0, 0.0)))
    )
    for area in (Rectangle(0, 0, 4, 9), Rectangle(0, 0, 9, 4), Rectangle(0, 0, 3, 3)):
        assert forward.cycles(area).total == pytest.approx(back.cycles(area).total, rel=0.02)


def test_gradients_of_keys_are_on_a_core() -> None:
    """Of two gradients of a product with keys one sums over the tokens, which all pass a core."""
    op = TokenProduct(3, 8, 16, mixes=False)
    both = Passing(((op, 1),), ((op, 2),), (0.0, 0.0))
    assert (both.own_sums(op), Passing(((op, 1),), ((op, 1),), (0.0, 0.0)).own_sums(op)) == (1, 0)


def test_a_folded_side_is_a_rectangle_too() -> None:
    """Two rows of 12 are one of 24: outputs go over 24 cores where 12 are a row."""
    wide = Passing(((WeightProduct(1, 24), 1),), (), (0.0, 0.0))
    times = BlockTimes(wide, EASY, "f16", SEQ).at(ROOM)
    assert times.cycles(Rectangle(0, 0, 12, 2)).compute <= staying(wide.forward, 1, 24)[0]
    assert times.cycles(Rectangle(0, 0, 12, 2)).compute < times.cycles(Rectangle(0, 0, 12, 1)).compute
    assert times.cycles(Rectangle(0, 0, 12, 2)) == times.cycles(Rectangle(0, 0, 2, 12))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(PASSING, AREAS, st.integers(0, 3), st.sampled_from([64, 512, ROOM]))
def test_no_rectangle_is_faster_than_what_cannot_be_avoided(
    passing: Passing, area: Rectangle, more: int, room: int
) -> None:
    times = BlockTimes(passing, EASY, "f16", SEQ).at(room)
    least = unavoidable_times(passing, EASY, "f16", SEQ)
    total = times.cycles(area).total
    assert least.cycles(area).total <= total * (1 + 1e-9)
    assert 0 < least.cores(total) <= area.cores
    larger = Rectangle(0, 0, area.width + more, area.height + more)
    assert times.cycles(larger).total <= total * (1 + 1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(PASSING, st.integers(2, 2000), st.integers(3, 60))
def test_the_bound_sees_every_number_of_cores(passing: Passing, cycles: int, few: int) -> None:
    """However few sides the bound looks at, no pair of sides at all has fewer cores and takes no longer.

    Where all of a block goes in whole vectors it is the fewest cores themselves; what is spread evenly gets shorter
    with each core between the sides that are looked at.
    """
    exact = unavoidable_times(passing, EASY, "f16", SEQ)
    every = np.arange(1, EASY.cores + 1)
    costs = block_cost._Unavoidable(EASY, "f16", SEQ, every)
    found = block_cost.cheaper(costs.tokens_cut(passing), costs.weights_stay(passing, EASY.memory))
    total = np.broadcast_to(found.total, (len(every), len(every)))
    enough = total <= cycles
    short, long = (max(1, ceil(one / cycles * (1 - 1e-12))) for one in passing.border)
    fewest = max(int((every[:, None] * every[None, :])[enough].min()), short * long) if enough.any() else 0
    spread = any(isinstance(op, VectorPass | OtherProduct) for op, _ in (*passing.forward, *passing.back))
    assert exact.cores(cycles) == fewest or (spread and 0 < exact.cores(cycles) < fewest)
    before = block_cost.BOUNDING
    try:
        block_cost.BOUNDING = few
        coarse = unavoidable_times(passing, EASY, "f16", SEQ)
    finally:
        block_cost.BOUNDING = before
    assert coarse.cores(cycles) <= fewest or not fewest


@settings(max_examples=40, deadline=None, derandomize=True)
@given(PASSING, st.integers(50, 5000), st.integers(1, 60), st.sampled_from([(64, 40), (ROOM, 50)]))
def test_curves_are_of_rectangles_that_are_fast_enough(
    passing: Passing, cycles: int, least: int, second: tuple[int, int]
) -> None:
    known = BlockTimes(passing, EASY, "f16", SEQ)
    block = TimedBlock((Way(known.at(512), 512, least), Way(known.at(second[0]), *second)))
    heights, widths = block.curve(cycles, EASY.columns, EASY.rows)
    for width, height in product(range(1, EASY.columns + 1), range(1, EASY.rows + 1)):
        area = Rectangle(0, 0, width, height)
        if heights[width] <= height:
            assert block.time(area) <= cycles * (1 + 1e-9)
            assert area.cores >= block.least
        assert (heights[width] <= height) == (widths[height] <= width)


def test_sides_are_where_something_gets_less() -> None:
    found = sides_of(((WeightProduct(10, 7), 1),), 1, 100)
    counts = {-(-size // k) for size in (10, 7) for k in range(1, 11)}
    assert set(found.tolist()) == counts
    assert sides_of(((WeightProduct(10, 7), 1),), 1, 100, 3).tolist() == [1, 4, 10]
