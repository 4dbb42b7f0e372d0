"""Models: from a definition and its sizes to a graph, and from a file to a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cgc.diagnostics import NOWHERE, Diagnostic, Diagnostics, Label, Location
from cgc.elaborate.binding import check_quoted, header_text
from cgc.elaborate.blame import blame_instance
from cgc.elaborate.calls import Blocks, declared_params
from cgc.elaborate.expressions import Context
from cgc.elaborate.frames import Frame, Scope
from cgc.elaborate.hints import quoted, suggest
from cgc.elaborate.modules import Module, Modules
from cgc.elaborate.statements import BodyWalk, walk_block
from cgc.elaborate.values import POISON, Fault, Number, Pack, Poisoned, Scalar, Tensor, describe
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, symbol
from cgc.ir.graph import Graph, Static, Symbol, Value
from cgc.ir.ops import Transpose
from cgc.ir.types import DTYPES, DType, TensorType
from cgc.ir.verify import verify
from cgc.syntax import tree


@dataclass(slots=True)
class _Interface:
    """Inputs and outputs as the body of a model declares them."""

    inputs: list[Value] = field(default_factory=list)
    outputs: dict[str, tuple[Value, Location]] = field(default_factory=dict)
    symbols: dict[str, Symbol] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Argument:
    """What a model's header name is given, and where."""

    value: Scalar
    place: Location = NOWHERE


@dataclass(frozen=True, slots=True)
class Built:
    """A model at its sizes: the graph, and the sizes by header name."""

    graph: Graph
    arguments: tuple[tuple[str, Static], ...]


NAMED = tree.TensorParameter | tree.ScalarParameter


