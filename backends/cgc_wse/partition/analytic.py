"""Cycles of a program by formula: every step takes what its op or collective takes on the fullest core, one after the
other on each rectangle; what comes over the west edge waits for the link off the wafer.

Nothing here looks at single messages: layouts and sizes are all that counts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod

from cgc_wse.partition.core_cost import Clock, clock_of, work_cycles
from cgc_wse.partition.formulas import has_sums, move_cycles, spread_cycles, sum_cycles, summing, words
from cgc_wse.partition.layout import Layout, entries, largest_tile
from cgc_wse.partition.program import Buffer, Load, Local, Move, Partitioned, Step, Store, Sum, View, writes
from cgc_wse.place.geometry import Rectangle


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles of the whole program, and of each step alone."""

    cycles: float
    steps: tuple[float, ...]


def estimate(program: Partitioned) -> Estimate:
    """Return the cycles of a program."""
    return _Estimating(program).run()


class _Estimating:
    def __init__(self, program: Partitioned) -> None:
        self._program = program
        self._clock = clock_of(program.device)
        self._at: defaultdict[Rectangle, float] = defaultdict(float)
        self._entering = 0.0
        self._west: defaultdict[Rectangle, float] = defaultdict(float)
        self._leaving = 0.0
        self._loaded: dict[int, float] = {}
        self._stored: dict[str, float] = {}
        self._waiting: list[int] = []

    def run(self) -> Estimate:
        """Go through all steps."""
        program = self._program
        alone = tuple(step_cycles(step, self._clock) for step in program.steps)
        for index, (step, cycles) in enumerate(zip(program.steps, alone, strict=True)):
            for load in sorted(program.posts.get(index, ())):
                self._begin_load(load)
            match step:
                case Load():
                    area = step.result.area
                    self._at[area] = max(self._at[area] + self._clock.task, self._loaded[index] + cycles)
                case Store():
                    self._store(step, cycles)
                case Move() if step.source.area != step.result.area:
                    self._between(step, cycles)
                case Local() | View() | Move() | Sum():
                    for area in {buffer.area for buffer in writes(step)}:
                        self._at[area] += cycles
        return Estimate(max([self._leaving, *self._at.values()], default=0.0), alone)

    def _begin_load(self, index: int) -> None:
        step = self._program.steps[index]
        assert isinstance(step, Load)
        ready = max(self._at[step.result.area], self._stored.get(step.name, 0.0))
        begun = max(self._entering, ready)
        self._entering = begun + _outside(step.result, self._clock)
        # All of it is in once the busiest row has carried what is its to carry, from the first tile on.
        tile, area = _tile_words(step.result), step.result.area
        first = begun + tile * self._clock.outside
        self._west[area] = max(self._west[area], first) + _row_words(step.result) * self._clock.word
        self._loaded[index] = max(self._entering, self._west[area] - tile * self._clock.word)

    def _store(self, step: Store, cycles: float) -> None:
        area = step.source.area
        self._at[area] += cycles
        self._leaving = max(self._leaving, self._at[area]) + _outside(step.source, self._clock)
        self._stored[step.name] = self._leaving

    def _between(self, step: Move, cycles: float) -> None:
        """The sender is through when its words have left it; the receiver when they have come."""
        begun = self._at[step.source.area]
        self._at[step.source.area] = begun + self._clock.task + _tile_words(step.source) * self._clock.word
        there = self._at[step.result.area] + self._clock.task
        self._at[step.result.area] = max(there, begun + cycles)


def step_cycles(step: Step, clock: Clock) -> float:
    """Return the cycles of one step alone, without waiting for the link off the wafer."""
    match step:
        case Local():
            return work_cycles(step.node, largest_tile(step.work, step.space), clock)
        case View():
            return 0.0
        case Move():
            source, result = step.source, step.result
            if source.area == result.area:
                return move_cycles(source.shape, source.entry, source.layout, result.layout, clock)
            return spread_cycles(
                source.shape, source.entry, source.layout, source.area, result.layout, result.area, clock
            )
        case Sum():
            return _sum(step, clock)
        case Load():
            return (
                2 * clock.relay
                + (step.result.area.width + step.result.area.height) * clock.relay
                + clock.ramp
                + (_tile_words(step.result) * clock.word)
            )
        case Store():
            return clock.task + clock.ramp + _row_words(step.source) * clock.word


def _sum(step: Sum, clock: Clock) -> float:
    source, result = step.source, step.result
    columns = has_sums(source.layout.columns)
    before = source.layout.columns if columns else source.layout.rows
    after = result.layout.columns if columns else result.layout.rows
    return sum_cycles(summing(source.shape, source.entry, before, after, result.layout), clock)


def _tile_words(buffer: Buffer) -> int:
    return words(entries(largest_tile(buffer.layout, buffer.shape)), buffer.entry)


def _row_words(buffer: Buffer) -> int:
    """Return the words that cross the west edge in the first row: no row has more of a tensor, each tile once."""
    layout = buffer.layout
    across = Layout((), layout.columns)
    sizes = [min(size, -(-size // layout.parts(name)) * across.parts(name)) for name, size in buffer.shape]
    return words(prod(sizes), buffer.entry)


def _outside(buffer: Buffer, clock: Clock) -> float:
    """Return the cycles that a tensor takes on the link off the wafer, each tile once."""
    return words(entries(buffer.shape), buffer.entry) * clock.outside
