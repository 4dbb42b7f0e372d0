"""Print a graph as text that a person can read and `cgc.ir.read` parses back to an equal graph.

One line a value: `%name : type = op %operands {attributes} ; path @ place`. Regions and functions are indented blocks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from cgc.ir.dims import Dim, SymbolicSize
from cgc.ir.graph import Function, Graph, Location, Node, Param, Region, Value
from cgc.ir.ops import Op, Repeat, opcode

FORMAT = 1
_UNUSUAL = frozenset({"collected", "reverse"})
"""Attributes of loops that are printed only where they say something."""


def print_graph(graph: Graph) -> str:
    """Return the textual form of `graph`, ending in a newline."""
    return "\n".join(_graph(graph)) + "\n"


def _graph(graph: Graph) -> Iterator[str]:
    yield f"graph {graph.name} format {FORMAT}{_place(graph.location)}"
    for symbol in graph.symbols:
        yield f"symbol {symbol.name}" + (f" <= {symbol.limit}" if symbol.limit else "")
    for function in graph.functions:
        yield ""
        yield from _function(function)
    yield ""
    for value in graph.inputs:
        yield f"input {_typed(value)}"
    for param in graph.params:
        yield _param(param)
    for node in graph.body.nodes:
        yield from _node(node, "")
    for name, value in zip(graph.outputs, graph.body.results, strict=True):
        yield f"output {name} = %{value.name}"


def _function(function: Function) -> Iterator[str]:
    head = {"block": function.block, "library": function.library, "static": _static(function), "doc": function.doc}
    yield f"function {function.name} {_json(head)}{_place(function.location)}"
    for value in function.arguments:
        yield f"  argument {_typed(value)}"
    for param in function.params:
        yield f"  {_param(param)}"
    for node in function.body.nodes:
        yield from _node(node, "  ")
    yield f"  return {_operands(function.body.results)}"
    yield "end"


def _static(function: Function) -> list[list[object]]:
    return [[name, list(value) if isinstance(value, tuple) else value] for name, value in function.static]


def _param(param: Param) -> str:
    init = {k: v for k, v in dataclasses.asdict(param.init).items() if v or k == "distribution"}
    stacked = f" stacked {param.stacked}" if param.stacked else ""
    return f"param {_typed(param.value)} ~ {_json(init)}{stacked}{_place(param.location)}"


def _node(node: Node, indent: str) -> Iterator[str]:
    results = ", ".join(_typed(value) for value in node.outputs)
    operands = f" {_operands(node.inputs)}" if node.inputs else ""
    attributes = _attributes(node.op)
    braces = f" {_json(attributes)}" if attributes else ""
    path = f" ; {node.path}" if node.path else ""
    yield f"{indent}{results} = {opcode(node.op)}{operands}{braces}{path}{_place(node.location)}"
    if isinstance(node.op, Repeat):
        yield from _region(node.op.body, indent + "  ")


def _region(region: Region, indent: str) -> Iterator[str]:
    for value in region.arguments:
        yield f"{indent}argument {_typed(value)}"
    for node in region.nodes:
        yield from _node(node, indent)
    yield f"{indent}yield {_operands(region.results)}".rstrip()
    yield f"{indent[2:]}end"


def _operands(values: tuple[Value, ...]) -> str:
    return ", ".join(f"%{value.name}" for value in values)


def _typed(value: Value) -> str:
    return f"%{value.name} : {value.type}"


def _place(location: Location) -> str:
    if not location.file:
        return ""
    end = f"{location.end_line}:{location.end_column}"
    return f" @ {location.file}:{location.line}:{location.column}-{end}"


def _attributes(op: Op) -> dict[str, object]:
    values = {field.name: _plain(getattr(op, field.name)) for field in dataclasses.fields(op) if field.name != "body"}
    return {name: value for name, value in values.items() if name not in _UNUSUAL or value}


def _plain(value: object) -> object:
    match value:
        case Dim():
            return {"dim": str(value)}
        case SymbolicSize():
            return {"size": str(value)}
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _json(value: object) -> str:
    # ` @ ` outside of texts starts the place at the end of a line
    return json.dumps(value, ensure_ascii=False).replace(" @ ", " \\u0040 ")
