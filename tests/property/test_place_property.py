"""The packer on anything: always legal, never over the grid, never under its bounds; bounds against brute force."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import product
from random import Random

import numpy as np
import pytest
from cgc_wse.place.anneal import wire
from cgc_wse.place.blocks import Block, least_cycles, place_blocks
from cgc_wse.place.bound import Bounder, Unplaceable
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.moves import change
from cgc_wse.place.problem import CurveLibrary, PlaceProblem
from cgc_wse.place.search import Limits, NothingFound, search, spots_of
from cgc_wse.place.shapes import Ints
from cgc_wse.place.tree import SlicingTree, Spot
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Listed:
    """A kernel whose rectangles are listed: (width, height, ticks)."""

    name: str
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def alike(self) -> Hashable:
        return self.shapes

    def corners(self, time: int, side: int) -> tuple[Ints, Ints]:
        fit = [(w, h) for w, h, ticks in self.shapes if ticks <= time and max(w, h) <= side]
        sides = np.array(fit, dtype=np.int64).reshape(-1, 2)
        return sides[:, 0], sides[:, 1]


@st.composite
def problems(draw: st.DrawFn, most: int = 6, side: int = 12) -> PlaceProblem:
    columns, rows = draw(st.integers(2, side)), draw(st.integers(2, side))
    size = st.integers(1, max(columns, rows) // 2 + 1)
    shapes = st.lists(st.tuples(size, size, st.integers(1, 40)), min_size=1, max_size=4)
    kernels = tuple(
        Listed(f"k{i}", tuple(found)) for i, found in enumerate(draw(st.lists(shapes, min_size=1, max_size=most)))
    )
    index = st.integers(0, len(kernels) - 1)
    nets = tuple(draw(st.lists(st.tuples(index, index), max_size=8)))
    weights = draw(st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.25, 7.0)]))
    return PlaceProblem(kernels, nets, columns, rows, *weights)


def check_legal(problem: PlaceProblem, spots: list[Spot], time: int) -> None:
    used = np.zeros((problem.columns, problem.rows), dtype=int)
    for kernel, (x, y, width, height) in zip(problem.kernels, spots, strict=True):
        assert x >= 0 and y >= 0 and x + width <= problem.columns and y + height <= problem.rows
        used[x : x + width, y : y + height] += 1
        assert any(
            ticks <= time and ((w <= width and h <= height) or (h <= width and w <= height))
            for w, h, ticks in kernel.shapes  # type: ignore[attr-defined]
        )
    assert used.max() <= 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 3))
def test_what_is_found_is_legal_and_not_under_the_bounds(problem: PlaceProblem, seed: int) -> None:
    try:
        found = search(problem, Limits(seed, rounds=1), lambda _: None)
    except (Unplaceable, NothingFound):
        return
    spots = spots_of(problem, found.best)
    check_legal(problem, spots, found.best.time)
    cost = problem.tick_cost * found.best.time + problem.wire_cost * wire(spots, problem.nets)
    assert cost == pytest.approx(found.best.cost)
    assert found.bounds.time <= found.best.time
    assert found.bounds.score <= cost + 1e-6


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems(most=9), st.integers(0, 2**32))
def test_a_tree_stays_a_tree_and_its_curves_true(problem: PlaceProblem, seed: int) -> None:
    """After any moves every leaf is there once, and the root's curve is what its rectangles take."""
    count, random = len(problem.kernels), Random(seed)
    library = CurveLibrary(problem, 1.0)
    curves = library.curves(40)
    if count < 2 or any(int(curve.heights[-1]) > problem.rows for curve in curves):
        return
    nested: object = 0
    for leaf in range(1, count):
        nested = (bool(leaf % 2), nested, leaf)
    tree = SlicingTree(nested, count)  # type: ignore[arg-type]
    tree.set_curves(curves)
    for _ in range(60):
        before = tree.snapshot()
        same = tree.nested()
        change(tree, [[] for _ in range(count)], library.kinds, random)
        again = SlicingTree(tree.nested(), count)
        again.set_curves(curves)
        assert (again.heights_of(again.root) == tree.heights_of(tree.root)).all()
        if random.random() < 0.3:
            tree.restore(before)
            assert tree.nested() == same
    heights = tree.heights_of(tree.root)
    width = library.columns
    height = int(heights[width])
    if height <= library.rows:
        spots = tree.rectangles(width, height)
        for i, (x, y, w, h) in enumerate(spots):
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
            for a, b, c, d in spots[i + 1 :]:
                assert x + w <= a or a + c <= x or y + h <= b or b + d <= y


