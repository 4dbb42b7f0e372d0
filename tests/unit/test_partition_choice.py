"""Choosing layouts together: exact where it can be, the same for equal layers, never worse than op by op."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cgc_wse.partition.core_cost import clock_of
from cgc_wse.partition.elimination import Problem, solve
from cgc_wse.partition.flat import flatten, forward_graph
from cgc_wse.partition.planner import plan
from cgc_wse.partition.segment import Stretch, problem_of
from cgc_wse.place.geometry import Rectangle

from cgc import load_device
from cgc.driver import load_program
from cgc.elaborate.files import elaborate_file
from cgc.program import Program

HEAD = "use std/nn\n\nmodel m(width = 12, ffn = 20) {\n    input x[batch, width]\n"
SMALL = {
    "mlp": HEAD + "    output y = linear(gelu(linear(x, width -> ffn, bias=false)), ffn -> width, bias=false)\n}\n",
    "softmax": HEAD + "    output y = linear(softmax(x, over width), width -> ffn, bias=false)\n}\n",
    "residual": HEAD + "    output y = x + linear(layer_norm(x, over width), width -> width, bias=false)\n}\n",
}


def program_of(text: str) -> Program:
    (program,) = elaborate_file(text, "m.cg").programs
    return program


def every_choice(problem: Problem) -> float:
    """Return the least cost of all choices, each of them looked at."""
    sizes = [len(costs) for costs in problem.alone]
    total: Any = np.zeros(sizes)
    for v, costs in enumerate(problem.alone):
        total = total + costs.reshape([-1 if w == v else 1 for w in range(len(sizes))])
    for (v, w), table in problem.pairs.items():
        total = total + table.reshape([sizes[u] if u in (v, w) else 1 for u in range(len(sizes))])
    return float(total.min())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (4, 2)])
def test_no_choice_of_layouts_is_better(name: str, shape: tuple[int, int]) -> None:
    flat = forward_graph(program_of(SMALL[name]).graph, {"batch": 6})
    area = Rectangle(0, 0, shape[1], shape[0])
    stretch = Stretch(flat.graph.body.nodes, area, flat.graph.body.arguments)
    problem = problem_of(stretch, {}, flat.sizes, clock_of(load_device("tiny16")))
    found = solve(problem)
    assert found.exact
    assert found.cost == pytest.approx(problem.cost(found.options))
    assert found.cost == pytest.approx(every_choice(problem))


def random_problem(seed: int, count: int, options: int, links: int) -> Problem:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, options + 1, count)
    alone = [rng.integers(0, 50, size).astype(float) for size in sizes]
    pairs = {}
    for _ in range(links):
        v, w = sorted(int(i) for i in rng.choice(count, 2, replace=False))
        pairs[v, w] = rng.integers(0, 50, (sizes[v], sizes[w])).astype(float)
    return Problem(alone, pairs)


@pytest.mark.parametrize("seed", range(20))
def test_elimination_finds_the_least_cost(seed: int) -> None:
    problem = random_problem(seed, 6, 5, 9)
    found = solve(problem)
    assert found.exact
    assert found.cost == every_choice(problem)
    # With hardly any room for tables it is no longer exact, but says so and is no better than what is best.
    narrow = solve(problem, largest=10)
    assert narrow.cost == problem.cost(narrow.options) >= found.cost
    assert narrow.exact <= (narrow.cost == found.cost)


def example(**sizes: int) -> Program:
    return load_program("examples/tiny.cg", {"width": 16, "vocab": 16, "context": 8, "heads": 2, **sizes})


@pytest.mark.parametrize("mode", ["train", "prefill"])
def test_equal_layers_are_solved_once(mode: str) -> None:
    device = replace(load_device("tiny16"), rows=2, columns=2)
    solved = []
    for layers in (4, 12):
        flat = flatten(example(layers=layers), "train" if mode == "train" else "prefill", 2, 8)
        solved.append(plan(flat, device, "streaming").solved)
    assert solved[0] == solved[1]


def test_choosing_together_beats_choosing_alone() -> None:
    flat = forward_graph(program_of(SMALL["mlp"]).graph, {"batch": 16})
    stretch = Stretch(flat.graph.body.nodes, Rectangle(0, 0, 4, 4), flat.graph.body.arguments)
    problem = problem_of(stretch, {}, flat.sizes, clock_of(load_device("tiny16")))
    alone = [int(np.argmin(costs)) for costs in problem.alone]
    assert solve(problem).cost < problem.cost(alone)
