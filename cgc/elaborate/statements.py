"""Bodies of models and blocks, statement by statement. A fault ends its statement, not the body."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never, cast

from cgc.diagnostics import NOWHERE, Diagnostics, Label, Location
from cgc.elaborate.builtins import sort_arguments
from cgc.elaborate.calls import Blocks
from cgc.elaborate.expressions import Context
from cgc.elaborate.frames import Frame, Scope, stacked_type
from cgc.elaborate.hints import quoted, suggest, to_carry
from cgc.elaborate.modules import Module
from cgc.elaborate.values import (
    POISON,
    Fault,
    Number,
    Pack,
    Poisoned,
    Tensor,
    Unknown,
    describe,
)
from cgc.ir.dims import Dim
from cgc.ir.graph import Init, Value
from cgc.ir.ops import Cast, Repeat, Transpose
from cgc.ir.types import TensorType
from cgc.syntax import tree

LARGEST_TENSOR = 1 << 62
MOST_ITERATIONS = 1 << 20

DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "normal": ("std", "mean"),
    "truncated_normal": ("std", "mean"),
    "uniform": ("limit",),
    "constant": ("value",),
    "zeros": (),
    "ones": (),
}


class Done(Exception):
    """A `return` was reached."""

    def __init__(self, results: tuple[Value, ...]) -> None:
        super().__init__()
        self.results = results


Declare = Callable[[Context, tree.InputStatement | tree.OutputStatement], None]


class BodyWalk:
    """Walks one body. `declare` takes the statements that only a model has: inputs and outputs."""

    def __init__(
        self, blocks: Blocks, module: Module, frame: Frame, found: Diagnostics, declare: Declare | None = None
    ) -> None:
        self._blocks = blocks
        self._module = module
        self._frame = frame
        self._found = found
        self._declare = declare
        self._context = blocks.context(module, frame)

    def walk(self, body: tree.Body) -> None:
        """Elaborate every statement; raises Done at a `return`."""
        for statement in body.statements:
            try:
                self._statement(statement)
            except Fault as fault:
                self._found.add(fault.diagnostic)
                self._poison(statement)
            except Poisoned:
                self._poison(statement)

    def _poison(self, statement: tree.Statement) -> None:
        match statement:
            case tree.Assignment(targets=targets):
                names = targets
            case tree.DimStatement(name=name) | tree.InputStatement(name=name) | tree.ParamStatement(name=name):
                names = (name,)
            case tree.RepeatStatement(body=body):
                names = tuple(_assigned(body).values())
            case tree.ReturnStatement() if self._declare is None and self._frame.around is None:
                raise Done(())
            case _:
                return
        for name in names:
            self._frame.scope.bind(name.text, POISON, name.location)

    def _statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.DimStatement():
                self._dim(statement)
            case tree.ParamStatement():
                self._param(statement)
            case tree.Assignment():
                self._assign(statement)
            case tree.RepeatStatement():
                self._repeat(statement)
            case tree.ReturnStatement(values=values):
                if self._declare is not None or self._frame.around is not None:
                    raise self._misplaced_return(statement)
                raise Done(tuple(self._context.value(value) for value in values))
            case tree.InputStatement() | tree.OutputStatement():
                if self._declare is None or self._frame.around is not None:
                    raise self._misplaced_interface(statement)
                self._declare(self._context, statement)
            case tree.IfStatement():
                self._if(statement)
            case _:
                assert_never(statement)

    def _misplaced_return(self, statement: tree.ReturnStatement) -> Fault:
        if self._frame.around is not None:
            text, hint = "there is no `return` inside a loop", "give a name a value in the loop, and return it after"
        else:
            text, hint = "a model does not return", "its results leave by name: `output y = …`"
        return Fault("CG0405", text, Label(statement.location), hint=hint)

    def _misplaced_interface(self, statement: tree.InputStatement | tree.OutputStatement) -> Fault:
        word = "input" if isinstance(statement, tree.InputStatement) else "output"
        hint = "write it before or after the loop"
        if self._declare is None:
            hint = "a block takes what its header says" if word == "input" else "a block gives its result by `return …`"
        text = f"`{word}` stands in the body of a model, outside of loops"
        return Fault("CG0405", text, Label(statement.location), hint=hint)

    def _new_name(self, name: tree.Name, what: str) -> None:
        found = self._frame.scope.own(name.text)
        if found is not None and found != POISON:
            labels = (Label(name.location, "again here"), Label(self._frame.scope.place(name.text), "first here"))
            hint = f"choose another name for the {what}"
            raise Fault("CG0303", f"the name `{name.text}` is taken", *labels, hint=hint)

    def _dim(self, statement: tree.DimStatement) -> None:
        self._new_name(statement.name, "dimension")
        number = self._context.number(statement.value)
        if isinstance(number.value, float) and not number.value.is_integer():
            raise self._indivisible(statement, number)
        size = self._context.size(number, statement.value.location)
        dim = Dim(statement.name.text, size)
        self._frame.scope.bind(statement.name.text, Pack((dim,)), statement.name.location)

    def _indivisible(self, statement: tree.DimStatement, number: Number) -> Fault:
        name, value = statement.name.text, statement.value
        labels, hint = [Label(value.location)], ""
        message = f"`{name}` would be {number.value:g}, which is not a whole number"
        if isinstance(value, tree.Operation) and value.operator == "/":
            left, right = self._context.number(value.left), self._context.number(value.right)
            message = f"{left.value} / {right.value} does not divide: `{name}` would be {number.value:g}"
            if isinstance(left.value, int) and isinstance(right.value, int) and right.value > 0:
                lower = left.value // right.value * right.value
                around = [size for size in (lower, lower + right.value) if size]
                sizes = " or ".join(map(str, around))
                hint = f"{left.text or 'the first'} can be {sizes}"
            names = (part.text for part in (value.left, value.right) if isinstance(part, tree.Name))
            places = (self._frame.scope.place(part) for part in names)
            labels += [Label(place) for place in places if place != NOWHERE]
        return Fault("CG0205", message, *labels, hint=hint)

    def _param(self, statement: tree.ParamStatement) -> None:
        self._new_name(statement.name, "parameter")
        dims: list[Dim] = []
        for written in statement.dims:
            for dim in self._context.dim(written):
                if self._runtime(dim):
                    raise self._unknown_size(dim, written)
                name = dim.name
                while any(known.name == name for known in dims):
                    name += "'"
                dims.append(Dim(name, dim.size))
        type_ = TensorType(tuple(dims))
        if isinstance(type_.count, int) and type_.count > LARGEST_TENSOR:
            text = f"`{statement.name.text}` would have more than 2^62 entries"
            label = Label(statement.name.location, describe(type_.dims, True))
            raise Fault("CG0208", text, label, hint="make one of its dimensions smaller")
        init = self._init(statement.init)
        self._frame.instances.fresh(statement.name.text)
        value = self._frame.declare(statement.name.text, type_, init, statement.location)
        self._frame.scope.bind(statement.name.text, Tensor(value, self._frame), statement.name.location)

    def _unknown_size(self, dim: Dim, written: tree.Name) -> Fault:
        text = f"a parameter's sizes are known at compile time, `{dim.name}` is not"
        limit = self._blocks.limits.get(str(dim.size))
        hint = "give the parameter a size of the model's header"
        if limit is not None:
            hint = f"give it the limit, `{limit.name}`, and look rows up: `table[position({dim.name})]`"
        return Fault("CG0211", text, Label(written.location), hint=hint)

    def _runtime(self, dim: Dim) -> bool:
        return not isinstance(dim.size, int) and bool(dim.size.symbols() & self._blocks.limits.keys())

    def _init(self, call: tree.Call) -> Init:
        name, args = call.callee.text, sort_arguments(call)
        if name not in DISTRIBUTIONS:
            hint = suggest(name, list(DISTRIBUTIONS)) or f"one of {', '.join(DISTRIBUTIONS)}"
            raise Fault("CG0409", f"there is no initial distribution `{name}`", Label(call.callee.location), hint=hint)
        allowed = DISTRIBUTIONS[name]
        if args.positional or args.over or args.arrows or not args.keywords.keys() <= set(allowed):
            usage = f"{name}({', '.join(f'{key}=0.02' for key in allowed[:1])})"
            raise Fault(
                "CG0409", f"these are not the arguments of `{name}`", Label(call.location), hint=f"write `{usage}`"
            )
        given = {key: self._real(argument.value) for key, argument in args.keywords.items()}
        for key in allowed[:1]:
            if key not in given:
                raise Fault(
                    "CG0409", f"`{name}` needs `{key}`", Label(call.location), hint=f"write `{name}({key}=0.02)`"
                )
        if any(given.get(key, 0.0) < 0 for key in ("std", "limit")):
            text = "a width of a distribution is not negative"
            raise Fault("CG0409", text, Label(call.location), hint="write 0 or more; 0 gives zeros")
        match name:
            case "normal" | "truncated_normal":
                return Init(cast(object, name), given.get("mean", 0.0), given["std"])  # type: ignore[arg-type]
            case "uniform":
                return Init("uniform", limit=given["limit"])
            case "constant":
                return Init("constant", given["value"])
            case _:
                return Init("constant", 1.0 if name == "ones" else 0.0)

    def _real(self, expression: tree.Expression) -> float:
        value = self._context.known(self._context.number(expression), expression.location).value
        if isinstance(value, bool | str):
            raise Fault("CG0409", "a number is needed here", Label(expression.location), hint="such as `std=0.02`")
        if isinstance(value, int | float):
            if not math.isfinite(value):
                text = "a finite number is needed here"
                raise Fault("CG0409", text, Label(expression.location), hint="such as `std=0.02`")
            return float(value)
        return math.nan

    def _assign(self, statement: tree.Assignment) -> None:
        targets, value = statement.targets, statement.value
        names = [target.text for target in targets]
        for target in targets:
            found = self._frame.scope.find(target.text)
            if isinstance(found, Pack) and self._frame.scope.own(target.text) is not None:
                label = Label(self._frame.scope.place(target.text), "first here")
                hint = "choose another name"
                raise Fault("CG0303", f"`{target.text}` is a dimension", Label(target.location), label, hint=hint)
            if target.text in {declared.name for declared in self._frame.params}:
                label = Label(self._frame.scope.place(target.text), "declared here")
                hint = "choose another name for what is computed"
                raise Fault("CG0303", f"`{target.text}` is a parameter", Label(target.location), label, hint=hint)
        if len(targets) == 1:
            wish = names[0]
            if isinstance(value, tree.Call) and isinstance(self._frame.scope.find(wish), Tensor):
                wish = ""
            operand = self._context.operand(value, wish)
            binding = operand if isinstance(operand, Number) else Tensor(operand, self._frame)
            if isinstance(binding, Number):
                binding = Number(binding.value, names[0])
            self._frame.scope.bind(names[0], binding, targets[0].location)
            return
        if not isinstance(value, tree.Call):
            text = f"{len(targets)} names need a call that gives as many values"
            raise Fault(
                "CG0404", text, Label(value.location), hint="write one name, or call a block that returns several"
            )
        results = self._context.call(self._context, value, "")
        if len(results) != len(targets):
            given = "1 value" if len(results) == 1 else f"{len(results)} values"
            text = f"`{value.callee.text}` gives {given}, here are {len(targets)} names"
            place = targets[0].location.to(targets[-1].location)
            hint = "write one name" if len(results) == 1 else f"write {len(results)} names"
            raise Fault("CG0404", text, Label(place), hint=hint)
        for target, operand in zip(targets, results, strict=True):
            binding = operand if isinstance(operand, Number) else Tensor(operand, self._frame)
            self._frame.scope.bind(target.text, binding, target.location)

    def _if(self, statement: tree.IfStatement) -> None:
        condition = self._context.operand(statement.condition)
        if isinstance(condition, Number):
            condition = self._context.known(condition, statement.condition.location)
        if isinstance(condition, Number) and isinstance(condition.value, Unknown):
            condition = Number(True)
        if not isinstance(condition, Number) or not isinstance(condition.value, bool):
            what = f"is {condition.value}" if isinstance(condition, Number) else "is a tensor"
            text = "the condition of an `if` is true or false at compile time"
            hint = "compare numbers, as in `layers > 12`; between values, `where(condition, a, b)` chooses"
            raise Fault("CG0408", text, Label(statement.condition.location, what), hint=hint)
        if condition.value:
            self.walk(statement.body)
        elif statement.otherwise is not None:
            self.walk(statement.otherwise)

    # ---- loops

    def _repeat(self, statement: tree.RepeatStatement) -> None:
        number = self._context.known(self._context.number(statement.count), statement.count.location)
        count = self._context.size(number, statement.count.location)
        if isinstance(count, int) and count > MOST_ITERATIONS:
            text = f"`repeat` runs at most {MOST_ITERATIONS} times"
            raise Fault("CG0208", text, Label(statement.count.location), hint="give it a smaller number")
        name = statement.name.text
        if self._frame.instances.fresh(name) != name:
            raise Fault(
                "CG0303", f"the name `{name}` is taken here", Label(statement.name.location), hint="choose another name"
            )
        assigned = _assigned(statement.body)
        outer = self._frame
        inner = Frame(outer.builder.region(), Scope(around=outer.scope), self._context.path(name), outer)
        for n, place in assigned.items():
            if isinstance(outer.scope.local(n), Number):
                raise self._number_in_loop(n, place)
        carried = [n for n in assigned if isinstance(outer.scope.find(n), Tensor)]
        starts = [self._uncounted(outer.use(cast(Tensor, outer.scope.find(n))), assigned[n]) for n in carried]
        arguments = [inner.builder.value(n, value.type) for n, value in zip(carried, starts, strict=True)]
        for carried_name, argument in zip(carried, arguments, strict=True):
            inner.scope.bind(carried_name, Tensor(argument, inner), assigned[carried_name].location)
        walk = BodyWalk(self._blocks, self._module, inner, self._found, self._declare)
        before = len(self._found)
        walk.walk(statement.body)
        if len(self._found) > before or any(inner.scope.own(n) == POISON for n in carried):
            raise Poisoned
        began = [outer.scope.place(n) for n in carried]
        results = [
            walk._carry(assigned[n], *start) for n, start in zip(carried, zip(starts, began, strict=True), strict=True)
        ]
        if not results and any(outer.scope.find(n) == POISON for n in assigned):
            raise Poisoned
        if not results:
            text = "the loop changes nothing outside it"
            hint = "give a name from outside a new value inside: `x = …`"
            raise Fault("CG0210", text, Label(statement.name.location), hint=hint)
        stack_wish = statement.count.text if isinstance(statement.count, tree.Name) else name
        self._finish_repeat(
            statement, inner, Dim(inner.stack_name(stack_wish), count), starts, arguments, results, carried
        )

    def _uncounted(self, value: Value, place: tree.Name) -> Value:
        """Return `value` as plain numbers: what a loop carries does not stay an index into a dimension."""
        if value.type.indexes is None:
            return value
        return self._context.add(Cast(value.type.dtype), value, place=place.location, wish=value.name)

    def _number_in_loop(self, name: str, place: tree.Name) -> Fault:
        labels = (Label(place.location, "changed here"), Label(self._frame.scope.place(name), "a number"))
        hint = "a loop carries tensors: start with one, such as `0 * x`, or use another name inside"
        return Fault("CG0210", f"a loop cannot change the number `{name}`", *labels, hint=hint)

    def _carry(self, place: tree.Name, start: Value, began: Location) -> Value:
        """Return the value of `name` at the end of the loop's body, with its dimensions in the order of the start."""
        name = place.text
        tensor = self._frame.scope.find(name)
        if not isinstance(tensor, Tensor):
            text, hint = f"`{name}` is a tensor before the loop and not after a turn", "use another name inside"
            raise Fault("CG0210", text, Label(place.location), Label(began, "a tensor"), hint=hint)
        value = self._uncounted(self._frame.use(tensor), place)
        if set(value.type.dims) == set(start.type.dims) and value.type.dtype == start.type.dtype:
            if value.type.dims == start.type.dims:
                return value
            return self._context.add(Transpose(start.type.names), value, place=place.location, wish=name)
        labels = [Label(place.location, f"{value.type} after one turn")]
        if began != NOWHERE:
            labels.append(Label(began, f"{start.type} before"))
        raise Fault("CG0210", f"the loop changes what `{name}` is", *labels, hint=to_carry(name, start, value))

    def _finish_repeat(
        self,
        statement: tree.RepeatStatement,
        inner: Frame,
        stack: Dim,
        starts: list[Value],
        arguments: list[Value],
        results: list[Value],
        carried: list[str],
    ) -> None:
        name = statement.name.text
        shared = list(inner.captured.values())
        stacked: list[Value] = []
        for declared in inner.params:
            path = f"{name}.{declared.name}"
            type_ = stacked_type(declared.value.type, stack)
            stacked.append(self._frame.declare(path, type_, declared.init, declared.location, declared.stacked + 1))
        body_arguments = (*arguments, *(value for _, value in shared), *(d.value for d in inner.params))
        region = inner.builder.finish(body_arguments, tuple(results))
        operands = (*starts, *(value for value, _ in shared), *stacked)
        op = Repeat(name, stack, len(carried), len(shared), region)
        outputs = self._frame.builder.add(
            op, *operands, wish=carried[0], path=self._context.path(name), location=statement.name.location
        )
        for carried_name, value in zip(carried, outputs, strict=True):
            self._frame.scope.bind(carried_name, Tensor(value, self._frame), statement.name.location)


