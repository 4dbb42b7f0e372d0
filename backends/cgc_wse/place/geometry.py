"""Rectangles of cores, which of them overlap, and whether a placement is legal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rectangle:
    """`width` columns by `height` rows of cores whose corner nearest the origin is (`x`, `y`)."""

    x: int
    y: int
    width: int
    height: int

    @property
    def cores(self) -> int:
        """Number of cores."""
        return self.width * self.height


def overlaps(rectangles: Sequence[Rectangle]) -> list[tuple[int, int]]:
    """Return all pairs that share a core."""
    sides = np.array([(r.x, r.y, r.x + r.width, r.y + r.height) for r in rectangles], dtype=np.int64).reshape(-1, 4)
    found = []
    for i in range(len(sides)):
        x, y, right, top = sides[i]
        rest = sides[i + 1 :]
        clash = (rest[:, 0] < right) & (rest[:, 2] > x) & (rest[:, 1] < top) & (rest[:, 3] > y)
        found += [(i, i + 1 + int(j)) for j in np.nonzero(clash)[0]]
    return found


def faults(rectangles: Sequence[Rectangle], columns: int, rows: int) -> list[str]:
    """Return what is illegal in a placement on a grid of `columns` × `rows`: nothing where it is legal."""
    found = [f"{_shown(r)} is empty" for r in rectangles if r.width < 1 or r.height < 1]
    for r in rectangles:
        if r.x < 0 or r.y < 0 or r.x + r.width > columns or r.y + r.height > rows:
            found.append(f"{_shown(r)} leaves the grid of {columns} x {rows}")
    if found:
        return found
    return [f"{_shown(rectangles[j])} overlaps {_shown(rectangles[i])}" for i, j in overlaps(rectangles)]


def _shown(r: Rectangle) -> str:
    return f"{r.width} x {r.height} at ({r.x}, {r.y})"
