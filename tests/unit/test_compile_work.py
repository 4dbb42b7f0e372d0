"""How the work of compiling grows, counted and not timed: in layers no faster than linearly, in cores not at all.

What is counted are calls of functions, all of them, with every cache empty at the start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cgc_wse.compilation import compile_for_wafer
from cgc_wse.partition import segment
from cgc_wse.partition.flat import flatten
from cgc_wse.partition.planner import plan
from wafer_programs import cores, gpt2

from cgc import load_device
from cgc.driver import load_program
from cgc.program import Device, Program
from cgc.target import CompileOptions

FEW = 24
"""Sequences that fit on a wafer with any of the numbers of layers here."""
MODEL = str(Path(__file__).parents[2] / "examples" / "cerebras_gpt" / "111m.cg")


def forget() -> None:
    """Empty every cache of the compiler."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("cgc", "cgc_wse"):
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


def calls(what: Callable[[], object]) -> int:
    """Return how many functions are called, from empty caches."""
    forget()
    found = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        what()
    finally:
        sys.setprofile(before)
    return found


def model(layers: int) -> Program:
    return load_program(MODEL, {"layers": layers})


def compiling(program: Program, device: Device, run: str, batch: int | None = None) -> int:
    """Return the calls of compiling: streamed training, or a pipelined pass, which fits."""
    mode = "train" if run == "streaming" else "prefill"
    return calls(lambda: compile_for_wafer(program, device, CompileOptions(run=run, mode=mode, batch=batch)))


def grows_at_most_linearly(work: dict[int, int]) -> bool:
    """Tell whether no more layers take more than their share, and whether one more costs about what it did before.

    A search for places looks at more or fewer of them by chance, which is what the half is for.
    """
    shares = all(work[b] <= 1.05 * work[a] * b / a for a, b in pairwise(sorted(work)))
    slopes = [(work[b] - work[a]) / (b - a) for a, b in pairwise(sorted(work))]
    return shares and slopes[-1] <= 1.5 * max(slopes[:-1])


def test_what_counts_as_linear() -> None:
    assert grows_at_most_linearly({4: 100, 8: 140, 16: 220})
    assert not grows_at_most_linearly({4: 1016, 8: 1064, 16: 1256})
    assert not grows_at_most_linearly({4: 10, 8: 30, 16: 50})


def test_a_streamed_models_layers_are_planned_once() -> None:
    work = {layers: compiling(model(layers), load_device("wse2"), "streaming") for layers in (4, 16, 40)}
    assert grows_at_most_linearly(work)
    assert work[40] < 1.5 * work[4]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["streaming", "pipelined"])
def test_work_grows_at_most_linearly_in_layers(run: str) -> None:
    """All sequences are on the wafer at once, whatever the layers: else more sizes of a pass are looked at."""
    work = {n: compiling(model(n), load_device("wse2"), run, FEW) for n in (4, 8, 16, 32, 64)}
    assert grows_at_most_linearly(work)
    # A step of the model's own batch takes so many passes that sizes between those of the ladder are tried, too.
    assert compiling(model(64), load_device("wse2"), run) <= 1.05 * 16 * compiling(model(4), load_device("wse2"), run)


@pytest.mark.parametrize("run", ["streaming", pytest.param("pipelined", marks=pytest.mark.slow)])
def test_work_does_not_grow_with_cores(run: str) -> None:
    """The same blocks on 16 times the cores."""
    wafer, program = load_device("wse2"), model(4)
    larger = replace(wafer, columns=4 * wafer.columns, rows=4 * wafer.rows)
    assert compiling(program, larger, run) <= 1.5 * compiling(program, wafer, run)


def planning(monkeypatch: pytest.MonkeyPatch, layers: int, device: Device) -> int:
    """Return how often the partition's planner asks what a change of layout costs."""
    asked = 0
    moving = segment.move_cycles

    def counted(*arguments: Any) -> float:
        nonlocal asked
        asked += 1
        return moving(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(segment, "move_cycles", counted)
        plan(flatten(gpt2(layers=layers), "prefill", 2, 8), device, "streaming")
    return asked


def test_a_partitions_layers_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (planning(monkeypatch, layers, cores(4, 4)) for layers in (3, 9))
    assert few == many > 500


def test_planning_a_partition_asks_no_more_of_more_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (planning(monkeypatch, 1, cores(side, side)) for side in (8, 32))
    assert 500 < large <= 1.2 * small
