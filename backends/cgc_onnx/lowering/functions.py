"""The structure of a model: blocks and layers as ONNX functions that are called, or everything written inline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from cgc.ir.builder import Names
from cgc.ir.dims import Dim, Size, symbol
from cgc.ir.graph import NOWHERE, Function, Graph, Location, Node, Region, Value
from cgc.ir.ops import Call, Dot, Gather, Repeat
from cgc.ir.types import TensorType
from cgc_onnx.capabilities import Profile
from cgc_onnx.lowering.deferral import deferred, later
from cgc_onnx.lowering.intrinsics import intrinsic
from cgc_onnx.lowering.pending import Product, Sum, written
from cgc_onnx.lowering.primitives import lower
from cgc_onnx.lowering.products import Linear, linear, pending_product
from cgc_onnx.lowering.scope import Operand, Scope, Shared
from cgc_onnx.lowering.shapes import Shapes
from cgc_onnx.parameters.layout import ROWS, Layout, Parameter, declare, layouts, repeat_layouts, static_size, step
from cgc_onnx.parameters.quantization import Quantization
from cgc_onnx.proto import FunctionDef
from cgc_onnx.proto import Node as NodeRecord
from cgc_onnx.writer import DOMAIN, Tensor, Writer, value_infos

UNUSABLE = {"Constant"}
"""ONNX Runtime takes a call of a function of this name for a constant, whatever its domain."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """An ONNX function: the axes that its loose arguments and its results have, where they are not those of the graph's
    values; what its parameters must look like, and the symbols (`seq`) and shared tensors it takes as further inputs.
    """

    proto: FunctionDef
    arguments: tuple[tuple[Dim, ...], ...]
    results: tuple[tuple[Dim, ...], ...]
    layouts: tuple[Layout, ...]
    symbols: tuple[str, ...]
    shared: tuple[Shared, ...]


Turn: TypeAlias = Callable[[Scope, int, list[Tensor | Sum], list[Tensor], list[Parameter]], list[Tensor | Sum]]
"""(scope, index, carried, shared, slices of what is stacked) → what one turn of a loop gives."""


class Structure:
    """Writes the regions of one graph. `functions` fills up with what calls need, callees first; none when `flat`."""

    def __init__(
        self,
        graph: Graph,
        flat: bool,
        bound: Mapping[str, int],
        profile: Profile,
        labels: Mapping[str, str],
        how: Quantization | None = None,
    ) -> None:
        """Prepare for `graph`; `bound` fixes symbols to sizes, `labels` are what the file calls the others, `how` is
        the form of quantized weights.
        """
        self.how = how
        self.functions: list[FunctionDef] = []
        self.bound = dict(bound)
        self.shown: dict[str, Size] = {**{old: symbol(new) for old, new in labels.items()}, **bound}
        self.profile = profile
        self.limits = {known.name: known.limit for known in graph.symbols}
        self._flat = flat
        self._by_name = {function.name: function for function in graph.functions}
        self._layouts: dict[str, tuple[Layout, ...]] = {}
        self._emitted: dict[str, Emitted] = {}
        self._linear: dict[str, Linear | None] = {}
        self._names = Names()
        self._names.reserve(UNUSABLE)
        self._function_names = {function.name: self._names.fresh(function.name) for function in graph.functions}
        for function in graph.functions:
            found = self.layouts(function.body, [param.value for param in function.params])
            self._layouts[function.name] = tuple(found[param.name] for param in function.params)

    def layouts(self, region: Region, params: Iterable[Value]) -> dict[str, Layout]:
        """Return how the parameters of a region are stored, by name."""
        return layouts(region, params, self.callee_layouts, self._packed)

    def _packed(self, weight: TensorType, op: Dot | Gather) -> tuple[str, ...]:
        how = self.how
        if how is None or not how.operator:
            return ()
        if isinstance(op, Dot):
            return how.beside if how.fits(weight, [name for name in weight.names if name in op.over]) else ()
        rows = how.fits_lookup(weight, [name for name in weight.names if name != op.dim])
        return (*how.beside, ROWS) if rows else ()

    def callee_layouts(self, function: str) -> tuple[Layout, ...]:
        """Return how a function wants its parameters stored, in order."""
        return self._layouts[function]

    def write(self, scope: Scope, region: Region) -> None:
        """Write all nodes of `region`, whose arguments `scope` already defines."""
        for node in region.nodes:
            scope.writer.source = "" if node.location == NOWHERE else str(node.location)
            match node.op:
                case Call():
                    results: Sequence[Operand] = self._call(scope, node, node.op)
                case Repeat():
                    results = self._repeat(scope, node, node.op)
                case _:
                    pending = deferred(scope, node)
                    results = (pending,) if pending else lower(scope, node)
            for value, operand in zip(node.outputs, results, strict=True):
                scope.define(value, operand)
        scope.writer.source = ""

    def _product(self, scope: Scope, node: Node, function: Function) -> Product | None:
        """Return a call of a linear map, where the runtime has an operator that takes several side by side."""
        if function.name not in self._linear:
            self._linear[function.name] = linear(function)
        found = self._linear[function.name]
        if found is None or not self.profile.fused("GroupQueryAttention"):
            return None
        assert isinstance(node.op, Call)
        op = node.op
        return pending_product(scope, found, node.inputs, later(scope, lambda: self._called(scope, node, op)[0]))

    def _call(self, scope: Scope, node: Node, op: Call) -> Sequence[Operand]:
        function = self._by_name[op.function]
        known = intrinsic(scope, node, function) or self._product(scope, node, function)
        return (known,) if known else self._called(scope, node, op)

    def _called(self, scope: Scope, node: Node, op: Call) -> Sequence[Tensor]:
        function = self._by_name[op.function]
        body, args = function.body, op.args
        if self._flat:
            inner = scope.inline(op.instance)
            return self._inline(scope, inner, body, node.inputs, args)
        if op.function not in self._emitted:
            wanted = [
                (param.name, layout)
                for param, layout in zip(function.params, self._layouts[function.name], strict=True)
            ]
            self._emitted[op.function] = self._function(
                self._function_names[function.name], body, wanted, _documentation(function), function.location
            )
        emitted = self._emitted[op.function]
        params = zip(node.inputs[args:], emitted.layouts, strict=True)
        names = [
            scope.shapes.reshape(scope.ordered(value), dims, f"{value.name}.merged").name
            for value, dims in zip(node.inputs[:args], emitted.arguments, strict=True)
        ]
        names += [name for value, layout in params for name in scope.stored(value, layout).tensors]
        return self._apply(scope, emitted, names, node.outputs, op.instance or op.function, scope.prefix)

    def _inline(
        self, outer: Scope, inner: Scope, body: Region, operands: Sequence[Value], tensors: int
    ) -> list[Tensor]:
        for index, (argument, value) in enumerate(zip(body.arguments, operands, strict=True)):
            inner.define(argument, outer.tensor(value) if index < tensors else outer.operand(value))
        self.write(inner, body)
        return [inner.tensor(value) for value in body.results]

    def _repeat(self, scope: Scope, node: Node, op: Repeat) -> Sequence[Operand]:
        loose = op.carried + op.shared
        wanted = repeat_layouts(op, self.callee_layouts, self._packed)
        stacked = [
            scope.stored(value, replace(layout, loops=(0, *layout.loops)))
            for value, layout in zip(node.inputs[loose:], wanted, strict=True)
        ]
        carried = [_or_sum(scope, value) for value in node.inputs[: op.carried]]
        shared = [scope.tensor(value) for value in node.inputs[op.carried : loose]]
        iterations = list(range(static_size(op.stack)))
        collected: dict[int, list[Tensor | Sum]] = {}
        turn = self._turn_inline(op) if self._flat else self._turn_called(node, op, stacked, wanted)
        for index in reversed(iterations) if op.reverse else iterations:
            results = turn(scope, index, carried, shared, [step(parameter, index) for parameter in stacked])
            carried, collected[index] = results[: op.carried], results[op.carried :]
        gathered = [
            _gathered(value, [written(collected[index][at]) for index in iterations])
            for at, value in enumerate(node.outputs[op.carried :])
        ]
        return [*carried, *gathered]

    def _turn_inline(self, op: Repeat) -> Turn:
        def turn(
            scope: Scope, index: int, carried: list[Tensor | Sum], shared: list[Tensor], stacked: list[Parameter]
        ) -> list[Tensor | Sum]:
            inner = scope.inline(f"{op.instance}.{index}")
            operands: list[Operand] = [*carried, *shared, *stacked]
            for argument, operand in zip(op.body.arguments, operands, strict=True):
                inner.define(argument, operand)
            self.write(inner, op.body)
            results = op.body.results
            return [
                *(_or_sum(inner, value) for value in results[: op.carried]),
                *(inner.ordered(value) for value in results[op.carried :]),
            ]

        return turn

    def _turn_called(self, node: Node, op: Repeat, stacked: Sequence[Parameter], wanted: Sequence[Layout]) -> Turn:
        name = self._names.fresh(op.instance or "layer")
        paths = [parameter.path.replace(f"{op.instance}.", "", 1) for parameter in stacked]
        doc = f"One layer of `{op.instance}`."
        emitted = self._function(name, op.body, list(zip(paths, wanted, strict=True)), doc, node.location)

        def turn(
            scope: Scope, index: int, carried: list[Tensor | Sum], shared: list[Tensor], stacked: list[Parameter]
        ) -> list[Tensor | Sum]:
            passed = [
                scope.shapes.reshape(scope.shapes.transpose(x, value.type.names), dims, f"{value.name}.merged").name
                for x, value, dims in zip(
                    [*map(written, carried), *shared], op.body.arguments, emitted.arguments, strict=False
                )
            ]
            names = [*passed, *(name for parameter in stacked for name in parameter.tensors)]
            instance = f"{op.instance}.{index}"
            return [*self._apply(scope, emitted, names, op.body.results, instance, f"{scope.prefix}{instance}.")]

        return turn

    def _apply(
        self, scope: Scope, emitted: Emitted, inputs: list[str], outputs: Sequence[Value], instance: str, prefix: str
    ) -> list[Tensor]:
        """Write a call node named after the instance, and return its results."""
        sizes = [scope.shapes.vector(symbol(name)) for name in emitted.symbols]
        sizes += [scope.shared(entry).name for entry in emitted.shared]
        names = scope.writer.emit(
            emitted.proto.name,
            [*inputs, *sizes],
            [prefix + value.name for value in outputs],
            domain=DOMAIN,
            name=scope.prefix + instance,
        )
        results = []
        for name, value, dims in zip(names, outputs, emitted.results, strict=True):
            given = scope.result(name, dims, value.type)
            results.append(scope.shapes.reshape(given, value.type.dims, f"{prefix}{value.name}.split"))
        return results

    def _function(
        self, name: str, body: Region, wanted: Sequence[tuple[str, Layout]], doc: str, location: Location
    ) -> Emitted:
        """Write `body`, whose last arguments are parameters with the paths and layouts `wanted`, as a function."""
        writer = Writer(self.profile)
        tensors = len(body.arguments) - len(wanted)
        loose = [_argument(writer, value) for value in body.arguments[:tensors]]
        params = [
            _fresh(writer, declare(value, layout, path))
            for value, (path, layout) in zip(body.arguments[tensors:], wanted, strict=True)
        ]
        shapes = Shapes(writer, loose, self.bound, top=False, limits=self.limits)
        scope = Scope(shapes, how=self.how)
        operands: list[Operand] = [*loose, *params]
        for argument, operand in zip(body.arguments, operands, strict=True):
            scope.define(argument, operand)
        self.write(scope, body)
        # What a function does first or last to lay out a tensor otherwise is left to its callers, who may undo it.
        results = [shapes.before_reshape(scope.ordered(value)) for value in body.results]
        outputs = writer.finish([(x.name, "") for x in results])
        loose = [shapes.after_reshape(x, outputs) for x in loose]
        writer.drop_unused(outputs)
        stored = [
            Tensor(name, parameter.stored, parameter.dtype)
            for parameter in params
            if not parameter.layout.packed
            for name in parameter.names
        ]
        proto = FunctionDef(
            name,
            DOMAIN,
            doc,
            (
                *(x.name for x in loose),
                *(name for parameter in params for name in parameter.tensors),
                *shapes.missing.values(),
                *(tensor.name for _, tensor in shapes.shared.values()),
            ),
            tuple(outputs),
            tuple(writer.nodes),
            value_infos([*loose, *stored, *writer.values], self.shown),
            opset_imports(self.profile, writer.nodes),
            {"source": str(location)} if location != NOWHERE else {},
        )
        self.functions.append(proto)
        further = tuple(entry for entry, _ in shapes.shared.values())
        return Emitted(
            proto,
            tuple(x.dims for x in loose),
            tuple(x.dims for x in results),
            tuple(layout for _, layout in wanted),
            tuple(shapes.missing),
            further,
        )


def _or_sum(scope: Scope, value: Value) -> Tensor | Sum:
    """Return what a loop carries: a sum need not be written before the norm that the next turn begins with."""
    operand = scope.operand(value)
    return operand if isinstance(operand, Sum) else scope.tensor(value)


def _gathered(value: Value, turns: Sequence[Tensor]) -> Parameter:
    """Return what the turns of a loop collected, one tensor each."""
    stack, *dims = value.type.dims
    layout = Layout((0,), (1,) * len(dims))
    return Parameter(value.name, tuple(x.name for x in turns), (stack,), tuple(dims), value.type.dtype, layout)


def opset_imports(profile: Profile, nodes: Iterable[NodeRecord]) -> tuple[tuple[str, int], ...]:
    """Return what a graph or function with these nodes imports: the standard operators, and those of other domains."""
    others = sorted({node.domain for node in nodes} - {""})
    return (("", profile.opset), *((domain, 1) for domain in others))


def _argument(writer: Writer, value: Value) -> Tensor:
    return Tensor(writer.fresh(value.name), value.type.dims, value.type.dtype)


def _fresh(writer: Writer, parameter: Parameter) -> Parameter:
    names = tuple(writer.fresh(name) for name in parameter.names)
    beside = tuple(tuple(writer.fresh(name) for name in each) for each in parameter.beside)
    return replace(parameter, names=names, beside=beside)


def _documentation(function: Function) -> str:
    where = f"`{function.block}` of {function.library}" if function.library else f"`{function.block}`"
    static = ", ".join(
        f"{name}={' '.join(value) if isinstance(value, tuple) else value}" for name, value in function.static
    )
    lines = [function.doc.strip(), f"Block {where}{f' with {static}' if static else ''}."]
    return "\n".join(line for line in lines if line)
