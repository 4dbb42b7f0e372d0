"""Pictures of graphs: blocks as boxes in boxes, down to a depth; graphviz does the layout."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from cgc.diagnostics import ELSEWHERE, Diagnostic, InputError
from cgc.driver import UsageError
from cgc.graph_costs import GraphCosts, block_paths
from cgc.ir.graph import Function, Graph, Node, Region, Value
from cgc.ir.ops import Call, Constant, Repeat, opcode
from cgc.model_explorer import model_explorer_json

FORMATS = (".svg", ".png", ".pdf", ".dot", ".json")
_FONT = 'fontname="Helvetica"'
_COOL, _WARM = (238, 241, 247), (240, 170, 90)
"""Colours of boxes that take nothing and all of a step."""


def draw(graph: Graph, path: Path, depth: int, costs: GraphCosts | None = None) -> Path:
    """Draw `graph` into a file; blocks and loops nested deeper than `depth` are one box each. A `.json` file is for
    Model Explorer, which opens and closes blocks itself. `costs` are shown in the blocks that have them.

    Raises:
        UsageError: the file's ending is not one of `FORMATS`.
        InputError: graphviz is not installed (CG0005), or the file cannot be written (CG0004).
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"`{path.name}`: a picture ends in one of {', '.join(FORMATS)}")
    data = _drawn(graph, path.suffix, depth, costs)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            [Diagnostic("CG0004", f"cannot write `{path}`: {error.strerror or error}", hint=ELSEWHERE)]
        ) from error
    return path


def _drawn(graph: Graph, suffix: str, depth: int, costs: GraphCosts | None) -> bytes:
    if suffix == ".json":
        return model_explorer_json(graph, costs).encode()
    source = dot_source(graph, depth, costs)
    return source.encode() if suffix == ".dot" else _render(source, suffix[1:])


def _render(source: str, suffix: str) -> bytes:
    import graphviz

    try:
        drawn: bytes = graphviz.Source(source).pipe(format=suffix)
    except graphviz.ExecutableNotFound as error:
        hint = "install graphviz (Debian: `apt-get install graphviz`), or write a `.dot` file, which needs nothing"
        raise InputError(
            [Diagnostic("CG0005", "the program `dot` of graphviz is not on the PATH", (), hint)]
        ) from error
    return drawn


def dot_source(graph: Graph, depth: int, costs: GraphCosts | None = None) -> str:
    """Return the picture in graphviz's language."""
    drawing = _Drawing(graph, depth, costs)
    return drawing.source()


