"""Any program on a few simulated cores, as one more way of running it that can be compared with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cgc import load_device
from cgc.interpret import bind_sizes
from cgc.program import Device, Program
from cgc.target import Evaluator
from cgc_wse.partition.flat import forward_graph, unstacked
from cgc_wse.partition.lower import lower
from cgc_wse.partition.plan import Run
from cgc_wse.partition.planner import plan
from cgc_wse.simulate.machine import run

COLUMNS, ROWS = 3, 2
MEMORY = 1 << 32
"""Bytes of a core: what is to be shown is that the numbers are right, not that they fit."""


def small_device(rows: int = ROWS, columns: int = COLUMNS) -> Device:
    """Return a few cores with memory for anything."""
    return replace(load_device("tiny16"), name="small", rows=rows, columns=columns, memory=MEMORY)


def evaluator(program: Program, device: Device, how: Run) -> Evaluator:
    """Return a function that runs the partitioned program on a device."""

    def evaluate(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        flat = forward_graph(program.graph, bind_sizes(program.graph, inputs))
        made = lower(flat, plan(flat, device, how), device)
        own = {param.name: unstacked(param.name, weights) for param in flat.graph.params}
        return run(made, flat.sizes, {**own, **inputs}).outputs

    return evaluate
