"""Copies of nodes under other names: what passes use that write a piece of a graph twice."""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.builder import Names
from cgc.ir.graph import Function, Graph, Node, Region, Value, walk
from cgc.ir.ops import Repeat


def copy_node(node: Node, path: str, scope: dict[str, Value], names: Names) -> Node:
    """Return a node at `path` that reads what `scope` says, and enter its results there under fresh names.

    What stands in the body of a loop gets fresh names too, and a path that starts as the loop's does.
    """
    inputs = tuple(scope[value.name] for value in node.inputs)
    op = node.op
    if isinstance(op, Repeat):
        arguments = tuple(Value(names.fresh(value.name), value.type) for value in op.body.arguments)
        inner = {old.name: new for old, new in zip(op.body.arguments, arguments, strict=True)}
        body = [copy_node(n, f"{path}{n.path.removeprefix(node.path)}", inner, names) for n in op.body.nodes]
        results = tuple(inner[value.name] for value in op.body.results)
        op = replace(op, body=Region(arguments, tuple(body), results))
    outputs = tuple(Value(names.fresh(value.name), value.type) for value in node.outputs)
    scope.update({old.name: new for old, new in zip(node.outputs, outputs, strict=True)})
    return Node(op, inputs, outputs, path, node.location)


def no_function(name: str) -> Function:
    """Look up a function where none is called.

    Raises:
        KeyError: always.
    """
    raise KeyError(name)


def names_of(graph: Graph) -> Names:
    """Return names of which those of all values at the graph's top level, loops included, are taken."""
    names = Names()
    taken = {value.name for value in graph.body.arguments}
    for node in walk(graph.body):
        taken |= {value.name for value in node.outputs}
        if isinstance(node.op, Repeat):
            taken |= {value.name for value in node.op.body.arguments}
    names.reserve(taken)
    return names
