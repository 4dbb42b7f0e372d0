"""A partitioned program on the simulated wafer gives what the NumPy reference gives, in the memory predicted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from cgc_wse.partition.analytic import estimate
from cgc_wse.partition.flat import flatten, random_arrays
from cgc_wse.partition.program import Load
from wafer_programs import Prepared, cores, gpt2, llama, prepared

from cgc.passes.adamw import FIRST, SECOND

TOLERANCE = 1e-4
SHAPES = [(1, 1), (2, 2), (4, 4), (3, 5), (8, 2), (1, 7)]
"""Rows and columns of cores."""
LARGE = [(8, 8), (16, 16)]
FAST = [("gpt2", "train", "streaming", (2, 3)), ("gpt2", "train", "pipelined", (4, 4)),
        ("llama", "train", "streaming", (2, 2)), ("llama", "train", "pipelined", (3, 5)),
        ("gpt2", "decode", "streaming", (3, 2)), ("gpt2", "decode", "pipelined", (8, 2)),
        ("llama", "decode", "streaming", (2, 4)), ("llama", "decode", "pipelined", (4, 4)),
        ("llama", "prefill", "streaming", (3, 2))]  # fmt: skip
PROGRAMS = {"gpt2": gpt2, "llama": llama}


def check(name: str, mode: str, how: str, shape: tuple[int, int]) -> Prepared:
    program = PROGRAMS[name]()
    assert mode in ("train", "prefill", "decode")
    assert how in ("pipelined", "streaming")
    found = prepared(program, mode, how, cores(*shape))  # type: ignore[arg-type]
    assert found.faults() == []
    run, difference = found.ran()
    assert difference < TOLERANCE
    assert dict(run.memory) == found.memory()
    assert estimate(found.program).cycles == pytest.approx(run.cycles, rel=0.25)
    return found


@pytest.mark.parametrize(("name", "mode", "how", "shape"), FAST)
def test_partitioned_equals_reference(name: str, mode: str, how: str, shape: tuple[int, int]) -> None:
    check(name, mode, how, shape)


@pytest.mark.parametrize("shape", [(3, 2), (2, 4)])
def test_a_slow_west_edge_is_counted(shape: tuple[int, int]) -> None:
    """Where the link off the wafer is faster than the links of a row, those set the time, in the formulas as well."""
    device = replace(cores(*shape), off_wafer=1.5e11, link=3.0)
    found = prepared(gpt2(layers=1), "decode", "streaming", device)
    run, difference = found.ran()
    assert difference < TOLERANCE
    assert estimate(found.program).cycles == pytest.approx(run.cycles, rel=0.06)
    loads = [index for index, step in enumerate(found.program.steps) if isinstance(step, Load)]
    assert len(loads) > 3
    # What was asked for first is there first.
    assert [run.ended[index] for index in loads] == sorted(run.ended[index] for index in loads)


@pytest.mark.parametrize("seed", [0, 5, 5005])
def test_random_moments_are_those_of_some_gradients(seed: int) -> None:
    """A mean that is much larger than the root of the mean square turns rounding into steps that differ."""
    program = gpt2(layers=1)
    flat = flatten(program, "train", 2, 4)
    _, _, inputs = random_arrays(flat, program, seed)
    seconds = [name for name in inputs if name.startswith(SECOND)]
    assert seconds
    for name in seconds:
        mean = inputs[FIRST + name.removeprefix(SECOND)]
        assert mean.any()
        assert (np.abs(mean) <= np.sqrt(inputs[name]) * 1.00001).all()


def shown(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=shown)
@pytest.mark.parametrize("how", ["pipelined", "streaming"])
@pytest.mark.parametrize("mode", ["train", "prefill", "decode"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_everywhere(name: str, mode: str, how: str, shape: tuple[int, int]) -> None:
    check(name, mode, how, shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE, ids=shown)
@pytest.mark.parametrize("how", ["pipelined", "streaming"])
@pytest.mark.parametrize("mode", ["train", "decode"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_on_many_cores(name: str, mode: str, how: str, shape: tuple[int, int]) -> None:
    check(name, mode, how, shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "how"),
    [("gpt2", "decode", "streaming"), ("gpt2", "prefill", "streaming"), ("llama", "decode", "pipelined")],
)
def test_on_4096_cores(name: str, mode: str, how: str) -> None:
    found = check(name, mode, how, (64, 64))
    assert len(found.memory()) == 4096


def test_a_training_step_trains() -> None:
    """All parts of a step are there: the loss, and for each parameter new moments and a new value that moved."""
    found = prepared(gpt2(layers=1), "train", "pipelined", cores(2, 2))
    run, _ = found.ran()
    names = [param.name for param in found.flat.graph.params]
    assert set(run.outputs) == {"loss"} | {f"new.{k}{n}" for k in ("", "adamw.m.", "adamw.v.") for n in names}
    assert all((run.outputs[f"new.{name}"] != found.arrays[name]).any() for name in names)


def test_a_cache_decodes_as_the_whole_pass_does() -> None:
    """One token behind a cache, on the wafer, gives the logits that a pass over all tokens gives for it."""
    program = gpt2()
    whole = prepared(program, "prefill", "streaming", cores(2, 2))
    first, _ = whole.ran()
    step = prepared(program, "decode", "pipelined", cores(2, 3))
    caches = {
        name: first.outputs[name.replace("past.", "present.")][:, :7]
        for name in step.arrays
        if name.startswith("past.")
    }
    tokens = whole.arrays["tokens"][:, 7:]
    from cgc_wse.simulate.machine import run

    weights = {param.name: whole.arrays[param.name] for param in step.flat.graph.params}
    found = run(step.program, step.flat.sizes, {**weights, **caches, "tokens": tokens})
    assert abs(found.outputs["logits"] - first.outputs["logits"][:, 7:]).max() < 1e-5
