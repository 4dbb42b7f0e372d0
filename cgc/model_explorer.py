"""A graph for Model Explorer: its JSON, a collection of one graph whose nodes stand in namespaces of blocks.

The format is the one that its visualizer takes (google-ai-edge/model-explorer, `input_graph.ts`): `graphs`, each with
`nodes` of `id`, `label`, `namespace`, `attrs` and `incomingEdges`, and `groupNodeAttributes` by namespace.
"""

from __future__ import annotations

import json
from typing import Any

from cgc.graph_costs import GraphCosts, block_paths
from cgc.ir.graph import Graph, Node, Region, Value
from cgc.ir.ops import Call, Constant, Repeat, opcode

INPUTS, PARAMS, OUTPUTS = "inputs", "parameters", "outputs"
"""Namespaces of what stands in no block."""


def model_explorer_json(graph: Graph, costs: GraphCosts | None = None) -> str:
    """Return the text of the file; `costs` become attributes of the blocks and statements that have them."""
    writer = _Writer(graph, costs)
    return json.dumps({"label": graph.name, "graphs": [writer.graph()]}, ensure_ascii=False, indent=1) + "\n"


class _Writer:
    def __init__(self, graph: Graph, costs: GraphCosts | None) -> None:
        self._graph = graph
        self._costs = costs
        self._nodes: list[dict[str, Any]] = []
        self._groups: dict[str, dict[str, str]] = {}
        self._ids: set[str] = set()

    def graph(self) -> dict[str, Any]:
        """Return the whole graph; loops are entered once."""
        ends: dict[str, tuple[str, str]] = {}
        for value in self._graph.inputs:
            ends[value.name] = self._node(value.name, value.name, INPUTS, {"type": str(value.type)}, (), [value]), "0"
        for param in self._graph.params:
            namespace = "/".join([*param.name.split(".")[:-1]]) or PARAMS
            attrs = {"type": str(param.type), "parameter": param.name}
            ends[param.name] = self._node(param.name, param.name.rpartition(".")[2], namespace, attrs, (), []), "0"
        self._region(self._graph.body, ends, "", "")
        for name, value in zip(self._graph.outputs, self._graph.body.results, strict=True):
            self._node(f"output:{name}", name, OUTPUTS, {"type": str(value.type)}, (ends[value.name],), [])
        return {"id": self._graph.name, "nodes": self._nodes, "groupNodeAttributes": self._groups}

    def _region(self, region: Region, ends: dict[str, tuple[str, str]], prefix: str, space: str) -> None:
        """Write what stands in the block or loop at `space`; paths there are relative to `prefix`."""
        blocks = block_paths(region)
        for node in region.nodes:
            match node.op:
                case Call(function=name):
                    function = self._graph.function(name)
                    about = {"block": function.block, "library": function.library}
                    self._enter(node, function.body, ends, _join(prefix, node.path), about, _join(prefix, node.path))
                case Repeat(stack=stack, body=body):
                    self._enter(node, body, ends, _join(prefix, node.path), {"repeat": str(stack)}, prefix)
                case op:
                    path = _join(prefix, node.path)
                    attrs = {"path": path, "from": str(node.location)}
                    kind = getattr(op, "kind", "")
                    label = f"{opcode(op)} {kind}" if isinstance(kind, str) and kind else opcode(op)
                    if self._costs is not None and not isinstance(op, Constant) and node.path not in blocks:
                        attrs |= self._costs.of(path)
                    sources = tuple(ends[value.name] for value in node.inputs)
                    key = f"{space}/{node.outputs[0].name}"
                    key = self._node(key, label, space.replace(".", "/"), attrs, sources, list(node.outputs))
                    ends.update({value.name: (key, str(i)) for i, value in enumerate(node.outputs)})

    def _enter(
        self,
        node: Node,
        body: Region,
        ends: dict[str, tuple[str, str]],
        path: str,
        about: dict[str, str],
        prefix: str,
    ) -> None:
        shown = {name: value for name, value in about.items() if value}
        if self._costs is not None:
            shown |= self._costs.of(path)
        self._groups[path.replace(".", "/")] = {**shown, "from": str(node.location)}
        inner = {a.name: ends[v.name] for a, v in zip(body.arguments, node.inputs, strict=True)}
        self._region(body, inner, prefix, path)
        for value, result in zip(node.outputs, body.results, strict=True):
            ends[value.name] = inner[result.name]

    def _node(
        self,
        key: str,
        label: str,
        namespace: str,
        attrs: dict[str, str],
        sources: tuple[tuple[str, str], ...],
        outputs: list[Value],
    ) -> str:
        name, count = key, 1
        while name in self._ids:
            count += 1
            name = f"{key}_{count}"
        self._ids.add(name)
        node: dict[str, Any] = {
            "id": name,
            "label": label,
            "namespace": namespace,
            "attrs": [{"key": k, "value": v} for k, v in attrs.items()],
            "incomingEdges": [
                {"sourceNodeId": source, "sourceNodeOutputId": output, "targetNodeInputId": str(i)}
                for i, (source, output) in enumerate(sources)
            ],
        }
        if outputs:
            node["outputsMetadata"] = [
                {"id": str(i), "attrs": [{"key": "tensor_shape", "value": str(value.type)}]}
                for i, value in enumerate(outputs)
            ]
        self._nodes.append(node)
        return name


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path
