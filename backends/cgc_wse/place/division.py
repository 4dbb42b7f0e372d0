"""Rectangles of cores for blocks in proportion to what they want: a slicing floorplan in whole cores.

The wafer is cut in two again and again, always across the longer side and near the half of the work, so that blocks
keep their order and groups (a layer, a block with blocks in it) stay together. Every cut is rounded to whole lines of
cores: a block's share of a cut is off by at most one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cgc_wse.place.geometry import Rectangle

NO_WORK = 1e-12
"""A block with this part of the largest block's work has none to speak of."""


class DoesNotFit(Exception):
    """There are more blocks than cores."""


@dataclass(frozen=True, slots=True)
class Share:
    """A block that wants `weight` cores, or a group of them; `leaves` is the number of blocks in it."""

    weight: float
    parts: tuple[Share, ...] = ()
    leaves: int = 1


def group(parts: Sequence[Share]) -> Share:
    """Return a group of `parts`, of which there is at least one."""
    return Share(sum(part.weight for part in parts), tuple(parts), sum(part.leaves for part in parts))


def water_level(work: Sequence[float], least: Sequence[int], cores: int) -> list[float]:
    """Return the cores each block wants: in proportion to its `work`, but not under its `least`.

    They sum to `cores` unless there is no work at all.

    Raises:
        DoesNotFit: the `least` alone are more than `cores`.
    """
    if sum(least) > cores:
        raise DoesNotFit(f"{sum(least)} cores are needed at least, there are {cores}")
    # In parts of the largest, so that no quotient below overflows; what is next to nothing counts as no work.
    largest = max(work, default=0.0)
    work = [amount / largest if amount > NO_WORK * largest else 0.0 for amount in work]
    # Blocks whose fair share is under their least are given that and leave the rest to the others. Sorted by what they
    # need for each unit of work, they are a prefix.
    order = sorted(range(len(work)), key=lambda i: (-least[i] / work[i] if work[i] > 0 else float("-inf"), i))
    free, remaining = float(cores), sum(work)
    wanted = [float(count) for count in least]
    for position, i in enumerate(order):
        if remaining > 0 and work[i] > 0 and free * work[i] / remaining >= least[i]:
            for j in order[position:]:
                wanted[j] = free * work[j] / remaining
            break
        free -= least[i]
        remaining -= work[i]
    return wanted


def divide(share: Share, area: Rectangle) -> list[Rectangle]:
    """Return a rectangle for every block of `share`, in order; together they fill `area`.

    Raises:
        DoesNotFit: there are more blocks than cores.
    """
    if share.leaves > area.cores:
        raise DoesNotFit(f"{share.leaves} blocks on {area.cores} cores")
    return _divide((share,), area)


def _divide(shares: tuple[Share, ...], area: Rectangle) -> list[Rectangle]:
    while len(shares) == 1:
        if not shares[0].parts:
            return [area]
        shares = shares[0].parts
    length, across = max(area.width, area.height), min(area.width, area.height)
    split = _split(shares, length, across)
    while split is None:
        # The groups are too coarse for so tight an area: open one level of them. Single blocks always split.
        shares = tuple(part for share in shares for part in (share.parts or (share,)))
        split = _split(shares, length, across)
    first, second = shares[:split], shares[split:]
    lines = _lines(first, second, length, across)
    if area.width >= area.height:
        left = Rectangle(area.x, area.y, lines, area.height)
        right = Rectangle(area.x + lines, area.y, area.width - lines, area.height)
    else:
        left = Rectangle(area.x, area.y, area.width, lines)
        right = Rectangle(area.x, area.y + lines, area.width, area.height - lines)
    return _divide(first, left) + _divide(second, right)


def _split(shares: tuple[Share, ...], length: int, across: int) -> int | None:
    """Where to cut the list so that both halves have a core for every block and their weights are nearly equal."""
    total, leaves = sum(share.weight for share in shares), sum(share.leaves for share in shares)
    best: tuple[float, int, int] | None = None
    weight, count = 0.0, 0
    for index, share in enumerate(shares[:-1], start=1):
        weight += share.weight
        count += share.leaves
        if -(-count // across) + -(-(leaves - count) // across) <= length:
            candidate = (abs(weight - total / 2), abs(2 * count - leaves), index)
            best = candidate if best is None else min(best, candidate)
    return None if best is None else best[2]


def _lines(first: tuple[Share, ...], second: tuple[Share, ...], length: int, across: int) -> int:
    """How many of the `length` lines of cores the first half gets."""
    weight = sum(share.weight for share in first)
    total = weight + sum(share.weight for share in second)
    fair = round(length * weight / total) if total > 0 else length // 2
    least = -(-sum(share.leaves for share in first) // across)
    most = length - -(-sum(share.leaves for share in second) // across)
    return min(max(fair, least), most)
