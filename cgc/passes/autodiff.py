"""Reverse-mode differentiation: the loss, and its gradient with respect to every parameter.

Before:
    param %w : f32[width=8] ~ {...}
    %y : f32[width=8] = binary %x, %w {"kind": "mul"} ; y
    %loss : f32[] = reduce %y {"kind": "sum", "over": ["width"]} ; loss
    output loss = %loss

After:
    param %w : f32[width=8] ~ {...}
    %y : f32[width=8] = binary %x, %w {"kind": "mul"} ; y
    %loss : f32[] = reduce %y {"kind": "sum", "over": ["width"]} ; loss
    %constant : f32[] = constant {"value": 1.0, "dtype": "f32", "text": ""}
    %binary : f32[width=8] = binary %constant, %x {"kind": "mul"} ; grad.y
    output loss = %loss
    output grad.w = %binary

Calls are inlined first. A loop stays a loop: it collects what its derivative reads, and the derivative is a loop in
reverse (`cgc.passes.autodiff_loops`). With `recompute` a loop collects what it carries and nothing else, and its
derivative computes the rest again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cgc.ir.builder import Builder
from cgc.ir.graph import Graph, Node, Region, Value
from cgc.ir.ops import Repeat, Unary
from cgc.ir.types import is_float
from cgc.passes.autodiff_loops import differentiate_loop
from cgc.passes.copying import names_of, no_function
from cgc.passes.dead_code import eliminate_dead_code
from cgc.passes.derivatives import gradients
from cgc.passes.emitter import Emitter
from cgc.passes.inline import inline

GRADIENT = "grad."
"""What the names of gradients and the paths of their nodes start with."""


class NotDifferentiable(ValueError):
    """The graph has no scalar to differentiate."""


def autodiff(graph: Graph, recompute: bool = False) -> Graph:
    """Return `graph`, whose only output is a scalar loss, with an output `grad.NAME` for each parameter after the loss.

    A parameter that the loss does not depend on has a gradient of zeros.

    Raises:
        NotDifferentiable: the graph has not one output, or that is not a scalar float.
    """
    if len(graph.outputs) != 1:
        raise NotDifferentiable(f"a loss is the only output of a graph; `{graph.name}` has {len(graph.outputs)}")
    loss = graph.body.results[0]
    if loss.type.dims or not is_float(loss.type.dtype):
        raise NotDifferentiable(f"a loss is a float without dimensions, not {loss.type}")
    graph = inline(graph) if graph.functions else graph
    (loss,) = graph.body.results
    params = [param.value for param in graph.params]
    emit = Emitter(Builder(names_of(graph), no_function), GRADIENT.removesuffix("."))
    found = {loss.name: emit.number(1.0, loss.type.dtype)}
    reverse = Reverse(graph.body, params, recompute)
    nodes = reverse.region(graph.body.nodes, found, emit)
    emit.at("", graph.location)
    results = [emit.full(found[p.name], p.type) if p.name in found else emit.zeros(p.type) for p in params]
    body = Region(graph.body.arguments, (*nodes, *emit.nodes()), (loss, *results))
    outputs = (*graph.outputs, *(f"{GRADIENT}{param.name}" for param in params))
    return eliminate_dead_code(replace(graph, body=body, outputs=outputs))


class Reverse:
    """Walks regions backward. `active` are the values that depend on what is differentiated for, and are floats."""

    def __init__(self, body: Region, sources: Iterable[Value], recompute: bool) -> None:
        self.recompute = recompute
        self._active = {value.name for value in sources if is_float(value.type.dtype)}
        _mark(body, self._active)

    def active(self, values: Iterable[Value]) -> list[bool]:
        """Tell of each value whether a gradient may flow to it."""
        return [value.name in self._active for value in values]

    def region(self, nodes: Sequence[Node], found: dict[str, Value], emit: Emitter) -> list[Node]:
        """Extend `found`, gradients by the name of the value, from the results of a region to its arguments.

        Returns the nodes of the region, in which loops collect what their derivatives read.
        """
        forward: list[Node] = []
        for node in reversed(nodes):
            given = [found.get(value.name) for value in node.outputs]
            wanted = self.active(node.inputs)
            if not any(wanted) or not any(given):
                forward.append(node)
                continue
            emit.at(node.path, node.location)
            if isinstance(node.op, Repeat):
                node, parts = differentiate_loop(self, emit, node, node.op, given)
            else:
                parts = gradients(emit, node, given, wanted)
            forward.append(node)
            for value, needed, part in zip(node.inputs, wanted, parts, strict=True):
                if needed and part is not None:
                    accumulate(emit, found, value, part)
        return forward[::-1]


def accumulate(emit: Emitter, found: dict[str, Value], value: Value, part: Value) -> None:
    """Add `part` to the gradient of a value."""
    known = found.get(value.name)
    found[value.name] = part if known is None else emit.binary("add", known, part)


def _mark(region: Region, active: set[str]) -> None:
    """Add the names of all float values that depend on active ones, through what has a derivative."""
    for node in region.nodes:
        if isinstance(node.op, Repeat):
            _mark_loop(node, node.op, active)
        elif any(value.name in active for value in node.inputs) and node.op != Unary("floor"):
            active.update(value.name for value in node.outputs if is_float(value.type.dtype))


def _mark_loop(node: Node, op: Repeat, active: set[str]) -> None:
    body = op.body
    active.update(arg.name for arg, given in zip(body.arguments, node.inputs, strict=True) if given.name in active)
    carried = list(zip(body.arguments[: op.carried], body.results[: op.carried], strict=True))
    while True:
        _mark(body, active)
        later = {argument.name for argument, result in carried if result.name in active} - active
        if not later:
            break
        active |= later
    active.update(out.name for out, inside in zip(node.outputs, body.results, strict=True) if inside.name in active)