@settings(max_examples=25, deadline=None, derandomize=True)
@given(problems(most=3, side=5))
def test_bounds_against_every_placement_there_is(problem: PlaceProblem) -> None:
    best = brute_force(problem)
    try:
        bounds = Bounder(problem).bounds()
    except Unplaceable:
        assert best is None
        return
    if best is not None:
        time, cost = best
        assert bounds.time <= time
        assert bounds.score <= cost + 1e-6


def brute_force(problem: PlaceProblem) -> tuple[int, float] | None:
    """Return the least time and, apart from that, the least cost over all placements; None where there is none."""
    least, cheapest = None, None
    options = []
    for kernel in problem.kernels:
        turned = {(w, h, t) for a, b, t in kernel.shapes for w, h in ((a, b), (b, a))}  # type: ignore[attr-defined]
        options.append(
            [
                (x, y, w, h, t)
                for w, h, t in sorted(turned)
                for x in range(problem.columns - w + 1)
                for y in range(problem.rows - h + 1)
            ]
        )
    for chosen in product(*options):
        if any(
            a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
            for i, a in enumerate(chosen)
            for b in chosen[i + 1 :]
        ):
            continue
        time = max(one[4] for one in chosen)
        cost = problem.tick_cost * time + problem.wire_cost * wire([one[:4] for one in chosen], problem.nets)
        least = time if least is None else min(least, time)
        cheapest = cost if cheapest is None else min(cheapest, cost)
    return None if least is None or cheapest is None else (least, cheapest)


SOME = st.floats(0, 1e5)
BLOCKS = st.builds(Block, st.floats(0, 1e7), st.integers(1, 12), SOME, SOME, st.floats(0, 100), st.floats(0, 1e7)).map(
    lambda one: replace(one, few=min(one.few, one.many), many=max(one.few, one.many))
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(BLOCKS, min_size=1, max_size=5), min_size=1, max_size=6), st.integers(1, 40), st.integers(1, 40)
)
def test_blocks_have_what_they_need_and_the_bound_holds(layers: list[list[Block]], columns: int, rows: int) -> None:
    blocks = [block for layer in layers for block in layer]
    bound = least_cycles(blocks, columns, rows)
    found = place_blocks(layers, columns, rows)
    if found is None:
        return
    slowest, areas = found
    used = np.zeros((columns, rows), dtype=int)
    for block, area in zip(blocks, areas, strict=True):
        used[area.x : area.x + area.width, area.y : area.y + area.height] += 1
        assert area.cores >= block.least
        assert area.x + area.width <= columns and area.y + area.height <= rows
    assert used.max() <= 1
    assert slowest == max(block.time(area) for block, area in zip(blocks, areas, strict=True))
    assert bound <= slowest * (1 + 1e-9)


def test_the_bound_on_blocks_is_the_best_on_a_grid_of_one_row() -> None:
    """On one row, cores are all that is shared out: every way to do it is tried."""
    blocks = [Block(7.0, 1, 0.0, 0.0), Block(12.0, 2, 0.0, 0.0), Block(3.0, 1, 0.0, 1.0)]
    best = min(
        max(block.time(Rectangle(0, 0, n, 1)) for block, n in zip(blocks, counts, strict=True))
        for counts in product(range(1, 9), repeat=3)
        if sum(counts) <= 8 and all(n >= block.least for n, block in zip(counts, blocks, strict=True))
    )
    assert least_cycles(blocks, 8, 1) == pytest.approx(best)
