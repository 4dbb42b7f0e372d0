"""Choosing the layouts of a stretch of the program, all ops together.

Ops on single elements, and sums over a dimension of them, lie as what they work on: they share one variable with it. A
variable is the layout of a product, a gather, a reshaped or a new value, or of an input that is first read here. Its
own cost is the cycles of its ops; what two variables cost together is the moving of what one makes and the other reads.
A stretch that equals one seen before (the next layer) gets the same answer without being solved again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from cgc.ir.graph import Node, Value
from cgc.ir.ops import Binary, Cast, Constant, Position, Reduce, Transpose, Unary, Where
from cgc_wse.kernel_cost.collectives import Phase
from cgc_wse.partition.candidates import layouts
from cgc_wse.partition.core_cost import Clock, work_cycles
from cgc_wse.partition.elimination import Problem, Table, solve
from cgc_wse.partition.formulas import arrived, move_cycles, sum_cycles, summed_axis, summing, words
from cgc_wse.partition.layout import Axis, Digit, Layout, Shape, canonical, copies, entries, largest_tile, split
from cgc_wse.partition.plan import Choice, Home
from cgc_wse.partition.program import ENTRY_BYTES
from cgc_wse.partition.rules import NoSuchPartition, Sizes, iteration, rule, shape_of, splittable
from cgc_wse.partition.turns import needs, panel_bytes, travelled, turn_cycles
from cgc_wse.place.geometry import Rectangle

MOST = 16
"""Layouts of a variable that are looked at."""
TURNING = 6
"""Layouts of a product in which operands may travel in turns instead of being gathered."""
FEW = 10
"""Layouts of an input that are looked at."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Nodes that are planned together on one rectangle; `new` are the inputs that are first read here."""

    nodes: tuple[Node, ...]
    area: Rectangle
    new: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A choice for every node, a layout for every new input, and the cycles of all."""

    choices: tuple[Choice, ...]
    inputs: tuple[Layout, ...]
    cycles: float
    exact: bool


@dataclass(slots=True)
class _Variable:
    """One layout to choose: what it is for, its options, and the nodes that share it."""

    shape: Shape
    options: list[Choice]
    members: list[Node] = field(default_factory=list)
    root: Node | None = None
    value: Value | None = None


Known: TypeAlias = Mapping[str, Home]


class Planner:
    """Plans stretches; remembers those it has solved.

    `price` is what a byte in a core costs in cycles: zero where memory is plenty.
    """

    def __init__(self, sizes: Sizes, clock: Clock, price: float = 0.0) -> None:
        self._sizes = sizes
        self._clock = clock
        self._price = price
        self._solved: dict[object, Chosen] = {}
        self.solved = 0

    def plan(self, stretch: Stretch, known: Known) -> Chosen:
        """Return the choices for a stretch; `known` says where what it reads from before lies."""
        key = _signature(stretch, known)
        if key not in self._solved:
            self._solved[key] = _Planning(stretch, known, self._sizes, self._clock, self._price).run()
            self.solved += 1
        return self._solved[key]


def problem_of(stretch: Stretch, known: Known, sizes: Sizes, clock: Clock) -> Problem:
    """Return what is solved for a stretch."""
    return _Planning(stretch, known, sizes, clock, 0.0).problem()


def _signature(stretch: Stretch, known: Known) -> object:
    """Return what two stretches that are planned alike have in common: names and paths do not count."""
    area = stretch.area
    index: dict[str, object] = {value.name: ("new", at, value.type) for at, value in enumerate(stretch.new)}
    found: list[object] = [(area.width, area.height)]
    for at, node in enumerate(stretch.nodes):
        refs: list[object] = []
        for value in node.inputs:
            if value.name not in index:
                home = known[value.name]
                index[value.name] = ("known", len(index), value.type, home.layout, _relative(home.area, area))
            refs.append(index[value.name])
        found.append((node.op, tuple(refs)))
        for place, value in enumerate(node.outputs):
            index[value.name] = ("made", at, place)
    return tuple(found)


def _relative(area: Rectangle, to: Rectangle) -> tuple[int, int, int, int]:
    return area.x - to.x, area.y - to.y, area.width, area.height


class _Planning:
    def __init__(self, stretch: Stretch, known: Known, sizes: Sizes, clock: Clock, price: float) -> None:
        self._stretch = stretch
        self._known = known
        self._sizes = sizes
        self._clock = clock
        self._price = price
        self._variables: list[_Variable] = []
        self._of: dict[str, int] = {}
        self._generated: set[str] = set()
        self._of_node: list[int | None] = []

    def problem(self) -> Problem:
        """Return the variables' costs alone and in pairs."""
        for value in self._stretch.new:
            self._of[value.name] = self._input(value)
        for node in self._stretch.nodes:
            self._of_node.append(self._place(node))
        alone = [np.array([self._own(v, o) for o in v.options]) for v in self._variables]
        pairs: dict[tuple[int, int], Table] = {}
        for node, at in zip(self._stretch.nodes, self._of_node, strict=True):
            if at is not None:
                self._edges(node, at, alone, pairs)
        return Problem(alone, pairs)

    def run(self) -> Chosen:
        """Choose."""
        solution = solve(self.problem())
        choices: list[Choice] = []
        for node, at in zip(self._stretch.nodes, self._of_node, strict=True):
            choices.append(self._choice(node, at, solution.options))
        inputs = tuple(
            self._variables[self._of[v.name]].options[solution.options[self._of[v.name]]].result
            for v in self._stretch.new
        )
        return Chosen(tuple(choices), inputs, solution.cost, solution.exact)

    # ---- variables

    def _input(self, value: Value) -> int:
        shape = shape_of(value.type, self._sizes)
        area = self._stretch.area
        found = layouts(shape, [name for name, _ in shape], area.height, area.width, FEW)
        self._variables.append(_Variable(shape, [Choice(one, one) for one in found], value=value))
        return len(self._variables) - 1

    def _place(self, node: Node) -> int | None:
        """Return the variable of a node, a new one where it shares none; None for what is made where it is needed."""
        if isinstance(node.op, Constant | Position):
            self._generated.add(node.output.name)
            return None
        at = self._shared(node)
        if at is None:
            at = self._new(node)
        else:
            self._variables[at].members.append(node)
        for value in node.outputs:
            self._of[value.name] = at
        return at

    def _shared(self, node: Node) -> int | None:
        if not isinstance(node.op, Unary | Binary | Where | Cast | Reduce | Transpose):
            return None
        space = set(iteration(node, self._sizes))
        for value in node.inputs:
            at = self._of.get(value.name)
            if at is not None and space <= set(self._variables[at].shape):
                return at
        return None

    def _new(self, node: Node) -> int:
        space, area = iteration(node, self._sizes), self._stretch.area
        options: list[Choice] = []
        turning = 0
        for work in layouts(space, splittable(node, self._sizes), area.height, area.width, MOST):
            try:
                found = rule(node, work, self._sizes)
            except NoSuchPartition:
                continue
            shape = shape_of(node.outputs[0].type, self._sizes)
            options += [Choice(work, result) for result in _results(found.result, shape)]
            dim = travelled(node, work, self._sizes)
            if dim is not None and turning < TURNING:
                turning += 1
                options.append(Choice(work, found.result, dim))
        variable = _Variable(shape_of(node.outputs[0].type, self._sizes), options, root=node)
        self._variables.append(variable)
        return len(self._variables) - 1

    def _choice(self, node: Node, at: int | None, options: Sequence[int]) -> Choice:
        if at is None:
            area = self._stretch.area
            whole = Layout(copies(area.height), copies(area.width))
            return Choice(whole, whole)
        return self._member(node, at, self._variables[at].options[options[at]])

    def _member(self, node: Node, at: int, option: Choice) -> Choice:
        """Return the choice of a node whose variable has this option."""
        if self._variables[at].root is node:
            return option
        work = option.result.restricted(name for name, _ in iteration(node, self._sizes))
        return Choice(work, work.restricted(node.outputs[0].type.names))

    # ---- costs

    def _own(self, variable: _Variable, option: Choice) -> float:
        total = 0.0
        if variable.root is not None:
            total += self._node_cycles(variable.root, option)
        elif variable.value is not None:
            total += self._kept(variable.value, option.result)
        for node in variable.members:
            work = option.result.restricted(name for name, _ in iteration(node, self._sizes))
            total += self._node_cycles(node, Choice(work, work.restricted(node.outputs[0].type.names)))
        return total

    def _kept(self, value: Value, layout: Layout) -> float:
        size = entries(largest_tile(layout, shape_of(value.type, self._sizes)))
        return self._price * size * ENTRY_BYTES[value.type.dtype]

    def _node_cycles(self, node: Node, choice: Choice) -> float:
        total = node_cycles(node, choice, self._sizes, self._clock)
        if choice.travels:
            total += self._price * panel_bytes(node, choice, self._sizes)
        return total + sum(self._kept(value, choice.result) for value in node.outputs)

    def _edges(self, node: Node, at: int, alone: list[Table], pairs: dict[tuple[int, int], Table]) -> None:
        for place, value in enumerate(node.inputs):
            if value.name in self._generated or not value.type.dims:
                continue
            shape, entry = shape_of(value.type, self._sizes), ENTRY_BYTES[value.type.dtype]
            needs = [self._needed(node, at, option, place) for option in self._variables[at].options]
            other = self._of.get(value.name)
            if other == at:
                have = [o.result.restricted(value.type.names) for o in self._variables[at].options]
                alone[at] += [self._move(shape, entry, a, b) for a, b in zip(have, needs, strict=True)]
            elif other is None:
                home = self._known[value.name]
                alone[at] += [self._from(shape, entry, home, need) for need in needs]
            else:
                have = [o.result.restricted(value.type.names) for o in self._variables[other].options]
                table = np.array([[self._move(shape, entry, a, b) for b in needs] for a in have])
                key, table = ((other, at), table) if other < at else ((at, other), table.T)
                pairs[key] = pairs[key] + table if key in pairs else table

    def _needed(self, node: Node, at: int, option: Choice, place: int) -> Layout:
        return needs(node, self._member(node, at, option), self._sizes).operands[place]

    def _move(self, shape: Shape, entry: int, have: Layout, need: Layout) -> float:
        cycles = move_cycles(shape, entry, have, need, self._clock)
        return cycles + (self._price * entries(largest_tile(need, shape)) * entry if cycles else 0.0)

    def _from(self, shape: Shape, entry: int, home: Home, need: Layout) -> float:
        if home.area == self._stretch.area:
            return self._move(shape, entry, home.layout, need)
        return between(shape, entry, home, need, self._stretch.area, self._clock)


