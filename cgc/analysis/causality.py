"""Whether what a model makes of a token depends on tokens after it.

Tokens stand along one dimension, say `seq`. Where a model lets them see each other, it renames them to an axis of its
own (`as [seq -> key]`), so that a value over both has an entry for every pair. Those with `key` > `seq`, the future,
must not matter: a sum over `key` wants zeros there, a maximum wants -infinity. `where(position(key) <= position(seq),
scores, -infinity)` puts them there, and arithmetic on positions or on masks is followed to see it.

A mask of -10,000 or less counts as -infinity, as it does in practice: its exponential is zero beside that of a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import assert_never

from cgc.analysis.positions import (
    Form,
    Forms,
    binary_forms,
    both,
    bounds,
    known_sign,
    negated,
    several,
    sums,
    unary_forms,
)
from cgc.ir.dims import symbol
from cgc.ir.graph import Graph, Node, Region
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
    ReduceKind,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    UnaryKind,
    Where,
    opcode,
)
from cgc.ir.types import TensorType

LARGE = 1e4
"""A number as large as this, or one less than its negative, counts as infinite."""
INFINITE = Fraction(10) ** 300
"""What stands for infinity in a form."""


@dataclass(frozen=True, slots=True)
class _Fact:
    """What is known of a value: linear forms in positions, of which each entry is one, and its entries in the future.

    `future` has them by key axis, where they are all one number (a bool is 0 or 1).
    """

    forms: Forms | None = None
    future: dict[str, float] = field(default_factory=dict)

    def at(self, axis: str) -> float | None:
        """Return the number that stands in the future along an axis, if there is one."""
        if self.constant:
            assert self.forms is not None
            start = self.forms[0].start
            return float(start) if abs(start) < INFINITE else math.inf if start > 0 else -math.inf
        return self.future.get(axis)

    @property
    def constant(self) -> bool:
        """Whether all entries are one number, those of the past too."""
        return self.forms is not None and len(self.forms) == 1 and not self.forms[0].slopes


_UNKNOWN = _Fact()


def lookahead(graph: Graph, tokens: str) -> str | None:
    """Return where a graph without functions may let a token see later ones along `tokens`, and how, in words.

    Beside attention without a causal mask, this is all that works along `tokens` itself, or makes other dimensions of
    their number.
    """
    watch = _Watch(tokens)
    for value in graph.inputs:
        watch.sizes(f"the input `{value.name}`", value.type, allowed=False)
    watch.region(graph.body, [_UNKNOWN for _ in graph.body.arguments])
    return watch.found[0] if watch.found else None


class _Watch:
    def __init__(self, tokens: str) -> None:
        self._tokens = tokens
        self.found: list[str] = []

    def region(self, region: Region, arguments: Sequence[_Fact]) -> list[_Fact]:
        """Return what is known of a region's results, from what is known of its arguments."""
        known = {value.name: fact for value, fact in zip(region.arguments, arguments, strict=True)}
        for node in region.nodes:
            facts = self._node(node, [known[value.name] for value in node.inputs])
            known.update({value.name: fact for value, fact in zip(node.outputs, facts, strict=True)})
        return [known[value.name] for value in region.results]

    def _axes(self, type: TensorType) -> list[str]:
        """Return the axes of a type along which its entries belong to tokens, other than the tokens' own."""
        return [dim.name for dim in type.dims if dim.name != self._tokens and dim.size == symbol(self._tokens)]

    def _pairs(self, type: TensorType) -> list[str]:
        """Return the key axes of a type that has the tokens' dimension too: there is a future along these."""
        return self._axes(type) if type.has(self._tokens) else []

    def _blame(self, node: Node, what: str) -> None:
        self.found.append(f"`{node.path or node.outputs[0].name}` {what}")

    def sizes(self, what: str, type: TensorType, allowed: bool = True) -> None:
        """Blame a value that has dimensions made of the number of tokens, but for key axes if they are allowed."""
        for dim in type.dims:
            made = not isinstance(dim.size, int) and self._tokens in dim.size.symbols()
            if made and dim.name != self._tokens and not (allowed and dim.size == symbol(self._tokens)):
                self.found.append(f"{what} has the dimension `{dim}`, which depends on the number of tokens")
            elif made and dim.size != symbol(self._tokens):
                self.found.append(f"{what} has some of the tokens only along `{self._tokens}`")

    def _tokens_alone(self, node: Node) -> None:
        """Blame a node that works along the tokens' own dimension: of new tokens, it would see these only."""
        match node.op:
            case Dot(over) | Reduce(over=over) | Merge(dims=over) | Concat(dims=over) | Scatter(over=over):
                along = self._tokens in over
            case Scan(over) | Slice(dim=over) | Split(dim=over) | TopK(dim=over) | Gather(dim=over):
                along = over == self._tokens
            case Rename(names):
                along = False
                renamed = any(old == self._tokens for old, _ in names)
                for axis in self._pairs(node.inputs[0].type) if renamed else ():
                    self._blame(node, f"would be kept with `{axis}`, which grows with every token")
            case _:
                along = False
        if along:
            self._blame(node, f"works along `{self._tokens}`; only what is renamed from it can be kept")

    def _node(self, node: Node, facts: list[_Fact]) -> list[_Fact]:
        self._tokens_alone(node)
        for output in node.outputs if not isinstance(node.op, Repeat) else ():
            self.sizes(f"`{node.path or output.name}`", output.type)
        match node.op:
            case Repeat() as op:
                return self._repeat(op, facts)
            case TopK(dim):
                self._looks_along(node, (dim,))
                return [_UNKNOWN, _UNKNOWN]
            case Constant(value):
                number = float(value)
                if math.isnan(number):
                    return [_UNKNOWN]
                start = Fraction(number) if math.isfinite(number) else INFINITE if number > 0 else -INFINITE
                return [_Fact((Form((), start),))]
            case Position(dim):
                return [_Fact((Form(((dim.name, Fraction(1)),), Fraction(0)),))]
            case Unary() | Binary() | Where() | Cast():
                return [self._elementwise(node, facts)]
            case Dot() | Reduce() | Scan() | Gather() | Scatter():
                return [self._along(node, facts)]
            case Rename() | Transpose() | Split() | Merge() | Slice() | Concat():
                return [self._moved(node, facts)]
            case Call():
                raise AssertionError("inlined")
            case op:
                assert_never(op)

    def _repeat(self, op: Repeat, facts: list[_Fact]) -> list[_Fact]:
        """Follow a loop until what is known of the values it carries does not change any more."""
        loose = op.carried + op.shared
        carried, shared = facts[: op.carried], facts[op.carried : loose]
        stacked = [_without(fact, op.stack.name) for fact in facts[loose:]]
        before = list(self.found)
        while True:
            self.found = list(before)
            results = self.region(op.body, [*carried, *shared, *stacked])
            joined = [_common(a, b) for a, b in zip(carried, results[: op.carried], strict=True)]
            if joined == carried:
                return [*joined, *results[op.carried :]]
            carried = joined

    # ---- elementwise

    def _elementwise(self, node: Node, facts: list[_Fact]) -> _Fact:
        out = node.output.type
        axes = self._pairs(out)
        match node.op:
            case Unary(kind):
                (x,) = facts
                future = {axis: _unary(kind, x.at(axis)) for axis in axes}
                return _Fact(unary_forms(kind, x.forms), _numbers(future))
            case Cast(dtype):
                (x,) = facts
                cut = (lambda a: float(bool(a))) if dtype == "bool" else (lambda a: a)
                future = {axis: None if (a := x.at(axis)) is None else cut(a) for axis in axes}
                return _Fact(None if dtype == "bool" else x.forms, _numbers(future))
            case Where():
                return _chosen(facts, axes)
            case Binary():
                return self._binary(node.op, facts, out, axes)
            case _:
                raise AssertionError("not elementwise")

    def _binary(self, op: Binary, facts: list[_Fact], out: TensorType, axes: list[str]) -> _Fact:
        a, b = facts
        future: dict[str, float | None] = {}
        # What is subtracted everywhere masks nothing out.
        masks = not a.constant and not b.constant
        for axis in axes:
            number: float | None = None
            if a.forms is not None and b.forms is not None:
                gaps = both(a.forms, negated(b.forms), sums)
                number = known_sign(op.kind, [bounds(gap, self._tokens, axis, out) for gap in gaps])
            if number is None:
                number = _combined(op.kind, a.at(axis), b.at(axis))
            if number is None and masks:
                number = _masked(op.kind, a.at(axis), b.at(axis))
            future[axis] = number
        return _Fact(binary_forms(op.kind, a.forms, b.forms), _numbers(future))

    # ---- what works along dimensions

    def _looks_along(self, node: Node, names: Sequence[str]) -> None:
        """Blame a node that moves, mixes or picks entries along a key axis, which then no longer tells the token."""
        axes = {axis for value in node.inputs for axis in self._axes(value.type)}
        for name in names:
            if name in axes:
                self._blame(node, f"works along `{name}`, which are tokens, in a way that may show later ones")

    def _along(self, node: Node, facts: list[_Fact]) -> _Fact:
        match node.op:
            case Dot(over):
                return self._dot(node, over, facts)
            case Reduce():
                return self._reduced(node, node.op, facts[0])
            case Scan():
                return _UNKNOWN
            case Gather(dim):
                if dim in self._axes(node.inputs[0].type):
                    self._looked_up(node, dim, facts[1])
                return _UNKNOWN
            case Scatter(over=over):
                self._looks_along(node, over)
                return _UNKNOWN
            case _:
                raise AssertionError("does not work along a dimension")

    def _looked_up(self, node: Node, axis: str, index: _Fact) -> None:
        """Entries of a key axis may be looked up where the index is the token's own or an earlier one."""
        own = Form(((self._tokens, Fraction(-1)),), Fraction(0))
        gaps = None if index.forms is None else [sums(form, own) for form in index.forms]
        if gaps is None or any(bounds(gap, self._tokens, "", node.inputs[1].type)[1] > 0 for gap in gaps):
            self._blame(node, f"looks up `{axis}` at places that may be later ones")

    def _dot(self, node: Node, over: tuple[str, ...], facts: list[_Fact]) -> _Fact:
        pairs = list(zip(node.inputs, facts, strict=True))
        for axis in over:
            if axis in self._axes(node.inputs[0].type) and not any(
                axis in self._pairs(value.type) and fact.at(axis) == 0 for value, fact in pairs
            ):
                self._blame(node, f"sums over `{axis}` what is not masked to zero for later tokens")
        future = {axis: 0.0 for axis in self._pairs(node.output.type) if any(f.at(axis) == 0 for f in facts)}
        return _Fact(None, future)

    def _reduced(self, node: Node, op: Reduce, x: _Fact) -> _Fact:
        (value,) = node.inputs
        for axis in op.over:
            hidden = axis in self._pairs(value.type) and _neutral(op.kind, x.at(axis))
            if axis in self._axes(value.type) and not hidden:
                self._blame(node, f"takes the {op.kind} over `{axis}`, and later tokens are not masked out of it")
        future: dict[str, float | None] = {}
        for axis in self._pairs(node.output.type):
            number = x.at(axis)
            future[axis] = number if op.kind != "sum" or number == 0 or _infinite(number) else None
        return _Fact(None, _numbers(future))

    def _moved(self, node: Node, facts: list[_Fact]) -> _Fact:
        match node.op:
            case Rename(names):
                new = dict(names)
                (x,) = facts
                forms = None if x.forms is None else tuple(form.renamed(new) for form in x.forms)
                future = {new.get(axis, axis): number for axis, number in x.future.items()}
            case Transpose():
                return facts[0]
            case Split(dim=dim) | Slice(dim=dim):
                self._looks_along(node, (dim,))
                forms, future = _free_of(facts[0].forms, (dim,)), facts[0].future
            case Merge(dims=dims):
                self._looks_along(node, dims)
                forms, future = _free_of(facts[0].forms, dims), facts[0].future
            case Concat(dims=dims):
                self._looks_along(node, dims)
                first, *rest = facts
                forms = None
                shared = [axis for axis in self._pairs(node.output.type) if first.at(axis) is not None]
                same = [axis for axis in shared if all(fact.at(axis) == first.at(axis) for fact in rest)]
                future = _numbers({axis: first.at(axis) for axis in same})
            case op:
                raise AssertionError(f"{opcode(op)} moves nothing")
        kept = self._pairs(node.output.type)
        return _Fact(forms, {axis: number for axis, number in future.items() if axis in kept})


