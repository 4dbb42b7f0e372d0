"""Memory: what training and inference hold, tensor by tensor, before anything is placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cgc.ir.dims import evaluate
from cgc.ir.graph import Graph, Node, Region, Value
from cgc.ir.ops import Call, Constant, Position, Rename, Repeat, Split
from cgc.ir.types import BYTES, is_float


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes per scalar of each kind. The default is mixed precision with AdamW: 16-bit weights, gradients and
    activations, and in 32 bit a master copy and two moments.
    """

    weight: int = 2
    gradient: int = 2
    optimizer: int = 12
    activation: int = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `saved` are all intermediate results of a forward pass, kept for the backward pass; `peak` the most that
    is live at once when nothing is kept.
    """

    weights: int
    gradients: int
    optimizer: int
    saved: int
    peak: int

    @property
    def training(self) -> int:
        """Bytes of a training step without recomputation."""
        return self.weights + self.gradients + self.optimizer + self.saved


def memory(graph: Graph, sizes: Mapping[str, int], precision: Precision = Precision()) -> Memory:
    """Return the memory of `graph` at these sizes (values of its symbols)."""
    count = evaluate(graph.parameter_count, sizes)
    meter = _Meter(graph, sizes, precision)
    saved, peak = meter.region(graph.body)
    return Memory(count * precision.weight, count * precision.gradient, count * precision.optimizer, saved, peak)


def saved_bytes(graph: Graph, sizes: Mapping[str, int], precision: Precision = Precision()) -> dict[str, int]:
    """Return the bytes of intermediate results by path of the blocks at the top level and directly inside loops."""
    meter = _Meter(graph, sizes, precision)
    rows: dict[str, int] = {}

    def visit(region: Region, times: int) -> None:
        for node in region.nodes:
            if isinstance(node.op, Repeat):
                visit(node.op.body, times * evaluate(node.op.stack.size, sizes))
            else:
                path = node.path or node.outputs[0].name
                rows[path] = rows.get(path, 0) + times * meter.node(node)[0]

    visit(graph.body, 1)
    return rows


class _Meter:
    """Saved bytes and peak bytes of regions; functions are measured once."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], precision: Precision) -> None:
        self._functions = {function.name: function for function in graph.functions}
        self._sizes = sizes
        self._precision = precision
        self._known: dict[str, tuple[int, int]] = {}

    def _bytes(self, value: Value) -> int:
        width = self._precision.activation if is_float(value.type.dtype) else BYTES[value.type.dtype]
        return evaluate(value.type.count, self._sizes) * width

    def node(self, node: Node) -> tuple[int, int]:
        """Return (saved, peak) bytes of one node, its outputs included."""
        out = sum(self._bytes(value) for value in node.outputs)
        match node.op:
            case Call(function=name):
                if name not in self._known:
                    self._known[name] = self.region(self._functions[name].body)
                saved, peak = self._known[name]
                return saved, max(peak, out)
            case Repeat(stack=stack, body=body):
                saved, peak = self.region(body)
                return saved * evaluate(stack.size, self._sizes), max(peak, out)
            case Constant() | Position() | Rename() | Split():
                return 0, out if isinstance(node.op, Position) else 0
            case _:
                return out, out

    def region(self, region: Region) -> tuple[int, int]:
        """Return (saved, peak) bytes of a region: all results, and the most that is live at one time."""
        last: dict[str, int] = {value.name: len(region.nodes) for value in region.results}
        for index, node in enumerate(region.nodes):
            for value in node.inputs:
                last[value.name] = max(last.get(value.name, 0), index)
        live: dict[str, int] = {}
        saved = peak = 0
        for index, node in enumerate(region.nodes):
            node_saved, node_peak = self.node(node)
            saved += node_saved
            peak = max(peak, sum(live.values()) + node_peak)
            live.update({value.name: self._bytes(value) for value in node.outputs})
            live = {name: size for name, size in live.items() if last.get(name, -1) > index}
        return saved, peak
