"""What a valid partitioned program is: every fault of one, in words.

Layouts fit tensors and rectangles, ops find their operands as their rule says, messages bring every entry exactly once
from a core that has it, chains of sums pass every part exactly once, products in turns take every panel exactly once,
and nothing is read before it is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from math import prod

import numpy as np

from cgc.ir.graph import Node
from cgc.ir.ops import Dot, Merge
from cgc_wse.partition.layout import Layout, Tile, count, faults, overlap, within
from cgc_wse.partition.moves import Core
from cgc_wse.partition.program import (
    Buffer,
    Load,
    Local,
    Message,
    Move,
    Partitioned,
    Step,
    Store,
    Sum,
    View,
    messages,
    reads,
    words_of,
    writes,
)
from cgc_wse.partition.rules import NoSuchPartition, Sizes, rule, shape_of
from cgc_wse.place.geometry import faults as placement_faults


def check(program: Partitioned, sizes: Sizes) -> list[str]:
    """Return the faults of a program, each with the path of the step; none where it is valid."""
    device = program.device
    areas = sorted({area for _, area in program.regions}, key=lambda a: (a.y, a.x))
    found = placement_faults(areas, device.columns, device.rows)
    there = {buffer.id for buffer in program.resident}
    for index, (step, path) in enumerate(zip(program.steps, program.paths, strict=True)):
        at = f"step {index} ({path or 'no path'})"
        found += [f"{at}: {fault}" for fault in _step(step, sizes, device.colors, there)]
        there |= {buffer.id for buffer in writes(step)}
        there -= {buffer.id for buffer in program.freed.get(index, ())}
    found += _turns(program, sizes)
    found += [f"output `{name}` is never made" for name, buffer in program.outputs.items() if buffer.id not in there]
    return found


def _step(step: Step, sizes: Sizes, colors: int, there: set[int]) -> Iterator[str]:
    yield from _common(step, colors, there)
    match step:
        case Local():
            yield from _local(step, sizes)
        case View():
            yield from _view(step, sizes)
        case Move():
            yield from _move(step)
        case Sum():
            yield from _sum(step)
        case Load():
            yield from _covered(step.result, _arriving(step.messages), {})
        case Store():
            yield from _leaves(step)


def _common(step: Step, colors: int, there: set[int]) -> Iterator[str]:
    for buffer in (*reads(step), *writes(step)):
        for fault in faults(buffer.layout, buffer.shape, buffer.area.height, buffer.area.width):
            yield f"`{buffer.value}`: {fault}"
    for buffer in reads(step):
        if buffer.root not in there:
            yield f"`{buffer.value}` is read where it is not there"
    for message in messages(step):
        if not 0 <= message.color < colors:
            yield f"there is no color {message.color}"


def _local(step: Local, sizes: Sizes) -> Iterator[str]:
    yield from _rule(step.node, step.operands, step.results, step, sizes)


def _view(step: View, sizes: Sizes) -> Iterator[str]:
    if step.node is None:
        have = step.source.tiles()
        for core, tile in step.result.tiles().items():
            inner = step.result.in_tensor(tile)
            if core not in have or not within(inner, step.source.in_tensor(have[core])):
                yield f"core {core} does not have its part of `{step.result.value}`"
        return
    yield from _rule(step.node, (step.source,), (step.result,), step, sizes)


def _rule(
    node: Node, operands: tuple[Buffer, ...], results: tuple[Buffer, ...], step: Local | View, sizes: Sizes
) -> Iterator[str]:
    if not operands and not node.inputs:
        return
    work = step.work if isinstance(step, Local) else None
    try:
        needed = rule(node, work if work is not None else _view_work(node, results[0], operands[0]), sizes)
    except NoSuchPartition as error:
        yield str(error)
        return
    for operand, layout, value in zip(operands, needed.operands, node.inputs, strict=True):
        if operand.value != value.name:
            yield f"`{operand.value}` stands where `{value.name}` is read"
        if operand.layout != layout:
            yield f"`{operand.value}` lies as {operand.layout}; the work needs {layout}"
    for result, value in zip(results, node.outputs, strict=True):
        if result.shape != shape_of(value.type, sizes):
            yield f"`{result.value}` has another shape than its type"
        if result.layout != needed.result:
            yield f"`{result.value}` lies as {result.layout}; the work gives {needed.result}"


def _view_work(node: Node, result: Buffer, operand: Buffer) -> Layout:
    return operand.layout if isinstance(node.op, Merge) else result.layout


def _arriving(sent: tuple[Message, ...]) -> Mapping[Core, list[Tile]]:
    found: dict[Core, list[Tile]] = defaultdict(list)
    for message in sent:
        for core in message.targets:
            found[core].append(message.region)
    return found


def _move(step: Move) -> Iterator[str]:
    if step.source.value != step.result.value:
        yield f"`{step.source.value}` becomes `{step.result.value}` on the way"
    yield from _sent(step.source, step.messages)
    yield from _covered(step.result, _arriving(step.messages), step.source.tiles())


def _sent(source: Buffer, sent: tuple[Message, ...]) -> Iterator[str]:
    have = source.tiles()
    for message in sent:
        if message.source not in have or not within(message.region, have[message.source]):
            yield f"core {message.source} sends a part of `{source.value}` that it does not have"
        if message.words != words_of(source, message.region):
            yield f"a part of `{source.value}` takes {words_of(source, message.region)} words, not {message.words}"


def _covered(result: Buffer, arriving: Mapping[Core, list[Tile]], own: Mapping[Core, Tile]) -> Iterator[str]:
    """Every core has each entry of its tile once."""
    for core, wanted in result.tiles().items():
        pieces = list(arriving.get(core, ()))
        kept = overlap(own[core], wanted) if core in own else None
        pieces += [kept] if kept is not None else []
        if any(not within(piece, wanted) for piece in pieces):
            yield f"core {core} gets a part of `{result.value}` that is not its"
            continue
        times = np.zeros([high - low for low, high in wanted], np.int32)
        for piece in pieces:
            times[tuple(slice(p[0] - w[0], p[1] - w[0]) for p, w in zip(piece, wanted, strict=True))] += 1
        if times.max() > 1:
            yield f"core {core} gets a part of `{result.value}` twice"
        elif times.min() < 1:
            yield f"core {core} lacks a part of `{result.value}`"


def _sum(step: Sum) -> Iterator[str]:
    """Towards each core that gets a sum, every core of its group hands its part on once."""
    source, result = step.source, step.result
    yield from _sent(source, step.messages)
    for before, after in zip(source.layout.digits, result.layout.digits, strict=False):
        if before != after and before.kind != "sum":
            yield f"`{source.value}` lies as {source.layout}, its sums as {result.layout}"
            return
    if len(source.layout.digits) != len(result.layout.digits):
        yield f"`{source.value}` lies as {source.layout}, its sums as {result.layout}"
        return
    ends: dict[Core, list[int]] = defaultdict(list)
    handed = {message.after for message in step.messages}
    for index, message in enumerate(step.messages):
        if index not in handed:
            ends[message.targets[0]].append(index)
    size = _group(source, result)
    for core, tile in result.tiles().items():
        members = [core]
        for end in ends.get(core, ()):
            at: int | None = end
            while at is not None:
                members.append(step.messages[at].source)
                if step.messages[at].region != tile:
                    yield f"a chain to core {core} carries another part of `{result.value}` than its"
                at = step.messages[at].after
        if len(members) != size or len(set(members)) != size:
            yield f"{len(set(members))} of {size} parts of `{result.value}` come to core {core}"


def _group(source: Buffer, result: Buffer) -> int:
    """Return how many cores' parts make one sum."""
    size = 1
    for before, after in zip(source.layout.digits, result.layout.digits, strict=True):
        if before.kind == "sum" and after.kind != "sum":
            size *= before.parts
    return size