def _infinite(number: float | None) -> bool:
    return number is not None and abs(number) >= LARGE


def _neutral(kind: ReduceKind, number: float | None) -> bool:
    """Tell whether a number makes no difference to a reduction, however many of it there are."""
    if number is None:
        return False
    match kind:
        case "sum":
            return number == 0
        case "max":
            return number <= -LARGE
        case "min":
            return number >= LARGE
        case "mean":
            return False
        case _:
            assert_never(kind)


def _numbers(found: dict[str, float | None]) -> dict[str, float]:
    return {axis: number for axis, number in found.items() if number is not None and not math.isnan(number)}


def _common(a: _Fact, b: _Fact) -> _Fact:
    future = {axis: number for axis, number in a.future.items() if b.future.get(axis) == number}
    return _Fact(a.forms if a.forms == b.forms else None, future)


def _without(fact: _Fact, dim: str) -> _Fact:
    return _Fact(_free_of(fact.forms, (dim,)), fact.future)


def _free_of(forms: Forms | None, dims: Sequence[str]) -> Forms | None:
    """Return the forms if none of them speaks of these dimensions."""
    if forms is None or any(name in dims for form in forms for name, _ in form.slopes):
        return None
    return forms


def _chosen(facts: list[_Fact], axes: list[str]) -> _Fact:
    """Return what is known of a `where`."""
    condition, a, b = facts
    future: dict[str, float | None] = {}
    for axis in axes:
        holds = condition.at(axis)
        if holds is None:
            future[axis] = a.at(axis) if a.at(axis) == b.at(axis) else None
        else:
            future[axis] = a.at(axis) if holds else b.at(axis)
    forms = None if a.forms is None or b.forms is None else several((*a.forms, *b.forms))
    return _Fact(forms, _numbers(future))


