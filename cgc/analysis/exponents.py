"""The static coordinate check's arithmetic: with which power of the growing size every value grows.

Every value has three exponents a, meaning that a typical coordinate is Θ(n^a) as the sizes that grow go with n: at
initialization, after training steps, and the change between the two. A contraction over n entries adds 1/2 where its
operands are independent (a fresh random weight: a central limit) and 1 where they are correlated (a weight's update
with the activations it was made from; two trained activations: a law of large numbers). Adam's update of a weight has
coordinates of the size of its learning rate. Sources: Yang and Hu 2021, arXiv 2011.14522; Yang et al. 2022, arXiv
2203.03466; for depth Dey et al. 2025, arXiv 2505.01618.

Sizes are compared between two inlined copies of one model, node by node; loops are walked once or twice, however long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, assert_never

from cgc.analysis.growth import (
    FIXED,
    NOTHING,
    STEADY,
    ZERO,
    Scale,
    add,
    bounded,
    exponent,
    multiply,
    raised,
    scale,
    summed,
)
from cgc.ir.graph import Graph, Node, Region, Value
from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)

FactKind: TypeAlias = Literal["product", "lookup", "elementwise", "scores", "branch"]


@dataclass(slots=True)
class Fact:
    """What the check asks of one place: `own` is by how much the update of `params` alone moves the value there.

    `depth` is the exponent of the number of turns of the loops around, `writes` tells whether the value goes into a
    residual stream, `said` is what numbers in the model's text contribute, before and after, the last one at `said_at`.
    `last` is the node that is scaled last (-1: the one at `index`).
    """

    kind: FactKind
    index: int
    operand: int
    params: tuple[str, ...]
    scale: Scale
    own: float
    feeds: bool
    depth: float = 0.0
    writes: bool = False
    said: float = 0.0
    last: int = -1
    said_at: int | None = None


@dataclass(frozen=True, slots=True)
class ParamScale:
    """Exponents of a parameter: initial coordinates, learning rate; `random` unless it starts constant."""

    init: float
    rate: float
    random: bool


@dataclass(frozen=True, slots=True)
class _State:
    """A value: its exponents, which parameters it is a view of, its place among the facts while only numbers scale it,
    the carried value it is a sum with, what was added to that, and what numbers in the model's text contribute to it.
    """

    scale: Scale
    params: tuple[str, ...] = ()
    random: bool = False
    fact: Fact | None = None
    number: float | None = None
    stream: str = ""
    added: Scale = NOTHING
    said: float = 0.0
    said_at: int | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """Two inlined copies of a model, by how much the second one is larger, and how everything given changes with it.

    `factors` are exponents of forward multipliers by place, `feeding` the places whose results a contraction reads,
    `writers` those of products that are added to a residual stream, `branches` where that happens. `gates` are places
    of products that are linear in fresh random weights behind one operand, with that operand. `chosen` are places of
    lookups that choose weights. `lazy` tells that the update of a layer may vanish, where only all layers together
    learn.
    """

    own: Graph
    grown: Graph
    ratio: float
    params: Mapping[str, ParamScale]
    factors: Mapping[tuple[int, int | None], float]
    feeding: frozenset[int]
    writers: frozenset[int]
    branches: Mapping[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    gates: Mapping[int, int] = field(default_factory=dict)
    chosen: frozenset[int] = frozenset()
    lazy: bool = False


def coordinate_exponents(growth: Growth, local: bool = True) -> list[Fact]:
    """Return the exponents at every use of a parameter, every product of activations, every branch, in order.

    With `local`, what lies behind a fault is looked at as if the fault were mended; without, as it is.
    """
    return _Walk(growth, local).run()


class _Walk:
    def __init__(self, growth: Growth, local: bool) -> None:
        self._growth = growth
        self._local = local
        self._states: dict[str, _State] = {}
        self._facts: list[Fact] = []
        self._index = 0
        self._deep = 0.0

    def run(self) -> list[Fact]:
        """Walk the whole graph."""
        own, grown = self._growth.own, self._growth.grown
        for value in own.inputs:
            self._states[value.name] = _State(FIXED)
        for param in own.params:
            known = self._growth.params[param.name]
            start = scale(known.init, max(known.init, known.rate), known.rate)
            self._states[param.name] = _State(start, (param.name,), known.random)
        self._region(own.body, grown.body)
        return self._facts

    def _grow(self, value: Value, twin: Value, names: Sequence[str]) -> float:
        """Return the exponent of the number of entries of some dimensions."""
        total = 0.0
        for dim, larger in zip(value.type.dims, twin.type.dims, strict=True):
            if dim.name in names and isinstance(dim.size, int) and isinstance(larger.size, int):
                total += exponent(dim.size, larger.size, self._growth.ratio)
        return total

    def _region(self, own: Region, grown: Region) -> None:
        for node, twin in zip(own.nodes, grown.nodes, strict=True):
            index, self._index = self._index, self._index + 1
            if isinstance(node.op, Repeat) and isinstance(twin.op, Repeat):
                self._repeat(node, node.op, twin.op)
                continue
            state = self._made(index, node, twin)
            factor = self._growth.factors.get((index, None))
            if factor is not None:
                state = _scaled(state, factor)
            for value in node.outputs:
                self._states[value.name] = state

    def _settled(self, state: _State) -> _State:
        return _settled(state, self._local, self._growth.lazy)

    # ---- loops

    def _repeat(self, node: Node, op: Repeat, twin: Repeat) -> None:
        """Walk the body until the carried values stay as they are; a sum with a carried value adds up over the loop."""
        sizes = (op.stack.size, twin.stack.size)
        longer = exponent(*sizes, self._growth.ratio) if all(isinstance(size, int) for size in sizes) else 0.0  # type: ignore[arg-type]
        around, self._deep = self._deep, self._deep + longer
        start, known = self._index, len(self._facts)
        carried = [self._settled(self._states[value.name]).scale for value in node.inputs[: op.carried]]
        for _ in range(4):
            del self._facts[known:]
            self._index = start
            for at, (argument, given) in enumerate(zip(op.body.arguments, node.inputs, strict=True)):
                outer = self._states[given.name]
                self._states[argument.name] = _State(carried[at], stream=argument.name) if at < op.carried else outer
            self._region(op.body, twin.body)
            results = [self._result(op, at, longer) for at in range(op.carried)]
            joined = [add(before, after) for before, after in zip(carried, results, strict=True)]
            if joined == carried:
                break
            carried = joined
        self._deep = around
        for value, carried_scale in zip(node.outputs[: op.carried], carried, strict=True):
            self._states[value.name] = _State(carried_scale)
        for value, inside in zip(node.outputs[op.carried :], op.body.results[op.carried :], strict=True):
            self._states[value.name] = self._settled(self._states[inside.name])

    def _result(self, op: Repeat, at: int, longer: float) -> Scale:
        state = self._settled(self._states[op.body.results[at].name])
        if state.stream != op.body.arguments[at].name or state.added == NOTHING:
            return state.scale
        init, change = summed(state.added, longer)
        return scale(init, max(init, change), change)

    # ---- one node

    def _read(self, index: int, node: Node, at: int) -> _State:
        """Return an operand with what scales it here."""
        state = self._states[node.inputs[at].name]
        factor = self._growth.factors.get((index, at))
        if factor is None:
            return state
        state = self._settled(state)
        return replace(state, scale=state.scale.shifted(factor))

    def _made(self, index: int, node: Node, twin: Node) -> _State:
        operands = [self._read(index, node, at) for at in range(len(node.inputs))]
        match node.op:
            case Constant() | Position():
                return self._source(node, twin)
            case Binary():
                return self._binary(index, node, operands)
            case Unary(kind):
                return self._unary(kind, operands[0])
            case Where():
                return _State(add(self._settled(operands[1]).scale, self._settled(operands[2]).scale))
            case Dot():
                return self._dot(index, node, twin, operands)
            case Gather():
                return self._lookup(index, operands[0])
            case Reduce() | Scan():
                over = (node.op.over,) if isinstance(node.op, Scan) else node.op.over
                sums = isinstance(node.op, Scan) or node.op.kind == "sum"
                grown = self._grow(node.inputs[0], twin.inputs[0], over) if sums else 0.0
                state = self._settled(operands[0])
                return replace(state, scale=state.scale.shifted(grown), stream="", number=None)
            case Rename() | Transpose() | Cast() | Split() | Merge() | Slice() | TopK():
                return operands[0]
            case Scatter(over=over):
                state = self._settled(operands[0])
                return _State(state.scale.shifted(self._grow(node.inputs[0], twin.inputs[0], over)))
            case Concat():
                return self._concat([self._settled(operand) for operand in operands])
            case Call() | Repeat():
                raise AssertionError("inlined, and handled before")
            case op:
                assert_never(op)

    def _source(self, node: Node, twin: Node) -> _State:
        if isinstance(node.op, Constant) and isinstance(twin.op, Constant):
            value = float(node.op.value)
            power = exponent(value, float(twin.op.value), self._growth.ratio)
            return _State(scale(power, power, ZERO), number=value)
        return _State(FIXED.shifted(self._grow(node.output, twin.output, node.output.type.names)))

    def _concat(self, operands: Sequence[_State]) -> _State:
        largest = NOTHING
        for operand in operands:
            largest = add(largest, operand.scale)
        params = tuple(dict.fromkeys(name for operand in operands for name in operand.params))
        return _State(largest, params, any(operand.random for operand in operands))

    def _unary(self, kind: str, operand: _State) -> _State:
        if kind == "neg":
            return operand
        state = self._settled(operand)
        x = state.scale
        match kind:
            case "abs" | "floor":
                pass
            case "sqrt":
                x = raised(x, 0.5)
            case "rsqrt":
                x = raised(x, -0.5)
            case "tanh" | "erf" | "sin":
                x = bounded(x, odd=True)
            case "log":
                x = scale(0.0, 0.0, min(x.change - x.after, 0.0) if x.after > ZERO else ZERO)
            case _:
                x = bounded(x, odd=False)
        return _State(x, state.params, state.random)

    def _binary(self, index: int, node: Node, operands: list[_State]) -> _State:
        assert isinstance(node.op, Binary)
        kind = node.op.kind
        for at, state in enumerate(operands):
            other = operands[1 - at]
            if other.number is not None and (kind == "mul" or (kind == "div" and at == 0)):
                power = other.scale.init if kind == "mul" else -other.scale.init
                if state.fact is not None:
                    state.fact.said += power
                    state.fact.last = index
                    state.fact.said_at = index if power else state.fact.said_at
                said_at = index if power else state.said_at
                state = replace(_scaled(state, power), said=state.said + power, said_at=said_at)
                return replace(state, stream="", added=NOTHING)
        a, b = self._elementwise(index, operands, kind)
        match kind:
            case "add" | "sub":
                return _like(self._sum(index, a, b), _larger(a, b))
            case "max" | "min":
                return _like(_State(add(a.scale, b.scale)), _larger(a, b))
            case "mul":
                return _like(_State(multiply(a.scale, b.scale, self._growth.gates.get(index))), a, b)
            case "div":
                made = multiply(a.scale, raised(b.scale, -1.0), self._growth.gates.get(index))
                return _like(_State(made), a, replace(b, said=-b.said))
            case "pow":
                return _State(raised(a.scale, b.number) if b.number is not None else FIXED)
            case _:
                return _State(FIXED)

    def _sum(self, index: int, a: _State, b: _State) -> _State:
        branch = self._growth.branches.get(index)
        if branch is not None:
            at, params = branch
            added = (a, b)[at]
            fact = Fact("branch", index, at, params, added.scale, added.scale.aligned, True, self._deep)
            fact.said, fact.said_at = added.said, added.said_at
            self._facts.append(fact)
        total = add(a.scale, b.scale)
        for state, other in ((a, b), (b, a)):
            if state.stream and not other.stream:
                return _State(total, stream=state.stream, added=add(state.added, other.scale))
        number = a.number + b.number if a.number is not None and b.number is not None else None
        return _State(total, number=number)

    def _elementwise(self, index: int, operands: Sequence[_State], kind: str) -> list[_State]:
        """Return the operands as what follows sees them; what is asked of parameters among them becomes facts."""
        seen = [self._settled(state) for state in operands]
        for at, state in enumerate(operands):
            other = operands[1 - at]
            if not state.params or other.params or other.number is not None:
                continue
            own = state.scale.change
            if kind in ("mul", "div"):
                own += seen[1 - at].scale.after
            feeds = index in self._growth.feeding
            fact = Fact("elementwise", index, at, state.params, state.scale, own, feeds, self._deep)
            fact.said, fact.said_at = state.said, state.said_at
            self._facts.append(fact)
            if self._local and "update grows" in faults(fact):
                seen[at] = replace(seen[at], scale=replace(STEADY, init=min(state.scale.init, 0.0)))
        return seen

    def _lookup(self, index: int, table: _State) -> _State:
        if not table.params:
            return replace(self._settled(table), stream="")
        if index in self._growth.chosen:
            return table
        feeds = index in self._growth.feeding
        fact = Fact("lookup", index, 0, table.params, table.scale, table.scale.change, feeds, self._deep)
        self._facts.append(fact)
        return _State(table.scale, fact=fact)

    def _dot(self, index: int, node: Node, twin: Node, operands: list[_State]) -> _State:
        assert isinstance(node.op, Dot)
        grown = self._grow(node.inputs[0], twin.inputs[0], node.op.over)
        feeds = index in self._growth.feeding
        held = next((at for at, state in enumerate(operands) if state.params), None)
        if held is None:
            both = [self._settled(state) for state in operands]
            a, b = (state.scale for state in both)
            same = node.inputs[0] == node.inputs[1]
            init = a.init + b.init + (grown if same else grown / 2)
            moved = multiply(a, b, self._growth.gates.get(index)).shifted(grown)
            made = Scale(init, max(init, moved.change), moved.change, moved.aligned)
            if same:
                return _State(made)
            fact = Fact("scores", index, 0, (), made, moved.change, feeds, self._deep)
            fact.said, fact.said_at = _said(*both)
        else:
            weight, read = operands[held], self._settled(operands[1 - held])
            x = read.scale
            half = grown / 2 if weight.random else grown
            init = x.init + weight.scale.init + half
            own = x.after + weight.scale.change + grown
            # What moves x is made of an output's few rows, and lies along them: a sum of many is not.
            rows = [name for name in node.inputs[held].type.names if name not in node.op.over]
            along = not feeds and self._grow(node.inputs[held], twin.inputs[held], rows) <= 0
            passed = x.change + weight.scale.init + (grown if along else half)
            change = max(own, passed)
            made = Scale(init, max(init, change), change, own)
            writes = index in self._growth.writers
            fact = Fact("product", index, held, weight.params, made, own, feeds, self._deep, writes)
            fact.said, fact.said_at = _said(weight, read)
        self._facts.append(fact)
        return _State(made, fact=fact)


def _scaled(state: _State, power: float) -> _State:
    """Return a value times Θ(n^power); what the check asks of it moves with it."""
    if state.fact is not None:
        state.fact.scale = state.fact.scale.shifted(power)
        state.fact.own += power
    return replace(state, scale=state.scale.shifted(power))


def _settled(state: _State, local: bool, lazy: bool) -> _State:
    """Return a value as what reads it sees it: a fault is reported where it arises, and not again downstream."""
    if state.fact is None:
        return state
    if local and faults(state.fact, lazy):
        return replace(state, scale=STEADY, fact=None, said=0.0, said_at=None)
    return replace(state, fact=None)


def _said(*states: _State) -> tuple[float, int | None]:
    """Return what numbers in the model's text contribute to a product, and where the last of them stands."""
    places = [state.said_at for state in states if state.said_at is not None]
    return sum(state.said for state in states), max(places, default=None)


