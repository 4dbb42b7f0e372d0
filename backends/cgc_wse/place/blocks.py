"""Blocks of a model as kernels of the engine: their shape curves, their bound, and their placement on a whole wafer.

`Sized` is what the engine asks of a block. `Block` is one in closed form: it takes T cycles on a rectangle where it has
enough cores for its work and for what it holds, and where its sides are long enough for what crosses them:

    cores ≥ max(work / (T - start), read / T, least)   short side ≥ few / T   long side ≥ many / T

`pipeline.block_cost` has blocks whose times on all rectangles are known, and one in closed form for their bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Protocol

import numpy as np

from cgc_wse.place.bands import Bands, Cells
from cgc_wse.place.division import DoesNotFit, Share, group, water_level
from cgc_wse.place.geometry import Rectangle
from cgc_wse.place.shapes import Curve, Ints
from cgc_wse.place.tree import Nested, SlicingTree

PRECISION = 1e-3
"""The bisection over time ends at this relative precision."""

EXACT = 1e-6
"""That of the bound does at this one; the bound is its lower end."""


class Sized(Protocol):
    """A block of some size on every rectangle; `work` is in cycles of one core, `least` the cores for what it holds."""

    @property
    def work(self) -> float:
        """Cycles of one core."""

    @property
    def least(self) -> int:
        """Cores for what it holds."""

    @property
    def slowest(self) -> float:
        """Cycles that it takes at most, where it has one core."""

    def cores(self, cycles: float, columns: int, rows: int) -> int | None:
        """Return the cores it needs to take at most `cycles` cycles on a grid, whatever the rectangle; None where there
        is no such rectangle.
        """

    @property
    def key(self) -> Hashable:
        """What blocks of the same curve have in common."""

    def curve(self, cycles: float, columns: int, rows: int) -> Curve:
        """Return its curve on a grid."""

    def time(self, area: Rectangle) -> float:
        """Return the cycles it takes on a rectangle that is large enough for what it holds."""


@dataclass(frozen=True, slots=True)
class Block:
    """`work` in cycles of one core, `least` cores for what it holds; `few` and `many` are the cycles that a side of one
    core takes for what crosses the short and the long side; `start` are cycles before any work, and `read` those of one
    core for what it reads meanwhile.
    """

    work: float
    least: int
    few: float
    many: float
    start: float = 0.0
    read: float = 0.0

    @property
    def slowest(self) -> float:
        """Cycles that it takes at most, where it has one core."""
        return self.start + self.work + self.read + self.few + self.many

    def cores(self, cycles: float, columns: int, rows: int) -> int | None:
        """Return the cores it needs to take at most `cycles` cycles, whatever the rectangle; None where none do."""
        left, (short, long) = cycles - self.start, self.sides(cycles)
        if (left <= 0 < self.work) or left < 0 or short > min(columns, rows) or long > max(columns, rows):
            return None
        found = max(self.least, self._for_work(cycles), short * long)
        return found if found <= columns * rows else None

    def _for_work(self, cycles: float) -> int:
        left = cycles - self.start
        return max(_up(self.work / left) if self.work else 1, _up(self.read / cycles))

    def sides(self, cycles: float) -> tuple[int, int]:
        """Return the short and the long side it needs at least."""
        return max(1, _up(self.few / cycles)), max(1, _up(self.many / cycles))

    @property
    def key(self) -> Hashable:
        """What blocks of the same curve have in common."""
        return self

    def curve(self, cycles: float, columns: int, rows: int) -> Curve:
        """Return its curve on a grid."""
        if cycles <= self.start:
            return Curve(np.full(columns + 1, rows + 1), np.full(rows + 1, columns + 1))
        cores, (short, long) = max(self.least, self._for_work(cycles)), self.sides(cycles)
        heights = least_heights(columns, rows, cores, short, long)
        widths = heights if columns == rows else least_heights(rows, columns, cores, short, long)
        return Curve(heights, widths)

    def time(self, area: Rectangle) -> float:
        """Return the cycles it takes on a rectangle that is large enough for what it holds."""
        short, long = sorted((area.width, area.height))
        work = self.start + self.work / area.cores
        return max(work, self.read / area.cores, self.few / short, self.many / long)


def _up(value: float) -> int:
    """Round up, but not for the last bits of a division."""
    return ceil(value * (1 - 1e-12))


def least_heights(columns: int, rows: int, cores: int, short: int, long: int) -> Ints:
    """Return the least heights by width; one more than there are rows where none is enough."""
    widths = np.arange(1, columns + 1, dtype=np.int64)
    sides = np.where(widths >= long, short, long)
    heights = np.maximum(-(-cores // widths), sides)
    heights[: short - 1] = rows + 1
    found: Ints = np.minimum(np.concatenate(([rows + 1], heights)), rows + 1)
    return np.minimum.accumulate(found)


def least_cycles(blocks: Sequence[Sized], columns: int, rows: int) -> float:
    """Return a bound: on no placement of the blocks on the grid does the slowest take fewer cycles.

    The cores of all together are those of the grid; no side is longer than the grid's; each block holds what it holds.
    Infinite where what they hold is too much for the grid.
    """
    if sum(block.least for block in blocks) > columns * rows:
        return inf

    alike = Counter(block.key for block in blocks)
    each = [(block, alike[key]) for key, block in {block.key: block for block in blocks}.items()]

    def fits(cycles: float) -> bool:
        total = 0
        for block, count in each:
            cores = block.cores(cycles, columns, rows)
            if cores is None:
                return False
            total += count * cores
            if total > columns * rows:
                return False
        return True

    slowest = max(1e-9, *(block.slowest for block in blocks))
    if not fits(slowest):
        return 0.0
    low, high = 0.0, min(slowest, max(1e-9, sum(block.work for block in blocks) / (columns * rows)))
    while not fits(high):
        low, high = high, min(2 * high, slowest)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
        if high - low <= EXACT * low:
            break
    return low


def place_blocks(
    layers: Sequence[Sequence[Sized]], columns: int, rows: int, start: float = inf, *, hurry: bool = False
) -> tuple[float, list[Rectangle]] | None:
    """Return the cycles of the slowest block and the rectangles, in order; None where nothing under `start` was found.

    Slicing trees are tried, each by bisection over the time, with shape curves at each step: the wafer cut in two again
    and again near the half of the work, with the layers kept together and without; and where these are not `CLOSE` to
    the bound, rows of layers, each layer in the best of all trees that keep its order. In a `hurry` the first tree with
    which they fit will do.
    """
    blocks = [block for layer in layers for block in layer]
    bound = least_cycles(blocks, columns, rows)
    if bound == inf:
        return None
    # Blocks that do nothing need no time; divisions by it need some.
    bound = max(bound, 1e-9)
    found: tuple[float, list[Rectangle]] | None = None
    grid = columns, rows
    for nested in _trees(layers, columns, rows, bound):
        found = _better(found, SlicingTree(nested, len(blocks)), blocks, grid, bound, start)
        if found is not None and (hurry or found[0] <= ENOUGH * bound):
            return found
    best = min(start, inf if found is None else found[0])
    if best > CLOSE * bound and max(len(layer) for layer in layers) <= LONGEST:
        rows_of_layers = _in_rows(layers, grid, bound, best)
        if rows_of_layers is not None:
            found = _better(found, SlicingTree(rows_of_layers, len(blocks)), blocks, grid, bound, start)
    return found


SLOWEST = 1e6
"""Nothing is searched that is so many times slower than the bound."""

ENOUGH = 1.01
"""A placement within this many times the bound is taken at once."""

CLOSE = 1.03
"""A placement whose slowest block takes no longer than this many times the bound is not improved on."""

LONGEST = 16
"""Layers with more blocks than this are not laid out as a whole."""

LAYERS = 128
"""Models with more layers than this are not laid out in rows of them."""


def _better(
    found: tuple[float, list[Rectangle]] | None,
    tree: SlicingTree,
    blocks: Sequence[Sized],
    grid: tuple[int, int],
    bound: float,
    limit: float,
) -> tuple[float, list[Rectangle]] | None:
    """Return what was found, or the fastest placement with a tree if that is better."""
    fit = _fastest(tree, blocks, grid, bound, limit if found is None else found[0])
    if fit is None:
        return found
    areas = filled(tree, blocks, fit, *grid)
    slowest = max(block.time(area) for block, area in zip(blocks, areas, strict=True))
    return (slowest, areas) if found is None or slowest < found[0] else found


def _in_rows(layers: Sequence[Sequence[Sized]], grid: tuple[int, int], bound: float, limit: float) -> Nested | None:
    """Return the tree of the fastest rows of layers, by bisection; None where nothing under the limit fits."""
    if len(layers) > LAYERS:
        return None
    low, high, best = bound, limit if limit < inf else 4 * bound, None
    while high - low > 4 * PRECISION * high:
        middle = (low + high) / 2
        nested = _rows(layers, grid, middle)
        if nested is None:
            low = middle
        else:
            high, best = middle, nested
    return best


def _rows(layers: Sequence[Sequence[Sized]], grid: tuple[int, int], cycles: float) -> Nested | None:
    """Return the tree of rows of layers in which every block takes at most some cycles; None where they do not fit."""
    known: dict[Hashable, Curve] = {}
    inner: dict[Hashable, Cells] = {}
    cells = []
    for layer in layers:
        keys = tuple(block.key for block in layer)
        if keys not in inner:
            for key, block in zip(keys, layer, strict=True):
                if key not in known:
                    known[key] = block.curve(cycles, *grid)
            inner[keys] = Cells(range(len(layer)), [known[key] for key in keys], len(layer))
        cells.append(inner[keys])
    curves = [one.curves[0, len(layer)] for one, layer in zip(cells, layers, strict=True)]
    bands = Bands(range(len(layers)), curves, grid, 4, len(layers))
    fitting = bands.fitting()
    if not fitting:
        return None
    outer = SlicingTree(bands.tree(fitting[0]), len(layers))
    outer.set_curves(curves)
    boxes = outer.rectangles(*grid)
    first, parts = 0, {}
    for index, (one, layer, (_, _, width, height)) in enumerate(zip(cells, layers, boxes, strict=True)):
        parts[index] = _moved(one.tree(0, len(layer), width, height), first)
        first += len(layer)
    return _with_parts(outer.nested(), parts)


def _moved(nested: Nested, first: int) -> Nested:
    if isinstance(nested, int):
        return first + nested
    return nested[0], _moved(nested[1], first), _moved(nested[2], first)


def _with_parts(nested: Nested, parts: Mapping[int, Nested]) -> Nested:
    if isinstance(nested, int):
        return parts[nested]
    return nested[0], _with_parts(nested[1], parts), _with_parts(nested[2], parts)


def _trees(layers: Sequence[Sequence[Sized]], columns: int, rows: int, cycles: float) -> list[Nested]:
    """Return slicing trees for the blocks: with the layers kept together, and without."""
    flat = [block for layer in layers for block in layer]
    needs = [_needed(block, cycles, columns, rows) for block in flat]
    try:
        wanted = water_level([block.work for block in flat], needs, columns * rows)
    except DoesNotFit:
        wanted = [float(need) for need in needs]
    leaves = [Share(max(weight, 1e-9)) for weight in wanted]
    grouped, position = [], 0
    for layer in layers:
        grouped.append(group(leaves[position : position + len(layer)]))
        position += len(layer)
    trees = [_halved(group(grouped), columns, rows)]
    if len(layers) > 1:
        trees.append(_halved(group(leaves), columns, rows))
    return trees


def _needed(block: Sized, cycles: float, columns: int, rows: int) -> int:
    """Return the cores a block needs, or those for what it holds where none are enough for the cycles."""
    return block.cores(cycles, columns, rows) or block.least


def _halved(share: Share, columns: float, rows: float) -> Nested:
    """Cut a group in two near the half of its weight, across the longer side, again and again."""
    numbers = iter(range(share.leaves))

    def cut(parts: tuple[Share, ...], width: float, height: float) -> Nested:
        while len(parts) == 1:
            if not parts[0].parts:
                return next(numbers)
            parts = parts[0].parts
        total, so_far = sum(part.weight for part in parts), 0.0
        best, split = inf, 1
        for index, part in enumerate(parts[:-1], start=1):
            so_far += part.weight
            if abs(so_far - total / 2) < best:
                best, split = abs(so_far - total / 2), index
        first = sum(part.weight for part in parts[:split]) / total
        stacked = height > width
        if stacked:
            one = cut(parts[:split], width, first * height)
            return (True, one, cut(parts[split:], width, height - first * height))
        one = cut(parts[:split], first * width, height)
        return (False, one, cut(parts[split:], width - first * width, height))

    return cut((share,), columns, rows)


def _fastest(
    tree: SlicingTree, blocks: Sequence[Sized], grid: tuple[int, int], bound: float, limit: float
) -> float | None:
    """Return the least cycles at which a tree fits on the grid, if under a limit; its curves are set to them."""
    columns, rows = grid
    low = high = bound

    def fits(cycles: float) -> bool:
        known: dict[Hashable, Curve] = {}
        curves = []
        for block in blocks:
            key = block.key
            if key not in known:
                known[key] = block.curve(cycles, columns, rows)
            curves.append(known[key])
        tree.set_curves(curves)
        return tree.heights_of(tree.root).item(columns) <= rows

    if not fits(min(limit, SLOWEST * bound)):
        return None
    while not fits(high):
        low, high = high, min(1.25 * high, limit, SLOWEST * bound)
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high if fits(high) else None


def filled(tree: SlicingTree, blocks: Sequence[Sized], cycles: float, columns: int, rows: int) -> list[Rectangle]:
    """Return rectangles that together fill the grid: what a cut leaves over goes to both sides, by what they need."""
    areas = [Rectangle(0, 0, columns, rows)] * len(blocks)
    needs = [float(_needed(block, cycles, columns, rows)) for block in blocks] + [0.0] * (len(blocks) - 1)
    for node in reversed(tree.cuts()):
        needs[node] = needs[tree.left[node]] + needs[tree.right[node]]
    work = [(tree.root, areas[0])]
    while work:
        node, area = work.pop()
        if node < tree.leaves:
            areas[node] = area
            continue
        left, right = tree.left[node], tree.right[node]
        share = needs[left] / needs[node]
        if tree.stacked[node]:
            first = _share(
                tree.heights_of(left).item(area.width), tree.heights_of(right).item(area.width), area.height, share
            )
            work.append((left, Rectangle(area.x, area.y, area.width, first)))
            work.append((right, Rectangle(area.x, area.y + first, area.width, area.height - first)))
        else:
            first = _share(
                tree.widths_of(left).item(area.height), tree.widths_of(right).item(area.height), area.width, share
            )
            work.append((left, Rectangle(area.x, area.y, first, area.height)))
            work.append((right, Rectangle(area.x + first, area.y, area.width - first, area.height)))
    return areas


def _share(left: int, right: int, length: int, share: float) -> int:
    """Return the lines of the left part: near its share, but not so many that either has too few."""
    return min(max(round(length * share), left), length - right)
