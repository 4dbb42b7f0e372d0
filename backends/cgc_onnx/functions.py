"""The structure of a model: blocks and layers as ONNX functions that are called, or everything written inline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cgc.ir.builder import Names
from cgc.ir.dims import symbol
from cgc.ir.graph import NOWHERE, Function, Graph, Location, Node, Region, Value
from cgc.ir.ops import Call, Repeat
from cgc.target import TargetError
from cgc_onnx.intrinsics import intrinsic
from cgc_onnx.layout import Layout, Parameter, declare, layouts, repeat_layouts, static_size, step
from cgc_onnx.lower import lower
from cgc_onnx.proto import FunctionDef
from cgc_onnx.scope import Operand, Scope
from cgc_onnx.shapes import Shapes
from cgc_onnx.writer import DOMAIN, OPSET, Tensor, Writer, value_infos

UNUSABLE = {"Constant"}
"""ONNX Runtime takes a call of a function of this name for a constant, whatever its domain."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """An ONNX function: what its parameters must look like, and the symbols (`seq`) it takes as further inputs."""

    proto: FunctionDef
    layouts: tuple[Layout, ...]
    symbols: tuple[str, ...]


class Structure:
    """Writes the regions of one graph. `functions` fills up with what calls need, callees first; none when `flat`."""

    def __init__(self, graph: Graph, flat: bool, bound: Mapping[str, int]) -> None:
        """Prepare for `graph`; `bound` fixes symbols to sizes."""
        self.functions: list[FunctionDef] = []
        self.bound = dict(bound)
        self._flat = flat
        self._by_name = {function.name: function for function in graph.functions}
        self._layouts: dict[str, tuple[Layout, ...]] = {}
        self._emitted: dict[str, Emitted] = {}
        self._names = Names()
        self._names.reserve(UNUSABLE)
        self._called = {function.name: self._names.fresh(function.name) for function in graph.functions}
        for function in graph.functions:
            found = layouts(function.body, [param.value for param in function.params], self.callee_layouts)
            self._layouts[function.name] = tuple(found[param.name] for param in function.params)

    def callee_layouts(self, function: str) -> tuple[Layout, ...]:
        """Return how a function wants its parameters stored, in order."""
        return self._layouts[function]

    def write(self, scope: Scope, region: Region) -> list[Tensor]:
        """Write all nodes of `region`, whose arguments `scope` already defines, and return its results."""
        for node in region.nodes:
            scope.writer.source = "" if node.location == NOWHERE else str(node.location)
            match node.op:
                case Call():
                    results: Sequence[Tensor] = self._call(scope, node, node.op)
                case Repeat():
                    results = self._repeat(scope, node, node.op)
                case _:
                    results = lower(scope, node)
            for value, tensor in zip(node.outputs, results, strict=True):
                scope.define(value, tensor)
        scope.writer.source = ""
        return [scope.tensor(value) for value in region.results]

    def _call(self, scope: Scope, node: Node, op: Call) -> Sequence[Tensor]:
        function = self._by_name[op.function]
        known = intrinsic(scope, node, function)
        if known:
            return (known,)
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
                self._called[function.name], body, wanted, _documentation(function), function.location
            )
        emitted = self._emitted[op.function]
        params = zip(node.inputs[args:], emitted.layouts, strict=True)
        names = [scope.ordered(value).name for value in node.inputs[:args]]
        names += [name for value, layout in params for name in scope.stored(value, layout).names]
        return self._apply(scope, emitted, names, node.outputs, op.instance or op.function, scope.prefix)

    def _inline(
        self, outer: Scope, inner: Scope, body: Region, operands: Sequence[Value], tensors: int
    ) -> list[Tensor]:
        for index, (argument, value) in enumerate(zip(body.arguments, operands, strict=True)):
            inner.define(argument, outer.tensor(value) if index < tensors else outer.operand(value))
        return self.write(inner, body)

    def _repeat(self, scope: Scope, node: Node, op: Repeat) -> Sequence[Tensor]:
        if op.collected or op.reverse:
            text = f"the target `onnx` runs no loop such as `{op.instance}` in reverse, nor collects values"
            raise TargetError("CG0803", text)
        loose = op.carried + op.shared
        wanted = repeat_layouts(op, self.callee_layouts)
        stacked = [
            scope.stored(value, Layout((0, *layout.loops), layout.groups))
            for value, layout in zip(node.inputs[loose:], wanted, strict=True)
        ]
        carried = [scope.tensor(value) for value in node.inputs[: op.carried]]
        shared = [scope.tensor(value) for value in node.inputs[op.carried : loose]]
        iterations = range(static_size(op.stack))
        if self._flat:
            for index in iterations:
                inner = scope.inline(f"{op.instance}.{index}")
                operands: list[Operand] = [*carried, *shared, *(step(parameter, index) for parameter in stacked)]
                for argument, operand in zip(op.body.arguments, operands, strict=True):
                    inner.define(argument, operand)
                carried = self.write(inner, op.body)
            return carried
        name = self._names.fresh(op.instance or "layer")
        paths = [parameter.path.removeprefix(f"{op.instance}.") for parameter in stacked]
        doc = f"One layer of `{op.instance}`."
        emitted = self._function(name, op.body, list(zip(paths, wanted, strict=True)), doc, node.location)
        arguments = op.body.arguments
        passed = [
            scope.shapes.transpose(x, value.type.names).name
            for x, value in zip([*carried, *shared], arguments[:loose], strict=True)
        ]
        for index in iterations:
            names = [*passed, *(name for parameter in stacked for name in step(parameter, index).names)]
            instance = f"{op.instance}.{index}"
            carried = self._apply(scope, emitted, names, op.body.results, instance, f"{scope.prefix}{instance}.")
            passed[: op.carried] = [x.name for x in carried]
        return carried

    def _apply(
        self, scope: Scope, emitted: Emitted, inputs: list[str], outputs: Sequence[Value], instance: str, prefix: str
    ) -> list[Tensor]:
        """Write a call node named after the instance, and return its results."""
        sizes = [scope.shapes.vector(symbol(name)) for name in emitted.symbols]
        names = scope.writer.emit(
            emitted.proto.name,
            [*inputs, *sizes],
            [prefix + value.name for value in outputs],
            domain=DOMAIN,
            name=scope.prefix + instance,
        )
        return [scope.result(name, value.type.dims, value.type) for name, value in zip(names, outputs, strict=True)]

    def _function(
        self, name: str, body: Region, wanted: Sequence[tuple[str, Layout]], doc: str, location: Location
    ) -> Emitted:
        """Write `body`, whose last arguments are parameters with the paths and layouts `wanted`, as a function."""
        writer = Writer()
        tensors = len(body.arguments) - len(wanted)
        loose = [_argument(writer, value) for value in body.arguments[:tensors]]
        params = [
            _fresh(writer, declare(value, layout, path))
            for value, (path, layout) in zip(body.arguments[tensors:], wanted, strict=True)
        ]
        shapes = Shapes(writer, loose, self.bound, top=False)
        scope = Scope(shapes)
        operands: list[Operand] = [*loose, *params]
        for argument, operand in zip(body.arguments, operands, strict=True):
            scope.define(argument, operand)
        self.write(scope, body)
        results = [scope.ordered(value) for value in body.results]
        outputs = writer.finish([(x.name, "") for x in results])
        stored = [Tensor(name, parameter.stored, parameter.dtype) for parameter in params for name in parameter.names]
        proto = FunctionDef(
            name,
            DOMAIN,
            doc,
            (
                *(x.name for x in loose),
                *(name for parameter in params for name in parameter.names),
                *shapes.missing.values(),
            ),
            tuple(outputs),
            tuple(writer.nodes),
            value_infos([*loose, *stored, *writer.values], self.bound),
            opset_imports(bool(_calls(writer))),
            {"source": str(location)} if location != NOWHERE else {},
        )
        self.functions.append(proto)
        return Emitted(proto, tuple(layout for _, layout in wanted), tuple(shapes.missing))


def _calls(writer: Writer) -> list[str]:
    return [node.op for node in writer.nodes if node.domain == DOMAIN]


def opset_imports(calls: bool) -> tuple[tuple[str, int], ...]:
    """Return what a graph or function imports: the standard operators, and functions where any are called."""
    return (("", OPSET), (DOMAIN, 1)) if calls else (("", OPSET),)


def _argument(writer: Writer, value: Value) -> Tensor:
    return Tensor(writer.fresh(value.name), value.type.dims, value.type.dtype)


def _fresh(writer: Writer, parameter: Parameter) -> Parameter:
    names = tuple(writer.fresh(name) for name in parameter.names)
    return Parameter(parameter.path, names, parameter.loops, parameter.dims, parameter.dtype, parameter.layout)


def _documentation(function: Function) -> str:
    where = f"`{function.block}` of {function.library}" if function.library else f"`{function.block}`"
    static = ", ".join(
        f"{name}={' '.join(value) if isinstance(value, tuple) else value}" for name, value in function.static
    )
    lines = [function.doc.strip(), f"Block {where}{f' with {static}' if static else ''}."]
    return "\n".join(line for line in lines if line)
