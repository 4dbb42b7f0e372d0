"""What the placement engine is given: kernels with their performance functions, a grid of cores, connections, weights.

A kernel is anything that can say which rectangles are fast enough: those of the ISPD 2020 contest (`contest_kernels`)
and the blocks of a GPT (`block_kernels`) are two libraries for the same engine.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cgc_wse.place.shapes import Curve, Ints


class PlaceKernel(Protocol):
    """A kernel, as the engine sees it. Times are counted in ticks, whatever they are."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def alike(self) -> Hashable:
        """Equal for kernels that need the same rectangles."""
        ...

    def corners(self, time: int, side: int) -> tuple[Ints, Ints]:
        """Return x and y sides of rectangles in which it takes at most `time` ticks and fits in memory.

        Every such rectangle with sides up to `side` contains one of these, or one of these turned by 90°.
        """
        ...


@dataclass(frozen=True, slots=True)
class PlaceProblem:
    """Kernels on a grid of `columns` × `rows` cores; what is minimized is

    tick_cost · (ticks of the slowest kernel) + wire_cost · (sum over `nets` of the L1 distance of the two centres).
    """

    kernels: tuple[PlaceKernel, ...]
    nets: tuple[tuple[int, int], ...]
    columns: int
    rows: int
    tick_cost: float
    wire_cost: float

    @property
    def side(self) -> int:
        """The longest side that a rectangle may have."""
        return max(self.columns, self.rows)


class CurveLibrary:
    """The shape curves of a problem's kernels by time; kernels that are alike share theirs.

    Curves reach `margin` beyond the grid, so that a placement that is a little too large shows by how much.
    """

    def __init__(self, problem: PlaceProblem, margin: float = 0.0) -> None:
        self.problem = problem
        self.columns = problem.columns + int(margin * problem.columns)
        self.rows = problem.rows + int(margin * problem.rows)
        kinds: dict[Hashable, int] = {}
        self.kinds = [kinds.setdefault(kernel.alike, len(kinds)) for kernel in problem.kernels]
        """For every kernel the number of its kind."""
        self.samples = [problem.kernels[self.kinds.index(kind)] for kind in range(len(kinds))]
        self._of_time = lru_cache(maxsize=256)(self._curves)

    def curves(self, time: int) -> list[Curve]:
        """Return the curve of every kernel for at most `time` ticks."""
        kinds = self._of_time(time)
        return [kinds[kind] for kind in self.kinds]

    def _curves(self, time: int) -> list[Curve]:
        from cgc_wse.place.shapes import curve_of

        found = []
        for kernel in self.samples:
            x, y = kernel.corners(time, self.problem.side)
            found.append(curve_of(x, y, (self.problem.columns, self.problem.rows), (self.columns, self.rows)))
        return found
