"""Parameters with their dimensions in another order, as a file stores them; dimensions are found by name, so only types
change.

Before:

    function scaled
      argument %x : f32[batch, in=4]
      param %w : f32[in=4, out=8]
      %y : f32[batch, out=8] = dot %x, %w {"over": ["in"]}
    end
    param %w : f32[in=4, out=8]

After, with `w` as [out, in]:

    function scaled
      argument %x : f32[batch, in=4]
      param %w : f32[out=8, in=4]
      %y : f32[batch, out=8] = dot %x, %w {"over": ["in"]}
    end
    param %w : f32[out=8, in=4]

A function that is called with parameters in several orders becomes several. Outputs and carried values of loops keep
the order that they had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cgc.ir.builder import Builder, Names
from cgc.ir.graph import Function, Graph, Param, Region, Value
from cgc.ir.ops import Call, Op, Repeat, Transpose
from cgc.ir.types import TensorType


def with_parameter_order(graph: Graph, orders: Mapping[str, tuple[str, ...]]) -> Graph:
    """Return `graph` with the dimensions of the parameters named by `orders` in that order."""
    changed = {
        param.name: order for param in graph.params if (order := orders.get(param.name)) not in (None, param.type.names)
    }
    return _Reordering(graph).run(changed) if changed else graph


class _Reordering:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._old = {function.name: function for function in graph.functions}
        self._made: dict[tuple[str, tuple[TensorType, ...]], Function] = {}
        self._names = Names()

    def run(self, orders: Mapping[str, tuple[str, ...]]) -> Graph:
        graph = self._graph
        params = tuple(
            replace(param, value=_ordered(param.value, orders.get(param.name, param.type.names)))
            for param in graph.params
        )
        arguments = (*graph.inputs, *(param.value for param in params))
        names = Names()
        for value in arguments:
            names.exact(value.name)
        builder = Builder(names, self._function)
        values = {value.name: value for value in arguments}
        results = self._nodes(graph.body, builder, values)
        body = builder.finish(arguments, in_order(builder, results, graph.body.results))
        return replace(graph, params=params, functions=tuple(self._made.values()), body=body)

    def _function(self, name: str) -> Function:
        for function in self._made.values():
            if function.name == name:
                return function
        raise KeyError(name)

    def _nodes(self, region: Region, builder: Builder, values: dict[str, Value]) -> tuple[Value, ...]:
        for node in region.nodes:
            inputs = tuple(values[value.name] for value in node.inputs)
            op: Op = node.op
            match op:
                case Call():
                    op = replace(op, function=self._specialized(op.function, inputs).name)
                case Repeat():
                    op = self._repeat(op, inputs, builder)
                case _:
                    pass
            outputs = builder.add(op, *inputs, wish=node.outputs[0].name, path=node.path, location=node.location)
            values.update({old.name: new for old, new in zip(node.outputs, outputs, strict=True)})
        return tuple(values[value.name] for value in region.results)

    def _repeat(self, op: Repeat, inputs: tuple[Value, ...], outer: Builder) -> Repeat:
        loose, body = op.carried + op.shared, outer.region()
        arguments = tuple(
            body.value(argument.name, value.type if place < loose else value.type.with_dims(value.type.dims[1:]))
            for place, (argument, value) in enumerate(zip(op.body.arguments, inputs, strict=True))
        )
        values = {old.name: new for old, new in zip(op.body.arguments, arguments, strict=True)}
        results = self._nodes(op.body, body, values)
        carried = in_order(body, results[: op.carried], arguments[: op.carried])
        return replace(op, body=body.finish(arguments, (*carried, *results[op.carried :])))

    def _specialized(self, name: str, inputs: tuple[Value, ...]) -> Function:
        """Return the function for operands of these types, made where there is none yet."""
        key = (name, tuple(value.type for value in inputs))
        if key not in self._made:
            self._made[key] = self._rewritten(self._old[name], key[1])
        return self._made[key]

    def _rewritten(self, function: Function, types: tuple[TensorType, ...]) -> Function:
        names = Names()
        arguments = tuple(
            Value(names.exact(argument.name), replace(type_, indexes=argument.type.indexes))
            for argument, type_ in zip(function.body.arguments, types, strict=True)
        )
        builder = Builder(names, self._function)
        values = {value.name: value for value in arguments}
        results = self._nodes(function.body, builder, values)
        params: tuple[Param, ...] = tuple(
            replace(param, value=value)
            for param, value in zip(function.params, arguments[len(function.arguments) :], strict=True)
        )
        body = builder.finish(arguments, in_order(builder, results, function.body.results))
        return replace(function, name=self._names.fresh(function.name), params=params, body=body)


def _ordered(value: Value, order: tuple[str, ...]) -> Value:
    return replace(value, type=value.type.with_dims(tuple(value.type.dim(name) for name in order)))


def in_order(builder: Builder, values: tuple[Value, ...], like: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return `values` with their dimensions in the order of those they stand for."""
    return tuple(
        value
        if value.type.names == wanted.type.names
        else builder.one(Transpose(wanted.type.names), value, wish=value.name)
        for value, wanted in zip(values, like, strict=True)
    )
