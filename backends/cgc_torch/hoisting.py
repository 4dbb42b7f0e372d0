"""Tables that depend on no input and no weight (angles of rotary positions, masks, biases of distances) are made once.

A value whose operands lead back to positions and constants alone is the same wherever it is computed. One that a call
of the model would compute more than once, in the rounds of a loop or in several blocks, is computed at the start of the
model's `forward` instead and handed down to the blocks that use it. What is the same is told by structure: the ops, the
sizes of their dimensions, and what they are applied to.
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cgc.ir.graph import Node, Region, Value
from cgc.ir.ops import Call, Cast, Constant, Position, Rename, Repeat, Transpose
from cgc_torch.intrinsics import rotated
from cgc_torch.modules import Callee, Child, Inline, Layers, Layout, Loop, Member, Plain, Unit
from cgc_torch.naming import Flow

_CHEAP = (Constant, Position, Cast, Rename, Transpose)
"""Ops that cost nothing worth sharing, in any chain."""


def hoisted(layout: Layout) -> Layout:
    """Return the units of a file with what they would compute again and again as arguments; the model makes it."""
    layout = Layout(tuple(map(_with_tables, layout.units)))
    closed = {unit.name: _Closed(unit) for unit in layout.units}
    often = _often(layout, closed)
    needs: dict[str, dict[Hashable, _Table]] = {}
    for unit in layout.units:
        found = closed[unit.name]
        own = {key: _Table(found, value) for key, value in found.used if key in often}
        needs[unit.name] = own
        for index in found.left(own):
            own |= {key: table for key, table in _handed_to(unit.callees[index], needs) if key not in own}
    made_here, waiting = needs[layout.root.name], list(needs[layout.root.name].values())
    while waiting:
        # The functions that make a table may take some themselves.
        table = waiting.pop()
        for _, callee in table.found.parts(table.value):
            more = {key: taken for key, taken in _handed_to(callee, needs) if key not in made_here}
            made_here |= more
            waiting += more.values()
    if not made_here:
        return layout
    places = _places(layout)
    made: dict[str, Unit] = {}
    for unit in layout.units:
        given = needs[unit.name]
        if not given:
            made[unit.name] = unit
            continue
        writer = _Receiver(unit, closed[unit.name], needs, places, made)
        made[unit.name] = writer.root(given) if unit is layout.root else writer.block(given)
    return Layout(tuple(made[unit.name] for unit in layout.units))


def _handed_to(
    callee: Callee | None, needs: Mapping[str, Mapping[Hashable, _Table]]
) -> Iterable[tuple[Hashable, _Table]]:
    return needs[callee.unit.name].items() if isinstance(callee, Child | Plain | Loop) else ()


@dataclass(frozen=True, slots=True)
class _Table:
    """A value to share, as the unit where it was found first has it."""

    found: _Closed
    value: Value


class _Closed:
    """The values of a unit that depend on no argument and no parameter, by structure."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.flow = Flow(unit)
        self.keys: dict[str, Hashable] = {}
        self.cheap: set[str] = set()
        for node, callee in zip(unit.region.nodes, unit.callees, strict=True):
            self._note(node, callee)
        self.used = self._used()

    def _note(self, node: Node, callee: Callee | None) -> None:
        alone = isinstance(callee, Inline | Plain) or callee is None
        if not alone or isinstance(node.op, Repeat) or any(value.name not in self.keys for value in node.inputs):
            return
        what: Hashable = node.op
        if isinstance(node.op, Constant):
            what = (node.op, repr(node.op.value))  # 0.0 and -0.0 are equal, what is made of them is not
        elif isinstance(callee, Plain):
            what = callee.unit.name
        elif callee is not None:
            what = callee
        operands = tuple(self.keys[value.name] for value in node.inputs)
        for place, value in enumerate(node.outputs):
            self.keys[value.name] = (what, operands, place, value.type)
            if isinstance(node.op, _CHEAP) and all(operand.name in self.cheap for operand in node.inputs):
                self.cheap.add(value.name)

    def _used(self) -> list[tuple[Hashable, Value]]:
        """Return the tables, in order: what is computed of more than one number, and read by what is no table."""
        found: dict[str, tuple[Hashable, Value]] = {}
        for index, node in enumerate(self.unit.region.nodes):
            if index not in self.flow.live or node.outputs[0].name in self.keys:
                continue
            for value in node.inputs:
                if value.name in self.keys and value.name not in self.cheap and value.type.dims:
                    found[value.name] = (self.keys[value.name], value)
        return list(found.values())

    def left(self, shared: Container[Hashable]) -> list[int]:
        """Return the nodes that the unit still needs where it is handed the tables `shared`, by index."""
        wanted = {value.name for value in self.unit.region.results}
        kept: list[int] = []
        for index, node in reversed(list(enumerate(self.unit.region.nodes))):
            if any(output.name in wanted for output in node.outputs):
                kept.append(index)
                closed = node.outputs[0].name in self.keys
                wanted |= {v.name for v in node.inputs if closed or self.keys.get(v.name) not in shared}
        return kept[::-1]

    def parts(self, value: Value) -> list[tuple[Node, Callee | None]]:
        """Return the nodes that make a closed value, in order."""
        wanted, kept = {value.name}, []
        pairs = list(zip(self.unit.region.nodes, self.unit.callees, strict=True))
        for node, callee in reversed(pairs):
            if any(output.name in wanted for output in node.outputs):
                wanted |= {operand.name for operand in node.inputs}
                kept.append((node, callee))
        return kept[::-1]


