"""Dead code: nodes whose results nothing reads, and functions that nothing calls.

Before:
    %a : f32[width=8] = unary %x {"kind": "exp"}
    %b : f32[width=8] = unary %x {"kind": "neg"}
    output y = %b

After:
    %b : f32[width=8] = unary %x {"kind": "neg"}
    output y = %b

Inputs and parameters stay: they are the graph's interface. What a loop carries stays; what it collects goes when
nothing reads it.
"""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.graph import Function, Graph, Node, Region, walk
from cgc.ir.ops import Call, Repeat


def eliminate_dead_code(graph: Graph) -> Graph:
    """Return `graph` without nodes that no output depends on, and without functions that are not called."""
    body = live(graph.body)
    functions = [replace(function, body=live(function.body)) for function in graph.functions]
    called = _called(body)
    kept: list[Function] = []
    for function in reversed(functions):
        if function.name in called:
            kept.insert(0, function)
            called |= _called(function.body)
    return replace(graph, body=body, functions=tuple(kept))


def _called(region: Region) -> set[str]:
    return {node.op.function for node in walk(region) if isinstance(node.op, Call)}


def live(region: Region) -> Region:
    """Return a region without the nodes that none of its results depends on."""
    read = {value.name for value in region.results}
    kept: list[Node] = []
    for node in reversed(region.nodes):
        if not any(value.name in read for value in node.outputs):
            continue
        if isinstance(node.op, Repeat):
            node = _live_loop(node, node.op, read)
        kept.append(node)
        read |= {value.name for value in node.inputs}
    return replace(region, nodes=tuple(reversed(kept)))


def _live_loop(node: Node, op: Repeat, read: set[str]) -> Node:
    pairs = list(zip(node.outputs, op.body.results, strict=True))
    kept = pairs[: op.carried] + [pair for pair in pairs[op.carried :] if pair[0].name in read]
    body = live(replace(op.body, results=tuple(result for _, result in kept)))
    outputs = tuple(value for value, _ in kept)
    return replace(node, op=replace(op, body=body, collected=len(kept) - op.carried), outputs=outputs)
