"""Unrolling: every loop written out, each stacked parameter split into one for each turn.

Before:
    param %h.w : f32[layers=2, width=8] ~ {...} stacked 1
    %x_2 : f32[width=8] = repeat %x, %h.w {"instance": "h", "stack": {"dim": "layers=2"}, "carried": 1, "shared": 0} ; h
      argument %x_3 : f32[width=8]
      argument %w : f32[width=8]
      %y : f32[width=8] = binary %x_3, %w {"kind": "mul"} ; h.y
      yield %y
    end

After:
    param %h.0.w : f32[width=8] ~ {...}
    param %h.1.w : f32[width=8] ~ {...}
    %y : f32[width=8] = binary %x, %h.0.w {"kind": "mul"} ; h.0.y
    %y_2 : f32[width=8] = binary %y, %h.1.w {"kind": "mul"} ; h.1.y

A stacked value that is not a parameter, or a parameter that is read as a whole too, stays whole, and every turn looks
its slice up; what the turns collect is put together after them. Calls stay calls, unless a loop stands inside a
function: then everything is inlined first.
"""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim
from cgc.ir.graph import Graph, Node, Param, Region, Value
from cgc.ir.ops import Concat, Constant, Gather, Repeat
from cgc.passes.copying import copy_node, no_function
from cgc.passes.emitter import Emitter
from cgc.passes.inline import has_loops_in_functions, inline


def unroll(graph: Graph) -> Graph:
    """Return `graph` without loops; `unrolled_names` says which parameter became which."""
    if has_loops_in_functions(graph):
        graph = inline(graph)
    while _has_loop(graph.body):
        graph = _unroll_outer(graph)
    return graph


def unrolled_names(param: Param, instance: str, count: int) -> list[str]:
    """Return the names of the parts of a parameter stacked by the loop `instance`: `h.w` → `h.0.w`, `h.1.w`, …"""
    rest = param.name.removeprefix(f"{instance}.")
    return [f"{instance}.{index}.{rest}" for index in range(count)]


def _has_loop(region: Region) -> bool:
    return any(isinstance(node.op, Repeat) for node in region.nodes)


def _unroll_outer(graph: Graph) -> Graph:
    """Unroll the loops that stand at the top level, but not those inside them."""
    split: dict[str, list[Param]] = {}
    whole = _read_whole(graph.body)
    for node in graph.body.nodes:
        if isinstance(node.op, Repeat):
            stacked = {value.name for value in node.inputs[node.op.carried + node.op.shared :]} - whole
            for param in graph.params:
                if param.name in stacked and param.name not in split:
                    split[param.name] = _split(param, node.op, node.path)
    params = tuple(part for param in graph.params for part in split.get(param.name, [param]))
    arguments = (*graph.inputs, *(param.value for param in params))
    names = Names()
    names.reserve({value.name for value in arguments})
    scope = {value.name: value for value in arguments}
    nodes: list[Node] = []
    for node in graph.body.nodes:
        if isinstance(node.op, Repeat):
            _write_out(node, node.op, nodes, scope, split, names)
        else:
            nodes.append(copy_node(node, node.path, scope, names))
    results = tuple(scope[value.name] for value in graph.body.results)
    return replace(graph, params=params, body=Region(arguments, tuple(nodes), results))


def _read_whole(region: Region) -> set[str]:
    """Return the names of values that something reads other than as slices, one for each turn of a loop."""
    read = {value.name for value in region.results}
    for node in region.nodes:
        loose = node.op.carried + node.op.shared if isinstance(node.op, Repeat) else len(node.inputs)
        read |= {value.name for value in node.inputs[:loose]}
    return read


def _split(param: Param, op: Repeat, path: str) -> list[Param]:
    count = op.stack.size
    assert isinstance(count, int)
    type_ = param.type.with_dims(param.type.dims[1:])
    return [
        Param(Value(name, type_), param.init, param.location, param.stacked - 1)
        for name in unrolled_names(param, path, count)
    ]


def _write_out(
    node: Node,
    op: Repeat,
    nodes: list[Node],
    scope: dict[str, Value],
    split: dict[str, list[Param]],
    names: Names,
) -> None:
    loose = op.carried + op.shared
    carried = [scope[value.name] for value in node.inputs[: op.carried]]
    shared = [scope[value.name] for value in node.inputs[op.carried : loose]]
    assert isinstance(op.stack.size, int)
    turns = range(op.stack.size)
    collected: dict[int, list[Value]] = {}
    emit = Emitter(Builder(names, no_function))
    emit.at(node.path, node.location)
    for index in reversed(turns) if op.reverse else turns:
        stacked = [
            split[value.name][index].value if value.name in split else _slice(emit, scope[value.name], op, index)
            for value in node.inputs[loose:]
        ]
        nodes += emit.take()
        inner = {a.name: v for a, v in zip(op.body.arguments, (*carried, *shared, *stacked), strict=True)}
        for inside in op.body.nodes:
            rest = inside.path.removeprefix(node.path).lstrip(".")
            path = ".".join(part for part in (node.path, str(index), rest) if part)
            nodes.append(copy_node(inside, path, inner, names))
        results = [inner[value.name] for value in op.body.results]
        carried = results[: op.carried]
        collected[index] = [_leading(emit, value, op.stack) for value in results[op.carried :]]
        nodes += emit.take()
    for parts in zip(*(collected[index] for index in turns), strict=True):
        carried.append(emit.one(Concat((op.stack.name,) * len(parts), op.stack.name), *parts))
    nodes += emit.take()
    scope.update({value.name: last for value, last in zip(node.outputs, carried, strict=True)})


def _slice(emit: Emitter, whole: Value, op: Repeat, index: int) -> Value:
    return emit.one(Gather(op.stack.name), whole, emit.source(Constant(index, "i64")))


def _leading(emit: Emitter, value: Value, stack: Dim) -> Value:
    """Return `value` with `stack` in front, of size one."""
    first = Dim(stack.name, 1)
    return emit.full(value, value.type.with_dims((first, *value.type.dims)))