def _often(layout: Layout, closed: Mapping[str, _Closed]) -> set[Hashable]:
    """Return what one call of the model computes more than once."""
    runs = {unit.name: 0 for unit in layout.units} | {layout.root.name: 1}
    counts: dict[Hashable, int] = {}
    for unit in reversed(layout.units):
        for key, _ in closed[unit.name].used:
            counts[key] = counts.get(key, 0) + runs[unit.name]
        for node, callee in zip(unit.region.nodes, unit.callees, strict=True):
            if isinstance(callee, Child | Plain):
                runs[callee.unit.name] += runs[unit.name]
            elif isinstance(callee, Loop) and isinstance(node.op, Repeat):
                rounds = node.op.stack.size if isinstance(node.op.stack.size, int) else 2
                runs[callee.unit.name] += runs[unit.name] * rounds
    return {key for key, count in counts.items() if count > 1}


def _places(layout: Layout) -> dict[str, int]:
    """Return behind which of its arguments each called unit takes tables: those before are tensors, all of them."""
    places: dict[str, int] = {}
    for unit in layout.units:
        for node, callee in zip(unit.region.nodes, unit.callees, strict=True):
            if isinstance(callee, Child | Plain | Loop):
                places[callee.unit.name] = _place(node)
    return places


def _place(node: Node) -> int:
    match node.op:
        case Call(args=args):
            return args
        case Repeat(carried=carried, shared=shared):
            return carried + shared
        case _:
            raise AssertionError("only calls and loops have units")


