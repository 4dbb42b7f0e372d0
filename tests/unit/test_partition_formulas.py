"""Formulas against the simulator: collectives alone, ops and blocks; and what is known by hand."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from cgc_wse.partition.core_cost import clock_of, work_cycles
from cgc_wse.partition.formulas import move_cycles, sum_cycles, summing, traffic
from cgc_wse.partition.layout import Digit, Layout, copies, entries, split
from cgc_wse.simulate.cases import cases
from cgc_wse.simulate.compare import compared, partitioned, table
from cgc_wse.simulate.travel import analytic, simulated, travels

from cgc import load_device
from cgc.ir.dims import Dim
from cgc.ir.graph import Node, Value
from cgc.ir.ops import Dot
from cgc.ir.types import TensorType

DEVICE = load_device("tiny16")
CLOCK = clock_of(DEVICE)


def test_gather_along_a_row_by_hand() -> None:
    """Eight cores with 10 words each: seven tiles of others come in over one link, 70 cycles and a hop."""
    shape = (("a", 80),)
    found = traffic(shape, 4, Layout((), (split("a", 8),)), Layout((), copies(8)))
    assert (found.received, found.row_link, found.across, found.message) == (70, 70, 7, 10)
    cycles = move_cycles(shape, 4, Layout((), (split("a", 8),)), Layout((), copies(8)), CLOCK)
    assert cycles == pytest.approx(CLOCK.task + 2 * CLOCK.ramp + 70 + 1)


def test_broadcast_by_hand() -> None:
    before = Layout((Digit("one", 5, at=2),), (Digit("one", 5, at=2),))
    cycles = move_cycles((("a", 12),), 4, before, Layout(copies(5), copies(5)), CLOCK)
    # 12 words, behind one another, over two hops each way.
    assert cycles == pytest.approx(CLOCK.task + 2 * CLOCK.ramp + 12 + 4)


def test_chain_by_hand() -> None:
    """Seven cores: three parts from either side meet in the middle, 2 · 9 words into one core."""
    before, after = (Digit("sum", 7),), (Digit("one", 7, at=3),)
    found = summing((("a", 9),), 4, before, after, Layout((), after))
    assert (found.group, found.stride, found.targets, found.words) == (7, 1, 1, 9)
    assert sum_cycles(found, CLOCK) == pytest.approx(CLOCK.task + 3 * CLOCK.hand_on + 2 * 9 - 1)


def test_product_by_hand() -> None:
    m, k, n = Dim("m", 8), Dim("k", 3), Dim("n", 5)
    values = [Value(name, TensorType(dims)) for name, dims in (("a", (m, k)), ("b", (k, n)), ("y", (m, n)))]
    node = Node(Dot(("k",)), (values[0], values[1]), (values[2],))
    cycles = work_cycles(node, (("m", 8), ("n", 5), ("k", 3)), CLOCK)
    # Vectors of 8 over k and n, a loop for each k: as `gemm` has it.
    assert cycles == pytest.approx(3 * CLOCK.loop + 15 * (CLOCK.vector + 8 / CLOCK.lanes))


def test_what_stays_costs_nothing() -> None:
    layout = Layout((split("a", 2),), copies(3))
    assert move_cycles((("a", 8), ("b", 6)), 4, layout, layout, CLOCK) == 0
    assert move_cycles((("a", 8), ("b", 6)), 4, layout, Layout((split("a", 2),), (split("b", 3),)), CLOCK) == 0


@pytest.mark.parametrize(
    ("words", "cases"), [(2_048, 90), pytest.param(57_600, 130, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_collectives_take_what_formulas_say(words: int, cases: int) -> None:
    errors = []
    for travel in travels():
        if entries(travel.shape) <= words:
            found = simulated(travel, DEVICE).cycles
            errors.append(abs(analytic(travel, DEVICE) / found - 1))
    assert len(errors) > cases
    assert median(errors) < 0.01
    assert max(errors) < 0.15


@pytest.mark.parametrize("queue", [4, 1000])
def test_formulas_hold_for_other_queues(queue: int) -> None:
    device = replace(DEVICE, queue=queue)
    for case in FEW[:4]:
        assert compared(case, device).error < 0.06


FEW = [case for case in cases() if case.rows * case.columns <= 16][::4]


def test_ops_and_blocks_take_what_formulas_say() -> None:
    rows = [compared(case, DEVICE) for case in FEW]
    assert median(row.error for row in rows) < 0.05
    assert max(row.error for row in rows) < 0.15
    assert all(row.memory == row.expected for row in rows)
    assert all(row.difference < 1e-4 for row in rows)
    assert f"{len(rows)} cases" in table(rows)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["tiny16", "wse2", "wse3"])
def test_all_cases(device: str) -> None:
    rows = [compared(case, load_device(device)) for case in cases()]
    assert len(rows) >= 40
    assert median(row.error for row in rows) < 0.05
    assert max(row.error for row in rows) < 0.15
    assert all(row.memory == row.expected and row.difference < 1e-4 for row in rows)


def test_a_case_has_a_device_of_its_shape() -> None:
    _, program = partitioned(FEW[0], DEVICE)
    assert (program.device.rows, program.device.columns) == (FEW[0].rows, FEW[0].columns)
