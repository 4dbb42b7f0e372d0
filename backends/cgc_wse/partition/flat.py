"""What is partitioned: a mode's graph, flat and with all sizes known, and arrays to run it on.

Training is a whole step (loss, gradients, AdamW), decoding one token behind a KV cache, prefill all tokens before an
empty one. Loops are written out; equal layers are planned once all the same (`segments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from cgc.interpret import interpret
from cgc.ir.dims import evaluate
from cgc.ir.graph import Graph
from cgc.passes.adamw import FIRST, NEW, RATE, SECOND, STEP, adamw
from cgc.passes.inline import inline
from cgc.passes.kv_cache import NoCache, with_kv_cache
from cgc.passes.loss import NotALanguageModel
from cgc.passes.unroll import unroll
from cgc.program import Program
from cgc.target import TargetError
from cgc.training import UnknownOptimizer, gradient_graph, optimizer_of, train_step
from cgc.weights import initialize, random_inputs
from cgc_wse.partition.sizes import with_sizes

Arrays: TypeAlias = dict[str, np.ndarray[Any, Any]]
Mode: TypeAlias = Literal["train", "prefill", "decode"]
Category: TypeAlias = Literal[
    "weights", "gradients", "optimizer state", "KV cache", "inputs", "activations", "communication", "code"
]
CATEGORIES: tuple[Category, ...] = (
    "weights", "gradients", "optimizer state", "KV cache", "inputs", "activations", "communication", "code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flat:
    """A graph of primitives with `sizes` for its symbols. `categories` says of values what memory they count as.

    `kept` are the outputs that stay on the wafer where the model does: new weights and moments, caches.
    """

    mode: Mode
    graph: Graph
    sizes: Mapping[str, int]
    categories: Mapping[str, Category]
    kept: frozenset[str]

    def category(self, name: str) -> Category:
        """Return what a value counts as."""
        return self.categories.get(name, "activations")


def flatten(program: Program, mode: Mode, batch: int, seq: int) -> Flat:
    """Return the graph of a mode; decoding has `seq - 1` tokens behind it.

    Raises:
        TargetError: CG0640, the model has no such mode.
    """
    match mode:
        case "train":
            return _training(program, batch, seq)
        case "prefill" | "decode":
            return _forward(program, mode, batch, seq)


def forward_graph(graph: Graph, sizes: Mapping[str, int]) -> Flat:
    """Return any graph as a flat one for a pass forward; inputs are on the wafer at the start, outputs stay there."""
    found = _flat("prefill", inline(unroll(graph)), sizes, frozenset(graph.outputs))
    inputs: dict[str, Category] = dict.fromkeys([value.name for value in graph.inputs], "activations")
    return replace(found, categories={**found.categories, **inputs})


def _training(program: Program, batch: int, seq: int) -> Flat:
    try:
        slopes = gradient_graph(unroll(program.graph))
        optimizer = optimizer_of(program)
    except (NotALanguageModel, UnknownOptimizer) as error:
        raise TargetError("CG0640", str(error), "`--mode prefill` runs the model forward") from error
    params = {param.name: optimizer.of(stacked_name(param.name)) for param in slopes.params}
    graph = adamw(slopes, replace(optimizer, params=params))
    gradients = [value.name for value in slopes.body.results[len(slopes.outputs) - len(slopes.params) :]]
    found = _flat("train", graph, _sizes(graph, batch, seq), frozenset(graph.outputs[1:]))
    return replace(found, categories={**dict.fromkeys(gradients, "gradients"), **found.categories})


def _forward(program: Program, mode: Mode, batch: int, seq: int) -> Flat:
    whole = unroll(program.graph)
    try:
        cached = with_kv_cache(whole)
    except NoCache as error:
        if mode == "decode":
            text = f"there is no KV cache for `{program.name}`: {error}"
            raise TargetError("CG0640", text, "`--mode prefill` runs the model forward") from error
        graph = inline(whole)
        return _flat(mode, graph, _sizes(graph, batch, seq), frozenset())
    graph = inline(cached.graph)
    sizes = _sizes(graph, batch, 1 if mode == "decode" else seq)
    sizes["past"] = seq - 1 if mode == "decode" else 0
    return _flat(mode, graph, sizes, frozenset(cache.present for cache in cached.caches))


def _sizes(graph: Graph, batch: int, seq: int) -> dict[str, int]:
    known = {"batch": batch, "seq": seq}
    return {symbol.name: known.get(symbol.name, 1) for symbol in graph.symbols}


def _flat(mode: Mode, graph: Graph, sizes: Mapping[str, int], kept: frozenset[str]) -> Flat:
    categories: dict[str, Category] = {}
    for name, value in zip(graph.outputs, graph.body.results, strict=True):
        if name in kept:
            categories[value.name] = _kind(name.removeprefix(NEW))
    categories.update({value.name: _kind(value.name, "inputs") for value in graph.inputs})
    categories.update({param.name: "weights" for param in graph.params})
    return Flat(mode, with_sizes(graph, sizes), sizes, categories, kept)


def _kind(name: str, other: Category = "weights") -> Category:
    if name.startswith((FIRST, SECOND)):
        return "optimizer state"
    return "KV cache" if name.startswith(("past.", "present.")) else other


def stacked_name(name: str) -> str:
    """Return the name of a parameter before its loop was written out: `h.0.w` → `h.w`."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def _index(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def unstacked(name: str, arrays: Mapping[str, Any]) -> Any:
    """Return the array of a flat name out of stacked ones."""
    return arrays[name] if name in arrays else arrays[stacked_name(name)][_index(name)]


