"""Decoding with a KV cache: keys and values of earlier positions come in, those of all positions go out.

A value renamed from the dimension of the tokens to an axis of its own (`as [seq -> key]`) is what a cache holds.

Before:

    %k_2 : f32[batch, key=seq, width=8] = rename %k {"names": [["seq", "key"]]}
    %position : i64[seq] of seq = position {"dim": {"dim": "seq"}}
    output logits = %logits

After, with `seq` new tokens behind `past` known ones:

    input %past.k : f32[batch, past, width=8]
    %rename : f32[batch, new=seq, width=8] = rename %k {"names": [["seq", "new"]]}
    %k_2 : f32[batch, key=past+seq, width=8] = concat %past.k, %rename {"dims": ["past", "new"], "into": "key"}
    %position : i64[all=past+seq] of all=past+seq = position {"dim": {"dim": "all=past+seq"}}
    %position_2 : i64[seq] of all=past+seq = slice %position {"dim": "all", "start": "past", "into": {"dim": "seq"}}
    output logits = %logits
    output present.k = %k_2

One graph serves both: with no past it is the prefill, with one new token a step of decoding. A cache inside a loop
is stacked: each turn reads its slice, and the loop collects the new ones. Functions are inlined. The model has to be
causal: what it makes of a token must not depend on later ones, or what was kept would be out of date. A model that is
not seen to be (`cgc.analysis.causality`) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cgc.analysis.causality import lookahead
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, Size, add, symbol
from cgc.ir.graph import Graph, Node, Region, Symbol, Value, walk
from cgc.ir.ops import (
    Concat,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Slice,
    Split,
    TopK,
    opcode,
)
from cgc.ir.types import TensorType
from cgc.passes.inline import inline

PAST = "past"


class NoCache(ValueError):
    """A graph that cannot be decoded step by step; the message says why."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache: the names of its input and output, and the value's path in the model."""

    past: str
    present: str
    path: str


@dataclass(frozen=True, slots=True)
class Cached:
    """A graph with caches: its inputs are those of the model and the past ones, its outputs the model's and the present
    ones, both in the order of `caches`.
    """

    graph: Graph
    caches: tuple[Cache, ...]


def with_kv_cache(graph: Graph, tokens: str = "") -> Cached:
    """Return `graph` for decoding along the symbol `tokens`; by default the one dimension that keys are renamed from.

    Raises:
        NoCache: no value is renamed from that dimension, or one depends on it in a way that a cache cannot serve, or
            what the model makes of a token is not seen to be independent of later ones.
    """
    whole = inline(graph)
    tokens = tokens or tokens_of(whole)
    if tokens not in {known.name for known in graph.symbols}:
        raise NoCache(f"the model has no dimension `{tokens}` that is free until it runs")
    found = lookahead(whole, tokens)
    if found is not None:
        raise NoCache(found)
    return _Pass(whole, tokens).run()


def tokens_of(graph: Graph) -> str:
    """Return the free dimension that something is renamed from, `seq` where that is one of several or there is none."""
    free = {known.name for known in graph.symbols}
    found: set[str] = set()
    for node in walk(graph.body):
        if isinstance(node.op, Rename):
            renamed = {old for old, _ in node.op.names}
            found |= {dim.name for dim in node.inputs[0].type.dims if dim.name in renamed and str(dim.size) == dim.name}
    found &= free
    return found.pop() if len(found) == 1 else "seq"


@dataclass(slots=True)
class _Found:
    """A cache met while rewriting a region: what comes in and what goes out, as the region knows them."""

    path: str
    past: Value
    present: Value


@dataclass(slots=True)
class _Scope:
    """A region being rewritten."""

    builder: Builder
    values: dict[str, Value]
    found: list[_Found] = field(default_factory=list)


