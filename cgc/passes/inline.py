"""Inlining: every call replaced by the body of its function.

Before:
    function relu {...}
      argument %x : f32[width=8]
      %zero : f32[] = constant {"value": 0.0, "dtype": "f32", "text": ""}
      %y : f32[width=8] = binary %x, %zero {"kind": "max"}
      return %y
    end
    %relu : f32[width=8] = call %x {"function": "relu", "instance": "relu", "args": 1} ; relu

After:
    %zero : f32[] = constant {"value": 0.0, "dtype": "f32", "text": ""} ; relu
    %y : f32[width=8] = binary %x, %zero {"kind": "max"} ; relu

Paths of the inlined nodes start with the path of the call.
"""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.builder import Names
from cgc.ir.graph import Function, Graph, Node, Region, Value, walk
from cgc.ir.ops import Call, Repeat


def inline(graph: Graph) -> Graph:
    """Return `graph` without functions."""
    names = Names()
    names.reserve({value.name for value in graph.body.arguments})
    inliner = _Inliner({function.name: function for function in graph.functions}, names)
    scope = {value.name: value for value in graph.body.arguments}
    nodes = inliner.nodes(graph.body, scope, "")
    results = tuple(scope[value.name] for value in graph.body.results)
    return replace(graph, functions=(), body=Region(graph.body.arguments, tuple(nodes), results))


class _Inliner:
    def __init__(self, functions: dict[str, Function], names: Names) -> None:
        self._functions = functions
        self._names = names

    def nodes(self, region: Region, scope: dict[str, Value], path: str) -> list[Node]:
        """Return the nodes of a region with values renamed by `scope`, which they extend."""
        result: list[Node] = []
        for node in region.nodes:
            inputs = tuple(scope[value.name] for value in node.inputs)
            here = ".".join(part for part in (path, node.path) if part)
            if isinstance(node.op, Call):
                body = self._functions[node.op.function].body
                inner = {argument.name: value for argument, value in zip(body.arguments, inputs, strict=True)}
                result += self.nodes(body, inner, here)
                scope.update({v.name: inner[r.name] for v, r in zip(node.outputs, body.results, strict=True)})
                continue
            op = node.op
            if isinstance(op, Repeat):
                op = replace(op, body=self._body(op.body, path))
            outputs = tuple(Value(self._names.fresh(value.name), value.type) for value in node.outputs)
            scope.update({old.name: new for old, new in zip(node.outputs, outputs, strict=True)})
            result.append(Node(op, inputs, outputs, here, node.location))
        return result

    def _body(self, body: Region, path: str) -> Region:
        arguments = tuple(Value(self._names.fresh(value.name), value.type) for value in body.arguments)
        scope = {old.name: new for old, new in zip(body.arguments, arguments, strict=True)}
        nodes = self.nodes(body, scope, path)
        return Region(arguments, tuple(nodes), tuple(scope[value.name] for value in body.results))


def has_loops_in_functions(graph: Graph) -> bool:
    """Tell whether a `repeat` stands in the body of a function."""
    return any(isinstance(node.op, Repeat) for function in graph.functions for node in walk(function.body))