class ModelBuilder:
    """Builds one model."""

    def __init__(self, modules: Modules, owner: Module, definition: tree.Definition, found: Diagnostics) -> None:
        self._modules = modules
        self._owner = owner
        self._definition = definition
        self._found = found
        self._interface = _Interface()
        self._limits: dict[str, Dim | None] = {}
        self.blocks = Blocks(modules, self._limits, walk_block, Diagnostics())
        self.walked = False

    def build(self, name: str, given: Mapping[str, Argument], item: tree.Instance | None = None) -> Built | None:
        """Return the model, or None when faults were found. An open size is a symbolic Number.

        `item` is what asks for it, if anything does: faults that depend on sizes are shown there.
        """
        built = self._build(name, given, item)
        for diagnostic in self.blocks.found.sorted():
            if item is not None:
                call = Label(item.family.location, item.family.text)
                diagnostic = _with_text(diagnostic, given)
                diagnostic = blame_instance(diagnostic, self._modules, call)
            self._found.add(diagnostic)
        return built

    def _build(self, name: str, given: Mapping[str, Argument], item: tree.Instance | None) -> Built | None:
        found = self.blocks.found
        names = Names()
        names.reserve(declared_params(self._definition.body))
        frame = Frame(Builder(names, self.blocks.functions.__getitem__), Scope())
        try:
            arguments = self._header(frame, given, item)
        except Fault as fault:
            found.add(fault.diagnostic)
            return None
        except Poisoned:
            return None
        self.walked = True
        BodyWalk(self.blocks, self._owner, frame, found, self._declare).walk(self._definition.body)
        if not len(found) and not self._interface.outputs:
            text = f"model `{self._definition.name.text}` has no output"
            labels = (Label(self._definition.name.location),)
            found.add(Diagnostic("CG0407", text, labels, "end it with `output name = …`"))
        return None if len(found) else Built(self._graph(name, frame), arguments)

    def _header(
        self, frame: Frame, given: Mapping[str, Argument], item: tree.Instance | None
    ) -> tuple[tuple[str, Static], ...]:
        self._check_names(given, item)
        arguments: list[tuple[str, Static]] = []
        for parameter in self._definition.header:
            match parameter:
                case tree.TensorParameter(name=name, dims=None, type=None) | tree.ScalarParameter(name=name):
                    pass
                case _:
                    hint = "dimensions of inputs stand at the input, as in `input x[batch, width]`"
                    text = "a model's header has names of sizes only"
                    raise Fault("CG0405", text, Label(parameter.location), hint=hint)
            number, place = self._argument(frame, parameter, given)
            frame.scope.bind(name.text, number, place)
            value = number.value
            arguments.append((name.text, value if isinstance(value, int | float | bool | str) else str(value)))
        return tuple(arguments)

    def _check_names(self, given: Mapping[str, Argument], item: tree.Instance | None) -> None:
        """Check that an instance gives what the header asks for, and nothing else."""
        header, name = self._definition.header, self._definition.name
        place = name.location if item is None else item.family.location
        known = [p.name.text for p in header if isinstance(p, tree.TensorParameter | tree.ScalarParameter)]
        needed = [p.name.text for p in header if isinstance(p, tree.TensorParameter) and p.name.text not in given]
        for name_given, argument in given.items():
            if name_given not in known:
                hint = suggest(name_given, needed or known) or suggest(name_given, known)
                hint = hint or (f"it still needs {quoted(needed)}" if needed else f"it has {quoted(known)}")
                at = place if argument.place == NOWHERE else argument.place
                raise Fault("CG0402", f"`{name.text}` has no `{name_given}`", Label(at), hint=hint)
        if needed:
            hint = f"its header is `{header_text(self._definition)}`"
            raise Fault("CG0401", f"`{name.text}` needs {quoted(needed)}", Label(place), hint=hint)

    def _argument(
        self, frame: Frame, parameter: tree.TensorParameter | tree.ScalarParameter, given: Mapping[str, Argument]
    ) -> tuple[Number, Location]:
        """Return a part of the header, and where it got its value."""
        name = parameter.name.text
        if isinstance(parameter, tree.TensorParameter) or name in given:
            place = parameter.location if given[name].place == NOWHERE else given[name].place
            return Number(given[name].value, name), place
        return Number(self.blocks.context(self._owner, frame).number(parameter.default).value, name), parameter.location

    # ---- inputs and outputs

    def _declare(self, context: Context, statement: tree.InputStatement | tree.OutputStatement) -> None:
        if isinstance(statement, tree.InputStatement):
            self._input(context, statement)
        else:
            self._output(context, statement)

    def _input(self, context: Context, statement: tree.InputStatement) -> None:
        name = statement.name
        if context.frame.scope.own(name.text) is not None:
            labels = (Label(name.location), Label(context.frame.scope.place(name.text), "first here"))
            raise Fault(
                "CG0303", f"input `{name.text}`: the name is taken", *labels, hint="give the input another name"
            )
        dims: list[Dim] = []
        for pattern in statement.dims:
            if isinstance(pattern, tree.Rest):
                hint = "write them out: `input tokens[batch, seq]`"
                raise Fault("CG0405", "an input's dimensions are all named", Label(pattern.location), hint=hint)
            dims.append(self._input_dim(context, pattern))
        for i, (dim, pattern) in enumerate(zip(dims, statement.dims, strict=True)):
            if dim.name in {other.name for other in dims[:i]}:
                text = f"`{name.text}` would have `{dim.name}` twice"
                hint = f"every axis has a name of its own; give one another size, as `dim {dim.name}_2 = {dim.name}`"
                raise Fault("CG0202", text, Label(pattern.location), hint=hint)
        value = context.frame.builder.value(name.text, self._input_type(context, statement, tuple(dims)))
        self._interface.inputs.append(value)
        context.frame.scope.bind(name.text, Tensor(value, context.frame), name.location)

    def _input_dim(self, context: Context, pattern: tree.BoundDim) -> Dim:
        name = pattern.name.text
        known = context.frame.scope.find(name)
        if known is None:
            dim = Dim(name, symbol(name))
            limit = self._limit(context, pattern)
            self._interface.symbols[name] = Symbol(name, limit)
            self._limits[name] = limit
            context.frame.scope.bind(name, Pack((dim,)), pattern.location)
            return dim
        (dim,) = context.dim(pattern.name)
        if pattern.limit is not None and self._limits.get(name) != self._limit(context, pattern):
            text = f"`{name}` already has another size or limit"
            raise Fault("CG0208", text, Label(pattern.location), hint="write the same one, or another name")
        return dim

    def _limit(self, context: Context, pattern: tree.BoundDim) -> Dim | None:
        match pattern.limit:
            case None:
                return None
            case tree.Number(_, value):
                size = context.size(Number(value), pattern.limit.location)
                return Dim(f"{pattern.name.text}_limit", size)
            case tree.Name():
                (dim,) = context.dim(pattern.limit)
                return dim

    def _input_type(self, context: Context, statement: tree.InputStatement, dims: tuple[Dim, ...]) -> TensorType:
        match statement.type:
            case None:
                return TensorType(dims)
            case tree.TypeName("id", tree.Name() as of):
                (dim,) = context.dim(of)
                return TensorType(dims, "i64", dim)
            case tree.TypeName(name):
                if name not in DTYPES:
                    hint = f"one of {', '.join(DTYPES)}, or `id of` a dimension"
                    raise Fault("CG0207", f"there is no type `{name}`", Label(statement.type.location), hint=hint)
                dtype: DType = name
                return TensorType(dims, dtype)

    def _output(self, context: Context, statement: tree.OutputStatement) -> None:
        name = statement.name
        if name.text in self._interface.outputs:
            first = self._interface.outputs[name.text][1]
            labels = (Label(name.location, "again here"), Label(first, "first here"))
            raise Fault("CG0303", f"output `{name.text}` is given twice", *labels, hint="give one another name")
        value = context.value(statement.value, name.text)
        if statement.dims is not None:
            value = self._ordered(context, statement, statement.dims, value)
        self._interface.outputs[name.text] = (value, name.location)
        if context.frame.scope.find(name.text) is None:
            context.frame.scope.bind(name.text, Tensor(value, context.frame), name.location)

    def _ordered(
        self, context: Context, statement: tree.OutputStatement, names: tuple[tree.Name, ...], value: Value
    ) -> Value:
        order = tuple(dim.name for dim in context.dims(names))
        if sorted(order) != sorted(value.type.names):
            label = Label(statement.value.location, f"has {describe(value.type.dims)}")
            hint = f"declare [{', '.join(value.type.names)}], in any order, or sum over what is too much"
            raise Fault("CG0206", f"the output is declared as [{', '.join(order)}]", label, hint=hint)
        return (
            value
            if order == value.type.names
            else context.add(Transpose(order), value, place=statement.location, wish=statement.name.text)
        )

    def _graph(self, name: str, frame: Frame) -> Graph:
        params = tuple(declared.param() for declared in frame.params)
        arguments = (*self._interface.inputs, *(param.value for param in params))
        results = tuple(value for value, _ in self._interface.outputs.values())
        return Graph(
            name,
            tuple(self._interface.symbols.values()),
            params,
            tuple(self.blocks.functions.values()),
            frame.builder.finish(arguments, results),
            tuple(self._interface.outputs),
            self._definition.location,
        )


