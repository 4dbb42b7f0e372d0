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

One graph serves both: with no past it is the prefill, with one new token a step of decoding. The axis that grows
stands before the last one. Blocks stay blocks: one that keeps something takes and returns the caches too. A cache
inside a loop is stacked: each turn reads its slice, and the loop collects the new ones. The model has to be causal:
what it makes of a token must not depend on later ones, or what was kept would be out of date. A model that
is not seen to be (`cgc.analysis.causality`) is refused.

With `padded`, sequences of a batch may start late. `attention_mask` [batch, past + seq] is 0 where a token is none, and
`position_ids` [batch, seq] says which position a new token has in its own sequence. A position that is only compared
with those of keys, as a causal mask and ALiBi do, stays the place in the batch; every other one is that of
`position_ids`. A mask that sets scores to minus infinity also hides what is no token (but never a token from itself, so
that no row is empty).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cgc.analysis.causality import lookahead
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, Size, add, symbol
from cgc.ir.graph import Function, Graph, Node, Region, Symbol, Value, walk
from cgc.ir.ops import (
    Binary,
    Call,
    Concat,
    Constant,
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
    Transpose,
    Unary,
    Where,
    opcode,
)
from cgc.ir.types import TensorType
from cgc.passes.inline import inline
from cgc.passes.kv_positions import Role, constants_of, hidden_branch, key_dims, places, pure_values, role
from cgc.passes.parameter_order import in_order

PAST = "past"
POSITIONS = "position_ids"
MASK = "attention_mask"


class NoCache(ValueError):
    """A graph that cannot be decoded step by step; the message says why."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache: the names of its input and output, the value's path in the model, and what attention does with it: a
    `value` is summed over its keys, a `key` is compared with queries. `stacked` counts the loops around it.
    """

    past: str
    present: str
    path: str
    role: Role = ""
    stacked: int = 0


@dataclass(frozen=True, slots=True)
class Cached:
    """A graph with caches: its inputs are those of the model, `attention_mask` and `position_ids` where it is padded,
    and the past ones, its outputs the model's and the present ones, both in the order of `caches`. New tokens are along
    the dimension `tokens`.
    """

    graph: Graph
    caches: tuple[Cache, ...]
    tokens: Dim


def with_kv_cache(graph: Graph, tokens: str = "", padded: bool = False) -> Cached:
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
    return _Pass(graph, tokens, padded).run()


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
    role: Role
    stacked: int = 0


@dataclass(slots=True)
class _Scope:
    """A region being rewritten. `extra` are the inputs of a padded batch that it uses, `places` the positions in it
    that are places in the batch, `pure` what is made of positions and constants only.
    """

    builder: Builder
    values: dict[str, Value]
    extra: dict[str, Value] = field(default_factory=dict)
    found: list[_Found] = field(default_factory=list)
    region: Region | None = None
    places: frozenset[str] = frozenset()
    pure: frozenset[str] = frozenset()
    constants: dict[str, float] = field(default_factory=dict)
    inside: bool = False

    def past_name(self, path: str) -> str:
        """Return what a past wants to be called here: by its path, but in a loop by the end of it."""
        return f"past.{path.rpartition('.')[2] if self.inside else path}"


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """A function for operands of certain types: which extra inputs it takes, and what it keeps."""

    function: Function
    extra: tuple[str, ...]
    found: tuple[_Found, ...]


