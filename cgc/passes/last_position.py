"""Outputs at the last position only, as making one more token needs them: a prompt's other logits are not computed.

Before:

    %logits : f32[batch, seq, vocab=8] = dot %x, %wte {"over": ["width"]}
    %scaled : f32[batch, seq, vocab=8] = binary %logits, %multiplier {"kind": "mul"}
    output logits = %scaled

After:

    %x.last : f32[batch, last=1, width=4] =
        slice %x {"dim": "seq", "start": {"size": "-1+seq"}, "into": {"dim": "last=1"}}
    %logits_2 : f32[batch, last=1, vocab=8] = dot %x.last, %wte {"over": ["width"]}
    %scaled_2 : f32[batch, last=1, vocab=8] = binary %logits_2, %multiplier {"kind": "mul"}
    output logits = %scaled_2

What is left out is left out before the contraction that makes the output, behind which entries are only computed with
one by one. A block that makes the output, and nothing else, is opened for that. An output that is made otherwise is cut
itself.

With a mask, by which sequences of a batch may begin late and end early, the last position is that of each sequence's
last token: the entry is looked up instead. Outputs without the dimensions of a batch then stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, Size, subtract
from cgc.ir.graph import Graph, Node, Region, Value, walk
from cgc.ir.ops import Binary, Call, Cast, Dot, Gather, Position, Reduce, Slice, Unary, Where
from cgc.passes.copying import copy_node, names_of, no_function
from cgc.passes.dead_code import eliminate_dead_code
from cgc.passes.emitter import Emitter, spare_name

LAST = "last"


def at_last_position(graph: Graph, tokens: Dim, outputs: Collection[str], mask: Value | None = None) -> Graph:
    """Return `graph` with those of its `outputs` that have the dimension `tokens` at its last position only, along a
    dimension `last` of size 1.

    `mask` [batch, all] is an input that is 0 where a token is none; the new tokens are the last of all. With it, an
    output also needs the dimensions of the batch.
    """
    batch = mask.type.names[:-1] if mask is not None else ()
    narrowing = _Narrowing(graph, tokens, mask)
    results = tuple(
        narrowing.result(value) if name in outputs and all(map(value.type.has, (*batch, tokens.name))) else value
        for name, value in zip(graph.outputs, graph.body.results, strict=True)
    )
    nodes = (*graph.body.nodes, *narrowing.opened, *narrowing.emit.nodes())
    return eliminate_dead_code(replace(graph, body=replace(graph.body, nodes=nodes, results=results)))


class _Narrowing:
    """Writes values anew, at the last of the positions along `tokens`."""

    def __init__(self, graph: Graph, tokens: Dim, mask: Value | None) -> None:
        values = [*graph.body.arguments, *(value for node in walk(graph.body) for value in node.outputs)]
        self.emit = Emitter(Builder(names_of(graph), no_function))
        self._tokens = tokens
        self._last = Dim(spare_name(LAST, (name for value in values for name in value.type.names)), 1)
        self._mask = mask
        self._batch = mask.type.names[:-1] if mask is not None else ()
        self._functions = {function.name: function for function in graph.functions}
        self._made_by = {value.name: node for node in graph.body.nodes for value in node.outputs}
        read = [*(value for node in graph.body.nodes for value in node.inputs), *graph.body.results]
        self._uses = Counter(value.name for value in read)
        self._known: dict[str, Value] = {}
        self._cuts: dict[str, Value] = {}
        self._place: Value | None = None
        self.opened: list[Node] = []

    def result(self, value: Value) -> Value:
        """Return a result at the last position, its dimensions in the order that they had."""
        order = tuple(self._last.name if name == self._tokens.name else name for name in value.type.names)
        return self.emit.transpose(self._narrowed(value), order)

    def _narrowed(self, value: Value) -> Value:
        """Return a value at the last position, what is made entry by entry from what it is made of."""
        if not value.type.has(self._tokens.name):
            return value
        if value.name not in self._known:
            self._known[value.name] = self._anew(value)
        return self._known[value.name]

    def _anew(self, value: Value) -> Value:
        node = self._made_by.get(value.name)
        match node.op if node is not None else None:
            case Unary() | Binary() | Where() | Cast():
                operands = self._narrowed
            case Dot(over) if not {self._tokens.name, *self._batch} & {*over}:
                operands = self._cut
            case Call(function) if node is not None and len(node.outputs) == 1 and self._uses[value.name] == 1:
                return self._narrowed(self._open(node, self._functions[function].body))
            case _:
                return self._cut(value)
        assert node is not None
        inputs = [operands(operand) for operand in node.inputs]
        self.emit.at(node.path, node.location)
        return self.emit.one(node.op, *inputs, wish=value.name)

    def _open(self, call: Node, body: Region) -> Value:
        """Return the result of a call whose nodes now stand here."""
        scope = dict(zip((argument.name for argument in body.arguments), call.inputs, strict=True))
        for inner in body.nodes:
            path = ".".join(part for part in (call.path, inner.path) if part)
            node = copy_node(inner, path, scope, self.emit.builder.names)
            self.opened.append(node)
            self._made_by |= {value.name: node for value in node.outputs}
            self._uses.update(value.name for value in node.inputs)
        (result,) = body.results
        self._uses[scope[result.name].name] += 1
        return scope[result.name]

    def _cut(self, value: Value) -> Value:
        if not value.type.has(self._tokens.name):
            return value
        if value.name not in self._cuts:
            self._cuts[value.name] = self._cut_out(value)
        return self._cuts[value.name]

    def _cut_out(self, value: Value) -> Value:
        place = self._last_token()
        node = self._made_by.get(value.name)
        if node is not None:
            self.emit.at(node.path, node.location)
        if place is not None:
            return self.emit.one(Gather(self._tokens.name), value, place, wish=f"{value.name}.{LAST}")
        start = subtract(self._tokens.size, 1)
        return self.emit.one(Slice(self._tokens.name, start, self._last), value, wish=f"{value.name}.{LAST}")

    def _last_token(self) -> Value | None:
        """Return where among the new tokens each sequence has its last one: i64[batch, last=1]; None without a mask."""
        if self._mask is None or self._place is not None:
            return self._place
        everywhere = self._mask.type.dims[-1]
        past: Size = subtract(everywhere.size, self._tokens.size)
        new = self.emit.one(Slice(everywhere.name, past, self._tokens), self._mask, wish="new.tokens")
        places = self.emit.binary("mul", new, self.emit.cast(self.emit.source(Position(self._tokens)), new.type.dtype))
        last = self.emit.one(Reduce("max", (self._tokens.name,)), places)
        zero = self.emit.cast(self.emit.source(Position(self._last)), last.type.dtype)
        self._place = self.emit.one(Binary("add"), last, zero, wish="last.token")
        return self._place
