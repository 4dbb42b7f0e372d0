"""Dead code: nodes whose results nothing reads, and functions that nothing calls.

Before:
    %a : f32[width=8] = unary %x {"kind": "exp"}
    %b : f32[width=8] = unary %x {"kind": "neg"}
    output y = %b

After:
    %b : f32[width=8] = unary %x {"kind": "neg"}
    output y = %b

Inputs and parameters stay: they are the graph's interface.
"""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.graph import Function, Graph, Node, Region, walk
from cgc.ir.ops import Call, Repeat


def eliminate_dead_code(graph: Graph) -> Graph:
    """Return `graph` without nodes that no output depends on, and without functions that are not called."""
    body = _live(graph.body)
    functions = [replace(function, body=_live(function.body)) for function in graph.functions]
    called = _called(body)
    kept: list[Function] = []
    for function in reversed(functions):
        if function.name in called:
            kept.insert(0, function)
            called |= _called(function.body)
    return replace(graph, body=body, functions=tuple(kept))


def _called(region: Region) -> set[str]:
    return {node.op.function for node in walk(region) if isinstance(node.op, Call)}


def _live(region: Region) -> Region:
    read = {value.name for value in region.results}
    kept: list[Node] = []
    for node in reversed(region.nodes):
        if not any(value.name in read for value in node.outputs):
            continue
        if isinstance(node.op, Repeat):
            node = replace(node, op=replace(node.op, body=_live(node.op.body)))
        kept.append(node)
        read |= {value.name for value in node.inputs}
    return replace(region, nodes=tuple(reversed(kept)))
