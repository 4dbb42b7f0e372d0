"""Products whose operands stay split over both axes and travel in turns, as in SUMMA.

Work that is split along the dimensions of the result alone needs all of a summed dimension k in every core. Here each
operand keeps k in blocks instead, along those digits that split what it does not have:

    work       rows m/4, columns n/4
    left       rows m/4, columns k/4        gathered it would be rows m/4, columns copy*4
    right      rows k/4, columns n/4        gathered it would be rows copy*4, columns n/4

In each turn the cores that have a panel of k broadcast it, the left one along rows, the right one along columns, and
every core adds the product of the two to its tile of the result. A core holds its own tiles and one panel of each
operand at a time (van de Geijn and Watts, SUMMA, 1997). Panels end where a block of either operand does, so that the
rectangle may have any shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from cgc.ir.graph import Node
from cgc.ir.ops import Dot
from cgc_wse.partition.core_cost import Clock, work_cycles
from cgc_wse.partition.formulas import move_cycles
from cgc_wse.partition.layout import Axis, Digit, Interval, Layout, Shape, block, entries, largest_tile, split
from cgc_wse.partition.plan import Choice
from cgc_wse.partition.program import ENTRY_BYTES
from cgc_wse.partition.rules import Rule, Sizes, iteration, rule, shape_of

MOST_TURNS = 64
"""Turns of a product that is still looked at."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the summed dimension, and where each operand has it: the layout of the cores that do."""

    part: Interval
    holders: tuple[Layout, ...]


def travelled(node: Node, work: Layout, sizes: Sizes) -> str | None:
    """Return the dimension that would travel if a node worked so: the largest summed one; None where none can."""
    if not isinstance(node.op, Dot) or any(digit.kind != "split" for digit in work.digits):
        return None
    space = dict(iteration(node, sizes))
    over = [name for name in node.op.over if space[name] > 1]
    if not over or any(work.parts(name) > 1 for name in node.op.over):
        return None
    dim = max(over, key=lambda name: (space[name], name))
    parts = [_blocks(node, at, work) for at in range(2)]
    if max(parts) == 1 or max(parts) > space[dim] or len(_breaks(space[dim], parts)) - 1 > MOST_TURNS:
        return None
    return dim


def needs(node: Node, choice: Choice, sizes: Sizes) -> Rule:
    """Return how operands lie before the node starts, and its result: as the rule says unless something travels."""
    found = rule(node, choice.work, sizes)
    if not choice.travels:
        return found
    return Rule(tuple(_resting(node, at, choice) for at in range(2)), found.result)


def panels(node: Node, choice: Choice, sizes: Sizes) -> list[Panel]:
    """Return the panels in the order of their turns."""
    size = dict(iteration(node, sizes))[choice.travels]
    parts = [_blocks(node, at, choice.work) for at in range(2)]
    found: list[Panel] = []
    for low, high in pairwise(_breaks(size, parts)):
        index = [low // -(-size // count) for count in parts]
        holders = tuple(_holding(_resting(node, at, choice), choice.travels, index[at]) for at in range(2))
        found.append(Panel((low, high), holders))
    return found


def part_of(shape: Shape, dim: str, part: Interval) -> Shape:
    """Return the shape of a panel."""
    return tuple((name, part[1] - part[0] if name == dim else size) for name, size in shape)


def turn_cycles(node: Node, choice: Choice, sizes: Sizes, clock: Clock) -> float:
    """Return the cycles of all turns: two broadcasts and a product each, one after the other."""
    space, wanted = iteration(node, sizes), rule(node, choice.work, sizes).operands
    total = 0.0
    for panel in panels(node, choice, sizes):
        total += work_cycles(node, largest_tile(choice.work, part_of(space, choice.travels, panel.part)), clock)
        for value, have, need in zip(node.inputs, panel.holders, wanted, strict=True):
            shape = part_of(shape_of(value.type, sizes), choice.travels, panel.part)
            total += move_cycles(shape, ENTRY_BYTES[value.type.dtype], have, need, clock)
    return total


def panel_bytes(node: Node, choice: Choice, sizes: Sizes) -> int:
    """Return the bytes of the largest panels of both operands in a core."""
    most = 0
    for panel in panels(node, choice, sizes):
        total = 0
        for value, have, need in zip(node.inputs, panel.holders, rule(node, choice.work, sizes).operands, strict=True):
            shape = part_of(shape_of(value.type, sizes), choice.travels, panel.part)
            total += 0 if have == need else entries(largest_tile(need, shape)) * ENTRY_BYTES[value.type.dtype]
        most = max(most, total)
    return most


def _blocks(node: Node, at: int, work: Layout) -> int:
    """Return how many blocks of the summed dimension an operand keeps: one for each part of what it does not have."""
    own = node.inputs[at].type
    count = 1
    for digit in work.digits:
        count *= 1 if own.has(digit.dim) else digit.parts
    return count


def _breaks(size: int, parts: list[int]) -> list[int]:
    """Return where panels begin and end."""
    return sorted({edge for count in parts for index in range(count) for edge in block(size, count, index)})


def _resting(node: Node, at: int, choice: Choice) -> Layout:
    """Return the layout in which an operand waits for its turns. Digits stay apart, that one each can be picked."""
    own = node.inputs[at].type

    def axis(digits: Axis) -> Axis:
        return tuple(d if own.has(d.dim) else split(choice.travels, d.parts) for d in digits)

    return Layout(axis(choice.work.rows), axis(choice.work.columns))


def _holding(resting: Layout, dim: str, index: int) -> Layout:
    """Return the layout of block `index` of what lies split: with the cores that have it."""

    def axis(digits: Axis) -> Axis:
        nonlocal index
        found: list[Digit] = []
        for digit in reversed(digits):
            if digit.dim == dim:
                index, at = divmod(index, digit.parts)
                found.append(Digit("one", digit.parts, at=at))
            else:
                found.append(digit)
        return tuple(reversed(found))

    columns = axis(resting.columns)
    return Layout(axis(resting.rows), columns)
