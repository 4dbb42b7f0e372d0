"""Standard-library blocks that ONNX has an operator for. Each gives what the block's own definition gives, or None
where the operator does not fit; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

from cgc.ir.dims import Size, product
from cgc.ir.graph import Function, Node, Value
from cgc.ir.types import is_float
from cgc_onnx.capabilities import MICROSOFT
from cgc_onnx.lowering.cached_attention import cached_attention, heads_of
from cgc_onnx.lowering.pending import Sum, Turned
from cgc_onnx.lowering.rotary import rotary
from cgc_onnx.lowering.scope import Scope
from cgc_onnx.writer import Tensor

Intrinsic: TypeAlias = Callable[[Scope, Node, Function], Tensor | Turned | None]

SKIP: Mapping[str, str] = MappingProxyType(
    {
        "LayerNormalization": "SkipLayerNormalization",
        "RMSNormalization": "SkipSimplifiedLayerNormalization",
    }
)
"""Norm → the operator of ONNX Runtime that adds two tensors first."""


def intrinsic(scope: Scope, node: Node, function: Function) -> Tensor | Turned | None:
    """Write a call of `function` as a standard operator and return its result; None where there is no such operator."""
    if len(node.outputs) != 1 or not is_float(node.output.type.dtype):
        return None
    rule = INTRINSICS.get((function.library, function.block))
    return rule(scope, node, function) if rule else None


def _names(function: Function, argument: str) -> tuple[str, ...]:
    names = function.argument(argument)
    return names if isinstance(names, tuple) else (str(names),)


def _number(function: Function, argument: str) -> float:
    value = function.argument(argument)
    assert isinstance(value, int | float)
    return float(value)


def _norm(op: str) -> Intrinsic:
    """LayerNormalization or RMSNormalization: over the last axes, scale (and bias) shaped like them."""

    def rule(scope: Scope, node: Node, function: Function) -> Tensor | None:
        axis = _names(function, "axis")
        summed = _norm_of_sum(scope, node, op, axis, _number(function, "eps"))
        if summed:
            return summed
        x, params = scope.tensor(node.inputs[0]), node.inputs[1:]
        if x.dtype == "bf16" or any(param.type.names != axis for param in params):
            return None
        if not scope.writer.profile.standard(op):
            return None
        if x.names[-len(axis) :] != axis:
            x = scope.shapes.transpose(x, [*(name for name in x.names if name not in axis), *axis])
        operands = [x.name, *(scope.ordered(param).name for param in params)]
        epsilon = _number(function, "eps")
        return scope.writer.tensor(op, operands, x, scope.wish(node.output), axis=-len(axis), epsilon=epsilon)

    return rule


def _norm_of_sum(scope: Scope, node: Node, op: str, axis: tuple[str, ...], epsilon: float) -> Tensor | None:
    """Write a sum and its norm as one operator of the runtime, which gives both; None where it is no such sum."""
    x, params = scope.operand(node.inputs[0]), node.inputs[1:]
    fused = SKIP[op]
    if not isinstance(x, Sum) or x.later.whole or not scope.writer.profile.fused(fused):
        return None
    if x.first.names[2:] != axis or len(axis) != 1 or not params or any(param.type.names != axis for param in params):
        return None
    wish = scope.wish(node.output)
    inputs = [x.first.name, x.second.name, *(scope.ordered(param).name for param in params)]
    outputs = [wish, "", "", scope.wish(node.inputs[0])]
    normed, _, _, total = scope.writer.emit(fused, inputs, outputs, domain=MICROSOFT, attributes={"epsilon": epsilon})
    x.later.whole = scope.writer.note(replace(x.first, name=total))
    return scope.writer.note(replace(x.first, name=normed))


def _silu(scope: Scope, node: Node, _: Function) -> Tensor | None:
    x = scope.tensor(node.inputs[0])
    if not scope.writer.profile.fused("QuickGelu") or x.dtype != "f32":
        return None
    wish = scope.wish(node.output)
    (name,) = scope.writer.emit("QuickGelu", (x.name,), wish, domain=MICROSOFT, attributes={"alpha": 1.0})
    return scope.writer.note(replace(x, name=name))


def _softmax(op: str) -> Intrinsic:
    def rule(scope: Scope, node: Node, function: Function) -> Tensor | None:
        axis = _names(function, "axis")
        x = scope.tensor(node.inputs[0])
        if len(axis) != 1:
            return None
        return scope.writer.tensor(op, (x.name,), x, scope.wish(node.output), axis=x.axis(axis[0]))

    return rule


def _activation(op: str, **attributes: str) -> Intrinsic:
    def rule(scope: Scope, node: Node, _: Function) -> Tensor | None:
        x = scope.tensor(node.inputs[0])
        # ONNX Runtime has Gelu in single and half precision only.
        if (op == "Gelu" and x.dtype == "f64") or not scope.writer.profile.standard(op):
            return None
        return scope.writer.tensor(op, (x.name,), x, scope.wish(node.output), **attributes)

    return rule


def _attend(scope: Scope, node: Node, function: Function) -> Tensor | None:
    """Attention over [batch, query, heads·head], [batch, key, kv_heads·head]: the operator scales, by 1/sqrt(head) if
    nothing else is said, masks causally and shares keys and values within a group of query heads, as the block does.
    """
    q, k, v = node.inputs[:3]
    (head,), (query,), (key,) = (_names(function, name) for name in ("head", "query", "key"))
    if set(k.type.names) != set(v.type.names) or k.type.has(query) or q.type.has(key):
        return None
    if q.type.dim(query).size != k.type.dim(key).size:
        roles = heads_of(q, k, head, query, key)
        return cached_attention(scope, node, function, roles, _number(function, "scale")) if roles else None
    if not scope.writer.profile.standard("Attention"):
        return None
    outer = [name for name in k.type.names if name not in (key, head)]
    batch, kv_heads = outer[:1], outer[1:]
    group = [name for name in q.type.names if name not in (query, head, *outer)]
    heads = [_size(q, name) for name in (*kv_heads, *group)]
    if not batch or not all(q.type.has(name) for name in outer) or None in heads or not _static(q.type.dim(head).size):
        return None
    mask = _attention_mask(scope, node.inputs[3:], (*kv_heads, *group), query, key)
    if mask is None:
        return None
    wish = scope.wish(node.output)
    operands = [
        _heads(scope, scope.tensor(q), [batch, [query], [*kv_heads, *group, head]]),
        *(_heads(scope, scope.tensor(x), [batch, [key], [*kv_heads, head]]) for x in (k, v)),
    ]
    attributes: dict[str, int | float] = {
        "q_num_heads": _count(q, (*kv_heads, *group)),
        "kv_num_heads": _count(q, kv_heads),
    }
    scale, size = _number(function, "scale"), _count(q, (head,))
    if not math.isclose(scale, size**-0.5, rel_tol=1e-12):
        attributes["scale"] = scale
    inputs = [*(x.name for x in operands), *mask]
    name = scope.writer.one("Attention", inputs, f"{wish}.merged", is_causal=1, **attributes)
    merged = scope.writer.note(Tensor(name, operands[0].dims, q.type.dtype))
    dims = tuple(q.type.dim(name) for name in (*batch, query, *kv_heads, *group, head))
    return scope.shapes.reshape(merged, dims, wish)


def _heads(scope: Scope, x: Tensor, groups: Sequence[Sequence[str]]) -> Tensor:
    return scope.shapes.merge(x, groups, ["*".join(group) for group in groups], f"{x.name}.merged")


def _static(size: Size) -> bool:
    return isinstance(size, int)


def _size(value: Value, name: str) -> int | None:
    size = value.type.dim(name).size if value.type.has(name) else None
    return size if isinstance(size, int) else None


def _count(value: Value, names: Sequence[str]) -> int:
    count = product(tuple(value.type.dim(name).size for name in names))
    assert isinstance(count, int)
    return count


def _attention_mask(
    scope: Scope, bias: Sequence[Value], heads: tuple[str, ...], query: str, key: str
) -> tuple[str, ...] | None:
    """Return what is added to the scores as operands: nothing, or one tensor [query, key] or [heads, query, key]."""
    if not bias:
        return ()
    x = scope.tensor(bias[0])
    names = set(x.names)
    if names == {query, key}:
        return (scope.shapes.transpose(x, (query, key)).name,)
    if not heads or names != {*heads, query, key}:
        return None
    merged = scope.shapes.merge(x, [heads, (query,), (key,)], ["*".join(heads), query, key], f"{x.name}.bias")
    return (scope.shapes.unsqueeze(merged.name, (0,)),)


INTRINSICS: Mapping[tuple[str, str], Intrinsic] = MappingProxyType(
    {
        ("std/nn", "layer_norm"): _norm("LayerNormalization"),
        ("std/nn", "rms_norm"): _norm("RMSNormalization"),
        ("std/nn", "softmax"): _softmax("Softmax"),
        ("std/nn", "log_softmax"): _softmax("LogSoftmax"),
        ("std/nn", "gelu"): _activation("Gelu"),
        ("std/nn", "gelu_tanh"): _activation("Gelu", approximate="tanh"),
        ("std/nn", "relu"): _activation("Relu"),
        ("std/nn", "silu"): _silu,
        ("std/positions", "rope"): rotary,
        ("std/positions", "partial_rope"): rotary,
        ("std/attention", "attend"): _attend,
        ("std/attention", "attend_with_bias"): _attend,
    }
)
"""(library, block) → how it is written."""
