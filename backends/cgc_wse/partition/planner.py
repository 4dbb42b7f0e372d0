"""The plan of a whole graph: stretches of nodes on rectangles, one planned after the other, for either way to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cgc.ir.graph import Node, Value
from cgc.program import Device
from cgc_wse.partition.core_cost import clock_of
from cgc_wse.partition.flat import Flat
from cgc_wse.partition.layout import everywhere
from cgc_wse.partition.plan import Choice, Home, Place, Plan, Run
from cgc_wse.partition.regions import PHASES, PREFIXES, own_path, regions
from cgc_wse.partition.segment import Planner, Stretch
from cgc_wse.place.geometry import Rectangle

LONGEST = 160
"""Nodes of a stretch."""
BETWEEN = 2
"""Nodes of a stretch of what stands in no layer but grows with their number: the norm of all gradients and the like."""


def plan(
    flat: Flat,
    device: Device,
    run: Run,
    reason: str = "",
    price: float = 0.0,
    balance: float = 0.0,
    whole: bool = False,
) -> Plan:
    """Return the plan of `flat` on a device.

    `price` is what a byte of a core is worth in cycles, `balance` how far rectangles go by what blocks hold rather than
    by their work; `whole` gives everything one rectangle, the whole device.
    """
    return _Planning(flat, device, run, reason, price, balance, whole).run()


def _phase(path: str) -> str:
    return next((prefix for prefix in PREFIXES if path.startswith(prefix)), "")


def _layer(path: str) -> str:
    """Return the layer a path stands in: `h.3`, or its first name."""
    parts = own_path(path).split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: at + 1])


class _Planning:
    def __init__(
        self, flat: Flat, device: Device, run: Run, reason: str, price: float, balance: float, whole: bool
    ) -> None:
        self._one = whole
        self._balance = balance
        self._flat = flat
        self._run = run
        self._reason = reason
        self._device = device
        self._planner = Planner(flat.sizes, clock_of(device), price)
        self._whole = Rectangle(0, 0, device.columns, device.rows)
        self._homes: dict[str, Home] = {}
        self._known: dict[str, Home] = {}
        self._places: list[Place] = []
        self._cycles = 0.0

    def run(self) -> Plan:
        nodes = self._flat.graph.body.nodes
        if self._run == "pipelined" and not self._one:
            index, found = regions(nodes, self._flat.sizes, clock_of(self._device), self._whole, self._balance)
            areas = [found[i][1] for i in index]
        else:
            found = [("the whole wafer", self._whole)]
            areas = [self._whole] * len(nodes)
        for segment, (start, end) in enumerate(_stretches(nodes, areas)):
            self._stretch(nodes[start:end], areas[start], segment)
        self._unread()
        return Plan(
            run=self._run,
            reason=self._reason,
            places=tuple(self._places),
            homes=self._homes,
            regions=tuple(found),
            cycles=self._cycles,
            solved=self._planner.solved,
            ahead=True,
        )

    def _stretch(self, nodes: Sequence[Node], area: Rectangle, segment: int) -> None:
        made = {value.name for node in nodes for value in node.outputs}
        new: dict[str, Value] = {}
        for node in nodes:
            for value in node.inputs:
                if value.name not in made and value.name not in self._known:
                    new[value.name] = value
        found = self._planner.plan(Stretch(tuple(nodes), area, tuple(new.values())), self._known)
        for value, layout in zip(new.values(), found.inputs, strict=True):
            self._homes[value.name] = Home(area, layout, self._outside(value.name))
            self._known[value.name] = self._homes[value.name]
        for node, choice in zip(nodes, found.choices, strict=True):
            self._places.append(Place(area, choice, segment))
            for value in node.outputs:
                self._known[value.name] = Home(area, choice.result.restricted(value.type.names), False)
        self._cycles += found.cycles

    def _outside(self, name: str) -> bool:
        """Tell whether an input comes from outside: what is fed in always, and of a streamed model the weights."""
        category = self._flat.category(name)
        if category == "inputs":
            return True
        return self._run == "streaming" and category in ("weights", "optimizer state")

    def _unread(self) -> None:
        """Give what nothing reads a home too."""
        for value in self._flat.graph.body.arguments:
            if value.name not in self._homes:
                layout = everywhere(self._whole.height, self._whole.width)
                self._homes[value.name] = Home(self._whole, layout, True)


def _stretches(nodes: Sequence[Node], areas: Sequence[Rectangle]) -> list[tuple[int, int]]:
    """Return where stretches start and end: one phase of one layer on one rectangle each."""
    found: list[tuple[int, int]] = []
    start = 0
    for at in range(1, len(nodes) + 1):
        most = BETWEEN if nodes[start].path in PHASES else LONGEST
        if at == len(nodes) or _key(nodes[at], areas[at]) != _key(nodes[start], areas[start]) or at - start >= most:
            found.append((start, at))
            start = at
    return found


def _key(node: Node, area: Rectangle) -> tuple[str, str, Rectangle]:
    return _phase(node.path), _layer(node.path), area


def with_choice(found: Plan, index: int, choice: Choice) -> Plan:
    """Return a plan with another choice for one node: what tests of the checker start from."""
    places = list(found.places)
    places[index] = replace(places[index], choice=choice)
    return replace(found, places=tuple(places))
