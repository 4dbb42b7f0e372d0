"""How a tensor lies on a rectangle of cores.

The index of a core along an axis (its row, its column) is a number in mixed radix, most significant digit first. Each
digit says what it does to a tensor: it *splits* a named dimension, all cores along it hold a *copy*, only *one* of them
holds it, or each holds a part that is still to be summed (*sum*).

    rows    (batch split 2) (seq split 4)      8 rows: two halves of the batch, four parts of each sequence
    columns (width split 8)

A dimension that digits split into P blocks in all (rows before columns) is cut into blocks of ⌈n / P⌉ entries; the last
ones are shorter, or empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["split", "copy", "one", "sum"]
Shape: TypeAlias = tuple[tuple[str, int], ...]
"""Dimensions by name and size, in order."""
Interval: TypeAlias = tuple[int, int]
Tile: TypeAlias = tuple[Interval, ...]
"""The part of a tensor that a core holds: for each dimension the first entry and the one behind the last."""


@dataclass(frozen=True, slots=True, order=True)
class Digit:
    """One digit of a core's index along an axis, with `parts` values.

    `dim` is the dimension it splits; `at` the value at which a tensor is held by one.
    """

    kind: Kind
    parts: int
    dim: str = ""
    at: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "split":
                return f"{self.dim}/{self.parts}"
            case "copy":
                return f"copy*{self.parts}"
            case "one":
                return f"one of {self.parts}"
            case "sum":
                return f"sum*{self.parts}"


Axis: TypeAlias = tuple[Digit, ...]


def split(dim: str, parts: int) -> Digit:
    """Return a digit that splits `dim`."""
    return Digit("split", parts, dim)


def copies(parts: int) -> Axis:
    """Return an axis along which every core holds a copy."""
    return (Digit("copy", parts),) if parts > 1 else ()


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """A layout on a rectangle whose rows and columns are the products of the digits' parts."""

    rows: Axis
    columns: Axis

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the rectangle."""
        return length(self.rows), length(self.columns)

    @property
    def digits(self) -> Axis:
        """All digits, rows before columns."""
        return self.rows + self.columns

    def parts(self, dim: str) -> int:
        """Return how many blocks a dimension is split into."""
        found = 1
        for digit in self.rows:
            if digit.dim == dim:
                found *= digit.parts
        for digit in self.columns:
            if digit.dim == dim:
                found *= digit.parts
        return found

    def mapped(self, change: Callable[[Digit], Digit]) -> Layout:
        """Return the layout with every digit changed."""
        return Layout(canonical(map(change, self.rows)), canonical(map(change, self.columns)))

    def restricted(self, dims: Iterable[str]) -> Layout:
        """Return the layout of a tensor that has only `dims`: the same along what splits others."""
        kept = set(dims)
        return self.mapped(lambda d: d if d.kind != "split" or d.dim in kept else Digit("copy", d.parts))

    def renamed(self, names: dict[str, str]) -> Layout:
        """Return the layout with dimensions under other names."""
        return self.mapped(lambda d: split(names.get(d.dim, d.dim), d.parts) if d.kind == "split" else d)

    def __str__(self) -> str:
        texts = [" ".join(map(str, axis)) for axis in (self.rows, self.columns)]
        shown = [f"{name} {text}" for name, text in zip(("rows", "columns"), texts, strict=True) if text]
        return ", ".join(shown) or "one core"


def length(axis: Axis) -> int:
    """Return the number of cores along an axis."""
    return prod(digit.parts for digit in axis)


def canonical(axis: Iterable[Digit]) -> Axis:
    """Return the axis without digits of one part, neighbouring copies (and sums) as one."""
    kept: list[Digit] = []
    for digit in axis:
        if digit.parts == 1:
            continue
        if kept and kept[-1].kind == digit.kind and digit.kind in ("copy", "sum"):
            kept[-1] = Digit(digit.kind, kept[-1].parts * digit.parts)
        else:
            kept.append(digit)
    return tuple(kept)


def everywhere(rows: int, columns: int) -> Layout:
    """Return the layout of which every core has a copy."""
    return Layout(copies(rows), copies(columns))


@cache
def values(axis: Axis, index: int) -> tuple[int, ...]:
    """Return the digits of an index along an axis."""
    found: list[int] = []
    for digit in reversed(axis):
        index, value = divmod(index, digit.parts)
        found.append(value)
    return tuple(reversed(found))


def block(size: int, parts: int, index: int) -> Interval:
    """Return block `index` of a dimension of `size` entries cut into `parts`."""
    step = -(-size // parts)
    return min(size, index * step), min(size, (index + 1) * step)


@cache
def tiles(layout: Layout, shape: Shape) -> tuple[Tile | None, ...]:
    """Return the tile of every core, row by row; None where a core holds nothing of the tensor."""
    rows, columns = layout.shape
    return tuple(tile(layout, shape, r, c) for r in range(rows) for c in range(columns))


@lru_cache(maxsize=200_000)
def tile(layout: Layout, shape: Shape, row: int, column: int) -> Tile | None:
    """Return the tile of one core, None where it holds nothing of the tensor."""
    blocks: dict[str, tuple[int, int]] = {}
    for digit, value in zip(layout.digits, values(layout.rows, row) + values(layout.columns, column), strict=True):
        if digit.kind == "one" and value != digit.at:
            return None
        if digit.kind == "split":
            parts, index = blocks.get(digit.dim, (1, 0))
            blocks[digit.dim] = parts * digit.parts, index * digit.parts + value
    return tuple(block(size, *blocks[name]) if name in blocks else (0, size) for name, size in shape)


@cache
def largest_tile(layout: Layout, shape: Shape) -> Shape:
    """Return the sizes of the largest tile: that of the first core."""
    return tuple((name, -(-size // layout.parts(name))) for name, size in shape)


def count(tile: Tile) -> int:
    """Return the number of entries of a tile."""
    return prod(high - low for low, high in tile)


def entries(shape: Shape) -> int:
    """Return the number of entries of a tensor."""
    return prod(size for _, size in shape)


def within(inner: Tile, outer: Tile) -> bool:
    """Tell whether a tile lies in another one; an empty one lies in any."""
    return count(inner) == 0 or all(o[0] <= i[0] and i[1] <= o[1] for i, o in zip(inner, outer, strict=True))


def overlap(a: Tile, b: Tile) -> Tile | None:
    """Return what two tiles share, None where that is nothing."""
    shared = tuple((max(x[0], y[0]), min(x[1], y[1])) for x, y in zip(a, b, strict=True))
    return shared if all(low < high for low, high in shared) else None


def faults(layout: Layout, shape: Shape, rows: int, columns: int) -> list[str]:
    """Return what is wrong with a layout of a tensor on a rectangle: nothing where it is valid."""
    found: list[str] = []
    if layout.shape != (rows, columns):
        found.append(f"a layout for {layout.shape[0]} x {layout.shape[1]} cores on a rectangle of {rows} x {columns}")
    names = {name for name, _ in shape}
    found += [
        f"splits `{d.dim}`, which the tensor lacks" for d in layout.digits if d.kind == "split" and d.dim not in names
    ]
    found += [f"holds it at {d.at} of {d.parts}" for d in layout.digits if d.kind == "one" and not 0 <= d.at < d.parts]
    return found
