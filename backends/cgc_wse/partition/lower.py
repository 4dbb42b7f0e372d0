"""From a graph and its plan to the program: buffers, local work, messages.

A value lives in one layout. Whoever needs it in another one gets a copy of it moved there, which lives as long as the
segment that asked for it. What is a part, a renaming or a reshaping of what a core has is a view. Numbers and positions
are made where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from cgc.ir.graph import Node, Value
from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)
from cgc.program import Device
from cgc_wse.partition.flat import Category, Flat
from cgc_wse.partition.formulas import has_sums, summed_axis
from cgc_wse.partition.layout import Layout, everywhere, within
from cgc_wse.partition.messages import chains, entering, leaving, travelling
from cgc_wse.partition.moves import held
from cgc_wse.partition.plan import Choice, Home, Place, Plan
from cgc_wse.partition.program import Buffer, Load, Local, Move, Partitioned, Step, Store, Sum, View
from cgc_wse.partition.rules import Rule, iteration, reduction, rule, shape_of
from cgc_wse.partition.turns import Panel, needs, panels, part_of
from cgc_wse.place.geometry import Rectangle


def is_view(op: Op) -> bool:
    """Tell whether the result shows entries of the operand."""
    match op:
        case Rename() | Transpose() | Split() | Merge() | Slice():
            return True
        case (
            Constant()
            | Position()
            | Unary()
            | Binary()
            | Where()
            | Cast()
            | Dot()
            | Reduce()
            | Scan()
            | Gather()
            | Scatter()
            | Concat()
            | TopK()
        ):
            return False
        case Call() | Repeat():
            raise AssertionError("calls are inlined and loops unrolled before")
        case _:
            assert_never(op)


def lower(flat: Flat, plan: Plan, device: Device) -> Partitioned:
    """Return the program that carries out a plan."""
    return _Lowering(flat, plan, device).run()


class _Lowering:
    def __init__(self, flat: Flat, plan: Plan, device: Device) -> None:
        self._flat = flat
        self._plan = plan
        self._device = device
        self._steps: list[Step] = []
        self._paths: list[str] = []
        self._path = ""
        self._count = 0
        self._resident: list[Buffer] = []
        self._primary: dict[str, Buffer] = {}
        self._made: dict[str, Node] = {}
        self._copies: dict[tuple[str, Layout, Rectangle], Buffer] = {}
        self._segment = -1
        self._starts: list[int] = []
        self._stored: dict[str, str] = {}
        self._left: dict[str, Home] = {}
        self._leaving = self._values_that_leave()

    def _values_that_leave(self) -> set[str]:
        """Return the values that go outside as soon as they are made: what a streamed model keeps there."""
        if self._plan.run == "pipelined":
            return set()
        kept = {"gradients", "weights", "optimizer state"}
        return {
            node.outputs[0].name
            for node in self._flat.graph.body.nodes
            if self._flat.category(node.outputs[0].name) in kept
        }

    def run(self) -> Partitioned:
        """Lower every node."""
        graph = self._flat.graph
        for value in graph.body.arguments:
            home = self._plan.homes.get(value.name)
            if home is not None and not home.outside:
                self._live_in(value, home)
        for node, place in zip(graph.body.nodes, self._plan.places, strict=True):
            self._enter(place.segment)
            self._path = node.path
            self._node(node, place)
        outputs, outside = self._outputs()
        return Partitioned(
            device=self._device,
            steps=tuple(self._steps),
            paths=tuple(self._paths),
            resident=tuple(self._resident),
            outputs=outputs,
            outside=outside,
            regions=self._plan.regions,
        )

    def _enter(self, segment: int) -> None:
        if segment == self._segment:
            return
        self._segment = segment
        self._starts.append(len(self._steps))
        self._copies.clear()
        if self._plan.run == "streaming":
            for name in [name for name, home in self._plan.homes.items() if home.outside]:
                self._primary.pop(name, None)
            for name in self._stored:
                self._primary.pop(name, None)

    # ---- buffers

    def _buffer(
        self, value: Value, layout: Layout, area: Rectangle, category: Category, root: int | None = None, home: str = ""
    ) -> Buffer:
        self._count += 1
        shape = shape_of(value.type, self._flat.sizes)
        own = self._count if root is None else root
        return Buffer(
            self._count,
            value.name,
            self._path or value.name,
            shape,
            value.type.dtype,
            layout,
            area,
            category,
            own,
            home,
        )

    def _live_in(self, value: Value, home: Home) -> None:
        category = self._flat.category(value.name)
        buffer = self._buffer(value, home.layout, home.area, category, home=value.name)
        self._resident.append(buffer)
        self._primary[value.name] = buffer

    def _emit(self, step: Step) -> None:
        self._steps.append(step)
        self._paths.append(self._path)

    @property
    def _color(self) -> int:
        return len(self._steps) % self._device.colors

    # ---- operands

    def _operand(self, value: Value, layout: Layout, area: Rectangle) -> Buffer:
        """Return a value as an op needs it, moved there if it lies otherwise."""
        key = (value.name, layout, area)
        if key in self._copies:
            return self._copies[key]
        node = self._made.get(value.name)
        if node is not None:
            found = self._generated(node, layout, area)
        else:
            source = self._source(value)
            if source.layout == layout and source.area == area:
                return source
            found = self._brought(source, value, layout, area)
        self._copies[key] = found
        return found

    def _source(self, value: Value) -> Buffer:
        """Return the buffer a value lives in, loaded first where it is outside."""
        if value.name not in self._primary:
            self._primary[value.name] = self._loaded(value)
        return self._primary[value.name]

    def _loaded(self, value: Value) -> Buffer:
        home = self._left.get(value.name) or self._plan.homes[value.name]
        buffer = self._buffer(value, home.layout, home.area, self._flat.category(value.name))
        # Room is made while the segment before is at work.
        starts = self._starts or [0]
        posted = starts[-2:][0] if self._plan.ahead and value.name not in self._stored else starts[-1]
        parts = entering(buffer, self._color)
        self._emit(Load(self._stored.get(value.name, value.name), buffer, parts, posted))
        return buffer

    def _generated(self, node: Node, layout: Layout, area: Rectangle) -> Buffer:
        result = self._buffer(node.output, layout, area, "activations")
        self._emit(Local(node, (), (result,), layout, result.shape))
        return result

    def _brought(self, source: Buffer, value: Value, layout: Layout, area: Rectangle) -> Buffer:
        if source.area == area and _lies_within(source, layout):
            result = self._buffer(value, layout, area, source.category, source.root)
            self._emit(View(None, source, result))
            return result
        result = self._buffer(value, layout, area, "communication")
        self._emit(Move(source, result, travelling(source, result, self._color)))
        return result

    # ---- nodes

    def _node(self, node: Node, place: Place) -> None:
        if isinstance(node.op, Constant | Position):
            self._made[node.output.name] = node
            return
        work = place.choice.work
        needed = needs(node, place.choice, self._flat.sizes)
        operands = tuple(
            self._operand(value, layout, place.area) for value, layout in zip(node.inputs, needed.operands, strict=True)
        )
        if is_view(node.op):
            category = self._flat.categories.get(node.output.name, operands[0].category)
            result = self._buffer(node.output, needed.result, place.area, category, operands[0].root)
            self._emit(View(node, operands[0], result))
            self._finish(node.output, result)
            return
        if place.choice.travels:
            self._finish(node.output, self._turns(node, place, operands, needed))
            return
        sums = any(digit.kind == "sum" for digit in needed.result.digits)
        results = tuple(
            self._buffer(v, needed.result, place.area, "communication" if sums else self._flat.category(v.name))
            for v in node.outputs
        )
        self._emit(Local(node, operands, results, work, iteration(node, self._flat.sizes)))
        if sums:
            results = (self._summed(node, results[0], place.choice.result),)
        for value, result in zip(node.outputs, results, strict=True):
            self._finish(value, result)

    def _turns(self, node: Node, place: Place, operands: Sequence[Buffer], needed: Rule) -> Buffer:
        """Add up the products of panels, each broadcast before by the cores that have it."""
        choice, sizes = place.choice, self._flat.sizes
        gathered = rule(node, choice.work, sizes).operands
        sum_so_far: Buffer | None = None
        for panel in panels(node, choice, sizes):
            brought: list[Buffer] = []
            for value, operand, have, need in zip(node.inputs, operands, panel.holders, gathered, strict=True):
                part = _part(self._buffer(value, have, place.area, operand.category, operand.root), choice, panel)
                self._emit(View(None, operand, part))
                if have != need:
                    source = part
                    part = _part(self._buffer(value, need, place.area, "communication"), choice, panel)
                    self._emit(Move(source, part, travelling(source, part, self._color)))
                brought.append(part)
            category = self._flat.category(node.output.name)
            root = sum_so_far.root if sum_so_far is not None else None
            result = self._buffer(node.output, needed.result, place.area, category, root)
            space = part_of(iteration(node, sizes), choice.travels, panel.part)
            self._emit(Local(node, tuple(brought), (result,), choice.work, space, sum_so_far))
            sum_so_far = result
        assert sum_so_far is not None
        return sum_so_far

    def _summed(self, node: Node, found: Buffer, wanted: Layout) -> Buffer:
        """Add up what the cores have parts of, along the columns of cores first; then bring it where it is wanted."""
        category = self._flat.category(node.output.name)
        kind = reduction(node.op)
        rows, columns = found.layout.rows, found.layout.columns
        if has_sums(columns):
            columns = wanted.columns if _scattered(columns, wanted.columns) else summed_axis(columns)
            found = self._chain(node.output, found, Layout(rows, columns), kind, category, wanted)
        if has_sums(rows):
            rows = wanted.rows if _scattered(rows, wanted.rows) else summed_axis(rows)
            found = self._chain(node.output, found, Layout(rows, columns), kind, category, wanted)
        if found.layout == wanted:
            return found
        result = self._buffer(node.output, wanted, found.area, category)
        self._emit(Move(found, result, travelling(found, result, self._color)))
        return result

    def _chain(
        self, value: Value, source: Buffer, layout: Layout, kind: str, category: Category, wanted: Layout
    ) -> Buffer:
        result = self._buffer(value, layout, source.area, category if layout == wanted else "communication")
        assert kind in ("sum", "max", "min")
        self._emit(Sum(source, result, kind, chains(source, result, self._color)))  # type: ignore[arg-type]
        return result

    def _finish(self, value: Value, buffer: Buffer) -> None:
        self._primary[value.name] = buffer
        if value.name in self._leaving:
            self._store(value, buffer)

    def _store(self, value: Value, buffer: Buffer) -> None:
        # What leaves under its name may also have come in under it.
        name = f"stored {value.name}"
        self._emit(Store(name, buffer, leaving(buffer, self._color)))
        self._stored[value.name] = name
        self._left[value.name] = Home(buffer.area, buffer.layout, True)

    def _outputs(self) -> tuple[dict[str, Buffer], dict[str, str]]:
        graph = self._flat.graph
        outputs: dict[str, Buffer] = {}
        outside: dict[str, str] = {}
        for name, value in zip(graph.outputs, graph.body.results, strict=True):
            self._path = name
            if value.name in self._stored:
                outside[name] = self._stored[value.name]
            elif name in self._flat.kept and (
                self._plan.run == "pipelined" or self._flat.category(value.name) == "KV cache"
            ):
                outputs[name] = self._result(value)
            else:
                self._store(value, self._result(value))
                outside[name] = self._stored[value.name]
        return outputs, outside

    def _result(self, value: Value) -> Buffer:
        node = self._made.get(value.name)
        if node is not None:
            area = self._plan.places[-1].area
            return self._generated(node, everywhere(area.height, area.width), area)
        return self._source(value)


def _part(buffer: Buffer, choice: Choice, panel: Panel) -> Buffer:
    """Return a buffer for a panel of a tensor instead of all of it."""
    start = tuple(panel.part[0] if name == choice.travels else 0 for name, _ in buffer.shape)
    return replace(buffer, shape=part_of(buffer.shape, choice.travels, panel.part), start=start)


def _scattered(before: Sequence[object], wanted: Sequence[object]) -> bool:
    """Tell whether the sums end where they are wanted: each core gets its piece."""
    return len(before) == len(wanted) and all(
        getattr(b, "kind", "") != "sum" or getattr(w, "kind", "") == "split"
        for b, w in zip(before, wanted, strict=True)
    )


def _lies_within(source: Buffer, layout: Layout) -> bool:
    """Tell whether every core has what it needs of a buffer."""
    have = source.tiles()
    return all(
        core in have and within(tile, have[core]) for core, tile in held(layout, source.shape, source.area).items()
    )
