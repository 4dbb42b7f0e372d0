"""Blocks that nothing in a file uses: checked on their own, with sizes left open.

A block whose arguments all state their dimensions is elaborated with symbolic sizes. Of another one only the names can
be checked, since what it is called with decides the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from cgc.diagnostics import Diagnostic, Diagnostics, Label
from cgc.elaborate.builtins import PRIMITIVES
from cgc.elaborate.calls import Blocks, declared_params
from cgc.elaborate.expressions import CONSTANTS
from cgc.elaborate.frames import Frame, Scope
from cgc.elaborate.hints import suggest
from cgc.elaborate.modules import Module, Modules
from cgc.elaborate.statements import walk_block
from cgc.elaborate.values import UNKNOWN, Number, Pack, Tensor
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, symbol
from cgc.ir.types import DTYPES, DType, TensorType
from cgc.syntax import tree


def check_standalone(modules: Modules, module: Module, definition: tree.Definition, found: Diagnostics) -> None:
    """Add the faults of a block that nothing uses to `found`."""
    tensors = [p for p in definition.header if isinstance(p, tree.TensorParameter)]
    others = [p for p in definition.header if isinstance(p, tree.PackParameter | tree.ArrowParameter)]
    stated = all(p.dims is not None and not any(isinstance(d, tree.Rest) for d in p.dims) for p in tensors)
    if stated and not others:
        _elaborate(modules, module, definition, tensors, found)
    else:
        _Names(modules, module, found).block(definition)


def _open_dim(name: str) -> Dim:
    return Dim(name, symbol(name))


def _elaborate(
    modules: Modules,
    module: Module,
    definition: tree.Definition,
    tensors: list[tree.TensorParameter],
    found: Diagnostics,
) -> None:
    blocks = Blocks(modules, {}, walk_block, found)
    names = Names()
    names.reserve(declared_params(definition.body))
    outside = Scope()
    scope = Scope(caller=outside)
    for size in sorted(_dimension_names(modules, module, definition.body) | _file_sizes(module)):
        outside.bind(size, Pack((_open_dim(size),)))
    frame = Frame(Builder(names, blocks.functions.__getitem__), scope)
    for parameter in tensors:
        dims = tuple(_open_dim(dim.name.text) for dim in parameter.dims or () if isinstance(dim, tree.BoundDim))
        for dim in dims:
            scope.bind(dim.name, Pack((dim,)))
        scope.bind(parameter.name.text, Tensor(frame.builder.value(parameter.name.text, _type(parameter, dims)), frame))
    for header in definition.header:
        match header:
            case tree.DimParameter(name=name):
                scope.bind(name.text, Pack((_open_dim(name.text),)))
            case tree.ScalarParameter(name=name, default=default):
                value = default.value if isinstance(default, tree.String | tree.Boolean | tree.Number) else UNKNOWN
                scope.bind(name.text, Number(value, name.text))
            case _:
                pass
    walk_block(blocks, module, frame, definition, found)


def _type(parameter: tree.TensorParameter, dims: tuple[Dim, ...]) -> TensorType:
    wanted = parameter.type
    if wanted is None:
        return TensorType(dims)
    if wanted.of is not None:
        return TensorType(dims, "i64", _open_dim(wanted.of.text))
    dtype: DType = wanted.name if wanted.name in DTYPES else "f32"
    return TensorType(dims, dtype)


def _file_sizes(module: Module) -> set[str]:
    """Return the names of all sizes that the models of a file and of those it uses have."""
    names: set[str] = set()
    for candidate in (module, *module.uses):
        for model in candidate.models.values():
            names |= {p.name.text for p in model.header if isinstance(p, tree.TensorParameter | tree.ScalarParameter)}
            names |= {s.name.text for s in model.body.statements if isinstance(s, tree.DimStatement)}
    return names


def _statements(body: tree.Body) -> Iterator[tree.Statement]:
    for statement in body.statements:
        yield statement
        match statement:
            case tree.RepeatStatement(body=inner):
                yield from _statements(inner)
            case tree.IfStatement(body=inner, otherwise=otherwise):
                yield from _statements(inner)
                if otherwise is not None:
                    yield from _statements(otherwise)
            case _:
                pass


def _expressions(statement: tree.Statement) -> tuple[tree.Expression, ...]:
    match statement:
        case tree.DimStatement(value=value) | tree.Assignment(value=value) | tree.OutputStatement(value=value):
            return (value,)
        case tree.ReturnStatement(values=values):
            return values
        case tree.RepeatStatement(count=count):
            return (count,)
        case tree.IfStatement(condition=condition):
            return (condition,)
        case tree.ParamStatement(init=init):
            return (init,)
        case _:
            return ()


def _inside(expression: tree.Argument) -> Iterator[tree.Argument]:
    """Yield an expression and everything in it."""
    yield expression
    match expression:
        case tree.Minus(operand=inner) | tree.Not(operand=inner) | tree.Rename(operand=inner):
            yield from _inside(inner)
        case tree.Parenthesis(inside=inner) | tree.KeywordArgument(value=inner):
            yield from _inside(inner)
        case tree.Operation(left=left, right=right) | tree.Index(table=left, index=right):
            yield from _inside(left)
            yield from _inside(right)
        case tree.Call(arguments=arguments):
            for argument in arguments:
                yield from _inside(argument)
        case _:
            pass


def _given_dims(modules: Modules, module: Module, call: tree.Call) -> set[str]:
    """Return the names in a call that its block, or `position`, takes as dimensions."""
    names = [argument.text if isinstance(argument, tree.Name) else "" for argument in _positional(call)]
    if call.callee.text == "position":
        return set(names) - {""}
    found = modules.block(module, call.callee.text, PRIMITIVES)
    if found is None:
        return set()
    header = [p for p in found[1].header if isinstance(p, tree.TensorParameter | tree.DimParameter)]
    pairs = zip(header, names, strict=False)
    return {name for parameter, name in pairs if isinstance(parameter, tree.DimParameter)} - {""}


def _positional(call: tree.Call) -> list[tree.Argument]:
    """Return the arguments of a call that are known by where they stand."""
    others = tree.KeywordArgument | tree.PackArgument | tree.ArrowArgument
    return [argument for argument in call.arguments if not isinstance(argument, others)]


def _dimension_names(modules: Modules, module: Module, body: tree.Body) -> set[str]:
    """Return the names that a body uses as dimensions, without those it makes by renaming."""
    names: set[str] = set()
    made: set[str] = set()
    for statement in _statements(body):
        if isinstance(statement, tree.ParamStatement):
            names |= {dim.text for dim in statement.dims}
        for expression in _expressions(statement):
            for part in _inside(expression):
                if isinstance(part, tree.PackArgument):
                    names |= {dim.text for dim in part.dims}
                elif isinstance(part, tree.ArrowArgument):
                    names |= {dim.text for dim in (*part.source, *part.target)}
                elif isinstance(part, tree.Call):
                    names |= _given_dims(modules, module, part)
                elif isinstance(part, tree.Rename):
                    made |= {new.text for _, new in part.names}
    return names - made


class _Names:
    """Checks that every name in a block means something, without knowing what."""

    def __init__(self, modules: Modules, module: Module, found: Diagnostics) -> None:
        self._modules = modules
        self._module = module
        self._found = found

    def block(self, definition: tree.Definition) -> None:
        known = {*CONSTANTS, *DTYPES, *_file_sizes(self._module)}
        known |= _dimension_names(self._modules, self._module, definition.body)
        for parameter in definition.header:
            match parameter:
                case tree.ArrowParameter(source=source, target=target):
                    known |= {source.text, target.text}
                case tree.TensorParameter(name=name, dims=dims):
                    known |= {name.text, *(d.name.text for d in dims or () if isinstance(d, tree.BoundDim))}
                case tree.PackParameter(name=name) | tree.DimParameter(name=name) | tree.ScalarParameter(name=name):
                    known.add(name.text)
        for statement in _statements(definition.body):
            for expression in _expressions(statement):
                self._expression(expression, known, isinstance(statement, tree.ParamStatement))
            match statement:
                case tree.Assignment(targets=targets):
                    known |= {target.text for target in targets}
                case tree.DimStatement(name=name) | tree.ParamStatement(name=name) | tree.RepeatStatement(name=name):
                    known.add(name.text)
                case _:
                    pass

    def _expression(self, expression: tree.Expression, known: set[str], init: bool) -> None:
        for part in _inside(expression):
            if isinstance(part, tree.Name) and part.text not in known:
                text = f"there is nothing called `{part.text}` here"
                self._found.add(Diagnostic("CG0301", text, (Label(part.location),), suggest(part.text, sorted(known))))
            if isinstance(part, tree.Call) and not (init and part is expression):
                self._call(part)

    def _call(self, call: tree.Call) -> None:
        name = call.callee
        if name.text in PRIMITIVES or self._modules.block(self._module, name.text) is not None:
            return
        hint = suggest(name.text, [*self._modules.block_names(self._module), *PRIMITIVES])
        self._found.add(Diagnostic("CG0302", f"there is no block `{name.text}`", (Label(name.location),), hint))
