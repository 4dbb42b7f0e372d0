"""Linear maps, seen before they are written: several of one tensor can be written as one product, for an operator that
takes their results side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cgc.ir.dims import Dim
from cgc.ir.graph import Function, Node, Value
from cgc.ir.ops import Binary, Dot
from cgc_onnx.lowering.contraction import matrix_rows, times_matrix, times_packed
from cgc_onnx.lowering.pending import Later, Product
from cgc_onnx.lowering.scope import Scope
from cgc_onnx.parameters.layout import Layout, Parameter, WeightUse, static_size, weight_use
from cgc_onnx.writer import Tensor


@dataclass(frozen=True, slots=True)
class Linear:
    """A function that is one contraction with a weight, and a bias added or none; the numbers are of its operands."""

    use: WeightUse
    x: int
    weight: int
    bias: int | None


def linear(function: Function) -> Linear | None:
    """Return how a function is a linear map, None where it is something else."""
    body = function.body
    place = {value.name: index for index, value in enumerate(body.arguments)}
    params = {param.value.name for param in function.params}
    dots = [node for node in body.nodes if isinstance(node.op, Dot)]
    if len(dots) != 1 or len(body.nodes) > 2 or len(body.results) != 1 or body.nodes[0] is not dots[0]:
        return None
    dot = dots[0]
    assert isinstance(dot.op, Dot)
    a, b = dot.inputs
    use = weight_use(dot.op, (a.type, b.type), (a.name in params, b.name in params))
    if use is None or len(use.groups) != 2 or dot.inputs[1 - use.index].name not in place:
        return None
    x, weight = place[dot.inputs[1 - use.index].name], place[dot.inputs[use.index].name]
    if body.nodes[-1].outputs != body.results or x >= len(body.arguments) - len(params):
        return None
    if len(body.nodes) == 1:
        return Linear(use, x, weight, None)
    bias = _bias(body.nodes[1], dot, params)
    return Linear(use, x, weight, place[bias.name]) if bias else None


def _bias(node: Node, dot: Node, params: set[str]) -> Value | None:
    """Return what is added to a product along all the dimensions that the weight gives it."""
    if not isinstance(node.op, Binary) or node.op.kind != "add":
        return None
    others = [value for value in node.inputs if value.name != dot.output.name]
    if len(others) != 1 or others[0].name not in params:
        return None
    return others[0]


def pending_product(scope: Scope, function: Linear, inputs: Sequence[Value], later: Later) -> Product | None:
    """Return a call of a linear function as a product; None where its weights do not lie as a matrix."""
    use = function.use
    weight = scope.operand(inputs[function.weight])
    bias = scope.operand(inputs[function.bias]) if function.bias is not None else None
    if not isinstance(weight, Parameter) or replace(weight.layout, packed=()) != Layout((), use.groups):
        return None
    first, second = _names(weight)[: use.groups[0]], _names(weight)[use.groups[0] :]
    reduced, produced = (second, first) if use.transposed else (first, second)
    if bias is not None and (not isinstance(bias, Parameter) or bias.loops or _names(bias) != produced):
        return None
    return Product(later, scope.tensor(inputs[function.x]), weight, bias, reduced, produced, use.transposed)


def _names(parameter: Parameter) -> tuple[str, ...]:
    return tuple(dim.name for dim in parameter.dims)


def side_by_side(scope: Scope, products: Sequence[Product], kept: tuple[str, ...], wish: str) -> Tensor | None:
    """Write several products of one tensor as one: [`kept`, all that they produce one behind the other].

    None where they are not of one tensor, or their matrices lie differently. A runtime puts the matrices together as it
    loads the model.
    """
    first = products[0]
    alike = {(each.x.name, each.reduced, each.transposed, each.weight.layout.packed) for each in products}
    biased = {each.bias is None for each in products}
    names = tuple(name for name in first.x.names if name not in first.reduced)
    if len(alike) != 1 or len(biased) != 1 or names != kept:
        return None
    left = matrix_rows(scope, first.x, first.reduced)
    size = sum(math.prod(map(static_size, _produced(each))) for each in products)
    width = Dim("*".join(dict.fromkeys(name for each in products for name in each.produced)), size)
    axis = 0 if first.transposed else 1
    weights = scope.writer.one("Concat", [each.weight.names[0] for each in products], f"{wish}.w", axis=axis)
    if first.weight.layout.packed:
        beside = [
            scope.writer.one("Concat", [each.weight.beside[0][at] for each in products], f"{wish}.{ending}", axis=0)
            for at, ending in enumerate(first.weight.layout.multiplied.packed)
        ]
        out = times_packed(scope, left, (weights, *beside), width, wish)
    else:
        dims = (width, left.dims[-1]) if first.transposed else (left.dims[-1], width)
        out = times_matrix(scope, left, Tensor(weights, dims, left.dtype), first.transposed, wish)
    if first.bias is None:
        return out
    biases = [_flat(scope, each.bias) for each in products if each.bias]
    bias = scope.writer.one("Concat", biases, f"{wish}.b", axis=0)
    return scope.writer.tensor("Add", (out.name, bias), out, f"{wish}.biased")


def _produced(each: Product) -> tuple[Dim, ...]:
    count = each.weight.layout.groups[0 if each.transposed else 1]
    return each.weight.dims[:count] if each.transposed else each.weight.dims[-count:]


def _flat(scope: Scope, bias: Parameter) -> str:
    whole = Dim("*".join(_names(bias)), math.prod(map(static_size, bias.dims)))
    return scope.shapes.reshape(Tensor(bias.names[0], bias.stored, bias.dtype), (whole,), f"{bias.names[0]}.flat").name
