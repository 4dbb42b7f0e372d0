"""Calls of blocks: one function for each block and set of dimensions it is used with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cgc.diagnostics import Diagnostics, Label, Location
from cgc.elaborate.binding import Binder, Bound
from cgc.elaborate.blame import blame
from cgc.elaborate.builtins import PRIMITIVES, Arguments, sort_arguments
from cgc.elaborate.expressions import Context
from cgc.elaborate.frames import Frame, Scope
from cgc.elaborate.hints import suggest
from cgc.elaborate.modules import Module, Modules
from cgc.elaborate.values import Fault, Operand, Poisoned, Tensor
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim
from cgc.ir.graph import Function, Value
from cgc.ir.ops import Call, Rename
from cgc.ir.rules import RuleViolation
from cgc.syntax import tree

DEEPEST_CALLS = 60
MOST_FUNCTIONS = 4000
MOST_PARAMS = 50_000

BodyWalker = Callable[["Blocks", Module, Frame, tree.Definition, Diagnostics], tuple[Value, ...] | None]


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
    found: Diagnostics
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
            arguments = sort_arguments(expression)
            try:
                return PRIMITIVES[name.text](context, arguments, wish)
            except Poisoned:
                _check_names(context, arguments)
                raise
        if found is None:
            if module.lacking:
                raise Poisoned
            known = [*self.modules.block_names(module), *PRIMITIVES]
            hint = suggest(name.text, known) or "write it as `block name(…) { … }`, or `use` the file that has it"
            raise Fault("CG0302", f"there is no block `{name.text}`", Label(name.location), hint=hint)
        owner, definition = found
        arguments = sort_arguments(expression)
        try:
            bound = Binder(context, definition, arguments).bind()
        except Poisoned:
            _check_names(context, arguments)
            raise
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
            start = next(i for i, (identity, _, _) in enumerate(self.expanding) if identity == id(definition))
            chain = " → ".join(f"`{n}`" for n in [*(n for _, n, _ in self.expanding[start:]), name])
            hint = "a block cannot contain itself; layers are written `repeat layers as h { … }`"
            raise Fault("CG0306", f"`{name}` uses itself", Label(place, chain), hint=hint)
        if len(self.expanding) >= DEEPEST_CALLS or len(self.functions) >= MOST_FUNCTIONS:
            text = f"blocks use blocks deeper than {DEEPEST_CALLS}, or in more than {MOST_FUNCTIONS} ways"
            raise Fault("CG0902", text, Label(place), hint="layers are written `repeat layers as h { … }`")
        scope = Scope(caller=context.frame.scope)
        names = Names()
        names.reserve(declared_params(definition.body))
        frame = Frame(Builder(names, self.functions.__getitem__), scope)
        arguments = tuple(frame.builder.value(arg, value.type) for arg, value in bound.tensors.items())
        for header_name, value in zip(bound.tensors, arguments, strict=True):
            scope.bind(header_name, Tensor(value, frame), definition.name.location)
        for header_name, binding in bound.bindings.items():
            scope.bind(header_name, binding, definition.name.location)
        self.expanding.append((id(definition), name, place))
        inner = Diagnostics()
        results = self.walk(self, owner, frame, definition, inner)
        trace = tuple(Label(at, block) for _, block, at in reversed(self.expanding))
        self.expanding.pop()
        for diagnostic in inner.sorted():
            traced = diagnostic if diagnostic.trace else replace(diagnostic, trace=trace)
            self.found.add(blame(traced, self.modules))
        function = None
        if results is not None and not len(inner):
            function = self._finish(owner, frame, definition, bound, place, arguments, results)
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
        place: Location,
        arguments: tuple[Value, ...],
        results: tuple[Value, ...],
    ) -> Function:
        results = tuple(self._restore(frame, value, bound, definition, place) for value in results)
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

    def _restore(self, frame: Frame, value: Value, bound: Bound, definition: tree.Definition, place: Location) -> Value:
        """Take the primes off the dimensions that a block mapped to themselves."""
        names = tuple((primed, plain) for primed, plain in bound.restored if value.type.has(primed))
        if not names:
            return value
        try:
            return frame.builder.one(Rename(names), value, wish=value.name, location=definition.location)
        except RuleViolation as violation:
            message = f"the result of `{definition.name.text}` would have `{violation.dim}` twice"
            hint = f"rename the argument's first: `… as [{violation.dim} -> {violation.dim}_2]`"
            raise Fault("CG0202", message, Label(place), hint=hint) from violation

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
            hint = "write equal layers once, in a `repeat`"
            raise Fault(
                "CG0902", f"the model has more than {MOST_PARAMS} parameters", Label(expression.location), hint=hint
            )
        return frame.builder.add(
            Call(function.name, instance, len(bound.tensors)),
            *bound.tensors.values(),
            *params,
            wish=wish or function.block,
            path=context.path(instance),
            location=expression.location,
        )


def _check_names(context: Context, arguments: Arguments) -> None:
    """Look up the dimensions that a call names; its tensors may be unknown, these are not."""
    for over in arguments.over:
        context.dims(over.dims)
    for arrow in arguments.arrows:
        context.dims((*arrow.source, *arrow.target))


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
