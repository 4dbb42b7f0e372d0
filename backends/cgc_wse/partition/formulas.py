"""Cycles of moving tensors, by formula: what the planner and the analytic model go by.

Phases are those of `kernel_cost.collectives` (Luczynski et al., Near-Optimal Wafer-Scale Reduce, HPDC 2024). Words that
move are two phases side by side, each of one step: those of the busiest core or link, which come at least a hop, and
the largest message, on the longest way. Either sets the time:

    T = task + 2 * T_R + max(max(C, W) * word + hop, B * word + L * hop)

with C the most words that a core sends or receives, W the most on a link, L the longest way and B the words of the
largest message. A step ends when its words are in the core, a cycle before the formula has them taken there.

Words on links are counted along rows and columns, the first and the last: parts run along their source's row first,
then along their target's column, so that what passes a link of a row is what the row holds and the columns beyond it
want, and what passes a link of a column is what the rows on this side hold and those beyond want of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from cgc_wse.kernel_cost.collectives import Phase, later, meeting_phases, scattering_phases
from cgc_wse.kernel_cost.machine import LINK_WORD
from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.layout import (
    Axis,
    Digit,
    Layout,
    Shape,
    Tile,
    count,
    entries,
    largest_tile,
    length,
    overlap,
    split,
    tile,
)
from cgc_wse.place.geometry import Rectangle


@dataclass(frozen=True, slots=True)
class Traffic:
    """What sets the time of a move: words into and out of a core, words on a link by axis, longest ways in hops,
    words of the largest message.
    """

    received: int
    sent: int
    row_link: int
    column_link: int
    across: int
    down: int
    message: int

    @property
    def nothing(self) -> bool:
        """Whether all is where it has to be."""
        return not (self.received or self.row_link or self.column_link)


def words(entries: int, entry: int) -> int:
    """Return the link words of so many entries."""
    return -(-entries * entry // LINK_WORD)


def move_cycles(shape: Shape, entry: int, before: Layout, after: Layout, clock: Clock) -> float:
    """Return the cycles of bringing a tensor from one layout to another on the same rectangle, 0 where it is there."""
    found = traffic(shape, entry, before, after)
    if found.nothing:
        return 0.0
    busiest = max(found.received, found.sent, found.row_link, found.column_link)
    slowest, farthest = Phase(busiest, busiest, 1, 1), Phase(found.message, found.message, found.across + found.down, 1)
    return arrived(later(clock, slowest, farthest), clock)


def arrived(phase: Phase, clock: Clock) -> float:
    """Return the cycles of a phase with its start until its last word is in its core."""
    return clock.task + phase.cycles(clock) - 1


def traffic(shape: Shape, entry: int, before: Layout, after: Layout) -> Traffic:
    """Return what a change of layout moves."""
    if before == after:
        return Traffic(0, 0, 0, 0, 0, 0, 0)
    # Names and order of dimensions do not matter, nor how those that stay whole make up what they do.
    names: dict[str, str] = {}
    for digit in before.digits + after.digits:
        if digit.dim:
            names.setdefault(digit.dim, str(len(names)))
    rest = prod(size for name, size in shape if name not in names)
    sizes = dict(shape)
    small = tuple((short, sizes[name]) for name, short in names.items())
    before, after = (Layout(_renamed(one.rows, names), _renamed(one.columns, names)) for one in (before, after))
    return _traffic((*small, ("rest", rest)), entry, before, after)


@cache
def _traffic(shape: Shape, entry: int, before: Layout, after: Layout) -> Traffic:
    rows, columns = before.shape
    row_link, across, sent_row = _along_row(shape, entry, before, after)
    column_link, down, sent_column = _along_column(shape, entry, before, after)
    received = 0
    for r, c in {(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)}:
        wanted, own = tile(after, shape, r, c), tile(before, shape, r, c)
        if wanted is not None:
            shared = overlap(wanted, own) if own is not None else None
            received = max(received, words(count(wanted) - (count(shared) if shared else 0), entry))
    sent = max(sent_row, sent_column if rows == 1 or not sent_row else 0)
    return Traffic(received, sent, row_link, column_link, across, down, _message(shape, entry, before, after))


def _message(shape: Shape, entry: int, before: Layout, after: Layout) -> int:
    """Return the words of the largest part that travels as one: what blocks of both layouts share."""
    return words(
        prod(min(-(-size // before.parts(name)), -(-size // after.parts(name))) for name, size in shape), entry
    )


def _along_row(shape: Shape, entry: int, before: Layout, after: Layout) -> tuple[int, int, int]:
    """Count along a row: what each core of it holds, and what the cores of each column want together.

    Only the dimensions that columns split matter; the block of the others is a factor.
    """
    dims = list(dict.fromkeys(d.dim for d in before.columns + after.columns if d.dim))
    names = {name: str(at) for at, name in enumerate(dims)}
    small = tuple(
        (names[name], size) for name, size in sorted(shape, key=lambda one: names.get(one[0], "")) if name in names
    )
    factor = prod(-(-size // Layout(before.rows, ()).parts(name)) for name, size in shape if name not in names)
    rows = Layout(before.rows, ()).restricted(dims).renamed(names).rows
    rows = rows if any(d.dim or d.kind == "one" for d in rows) else ()
    both = frozenset(names[d.dim] for d in after.rows if d.dim in names)
    found = _row_line(small, Layout(rows, _renamed(before.columns, names)), _renamed(after.columns, names), both)
    return words(found[0] * factor, entry), found[1], words(found[2] * factor, entry)


def _along_column(shape: Shape, entry: int, before: Layout, after: Layout) -> tuple[int, int, int]:
    """Count along a column: what the cores of each row hold together, and what each core of the column wants."""
    dims = list(dict.fromkeys(d.dim for d in before.rows + after.rows if d.dim))
    names = {name: str(at) for at, name in enumerate(dims)}
    small = tuple(
        (names[name], size) for name, size in sorted(shape, key=lambda one: names.get(one[0], "")) if name in names
    )
    factor = prod(-(-size // Layout((), after.columns).parts(name)) for name, size in shape if name not in names)
    columns = Layout((), after.columns).restricted(dims).renamed(names).columns
    columns = columns if any(d.dim or d.kind == "one" for d in columns) else ()
    found = _column_line(small, _renamed(before.rows, names), Layout(_renamed(after.rows, names), columns))
    return words(found[0] * factor, entry), found[1], words(found[2] * factor, entry)


def _renamed(axis: Axis, names: Mapping[str, str]) -> Axis:
    return tuple(split(names[d.dim], d.parts) if d.dim else d for d in axis)


@cache
def _row_line(shape: Shape, before: Layout, after: Axis, both: frozenset[str]) -> tuple[int, int, int]:
    """Count along the first and the last row; `both` are dimensions that rows split too: a column wants all of them."""
    along = Layout((), after)
    wanted: list[Tile | None] = []
    for column in range(length(after)):
        found = tile(along, shape, 0, column)
        spans = zip(shape, found, strict=True) if found is not None else ()
        wanted.append(
            None if found is None else tuple((0, size) if name in both else one for (name, size), one in spans)
        )
    columns = range(length(before.columns))
    lines = [_line([tile(before, shape, row, c) for c in columns], wanted) for row in _ends(before.rows)]
    return _most(lines)


@cache
def _column_line(shape: Shape, before: Axis, after: Layout) -> tuple[int, int, int]:
    along = Layout(before, ())
    sources = [tile(along, shape, r, 0) for r in range(length(before))]
    rows = range(length(after.rows))
    return _most([_line(sources, [tile(after, shape, r, column) for r in rows]) for column in _ends(after.columns)])


def _most(lines: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    peak, far, sent = (max(values) for values in zip(*lines, strict=True))
    return peak, far, sent


def _ends(axis: Axis) -> tuple[int, ...]:
    """Return the first index along an axis at which something is held, and the last."""
    if any(digit.kind == "one" for digit in axis):
        return (_held_at(axis),)
    return (0, length(axis) - 1) if axis else (0,)


def _held_at(axis: Axis) -> int:
    """Return the first index along an axis at which something is held."""
    index = 0
    for digit in axis:
        index = index * digit.parts + (digit.at if digit.kind == "one" else 0)
    return index


def _line(sources: list[Tile | None], wanted: list[Tile | None]) -> tuple[int, int, int]:
    """Return the entries on the busiest link of a line of cores, the longest way, and the most that one core sends."""
    holders = _grouped(sources)
    sends: dict[tuple[int, Tile], list[int]] = defaultdict(list)
    for need, takers in _grouped(wanted).items():
        for have, cores in holders.items():
            region = overlap(need, have)
            if region is None:
                continue
            near = set(cores)
            for taker in takers:
                if taker not in near:
                    sends[min(cores, key=lambda c: (abs(c - taker), c)), region].append(taker)
    right, left = [0] * (len(sources) + 1), [0] * (len(sources) + 1)
    farthest = 0
    sent: dict[int, int] = defaultdict(int)
    for (source, region), takers in sends.items():
        amount = count(region)
        sent[source] += amount
        high, low = max(takers), min(takers)
        farthest = max(farthest, high - source, source - low)
        if high > source:
            right[source] += amount
            right[high] -= amount
        if low < source:
            left[low] += amount
            left[source] -= amount
    return max(_peak(right), _peak(left)), farthest, max(sent.values(), default=0)


def _peak(changes: list[int]) -> int:
    level = peak = 0
    for change in changes:
        level += change
        peak = max(peak, level)
    return peak


def _grouped(tiles: list[Tile | None]) -> Mapping[Tile, list[int]]:
    found: dict[Tile, list[int]] = {}
    for index, one in enumerate(tiles):
        if one is not None and count(one):
            found.setdefault(one, []).append(index)
    return found


def spread_cycles(
    shape: Shape, entry: int, before: Layout, area: Rectangle, after: Layout, target: Rectangle, clock: Clock
) -> float:
    """Return the cycles of moving a tensor to another rectangle.

    The busiest is a core that sends its tile or gets one, or a link of the narrowest way between the two: rows carry
    what leaves over them, columns what arrives over them.
    """
    sent = words(entries(largest_tile(before, shape)), entry)
    received = words(entries(largest_tile(after, shape)), entry)
    total = words(entries(shape), entry)
    rows = min(area.height, _parts_out(before))
    through = -(-total // max(1, rows)) if target.x >= area.x + area.width or target.x + target.width <= area.x else 0
    far = (
        abs(area.x + area.width / 2 - target.x - target.width / 2)
        + abs(area.y + area.height / 2 - target.y - target.height / 2)
        + (target.width + target.height) / 2
    )
    busiest = max(sent, received, through)
    return arrived(Phase(busiest, busiest, far, 1), clock)


def _parts_out(layout: Layout) -> int:
    """Return how many rows of a rectangle hold different parts of a tensor."""
    return prod(digit.parts for digit in layout.rows if digit.kind == "split") or 1


# ---- sums


@dataclass(frozen=True, slots=True)
class Summing:
    """Sums along one axis: `group` cores have parts of one result, `stride` cores apart; `targets` get a piece each."""

    group: int
    stride: int
    targets: int
    words: int


def summing(shape: Shape, entry: int, before: Axis, after: Axis, result: Layout) -> Summing:
    """Return what adding up the `sum` digits of an axis takes; `after` is the axis then."""
    group = stride = targets = 1
    for digit, then in zip(reversed(before), reversed(after), strict=True):
        if digit.kind == "sum":
            group *= digit.parts
            targets *= digit.parts if then.kind == "split" else 1
        elif group == 1:
            stride *= digit.parts
    biggest = 1
    for name, size in shape:
        biggest *= -(-size // result.parts(name))
    return Summing(group, stride, targets, words(biggest, entry))


def sum_cycles(found: Summing, clock: Clock) -> float:
    """Return the cycles of chains of sums: towards one target, or towards all of a group.

    As many chains as the stride share a link, which carries the words of all.
    """
    if found.group == 1:
        return 0.0
    chains = meeting_phases if found.targets == 1 else scattering_phases
    return arrived(later(clock, *chains(found.group, found.words * found.stride, found.stride)), clock)


def summed_axis(axis: Axis) -> Axis:
    """Return an axis with one core in the middle of each sum for the sum."""
    return tuple(Digit("one", d.parts, at=d.parts // 2) if d.kind == "sum" else d for d in axis)


def has_sums(axis: Axis) -> bool:
    """Tell whether something is to be summed along an axis."""
    return any(digit.kind == "sum" for digit in axis)