def _with_text(diagnostic: Diagnostic, given: Mapping[str, Argument]) -> Diagnostic:
    """Return the fault that a text is unknown with the argument that gave it."""
    if diagnostic.code != "CG0411":
        return diagnostic
    texts = (arg for arg in given.values() if isinstance(arg.value, str) and arg.place != NOWHERE)
    labels = tuple(Label(arg.place) for arg in texts if f'"{arg.value}"' in diagnostic.message)
    return replace(diagnostic, labels=(*diagnostic.labels, *labels))


def build_instance(
    modules: Modules, module: Module, item: tree.Instance, overrides: Mapping[str, Scalar], found: Diagnostics
) -> tuple[ModelBuilder, Built | None] | None:
    """Build `model name = family(…)`; `overrides` replace or add arguments."""
    located = modules.model(module, item.family.text)
    if located is None:
        if not module.lacking:
            known = modules.model_names(module)
            hint = suggest(item.family.text, known) or "families of the library need a `use`, as in `use std/gpt2`"
            labels = (Label(item.family.location),)
            found.add(Diagnostic("CG0302", f"there is no model `{item.family.text}`", labels, hint))
        return None
    owner, definition = located
    builder = ModelBuilder(modules, owner, definition, found)
    given = instance_arguments(builder.blocks, module, definition, item, found, overrides)
    if given is None:
        return None
    built = builder.build(item.name.text, given, item)
    return builder, built


def instance_arguments(
    blocks: Blocks,
    module: Module,
    definition: tree.Definition,
    item: tree.Instance,
    found: Diagnostics,
    overrides: Mapping[str, Scalar],
) -> dict[str, Argument] | None:
    """Evaluate the arguments of an instance; one may use those before it, as `overrides` replaces them."""
    scope = Scope()
    context = blocks.context(module, Frame(Builder(Names(), blocks.functions.__getitem__), scope))
    header = {parameter.name.text: parameter for parameter in definition.header if isinstance(parameter, NAMED)}
    given: dict[str, Argument] = {}
    whole = True
    for argument in item.arguments:
        try:
            if not isinstance(argument, tree.KeywordArgument):
                hint = "write `name=value`, as in `width=768`"
                raise Fault("CG0402", "arguments of a model are given by name", Label(argument.location), hint=hint)
            name = argument.name.text
            if name in given:
                raise Fault("CG0402", f"`{name}` is given twice", Label(argument.location), hint="keep one of the two")
            if name in header:
                check_quoted(context, header[name], argument.value)
            number = context.number(argument.value)
            if name in overrides:
                number = Number(overrides[name])
            given[name] = Argument(number.value, NOWHERE if name in overrides else argument.location)
            scope.bind(name, Number(number.value, name), argument.location)
        except Fault as fault:
            found.add(fault.diagnostic)
            whole = False
            if isinstance(argument, tree.KeywordArgument):
                scope.bind(argument.name.text, POISON)
        except Poisoned:
            whole = False
    given.update({name: Argument(value) for name, value in overrides.items() if name not in given})
    return given if whole else None


def open_arguments(definition: tree.Definition) -> dict[str, Argument]:
    """Return symbolic sizes for the parts of a model's header that have no default."""
    return {
        parameter.name.text: Argument(symbol(parameter.name.text))
        for parameter in definition.header
        if isinstance(parameter, tree.TensorParameter)
    }


def is_closed(definition: tree.Definition) -> bool:
    """Tell whether every part of a model's header has a default."""
    return all(isinstance(parameter, tree.ScalarParameter) for parameter in definition.header)


def checked(built: Built) -> Built:
    """Verify the graph of a built model (InvalidGraph is an error in the compiler)."""
    return replace(built, graph=verify(built.graph))
