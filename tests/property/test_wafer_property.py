"""Random well-typed programs, partitioned over a few cores: valid, right, and in exactly the memory predicted."""

from __future__ import annotations

import pytest
from cg_programs import programs
from cgc_wse.partition.check import check
from cgc_wse.partition.flat import forward_graph, unstacked
from cgc_wse.partition.lower import lower
from cgc_wse.partition.memory import peaks
from cgc_wse.partition.planner import plan
from cgc_wse.simulate.evaluate import small_device
from cgc_wse.simulate.machine import run
from hypothesis import given, reject, settings
from hypothesis.strategies import sampled_from
from program_frames import FREE
from test_programs_property import COMMON, Expected, weights_of

from cgc.diagnostics import InputError
from cgc.elaborate.files import elaborate_file
from cgc.weights import random_inputs

SHAPES = sampled_from([(2, 3), (4, 4), (1, 5), (3, 2), (7, 1)])
WAYS = sampled_from(["pipelined", "streaming"])
PRICES = sampled_from([0.0, 100.0])
"""What a byte of a core costs: at the higher price operands of products travel in turns."""


def check_partition(text: str, shape: tuple[int, int], how: str, price: float) -> None:
    try:
        (program,) = elaborate_file(text, "m.cg").programs
    except InputError:
        reject()
    graph = program.graph
    weights, inputs = weights_of(graph), random_inputs(graph, FREE, 0)
    flat, device = forward_graph(graph, FREE), small_device(*shape)
    made = lower(flat, plan(flat, device, "pipelined" if how == "pipelined" else "streaming", price=price), device)
    assert check(made, flat.sizes) == []
    own = {param.name: unstacked(param.name, weights) for param in flat.graph.params}
    found = run(made, flat.sizes, {**own, **inputs})
    Expected(graph, weights, inputs).check(found.outputs, "the wafer")
    assert dict(found.memory) == dict(peaks(made))


@settings(COMMON, max_examples=25)
@given(programs(), SHAPES, WAYS, PRICES)
def test_partitions_mean_the_same(text: str, shape: tuple[int, int], how: str, price: float) -> None:
    check_partition(text, shape, how, price)


@pytest.mark.slow
@settings(COMMON, max_examples=500)
@given(programs(most=25), SHAPES, WAYS, PRICES)
def test_many_partitions_mean_the_same(text: str, shape: tuple[int, int], how: str, price: float) -> None:
    check_partition(text, shape, how, price)