class _Receiver:
    """Rewrites one unit to take tables, and to hand them on."""

    def __init__(
        self,
        unit: Unit,
        closed: _Closed,
        needs: Mapping[str, Mapping[Hashable, _Table]],
        places: Mapping[str, int],
        made: Mapping[str, Unit],
    ) -> None:
        self._unit = unit
        self._closed = closed
        self._needs = needs
        self._places = places
        self._made = made
        self._taken = {value.name for value in unit.region.arguments}
        self._taken |= {value.name for node in unit.region.nodes for value in node.outputs}
        self._values: dict[Hashable, Value] = {}
        self._wishes: set[str] = set()

    def block(self, given: Mapping[Hashable, _Table]) -> Unit:
        """Return the unit with the tables as arguments."""
        unit, place = self._unit, self._places[self._unit.name]
        for key, table in given.items():
            self._values[key] = self._fresh(table.value, _name(table))
        tables = tuple(self._values.values())
        arguments = (*unit.arguments[:place], *tables, *unit.arguments[place:])
        inner = (*unit.region.arguments[:place], *tables, *unit.region.arguments[place:])
        return self._rewritten(arguments, inner, [])

    def root(self, given: Mapping[Hashable, _Table]) -> Unit:
        """Return the model, which makes the tables before all else."""
        start: list[tuple[Node, Callee | None]] = []
        for table in given.values():
            self._make(table, given, start)
        blocks = {name: block for table in given.values() for name, block in table.found.unit.blocks.items()}
        unit = self._rewritten(self._unit.arguments, self._unit.region.arguments, start)
        return replace(unit, blocks={**blocks, **unit.blocks})

    def _make(self, table: _Table, given: Mapping[Hashable, _Table], start: list[tuple[Node, Callee | None]]) -> None:
        """Add the nodes that make a table, and before them the tables that functions among them take."""
        named: dict[str, Value] = {}
        for node, callee in table.found.parts(table.value):
            keys = [table.found.keys[value.name] for value in node.outputs]
            if keys[0] not in self._values:
                for key in self._needs[callee.unit.name] if isinstance(callee, Plain) else ():
                    self._make(given[key], given, start)
                inputs = tuple(named[value.name] for value in node.inputs)
                outputs = tuple(self._fresh(value, _given(table, value)) for value in node.outputs)
                start.append(self._handed(replace(node, inputs=inputs, outputs=outputs), callee))
                self._values.update(zip(keys, outputs, strict=True))
            named.update({v.name: self._values[key] for v, key in zip(node.outputs, keys, strict=True)})

    def _rewritten(
        self,
        arguments: tuple[Value, ...],
        inner: tuple[Value, ...],
        start: Sequence[tuple[Node, Callee | None]],
    ) -> Unit:
        pairs = [*start]
        for index in self._closed.left(self._needs[self._unit.name]):
            pairs.append(self._handed(self._unit.region.nodes[index], self._unit.callees[index]))
        region = Region(inner, tuple(node for node, _ in pairs), self._unit.region.results)
        return replace(
            self._unit,
            region=region,
            arguments=arguments,
            callees=tuple(callee for _, callee in pairs),
            members=tuple(map(self._member, self._unit.members)),
            scope=self._unit.scope | self._wishes,
        )

    def _handed(self, node: Node, callee: Callee | None) -> tuple[Node, Callee | None]:
        """Return a node that reads the tables, and hands on those that its callee takes."""
        table = node.outputs[0].name in self._closed.keys
        inputs = node.inputs if table else tuple(map(self._read, node.inputs))
        if not isinstance(callee, Child | Plain | Loop):
            return replace(node, inputs=inputs), callee
        tables = tuple(self._values[key] for key in self._needs[callee.unit.name])
        place, unit = _place(node), self._made[callee.unit.name]
        inputs = (*inputs[:place], *tables, *inputs[place:])
        if isinstance(callee, Loop) and isinstance(node.op, Repeat):
            op = replace(node.op, shared=node.op.shared + len(tables), body=unit.region)
            sliced = tuple(index + len(tables) for index in callee.sliced)
            member = callee.member if callee.member is None else replace(callee.member, unit=unit)
            return replace(node, op=op, inputs=inputs), Loop(unit, member, sliced)
        assert isinstance(node.op, Call) and not isinstance(callee, Loop)
        call = replace(node.op, args=node.op.args + len(tables))
        return replace(node, op=call, inputs=inputs), replace(callee, unit=unit)

    def _read(self, value: Value) -> Value:
        key = self._closed.keys.get(value.name)
        return self._values[key] if key is not None and key in self._needs[self._unit.name] else value

    def _member(self, member: Member) -> Member:
        return replace(member, unit=self._made[member.unit.name]) if isinstance(member, Child | Layers) else member

    def _fresh(self, value: Value, wish: str) -> Value:
        """Return a value of the same type under a name that the unit does not have yet."""
        self._wishes.add(wish)
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return Value(name, value.type)


def _name(table: _Table) -> str:
    """Return what to call a table: what the user did, or what it is."""
    flow = table.found.flow
    return flow.wish(flow.root(table.value))


def _given(table: _Table, part: Value) -> str:
    """Return the user's name for what a table is made of; where there is none, the compiler's."""
    flow = table.found.flow
    return re.sub(r"(_\d+)+$", "", part.name) if flow.anonymous(flow.root(part)) else flow.wish(flow.root(part))


# ---- rotary positions


def _with_tables(unit: Unit) -> Unit:
    """Return a unit whose rotary positions are two nodes: the cosines and sines of all angles, and their use."""
    if not any(isinstance(callee, Inline) and callee.kind == "rope" for callee in unit.callees):
        return unit
    taken = {value.name for node in unit.region.nodes for value in node.outputs}
    taken |= {value.name for value in unit.region.arguments}
    pairs: list[tuple[Node, Callee | None]] = []
    for node, callee in zip(unit.region.nodes, unit.callees, strict=True):
        if not isinstance(callee, Inline) or callee.kind != "rope" or not isinstance(node.op, Call):
            pairs.append((node, callee))
            continue
        (x,) = node.inputs
        dims = rotated(dict(callee.static), x.type)
        number = next(n for n in range(1, len(taken) + 2) if not {f"cos_{n}", f"sin_{n}"} & taken)
        tables = tuple(Value(f"{wave}_{number}", x.type.with_dims(dims)) for wave in ("cos", "sin"))
        taken |= {table.name for table in tables}
        made = Node(replace(node.op, args=0), (), tables, node.path, node.location)
        pairs.append((made, Inline("rope_tables", callee.static)))
        pairs.append((replace(node, op=replace(node.op, args=3), inputs=(x, *tables)), callee))
    region = replace(unit.region, nodes=tuple(node for node, _ in pairs))
    scope = unit.scope | {"cos", "sin"}
    return replace(unit, region=region, callees=tuple(callee for _, callee in pairs), scope=scope)