def _like(made: _State, *states: _State) -> _State:
    """Return a value made of others, with what numbers in the model's text contribute to these."""
    said, said_at = _said(*states)
    return replace(made, said=said, said_at=said_at)


def _larger(a: _State, b: _State) -> _State:
    return a if (a.scale.after, a.scale.init) >= (b.scale.after, b.scale.init) else b


def faults(fact: Fact, lazy: bool = False) -> tuple[str, ...]:
    """Return what is wrong at a place: `init` or `update`, each with `grows` or `vanishes`.

    Initial activations are Θ(1), or zero; scores and what no contraction reads (logits) may be smaller. An update moves
    the value at its place by exactly Θ(1) (by no more, with `lazy`), and everything together moves it by no more than
    that, unless it is too large from the start.
    """
    found: list[str] = []
    small = fact.kind in ("scores", "branch") or not fact.feeds
    summed_later = fact.kind == "branch" or (fact.writes and fact.depth > 0)
    init, change, own = fact.scale.init, fact.scale.change, fact.own
    if fact.kind == "branch":
        init, change = summed(fact.scale, fact.depth)
        own += fact.depth
    if fact.kind != "elementwise":
        if init > 0:
            found.append("init grows")
        elif ZERO < init < 0 and not small and not summed_later:
            found.append("init vanishes")
    if own > 0 or (fact.kind != "elementwise" and change > 0 and init <= 0):
        found.append("update grows")
    elif ZERO < own < 0 and not summed_later and not lazy:
        found.append("update vanishes")
    return tuple(found)
