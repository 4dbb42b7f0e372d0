"""Inputs and outputs of a model as its users see them; for decoding, under the names and with the axes that the model
hub's runtimes look for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from cgc.decoding import SEQ
from cgc.ir.dims import Dim, product, symbol
from cgc.ir.graph import Graph, Value
from cgc.passes.kv_cache import MASK, POSITIONS, Cache
from cgc_onnx.lowering.scope import Operand, Scope
from cgc_onnx.parameters.layout import Layout, Parameter, indices
from cgc_onnx.writer import Tensor, Writer

LABELS: Mapping[str, str] = MappingProxyType(
    {"batch": "batch_size", "seq": "sequence_length", "past": "past_sequence_length"}
)
"""What the hub calls the sizes that are known at run time."""
HEADS = "heads"


@dataclass(frozen=True, slots=True)
class Taken:
    """A value that comes from outside, as tensors of the file: one for each turn of the loops around a cache."""

    value: Value
    tensors: tuple[Tensor, ...]
    turns: int

    def operand(self, scope: Scope) -> Operand:
        """Return the value as the graph uses it."""
        if not self.turns:
            tensor, dims = self.tensors[0], self.value.type.dims
            return tensor if tensor.dims == dims else scope.shapes.reshape(tensor, dims, f"{tensor.name}.split")
        loops, dims = self.value.type.dims[: self.turns], self.value.type.dims[self.turns :]
        layout = Layout(tuple(range(self.turns)), (1,) * len(dims))
        names = [(x if x.dims == dims else scope.shapes.reshape(x, dims, f"{x.name}.split")).name for x in self.tensors]
        return Parameter(self.value.name, tuple(names), loops, dims, self.value.type.dtype, layout)


@dataclass(frozen=True, slots=True)
class Surface:
    """What inputs and outputs are called: by the graph's name, one name for each turn of the loops around them. `turns`
    counts the loops; `outputs` are those that the model itself declares.
    """

    names: Mapping[str, tuple[str, ...]]
    turns: Mapping[str, int]
    labels: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def reserved(self) -> list[str]:
        """Names that nothing else may have."""
        return [*(name for names in self.names.values() for name in names), *self.outputs.values()]

    def in_order(self, names: Sequence[str]) -> list[int]:
        """Return the places of tensors called `names` in the order of the file: caches last, layer by layer."""
        rank = {
            name: (turn, place) for place, cache in enumerate(self.turns) for turn, name in enumerate(self.names[cache])
        }
        return sorted(range(len(names)), key=lambda at: (names[at] in rank, rank.get(names[at], (0, 0))))

    def input(self, value: Value, writer: Writer) -> Taken:
        """Return how an input comes in."""
        names = self.names.get(value.name) or (writer.fresh(value.name),)
        turns = self.turns.get(value.name, 0)
        dims = value.type.dims[turns:]
        if value.name in self.turns:
            dims = four_axes(dims)
        return Taken(value, tuple(Tensor(name, dims, value.type.dtype) for name in names), turns)

    def results(self, scope: Scope, graph: Graph) -> list[tuple[Tensor, str]]:
        """Return the tensors that go out, and what each is to be called."""
        found: list[tuple[Tensor, str]] = []
        for output, value in zip(graph.outputs, graph.body.results, strict=True):
            names = (self.outputs[output],) if output in self.outputs else self.names[output]
            turns = self.turns.get(output, 0)
            for tensor, name in zip(_parts(scope, value, turns), names, strict=True):
                dims = four_axes(tensor.dims) if output in self.turns else tensor.dims
                found.append((scope.shapes.reshape(tensor, dims, f"{name}.merged"), name))
        return found


def _parts(scope: Scope, value: Value, turns: int) -> list[Tensor]:
    """Return a result as one tensor for each turn of its loops."""
    if not turns:
        return [scope.ordered(value)]
    operand = scope.stored(value, Layout(tuple(range(turns)), (1,) * (len(value.type.dims) - turns)))
    return [Tensor(name, operand.stored, operand.dtype) for name in operand.names]


def four_axes(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Return the axes of a cache: batch, heads, positions, what a head holds; `positions` is the last but one."""
    if len(dims) < 2:
        return dims
    *outer, past, last = dims
    batch = [dim for dim in outer if not isinstance(dim.size, int)]
    heads = [dim for dim in outer if isinstance(dim.size, int)]
    if len(heads) == 1:
        return (*batch, *heads, past, last)
    return (
        *batch,
        Dim("*".join(dim.name for dim in heads) or HEADS, product(tuple(d.size for d in heads))),
        past,
        last,
    )


