"""Cycles of moving tensors, by formula: what the planner and the analytic model go by.

A phase in which words travel takes, as Luczynski et al. (Near-Optimal Wafer-Scale Reduce, HPDC 2024) have it,

    T = task + max(C, W) * word + L * hop + 2 * T_R + D * (2 * T_R + 1 + hops)

with C the most words that a core sends or receives, W the most on a link, L the longest way and D further dependent
steps. Words on links are counted along one row and one column: parts run along their source's row first, then along
their target's column, so that what passes a link of a row is what the row holds and the columns beyond it want, and
what passes a link of a column is what the rows on this side hold and those beyond want of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cgc_wse.partition.core_cost import Clock
from cgc_wse.partition.layout import (
    Axis,
    Digit,
    Layout,
    Shape,
    Tile,
    count,
    length,
    overlap,
    tile,
)
from cgc_wse.partition.program import WORD


@dataclass(frozen=True, slots=True)
class Traffic:
    """What sets the time of a move: words into and out of a core, words on a link by axis, longest ways in hops."""

    received: int
    sent: int
    row_link: int
    column_link: int
    across: int
    down: int

    @property
    def nothing(self) -> bool:
        """Whether all is where it has to be."""
        return not (self.received or self.row_link or self.column_link)


def words(entries: int, entry: int) -> int:
    """Return the link words of so many entries."""
    return -(-entries * entry // WORD)


def move_cycles(shape: Shape, entry: int, before: Layout, after: Layout, clock: Clock) -> float:
    """Return the cycles of bringing a tensor from one layout to another on the same rectangle, 0 where it is there."""
    found = traffic(shape, entry, before, after)
    if found.nothing:
        return 0.0
    busiest = max(found.received, found.sent, found.row_link, found.column_link)
    return clock.task + 2 * clock.ramp + busiest * clock.word + (found.across + found.down) * clock.hop


@cache
def traffic(shape: Shape, entry: int, before: Layout, after: Layout) -> Traffic:
    """Return what a change of layout moves."""
    if before == after:
        return Traffic(0, 0, 0, 0, 0, 0)
    rows, columns = before.shape
    row_link, across, sent_row = _line(
        shape,
        entry,
        [tile(before, shape, _held_at(before.rows), c) for c in range(columns)],
        [_part(shape, Layout((), after.columns), after.rows, c) for c in range(columns)],
    )
    column_link, down, sent_column = _line(
        shape,
        entry,
        [_row_part(shape, before, r) for r in range(rows)],
        [tile(after, shape, r, _held_at(after.columns)) for r in range(rows)],
    )
    received = 0
    for r, c in {(r, c) for r in (0, rows // 2, rows - 1) for c in (0, columns // 2, columns - 1)}:
        wanted, own = tile(after, shape, r, c), tile(before, shape, r, c)
        if wanted is not None:
            shared = overlap(wanted, own) if own is not None else None
            received = max(received, words(count(wanted) - (count(shared) if shared else 0), entry))
    return Traffic(received, max(sent_row, sent_column if rows == 1 or not sent_row else 0), row_link, column_link, across, down)


def _held_at(axis: Axis) -> int:
    """Return the first index along an axis at which something is held."""
    index = 0
    for digit in axis:
        index = index * digit.parts + (digit.at if digit.kind == "one" else 0)
    return index


def _part(shape: Shape, along: Layout, other: Axis, index: int) -> Tile | None:
    """Return what a column wants, all its rows together."""
    both = {digit.dim for digit in other if digit.kind == "split"}
    found = tile(along, shape, 0, index)
    return found and tuple((0, size) if name in both else span for (name, size), span in zip(shape, found, strict=True))


def _row_part(shape: Shape, before: Layout, index: int) -> Tile | None:
    """Return what a row holds, all its columns together."""
    return tile(Layout(before.rows, ()), shape, index, 0)


def _line(
    shape: Shape, entry: int, sources: list[Tile | None], wanted: list[Tile | None]
) -> tuple[int, int, int]:
    """Return the words on the busiest link of a line of cores, the longest way, and the most that one core sends."""
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
        amount = words(count(region), entry)
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
    """Return the cycles of chains of sums.

    Towards one target two chains meet in the middle; towards all of them as many pieces as there are cores run both
    ways, and each core hands on those that end beyond it.
    """
    if found.group == 1:
        return 0.0
    step = clock.relay + found.stride * clock.hop
    if found.targets == 1:
        middle = found.group // 2
        arms = 1 if found.group == 2 else 2
        return clock.task + middle * step + max(arms, found.stride) * found.words * clock.word
    busiest = max(found.group + 1, found.stride * (found.group - 1))
    return clock.task + (found.group - 1) * step + busiest * found.words * clock.word


def summed_axis(axis: Axis) -> Axis:
    """Return an axis with one core in the middle of each sum for the sum."""
    return tuple(Digit("one", d.parts, at=d.parts // 2) if d.kind == "sum" else d for d in axis)


def has_sums(axis: Axis) -> bool:
    """Tell whether something is to be summed along an axis."""
    return any(digit.kind == "sum" for digit in axis)


def axis_length(axis: Axis) -> int:
    """Return the number of cores along an axis."""
    return length(axis)
