"""What a layer computes and keeps, as counts of vectors along the tokens.

A core holds some features of some tokens, one vector along its tokens for each feature. Ops are

- `WeightProduct`: a dot with a parameter. Every weight that passes makes the core multiply one vector and add it to
  another (Lie, Cerebras Architecture Deep Dive, IEEE Micro 2023: weights trigger a multiply-add of a vector of
  activations, and are stored nowhere);
- `TokenProduct`: a dot of activations over or onto earlier tokens, as in attention;
- `OtherProduct`: any other dot, of which only the amount is known;
- `VectorPass`: everything else, once over the vectors, with a sum over the features' side where it reduces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from cgc.ir.dims import SymbolicSize
from cgc.ir.graph import Graph, Value, walk
from cgc.ir.ops import Dot, Gather, Reduce
from cgc_wse.facets import Shape
from cgc_wse.flatten import Application, FlatStage, Group, Tensor
from cgc_wse.kernels import Stage, kept_tensors


@dataclass(frozen=True, slots=True)
class TokenDims:
    """Dimensions by their names: `tokens` are cut along one side of the wafer, `keys` are the same tokens again."""

    tokens: frozenset[str]
    keys: frozenset[str]

    def features(self, shape: Mapping[str, int]) -> int:
        """Return the entries of a tensor for each token."""
        return prod(size for name, size in shape.items() if name not in self.tokens)

    def has_tokens(self, shape: Mapping[str, int]) -> bool:
        """Tell whether a tensor differs from token to token."""
        return bool(self.tokens & shape.keys())


@dataclass(frozen=True, slots=True)
class WeightProduct:
    """`inner` features to `outer` features by inner · outer weights."""

    inner: int
    outer: int


@dataclass(frozen=True, slots=True)
class WeightGradient:
    """The gradient of inner · outer weights: a sum over all tokens for each."""

    inner: int
    outer: int


@dataclass(frozen=True, slots=True)
class TokenProduct:
    """`heads` times: `width` features against `keys` other tokens; `mixes` sums over those, else over the features."""

    heads: int
    width: int
    keys: int
    mixes: bool


@dataclass(frozen=True, slots=True)
class OtherProduct:
    """A dot of `macs` multiply-adds for one sequence."""

    macs: int


@dataclass(frozen=True, slots=True)
class VectorPass:
    """One op on every entry of `features` features; `sums` says that cores then add up what they have of a token."""

    features: int
    sums: bool = False


Op: TypeAlias = WeightProduct | WeightGradient | TokenProduct | OtherProduct | VectorPass
Ops: TypeAlias = tuple[tuple[Op, int], ...]
"""Ops and how often each is applied."""


@dataclass(frozen=True, slots=True)
class KernelWork:
    """One block. `again` is, for each level of the stage, what of its forward pass runs once more; `back` its way back,
    with what a block makes again for its own derivative. `weights` are the scalars that stream through, `trained` those
    of them whose gradients stream out.
    """

    path: str
    forward: Ops
    again: tuple[Ops, ...]
    back: Ops
    weights: int
    trained: int


@dataclass(frozen=True, slots=True)
class StageWork:
    """One run of a stage; tensors as features, entries for each token.

    `entering` come into it, `kept` is what its blocks need beside those for their way back, `crossing` is what of the
    tensors between blocks is alive together at most, and `leaving` goes to later stages. `levels` are what of `kept`
    may be stored until then, from nothing to everything, each with one tensor more: the one that saves most work for
    its size.
    """

    stage: Stage
    kernels: tuple[KernelWork, ...]
    entering: tuple[int, ...]
    kept: tuple[int, ...]
    crossing: tuple[int, ...]
    leaving: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]


def token_dims(graph: Graph) -> TokenDims:
    """Return the dimensions of open size that the inputs have, and others that are as long: keys and values."""
    tokens = {dim.name for value in graph.inputs for dim in value.type.dims if isinstance(dim.size, SymbolicSize)}

    def values() -> Iterator[Value]:
        for body in (graph.body, *(function.body for function in graph.functions)):
            for node in walk(body):
                yield from node.outputs

    keys = {
        dim.name
        for value in values()
        for dim in value.type.dims
        if isinstance(dim.size, SymbolicSize) and dim.name not in tokens
    }
    return TokenDims(frozenset(tokens), frozenset(keys))


def stage_work(flat: FlatStage, stage: Stage, dims: TokenDims) -> StageWork:
    """Return the work of one run of a stage; `flat` and `stage` are the same stage."""
    kept: dict[int, None] = {}
    remade: list[list[Application]] = []
    for index, group in enumerate(flat.groups):
        roots, again = kept_tensors(flat, index, group.applications)
        kept |= dict.fromkeys(sorted(roots))
        remade.append(again)
    entering = _roots(flat, flat.entering)
    beside = [root for root in kept if root not in entering]
    levels = _levels(flat, beside, dims)
    needed = [_needed(flat, beside, stored) for stored in levels]
    kernels = tuple(_kernel(flat, group, remade[g], needed, dims) for g, group in enumerate(flat.groups))

    def features(roots: Iterable[int]) -> tuple[int, ...]:
        return tuple(dims.features(flat.tensors[root].shape) for root in roots)

    crossing, leaving = features(_crossing(flat, entering)), features(_roots(flat, flat.leaving))
    stored = tuple(features(level) for level in levels)
    return StageWork(stage, kernels, features(entering), features(beside), crossing, leaving, stored)


def _levels(flat: FlatStage, kept: list[int], dims: TokenDims) -> list[tuple[int, ...]]:
    """Return growing sets of tensors to store: each time the one that spares most operations for its size."""
    applications = [a for group in flat.groups for a in group.applications]

    def work(stored: tuple[int, ...]) -> int:
        needed = _needed(flat, kept, stored)
        return sum((a.multiply_adds + a.operations) * a.times for a in applications if needed & set(a.results))

    levels: list[tuple[int, ...]] = [()]
    while len(levels[-1]) < len(kept):
        stored = levels[-1]
        left = [root for root in kept if root not in stored]
        before = work(stored)

        def spared(root: int, stored: tuple[int, ...] = stored, before: int = before) -> float:
            return (before - work((*stored, root))) / max(1, dims.features(flat.tensors[root].shape))

        levels.append((*stored, max(left, key=spared)))
    return levels


def _roots(flat: FlatStage, indices: Iterable[int]) -> dict[int, None]:
    return dict.fromkeys(flat.tensors[i].root for i in indices if flat.tensors[i].floating)


def _kernel(
    flat: FlatStage, group: Group, remade: list[Application], needed: list[frozenset[int]], dims: TokenDims
) -> KernelWork:
    tensors = [flat.tensors[i] for application in group.applications for i in application.operands]
    params = {tensor.param: prod(flat.tensors[tensor.root].shape.values()) for tensor in tensors if tensor.param}
    trained = {tensor.param for tensor in tensors if tensor.param and tensor.gradient}
    again = [[a for a in group.applications if roots & set(a.results)] for roots in needed]
    back = [*_forward(flat, remade, dims), *_back(flat, group.applications, dims)]
    return KernelWork(
        group.path,
        _counted(_forward(flat, group.applications, dims)),
        tuple(_counted(_forward(flat, applications, dims)) for applications in again),
        _counted(back),
        sum(params.values()),
        sum(size for name, size in params.items() if name in trained),
    )


def _counted(ops: Iterable[tuple[Op, int]]) -> Ops:
    counts: Counter[Op] = Counter()
    for op, times in ops:
        counts[op] += times
    return tuple(counts.items())


def _needed(flat: FlatStage, kept: Iterable[int], stored: tuple[int, ...]) -> frozenset[int]:
    """Return what has to be made again of a stage so that all of `kept` is there, `stored` having been stored."""
    makers = {
        i: application for group in flat.groups for application in group.applications for i in application.results
    }
    needed: set[int] = set()
    pending = [root for root in kept if root in makers and root not in stored]
    while pending:
        root = pending.pop()
        if root not in needed:
            needed.add(root)
            operands = (flat.tensors[i].root for i in makers[root].operands)
            pending += [operand for operand in operands if operand in makers and operand not in stored]
    return frozenset(needed)


def _crossing(flat: FlatStage, entering: Iterable[int]) -> list[int]:
    """Return the tensors between blocks that are alive together when they take most room."""
    last: dict[int, int] = {}
    for g, group in enumerate(flat.groups):
        last |= {flat.tensors[i].root: g for application in group.applications for i in application.operands}
    last |= {flat.tensors[i].root: len(flat.groups) for i in flat.leaving}
    alive = dict.fromkeys(entering)
    most: list[int] = list(alive)
    for g, group in enumerate(flat.groups):
        made = {flat.tensors[i].root: None for a in group.applications for i in a.results}
        alive |= {root: None for root in made if flat.tensors[root].floating and last.get(root, -1) > g}
        if _entries(flat, alive) > _entries(flat, most):
            most = list(alive)
        alive = {root: None for root in alive if last.get(root, -1) > g}
    return most


def _entries(flat: FlatStage, roots: Iterable[int]) -> int:
    return sum(prod(flat.tensors[root].shape.values()) for root in roots)


def _forward(flat: FlatStage, applications: Iterable[Application], dims: TokenDims) -> Iterator[tuple[Op, int]]:
    for application in applications:
        if isinstance(application.op, Dot):
            yield product_of(flat, application, dims), application.times
        else:
            found = _pass(flat, application, dims)
            if found is not None:
                yield found, application.times


def _pass(flat: FlatStage, application: Application, dims: TokenDims) -> VectorPass | None:
    """Return an op that is no dot, or None where it touches no tokens. A gather touches what it takes, no more."""
    operands = () if isinstance(application.op, Gather) else application.operands
    shapes = [flat.tensors[i].shape for i in (*operands, *application.results)]
    largest = max((shape for shape in shapes if dims.has_tokens(shape)), key=dims.features, default=None)
    if largest is None or all(flat.tensors[i].generated for i in application.results):
        return None
    return VectorPass(dims.features(largest), isinstance(application.op, Reduce))


def product_of(flat: FlatStage, application: Application, dims: TokenDims) -> Op:
    left, right = (flat.tensors[i] for i in application.operands)
    result = flat.tensors[application.results[0]].shape
    union = {**left.shape, **right.shape}
    inner = {name: size for name, size in union.items() if name not in result}
    if dims.has_tokens(inner):
        return OtherProduct(application.multiply_adds)
    if left.param or right.param:
        return WeightProduct(dims.features(inner), dims.features(result))
    return _over_tokens(left, right, result, inner, dims) or OtherProduct(application.multiply_adds)


def _over_tokens(left: Tensor, right: Tensor, result: Shape, inner: Shape, dims: TokenDims) -> TokenProduct | None:
    """Return a product with keys or values, or None where a dot is none.

    The operand with fewer of the dimensions of tokens has the keys. What both operands and the result have is done
    for each head, and so is what only the other operand has.
    """
    mixes = bool(dims.keys & inner.keys())
    sides = sorted((left.shape, right.shape), key=lambda shape: len(dims.tokens & shape.keys()))
    other, first = sides
    if len(dims.tokens & other.keys()) == len(dims.tokens & first.keys()) or mixes == bool(dims.keys & result.keys()):
        return None
    keys = prod(size for name, size in other.items() if name in dims.keys)
    own = dims.features({n: s for n, s in result.items() if n in other and n not in first})
    width = own if mixes else dims.features(inner)
    return TokenProduct(dims.features(result) // own, width, keys, mixes)


def _back(flat: FlatStage, applications: Iterable[Application], dims: TokenDims) -> Iterator[tuple[Op, int]]:
    """A dot has one dot for each operand that needs a gradient; other derivatives take a pass as the op did."""
    for application in applications:
        operands = [flat.tensors[i] for i in application.operands]
        wanted = [operand for operand in operands if operand.gradient]
        if not wanted:
            continue
        if not isinstance(application.op, Dot):
            found = _pass(flat, application, dims)
            if found is not None:
                yield found, application.times
            continue
        product = product_of(flat, application, dims)
        for operand in wanted:
            if isinstance(product, WeightProduct) and operand.param:
                yield WeightGradient(product.inner, product.outer), application.times
            else:
                yield product, application.times
