"""Arguments of a call, bound to the header of the block it calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import assert_never

from cgc.diagnostics import Label, Location
from cgc.elaborate.builtins import Arguments, one_dim
from cgc.elaborate.expressions import Context
from cgc.elaborate.frames import Frame, Scope
from cgc.elaborate.hints import suggest, to_fit
from cgc.elaborate.values import Fault, Number, Pack, describe
from cgc.ir.dims import Dim
from cgc.ir.graph import Static, Value
from cgc.ir.types import is_integer
from cgc.syntax import tree
from cgc.syntax.printer import expression_text


@dataclass(slots=True)
class Bound:
    """Arguments bound to a header: what each of its names means, and what makes this use of the block distinct."""

    bindings: dict[str, Number | Pack] = field(default_factory=dict)
    tensors: dict[str, Value] = field(default_factory=dict)
    static: list[tuple[str, Static]] = field(default_factory=list)
    restored: list[tuple[str, str]] = field(default_factory=list)


def mapped_by_params(body: tree.Body) -> set[str]:
    """Return all names used as dimensions of the parameters that a body declares."""
    names: set[str] = set()
    for statement in body.statements:
        if isinstance(statement, tree.ParamStatement):
            names |= {dim.text for dim in statement.dims}
        elif isinstance(statement, tree.IfStatement):
            names |= mapped_by_params(statement.body)
    return names


def header_text(definition: tree.Definition) -> str:
    """Return the header of a definition as its author wrote it."""
    return f"{definition.name.text}({', '.join(_parameter_text(p) for p in definition.header)})"


def _parameter_text(parameter: tree.Parameter) -> str:
    match parameter:
        case tree.TensorParameter(name=name, dims=None):
            return name.text
        case tree.TensorParameter(name=name, dims=dims):
            inside = ", ".join(dim.name.text if isinstance(dim, tree.BoundDim) else "..." for dim in dims or ())
            return f"{name.text}[{inside}]"
        case tree.PackParameter(keyword=keyword, name=name):
            return f"{keyword} {name.text}"
        case tree.ArrowParameter(source=source, target=target):
            return f"{source.text} -> {target.text}"
        case tree.DimParameter(name=name):
            return f"dim {name.text}"
        case tree.ScalarParameter(name=name, default=default):
            return f"{name.text} = {expression_text(default)}"
        case _:
            assert_never(parameter)


class Binder:
    """Binds the arguments of one call to a block's header."""

    def __init__(self, context: Context, definition: tree.Definition, args: Arguments) -> None:
        self._context = context
        self._definition = definition
        self._args = args
        self._bound = Bound()
        self._keywords = dict(args.keywords)
        self._positional = list(args.positional)
        self._over = list(args.over)
        self._arrows = list(args.arrows)
        self._places: dict[str, Location] = {}

    def bind(self) -> Bound:
        """Return the bound arguments; faults are the caller's."""
        for parameter in self._definition.header:
            match parameter:
                case tree.TensorParameter():
                    self._tensor(parameter)
                case tree.PackParameter(keyword=keyword, name=name):
                    self._pack(keyword, name)
                case tree.ArrowParameter():
                    self._arrow(parameter)
                case tree.DimParameter(name=name):
                    argument = self._next(name.text)
                    self._bind_dims(name.text, (one_dim(self._context, argument),))
                case tree.ScalarParameter():
                    self._scalar(parameter)
        for parameter in self._definition.header:
            if isinstance(parameter, tree.TensorParameter):
                self._check(parameter)
        self._nothing_left()
        return self._bound

    def _fault(self, message: str, hint: str = "") -> Fault:
        hint = hint or f"its header is `{header_text(self._definition)}`"
        return Fault("CG0401", message, Label(self._args.call.location), hint=hint)

    def _next(self, name: str) -> tree.Expression:
        if name in self._keywords:
            return self._keywords.pop(name).value
        if not self._positional:
            raise self._fault(f"`{self._definition.name.text}` needs `{name}`")
        return self._positional.pop(0)

    def _tensor(self, parameter: tree.TensorParameter) -> None:
        name = parameter.name.text
        argument = self._next(name)
        self._places[name] = argument.location
        value = self._context.operand(argument)
        if isinstance(value, Number):
            raise Fault(
                "CG0403",
                f"`{name}` of `{self._definition.name.text}` is a tensor, this is a number",
                Label(argument.location),
                hint="give it a value that has dimensions; numbers are given by name after `=`",
            )
        self._bound.tensors[name] = value

    def _pack(self, keyword: str, name: tree.Name) -> None:
        for i, argument in enumerate(self._over):
            if argument.keyword == keyword:
                del self._over[i]
                if keyword == "over":
                    self._expect_dims(argument.dims)
                self._bind_dims(name.text, self._context.dims(argument.dims))
                return
        header = header_text(self._definition)
        hint = f"say which dimension, as in `{keyword} {self._some_dim()}`; its header is `{header}`"
        raise self._fault(f"`{self._definition.name.text}` needs `{keyword} …`", hint)

    def _some_dim(self) -> str:
        """Return the last dimension of an argument, as an example."""
        dims = next((value.type.dims for value in self._bound.tensors.values() if value.type.dims), ())
        return dims[-1].name if dims else "…"

    def _expect_dims(self, names: tuple[tree.Name, ...]) -> None:
        """Check that what is taken over dimensions, or mapped from them, has them."""
        tensors = self._bound.tensors
        had = {dim.name for value in tensors.values() for dim in value.type.dims}
        for name in names:
            missing = [dim.name for dim in self._context.dim(name) if dim.name not in had]
            if missing and tensors:
                labels = [
                    Label(self._places[key], f"has {describe(value.type.dims)}") for key, value in tensors.items()
                ]
                text = f"no argument of `{self._definition.name.text}` has `{missing[0]}`"
                raise Fault("CG0206", text, Label(name.location), *labels, hint=suggest(missing[0], had))

    def _bind_dims(self, name: str, dims: tuple[Dim, ...]) -> None:
        self._bound.bindings[name] = Pack(dims)
        self._bound.static.append((name, tuple(dim.name for dim in dims)))

    def _arrow(self, parameter: tree.ArrowParameter) -> None:
        if not self._arrows:
            hint = f"say from which dimensions to which, as in `{self._some_dim()} -> …`"
            wanted = f"{parameter.source.text} -> {parameter.target.text}"
            raise self._fault(f"`{self._definition.name.text}` needs `{wanted}`", hint)
        argument = self._arrows.pop(0)
        self._expect_dims(argument.source)
        source, target = self._context.dims(argument.source), self._context.dims(argument.target)
        taken = {dim.name for dim in source}
        if parameter.target.text in mapped_by_params(self._definition.body):
            taken |= {dim.name for value in self._bound.tensors.values() for dim in value.type.dims}
        fresh: list[Dim] = []
        for dim in target:
            name = dim.name
            while name in taken:
                name += "'"
            if name != dim.name:
                self._bound.restored.append((name, dim.name))
            fresh.append(Dim(name, dim.size))
        self._bind_dims(parameter.source.text, source)
        self._bind_dims(parameter.target.text, tuple(fresh))

    def _scalar(self, parameter: tree.ScalarParameter) -> None:
        name = parameter.name.text
        if name in self._keywords:
            argument = self._keywords.pop(name).value
            check_quoted(self._context, parameter, argument)
            given = self._context.number(argument)
        else:
            given = self._default(parameter)
        self._bound.bindings[name] = Number(given.value, name)
        value = given.value
        self._bound.static.append((name, value if isinstance(value, int | float | bool | str) else str(value)))

    def _default(self, parameter: tree.ScalarParameter) -> Number:
        """Evaluate a default in the block's own header, which may use the parameters before it."""
        scope = Scope(caller=self._context.frame.scope)
        for name, binding in self._bound.bindings.items():
            scope.bind(name, binding)
        context = replace(self._context, frame=Frame(self._context.frame.builder, scope))
        return context.number(parameter.default)

    def _check(self, parameter: tree.TensorParameter) -> None:
        """Check an argument against the dimensions and type that the header asks for, and bind their names."""
        value = self._bound.tensors[parameter.name.text]
        if parameter.dims is not None:
            self._check_dims(parameter, parameter.dims, value)
        if parameter.type is not None:
            self._check_type(parameter, parameter.type, value)

    def _check_dims(
        self, parameter: tree.TensorParameter, pattern: tuple[tree.BoundDim | tree.Rest, ...], value: Value
    ) -> None:
        wanted: list[str] = []
        for dim in pattern:
            if isinstance(dim, tree.BoundDim):
                wanted.append(self._bind_pattern(dim.name.text, value))
        missing = [name for name in wanted if not value.type.has(name)]
        extra = [dim.name for dim in value.type.dims if dim.name not in wanted]
        loose = any(isinstance(dim, tree.Rest) for dim in pattern)
        if missing or (extra and not loose):
            block = self._definition.name.text
            labels = [Label(self._places[parameter.name.text], f"has {describe(value.type.dims)}")]
            if parameter.location.file == self._args.call.location.file:
                labels.append(Label(parameter.location, "declared here"))
            dims = ", ".join([*wanted, *(["..."] if loose else [])])
            text = f"`{block}` takes `{parameter.name.text}` as [{dims}]"
            raise Fault("CG0206", text, *labels, hint=to_fit(missing, extra))

    def _bind_pattern(self, name: str, value: Value) -> str:
        """Return the dimension that `name` in the header means: the one of that name, or the one the call gives it."""
        known = self._bound.bindings.get(name)
        if isinstance(known, Pack) and len(known.dims) == 1:
            return known.dims[0].name
        if name in self._keywords:
            dim = one_dim(self._context, self._keywords.pop(name).value)
        elif value.type.has(name):
            dim = value.type.dim(name)
        else:
            return name
        self._bound.bindings[name] = Pack((dim,))
        return dim.name

    def _check_type(self, parameter: tree.TensorParameter, wanted: tree.TypeName, value: Value) -> None:
        place = self._places[parameter.name.text]
        fits = is_integer(value.type.dtype) if wanted.name == "id" else value.type.dtype == wanted.name
        if not fits:
            kind = f"id of {wanted.of.text}" if wanted.of else wanted.name
            text = f"`{self._definition.name.text}` takes `{parameter.name.text}` as {kind}"
            hint = f"convert it with `cast(…, {wanted.name})`" if wanted.name not in ("id", "bool") else ""
            raise Fault("CG0207", text, Label(place, f"is {value.type.dtype}"), hint=hint)

    def _nothing_left(self) -> None:
        block = self._definition.name.text
        for argument in (*self._positional, *self._over, *self._arrows, *self._keywords.values()):
            if isinstance(argument, tree.KeywordArgument):
                known = [p.name.text for p in self._definition.header if isinstance(p, tree.ScalarParameter)]
                hint = suggest(argument.name.text, known) or f"its header is `{header_text(self._definition)}`"
                raise Fault("CG0402", f"`{block}` has no `{argument.name.text}`", Label(argument.location), hint=hint)
            hint = f"its header is `{header_text(self._definition)}`; numbers are given by name"
            raise Fault("CG0402", f"`{block}` has no place for this argument", Label(argument.location), hint=hint)


def check_quoted(context: Context, parameter: tree.Parameter, argument: tree.Expression) -> None:
    """Raise the fault of a text that lacks its quotes: `kind=gelu`."""
    if not (isinstance(parameter, tree.ScalarParameter) and isinstance(parameter.default, tree.String)):
        return
    if isinstance(argument, tree.Name) and context.frame.scope.find(argument.text) is None:
        text, name = f"there is nothing called `{argument.text}` here", parameter.name.text
        hint = f'a text stands in quotes: `{name}="{argument.text}"`'
        raise Fault("CG0301", text, Label(argument.location), hint=hint)