def surface_of(graph: Graph, caches: Sequence[Cache]) -> Surface:
    """Return the names of a graph's inputs and outputs; its own where it is not for decoding."""
    taken = {value.name for value in graph.body.arguments}
    outputs = {name: _free(name, taken) for name in graph.outputs}
    if not caches:
        return Surface({}, {}, {}, outputs)
    types = {value.name: value.type for value in graph.inputs}
    stacks = {cache.past: types[cache.past].dims[: cache.stacked] for cache in caches}
    names: dict[str, tuple[str, ...]] = {}
    turns: dict[str, int] = {}
    for cache, past, present in _cache_names(caches, stacks):
        names[cache.past], names[cache.present] = past, present
        turns[cache.past] = turns[cache.present] = len(stacks[cache.past])
    tokens = [value for value in model_inputs(graph, caches) if value.type.indexes is not None]
    tokens = [value for value in tokens if any(dim.size == symbol(SEQ) for dim in value.type.dims)]
    if len(tokens) == 1:
        names[tokens[0].name] = ("input_ids",)
    outputs = {name: outputs[name] for name in graph.outputs[: len(graph.outputs) - len(caches)]}
    if len(outputs) == 1:
        outputs = dict.fromkeys(outputs, "logits")
    labels = {known.name: LABELS[known.name] for known in graph.symbols if known.name in LABELS}
    return Surface(names, turns, labels, outputs)


def model_inputs(graph: Graph, caches: Sequence[Cache]) -> list[Value]:
    """Return the inputs that the model itself declares, those of decoding not among them."""
    others = {MASK, POSITIONS, *(cache.past for cache in caches)}
    return [value for value in graph.inputs if value.name not in others]


def _free(output: str, taken: Collection[str]) -> str:
    """Return what an output is called in a file, in which no input or parameter may have the same name."""
    while output in taken:
        output += "_out"
    return output


def _cache_names(
    caches: Sequence[Cache], stacks: Mapping[str, tuple[Dim, ...]]
) -> list[tuple[Cache, tuple[str, ...], tuple[str, ...]]]:
    """Return what each cache is called, one name a turn: pairs of a key and a value are numbered as they are used."""
    found: list[tuple[Cache, tuple[str, ...], tuple[str, ...]]] = []
    number = 0
    for _, group in groupby(caches, key=lambda cache: (stacks[cache.past], _block(cache))):
        members = list(group)
        pairs = list(zip(members[::2], members[1::2], strict=False))
        turns = list(indices(stacks[members[0].past]))
        if len(members) % 2 or not all({a.role, b.role} == {"key", "value"} for a, b in pairs):
            found += [(cache, *_plain(cache, turns)) for cache in members]
            continue
        for place, pair in enumerate(sorted(pair, key=lambda cache: cache.role) for pair in pairs):
            at = [number + turn * len(pairs) + place for turn in range(len(turns))]
            for cache in pair:
                past = tuple(f"past_key_values.{n}.{cache.role}" for n in at)
                found.append((cache, past, tuple(f"present.{n}.{cache.role}" for n in at)))
        number += len(pairs) * len(turns)
    return found


def _block(cache: Cache) -> str:
    """Return the outermost block or loop that a cache is in, "" where the model itself keeps it."""
    return cache.path.partition(".")[0] if "." in cache.path else ""


def _plain(cache: Cache, turns: Sequence[tuple[int, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names by path for what is no pair of keys and values."""
    suffixes = ["".join(f".{index}" for index in turn) for turn in turns]
    return tuple(cache.past + end for end in suffixes), tuple(cache.present + end for end in suffixes)
