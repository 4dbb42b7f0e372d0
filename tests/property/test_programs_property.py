"""Random well-typed programs mean the same everywhere: before and after every pass, and in every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cg_programs import programs
from cgc_onnx.evaluate import onnxruntime_evaluator, reference_evaluator
from cgc_torch import TARGET as TORCH
from cgc_wse import TARGET as WAFER
from hypothesis import HealthCheck, given, note, settings
from program_frames import FREE

from cgc.analysis.flops import forward_work
from cgc.driver import PASSES, after_pass
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.graph import Graph
from cgc.ir.read import parse_graph
from cgc.ir.text import print_graph
from cgc.ir.verify import verify
from cgc.program import Program
from cgc.syntax.parser import parse
from cgc.syntax.printer import format_file
from cgc.target import CompileOptions, TargetError
from cgc.weights import random_inputs

Arrays = Mapping[str, np.ndarray[Any, Any]]

TOLERANCE = 2e-5
"""Relative to max(1, the largest magnitude), for an output that rounding does not disturb."""
DISTURBANCE = 1e-6
"""Relative change of the weights and inputs that shows how much rounding disturbs an output."""
SIZES = (FREE, dict.fromkeys(FREE, 1))
"""The largest sizes that programs are written for, and the smallest."""
COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def weights_of(graph: Graph) -> dict[str, np.ndarray[Any, Any]]:
    """Return random weights: not the initial ones, whose zeros and ones hide faults."""
    rng = np.random.default_rng(len(graph.params))
    return {
        p.name: rng.normal(0, 0.5, tuple(map(int, map(str, p.type.shape)))).astype(np.float32) for p in graph.params
    }


def disturbed(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """Return arrays whose floats are a little larger or smaller."""
    rng = np.random.default_rng(0)
    return {
        name: a * (1 + DISTURBANCE * rng.choice([-1, 1], a.shape)) if a.dtype == np.float32 else a
        for name, a in arrays.items()
    }


class Expected:
    """The reference's outputs for one run, and how far from them another way of computing them may be."""

    def __init__(self, graph: Graph, weights: Arrays, inputs: Arrays) -> None:
        self.outputs = interpret(graph, weights, inputs)
        others = (
            interpret(graph, weights, inputs, np.float64),
            interpret(graph, disturbed(weights), disturbed(inputs), np.float64),
        )
        self.tolerance: dict[str, float] = {}
        for name, wanted in self.outputs.items():
            if wanted.dtype.kind == "f" and wanted.size:
                noise = max(float(np.abs(other[name].astype(np.float64) - wanted).max()) for other in others)
                self.tolerance[name] = TOLERANCE * max(1.0, float(np.abs(wanted).max())) + 10 * noise

    def check(self, found: Arrays, what: str) -> None:
        """Check that `found` is the same."""
        assert list(found) == list(self.outputs), what
        for name, wanted in self.outputs.items():
            got = np.asarray(found[name])
            assert got.shape == wanted.shape, (what, name)
            assert np.isfinite(wanted).all(), f"{name} is not tame"
            if name in self.tolerance:
                assert got.dtype == wanted.dtype, (what, name)
                gap = float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max())
                assert gap <= self.tolerance[name], (what, name, gap, self.tolerance[name])
            else:
                assert got.dtype.kind == wanted.dtype.kind, (what, name)
                assert np.array_equal(got, wanted), (what, name)


def unstacked(graph: Graph, weights: Arrays) -> Arrays:
    """Return the weights of an unrolled graph: `h.1.w` is entry 1 of `h.w`."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for param in graph.params:
        parts = param.name.split(".")
        index = tuple(int(part) for part in parts if part.isdigit())
        found[param.name] = weights[".".join(part for part in parts if not part.isdigit())][index]
    return found


def checked(text: str) -> Program:
    """Return the program of a text that has no faults, in its own layout and in the canonical one."""
    (program,) = elaborate_file(text, "random.cg").programs
    (same,) = elaborate_file(format_file(parse(text, "random.cg")), "random.cg").programs
    assert print_without_places(same.graph) == print_without_places(program.graph)
    return program


def print_without_places(graph: Graph) -> str:
    return "\n".join(line.partition(" @ ")[0] for line in print_graph(graph).splitlines())


def check_passes(program: Program, runs: Sequence[tuple[Arrays, Expected]], weights: Arrays) -> None:
    """Check the textual form, and every pass by itself and after the others."""
    chain, whole = program.graph, forward_work(program.graph).at(FREE)
    for name in PASSES:
        chain = after_pass(chain, name)
        for graph in {id(g): g for g in (after_pass(program.graph, name), chain)}.values():
            verify(graph)
            text = print_graph(graph)
            assert parse_graph(text) == graph
            assert print_graph(parse_graph(text)) == text
            for inputs, expected in runs:
                expected.check(interpret(graph, unstacked(graph, weights), inputs), f"after {name}")
            work = forward_work(graph).at(FREE)
            assert work == whole or (name == "dead_code" and work < whole)


def check_wafer(program: Program) -> None:
    """Check that the wafer target says what the program costs, all of it, or why it cannot."""
    try:
        data = WAFER.compile(program, CompileOptions(batch=2, device="tiny16")).data
    except TargetError as error:
        assert error.code.startswith("CG06")
        return
    (plan,) = (plan for plan in data["plans"].values() if plan["purpose"] == "forward")
    rows = plan["blocks"]
    sizes = {symbol.name: 1 if symbol.name == "batch" else plan["seq"] for symbol in program.graph.symbols}
    matmul, other = forward_work(program.graph).at(sizes)
    assert sum(2 * row["work"]["multiply_adds"] * row["layers"] for row in rows) == matmul
    assert sum(row["work"]["other_operations"] * row["layers"] for row in rows) == other


def check_program(text: str) -> None:
    """Check one program in every way."""
    note(text)
    program = checked(text)
    weights = weights_of(program.graph)
    inputs = [random_inputs(program.graph, sizes, seed=3) for sizes in SIZES]
    runs = [(arrays, Expected(program.graph, weights, arrays)) for arrays in inputs]
    check_passes(program, runs, weights)
    ways = {
        "torch": dict(TORCH.evaluators(program))["torch (eager)"],
        "onnxruntime": onnxruntime_evaluator(program),
        "onnxruntime, flat": onnxruntime_evaluator(program, flat=True),
        "onnx reference": reference_evaluator(program),
    }
    for way, evaluate in ways.items():
        for arrays, expected in runs:
            expected.check(evaluate(weights, arrays), way)
    check_wafer(program)


@settings(COMMON, max_examples=50, derandomize=True)
@given(programs())
def test_programs_mean_the_same_everywhere(text: str) -> None:
    check_program(text)


@pytest.mark.slow
@settings(COMMON, max_examples=1500)
@given(programs(most=25))
def test_many_programs_mean_the_same_everywhere(text: str) -> None:
    check_program(text)
