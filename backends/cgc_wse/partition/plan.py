"""What the planner decides: where every node runs and how its work lies, and where every input lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cgc_wse.partition.layout import Layout
from cgc_wse.place.geometry import Rectangle

Run: TypeAlias = Literal["pipelined", "streaming"]


@dataclass(frozen=True, slots=True)
class Choice:
    """How the work of a node lies on its rectangle, and its result once sums are added up.

    `travels` is the summed dimension of a product of which both operands keep blocks and exchange them in turns.
    """

    work: Layout
    result: Layout
    travels: str = ""

    def __str__(self) -> str:
        return f"{self.work}, {self.travels} in turns" if self.travels else str(self.work)


@dataclass(frozen=True, slots=True)
class Place:
    """A node's rectangle and choice; `segment` numbers the stretch of the program that was planned together."""

    area: Rectangle
    choice: Choice
    segment: int


@dataclass(frozen=True, slots=True)
class Home:
    """Where an input or parameter is: resident in a layout, or outside until a segment loads it in that layout."""

    area: Rectangle
    layout: Layout
    outside: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Places by index of the node, homes by name of the input; `solved` stretches differed from all before.

    `ahead` says whether weights that are streamed come in while the stretch before is at work.
    """

    run: Run
    reason: str
    places: tuple[Place, ...]
    homes: Mapping[str, Home]
    regions: tuple[tuple[str, Rectangle], ...]
    cycles: float
    solved: int
    ahead: bool