def _unary(kind: UnaryKind, x: float | None) -> float | None:
    if x is None:
        return None
    if _infinite(x):
        limits = {"exp": (0.0, math.inf), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "erf": (-1.0, 1.0)}
        if kind in limits:
            return limits[kind][x > 0]
        return {"neg": -x, "abs": abs(x)}.get(kind)
    match kind:
        case "neg":
            return -x
        case "abs":
            return abs(x)
        case "not":
            return float(not x)
        case "floor":
            return float(math.floor(x))
        case "exp":
            return math.exp(min(x, 700.0))
        case "sin" | "tanh" | "erf" | "sqrt" if x == 0:
            return 0.0
        case _:
            return None


def _combined(kind: str, a: float | None, b: float | None) -> float | None:
    """Return what `a kind b` is, where one of them may be anything (and finite)."""
    if a is not None and b is not None:
        return _computed(kind, a, b)
    known, left = (a, True) if a is not None else (b, False)
    match kind, known:
        case ("mul" | "and", 0.0):
            return 0.0
        case ("div", 0.0) if left:
            return 0.0
        case ("or", 1.0):
            return 1.0
        case _:
            return None


def _masked(kind: str, a: float | None, b: float | None) -> float | None:
    """Return what an infinite number makes of one that may be anything (and finite)."""
    known, left = (a, True) if a is not None else (b, False)
    if known is None or not _infinite(known):
        return None
    match kind:
        case "add":
            return known
        case "sub":
            return known if left else -known
        case "min":
            return known if known < 0 else None
        case "max":
            return known if known > 0 else None
        case _:
            return None


def _computed(kind: str, a: float, b: float) -> float | None:
    comparisons = {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b, "eq": a == b, "ne": a != b}
    if kind in comparisons:
        return float(comparisons[kind])
    match kind:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "div":
            return a / b if b else None
        case "max":
            return max(a, b)
        case "min":
            return min(a, b)
        case "and":
            return float(bool(a) and bool(b))
        case "or":
            return float(bool(a) or bool(b))
        case _:
            return None
