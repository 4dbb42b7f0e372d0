"""Standard blocks that PyTorch has itself: which they are, as modules and as calls.

Each is equal to its definition in `std/*.cg`; the differential tests prove it. A use that PyTorch's form does not fit
(a softmax over two dimensions) falls back to the definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from cgc.ir.dims import Dim
from cgc.ir.graph import Function, Static
from cgc.ir.ops import Call
from cgc.ir.types import TensorType
from cgc_torch.expressions import ATOM, Expr, arranged, call, flattened, unflattened

DimText: TypeAlias = Callable[[Dim], Expr]

Groups: TypeAlias = tuple[tuple[int, ...], ...]
"""The axes of a value as a variable keeps them: each group of the value's axes is merged, row-major, into one."""

BuiltinKind: TypeAlias = Literal["linear", "layer_norm", "rms_norm"]
InlineKind: TypeAlias = Literal[
    "softmax", "log_softmax", "gelu", "gelu_tanh", "silu", "relu", "attend", "rope", "rope_tables", "extended",
    "new_positions",
]  # fmt: skip
"""Blocks of the library that are expressions, the tables of one (`hoisting`), and what a cache answers (`cached`)."""

_BUILTINS: dict[tuple[str, str], BuiltinKind] = {
    ("std/nn", "linear"): "linear",
    ("std/nn", "layer_norm"): "layer_norm",
    ("std/nn", "rms_norm"): "rms_norm",
}
_INLINES: dict[tuple[str, str], InlineKind] = {
    ("std/nn", "softmax"): "softmax",
    ("std/nn", "log_softmax"): "log_softmax",
    ("std/nn", "gelu"): "gelu",
    ("std/nn", "gelu_tanh"): "gelu_tanh",
    ("std/nn", "silu"): "silu",
    ("std/nn", "relu"): "relu",
    ("std/attention", "attend"): "attend",
    ("std/positions", "rope"): "rope",
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter of a builtin module: cgc's name, PyTorch's, and which axes of ours each axis of PyTorch's merges."""

    param: str
    name: str
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A module of `torch.nn` that stands for a standard block. `inner` is mapped to `outer`; norms keep `inner`."""

    kind: BuiltinKind
    inner: tuple[Dim, ...]
    outer: tuple[Dim, ...]
    eps: float | None
    bias: bool
    slots: tuple[Slot, ...]

    @property
    def type_name(self) -> str:
        """Return the class in `torch.nn`."""
        return {"linear": "nn.Linear", "layer_norm": "nn.LayerNorm", "rms_norm": "nn.RMSNorm"}[self.kind]

    def constructor(self, size: DimText) -> Expr:
        """Return the call that makes the module; `size` writes the size of a dimension."""
        inner = [size(dim).at(ATOM) for dim in self.inner]
        match self.kind:
            case "linear":
                outer = [size(dim).at(ATOM) for dim in self.outer]
                bias = "" if self.bias else "bias=False"
                return call(self.type_name, " * ".join(inner), " * ".join(outer), bias)
            case "layer_norm" | "rms_norm":
                shape = inner[0] if len(inner) == 1 else f"({', '.join(inner)})"
                default = self.kind == "layer_norm" and self.eps == 1e-5
                return call(self.type_name, shape, "" if default else f"eps={self.eps!r}")
            case _:
                assert_never(self.kind)

    def applied(self, module: str, x: Expr, type: TensorType, result: TensorType, size: DimText) -> Expr:
        """Return the module called on `x` of type `type`, as a value of type `result`.

        Dimensions that the module maps may be merged in `type` already (see `takes`).
        """
        inner = self._mapped(type)
        # A variable may keep its axes in another order (`forms`); the result has those of the graph.
        kept = [name for name in result.names if type.has(name) and name not in inner]
        x = arranged(x, type.names, [*kept, *inner])
        if self.kind != "linear":
            y = Expr(f"{module}({x.text})", untyped=True)
            return arranged(y, [*kept, *inner], result.names)
        x = flattened(x, len(kept), len(inner), len(type.dims))
        y = Expr(f"{module}({x.text})", untyped=True)
        if len(self.outer) == 1:
            return y
        return unflattened(y, len(kept), len(kept) + 1, [size(dim).text for dim in self.outer])

    def takes(self, type: TensorType) -> bool:
        """Tell whether a value kept as `type` can be mapped as it is: merged dimensions are neighbours in `inner`."""
        names = {part for name in self._mapped(type) for part in name.split("*")}
        merged = [name for name in type.names if "*" in name]
        return names == {dim.name for dim in self.inner} and all(name in self._mapped(type) for name in merged)

    def _mapped(self, type: TensorType) -> list[str]:
        """Return the dimensions of `type` that the module maps, in the order of `inner`."""
        joined = "*".join(dim.name for dim in self.inner)
        found = [name for name in type.names if f"*{name}*" in f"*{joined}*"]
        return sorted(found, key=lambda name: f"*{joined}*".index(f"*{name}*"))


def builtin(function: Function) -> Builtin | None:
    """Return the module of `torch.nn` that `function` is, None where there is none."""
    kind = _BUILTINS.get((function.library, function.block))
    if kind is None or len(function.arguments) != 1 or len(function.body.results) != 1:
        return None
    (argument,) = function.arguments
    (result,) = function.body.results
    types = {param.name: param.type for param in function.params}
    static = dict(function.static)
    if kind == "linear":
        return _linear(static, types, argument.type, result.type)
    axis = _dim_names(static, "axis")
    eps = static.get("eps")
    names = {"scale": "weight", "bias": "bias"} if kind == "layer_norm" else {"scale": "weight"}
    if not axis or not isinstance(eps, int | float) or any(types[name].names != axis for name in names):
        return None
    every = tuple((i,) for i in range(len(axis)))
    slots = tuple(Slot(param, name, every) for param, name in names.items())
    return Builtin(kind, tuple(argument.type.dim(name) for name in axis), (), float(eps), True, slots)


def _linear(static: dict[str, Static], types: dict[str, TensorType], x: TensorType, y: TensorType) -> Builtin | None:
    ins, outs = _dim_names(static, "in"), _dim_names(static, "out")
    if not ins or not outs or types["w"].names != (*ins, *outs):
        return None
    inner, outer = types["w"].dims[: len(ins)], types["w"].dims[len(ins) :]
    kept = [name for name in x.names if name not in ins]
    if tuple(dim.size for dim in y.dims) != (*(x.dim(n).size for n in kept), *(dim.size for dim in outer)):
        return None
    first, second = tuple(range(len(ins))), tuple(range(len(ins), len(ins) + len(outs)))
    slots = [Slot("w", "weight", (second, first))]
    if "b" in types:
        if types["b"].names != outs:
            return None
        slots.append(Slot("b", "bias", (tuple(range(len(outs))),)))
    return Builtin("linear", inner, outer, None, "b" in types, tuple(slots))


def _dim_names(static: dict[str, Static], name: str) -> tuple[str, ...]:
    value = static.get(name)
    return value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()


def inline(function: Function, lookup: Callable[[str], Function]) -> tuple[InlineKind, dict[str, Static]] | None:
    """Return what `function` is as a call of `torch.nn.functional`, with its compile-time arguments; None for none.

    A library block that only hands its arguments on to such a block (`activate`) is that block.
    """
    kind = _INLINES.get((function.library, function.block))
    if kind is not None:
        static = dict(function.static)
        return (kind, static) if _fits(kind, static, function) else None
    if function.library and len(function.body.nodes) == 1:
        (node,) = function.body.nodes
        if isinstance(node.op, Call) and (node.inputs, node.outputs) == (
            function.body.arguments,
            function.body.results,
        ):
            return inline(lookup(node.op.function), lookup)
    return None


def _fits(kind: InlineKind, static: dict[str, Static], function: Function) -> bool:
    if kind in ("softmax", "log_softmax"):
        return len(_dim_names(static, "axis")) == 1
    if kind == "rope":
        ends = _dim_names(static, "positions"), _dim_names(static, "head")
        x = function.arguments[0].type
        return all(len(names) == 1 and x.has(names[0]) for names in ends) and isinstance(
            static.get("base"), int | float
        )
    if kind == "attend":
        fits = _attend_dims([value.type for value in function.arguments], static) is not None
        return fits and isinstance(static.get("scale"), int | float)
    return True


def rotated(static: dict[str, Static], x: TensorType) -> tuple[Dim, Dim]:
    """Return the dimensions of `x` that rotary positions count along, and that they turn."""
    (positions,), (head,) = _dim_names(static, "positions"), _dim_names(static, "head")
    return x.dim(positions), x.dim(head)


def inlined(
    kind: InlineKind,
    static: dict[str, Static],
    operands: Sequence[Expr],
    types: Sequence[TensorType],
    to: TensorType,
    size: DimText,
    device: Callable[[], str],
) -> Expr:
    """Return the call of `torch.nn.functional` for a block that `inline` recognised.

    `to` is the (first) result's type; `size` writes the size of a dimension, `device` where to make a tensor.
    """
    match kind:
        case "gelu" | "silu" | "relu":
            return arranged(call(f"F.{kind}", operands[0]), types[0].names, to.names)
        case "gelu_tanh":
            return arranged(call("F.gelu", operands[0], 'approximate="tanh"'), types[0].names, to.names)
        case "softmax" | "log_softmax":
            axis = types[0].axis(_dim_names(static, "axis")[0])
            dim = f"dim={-1 if axis == len(types[0].dims) - 1 else axis}"
            return arranged(call(f"F.{kind}", operands[0], dim), types[0].names, to.names)
        case "attend":
            return _attend(operands, types, static, to, size)
        case "rope":
            positions, head = rotated(static, types[0])
            order = [*(name for name in types[0].names if name != head.name), head.name]
            x = arranged(operands[0], types[0].names, order)
            y = call("rope", x, *operands[1:], f"dim={order.index(positions.name)}")
            return arranged(y, order, to.names)
        case "rope_tables":
            base, (positions, head) = static["base"], to.dims
            assert isinstance(base, int | float), "recognised by `inline`"
            start = f"start={static['start']}" if "start" in static else ""
            return call(
                "rope_tables", size(positions), size(head), f"base={float(base)!r}", start, f"device={device()}"
            )
        case "extended":
            old, new = _dim_names(static, "dim")
            x = arranged(operands[0], types[0].names, [old if name == new else name for name in to.names])
            return call("cache.extended", x, f"dim={to.axis(new)}")
        case "new_positions":
            return call("cache.new_positions")
        case _:
            assert_never(kind)


@dataclass(frozen=True, slots=True)
class _Attend:
    """Dimension names of an attention: `shared` q, k and v all have, `group` only q has."""

    query: str
    key: str
    head: str
    value: str
    shared: tuple[str, ...]
    group: tuple[str, ...]


def _attend_dims(types: Sequence[TensorType], static: dict[str, Static]) -> _Attend | None:
    named = [_dim_names(static, name) for name in ("query", "key", "head")]
    if len(types) != 3 or any(len(names) != 1 for names in named):
        return None
    query, key, head = (names[0] for names in named)
    q, k, v = types
    shared = tuple(name for name in q.names if name not in (query, head) and k.has(name))
    group = tuple(name for name in q.names if name not in (query, head) and not k.has(name))
    rest = [name for name in v.names if name not in shared and name != key]
    fits = (
        q.has(query)
        and set(k.names) == {*shared, key, head}
        and len(v.dims) == len(shared) + 2
        and all(v.has(name) for name in (*shared, key))
        and len(rest) == 1
        and rest[0] not in group
    )
    return _Attend(query, key, head, rest[0], shared, group) if fits else None


def _attend(
    operands: Sequence[Expr],
    types: Sequence[TensorType],
    static: dict[str, Static],
    to: TensorType,
    size: DimText,
) -> Expr:
    """Causal attention without materialised scores. PyTorch wants [..., heads, positions, head]."""
    dims = _attend_dims(types, static)
    if dims is None:
        raise AssertionError("recognised by `inline`")
    scale = _scale(static, types[0].dim(dims.head))
    if dims.group:
        return _grouped(operands, types, dims, to, size, (_mask(static), scale))
    q, k, v = (arranged(x, type.names, order) for x, type, order in zip(operands, types, _orders(dims), strict=True))
    y = call("F.scaled_dot_product_attention", q, k, v, _mask(static), scale)
    return arranged(y, [*dims.shared, dims.query, dims.value], to.names)


def _mask(static: dict[str, Static]) -> str:
    """Return what keeps queries from later keys as an argument: as many of them, or those that a cache has too."""
    return f"attn_mask={static['mask']}" if "mask" in static else "is_causal=True"


def _scale(static: dict[str, Static], head: Dim) -> str:
    """Return the factor of the scores as an argument, empty for PyTorch's own: 1 / sqrt(head)."""
    scale = static.get("scale")
    assert isinstance(scale, int | float), "recognised by `inline`"
    usual = isinstance(head.size, int) and math.isclose(scale, head.size**-0.5, rel_tol=1e-12)
    return "" if usual else f"scale={float(scale)!r}"


def _orders(dims: _Attend) -> tuple[list[str], list[str], list[str]]:
    """Return the order of axes in which q, k and v are wanted."""
    shared = list(dims.shared)
    return [*shared, dims.query, dims.head], [*shared, dims.key, dims.head], [*shared, dims.key, dims.value]


def wanted_orders(
    kind: InlineKind, static: dict[str, Static], types: Sequence[TensorType]
) -> list[Sequence[str] | None]:
    """Return for each operand the order of axes that spares a transposition, None where there is none to spare."""
    dims = _attend_dims(types, static) if kind == "attend" else None
    if dims is None:
        return [None] * len(types)
    q, k, v = _orders(dims)
    return [None if dims.group else q, k, v]


def made_order(
    kind: InlineKind, static: dict[str, Static], types: Sequence[TensorType], to: TensorType
) -> list[tuple[str, ...]]:
    """Return the axes in which the result comes by itself, those that come merged together."""
    dims = _attend_dims(types, static) if kind == "attend" else None
    if dims is None:
        return [(name,) for name in to.names]
    lead, merged = _heads(dims)
    return [*((name,) for name in lead), *([tuple(merged)] if merged else []), (dims.query,), (dims.value,)]


def _heads(dims: _Attend) -> tuple[list[str], list[str]]:
    """Return the leading axes of grouped attention, and those merged into one axis of heads; none if not grouped.

    Multi-query attention has no axis of heads that q, k and v share: its groups alone are merged.
    """
    if not dims.group:
        return list(dims.shared), []
    alone = len(dims.shared) < 2
    lead = dims.shared if alone else dims.shared[:-1]
    return list(lead), list(dims.group if alone else (dims.shared[-1], *dims.group))


def _grouped(
    operands: Sequence[Expr],
    types: Sequence[TensorType],
    dims: _Attend,
    to: TensorType,
    size: DimText,
    settings: tuple[str, str],
) -> Expr:
    """Grouped queries: heads of q that share a head of k and v lie next to each other on one axis."""
    q, k, v = operands
    lead, merged = _heads(dims)
    q, names = _merged(q, types[0].names, merged)
    q = arranged(q, names, [*lead, merged[0], dims.query, dims.head])
    _, key_order, value_order = _orders(dims)
    k, v = arranged(k, types[1].names, key_order), arranged(v, types[2].names, value_order)
    if merged[0] not in dims.shared:
        k, v = (x.method(f"unsqueeze({len(lead)})") for x in (k, v))
    y = call("F.scaled_dot_product_attention", q, k, v, *settings, "enable_gqa=True")
    have = [*lead, "*".join(merged), dims.query, dims.value]
    if to.names == tuple(have):
        return y
    order = [have[len(lead)] if name == merged[0] else name for name in to.names if name not in merged[1:]]
    y = arranged(y, have, order)
    y = unflattened(y, order.index(have[len(lead)]), len(order), [size(types[0].dim(name)).text for name in merged])
    apart = [part for name in order for part in name.split("*")]
    return arranged(y, apart, to.names)


def _merged(x: Expr, names: Sequence[str], merged: Sequence[str]) -> tuple[Expr, list[str]]:
    """Merge the axes `merged` of `x` where the first of them stands; return it and the names of its axes."""
    left = [name for name in names if name not in merged[1:]]
    apart = [part for name in left for part in (merged if name == merged[0] else [name])]
    x = arranged(x, names, apart)
    return flattened(x, apart.index(merged[0]), len(merged), len(apart)), left