class _Drawing:
    def __init__(self, graph: Graph, depth: int, costs: GraphCosts | None) -> None:
        self._graph = graph
        self._depth = depth
        self._costs = costs
        self._lines: list[str] = []
        self._edges: list[str] = []
        self._count = 0

    def source(self) -> str:
        """Return the whole picture."""
        ends: dict[str, str] = {}
        for value in self._graph.inputs:
            ends[value.name] = self._box(value.name, _type(value), "#d7ecd9", "oval")
        for param in self._graph.params:
            ends[param.name] = ""
        self._region(self._graph.body, ends, 0, "  ", "")
        for name, value in zip(self._graph.outputs, self._graph.body.results, strict=True):
            self._edge(ends[value.name], self._box(name, _type(value), "#f6d8c8", "oval"), value)
        head = [
            f'digraph "{_quoted(self._graph.name)}" {{',
            f'  graph [rankdir=TB, {_FONT}, fontsize=12, labelloc=t, label="{_quoted(self._graph.name)}"];',
            f'  node [shape=box, style="rounded,filled", fillcolor=white, {_FONT}, fontsize=10, margin="0.12,0.06"];',
            f'  edge [color="#555555", {_FONT}, fontsize=8, arrowsize=0.6];',
        ]
        return "\n".join([*head, *self._lines, *self._edges, "}"]) + "\n"

    def _name(self) -> str:
        self._count += 1
        return f"n{self._count}"

    def _box(self, title: str, detail: str, color: str, shape: str = "box", indent: str = "  ", tip: str = "") -> str:
        name = self._name()
        label = (
            f"<<b>{escape(title)}</b>" + "".join(f"<br/>{escape(line)}" for line in detail.split("\n") if line) + ">"
        )
        tooltip = f', tooltip="{_quoted(tip)}"' if tip else ""
        self._lines.append(f'{indent}{name} [label={label}, shape={shape}, fillcolor="{color}"{tooltip}];')
        return name

    def _edge(self, source: str, target: str, value: Value) -> None:
        if source and target:
            self._edges.append(f'  {source} -> {target} [label="{_quoted(_dims(value))}"];')

    def _cost(self, path: str) -> list[str]:
        return [] if self._costs is None else [f"{k}: {v}" for k, v in self._costs.of(path).items()]

    def _fill(self, path: str, usual: str) -> str:
        """Return the colour of a box: the more of a step it takes, the warmer."""
        if self._costs is None:
            return usual
        share = min(1.0, self._costs.heat(path)) ** 0.5
        return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_COOL, _WARM, strict=True))

    def _region(self, region: Region, ends: dict[str, str], depth: int, indent: str, prefix: str) -> None:
        blocks = block_paths(region)
        for node in region.nodes:
            match node.op:
                case Constant():
                    ends[node.output.name] = ""
                case Call(function=name, instance=instance):
                    function = self._graph.function(name)
                    title = instance if instance == function.block else f"{instance}: {function.block}"
                    self._block(node, function.body, title, _params(function), ends, depth, indent, prefix)
                case Repeat(instance=instance, stack=stack, body=body):
                    self._block(node, body, f"{instance}: repeat {stack}", "", ends, depth, indent, prefix)
                case _:
                    tip = f"{node.path} {node.location}"
                    path = "" if node.path in blocks else ".".join(part for part in (prefix, node.path) if part)
                    tip = "; ".join([tip, *self._cost(path)])
                    box = self._box(_title(node), "", self._fill(path, "#eef1f7"), "box", indent, tip)
                    for value in node.inputs:
                        self._edge(ends[value.name], box, value)
                    ends.update({value.name: box for value in node.outputs})

    def _block(
        self,
        node: Node,
        body: Region,
        title: str,
        detail: str,
        ends: dict[str, str],
        depth: int,
        indent: str,
        prefix: str,
    ) -> None:
        path = ".".join(part for part in (prefix, node.path) if part)
        cost = self._cost(path)
        if depth >= self._depth:
            tip = "; ".join([f"{node.path} {node.location}", *cost])
            text = "\n".join([*([detail] if detail else []), *cost[:2]])
            box = self._box(title, text, self._fill(path, "#dde7f7"), "box", indent, tip)
            for value in node.inputs:
                self._edge(ends[value.name], box, value)
            ends.update({value.name: box for value in node.outputs})
            return
        self._lines.append(f"{indent}subgraph cluster_{self._name()} {{")
        shown = f"<b>{escape(title)}</b>" + "".join(f"<br/>{escape(line)}" for line in cost[:1])
        self._lines.append(f'{indent}  label=<{shown}>; style="rounded"; color="#8aa0c8";')
        inner = {a.name: ends[v.name] for a, v in zip(body.arguments, node.inputs, strict=True)}
        # Paths in a block are relative to it, paths in a loop are not.
        self._region(body, inner, depth + 1, indent + "  ", path if isinstance(node.op, Call) else prefix)
        self._lines.append(f"{indent}}}")
        for value, result in zip(node.outputs, body.results, strict=True):
            ends[value.name] = inner[result.name]


def _title(node: Node) -> str:
    kind = getattr(node.op, "kind", "")
    detail = getattr(node.op, "over", ())
    over = f" over {' '.join(detail) if isinstance(detail, tuple) else detail}" if detail else ""
    return (kind if isinstance(kind, str) and kind else opcode(node.op)) + over


def _params(function: Function) -> str:
    own = [param.name for param in function.params if "." not in param.name]
    return ", ".join(own)


def _type(value: Value) -> str:
    return str(value.type)


def _dims(value: Value) -> str:
    return " ".join(value.type.names)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
