"""Forward multipliers, put into a graph.

Before:
    %logits : f32[vocab=8] = dot %x, %wte {"over": ["width"]} ; logits

After, with a factor of 0.5 at that node:
    %dot : f32[vocab=8] = dot %x, %wte {"over": ["width"]} ; logits
    %constant : f32[] = constant {"value": 0.5, "dtype": "f32", "text": ""} ; logits
    %logits : f32[vocab=8] = binary %dot, %constant {"kind": "mul"} ; logits

Where the result is multiplied by a number of its block's header already (`scale` of the library's `attend`), that
number changes instead. In a block of the library the factor goes to an argument that the node takes as it is, so that
the block stays what it is; where neither is possible, the block is no longer the library's. A function
with a factor inside is a copy, one for each different set of factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cgc.ir.builder import Names
from cgc.ir.graph import Function, Graph, Node, Region, Static, Value, walk
from cgc.ir.ops import Binary, Call, Constant, Dot, Repeat, opcode
from cgc.ir.types import TensorType
from cgc.parametrize.derive import Place, tidy
from cgc.passes.dead_code import eliminate_dead_code

Factors: TypeAlias = Mapping[Place, float]
Key: TypeAlias = tuple[tuple[Place, float], ...]


@dataclass(slots=True)
class _Scope:
    """The function being rewritten (None: the model), its names, and what the rewriting brings to light."""

    function: Function | None
    names: Names
    static: dict[str, Static] = field(default_factory=dict)
    hoisted: dict[int, float] = field(default_factory=dict)
    inserted: bool = False


def apply(graph: Graph, factors: Factors) -> Graph:
    """Return `graph` with every factor at its place; places count the nodes of the inlined graph in order."""
    return eliminate_dead_code(_Applier(graph).run(factors)) if factors else graph


class _Applier:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._functions = {function.name: function for function in graph.functions}
        self._counts: dict[str, int] = {}
        self._made: dict[tuple[str, Key], tuple[Function, tuple[tuple[int, float], ...]]] = {}
        self._names = Names()
        self._names.reserve(set(self._functions))

    def run(self, factors: Factors) -> Graph:
        """Rewrite the whole graph."""
        scope = _Scope(None, _names_of(self._graph.body))
        body = self._region(self._graph.body, 0, factors, scope)
        made = tuple(function for function, _ in self._made.values() if function.name not in self._functions)
        return replace(self._graph, body=body, functions=(*self._graph.functions, *made))

    def _count(self, region: Region) -> int:
        """Return how many nodes a region has when inlined."""
        total = 0
        for node in region.nodes:
            match node.op:
                case Call(function=name):
                    if name not in self._counts:
                        self._counts[name] = self._count(self._functions[name].body)
                    total += self._counts[name]
                case Repeat(body=body):
                    total += 1 + self._count(body)
                case _:
                    total += 1
        return total

    def _function(self, name: str, factors: Factors) -> tuple[Function, tuple[tuple[int, float], ...]]:
        """Return a function with factors in it, and the factors that its arguments take instead.

        It is a copy, unless the arguments take all of them.
        """
        key = (name, tuple(sorted(factors.items(), key=str)))
        if key not in self._made:
            function = self._functions[name]
            scope = _Scope(function, _names_of(function.body), dict(function.static))
            body = self._region(function.body, 0, factors, scope)
            static = tuple(scope.static.items())
            made = function
            if (body, static) != (function.body, function.static):
                library = "" if scope.inserted else function.library
                made = replace(function, name=self._names.fresh(name), library=library, static=static, body=body)
            self._made[key] = (made, tuple(scope.hoisted.items()))
        return self._made[key]

    def _region(self, region: Region, start: int, factors: Factors, scope: _Scope) -> Region:
        folded = _Folds(region, scope)
        nodes: list[Node] = []
        index = start
        own: dict[int, tuple[int, Node]] = {}
        for at, node in enumerate(region.nodes):
            own[at] = (index, node)
            index += self._count(Region((), (node,), ()))
        for place, node in own.values():
            factor = factors.get((place, None))
            if factor is not None and not isinstance(node.op, Call | Repeat):
                folded.try_fold(place, node, factor)
        for place, node in own.values():
            nodes += self._node(node, place, factors, scope, folded)
        return replace(region, nodes=tuple(nodes))

    def _node(self, node: Node, place: int, factors: Factors, scope: _Scope, folded: _Folds) -> Iterator[Node]:
        match node.op:
            case Call(function=name) as call:
                count = self._count(Region((), (node,), ()))
                inside = {
                    (at - place, operand): factor
                    for (at, operand), factor in factors.items()
                    if place <= at < place + count
                }
                if inside:
                    function, hoisted = self._function(name, inside)
                    node = replace(node, op=replace(call, function=function.name))
                    for operand, number in hoisted:
                        before, node = _scaled_operand(node, operand, number, scope)
                        yield from before
                yield node
            case Repeat(body=body) as loop:
                yield replace(node, op=replace(loop, body=self._region(body, place + 1, factors, scope)))
            case Constant() as constant if node.output.name in folded.numbers:
                yield replace(node, op=replace(constant, value=folded.numbers[node.output.name]))
            case _:
                for operand in range(len(node.inputs)):
                    if (place, operand) in factors:
                        before, node = _scaled_operand(node, operand, factors[place, operand], scope)
                        yield from before
                factor = None if place in folded.places else factors.get((place, None))
                if factor is None:
                    yield node
                else:
                    yield from _scaled_result(node, factor, scope)


class _Folds:
    """Factors of one region that need no node of their own."""

    def __init__(self, region: Region, scope: _Scope) -> None:
        self._region = region
        self._scope = scope
        self.places: set[int] = set()
        self.numbers: dict[str, float] = {}

    def try_fold(self, place: int, node: Node, factor: float) -> None:
        """Put a factor into a number of the header, or leave it to an argument, where one of them is possible."""
        function = self._scope.function
        if function is None:
            return
        if self._into_header(node, factor) or (function.library and self._to_argument(function, node, factor)):
            self.places.add(place)

    def _readers(self, value: Value) -> list[Node]:
        return [node for node in walk(self._region) if value in node.inputs]

    def _into_header(self, node: Node, factor: float) -> bool:
        readers = self._readers(node.output)
        if len(readers) != 1 or not isinstance(readers[0].op, Binary) or node.output in self._region.results:
            return False
        (reader,) = readers
        kind = readers[0].op.kind
        other = reader.inputs[1] if reader.inputs[0] == node.output else reader.inputs[0]
        made = next((found for found in self._region.nodes if other in found.outputs), None)
        if made is None or not isinstance(made.op, Constant) or len(self._readers(other)) != 1:
            return False
        name, value = made.op.text, made.op.value
        divides = kind == "div" and reader.inputs[0] == node.output
        if not (kind == "mul" or divides) or self._scope.static.get(name) != value or isinstance(value, bool):
            return False
        number = tidy(value / factor if divides else value * factor)
        self.numbers[other.name] = number
        self._scope.static[name] = number
        return True

    def _to_argument(self, function: Function, node: Node, factor: float) -> bool:
        if not isinstance(node.op, Dot):
            return False
        for value in node.inputs:
            if value in function.arguments and len(self._readers(value)) == 1 and value not in self._region.results:
                self._scope.hoisted[function.arguments.index(value)] = factor
                return True
        return False


def _names_of(region: Region) -> Names:
    names = Names()
    taken = {value.name for value in region.arguments}
    for node in walk(region):
        taken |= {value.name for value in node.outputs}
        if isinstance(node.op, Repeat):
            taken |= {value.name for value in node.op.body.arguments}
    names.reserve(taken)
    return names


def _product(value: Value, factor: float, result: Value, node: Node, scope: _Scope) -> Sequence[Node]:
    scope.inserted = True
    dtype = value.type.dtype
    number = Value(scope.names.fresh("constant"), TensorType((), dtype))
    return (
        Node(Constant(factor, dtype), (), (number,), node.path, node.location),
        Node(Binary("mul"), (value, number), (result,), node.path, node.location),
    )


def _scaled_operand(node: Node, operand: int, factor: float, scope: _Scope) -> tuple[Sequence[Node], Node]:
    """Return the nodes that scale an operand, and the node that reads it."""
    value = node.inputs[operand]
    scaled = Value(scope.names.fresh("binary"), value.type)
    inputs = tuple(scaled if at == operand else given for at, given in enumerate(node.inputs))
    return _product(value, factor, scaled, node, scope), replace(node, inputs=inputs)


def _scaled_result(node: Node, factor: float, scope: _Scope) -> Iterator[Node]:
    """Yield the node and the nodes that scale its result, which keeps its name."""
    unscaled = Value(scope.names.fresh(opcode(node.op)), node.output.type)
    yield replace(node, outputs=(unscaled,))
    yield from _product(unscaled, factor, node.output, node, scope)
