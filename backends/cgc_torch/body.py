"""The statements of one function or `forward`, from the nodes of its region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cgc.ir.dims import Dim
from cgc.ir.graph import Node, Value
from cgc.ir.ops import Binary, Call, Cast, Constant, Dot, Gather, Reduce, Repeat, Unary, Where
from cgc.ir.types import TensorType
from cgc.target import TargetError
from cgc_torch.activated import function_name
from cgc_torch.expressions import PRODUCT, Expr, arranged, call, infix, number, permuted, unflattened
from cgc_torch.formatting import WIDTH
from cgc_torch.forms import formed, forms
from cgc_torch.intrinsics import Groups
from cgc_torch.intrinsics import inlined as intrinsic
from cgc_torch.lowering import lower, reduced, tensor
from cgc_torch.modules import Child, Inline, Leaf, Loop, Owned, Plain, Unit
from cgc_torch.names import ATTRIBUTE_NAMES, LOCAL_NAMES, Namespace, body_name, identifier
from cgc_torch.naming import Flow, Statement, inlined, statements, variables
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
    the user would call them; `head` is set where the one result is the product of a vector with a matrix.
    """

    parameters: tuple[str, ...]
    extras: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    result: tuple[Expr, ...]
    result_names: tuple[str, ...]
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The result as a product that need not be made, `F.linear(hidden, weight)`: hidden [..., k], weight [n, k]."""

    hidden: Expr
    weight: Expr


@dataclass(frozen=True, slots=True)
class Decoding:
    """How code with a cache differs: `units` that take one are called by these names, as functions of the module.

    `attributes` are the sizes that the module has, by field of the config; `given` sizes that the cache knows.
    """

    units: Mapping[str, str]
    attributes: Mapping[str, str]
    given: Mapping[str, str]


def body(
    unit: Unit,
    fields: ConfigFields,
    functions: frozenset[str],
    callees: Mapping[str, Body],
    limits: Sequence[tuple[str, Dim]] = (),
    decoding: Decoding | None = None,
) -> Body:
    """Return the code of `unit`.

    `functions` are the file's own functions, `callees` the code of the units before this one by name, `limits` the
    largest sizes that free sizes may take, to be checked first.
    """
    flow = Flow(unit)
    forced: set[str] = set()
    while True:
        writer = _Writer(unit, flow, forced, fields, functions, callees, decoding)
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
        decoding: Decoding | None,
    ) -> None:
        self._decoding = decoding
        self._unit = unit
        self._flow = flow
        self._functions = functions
        self._callees = callees
        self._inside = inlined(flow, forced)
        self._steps = statements(unit, flow, self._inside)
        local = Namespace(LOCAL_NAMES | functions)
        self._local = local
        self._variables = variables(unit, flow, self._inside, self._steps, local)
        arguments = [(self._variables[value.name], value.type) for value in unit.arguments]
        attributes = Namespace(_attribute_names(unit))
        given = decoding.given if decoding is not None else {}
        self._sizes = Sizes(arguments, local, fields if unit.is_class else None, attributes, _device(unit), given)
        if decoding is not None:
            self._sizes.attributes.update(decoding.attributes)
        self._untyped: set[str] = set()
        self._declared = {variable for variable, _ in arguments}
        self._dims = {variable: type.names for variable, type in arguments}
        stored = {step.node.outputs[0].name for step in self._steps if not isinstance(step.node.op, Repeat)}
        self._kept = forms(unit, flow, stored)
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
        self._measure(text, 0, self._flow.reads(self._steps[-1].node) if returned else unit.region.results)
        names = tuple(identifier(self._flow.wish(self._flow.root(value))) for value in unit.region.results)
        if len(result) == 1 and result[0].untyped:
            names = (self._annotated(unit.region.results[0]),)
        if len(result) == 1 and result[0].stem and self._overlong(text, 0):
            name = self._local.fresh(names[0])
            lines.append(Line(f"{name} = {result[0].stem}"))
            result = (result[0].renamed(name),)
        start = [Line(text) for text in self._sizes.prologue()]
        parameters = tuple(self._variables[value.name] for value in unit.arguments)
        head = None if returned is None else self._head()
        extras, sizes = self._sizes.asked(), tuple(self._sizes.attributes.items())
        return Body(parameters, extras, sizes, (*start, *lines), result, names, head)

    def _head(self) -> Head | None:
        """Return the result as a product of vectors with a matrix; a constant factor goes to the vectors."""
        value, scale = self._flow.root(self._unit.region.results[0]), 1.0
        while True:
            node = self._flow.node(value)
            if node is None:
                return None
            if isinstance(node.op, Binary) and node.op.kind == "mul":
                factors = [self._flow.node(self._flow.root(operand)) for operand in node.inputs]
                numbers = [factor is not None and isinstance(factor.op, Constant) for factor in factors]
                if sum(numbers) != 1:
                    return None
                constant = factors[numbers.index(True)]
                assert constant is not None and isinstance(constant.op, Constant)
                scale *= float(constant.op.value)
                value = self._flow.root(node.inputs[numbers.index(False)])
                if value.name not in self._inside:
                    return None
                continue
            made = self._product(node)
            if made is None or scale == 1.0:
                return made
            return Head(infix(made.hidden, "*", number(scale), PRODUCT), made.weight)

    def _product(self, node: Node) -> Head | None:
        """Return what `node` multiplies, None where it is no product of [..., width] and [n, width]."""
        callee = self._flow.callee(node)
        if isinstance(callee, Leaf) and callee.builtin.kind == "linear":
            module, (x, *_) = callee.builtin, node.inputs
            if module.bias or len(module.inner) != 1 or len(module.outer) != 1:
                return None
            if x.type.names[-1] != module.inner[0].name or self._kept.get(self._flow.root(x).name):
                return None
            return Head(self._tensor(x), Expr(f"self.{callee.attribute}.weight"))
        if not isinstance(node.op, Dot) or len(node.op.over) != 1:
            return None
        (over,), (x, matrix) = node.op.over, node.inputs
        shared = set(x.type.names) & set(matrix.type.names)
        if x.type.names[-1] != over or len(matrix.type.dims) != 2 or shared != {over}:
            return None
        weight = self._tensor(matrix)
        return Head(self._tensor(x), weight if matrix.type.names[1] == over else weight.method("mT"))

    def _returned(self) -> tuple[Expr, ...] | None:
        """Return the last statement's value where it is the one result and needs no variable before it is returned."""
        results = self._unit.region.results
        if len(results) != 1 or not self._steps:
            return None
        root, last = self._flow.root(results[0]), self._steps[-1].node
        if isinstance(last.op, Repeat) or last.outputs != (root,) or self._flow.uses[root.name] != 1:
            return None
        x = self._of_node(last)
        # `x = x + f(x)` and `return x` where checkers know the type of x, but not of what f returns.
        return None if x.untyped and self._variables[root.name] in self._declared else (x,)

    def _annotated(self, value: Value) -> str:
        """Return a variable to declare a result of unknown type with: its own where it is not in use yet."""
        name = self._variables.get(self._flow.root(value).name, "out")
        own = self._flow.root(value).name in self._variables and name not in self._declared
        return name if own else self._local.fresh("out")

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
        self._declare(names, x.untyped)
        text = f"{', '.join(names)} = {x.text}"
        self._measure(text, 0, self._flow.reads(node))
        comment = self._shape_comment(node.outputs, names)
        if x.stem and self._overlong(text, 0):
            return [Line(f"{names[0]} = {x.stem}"), Line(f"{names[0]} = {x.renamed(names[0]).text}", 0, comment)]
        return [Line(text, 0, comment)]

    def _stored(self, node: Node) -> Expr:
        """Return the value of a statement with its axes in the order in which the variable keeps them."""
        kept = self._kept.get(node.output.name)
        if kept is None:
            return self._of_node(node)
        if isinstance(self._flow.callee(node), Inline):
            return self._of_node(node, kept)
        if isinstance(node.op, Binary | Where):
            return self._of_node(node, to=formed(node.output.type, kept))
        return permuted(self._of_node(node), [axis for group in kept for axis in group])

    def _as_kept(self, value: Value) -> tuple[Expr, TensorType]:
        """Return how a value is read in the form its variable keeps, and its type in that form."""
        root = self._flow.root(value)
        kept = self._kept.get(root.name)
        if kept is None or root.name not in self._variables:
            return self._tensor(value), value.type
        name = self._variables[root.name]
        return Expr(name, untyped=name in self._untyped), formed(value.type, kept)

    def _shape_comment(self, values: Sequence[Value], names: Sequence[str]) -> str:
        """Return the dimensions of what is assigned, empty where the variables had the same ones before."""
        types = [formed(self._flow.shown(value), self._kept.get(value.name)) for value in values]
        known = all(self._dims.get(name) == type.names for name, type in zip(names, types, strict=True))
        self._dims.update({name: type.names for name, type in zip(names, types, strict=True)})
        return "" if known else ", ".join(f"[{', '.join(type.names)}]" for type in types)

    def _declare(self, names: Sequence[str], untyped: bool) -> None:
        """Note what type checkers think of variables: what they were first assigned decides."""
        fresh = [name for name in names if name not in self._declared]
        self._declared.update(fresh)
        if untyped:
            self._untyped.update(fresh)

    def _loop(self, node: Node, op: Repeat, loop: Loop) -> list[Line]:
        if op.collected or op.reverse:
            text = f"the target `torch` runs no loop such as `{op.instance}` in reverse, nor collects values"
            raise TargetError("CG0803", text, "it derives gradients itself")
        names = [self._variables[value.name] for value in node.outputs]
        starts = [self._tensor(value) for value in node.inputs[: op.carried]]
        late = [(name, start) for name, start in zip(names, starts, strict=True) if name != start.text]
        lines: list[Line] = []
        if late:
            text = f"{', '.join(name for name, _ in late)} = {', '.join(start.text for _, start in late)}"
            self._measure(text, 0, node.inputs[: op.carried])
            lines.append(Line(text))
            for name, start in late:
                self._declare([name], start.untyped)
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
            cached = self._cached(loop.unit)
            made = call(cached, f"cast({loop.unit.name}, {layer})", *operands) if cached else call(layer, *operands)
        else:
            made = call(self._cached(loop.unit) or loop.unit.name, *operands)
            head = f"for {index} in range({self._sizes.dim(op.stack).text}):"
        text = f"{', '.join(names)} = {made.text}"
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
            if node is not None and not isinstance(node.op, Constant):
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
            return self._unformed(x, root)
        node = self._flow.node(root)
        if node is None:
            raise AssertionError(f"{root.name} is neither an argument nor computed")
        return self._of_node(node)

    def _unformed(self, x: Expr, root: Value) -> Expr:
        """Return the variable of `root` with the axes that the graph gives it."""
        kept = self._kept.get(root.name)
        if kept is None:
            return x
        order = [axis for group in kept for axis in group]
        rank = len(kept)
        for place in range(len(kept) - 1, -1, -1):
            if len(kept[place]) > 1:
                sizes = [self._sizes.dim(root.type.dims[axis]).text for axis in kept[place]]
                x = unflattened(x, place, rank, sizes)
                rank += len(sizes) - 1
        return permuted(x, [order.index(axis) for axis in range(len(order))])

    def _tensor(self, value: Value) -> Expr:
        return tensor(self._value(value), value.type, self._sizes)

    def _of_node(self, node: Node, form: Groups | None = None, to: TensorType | None = None) -> Expr:
        """Return the expression for the results of a node, in `form` if it is an intrinsic that has a choice.

        `to` is an elementwise node's type with its dimensions in the order that is wanted.
        """
        op = node.op
        match op:
            case Repeat():
                raise AssertionError("a loop is a statement")
            case Call():
                return self._called(node, op, form)
            case Gather():
                leading = self._flow.leading(node)
                if leading is not None:
                    return self._leading(node, op, leading)
            case _:
                pass
        if isinstance(op, Binary | Where):
            to = to or node.output.type
            pairs = [self._broadcast(value, to) for value in node.inputs]
            return lower(op, [x for x, _ in pairs], [type for _, type in pairs], to, self._sizes)
        keeps_numbers = isinstance(op, Cast) or (isinstance(op, Unary) and op.kind == "neg")
        operands = [self._value(value) if keeps_numbers else self._tensor(value) for value in node.inputs]
        types = [value.type for value in node.inputs]
        return lower(op, operands, types, node.outputs[0].type, self._sizes)

    def _broadcast(self, value: Value, to: TensorType) -> tuple[Expr, TensorType]:
        """Return an operand of an elementwise node of type `to`, and its type, in a form that broadcasts well.

        Elementwise expressions take the order of `to`'s dimensions; reductions keep the axes that `to` has.
        """
        root = self._flow.root(value)
        node = self._flow.node(root)
        if root.name in self._inside and node is not None and root.type.names == value.type.names:
            if isinstance(node.op, Binary | Where):
                type = value.type.with_dims(tuple(dim for dim in to.dims if value.type.has(dim.name)))
                return self._of_node(node, to=type), type
            if isinstance(node.op, Reduce) and node.inputs[0].type.names == to.names:
                type = node.inputs[0].type
                return reduced(node.op, self._tensor(node.inputs[0]), type, keep=True), type
        kept = self._kept.get(root.name)
        if kept is not None and root.name in self._variables and all(len(group) == 1 for group in kept):
            return self._as_kept(value)
        return self._value(value), value.type

    def _leading(self, node: Node, op: Gather, dim: Dim) -> Expr:
        """A table read at positions 0, 1, …: its first entries."""
        table = node.inputs[0].type
        x = arranged(self._tensor(node.inputs[0]), table.names, [op.dim, *(n for n in table.names if n != op.dim)])
        return x if table.dim(op.dim).size == dim.size else x.indexed(f":{self._sizes.dim(dim).text}")

    def _called(self, node: Node, op: Call, form: Groups | None) -> Expr:
        callee = self._flow.callee(node)
        activated = self._activated(node, callee) if isinstance(callee, Leaf) else None
        if activated is not None:
            return activated
        if isinstance(callee, Inline | Leaf):
            kept = [self._as_kept(value) for value in node.inputs[: op.args]]
            if isinstance(callee, Inline) or not callee.builtin.takes(kept[0][1]):
                kept = [
                    (x, type) if len(type.dims) == len(value.type.dims) else (self._tensor(value), value.type)
                    for (x, type), value in zip(kept, node.inputs[: op.args], strict=True)
                ]
            xs, types = [x for x, _ in kept], [type for _, type in kept]
            to = formed(node.outputs[0].type, form)
            if isinstance(callee, Inline):
                sizes = self._sizes
                return intrinsic(callee.kind, dict(callee.static), xs, types, to, sizes.dim, sizes.device)
            return callee.builtin.applied(f"self.{callee.attribute}", xs[0], types[0], to, self._sizes.dim)
        passed = node.inputs if isinstance(callee, Plain) else node.inputs[: op.args]
        operands = [self._tensor(value) for value in passed]
        match callee:
            case Child(attribute=attribute, unit=unit):
                if self._cached(unit):
                    return call(self._cached(unit), f"self.{attribute}", *operands, *self._extras(unit))
                x = call(f"self.{attribute}", *operands, *self._extras(unit))
                return Expr(x.text, untyped=True)
            case Plain(unit=unit):
                return call(self._cached(unit) or unit.name, *operands, *self._extras(unit))
            case _:
                raise AssertionError(f"{op.function} is not a block")

    def _activated(self, node: Node, layer: Leaf) -> Expr | None:
        """Return a linear layer of an activation as one call, where the file has a function for it."""
        root, module = self._flow.root(node.inputs[0]), layer.builtin
        made = self._flow.node(root) if root.name in self._inside else None
        callee = self._flow.callee(made) if made is not None else None
        if made is None or not isinstance(callee, Inline) or module.kind != "linear":
            return None
        (x, *_), name = made.inputs, function_name(callee.kind)
        plain = len(module.inner) == len(module.outer) == 1 and x.type.names[-1] == module.inner[0].name
        if name not in self._functions or not plain or len(x.type.dims) < 2:
            return None
        return call(name, self._tensor(x), f"self.{layer.attribute}")

    def _cached(self, unit: Unit) -> str:
        """Return the function that a unit is where it takes a cache, empty where it takes none."""
        return self._decoding.units.get(unit.name, "") if self._decoding is not None else ""

    def _extras(self, unit: Unit) -> list[str]:
        """Return the arguments for what the callee cannot read off its tensors."""
        texts: list[str] = ["cache"] if self._cached(unit) else []
        for name, variable in self._callees[unit.name].extras:
            value = self._sizes.device() if name == "device" else self._sizes.symbol(name).text
            texts.append(f"{variable}={value}")
        return texts


def _device(unit: Unit) -> str:
    """Return where a module stands that gets no tensors: with a parameter of its own, or, for a whole model, here."""
    owned = [member.attribute for member in unit.members if isinstance(member, Owned)]
    if owned:
        return f"self.{owned[0]}.device"
    return 'torch.device("cpu")' if unit.form == "model" else ""


def _attribute_names(unit: Unit) -> frozenset[str]:
    return ATTRIBUTE_NAMES | {member.attribute for member in unit.members}
