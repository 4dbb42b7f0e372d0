"""Products whose operands travel in turns: right, in exactly the memory predicted, and chosen where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from cgc_wse.partition import segment
from cgc_wse.partition.analytic import estimate
from cgc_wse.partition.candidates import layouts
from cgc_wse.partition.check import check
from cgc_wse.partition.fit import fit
from cgc_wse.partition.flat import Flat, flatten, forward_graph
from cgc_wse.partition.layout import Layout, split
from cgc_wse.partition.lower import lower
from cgc_wse.partition.memory import buffer_bytes, code_bytes, peaks, timeline
from cgc_wse.partition.plan import Choice, Plan
from cgc_wse.partition.planner import plan, with_choice
from cgc_wse.partition.program import Local, Move, Partitioned, View
from cgc_wse.partition.rules import iteration, rule, splittable
from cgc_wse.partition.turns import needs, panels, travelled
from cgc_wse.simulate.cases import cases
from cgc_wse.simulate.compare import compared, partitioned
from cgc_wse.simulate.machine import run
from wafer_programs import cores, gpt2, prepared

from cgc import load_device
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.ops import Dot
from cgc.target import TargetError
from cgc.weights import initialize, random_inputs

TOLERANCE = 1e-4
PRODUCT = "model product(m = {m}, n = {n}, k = {k}) {{\n    param w[k, n] ~ normal(std=1)\n"
PRODUCT += "    input x[batch, m, k]\n    output y = dot(x, w, over k)\n}}\n"
SCORES = "model scores(m = {m}, n = {n}, k = {k}) {{\n    input q[batch, m, k]\n    input v[batch, n, k]\n"
SCORES += "    output y = dot(q, v, over k)\n}}\n"


@dataclass(frozen=True)
class Small:
    """One product, planned on a rectangle."""

    flat: Flat
    plan: Plan
    shape: tuple[int, int]

    @property
    def at(self) -> int:
        """Where the product is among the nodes."""
        return next(i for i, node in enumerate(self.flat.graph.body.nodes) if isinstance(node.op, Dot))

    def choices(self) -> Iterator[Choice]:
        """Yield every way in which operands can travel."""
        node = self.flat.graph.body.nodes[self.at]
        space = iteration(node, self.flat.sizes)
        for work in layouts(space, splittable(node, self.flat.sizes), *self.shape, most=1000):
            dim = travelled(node, work, self.flat.sizes)
            if dim is not None:
                yield Choice(work, rule(node, work, self.flat.sizes).result, dim)

    def program(self, choice: Choice) -> Partitioned:
        """Return the program with this choice."""
        return lower(self.flat, with_choice(self.plan, self.at, choice), cores(*self.shape))

    def arrays(self) -> tuple[Any, Any]:
        """Return weights and inputs."""
        return initialize(self.flat.graph, 0), random_inputs(self.flat.graph, {}, 0)

    def difference(self, program: Partitioned) -> float:
        """Run a program and compare; also checks its memory."""
        weights, inputs = self.arrays()
        found = run(program, self.flat.sizes, {**weights, **inputs})
        expected = interpret(self.flat.graph, weights, inputs)["y"]
        assert dict(found.memory) == peaks(program)
        assert estimate(program).cycles == pytest.approx(found.cycles, rel=0.15)
        return float(np.max(np.abs(found.outputs["y"] - expected)) / np.max(np.abs(expected)))


def small(text: str, shape: tuple[int, int], batch: int = 2, **sizes: int) -> Small:
    (program,) = elaborate_file(text.format(**sizes), "m.cg").programs
    flat = forward_graph(program.graph, {"batch": batch})
    return Small(flat, plan(flat, cores(*shape), "pipelined", whole=True), shape)


@pytest.mark.parametrize("text", [PRODUCT, SCORES], ids=["product", "scores"])
@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 4), (3, 5), (1, 4)])
@pytest.mark.parametrize("sizes", [{"m": 8, "n": 12, "k": 16}, {"m": 7, "n": 5, "k": 17}], ids=["even", "uneven"])
def test_travelling_operands_give_the_product(text: str, shape: tuple[int, int], sizes: dict[str, int]) -> None:
    case = small(text, shape, **sizes)
    tried = 0
    for choice in case.choices():
        program = case.program(choice)
        assert check(program, case.flat.sizes) == []
        assert case.difference(program) < TOLERANCE
        tried += 1
    assert tried >= 2


def test_panels_by_hand() -> None:
    """16 entries of k in 2 blocks down the rows and 4 along the columns: four panels, each with one column of cores."""
    case = small(PRODUCT, (2, 4), m=8, n=12, k=16)
    node = case.flat.graph.body.nodes[case.at]
    work = Layout((split("m", 2),), (split("n", 4),))
    choice = Choice(work, work, "k")
    assert needs(node, choice, case.flat.sizes).operands == (
        Layout((split("m", 2),), (split("k", 4),)),
        Layout((split("k", 2),), (split("n", 4),)),
    )
    found = panels(node, choice, case.flat.sizes)
    assert [panel.part for panel in found] == [(0, 4), (4, 8), (8, 12), (12, 16)]
    at = [(panel.holders[0].columns[0].at, panel.holders[1].rows[0].at) for panel in found]
    assert at == [(0, 0), (1, 0), (2, 1), (3, 1)]


def test_a_core_holds_its_tiles_and_a_panel_of_each() -> None:
    case = small(PRODUCT, (4, 4), batch=1, m=32, n=32, k=32)
    work = Layout((split("m", 4),), (split("n", 4),))
    gathered, turned = (case.program(Choice(work, work, dim)) for dim in ("", "k"))

    def brought(program: Partitioned) -> set[int]:
        buffers = [b for b in program.buffers() if b.category == "communication" and b.layout in operands]
        return {size for buffer in buffers for size in buffer_bytes(buffer).values()}

    node = case.flat.graph.body.nodes[case.at]
    operands = rule(node, work, case.flat.sizes).operands
    # 8 x 32 entries of 4 bytes at once; or 8 x 8 of them, four times.
    assert brought(gathered) == {8 * 32 * 4}
    assert brought(turned) == {8 * 8 * 4}
    products = [step for step in turned.steps if isinstance(step, Local)]
    assert len(products) == 4
    # Panels are gone after their turn: never are those of two turns there.
    live = most = 0
    for _, buffer, sign in timeline(turned):
        if buffer.category == "communication" and buffer.layout in operands:
            live += sign * buffer_bytes(buffer)[0, 0]
            most = max(most, live)
    assert most == 2 * 8 * 8 * 4


def _brings(step: object) -> bool:
    """Tell whether a step moves an input from where it lies."""
    return isinstance(step, Move) and step.source.label == step.source.value


def test_more_turns_take_no_more_code() -> None:
    """A loop goes through them: the first turn and the others are what there is to describe."""
    sizes = []
    for columns in (4, 8):
        work = Layout((split("m", 2),), (split("n", columns),))
        program = small(PRODUCT, (2, columns), m=8, n=16, k=16).program(Choice(work, work, "k"))
        assert sum(isinstance(step, Local) for step in program.steps) == columns
        # How inputs come is decided by their cost, and differs: what brings them is no part of a turn.
        own = replace(program, steps=tuple(step for step in program.steps if not _brings(step)))
        sizes.append(code_bytes(own)[0, 0])
    assert sizes[0] == sizes[1]


def test_a_plan_changes_to_turns_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"width": 64, "vocab": 64, "context": 32, "heads": 4, "layers": 1}
    flat = flatten(gpt2(**sizes), "prefill", 2, 32)
    roomy, tight = cores(4, 4), cores(4, 4, memory=30_000)
    assert not any(place.choice.travels for place in fit(flat, roomy, "streaming").plan.places)
    found = fit(flat, tight, "streaming")
    assert any(place.choice.travels for place in found.plan.places)
    assert found.most <= 30_000
    monkeypatch.setattr(segment, "TURNING", 0)
    with pytest.raises(TargetError, match="more than its 30,000"):
        fit(flat, tight, "streaming")


def test_a_training_step_in_turns() -> None:
    """Gradients and the optimizer too: as many products in turns as the planner can be made to take."""
    found = prepared(gpt2(layers=1, width=32), "train", "streaming", cores(2, 3))
    made = plan(found.flat, cores(2, 3), "streaming", price=100.0)
    assert sum(bool(place.choice.travels) for place in made.places) > 3
    program = lower(found.flat, made, cores(2, 3))
    assert found.faults(program) == []
    ran, difference = found.ran(program)
    assert difference < TOLERANCE
    assert dict(ran.memory) == peaks(program)


def test_formulas_hold_for_turns() -> None:
    rows = [case for case in cases() if case.price and case.rows * case.columns <= 16]
    assert len(rows) >= 4
    for case in rows:
        _, program = partitioned(case, load_device("tiny16"))
        assert any(isinstance(step, Local) and step.onto is not None for step in program.steps)
        found = compared(case, load_device("tiny16"))
        assert found.error < 0.05
        assert found.memory == found.expected
        assert found.difference < TOLERANCE


# ---- faults


def changed(program: Partitioned, change: Callable[[int, Local], Local | None]) -> Partitioned:
    """Return a program with its products changed, or left out where that gives None."""
    steps, paths = [], []
    for index, (step, path) in enumerate(zip(program.steps, program.paths, strict=True)):
        made = change(index, step) if isinstance(step, Local) else step
        if made is not None:
            steps.append(made)
            paths.append(path)
    return replace(program, steps=tuple(steps), paths=tuple(paths))


@pytest.fixture(scope="module")
def turning() -> tuple[Small, Partitioned]:
    """A product in four turns."""
    case = small(PRODUCT, (2, 4), m=8, n=12, k=16)
    work = Layout((split("m", 2),), (split("n", 4),))
    return case, case.program(Choice(work, work, "k"))


def test_a_turn_left_out(turning: tuple[Small, Partitioned]) -> None:
    case, program = turning
    products = [i for i, step in enumerate(program.steps) if isinstance(step, Local)]
    third, last = (program.steps[i] for i in products[2:4])
    assert isinstance(third, Local) and isinstance(last, Local)

    def without(index: int, step: Local) -> Local | None:
        return None if index == products[2] else replace(step, onto=third.onto) if index == products[3] else step

    wrong = changed(program, without)
    assert any("take 12 of 16 entries" in fault for fault in check(wrong, case.flat.sizes))
    assert run_difference(case, wrong) > TOLERANCE


def test_a_turn_that_is_not_added(turning: tuple[Small, Partitioned]) -> None:
    case, program = turning
    products = [i for i, step in enumerate(program.steps) if isinstance(step, Local)]
    wrong = changed(program, lambda index, step: replace(step, onto=None) if index == products[1] else step)
    assert any("entries" in fault for fault in check(wrong, case.flat.sizes))
    assert run_difference(case, wrong) > TOLERANCE


def test_a_panel_twice(turning: tuple[Small, Partitioned]) -> None:
    """Both operands' second panels again in the third turn."""
    case, program = turning
    products = [i for i, step in enumerate(program.steps) if isinstance(step, Local)]
    second = program.steps[products[1]]
    assert isinstance(second, Local)
    wrong = changed(
        program, lambda index, step: replace(step, operands=second.operands) if index == products[2] else step
    )
    assert any("some twice" in fault for fault in check(wrong, case.flat.sizes))


