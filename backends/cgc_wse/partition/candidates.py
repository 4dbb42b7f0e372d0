"""The layouts worth trying: what each axis of a rectangle may split, alone or two dimensions together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from cgc_wse.partition.layout import Axis, Layout, Shape, copies, largest_tile, split


def axes(shape: Shape, allowed: Sequence[str], cores: int) -> list[Axis]:
    """Return what `cores` along an axis may do to a tensor: copy it, split a dimension, or split two neighbours."""
    sizes = [(name, size) for name, size in shape if name in allowed and size > 1]
    if cores == 1:
        return [()]
    found: list[Axis] = [copies(cores)]
    found += [(split(name, cores),) for name, _ in sizes]
    for (first, many), (second, more) in pairwise(sizes):
        parts = max((p for p in range(2, min(many, cores - 1) + 1) if cores % p == 0), default=1)
        if parts > 1 and cores // parts <= more:
            found.append((split(first, parts), split(second, cores // parts)))
    return found


def layouts(shape: Shape, allowed: Sequence[str], rows: int, columns: int, most: int) -> list[Layout]:
    """Return up to `most` layouts of a space: those with the smallest largest tile first, ties in order of dimensions.

    The one that leaves everything whole is always among them.
    """
    found: list[tuple[int, int, Layout]] = []
    sizes = dict(shape)
    for r in axes(shape, allowed, rows):
        for c in axes(shape, allowed, columns):
            shared = {d.dim for d in r if d.dim} & {d.dim for d in c if d.dim}
            layout = Layout(r, c)
            if any(layout.parts(dim) > sizes[dim] for dim in shared):
                continue
            work = prod(size for _, size in largest_tile(layout, shape))
            found.append((work, len(found), layout))
    whole = Layout(copies(rows), copies(columns))
    best = [layout for _, _, layout in sorted(found, key=lambda one: one[:2])[:most]]
    return best if whole in best else [*best[: most - 1], whole]
