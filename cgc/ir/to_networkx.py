"""A graph as a `networkx.MultiDiGraph`, for people who want to ask it their own questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgc.ir.graph import Graph, Region, Value
from cgc.ir.ops import Call, Repeat, opcode

if TYPE_CHECKING:
    import networkx


def to_networkx(graph: Graph) -> networkx.MultiDiGraph[str]:
    """Return nodes and edges of `graph` with calls and loops entered, loops once.

    A node is `input:NAME`, `param:PATH`, `output:NAME` or `PATH/VALUE`; it has attributes `op`, `path`, `block` (the
    chain of instance names it stands in), `line` and `file`. An edge has `type`, the text of the tensor type, and
    `value`, its name in the textual form.
    """
    import networkx

    result: networkx.MultiDiGraph[str] = networkx.MultiDiGraph(name=graph.name)
    sources: dict[str, str] = {}
    for value in graph.inputs:
        sources[value.name] = f"input:{value.name}"
        result.add_node(sources[value.name], op="input", path=value.name, block="", file="", line=0)
    for param in graph.params:
        sources[param.name] = f"param:{param.name}"
        place = param.location
        result.add_node(sources[param.name], op="param", path=param.name, block="", file=place.file, line=place.line)
    _enter(result, graph, graph.body, sources, "")
    for name, value in zip(graph.outputs, graph.body.results, strict=True):
        result.add_node(f"output:{name}", op="output", path=name, block="", file="", line=0)
        result.add_edge(sources[value.name], f"output:{name}", type=str(value.type), value=value.name)
    return result


def _enter(
    result: networkx.MultiDiGraph[str], graph: Graph, region: Region, sources: dict[str, str], block: str
) -> None:
    for node in region.nodes:
        match node.op:
            case Call(function=name, instance=instance):
                body = graph.function(name).body
                _bind(result, graph, body, node.inputs, node.outputs, sources, _join(block, instance))
            case Repeat(instance=instance, body=body):
                _bind(result, graph, body, node.inputs, node.outputs, sources, _join(block, instance))
            case op:
                key = f"{block}/{node.outputs[0].name}"
                place = node.location
                result.add_node(key, op=opcode(op), path=node.path, block=block, file=place.file, line=place.line)
                for value in node.inputs:
                    result.add_edge(sources[value.name], key, type=str(value.type), value=value.name)
                for value in node.outputs:
                    sources[value.name] = key


def _bind(
    result: networkx.MultiDiGraph[str],
    graph: Graph,
    body: Region,
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...],
    sources: dict[str, str],
    block: str,
) -> None:
    inner = {argument.name: sources[value.name] for argument, value in zip(body.arguments, inputs, strict=True)}
    _enter(result, graph, body, inner, block)
    for value, inside in zip(outputs, body.results, strict=True):
        sources[value.name] = inner[inside.name]


def _join(block: str, instance: str) -> str:
    return f"{block}.{instance}" if block else instance
