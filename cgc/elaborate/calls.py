"""Calls of blocks: bind the arguments to the header, and make one function for each set of dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import assert_never

from cgc.diagnostics import Diagnostics, Label, Location
from cgc.elaborate.builtins import PRIMITIVES, Arguments, one_dim, sort_arguments
from cgc.elaborate.expressions import Context, suggest
from cgc.elaborate.frames import Frame, Scope
from cgc.elaborate.modules import Module, Modules
from cgc.elaborate.values import Fault, Number, Operand, Pack, Poisoned, Tensor, describe
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim
from cgc.ir.graph import Function, Static, Value
from cgc.ir.ops import Call, Rename
from cgc.ir.rules import RuleViolation
from cgc.ir.types import is_integer
from cgc.syntax import tree
from cgc.syntax.printer import expression_text

DEEPEST_CALLS = 60
MOST_FUNCTIONS = 4000
MOST_PARAMS = 50_000

BodyWalker = Callable[["Blocks", Module, Frame, tree.Definition, Diagnostics], tuple[Value, ...] | None]


@dataclass(slots=True)
class Bound:
    """Arguments bound to a header: what each of its names means, and what makes this use of the block distinct."""

    bindings: dict[str, Number | Pack] = field(default_factory=dict)
    tensors: dict[str, Value] = field(default_factory=dict)
    static: list[tuple[str, Static]] = field(default_factory=list)
    restored: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Made:
    """A function made of a block, and what it depended on."""

    key: tuple[object, ...]
    implicit: tuple[tuple[str, object], ...]
    function: Function | None


@dataclass(slots=True)
class Blocks:
    """All functions made of blocks so far, and the blocks being expanded."""

    modules: Modules
    limits: dict[str, Dim | None]
    walk: BodyWalker
    functions: dict[str, Function] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    made: dict[int, list[_Made]] = field(default_factory=dict)
    expanding: list[tuple[int, str, Location]] = field(default_factory=list)

    def context(self, module: Module, frame: Frame) -> Context:
        """Return the context for expressions of `module` in `frame`."""

        def call(context: Context, expression: tree.Call, wish: str) -> tuple[Operand, ...]:
            return self.call(module, context, expression, wish)

        return Context(frame, call, self.limits)

    def call(self, module: Module, context: Context, expression: tree.Call, wish: str) -> tuple[Operand, ...]:
        """Elaborate one call."""
        name = expression.callee
        found = self.modules.block(module, name.text, PRIMITIVES)
        if found is None and name.text in PRIMITIVES:
            return PRIMITIVES[name.text](context, sort_arguments(expression), wish)
        if found is None:
            known = [*self.modules.block_names(module), *PRIMITIVES]
            hint = suggest(name.text, known) or "blocks of other files need a `use`"
            raise Fault("CG0302", f"there is no block `{name.text}`", Label(name.location), hint=hint)
        owner, definition = found
        bound = _Binder(context, definition, sort_arguments(expression)).bind()
        function = self._function(owner, context, definition, bound, expression.location)
        return self._apply(context, expression, function, bound, wish)

    def _function(
        self, owner: Module, context: Context, definition: tree.Definition, bound: Bound, place: Location
    ) -> Function:
        types = tuple((name, value.type) for name, value in bound.tensors.items())
        key = (types, tuple(bound.static), tuple(bound.bindings.items()), tuple(bound.restored))
        for made in self.made.get(id(definition), ()):
            if made.key == key and all(_meaning(context.frame.scope, n) == v for n, v in made.implicit):
                if made.function is None:
                    raise Poisoned
                return made.function
        return self._make(owner, context, definition, bound, place, key)

    def _make(
        self,
        owner: Module,
        context: Context,
        definition: tree.Definition,
        bound: Bound,
        place: Location,
        key: tuple[object, ...],
    ) -> Function:
        name = definition.name.text
        if any(identity == id(definition) for identity, _, _ in self.expanding):
            chain = " → ".join([*(n for _, n, _ in self.expanding), name])
            raise Fault(
                "CG0306", f"`{name}` uses itself", Label(place, chain), hint="use `repeat` for a number of layers"
            )
        if len(self.expanding) >= DEEPEST_CALLS or len(self.functions) >= MOST_FUNCTIONS:
            raise Fault("CG0902", "blocks use blocks too deeply, or too many of them", Label(place))
        scope = Scope(caller=context.frame.scope)
        names = Names()
        names.reserve(declared_params(definition.body))
        frame = Frame(Builder(names, self.functions.__getitem__), scope)
        arguments = tuple(frame.builder.value(arg, value.type) for arg, value in bound.tensors.items())
        for header_name, value in zip(bound.tensors, arguments, strict=True):
            scope.bind(header_name, Tensor(value, frame), definition.location)
        for header_name, binding in bound.bindings.items():
            scope.bind(header_name, binding, definition.location)
        self.expanding.append((id(definition), name, place))
        inner = Diagnostics()
        results = self.walk(self, owner, frame, definition, inner)
        trace = tuple(Label(at, block) for _, block, at in reversed(self.expanding))
        self.expanding.pop()
        for diagnostic in inner.sorted():
            self.modules.found.add(diagnostic if diagnostic.trace else replace(diagnostic, trace=trace))
        function = None
        if results is not None and not len(inner):
            function = self._finish(owner, frame, definition, bound, arguments, results)
        implicit = tuple((n, _meaning(context.frame.scope, n)) for n in scope.implicit)
        self.made.setdefault(id(definition), []).append(_Made(key, implicit, function))
        if function is None:
            raise Poisoned
        return function

    def _finish(
        self,
        owner: Module,
        frame: Frame,
        definition: tree.Definition,
        bound: Bound,
        arguments: tuple[Value, ...],
        results: tuple[Value, ...],
    ) -> Function:
        results = tuple(self._restore(frame, value, bound, definition) for value in results)
        params = tuple(declared.param() for declared in frame.params)
        body = frame.builder.finish((*arguments, *(param.value for param in params)), results)
        function = Function(
            self.names.fresh(definition.name.text),
            definition.name.text,
            owner.library,
            tuple(bound.static),
            params,
            body,
            definition.name.location,
            definition.doc,
        )
        self.functions[function.name] = function
        return function

    def _restore(self, frame: Frame, value: Value, bound: Bound, definition: tree.Definition) -> Value:
        """Take the primes off the dimensions that a block mapped to themselves."""
        names = tuple((primed, plain) for primed, plain in bound.restored if value.type.has(primed))
        if not names:
            return value
        try:
            return frame.builder.one(Rename(names), value, wish=value.name, location=definition.location)
        except RuleViolation as violation:
            _, block, place = self.expanding[-1] if self.expanding else (0, "", definition.location)
            message = f"the result of `{definition.name.text}` would have `{violation.dim}` twice"
            hint = f"rename the argument's first: `… as [{violation.dim} -> {violation.dim}_2]`"
            raise Fault("CG0202", message, Label(place, block), hint=hint) from violation

    def _apply(
        self, context: Context, expression: tree.Call, function: Function, bound: Bound, wish: str
    ) -> tuple[Operand, ...]:
        frame = context.frame
        instance = frame.instances.fresh(wish or function.block)
        params: list[Value] = []
        for param in function.params:
            name = f"{instance}.{param.name}"
            params.append(frame.declare(name, param.type, param.init, param.location, param.stacked))
        if len(frame.params) > MOST_PARAMS:
            raise Fault("CG0902", f"the model has more than {MOST_PARAMS} parameters", Label(expression.location))
        return frame.builder.add(
            Call(function.name, instance, len(bound.tensors)),
            *bound.tensors.values(),
            *params,
            wish=wish or function.block,
            path=context.path(instance),
            location=expression.location,
        )


def _meaning(scope: Scope, name: str) -> object:
    found = scope.find(name)
    return None if isinstance(found, Tensor) else found


def declared_params(body: tree.Body) -> set[str]:
    """Return the names of the parameters that a body declares itself, branches and loops included."""
    names: set[str] = set()
    for statement in body.statements:
        match statement:
            case tree.ParamStatement(name=name):
                names.add(name.text)
            case tree.RepeatStatement(body=inner):
                names |= declared_params(inner)
            case tree.IfStatement(body=inner, otherwise=otherwise):
                names |= declared_params(inner) | (declared_params(otherwise) if otherwise else set())
            case _:
                pass
    return names


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


class _Binder:
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
        value = self._context.operand(argument)
        if isinstance(value, Number):
            raise Fault(
                "CG0403",
                f"`{name}` of `{self._definition.name.text}` is a tensor, this is a number",
                Label(argument.location),
            )
        self._bound.tensors[name] = value

    def _pack(self, keyword: str, name: tree.Name) -> None:
        for i, argument in enumerate(self._over):
            if argument.keyword == keyword:
                del self._over[i]
                self._bind_dims(name.text, self._context.dims(argument.dims))
                return
        raise self._fault(f"`{self._definition.name.text}` needs `{keyword} …`")

    def _bind_dims(self, name: str, dims: tuple[Dim, ...]) -> None:
        self._bound.bindings[name] = Pack(dims)
        self._bound.static.append((name, tuple(dim.name for dim in dims)))

    def _arrow(self, parameter: tree.ArrowParameter) -> None:
        if not self._arrows:
            raise self._fault(
                f"`{self._definition.name.text}` needs `{parameter.source.text} -> {parameter.target.text}`"
            )
        argument = self._arrows.pop(0)
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
            given = self._context.number(self._keywords.pop(name).value)
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
            place = self._args.call.location
            text = f"`{parameter.name.text}` of `{block}` has {describe(tuple(Dim(n, 1) for n in wanted))}"
            label = Label(place, f"given {describe(value.type.dims)}")
            raise Fault("CG0206", text + (" and more" if loose else ""), label, hint=_rename_hint(missing, extra))

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
        place = self._args.call.location
        fits = is_integer(value.type.dtype) if wanted.name == "id" else value.type.dtype == wanted.name
        if not fits:
            kind = f"id of {wanted.of.text}" if wanted.of else wanted.name
            text = f"`{parameter.name.text}` of `{self._definition.name.text}` is {kind}, this is {value.type.dtype}"
            raise Fault("CG0207", text, Label(place))

    def _nothing_left(self) -> None:
        block = self._definition.name.text
        for argument in (*self._positional, *self._over, *self._arrows, *self._keywords.values()):
            if isinstance(argument, tree.KeywordArgument):
                known = [p.name.text for p in self._definition.header if isinstance(p, tree.ScalarParameter)]
                hint = suggest(argument.name.text, known) or f"its header is `{header_text(self._definition)}`"
                raise Fault("CG0402", f"`{block}` has no `{argument.name.text}`", Label(argument.location), hint=hint)
            hint = f"its header is `{header_text(self._definition)}`; numbers are given by name"
            raise Fault("CG0402", f"`{block}` has no place for this argument", Label(argument.location), hint=hint)


def _rename_hint(missing: list[str], extra: list[str]) -> str:
    if len(missing) == 1 and len(extra) == 1:
        return f"rename it: `… as [{extra[0]} -> {missing[0]}]`, or give `{missing[0]}={extra[0]}` in the call"
    if missing:
        return f"it lacks {', '.join(f'`{name}`' for name in missing)}"
    return (
        f"it has {', '.join(f'`{name}`' for name in extra)} too many; `...` in the header lets further dimensions pass"
    )
