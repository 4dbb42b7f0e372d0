"""How a model grows: the same model at the base sizes of its `mup` item, and at larger ones.

Nothing is differentiated by hand. The model is elaborated again with other sizes, so that every size, constant and
initial distribution that depends on what grows is measured, whatever formula its author wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from cgc.diagnostics import Diagnostic, Diagnostics, Label, Location
from cgc.elaborate.hints import quoted
from cgc.ir.graph import Graph, Static
from cgc.ir.ops import Repeat
from cgc.program import GROWTH, Grown, Mup, Scaling, Table

Rebuild = Callable[[Mapping[str, int]], Graph | Diagnostic]
"""The model with some sizes of its header replaced, or the first fault of it."""

MOST_COMBINED = 3
"""Sizes that grow independently; of more, only each alone and all together are looked at."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model, how it is built at other sizes, and what its file says of scaling."""

    graph: Graph
    arguments: tuple[tuple[str, Static], ...]
    rebuild: Rebuild
    mup: Mup
    place: Location


def measure_scaling(model: Measured, table: Table, found: Diagnostics) -> Scaling | None:
    """Build the model at its base sizes and at larger ones; None where it cannot be, with a diagnostic."""
    base = _base(model, found)
    if base is None:
        return None
    header = dict(model.arguments)
    sizes = {name: int(value) for name, _ in model.mup.base if isinstance(value := header.get(name), int)}
    grown: list[Grown] = []
    fault: Diagnostic | None = None
    for names in _directions(model, sizes):
        graph = model.rebuild({name: sizes[name] * GROWTH for name in names})
        if isinstance(graph, Diagnostic):
            fault = fault or graph
        elif not _shrinks(model.graph, graph):
            grown.append(Grown(names, _deep(model.graph, graph), graph))
    if not grown and sizes:
        text = f"the model cannot be built with {quoted(sizes)} larger, and all else as it is"
        because = f"then {fault.message}" if fault is not None else "some dimension shrinks then"
        hint = f"{because}; `scale` names everything that grows, as in `scale width from 256, heads from 4`"
        found.add(Diagnostic("CG0511", text, (Label(model.place),), hint))
        return None
    return Scaling(table, model.graph, base, tuple(grown))


def _base(model: Measured, found: Diagnostics) -> Graph | None:
    """Return the model at its base sizes, checked against the dimensions that are no part of its header."""
    header = {name for name, _ in model.arguments}
    graph = model.rebuild({name: size for name, size in model.mup.base if name in header})
    if isinstance(graph, Diagnostic):
        text = "the model cannot be built at its base sizes"
        place = graph.labels[:1] if graph.location.file == model.place.file else ()
        hint = f"{graph.message}; {graph.hint}".strip("; ")
        found.add(Diagnostic("CG0511", text, (Label(model.place), *place), hint))
        return None
    dims = {dim.name: dim.size for param in graph.params for dim in param.type.dims}
    for name, size in model.mup.base:
        if name not in header and dims.get(name) != size:
            text = f"`{name}` is {dims.get(name)} at the base sizes, not {size}"
            hint = f"`{name}` follows from the model's header: leave it out, or correct the sizes it follows from"
            found.add(Diagnostic("CG0511", text, (Label(model.place),), hint))
            return None
    return graph


def _directions(model: Measured, sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Yield what grows together: every combination of a few sizes; those that only make loops longer stand alone."""
    deep: list[str] = []
    for name in sizes:
        graph = model.rebuild({name: sizes[name] * GROWTH}) if len(sizes) > 1 else model.graph
        if not isinstance(graph, Diagnostic) and graph is not model.graph and _deep(model.graph, graph):
            deep.append(name)
    wide = [name for name in sizes if name not in deep]
    counts = range(1, len(wide) + 1) if len(wide) <= MOST_COMBINED else (1, len(wide))
    for count in counts:
        yield from combinations(wide, count)
    for name in deep:
        yield (name,)


def _loops(graph: Graph) -> dict[str, int]:
    """Return the sizes of the loops by the places of the nodes that they are."""
    regions = [("", graph.body), *((function.name, function.body) for function in graph.functions)]
    sizes: dict[str, int] = {}
    while regions:
        prefix, region = regions.pop()
        for index, node in enumerate(region.nodes):
            if isinstance(node.op, Repeat):
                place = f"{prefix}/{index}"
                sizes[place] = node.op.stack.size if isinstance(node.op.stack.size, int) else 0
                regions.append((place, node.op.body))
    return sizes


def _param_sizes(graph: Graph) -> list[tuple[object, ...]]:
    """Return the sizes of all parameters without those of the loops they are stacked by."""
    return [param.type.shape[param.stacked :] for param in graph.params]


def _deep(graph: Graph, other: Graph) -> bool:
    """Tell whether `other` has longer loops than `graph`, and the same parameters in them."""
    return _loops(graph) != _loops(other) and _param_sizes(graph) == _param_sizes(other)


def _shrinks(graph: Graph, other: Graph) -> bool:
    """Tell whether a dimension of a parameter is smaller in `other`."""
    pairs = zip(graph.params, other.params, strict=False)
    return any(
        isinstance(a.size, int) and isinstance(b.size, int) and b.size < a.size
        for param, twin in pairs
        for a, b in zip(param.type.dims, twin.type.dims, strict=False)
    )
