"""Gradients of a graph as the compiler makes them, against those that `torch.autograd` finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch_meaning import DTYPES, run

from cgc.interpret import interpret
from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, evaluate, symbol
from cgc.ir.graph import Graph, Init, Param, Region, Value, walk
from cgc.ir.ops import Binary, Cast, Reduce, Repeat
from cgc.ir.read import parse_graph
from cgc.ir.text import print_graph
from cgc.ir.types import TensorType, is_float
from cgc.ir.verify import verify
from cgc.passes.autodiff import autodiff
from cgc.passes.copying import names_of, no_function
from cgc.passes.inline import inline
from cgc.passes.unroll import unroll

Array: TypeAlias = np.ndarray[Any, Any]
Arrays: TypeAlias = Mapping[str, Array]

TOLERANCE = 1e-9
SMALLEST = 1e-3
"""Gradients that should vanish are held to the tolerance times this."""


def trained(graph: Graph) -> Graph:
    """Return `graph` with its float inputs as parameters, so that all of them have a gradient.

    For each free size there is one more input that tells it, of no other use.
    """
    names = names_of(graph)
    told = [Dim(known.name, symbol(known.name)) for known in graph.symbols]
    given = [value for value in graph.inputs if not is_float(value.type.dtype)]
    given += [Value(names.exact(f"size.{dim.name}"), TensorType((dim,), "bool")) for dim in told]
    floats = [value for value in graph.inputs if is_float(value.type.dtype)]
    params = (*(Param(value, Init("normal", std=1.0)) for value in floats), *graph.params)
    arguments = (*given, *(param.value for param in params))
    return verify(replace(graph, params=params, body=replace(graph.body, arguments=arguments)))


def with_weighted_loss(graph: Graph) -> Graph:
    """Return `graph` with one output, Σ y · c over all float outputs y; each c is an input `weight.I` of y's type."""
    names = names_of(graph)
    build = Builder(names, no_function)
    weights: list[Value] = []
    total: Value | None = None
    for value in graph.body.results:
        if is_float(value.type.dtype):
            weight = Value(names.exact(f"weight.{len(weights)}"), TensorType(value.type.dims, value.type.dtype))
            weights.append(weight)
            each = build.one(Binary("mul"), value, weight)
            part = build.one(Cast("f64"), build.one(Reduce("sum", each.type.names), each))
            total = part if total is None else build.one(Binary("add"), total, part)
    assert total is not None, "no output is a float"
    arguments = (*graph.inputs, *weights, *(param.value for param in graph.params))
    nodes = build.finish((), ()).nodes
    return verify(replace(graph, outputs=("loss",), body=Region(arguments, (*graph.body.nodes, *nodes), (total,))))


def samples(graph: Graph, sizes: Mapping[str, int], seed: int, spread: float = 1.0) -> dict[str, Array]:
    """Return random arrays for all arguments of a graph: indices in range, floats normal with deviation `spread`."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for value in graph.body.arguments:
        shape = tuple(evaluate(size, sizes) for size in value.type.shape)
        if value.type.dtype == "bool":
            found[value.name] = np.asarray(rng.random(shape) < 0.5)
        elif is_float(value.type.dtype):
            found[value.name] = np.asarray(rng.standard_normal(shape) * spread)
        else:
            most = evaluate(value.type.indexes.size, sizes) if value.type.indexes else 10
            found[value.name] = np.asarray(rng.integers(0, most, shape))
    return found


def autograd(graph: Graph, arrays: Arrays, sizes: Mapping[str, int], double: bool = True) -> dict[str, Array]:
    """Return the loss of `graph` and its gradients as `torch.autograd` has them, under the names that cgc gives."""
    arguments: dict[str, torch.Tensor] = {}
    for value in graph.body.arguments:
        floats = is_float(value.type.dtype)
        dtype = torch.float64 if double and floats else DTYPES[value.type.dtype]
        arguments[value.name] = torch.tensor(arrays[value.name], dtype=dtype)
    for param in graph.params:
        arguments[param.name].requires_grad_()
    (loss,) = run(graph, arguments, sizes, double)
    if loss.requires_grad:
        loss.backward()
    found = {graph.outputs[0]: _numpy(loss)}
    for param in graph.params:
        x = arguments[param.name]
        found[f"grad.{param.name}"] = _numpy(x.grad if x.grad is not None else torch.zeros_like(x))
    return found


def _numpy(x: torch.Tensor) -> Array:
    return np.asarray(x.detach().double().numpy())


def derived(graph: Graph, recompute: bool = False) -> Graph:
    """Return the gradients of `graph`; they are a valid graph whose text reads back, and the same every time."""
    found = verify(autodiff(graph, recompute))
    text = print_graph(found)
    assert parse_graph(text) == found
    assert print_graph(autodiff(graph, recompute)) == text
    assert found.params == graph.params and found.inputs == graph.inputs
    return found


def check(graph: Graph, arrays: Arrays, sizes: Mapping[str, int], tolerance: float = TOLERANCE) -> None:
    """Check every gradient of a graph with a scalar output: with and without recomputation, loops kept and unrolled."""
    expected = autograd(graph, arrays, sizes)
    found = derived(graph)
    ways = {"loops kept": found}
    if any(isinstance(node.op, Repeat) for node in walk(inline(graph).body)):
        again = derived(graph, recompute=True)
        ways |= {"unrolled": verify(unroll(found)), "again": again, "again, unrolled": verify(unroll(again))}
    else:
        assert autodiff(graph, recompute=True) == found
    for way, each in ways.items():
        got = interpret(each, unstacked(each, arrays), arrays, np.float64)
        compare(expected, got, way, tolerance)


def unstacked(graph: Graph, arrays: Arrays) -> Arrays:
    """Return the weights of a graph that may be unrolled: `h.1.w` is entry 1 of `h.w`."""
    found: dict[str, Array] = {}
    for param in graph.params:
        parts = param.name.split(".")
        index = tuple(int(part) for part in parts if part.isdigit())
        whole = ".".join(part for part in parts if not part.isdigit())
        found[param.name] = arrays[whole][index] if index else arrays[param.name]
    return found


def compare(expected: Arrays, found: Arrays, what: str, tolerance: float = TOLERANCE) -> None:
    """Check arrays by name, relative to the largest entry of each; what is not finite has to be the same."""
    assert list(found) == list(expected), what
    for name, wanted in expected.items():
        got = np.asarray(found[name])
        assert got.shape == wanted.shape, (what, name, got.shape, wanted.shape)
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(got[~finite], wanted[~finite], f"{what}: {name}")
        scale = float(np.abs(wanted[finite]).max(initial=SMALLEST))
        gap = float(np.abs(got[finite] - wanted[finite]).max(initial=0.0)) / scale
        assert gap <= tolerance, (what, name, gap)
