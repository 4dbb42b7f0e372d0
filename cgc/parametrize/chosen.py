"""Lookups that choose weights: with an embedding's row the model computes, an expert's matrix multiplies what it has.

Both are a `gather` from a parameter. What tells them apart is where the rows go: into a contraction with something that
the model computed, they are weights there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cgc.ir.graph import Graph, Node, Region
from cgc.ir.ops import Cast, Dot, Gather, Merge, Rename, Repeat, Slice, Split, Transpose


@dataclass(frozen=True, slots=True)
class _View:
    """What a value shows of parameters: all of one, or the rows that lookups took."""

    param: bool = False
    lookups: frozenset[int] = frozenset()

    @property
    def computed(self) -> bool:
        """Tell whether it is neither."""
        return not self.param and not self.lookups


def chosen_weights(graph: Graph) -> frozenset[int]:
    """Return the places of such lookups among all nodes of an inlined graph, a loop before what is in it."""
    views = {param.name: _View(param=True) for param in graph.params}
    return frozenset(_chosen(graph.body, views, [0]))


def _chosen(region: Region, views: dict[str, _View], places: list[int]) -> Iterator[int]:
    for node in region.nodes:
        place = places[0]
        places[0] += 1
        operands = [views.get(value.name, _View()) for value in node.inputs]
        match node.op:
            case Repeat(carried=carried, body=body):
                for argument, operand in list(zip(body.arguments, operands, strict=True))[carried:]:
                    views[argument.name] = operand
                yield from _chosen(body, views, places)
            case Dot():
                for operand, other in (operands, operands[::-1]):
                    if other.computed:
                        yield from operand.lookups
            case _:
                views[node.outputs[0].name] = _seen(node, operands, place)


def _seen(node: Node, operands: list[_View], place: int) -> _View:
    match node.op:
        case Gather() if operands[0].param:
            return _View(lookups=frozenset((place,)))
        case Rename() | Transpose() | Cast() | Split() | Merge() | Slice():
            return operands[0]
        case _:
            return _View()
