"""How many cores a block gets: in proportion to its work, but enough for what it holds and what crosses its border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cgc_wse.cost import Cycles
from cgc_wse.place.division import DoesNotFit, Share, divide, group, water_level
from cgc_wse.place.geometry import Rectangle

ATTEMPTS = 32
"""How often the wafer is cut again with more cores for the blocks whose rectangles came out too small."""

COARSE = 1.15
"""A block this many times slower than an even spread of the work allows lost too much to rounding."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a block needs: `work` in cycles of one core, at `least` so many cores, and its cycles on a rectangle."""

    work: float
    least: int
    cycles: Callable[[Rectangle], Cycles]


def size_and_place(layers: Sequence[Sequence[Demand]], wafer: Rectangle) -> list[Rectangle] | None:
    """Return a rectangle for every block of every layer, in order, or None where no placement was found.

    Blocks of a layer stay together. Whole lines of cores are coarse for small blocks, and a block's border may be too
    short for what crosses it: such blocks are given more cores and the wafer is cut again. The placement whose slowest
    block is fastest is returned.
    """
    blocks = [block for layer in layers for block in layer]
    work = [block.work for block in blocks]
    reserve = [block.least for block in blocks]
    even = sum(work) / wafer.cores
    found: tuple[float, list[Rectangle]] | None = None
    for _ in range(ATTEMPTS):
        try:
            areas = divide(_tree(layers, water_level(work, reserve, wafer.cores)), wafer)
        except DoesNotFit:
            break
        short = [i for i, area in enumerate(areas) if area.cores < blocks[i].least]
        if short:
            reserve = _more(reserve, short, areas)
            continue
        cycles = [block.cycles(area) for block, area in zip(blocks, areas, strict=True)]
        slowest = max(one.total for one in cycles)
        if found is None or slowest < found[0]:
            found = slowest, areas
        late = [i for i, one in enumerate(cycles) if one.total > (1.0 if one.bound == "fabric" else COARSE) * even]
        if not late:
            break
        reserve = _more(reserve, late, areas)
    return None if found is None else found[1]


def _more(reserve: list[int], which: list[int], areas: list[Rectangle]) -> list[int]:
    """Return what is kept for each block, with a sixth more than it has for those in `which`."""
    changed = list(reserve)
    for i in which:
        enough = max(reserve[i], areas[i].cores)
        changed[i] = enough + max(1, enough // 6)
    return changed


def _tree(layers: Sequence[Sequence[Demand]], wanted: list[float]) -> Share:
    position, groups = 0, []
    for layer in layers:
        groups.append(group([Share(weight) for weight in wanted[position : position + len(layer)]]))
        position += len(layer)
    return group(groups)
