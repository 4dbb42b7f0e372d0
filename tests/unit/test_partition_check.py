"""Wrong partitions are caught: by the checker, which names them, and by the numbers, where they run at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from cgc_wse.partition.layout import Layout, copies, split
from cgc_wse.partition.lower import lower
from cgc_wse.partition.plan import Choice
from cgc_wse.partition.planner import with_choice
from cgc_wse.partition.program import Load, Local, Message, Move, Partitioned, Step, Store, Sum, View
from cgc_wse.partition.rules import NoSuchPartition
from cgc_wse.place.geometry import Rectangle
from cgc_wse.simulate.machine import Deadlock
from wafer_programs import Prepared, cores, gpt2, prepared

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def whole() -> Prepared:
    """A pass forward over all of 2 x 2 cores."""
    return prepared(gpt2(), "prefill", "streaming", cores(2, 2))


def test_a_right_program_has_no_faults(whole: Prepared) -> None:
    assert whole.faults() == []
    run, difference = whole.ran()
    assert difference < TOLERANCE
    assert dict(run.memory) == whole.memory()


def with_step(program: Partitioned, index: int, step: Step) -> Partitioned:
    return replace(program, steps=(*program.steps[:index], step, *program.steps[index + 1 :]))


def find(program: Partitioned, kind: type[Step], right: Callable[[Step], bool] = lambda step: True) -> int:
    return next(i for i, step in enumerate(program.steps) if isinstance(step, kind) and right(step))


def changed(
    whole: Prepared, kind: type[Step], change: Callable[[tuple[Message, ...]], tuple[Message, ...]]
) -> Partitioned:
    index = find(whole.program, kind, lambda step: len(getattr(step, "messages", ())) > 1)
    step = whole.program.steps[index]
    assert isinstance(step, Move | Sum | Load | Store)
    return with_step(whole.program, index, replace(step, messages=change(step.messages)))


def caught(whole: Prepared, wrong: Partitioned, says: str) -> None:
    """The checker says so, and running it does not give the right numbers."""
    faults = whole.faults(wrong)
    assert any(says in fault for fault in faults), faults
    with suppress(Deadlock, AssertionError, KeyError, ValueError, IndexError):
        assert whole.ran(wrong)[1] > TOLERANCE


def test_a_lost_message(whole: Prepared) -> None:
    caught(whole, changed(whole, Move, lambda sent: sent[1:]), "lacks a part")


def test_a_message_to_the_wrong_core(whole: Prepared) -> None:
    def astray(sent: tuple[Message, ...]) -> tuple[Message, ...]:
        (x, y) = sent[0].targets[0]
        return (replace(sent[0], targets=((1 - x, y),)), *sent[1:])

    wrong = changed(whole, Move, astray)
    assert any("part" in fault for fault in whole.faults(wrong))


def test_a_message_with_too_few_words(whole: Prepared) -> None:
    wrong = changed(whole, Move, lambda sent: (replace(sent[0], words=sent[0].words + 1), *sent[1:]))
    assert any("words, not" in fault for fault in whole.faults(wrong))


def test_a_color_that_there_is_not(whole: Prepared) -> None:
    wrong = changed(whole, Move, lambda sent: (replace(sent[0], color=99), *sent[1:]))
    assert any("no color 99" in fault for fault in whole.faults(wrong))


def test_a_sum_without_one_of_its_parts(whole: Prepared) -> None:
    index = find(whole.program, Sum)
    step = whole.program.steps[index]
    assert isinstance(step, Sum)
    ends = {message.after for message in step.messages}
    first = next(i for i, m in enumerate(step.messages) if m.after is None and i not in ends)
    kept = tuple(m for i, m in enumerate(step.messages) if i != first)
    caught(whole, with_step(whole.program, index, replace(step, messages=kept)), "parts of")


def test_a_sum_of_the_wrong_kind_gives_wrong_numbers(whole: Prepared) -> None:
    index = find(whole.program, Sum, lambda step: isinstance(step, Sum) and step.kind == "sum")
    step = whole.program.steps[index]
    assert isinstance(step, Sum)
    assert whole.ran(with_step(whole.program, index, replace(step, kind="max")))[1] > TOLERANCE


def test_work_in_another_layout_than_its_operands(whole: Prepared) -> None:
    index = find(whole.program, Local, lambda s: isinstance(s, Local) and len(s.operands) == 2 and bool(s.work.rows))
    step = whole.program.steps[index]
    assert isinstance(step, Local)
    wrong = with_step(whole.program, index, replace(step, work=Layout(step.work.columns, step.work.rows)))
    assert any("the work needs" in fault or "the work gives" in fault for fault in whole.faults(wrong))


def test_swapped_operands(whole: Prepared) -> None:
    index = find(whole.program, Local, lambda s: isinstance(s, Local) and len({o.value for o in s.operands}) == 2)
    step = whole.program.steps[index]
    assert isinstance(step, Local)
    wrong = with_step(whole.program, index, replace(step, operands=step.operands[::-1]))
    assert any("stands where" in fault for fault in whole.faults(wrong))


def test_a_part_that_a_core_does_not_have(whole: Prepared) -> None:
    index = find(whole.program, View, lambda step: isinstance(step, View) and step.node is None)
    step = whole.program.steps[index]
    assert isinstance(step, View)
    source = next(b for b in whole.program.buffers() if b.id == step.source.root)
    other = Layout(step.result.layout.columns, step.result.layout.rows)
    moved = replace(step, source=replace(source, layout=other), result=replace(step.result, layout=step.result.layout))
    if other != step.result.layout:
        assert whole.faults(with_step(whole.program, index, moved))


def test_a_step_before_what_it_reads(whole: Prepared) -> None:
    steps = whole.program.steps
    index = find(whole.program, Local, lambda step: isinstance(step, Local) and bool(step.operands))
    wrong = replace(whole.program, steps=(steps[index], *steps[:index], *steps[index + 1 :]))
    assert any("where it is not there" in fault for fault in whole.faults(wrong))


def test_rectangles_that_overlap() -> None:
    piped = prepared(gpt2(), "prefill", "pipelined", cores(4, 4))
    (name, area), *others = piped.program.regions
    wrong = replace(piped.program, regions=((name, Rectangle(area.x, area.y, 4, 4)), *others))
    assert any("overlaps" in fault or "leaves the grid" in fault for fault in piped.faults(wrong))


def test_a_layout_that_the_op_cannot_have(whole: Prepared) -> None:
    """A softmax summed over what it is split along, without adding up: the plan is refused, or its program is."""
    index = next(i for i, n in enumerate(whole.flat.graph.body.nodes) if type(n.op).__name__ == "Dot")
    node = whole.flat.graph.body.nodes[index]
    over = node.op.over[0]  # type: ignore[union-attr]
    work = Layout((split(over, 2),), copies(2))
    wrong = Choice(work, Layout((split(over, 2),), copies(2)))
    try:
        program = lower(whole.flat, with_choice(whole.plan, index, wrong), cores(2, 2))
    except (NoSuchPartition, ValueError, KeyError):
        return
    assert whole.faults(program)
