"""Bounds on wafer plans: no plan is faster, large models' are hardly slower, and no way to stream beats them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cgc_wse.bounds import bound_of
from cgc_wse.job import job_of, other_purpose
from cgc_wse.mode import plan, workload_of
from cgc_wse.streaming.bound import least_seconds
from cgc_wse.streaming.search import Search
from wafer_plans import device, example

from cgc import load_device
from cgc.target import CompileOptions, TargetError

SMALL = ("tiny.cg", "from_scratch.cg", "gpt2_small.cg")


@pytest.mark.parametrize("wafer", ["tiny16", "wse1", "wse3"])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("run", ["pipelined", "streaming", None])
def test_no_plan_is_faster_than_its_bound(name: str, wafer: str, run: str | None) -> None:
    program = example(name)
    job = job_of(program, CompileOptions(batch=7))
    for one in (job, other_purpose(job)):
        workload = workload_of(program.graph, one)
        try:
            found = plan(workload, one, load_device(wafer), run)
        except TargetError:
            assert wafer == "tiny16"
            continue
        bound = bound_of(found, workload)
        assert 0 < bound.seconds <= found.seconds * (1 + 1e-9)
        assert bound.formula


FAMILY = [pytest.param(size, marks=pytest.mark.slow) for size in ("256m", "590m", "1.3b", "2.7b", "6.7b")]


@pytest.mark.parametrize("size", ["111m", "13b", *FAMILY])
@pytest.mark.parametrize("wafer", ["wse2", "wse3"])
def test_plans_of_large_models_are_close_to_their_bounds(size: str, wafer: str) -> None:
    program = example(f"cerebras_gpt/{size}.cg")
    job = job_of(program, CompileOptions())
    workload = workload_of(program.graph, job)
    found = plan(workload, job, load_device(wafer))
    assert -1e-9 <= bound_of(found, workload).gap(found) <= 0.1


@pytest.mark.parametrize("memory", [3_000, 6_000, 20_000, 1_000_000])
@pytest.mark.parametrize("recompute", [False, True])
def test_no_passes_and_slices_beat_the_bound_on_streaming(memory: int, recompute: bool) -> None:
    """Every number of sequences in a pass and in a slice is tried, in every layout."""
    program = example("tiny.cg", layers=5, context=32)
    job = replace(job_of(program, CompileOptions(batch=9, seq=32)), recompute=recompute)
    search = Search(workload_of(program.graph, job).works, job, device(12, 7, memory))
    best = np.inf
    for sequences in range(1, job.batch + 1):
        passes, rest = divmod(job.batch, sequences)
        for slice_ in range(1, sequences + 1):
            seconds = passes * search._pass(sequences, slice_).seconds
            if rest:
                seconds = seconds + search._pass(rest, min(slice_, rest)).seconds
            best = min(best, float(seconds.min()))
    choice = search.best()
    if choice is None:
        assert best == np.inf
        return
    bound = least_seconds(search, job.batch)
    assert 0 < bound <= best * (1 + 1e-9)
    assert best <= choice.seconds * (1 + 1e-9)
