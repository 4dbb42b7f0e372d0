"""A whole step of training, loops written out, in PyTorch, ONNX Runtime and ONNX's reference against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cgc_onnx.evaluate import onnxruntime_evaluator, reference_evaluator
from cgc_torch import TARGET as TORCH
from gradients import samples, unstacked
from onnx_programs import largest_difference

from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.passes.unroll import unroll
from cgc.program import Program
from cgc.training import train_step

MODELS = {
    "gpt2": """
use std/gpt2
model m = gpt2(vocab=13, context=8, layers=2, width=8, heads=2)

train {
    clip = 1.0
}
""",
    "llama": "use std/llama\nmodel m = llama(vocab=13, context=8, layers=2, width=8, heads=4, kv_heads=2, ffn=12)\n",
}
SIZES = {"batch": 2, "seq": 5}


@pytest.mark.parametrize(("name", "recompute"), [("gpt2", False), ("llama", True)])
def test_a_step_is_the_same_in_every_target(name: str, recompute: bool) -> None:
    (program,) = elaborate_file(MODELS[name], "m.cg").programs
    step = train_step(program, recompute)
    arrays = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in samples(step, SIZES, 0, 0.3).items()}
    for value in step.inputs:
        if value.name.startswith("adamw.v."):
            arrays[value.name] = np.abs(arrays[value.name])
    arrays |= {"adamw.step": np.asarray(3), "adamw.rate": np.asarray(1e-2, np.float32)}
    expected = interpret(step, arrays, arrays)
    whole: Program = replace(program, graph=unroll(step), checkpoint=None, train=None)
    weights = dict(unstacked(whole.graph, arrays))
    inputs = {value.name: arrays[value.name] for value in whole.graph.inputs}
    ways = {
        "torch": dict(TORCH.evaluators(whole))["torch (eager)"],
        "onnxruntime": onnxruntime_evaluator(whole),
        "onnx reference": reference_evaluator(whole, flat=True),
    }
    for way, evaluate in ways.items():
        found = evaluate(weights, inputs)
        assert list(found) == list(expected)
        for output, wanted in expected.items():
            got = np.asarray(found[output])
            assert largest_difference(np.asarray(wanted), got) <= 2e-5, (way, output)