def _results(found: Layout, shape: Shape) -> list[Layout]:
    """Return what may be done with sums: every core gets the whole, or a piece along a dimension that is not split."""
    if not any(digit.kind == "sum" for digit in found.digits):
        return [found]
    whole = found.mapped(lambda d: Digit("copy", d.parts) if d.kind == "sum" else d)
    free = [name for name, size in shape if found.parts(name) == 1 and size > 1]
    results = [whole]
    for dim in free:
        for axis in (0, 1):
            one = [found.rows, found.columns]
            summed = [d for d in one[axis] if d.kind == "sum"]
            if len(summed) != 1 or dict(shape)[dim] < summed[0].parts:
                continue
            one[axis] = tuple(split(dim, d.parts) if d.kind == "sum" else d for d in one[axis])
            other = 1 - axis
            one[other] = canonical(Digit("copy", d.parts) if d.kind == "sum" else d for d in one[other])
            results.append(Layout(one[0], one[1]))
    return results


def node_cycles(node: Node, choice: Choice, sizes: Sizes, clock: Clock) -> float:
    """Return the cycles of a node, with the sums it leaves added up."""
    if choice.travels:
        return turn_cycles(node, choice, sizes, clock)
    total = work_cycles(node, largest_tile(choice.work, iteration(node, sizes)), clock)
    found = rule(node, choice.work, sizes).result
    if not any(digit.kind == "sum" for digit in found.digits):
        return total
    return total + reduction_cycles(found, choice.result, node.outputs[0], sizes, clock)


