"""PyTorch: blocks and lookups that assume an order of axes or a shape, on values that have another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cgc_onnx.evaluate import onnxruntime_evaluator
from cgc_torch import TARGET
from onnx_programs import largest_difference, params_of, sample

from cgc.driver import load_program
from cgc.interpret import interpret
from cgc.weights import random_inputs

HEADER = "use std/attention\n\nmodel m(width = 12, kv_heads = 2, group = 2, head = 3, heads = 4, context = 9) {\n"
BODIES = {
    "grouped attention, positions first": """
    input x[seq, batch, width]
    output y = grouped_attention(x)""",
    "multi-query attention, positions first": """
    input x[seq, width, batch]
    output y = multi_query_attention(x)""",
    "attention, width in the middle": """
    input x[batch, width, seq]
    output y = attention(x)""",
    "rotation, positions behind what is rotated": """
    input x[batch, width, seq]
    output y = rope(x, along seq, over width)""",
    "rotation, positions last of all": """
    input x[width, seq, batch]
    output y = rope(x, along seq, over width)""",
    "rotation of what has no positions": """
    input x[batch, seq]
    param p[width] ~ ones()
    output y = dot(x, rope(p, along seq, over width))""",
    "a softmax of what attention gives, read by an index": """
    input x[seq, width, batch]
    input i[batch, seq] : id of width
    a = attend(x, x as [seq -> past], x as [seq -> past], over width, seq -> past)
    output y = log_softmax(a, over seq)[i over width]""",
    "a diagonal": """
    input x[batch, seq]
    param p[heads, head] ~ ones()
    output y = dot(x, p[position(head) over heads])""",
    "a diagonal at renamed positions": """
    input x[batch, seq <= context]
    param p[context, heads] ~ ones()
    output y = dot(x, p[(position(heads) as [heads -> h]) as [h -> heads] over context])""",
}


@pytest.mark.parametrize("name", BODIES)
def test_axes_in_another_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.cg"
    path.write_text(f"{HEADER}{BODIES[name]}\n}}\n", encoding="utf-8")
    program = load_program(str(path))
    weights = sample(params_of(program), {}, np.random.default_rng(0))
    inputs = random_inputs(program.graph, {"batch": 3, "seq": 5}, seed=0)
    expected = interpret(program.graph, weights, inputs)["y"]
    for run in (dict(TARGET.evaluators(program))["torch (eager)"], onnxruntime_evaluator(program)):
        assert largest_difference(expected, np.asarray(run(weights, inputs)["y"])) <= 1e-5