def random_arrays(flat: Flat, program: Program, seed: int) -> tuple[Arrays, Arrays, Arrays]:
    """Return stacked weights as the program has them, and weights and inputs of the flat graph."""
    weights = initialize(program.graph, seed)
    inputs = random_inputs(flat.graph, flat.sizes, seed)
    for name in inputs:
        if name == STEP:
            inputs[name] = np.asarray(1 + seed % 5)
        elif name == RATE:
            inputs[name] = np.asarray(1e-3, np.float32)
        elif name.startswith(FIRST):
            inputs[name] = inputs[name] * np.float32(1e-2)
    for name in inputs:
        if name.startswith(SECOND):
            # What squares were averaged to: no less than the square of what the gradients were averaged to. A mean
            # that is large where its square is not would make of rounding in the gradient a step of any length.
            mean = inputs[FIRST + name.removeprefix(SECOND)]
            inputs[name] = np.square(inputs[name] * np.float32(1e-2)) + np.square(mean)
    return weights, {param.name: unstacked(param.name, weights) for param in flat.graph.params}, inputs


def reference(flat: Flat, program: Program, stacked: Arrays, inputs: Arrays) -> Arrays:
    """Return what the NumPy reference makes of it, loops and calls as the user wrote them where the mode has them."""
    if flat.mode != "train":
        weights = {param.name: unstacked(param.name, stacked) for param in flat.graph.params}
        return interpret(flat.graph, weights, inputs)
    graph = train_step(program)
    together = {value.name: _stacked(value.name, evaluate_shape(value, flat.sizes), inputs) for value in graph.inputs}
    outputs = interpret(graph, stacked, together)
    return {name: unstacked(name, outputs) for name in flat.graph.outputs}


def evaluate_shape(value: Any, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a value."""
    return tuple(evaluate(size, sizes) for size in value.type.shape)


def _stacked(name: str, shape: tuple[int, ...], inputs: Arrays) -> np.ndarray[Any, Any]:
    """Return an input of the graph with loops, put together from those of each turn."""
    if name in inputs:
        return inputs[name]
    turns = {_index(other): array for other, array in inputs.items() if stacked_name(other) == name}
    whole = np.empty(shape, next(iter(turns.values())).dtype)
    for index, array in turns.items():
        whole[index] = array
    return whole