def _turns(program: Partitioned, sizes: Sizes) -> Iterator[str]:
    """Products of panels that are added to one another take every part of what they sum over once."""
    taken: dict[int, list[Tile]] = {}
    whole: dict[int, tuple[str, int]] = {}
    for step in program.steps:
        if not isinstance(step, Local) or not isinstance(step.node.op, Dot):
            continue
        left, right = (_summed_over(buffer, step.node.op.over) for buffer in step.operands)
        result, onto = step.results[0], step.onto
        if left != right:
            yield f"`{result.value}` is made of panels of different parts"
        if onto is not None and (onto.root != result.root or onto.layout != result.layout):
            yield f"`{result.value}` is added to `{onto.value}`, which lies elsewhere or otherwise"
        taken[result.id] = [*(taken.pop(onto.id, []) if onto is not None else []), left]
        shape = dict(shape_of(step.node.inputs[0].type, sizes))
        whole[result.id] = result.value, prod(shape[name] for name in step.node.op.over)
    for buffer, parts in taken.items():
        value, size = whole[buffer]
        twice = any(overlap(a, b) for a, b in combinations(parts, 2))
        if twice or sum(map(count, parts)) != size:
            yield f"the turns of `{value}` take {sum(map(count, parts))} of {size} entries" + ", some twice" * twice


def _summed_over(buffer: Buffer, over: tuple[str, ...]) -> Tile:
    """Return the part of the dimensions that are summed over that is in a buffer."""
    whole = buffer.in_tensor(tuple((0, size) for _, size in buffer.shape))
    names = [name for name, _ in buffer.shape]
    return tuple(whole[names.index(name)] for name in over)


def _leaves(step: Store) -> Iterator[str]:
    yield from _sent(step.source, step.messages)
    total = 1
    for _, size in step.source.shape:
        total *= size
    if sum(count(message.region) for message in step.messages) != total:
        yield f"not all of `{step.source.value}` leaves"