def _assigned(body: tree.Body) -> dict[str, tree.Name]:
    """Return the names that a loop's body assigns, in order, each with where it does so last."""
    names: dict[str, tree.Name] = {}
    for statement in body.statements:
        match statement:
            case tree.Assignment(targets=targets):
                names.update({target.text: target for target in targets})
            case tree.RepeatStatement(body=inner):
                names.update(_assigned(inner))
            case tree.IfStatement(body=inner, otherwise=otherwise):
                names.update(_assigned(inner))
                names.update(_assigned(otherwise) if otherwise else {})
            case _:
                pass
    return names


def walk_block(
    blocks: Blocks, module: Module, frame: Frame, definition: tree.Definition, found: Diagnostics
) -> tuple[Value, ...] | None:
    """Elaborate the body of a block; returns its results, or None where a fault keeps it from having any."""
    try:
        BodyWalk(blocks, module, frame, found).walk(definition.body)
    except Done as done:
        return done.results or None
    if not len(found):
        found.add(_without_return(definition, frame).diagnostic)
    return None


def _without_return(definition: tree.Definition, frame: Frame) -> Fault:
    """Return the fault that a block ends without a result: for a text it was given, or for any."""
    name, place = definition.name.text, Label(definition.name.location)
    known: dict[str, list[str]] = {}
    for statement in definition.body.statements:
        match statement:
            case tree.IfStatement(tree.Operation("==", tree.Name(header_name), tree.String(value))):
                known.setdefault(header_name, []).append(value)
            case _:
                pass
    for header_name, values in known.items():
        given = frame.scope.find(header_name)
        if isinstance(given, Number) and isinstance(given.value, str) and given.value not in values:
            text = f'`{name}` knows no {header_name} "{given.value}"'
            return Fault("CG0411", text, place, hint=suggest(given.value, values) or f"it knows {quoted(values)}")
    return Fault("CG0404", f"block `{name}` ends without a `return`", place, hint="end it with `return …`")