class _Pass:
    def __init__(self, graph: Graph, tokens: str) -> None:
        self._graph = graph
        self._tokens = tokens
        self._total: Size = add(symbol(PAST), symbol(tokens))
        self._taken = _dimension_names(graph)
        self._past = Dim(self._fresh(PAST), symbol(PAST))
        self._new = Dim(self._fresh("new"), symbol(tokens))
        self._all = Dim(self._fresh("all"), self._total)
        self._names = Names()
        self._inside = 0

    def _fresh(self, wish: str) -> str:
        while wish in self._taken:
            wish += "'"
        self._taken.add(wish)
        return wish

    def run(self) -> Cached:
        """Rewrite the whole graph."""
        graph = self._graph
        if PAST in {known.name for known in graph.symbols}:
            raise NoCache(f"the model has a free dimension `{PAST}` of its own")
        self._names.reserve({value.name for value in graph.body.arguments})
        scope = _Scope(Builder(self._names, graph.function), {value.name: value for value in graph.body.arguments})
        self._nodes(graph.body, scope)
        if not scope.found:
            raise NoCache(f"nothing is renamed from `{self._tokens}`: there are no keys and values to keep")
        results = tuple(scope.values[value.name] for value in graph.body.results)
        pasts = tuple(found.past for found in scope.found)
        arguments = (*graph.inputs, *pasts, *(param.value for param in graph.params))
        body = scope.builder.finish(arguments, (*results, *(found.present for found in scope.found)))
        limit = next(known.limit for known in graph.symbols if known.name == self._tokens)
        caches = tuple(_cache_of(found) for found in scope.found)
        whole = replace(
            graph,
            symbols=(*graph.symbols, Symbol(PAST, limit)),
            body=body,
            outputs=(*graph.outputs, *(cache.present for cache in caches)),
        )
        return Cached(whole, caches)

    # ---- regions

    def _nodes(self, region: Region, scope: _Scope) -> None:
        for node in region.nodes:
            match node.op:
                case Repeat() as op:
                    self._repeat(node, op, scope)
                case Rename(names) if any(old == self._tokens for old, _ in names):
                    self._cache(node, names, scope)
                case Position(dim) if dim.name != self._tokens and dim.size == symbol(self._tokens):
                    self._add(node, Position(Dim(dim.name, self._total)), scope)
                case Position(dim) if dim.name == self._tokens:
                    self._positions(node, scope)
                case _:
                    self._check(node)
                    self._add(node, node.op, scope)

    def _check(self, node: Node) -> None:
        """Refuse what looks along the tokens: it would see the new ones only."""
        match node.op:
            case Dot(over) | Reduce(over=over):
                along = self._tokens in over and any(value.type.has(self._tokens) for value in node.inputs)
            case Scan(over) | Slice(dim=over) | Split(dim=over) | TopK(dim=over) | Gather(dim=over):
                along = over == self._tokens
            case Merge(dims=over) | Concat(dims=over):
                along = self._tokens in over
            case _:
                along = False
        if along:
            what = f"`{node.path}`" if node.path else f"a {opcode(node.op)}"
            raise NoCache(f"{what} works along `{self._tokens}`; only what is renamed from it can be kept")

    def _add(self, node: Node, op: Op, scope: _Scope) -> None:
        inputs = tuple(scope.values[value.name] for value in node.inputs)
        wish = node.outputs[0].name
        outputs = scope.builder.add(op, *inputs, wish=wish, path=node.path, location=node.location)
        scope.values.update({old.name: new for old, new in zip(node.outputs, outputs, strict=True)})

    def _positions(self, node: Node, scope: _Scope) -> None:
        """Positions of the new tokens start behind the past ones."""
        builder, path, location = scope.builder, node.path, node.location
        every = builder.one(Position(self._all), wish="position", path=path, location=location)
        own = Slice(self._all.name, symbol(PAST), Dim(self._tokens, symbol(self._tokens)))
        made = builder.one(own, every, wish=node.output.name, path=path, location=location)
        scope.values[node.output.name] = made

    def _cache(self, node: Node, names: tuple[tuple[str, str], ...], scope: _Scope) -> None:
        x = scope.values[node.inputs[0].name]
        target = next(new for old, new in names if old == self._tokens)
        others = tuple(pair for pair in names if pair[0] != self._tokens)
        builder, path, location = scope.builder, node.path, node.location
        renamed = Rename(((self._tokens, self._new.name), *others))
        new = builder.one(renamed, x, wish="rename", path=path, location=location)
        dims = tuple(self._past if dim.name == self._new.name else dim for dim in new.type.dims)
        name = node.path or node.output.name
        wish = "past" if self._inside else f"past.{name}"
        past = builder.value(wish, TensorType(dims, new.type.dtype))
        joined = Concat((self._past.name, self._new.name), target)
        present = builder.one(joined, past, new, wish=node.output.name, path=path, location=location)
        scope.values[node.output.name] = present
        scope.found.append(_Found(name, past, present))

    def _repeat(self, node: Node, op: Repeat, scope: _Scope) -> None:
        """Rewrite a loop: a cache in its body is one more stacked operand, and one more collected result."""
        inner = _Scope(scope.builder.region(), {})
        arguments: list[Value] = []
        for argument, given in zip(op.body.arguments, self._slices(node, op, scope), strict=True):
            value = scope.builder.value(argument.name, given)
            inner.values[argument.name] = value
            arguments.append(value)
        self._inside += 1
        self._nodes(op.body, inner)
        self._inside -= 1
        results = [inner.values[value.name] for value in op.body.results]
        pasts = [found.past for found in inner.found]
        body = inner.builder.finish((*arguments, *pasts), (*results, *(found.present for found in inner.found)))
        loop = replace(op, body=body, collected=op.collected + len(inner.found))
        stacked = [
            scope.builder.value(
                "past" if self._inside else f"past.{found.path}",
                TensorType((op.stack, *found.past.type.dims), found.past.type.dtype),
            )
            for found in inner.found
        ]
        inputs = (*(scope.values[value.name] for value in node.inputs), *stacked)
        wish = node.outputs[0].name
        outputs = scope.builder.add(loop, *inputs, wish=wish, path=node.path, location=node.location)
        scope.values.update({old.name: new for old, new in zip(node.outputs, outputs, strict=False)})
        for found, past, present in zip(inner.found, stacked, outputs[len(node.outputs) :], strict=True):
            scope.found.append(_Found(found.path, past, present))

    def _slices(self, node: Node, op: Repeat, scope: _Scope) -> list[TensorType]:
        """Return the types that a body's arguments have now."""
        types: list[TensorType] = []
        for at, value in enumerate(node.inputs):
            type_ = scope.values[value.name].type
            types.append(type_ if at < op.carried + op.shared else type_.with_dims(type_.dims[1:]))
        return types


def _cache_of(found: _Found) -> Cache:
    return Cache(found.past.name, f"present.{found.past.name.removeprefix('past.')}", found.path)


def _dimension_names(graph: Graph) -> set[str]:
    names: set[str] = set()
    for node in walk(graph.body):
        for value in (*node.inputs, *node.outputs):
            names |= set(value.type.names)
    return names | {dim.name for value in graph.body.arguments for dim in value.type.dims}
