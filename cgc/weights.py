"""Random weights and inputs for a graph, reproducible and independent of one another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cgc.ir.dims import evaluate
from cgc.ir.graph import Graph, Param
from cgc.ir.types import is_float


def _stream(seed: int, name: str) -> np.random.Generator:
    """Return a generator of its own for each name, so that one draw does not depend on the others."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


class InitialWeights(Mapping[str, np.ndarray[Any, Any]]):
    """The parameters of a graph drawn from their initial distributions, each when it is asked for."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self._params = {param.name: param for param in graph.params}
        self._seed = seed

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return draw(self._params[name], self._seed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


def initialize(graph: Graph, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return float32 arrays by parameter path, drawn from the parameters' initial distributions."""
    return dict(InitialWeights(graph, seed))


def draw(param: Param, seed: int) -> np.ndarray[Any, Any]:
    """Draw one parameter: float32, its dimensions in the order of its type, stacking dimensions first."""
    shape = tuple(evaluate(size, {}) for size in param.type.shape)
    init, random = param.init, _stream(seed, param.name)
    match init.distribution:
        case "constant":
            return np.full(shape, init.mean, np.float32)
        case "uniform":
            return (random.random(shape, np.float32) * 2 - 1) * np.float32(init.limit)
        case "normal":
            return random.standard_normal(shape, np.float32) * np.float32(init.std) + np.float32(init.mean)
        case "truncated_normal":
            return _truncated(random, shape) * np.float32(init.std) + np.float32(init.mean)


def _truncated(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Draw standard normals, anew where they fall beyond two standard deviations."""
    values = random.standard_normal(shape, np.float32)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = random.standard_normal(int(beyond.sum()), np.float32)
    return values


def random_inputs(graph: Graph, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return random inputs for the given sizes: indices within their dimension, floats standard normal."""
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    for value in graph.inputs:
        random = _stream(seed, f"input {value.name}")
        shape = tuple(evaluate(size, sizes) for size in value.type.shape)
        if value.type.dtype == "bool":
            inputs[value.name] = random.random(shape) < 0.5
        elif is_float(value.type.dtype):
            inputs[value.name] = random.standard_normal(shape, np.float32)
        else:
            limit = evaluate(value.type.indexes.size, sizes) if value.type.indexes is not None else 10
            inputs[value.name] = random.integers(0, limit, shape)
    return inputs