class _Pass:
    def __init__(self, graph: Graph, tokens: str, padded: bool) -> None:
        self._graph = graph
        self._tokens = tokens
        self._padded = padded
        self._total: Size = add(symbol(PAST), symbol(tokens))
        self._taken = _dimension_names(graph)
        self._past = Dim(self._fresh(PAST), symbol(PAST))
        self._new = Dim(self._fresh("new"), symbol(tokens))
        self._all = Dim(self._fresh("all"), self._total)
        self._functions = {function.name: function for function in graph.functions}
        self._made: dict[tuple[str, tuple[TensorType, ...]], _Rewritten] = {}
        self._function_names = Names()
        self._batch = _batch_dims(graph, tokens) if padded else ()

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
        names = Names()
        for value in graph.body.arguments:
            names.exact(value.name)
        scope = _Scope(Builder(names, self._lookup), {value.name: value for value in graph.body.arguments})
        self._nodes(graph.body, scope)
        if not scope.found:
            raise NoCache(f"nothing is renamed from `{self._tokens}`: there are no keys and values to keep")
        own = self._results(graph.body, scope)
        for name, new, old in zip(graph.outputs, own, graph.body.results, strict=True):
            if {*new.type.names} != {*old.type.names}:
                raise NoCache(f"`{name}` is made of positions only, which differ from sequence to sequence of a batch")
        results = in_order(scope.builder, own, graph.body.results)
        pasts = tuple(found.past for found in scope.found)
        extra = tuple(scope.extra[name] for name in (MASK, POSITIONS) if name in scope.extra)
        arguments = (*graph.inputs, *extra, *pasts, *(param.value for param in graph.params))
        body = scope.builder.finish(arguments, (*results, *(found.present for found in scope.found)))
        limit = next(known.limit for known in graph.symbols if known.name == self._tokens)
        caches = tuple(_cache_of(found) for found in scope.found)
        whole = replace(
            graph,
            symbols=(*graph.symbols, Symbol(PAST, limit)),
            functions=tuple(made.function for made in self._made.values()),
            body=body,
            outputs=(*graph.outputs, *(cache.present for cache in caches)),
        )
        return Cached(whole, caches, Dim(self._tokens, symbol(self._tokens)))

    def _lookup(self, name: str) -> Function:
        for made in self._made.values():
            if made.function.name == name:
                return made.function
        raise KeyError(name)

    # ---- regions

    def _results(self, region: Region, scope: _Scope) -> tuple[Value, ...]:
        return tuple(scope.values[value.name] for value in region.results)

    def _nodes(self, region: Region, scope: _Scope) -> None:
        scope.region = region
        scope.places = places(region, self._tokens)
        scope.pure = frozenset(pure_values(region))
        scope.constants = constants_of(region)
        for node in region.nodes:
            match node.op:
                case Repeat() as op:
                    self._repeat(node, op, scope)
                case Call() as op:
                    self._call(node, op, scope)
                case Rename(names) if any(old == self._tokens for old, _ in names):
                    self._cache(node, names, scope)
                case Position(dim) if dim.size == symbol(self._tokens):
                    self._positions(node, dim, scope)
                case Where() if self._padded and self._is_mask(node, scope):
                    self._masked(node, scope)
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

    def _cache(self, node: Node, names: tuple[tuple[str, str], ...], scope: _Scope) -> None:
        x = scope.values[node.inputs[0].name]
        target = next(new for old, new in names if old == self._tokens)
        builder, path, location = scope.builder, node.path, node.location
        renamed = Rename(tuple((old, self._new.name if old == self._tokens else new) for old, new in names))
        new = builder.one(renamed, x, wish="rename", path=path, location=location)
        others = tuple(dim for dim in new.type.dims if dim.name != self._new.name)
        name = node.path or node.output.name
        past = builder.value(
            scope.past_name(name), TensorType((*others[:-1], self._past, *others[-1:]), new.type.dtype)
        )
        joined = Concat((self._past.name, self._new.name), target)
        present = builder.one(joined, past, new, wish=node.output.name, path=path, location=location)
        scope.values[node.output.name] = present
        assert scope.region is not None
        is_ = role(scope.region, node.output.name, target, self._functions)
        scope.found.append(_Found(name, past, present, is_))

    # ---- positions and masks

    def _extra(self, name: str, scope: _Scope) -> Value:
        """Return an input of a padded batch as this region has it."""
        if name not in scope.extra:
            last = self._all if name == MASK else Dim(self._tokens, symbol(self._tokens))
            wish = name.partition("_")[2] if scope.inside else name
            scope.extra[name] = scope.builder.value(wish, TensorType((*self._batch, last), "i64"))
        return scope.extra[name]

    def _positions(self, node: Node, dim: Dim, scope: _Scope) -> None:
        """Positions of the new tokens start behind the past ones; those of keys begin with the first."""
        own = node.output.name in scope.places or not self._padded
        if dim.name == self._tokens:
            made = self._place(scope, node) if own else self._extra(POSITIONS, scope)
        elif own:
            made = scope.builder.one(
                Position(Dim(dim.name, self._total)), wish=node.output.name, path=node.path, location=node.location
            )
        else:
            made = self._counted(scope, dim.name, node)
        scope.values[node.output.name] = made

    def _place(self, scope: _Scope, node: Node) -> Value:
        builder, path, location = scope.builder, node.path, node.location
        every = builder.one(Position(self._all), wish="position", path=path, location=location)
        own = Slice(self._all.name, symbol(PAST), Dim(self._tokens, symbol(self._tokens)))
        return builder.one(own, every, wish=node.outputs[0].name, path=path, location=location)

    def _counted(self, scope: _Scope, key: str, node: Node) -> Value:
        """Positions of all tokens, each in its own sequence: how many tokens the mask has before it."""
        builder, path, location = scope.builder, node.path, node.location
        mask = builder.one(Rename(((self._all.name, key),)), self._extra(MASK, scope), path=path, location=location)
        count = builder.one(Scan(key), mask, path=path, location=location)
        one = builder.one(Constant(1, "i64"), path=path, location=location)
        none = builder.one(Constant(0, "i64"), path=path, location=location)
        before = builder.one(Binary("sub"), count, one, path=path, location=location)
        return builder.one(Binary("max"), before, none, wish=node.output.name, path=path, location=location)

    def _is_mask(self, node: Node, scope: _Scope) -> bool:
        """Tell whether a `where` hides scores by comparing positions of tokens and keys."""
        condition = node.inputs[0]
        compares = condition.type.has(self._tokens) and len(key_dims(condition, self._tokens)) == 1
        return condition.name in scope.pure and compares and hidden_branch(node, scope.constants) is not None

    def _masked(self, node: Node, scope: _Scope) -> None:
        """Hide what is no token too, except from itself."""
        builder, path, location = scope.builder, node.path, node.location

        def one(op: Op, *inputs: Value, wish: str = "") -> Value:
            return builder.one(op, *inputs, wish=wish, path=path, location=location)

        (key,) = key_dims(node.inputs[0], self._tokens)
        mask = one(Rename(((self._all.name, key),)), self._extra(MASK, scope), wish="mask")
        real = one(Binary("ne"), mask, one(Constant(0, "i64")), wish="real")
        itself = one(Binary("eq"), one(Position(Dim(key, self._total))), self._place(scope, node), wish="itself")
        shown = one(Binary("or"), real, itself, wish="shown")
        condition = scope.values[node.inputs[0].name]
        if hidden_branch(node, scope.constants) == 2:
            condition = one(Binary("and"), condition, shown)
        else:
            condition = one(Binary("or"), condition, one(Unary("not"), shown))
        operands = (condition, *(scope.values[value.name] for value in node.inputs[1:]))
        scope.values[node.output.name] = one(node.op, *operands, wish=node.output.name)

    # ---- loops and blocks

    def _repeat(self, node: Node, op: Repeat, scope: _Scope) -> None:
        """Rewrite a loop: a cache in its body is one more stacked operand, and one more collected result."""
        inner = _Scope(scope.builder.region(), {}, inside=True)
        inputs = tuple(scope.values[value.name] for value in node.inputs)
        loose = op.carried + op.shared
        arguments: list[Value] = []
        for place, (argument, given) in enumerate(zip(op.body.arguments, inputs, strict=True)):
            type_ = given.type if place < loose else given.type.with_dims(given.type.dims[1:])
            value = scope.builder.value(argument.name, type_)
            inner.values[argument.name] = value
            arguments.append(value)
        self._nodes(op.body, inner)
        results = self._results(op.body, inner)
        for value, argument in zip(results, arguments[: op.carried], strict=False):
            if {*value.type.names} != {*argument.type.names}:
                what = f"`{node.path}` carries positions, which differ from sequence to sequence of a batch"
                raise NoCache(f"{what}, in a value that had none before its first turn")
        carried = in_order(inner.builder, results[: op.carried], tuple(arguments[: op.carried]))
        pasts = [found.past for found in inner.found]
        extra = list(inner.extra)
        body = inner.builder.finish(
            (*arguments[:loose], *(inner.extra[name] for name in extra), *arguments[loose:], *pasts),
            (*carried, *results[op.carried :], *(found.present for found in inner.found)),
        )
        loop = replace(op, body=body, shared=op.shared + len(extra), collected=op.collected + len(inner.found))
        stacked = [
            scope.builder.value(
                scope.past_name(found.path), TensorType((op.stack, *found.past.type.dims), found.past.type.dtype)
            )
            for found in inner.found
        ]
        passed = (*inputs[:loose], *(self._extra(name, scope) for name in extra), *inputs[loose:], *stacked)
        wish = node.outputs[0].name
        outputs = scope.builder.add(loop, *passed, wish=wish, path=node.path, location=node.location)
        scope.values.update({old.name: new for old, new in zip(node.outputs, outputs, strict=False)})
        for found, past, present in zip(inner.found, stacked, outputs[len(node.outputs) :], strict=True):
            scope.found.append(_Found(found.path, past, present, found.role, found.stacked + 1))

    def _call(self, node: Node, op: Call, scope: _Scope) -> None:
        """Call the block as it is for these operands; what it keeps goes in and out."""
        inputs = tuple(scope.values[value.name] for value in node.inputs)
        made = self._specialized(op.function, inputs, op.args)
        given = [
            scope.builder.value(scope.past_name(_joined(node.path, found.path)), found.past.type)
            for found in made.found
        ]
        extra = [self._extra(name, scope) for name in made.extra]
        operands = (*inputs[: op.args], *extra, *given, *inputs[op.args :])
        call = replace(op, function=made.function.name, args=op.args + len(extra) + len(given))
        wish = node.outputs[0].name
        outputs = scope.builder.add(call, *operands, wish=wish, path=node.path, location=node.location)
        scope.values.update({old.name: new for old, new in zip(node.outputs, outputs, strict=False)})
        for found, past, present in zip(made.found, given, outputs[len(node.outputs) :], strict=True):
            path = _joined(node.path, found.path)
            scope.found.append(_Found(path, past, present, found.role, found.stacked))

    def _specialized(self, name: str, inputs: tuple[Value, ...], args: int) -> _Rewritten:
        types = tuple(value.type for value in inputs)
        if (name, types) not in self._made:
            self._made[name, types] = self._rewritten(self._functions[name], types, args)
        return self._made[name, types]

    def _rewritten(self, function: Function, types: tuple[TensorType, ...], args: int) -> _Rewritten:
        names = Names()
        arguments = tuple(
            Value(names.exact(argument.name), replace(type_, indexes=argument.type.indexes))
            for argument, type_ in zip(function.body.arguments, types, strict=True)
        )
        values = {old.name: new for old, new in zip(function.body.arguments, arguments, strict=True)}
        scope = _Scope(Builder(names, self._lookup), values)
        self._nodes(function.body, scope)
        results = tuple(
            _with_batch_first(scope.builder, value, old.type)
            for value, old in zip(self._results(function.body, scope), function.body.results, strict=True)
        )
        extra = tuple(scope.extra)
        inputs = (
            *arguments[:args],
            *(scope.extra[name] for name in extra),
            *(found.past for found in scope.found),
            *arguments[args:],
        )
        body = scope.builder.finish(inputs, (*results, *(found.present for found in scope.found)))
        params = tuple(
            replace(param, value=value) for param, value in zip(function.params, arguments[args:], strict=True)
        )
        made = replace(function, name=self._function_names.fresh(function.name), params=params, body=body)
        return _Rewritten(made, extra, tuple(scope.found))


