"""The statements of one function or `forward`, from the nodes of its region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cgc.ir.dims import Dim
from cgc.ir.graph import Node, Value
from cgc.ir.ops import Binary, Call, Cast, Gather, Repeat, Unary, Where
from cgc.ir.types import TensorType
from cgc_torch.expressions import Expr, arranged, call, permuted
from cgc_torch.formatting import WIDTH
from cgc_torch.intrinsics import inlined as intrinsic
from cgc_torch.intrinsics import made_order, wanted_orders
from cgc_torch.lowering import lower, tensor
from cgc_torch.modules import Callee, Child, Inline, Leaf, Loop, Plain, Unit
from cgc_torch.names import ATTRIBUTE_NAMES, LOCAL_NAMES, Namespace, body_name, identifier
from cgc_torch.naming import Flow, Statement, inlined, leaves, statements, variables
from cgc_torch.sizes import ConfigFields, Sizes


@dataclass(frozen=True, slots=True)
class Line:
    """A statement: its text without indentation, how deep it stands, and the dimensions of what it assigns."""

    text: str
    depth: int = 0
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """The code of a unit.

    `parameters` are its tensor arguments' variables; `extras` sizes (or the device) that no argument tells, by name;
    `sizes` the attributes holding sizes, by field of the config; `result` the expressions returned, `result_names` what
    the user would call them.
    """

    parameters: tuple[str, ...]
    extras: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    result: tuple[Expr, ...]
    result_names: tuple[str, ...]


def body(
    unit: Unit,
    fields: ConfigFields,
    functions: frozenset[str],
    callees: Mapping[str, Body],
    limits: Sequence[tuple[str, Dim]] = (),
) -> Body:
    """Return the code of `unit`.

    `functions` are the file's own functions, `callees` the code of the units before this one by name, `limits` the
    largest sizes that free sizes may take, to be checked first.
    """
    flow = Flow(unit)
    forced: set[str] = set()
    while True:
        writer = _Writer(unit, flow, forced, fields, functions, callees)
        written = writer.write(limits)
        more = writer.too_long - forced
        if not more:
            return written
        forced |= more


class _Writer:
    def __init__(
        self,
        unit: Unit,
        flow: Flow,
        forced: set[str],
        fields: ConfigFields,
        functions: frozenset[str],
        callees: Mapping[str, Body],
    ) -> None:
        self._unit = unit
        self._flow = flow
        self._callees = callees
        self._inside = inlined(flow, forced)
        self._steps = statements(unit, flow, self._inside)
        local = Namespace(LOCAL_NAMES | functions)
        self._local = local
        self._variables = variables(unit, flow, self._inside, self._steps, local)
        arguments = [(self._variables[value.name], value.type) for value in unit.arguments]
        attributes = Namespace(_attribute_names(unit))
        self._sizes = Sizes(arguments, local, fields if unit.is_class else None, attributes)
        self._untyped: set[str] = set()
        self._dims = {variable: type.names for variable, type in arguments}
        self._kept = self._orders()
        self.too_long: set[str] = set()

    def write(self, limits: Sequence[tuple[str, Dim]]) -> Body:
        """Return the code; afterwards `too_long` are values to keep out of expressions that got too long."""
        unit = self._unit
        lines = self._limits(limits)
        for step in self._steps[:-1]:
            lines += self._statement(step)
        returned = self._returned()
        if self._steps and returned is None:
            lines += self._statement(self._steps[-1])
        result = returned or tuple(self._tensor(value) for value in unit.region.results)
        text = "return " + ", ".join(x.text for x in result)
        self._measure(text, 0, unit.region.results)
        names = tuple(identifier(self._flow.wish(self._flow.root(value))) for value in unit.region.results)
        if len(result) == 1 and result[0].stem and self._overlong(text, 0):
            name = self._local.fresh(names[0])
            lines.append(Line(f"{name} = {result[0].stem}"))
            result = (replace(result[0], text=name + result[0].text.removeprefix(result[0].stem)),)
        start = [Line(text) for text in self._sizes.prologue()]
        parameters = tuple(self._variables[value.name] for value in unit.arguments)
        extras, sizes = tuple(self._sizes.extras.items()), tuple(self._sizes.attributes.items())
        return Body(parameters, extras, sizes, (*start, *lines), result, names)

    def _returned(self) -> tuple[Expr, ...] | None:
        """Return the last statement's value where it is the one result and needs no variable before it is returned."""
        results = self._unit.region.results
        if len(results) != 1 or not self._steps:
            return None
        root, last = self._flow.root(results[0]), self._steps[-1].node
        if isinstance(last.op, Repeat) or last.outputs != (root,) or self._flow.uses[root.name] != 1:
            return None
        return (self._of_node(last),)

    def _limits(self, limits: Sequence[tuple[str, Dim]]) -> list[Line]:
        lines: list[Line] = []
        for name, limit in limits:
            size, most = self._sizes.symbol(name).text, self._sizes.dim(limit).text
            lines.append(Line(f"if {size} > {most}:"))
            lines.append(Line(f'raise ValueError(f"{size} is {{{size}}}, at most {{{most}}}")', 1))
        return lines

    def _statement(self, step: Statement) -> list[Line]:
        node = step.node
        callee = self._unit.callees[step.index]
        if isinstance(callee, Loop) and isinstance(node.op, Repeat):
            return self._loop(node, node.op, callee)
        x = self._stored(node) if len(node.outputs) == 1 else self._of_node(node)
        if x.number:
            x = tensor(x, node.output.type, self._sizes)
        names = [self._variables[value.name] for value in node.outputs]
        if x.untyped:
            self._untyped.update(names)
        text = f"{', '.join(names)} = {x.text}"
        self._measure(text, 0, self._flow.reads(node))
        comment = self._shape_comment(node.outputs, names)
        if x.stem and self._overlong(text, 0):
            rest = x.text.removeprefix(x.stem)
            return [Line(f"{names[0]} = {x.stem}"), Line(f"{names[0]} = {names[0]}{rest}", 0, comment)]
        return [Line(text, 0, comment)]

    def _stored(self, node: Node) -> Expr:
        """Return the value of a statement with its axes in the order in which the variable keeps them."""
        kept = self._kept.get(node.output.name)
        if kept is None:
            return self._of_node(node)
        if isinstance(self._callee(node), Inline):
            return self._of_node(node, kept)
        return permuted(self._of_node(node), kept)

    def _orders(self) -> dict[str, tuple[int, ...]]:
        """Return the variables that keep their axes in another order than the graph, which spares transpositions.

        Attention in PyTorch wants and gives heads before positions: what is only computed for it is kept so.
        """
        kept: dict[str, tuple[int, ...]] = {}
        stored = {step.node.outputs[0].name for step in self._steps if not isinstance(step.node.op, Repeat)}
        for node in self._unit.region.nodes:
            callee = self._callee(node)
            if not isinstance(callee, Inline) or not isinstance(node.op, Call):
                continue
            types = [value.type for value in node.inputs]
            orders = wanted_orders(callee.kind, dict(callee.static), types)
            for value, order in zip(node.inputs, orders, strict=True):
                root = self._flow.root(value)
                if order is not None and root.name in stored and self._flow.uses[root.name] == 1:
                    kept.setdefault(root.name, tuple(value.type.names.index(name) for name in order))
            made = made_order(callee.kind, dict(callee.static), types, node.output.type)
            if node.output.name in stored:
                kept[node.output.name] = tuple(node.output.type.names.index(name) for name in made)
        return {name: order for name, order in kept.items() if order != tuple(range(len(order)))}

    def _as_kept(self, value: Value) -> tuple[Expr, TensorType]:
        """Return how a value is read in the order its variable keeps, and its type in that order."""
        root = self._flow.root(value)
        kept = self._kept.get(root.name)
        if kept is None or root.name not in self._variables:
            return self._tensor(value), value.type
        name = self._variables[root.name]
        return Expr(name, untyped=name in self._untyped), _reordered(value.type, kept)

    def _callee(self, node: Node) -> Callee | None:
        return self._unit.callees[self._flow.definition[node.outputs[0].name]]

    def _shape_comment(self, values: Sequence[Value], names: Sequence[str]) -> str:
        """Return the dimensions of what is assigned, empty where the variables had the same ones before."""
        types = [_reordered(self._flow.shown(value), self._kept.get(value.name)) for value in values]
        known = all(self._dims.get(name) == type.names for name, type in zip(names, types, strict=True))
        self._dims.update({name: type.names for name, type in zip(names, types, strict=True)})
        return "" if known else ", ".join(f"[{', '.join(type.names)}]" for type in types)

    def _loop(self, node: Node, op: Repeat, loop: Loop) -> list[Line]:
        names = [self._variables[value.name] for value in node.outputs]
        starts = [self._tensor(value) for value in node.inputs[: op.carried]]
        late = [(name, start) for name, start in zip(names, starts, strict=True) if name != start.text]
        lines: list[Line] = []
        if late:
            text = f"{', '.join(name for name, _ in late)} = {', '.join(start.text for _, start in late)}"
            self._measure(text, 0, node.inputs[: op.carried])
            lines.append(Line(text))
        index = self._local.fresh("i") if loop.sliced else "_"
        operands: list[Expr | str] = []
        for place, value in enumerate(node.inputs):
            if place < op.carried:
                operands.append(names[place])
            elif place < op.carried + op.shared:
                operands.append(self._tensor(value))
            elif place in loop.sliced:
                operands.append(self._tensor(value).indexed(index))
        operands += self._extras(loop.unit)
        if loop.member is not None:
            layer = self._local.fresh(body_name(op.instance))
            source = f"self.{loop.member.attribute}"
            head = f"for {index}, {layer} in enumerate({source}):" if loop.sliced else f"for {layer} in {source}:"
            self._untyped.update(name for name, start in late if start.untyped)
        else:
            layer = loop.unit.name
            head = f"for {index} in range({self._sizes.dim(op.stack).text}):"
        text = f"{', '.join(names)} = {call(layer, *operands).text}"
        self._measure(text, 1, node.inputs)
        for name, value in zip(names, node.outputs, strict=True):
            self._dims[name] = value.type.names
        return [*lines, Line(head), Line(text, 1)]

    def _measure(self, text: str, depth: int, values: Sequence[Value]) -> None:
        """Where a statement is too long, note the operand to give a line of its own: the longest one inside it."""
        if not self._overlong(text, depth):
            return
        candidates: list[tuple[int, str]] = []
        for value in self._inner(values):
            node = self._flow.node(value)
            if node is not None and leaves(self._flow, self._inside, [value]):
                candidates.append((len(self._value(value).text), value.name))
        if candidates:
            self.too_long.add(max(candidates)[1])

    def _overlong(self, text: str, depth: int) -> bool:
        return (8 if self._unit.is_class else 4) + 4 * depth + len(text) > WIDTH

    def _inner(self, values: Sequence[Value]) -> list[Value]:
        """Return the values written inside an expression over `values`, the direct operands."""
        return [root for root in map(self._flow.root, values) if root.name in self._inside]

    def _value(self, value: Value) -> Expr:
        """Return how a value is read: a variable, an attribute, or the expression it is."""
        root = self._flow.root(value)
        if root.name in self._unit.attributes:
            return Expr(f"self.{self._unit.attributes[root.name]}")
        if root.name in self._variables:
            name = self._variables[root.name]
            x = Expr(name, untyped=name in self._untyped)
            kept = self._kept.get(root.name)
            return x if kept is None else permuted(x, [kept.index(axis) for axis in range(len(kept))])
        node = self._flow.node(root)
        if node is None:
            raise AssertionError(f"{root.name} is neither an argument nor computed")
        return self._of_node(node)

    def _tensor(self, value: Value) -> Expr:
        return tensor(self._value(value), value.type, self._sizes)

    def _of_node(self, node: Node, order: Sequence[int] | None = None) -> Expr:
        """Return the expression for the results of a node, `order` its axes if it is an intrinsic that has a choice."""
        op = node.op
        match op:
            case Repeat():
                raise AssertionError("a loop is a statement")
            case Call():
                return self._called(node, op, order)
            case Gather():
                leading = self._flow.leading(node)
                if leading is not None:
                    return self._leading(node, op, leading)
            case _:
                pass
        keeps_numbers = isinstance(op, Binary | Where | Cast) or (isinstance(op, Unary) and op.kind == "neg")
        operands = [self._value(value) if keeps_numbers else self._tensor(value) for value in node.inputs]
        types = [value.type for value in node.inputs]
        return lower(op, operands, types, node.outputs[0].type, self._sizes)

    def _leading(self, node: Node, op: Gather, dim: Dim) -> Expr:
        """A table read at positions 0, 1, …: its first entries."""
        table = node.inputs[0].type
        x = arranged(self._tensor(node.inputs[0]), table.names, [op.dim, *(n for n in table.names if n != op.dim)])
        return x if table.dim(op.dim).size == dim.size else x.indexed(f":{self._sizes.dim(dim).text}")

    def _called(self, node: Node, op: Call, order: Sequence[int] | None) -> Expr:
        callee = self._callee(node)
        if isinstance(callee, Inline | Leaf):
            kept = [self._as_kept(value) for value in node.inputs[: op.args]]
            xs, types = [x for x, _ in kept], [type for _, type in kept]
            to = _reordered(node.output.type, order)
            if isinstance(callee, Inline):
                return intrinsic(callee.kind, dict(callee.static), xs, types, to, self._sizes.dim)
            return callee.builtin.applied(f"self.{callee.attribute}", xs[0], types[0], to, self._sizes.dim)
        passed = node.inputs if isinstance(callee, Plain) else node.inputs[: op.args]
        operands = [self._tensor(value) for value in passed]
        match callee:
            case Child(attribute=attribute, unit=unit):
                x = call(f"self.{attribute}", *operands, *self._extras(unit))
                return Expr(x.text, untyped=True)
            case Plain(unit=unit):
                return call(unit.name, *operands, *self._extras(unit))
            case _:
                raise AssertionError(f"{op.function} is not a block")

    def _extras(self, unit: Unit) -> list[str]:
        """Return the arguments for what the callee cannot read off its tensors."""
        texts: list[str] = []
        for name, variable in self._callees[unit.name].extras:
            value = self._sizes.device() if name == "device" else self._sizes.symbol(name).text
            texts.append(f"{variable}={value}")
        return texts


def _reordered(type: TensorType, order: Sequence[int] | None) -> TensorType:
    return type if order is None else type.with_dims(tuple(type.dims[axis] for axis in order))


def _attribute_names(unit: Unit) -> frozenset[str]:
    return ATTRIBUTE_NAMES | {member.attribute for member in unit.members}
