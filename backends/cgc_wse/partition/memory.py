"""Memory by analysis: what every core holds at its worst moment, tensor by tensor, from layouts and lifetimes alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cgc.ir.ops import opcode
from cgc_wse.partition.flat import CATEGORIES, Category
from cgc_wse.partition.layout import Digit, Layout, Shape, block, values
from cgc_wse.partition.moves import Core, cores_of
from cgc_wse.partition.program import CODE, DESCRIPTOR, Buffer, Load, Local, Partitioned, Step, View, reads, writes
from cgc_wse.place.geometry import Rectangle


@dataclass(frozen=True, slots=True)
class Peak:
    """The most a core holds: bytes in all and by category at that moment, and the tensors with most of them."""

    core: Core
    bytes: int
    categories: Mapping[Category, int]
    tensors: tuple[tuple[str, Category, int], ...]


def buffer_bytes(buffer: Buffer) -> Mapping[Core, int]:
    """Return the bytes of a buffer in each core that has some, from the lengths of blocks."""
    return _bytes(buffer.layout, buffer.shape, buffer.entry, buffer.area)


@lru_cache(maxsize=20_000)
def _bytes(layout: Layout, shape: Shape, entry: int, area: Rectangle) -> Mapping[Core, int]:
    sizes = {core: _entries(layout, shape, core[1] - area.y, core[0] - area.x) * entry for core in cores_of(area)}
    return {core: size for core, size in sizes.items() if size}


def _entries(layout: Layout, shape: Shape, row: int, column: int) -> int:
    place = values(layout.rows, row) + values(layout.columns, column)
    index: dict[str, int] = {}
    for digit, value in zip(layout.digits, place, strict=True):
        if digit.kind == "one" and digit.at != value:
            return 0
        if digit.kind == "split":
            index[digit.dim] = index.get(digit.dim, 0) * digit.parts + value
    total = 1
    for name, size in shape:
        low, high = block(size, layout.parts(name), index.get(name, 0))
        total *= high - low
    return total


def code_bytes(program: Partitioned) -> dict[Core, int]:
    """Return the bytes of code in each core: each kind of work once, and a descriptor for each step that differs."""
    kinds: defaultdict[Rectangle, set[str]] = defaultdict(set)
    steps: defaultdict[Rectangle, set[int]] = defaultdict(set)
    known: dict[object, int] = {}
    for step in program.steps:
        if isinstance(step, View):
            continue
        kind, what = _kind(step), known.setdefault(_described(step), len(known))
        for area in program.areas(step):
            kinds[area].add(kind)
            steps[area].add(what)
    areas: defaultdict[Core, list[Rectangle]] = defaultdict(list)
    for area in kinds:
        for core in cores_of(area):
            areas[core].append(area)
    whole = [(x, y) for y in range(program.device.rows) for x in range(program.device.columns)]
    return {
        core: CODE * len(set().union(*(kinds[area] for area in areas[core])))
        + DESCRIPTOR * len(set().union(*(steps[area] for area in areas[core])))
        for core in whole
    }


def _kind(step: Step) -> str:
    if isinstance(step, Local):
        return f"{opcode(step.node.op)} {getattr(step.node.op, 'kind', '')}"
    return type(step).__name__


def _described(step: Step) -> object:
    """Return what two steps that share a descriptor have in common: tensors differ in where they are only.

    So do the panels of a product in turns: a loop goes through them.
    """
    shapes = tuple((b.shape, b.dtype, _described_layout(b), b.area) for b in (*reads(step), *writes(step)))
    op = step.node.op if isinstance(step, Local) else _kind(step)
    return op, shapes


def _described_layout(buffer: Buffer) -> Layout:
    """Return a buffer's layout; of a panel, without which of its cores have it."""
    if not buffer.start:
        return buffer.layout
    return buffer.layout.mapped(lambda digit: Digit("one", digit.parts) if digit.kind == "one" else digit)


def peaks(program: Partitioned) -> dict[Core, int]:
    """Return the most bytes that each core holds at a time."""
    used = code_bytes(program)
    most = dict(used)
    for _, buffer, sign in timeline(program):
        for core, size in buffer_bytes(buffer).items():
            used[core] += sign * size
            most[core] = max(most[core], used[core])
    return most


def timeline(program: Partitioned) -> list[tuple[int, Buffer, int]]:
    """Return allocations (+1) and frees (-1) in order, with the index of the step they belong to."""
    found = [(-1, buffer, 1) for buffer in program.resident]
    freed, posts = program.freed, program.posts
    found += [(-1, buffer, -1) for buffer in freed.get(-1, ())]
    for index, step in enumerate(program.steps):
        for load in posts.get(index, ()):
            found += [(index, buffer, 1) for buffer in writes(program.steps[load])]
        if not isinstance(step, Load):
            found += [(index, buffer, 1) for buffer in writes(step) if buffer.owns]
        found += [(index, buffer, -1) for buffer in freed.get(index, ())]
    return found


def worst(program: Partitioned, most: Mapping[Core, int] | None = None) -> Peak:
    """Return the peak of the fullest core, with what is in it at that moment."""
    most = most if most is not None else peaks(program)
    core = max(most, key=lambda one: (most[one], -one[1], -one[0]))
    code = code_bytes(program)[core]
    used, live, at_peak = code, dict[int, tuple[Buffer, int]](), list[tuple[Buffer, int]]()
    peak = used
    for _, buffer, sign in timeline(program):
        size = buffer_bytes(buffer).get(core, 0)
        if not size:
            continue
        used += sign * size
        if sign > 0:
            live[buffer.id] = (buffer, size)
        else:
            live.pop(buffer.id, None)
        if used > peak:
            peak, at_peak = used, list(live.values())
    found = dict.fromkeys(CATEGORIES, 0)
    found["code"] = code
    for buffer, size in at_peak:
        found[buffer.category] += size
    tensors = sorted(((b.label, b.category, size) for b, size in at_peak), key=lambda one: (-one[2], one[0]))
    return Peak(core, peak, {name: size for name, size in found.items() if size}, tuple(tensors))