def test_panels_of_different_parts(turning: tuple[Small, Partitioned]) -> None:
    case, program = turning
    products = [i for i, step in enumerate(program.steps) if isinstance(step, Local)]
    second = program.steps[products[1]]
    assert isinstance(second, Local)
    wrong = changed(
        program,
        lambda index, step: (
            replace(step, operands=(second.operands[0], step.operands[1])) if index == products[2] else step
        ),
    )
    assert any("different parts" in fault for fault in check(wrong, case.flat.sizes))


def test_a_panel_that_its_cores_do_not_have(turning: tuple[Small, Partitioned]) -> None:
    case, program = turning
    index = next(i for i, step in enumerate(program.steps) if isinstance(step, View) and step.result.start)
    step = program.steps[index]
    assert isinstance(step, View)
    moved = replace(step, result=replace(step.result, start=tuple(at + 4 for at in step.result.start)))
    wrong = replace(program, steps=(*program.steps[:index], moved, *program.steps[index + 1 :]))
    assert any("does not have its part" in fault for fault in check(wrong, case.flat.sizes))
    assert any(isinstance(step, Move) for step in program.steps)


def run_difference(case: Small, program: Partitioned) -> float:
    weights, inputs = case.arrays()
    found = run(program, case.flat.sizes, {**weights, **inputs})
    expected = interpret(case.flat.graph, weights, inputs)["y"]
    return float(np.max(np.abs(found.outputs["y"] - expected)))