def _with_batch_first(builder: Builder, value: Value, like: TensorType) -> Value:
    """Return a block's result with its dimensions in the order that they had. What is made of positions has those of
    the batch besides.
    """
    order = (*(name for name in value.type.names if not like.has(name)), *like.names)
    return value if value.type.names == order else builder.one(Transpose(order), value, wish=value.name)


def _joined(path: str, rest: str) -> str:
    return f"{path}.{rest}" if path else rest


def _cache_of(found: _Found) -> Cache:
    present = f"present.{found.past.name.removeprefix('past.')}"
    return Cache(found.past.name, present, found.path, found.role, found.stacked)


def _batch_dims(graph: Graph, tokens: str) -> tuple[Dim, ...]:
    """Return the dimensions of free size that the model's tokens have beside their own."""
    for value in graph.inputs:
        if value.type.has(tokens):
            return tuple(dim for dim in value.type.dims if not isinstance(dim.size, int) and dim.name != tokens)
    return ()


def _dimension_names(graph: Graph) -> set[str]:
    regions = (graph.body, *(function.body for function in graph.functions))
    names: set[str] = set()
    for region in regions:
        for node in walk(region):
            for value in (*node.inputs, *node.outputs):
                names |= set(value.type.names)
        names |= {dim.name for value in region.arguments for dim in value.type.dims}
    return names