def reduction_cycles(found: Layout, wanted: Layout, value: Value, sizes: Sizes, clock: Clock) -> float:
    """Return the cycles of adding up the `sum` digits of `found`, columns first, and of bringing sums to `wanted`."""
    shape, entry = shape_of(value.type, sizes), ENTRY_BYTES[value.type.dtype]
    total = 0.0
    rows, columns = found.rows, found.columns
    if any(digit.kind == "sum" for digit in columns):
        after = _next(columns, wanted.columns)
        total += sum_cycles(summing(shape, entry, columns, after, Layout(rows, after)), clock)
        columns = after
    if any(digit.kind == "sum" for digit in rows):
        after = _next(rows, wanted.rows)
        total += sum_cycles(summing(shape, entry, rows, after, Layout(after, columns)), clock)
        rows = after
    return total + move_cycles(shape, entry, Layout(rows, columns), wanted, clock)


def _next(before: Axis, wanted: Axis) -> Axis:
    if len(before) == len(wanted) and all(
        b.kind != "sum" or w.kind == "split" for b, w in zip(before, wanted, strict=True)
    ):
        return wanted
    return summed_axis(before)


def between(shape: Shape, entry: int, home: Home, need: Layout, area: Rectangle, clock: Clock) -> float:
    """Return the cycles of moving a tensor to another rectangle: what a core or the border between lets through."""
    tile = words(entries(largest_tile(need, shape)), entry)
    own = words(entries(largest_tile(home.layout, shape)), entry)
    border = min(max(home.area.width, home.area.height), max(area.width, area.height))
    through = words(entries(shape), entry) / border
    far = abs(home.area.x - area.x) + abs(home.area.y - area.y) + area.width + area.height
    busiest = max(tile, own, through)
    return arrived(Phase(busiest, busiest, far, 1), clock)


Chooser: TypeAlias = Callable[[Stretch, Known], Chosen]
