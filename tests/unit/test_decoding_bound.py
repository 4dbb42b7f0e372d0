"""The bound on decoding: by hand, and no square of any side is faster; plans are near it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from cgc_wse.bounds import bound_of
from cgc_wse.decoding.bound import LeastContext, least_cycles
from cgc_wse.flatten import FlatStage, flatten
from cgc_wse.kernel_cost.collectives import allreduce_cycles, broadcast_phase, group_counts, grouped_cycles
from cgc_wse.kernel_cost.decode import DecodeContext, cached_dims, decode_steps
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.mode import workload_of
from hypothesis import given, settings
from hypothesis import strategies as st
from wafer_plans import example, planned

from cgc import load_device
from cgc.target import TargetError

WSE2, WSE3 = load_device("wse2"), load_device("wse3")
PLAIN = Machine(task=100, loop=10, vector=2, shift=1, relay=1, ramp=2, lanes=4, entries=2, number=2, memory=48 * 1024)
NOTHING: frozenset[str] = frozenset()


@cache
def stages(name: str, seq: int) -> tuple[frozenset[str], list[FlatStage]]:
    graph = example(name).graph
    sizes = {symbol.name: 1 for symbol in graph.symbols}
    return cached_dims(graph), flatten(graph, {**sizes, "seq": seq})


def test_an_allreduce_takes_at_least_its_ways_and_its_words() -> None:
    least = LeastContext(NOTHING, 9, PLAIN)
    # 8 hops there and back, two steps of 5; or 8 / 9 of 40 words into a core, and 8 / 9 of them again.
    assert least.allreduce(9, 2) == 2 * 100 + 8 + 2 * 5
    assert least.allreduce(9, 80) == pytest.approx(2 * 100 + 2 * 40 * 8 / 9 + 2 * 5)
    assert least.allreduce(1, 80) == 100
    assert least.broadcast(2) == 100 + 4 + 5


@given(st.integers(1, 900), st.integers(1, 4000), st.sampled_from([PLAIN, machine_of(WSE3, "f16")]))
def test_no_allreduce_takes_less(cores: int, entries: int, machine: Machine) -> None:
    least, words = LeastContext(NOTHING, cores, machine), machine.words(entries)
    assert least.allreduce(cores, entries) <= allreduce_cycles(machine, cores, words) * (1 + 1e-9)
    for groups in group_counts(cores)[:20] if cores > 1 else ():
        assert (
            least.allreduce(cores, entries) <= 2 * machine.task + grouped_cycles(machine, cores, words, groups) + 1e-6
        )
    assert least.broadcast(entries) <= machine.task + broadcast_phase(cores, words).cycles(machine) + 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["tiny.cg", "gpt2_small.cg", "cerebras_gpt/111m.cg", "llama_8b.cg"]),
    st.integers(1, 994),
    st.sampled_from([1, 17, 64]),
    st.sampled_from([machine_of(WSE2, "f16"), machine_of(WSE3, "f32")]),
)
def test_no_grid_is_faster_than_the_bound(name: str, side: int, seq: int, machine: Machine) -> None:
    cached, found = stages(name, seq)
    for stage in found:
        steps = sum(step.total for step in decode_steps(stage, DecodeContext(cached, side, machine))) / stage.runs
        assert 0 <= least_cycles(stage, LeastContext(cached, side, machine)) <= steps * (1 + 1e-9)


@pytest.mark.parametrize("name", ["cerebras_gpt/111m.cg", "llama_8b.cg"])
@pytest.mark.parametrize("batch", [1, 4])
def test_plans_are_near_the_bound(name: str, batch: int) -> None:
    program = example(name)
    plan, job = planned(program, WSE2, mode="decode", batch=batch, seq=512)
    bound = bound_of(plan, workload_of(program.graph, job))
    assert 0 < bound.seconds <= plan.seconds
    assert bound.gap(plan) < 0.45


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.integers(3, 40), st.integers(3, 40), st.integers(2, 48), st.integers(1, 9), st.sampled_from([None, "streaming"])
)
def test_no_plan_is_faster_on_any_device(columns: int, rows: int, memory: int, batch: int, run: str | None) -> None:
    program = example("tiny.cg")
    device = replace(WSE2, name="d", columns=columns, rows=rows, memory=1024 * memory)
    try:
        plan, job = planned(program, device, mode="decode", batch=batch, seq=20, run=run)
    except TargetError:
        return
    bound = bound_of(plan, workload_of(program.graph, job))
    assert 0 < bound.seconds <= plan.seconds * (1 + 1e-9)


def test_several_sequences_get_more_squares() -> None:
    program = example("cerebras_gpt/111m.cg")
    one, many = (planned(program, WSE2, mode="decode", batch=batch, seq=256)[0] for batch in (1, 32))
    assert many.depth > one.depth
    assert many.seconds < 16 * one.seconds


def test_fewer_tokens_are_no_slower_and_more_sequences_give_no_fewer_tokens() -> None:
    program = example("cerebras_gpt/111m.cg")
    by_length = [
        planned(program, load_device("wse2"), mode="decode", batch=8, seq=seq)[0].seconds
        for seq in (64, 256, 1024, 2048)
    ]
    assert by_length == sorted(by_length)
    plans = [planned(program, load_device("wse2"), mode="decode", batch=b, seq=256)[0] for b in (1, 2, 3, 5, 8, 16, 24)]
    rates = [plan.tokens_per_second for plan in plans]
    assert all(more >= fewer * (1 - 1e-9) for fewer, more in pairwise(rates))
    assert plans[4].seconds < 1.05 * plans[0].seconds, "eight sequences on squares of their own"


def test_the_hint_is_the_most_that_fits() -> None:
    program = example("cerebras_gpt/111m.cg")

    def fault(**sizes: int) -> str:
        with pytest.raises(TargetError) as raised:
            planned(program, load_device("wse2"), mode="decode", **sizes)
        return raised.value.hint

    hint = fault(batch=1000)
    batch, seq = (int(number) for number in re.findall(r"--(?:batch|seq) (\d+)", hint))
    for sizes in ({"batch": batch}, {"batch": 1000, "seq": seq}):
        assert planned(program, load_device("wse2"), mode="decode", **sizes)[0].seconds > 0
    assert fault(batch=batch + 1) and fault(batch=1000, seq=seq + 1)
