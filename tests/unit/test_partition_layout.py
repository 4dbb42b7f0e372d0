"""Layouts: which core holds what, and that together they hold everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cgc_wse.partition.candidates import layouts
from cgc_wse.partition.layout import Digit, Layout, canonical, copies, count, faults, split, tile, tiles, within

SHAPE = (("a", 7), ("b", 4), ("c", 1))


def test_a_dimension_is_cut_into_blocks_of_equal_size_but_the_last() -> None:
    layout = Layout((split("a", 3),), ())
    assert [tile(layout, SHAPE, r, 0) for r in range(3)] == [
        ((0, 3), (0, 4), (0, 1)),
        ((3, 6), (0, 4), (0, 1)),
        ((6, 7), (0, 4), (0, 1)),
    ]
    empty = Layout((split("b", 3),), ())
    assert [count(t) for t in tiles(empty, SHAPE) if t] == [14, 14, 0]


def test_digits_share_an_axis_and_a_dimension_both_axes() -> None:
    shared = Layout((split("b", 2), split("a", 3)), ())
    assert tile(shared, SHAPE, 4, 0) == ((3, 6), (2, 4), (0, 1))
    both = Layout((split("b", 2),), (split("b", 2),))
    assert [tile(both, SHAPE, r, c)[1] for r in range(2) for c in range(2)] == [(0, 1), (1, 2), (2, 3), (3, 4)]  # type: ignore[index]


def test_one_core_holds_it() -> None:
    layout = Layout((Digit("one", 3, at=1),), copies(2))
    assert [t is not None for t in tiles(layout, SHAPE)] == [False, False, True, True, False, False]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (4, 4), (6, 1), (3, 5)])
def test_every_entry_lies_equally_often_somewhere(rows: int, columns: int) -> None:
    for layout in layouts(SHAPE, ["a", "b", "c"], rows, columns, 99):
        held = np.zeros([size for _, size in SHAPE], int)
        for one in tiles(layout, SHAPE):
            assert one is not None
            held[tuple(slice(low, high) for low, high in one)] += 1
        copied = [d.parts for d in layout.digits if d.kind == "copy"]
        assert (held == int(np.prod(copied))).all(), str(layout)
        assert faults(layout, SHAPE, rows, columns) == []


def test_canonical_axes_have_no_digits_of_one_part() -> None:
    axis = [Digit("copy", 2), Digit("split", 1, "a"), Digit("copy", 3), split("b", 2)]
    assert canonical(axis) == (Digit("copy", 6), split("b", 2))


def test_a_restricted_layout_copies_what_it_lacks() -> None:
    layout = Layout((split("a", 2),), (split("b", 4),))
    assert layout.restricted(["b"]) == Layout(copies(2), (split("b", 4),))
    assert layout.renamed({"a": "x"}) == Layout((split("x", 2),), (split("b", 4),))


def test_faults_are_named() -> None:
    assert faults(Layout((split("z", 2),), ()), SHAPE, 2, 1) == ["splits `z`, which the tensor lacks"]
    assert "rectangle of 3 x 1" in faults(Layout((split("a", 2),), ()), SHAPE, 3, 1)[0]
    assert faults(Layout((Digit("one", 2, at=2),), ()), SHAPE, 2, 1) == ["holds it at 2 of 2"]


def test_within() -> None:
    for low, high in product(range(4), range(4)):
        assert within(((low, high),), ((1, 3),)) == (high <= low or (low >= 1 and high <= 3))
