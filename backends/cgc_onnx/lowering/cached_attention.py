"""Attention of a model that decodes: the operator takes past keys and values and the new ones, and gives back both.

`shown` says which keys a query sees: those that are no later, and no padding (a token always sees itself, so that no
row is empty). It is the same for all layers, and made once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cgc.ir.dims import Dim, Size, add, product, subtract, symbol
from cgc.ir.graph import Function, Node, Value
from cgc.passes.kv_cache import MASK, PAST
from cgc_onnx.capabilities import GROUPED_HEAD, MICROSOFT
from cgc_onnx.lowering.pending import Joined, Product, Turned, written
from cgc_onnx.lowering.products import side_by_side
from cgc_onnx.lowering.scope import Scope, Shared
from cgc_onnx.proto import ELEMENT_TYPES, Attribute
from cgc_onnx.writer import Tensor


@dataclass(frozen=True, slots=True)
class Heads:
    """Which dimensions of queries, keys and values are what; `query` and `key` are the axes of the positions."""

    batch: tuple[str, ...]
    key_heads: tuple[str, ...]
    group: tuple[str, ...]
    head: str
    query: str
    key: str

    @property
    def all(self) -> tuple[str, ...]:
        """The dimensions of a query's heads: those that share a key's head stand together."""
        return (*self.key_heads, *self.group)


def heads_of(q: Value, k: Value, head: str, query: str, key: str) -> Heads | None:
    """Return the roles of dimensions, None where an operator of attention has no place for one of them."""
    outer = [dim for dim in k.type.dims if dim.name not in (key, head)]
    batch = tuple(dim.name for dim in outer if not isinstance(dim.size, int))
    key_heads = tuple(dim.name for dim in outer if isinstance(dim.size, int))
    group = tuple(name for name in q.type.names if name not in (query, head, *batch, *key_heads))
    known = all(isinstance(q.type.dim(name).size, int) for name in (*group, head))
    if len(batch) != 1 or not known or not all(q.type.has(name) for name in (*batch, *key_heads)):
        return None
    return Heads(batch, key_heads, group, head, query, key)


def cached_attention(scope: Scope, node: Node, function: Function, heads: Heads, scale: float) -> Tensor | None:
    """Write `attend` or `attend_with_bias` over keys and values that are joined with their past; None where there is no
    operator for it, or something else has joined them already.
    """
    q, k, v = node.inputs[:3]
    keys, values = scope.operand(k), scope.operand(v)
    if not isinstance(keys, Joined) or not isinstance(values, Joined) or keys is values:
        return None
    if keys.later.whole or values.later.whole:
        return None
    names = [argument.name for argument in function.arguments]
    bias = node.inputs[3] if function.block == "attend_with_bias" else None
    padded = MASK in names and scope.writer.profile.padded
    shown = _shown_bias(scope, q, bias, heads, padded)
    if shown is None:
        return None
    pasts = [_past(scope, joined, heads) for joined in (keys, values)]
    size = q.type.dim(heads.head).size
    attributes: dict[str, Attribute] = {} if _is_usual(scale, size) else {"scale": scale}
    profile = scope.writer.profile
    if _grouped_query(scope, q, heads.head) and MASK in names:
        one = _one_product(scope, node, (keys, values), heads)
        operands, turning = one or (_operands(scope, q, (keys, values), heads), [])
        inputs = [*operands, *pasts, *_lengths(scope, padded), *(turning or ["", "", ""]), shown]
        attributes |= {"num_heads": _count(q, heads.all), "kv_num_heads": _count(q, heads.key_heads)}
        attributes |= {"do_rotary": 1} if turning else {}
        results = _write(scope, node, "GroupQueryAttention", MICROSOFT, _without_last_empty(inputs), attributes)
    elif profile.standard("Attention"):
        inputs = [*_operands(scope, q, (keys, values), heads), _mask(scope, shown, padded), *pasts]
        attributes |= {"q_num_heads": _count(q, heads.all), "kv_num_heads": _count(q, heads.key_heads)}
        attributes |= {} if inputs[3] else {"is_causal": 1}
        results = _write(scope, node, "Attention", "", inputs, attributes)
    else:
        return None
    for joined, value, name in ((keys, k, results[1]), (values, v, results[2])):
        joined.later.whole = _present(scope, name, value, heads)
    dims = tuple(q.type.dim(name) for name in (*heads.batch, heads.query, *heads.all, heads.head))
    merged = Tensor(results[0], (*dims[:2], Dim("*".join(heads.all), _product(dims[2:]))), q.type.dtype)
    return scope.shapes.reshape(scope.writer.note(merged), dims, scope.wish(node.output))


def _grouped_query(scope: Scope, q: Value, head: str) -> bool:
    """Tell whether ONNX Runtime's operator takes these heads."""
    size = q.type.dim(head).size
    fits = isinstance(size, int) and size % GROUPED_HEAD == 0 and q.type.dtype == "f32"
    return fits and scope.writer.profile.fused("GroupQueryAttention")


def _operands(scope: Scope, q: Value, joined: Sequence[Joined], heads: Heads) -> list[str]:
    """Return queries, new keys and new values, each with its heads side by side."""
    queries = _merged(scope, scope.tensor(q), [heads.batch, (heads.query,), (*heads.all, heads.head)])
    return [queries, *(_new_heads(scope, each, heads) for each in joined)]


def _one_product(
    scope: Scope, node: Node, joined: tuple[Joined, Joined], heads: Heads
) -> tuple[list[str], list[str]] | None:
    """Write queries, new keys and new values as one product of what all are made of, and return it as operands, with
    what the operator turns queries and keys by; None where they are no products that nothing else has asked for.
    """
    parts = [scope.operand(node.inputs[0]), *(each.second for each in joined)]
    turned = [part for part in parts if isinstance(part, Turned)]
    products = [part.product if isinstance(part, Turned) else part for part in parts]
    orders = [(*heads.all, heads.head), *[(*heads.key_heads, heads.head)] * 2]
    plain = [part for part in products if isinstance(part, Product)]
    if len(plain) != 3 or [part.produced for part in plain] != orders or any(part.later.whole for part in plain):
        return None
    if turned and (turned != parts[:2] or not _turns_alike(scope, turned)):
        return None
    whole = side_by_side(scope, plain, (*heads.batch, heads.query), f"{scope.wish(node.output)}.heads")
    if whole is None:
        return None
    by = [scope.shared(table).name for table in turned[0].tables] + [turned[0].positions.name] if turned else []
    return [whole.name, "", ""], by


def _turns_alike(scope: Scope, parts: Sequence[Turned]) -> bool:
    """Tell whether the operator can turn queries and keys itself: of a prompt it takes all sequences to begin at one
    position, so that none may start late.
    """
    by = {(part.positions.name, *(table.key for table in part.tables)) for part in parts}
    (half,) = {table.dims[-1].size for part in parts for table in part.tables}
    return len(by) == 1 and isinstance(half, int) and half % GROUPED_HEAD == 0 and not scope.writer.profile.padded


def _without_last_empty(inputs: list[str]) -> list[str]:
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def _write(
    scope: Scope, node: Node, op: str, domain: str, inputs: Sequence[str], attributes: dict[str, Attribute]
) -> list[str]:
    wish = scope.wish(node.output)
    wishes = [f"{wish}.merged", f"{wish}.present.key", f"{wish}.present.value"]
    return scope.writer.emit(op, inputs, wishes, domain=domain, attributes=attributes)


def _is_usual(scale: float, size: Size) -> bool:
    return isinstance(size, int) and math.isclose(scale, size**-0.5, rel_tol=1e-12)


def _count(q: Value, names: Sequence[str]) -> int:
    count = product(tuple(q.type.dim(name).size for name in names))
    assert isinstance(count, int)
    return count


def _product(dims: Sequence[Dim]) -> Size:
    return product(tuple(dim.size for dim in dims))


def _merged(scope: Scope, x: Tensor, groups: Sequence[Sequence[str]]) -> str:
    return scope.shapes.merge(x, groups, ["*".join(group) for group in groups], f"{x.name}.merged").name


def _new_heads(scope: Scope, joined: Joined, heads: Heads) -> str:
    x = written(joined.second)
    (new,) = (name for name in x.names if name not in (*heads.batch, *heads.key_heads, heads.head))
    return _merged(scope, x, [heads.batch, (new,), (*heads.key_heads, heads.head)])


def _past(scope: Scope, joined: Joined, heads: Heads) -> str:
    """Return the past as [batch, heads, positions, head]."""
    x = joined.first
    (past,) = (name for name in x.names if name not in (*heads.batch, *heads.key_heads, heads.head))
    if heads.key_heads:
        return _merged(scope, x, [heads.batch, heads.key_heads, (past,), (heads.head,)])
    ordered = scope.shapes.transpose(x, (*heads.batch, past, heads.head))
    return scope.shapes.unsqueeze(ordered.name, (1,))


def _present(scope: Scope, name: str, value: Value, heads: Heads) -> Tensor:
    dim = value.type.dim
    kept = tuple(dim(name) for name in (*heads.batch, *heads.key_heads, heads.key, heads.head))
    four = (kept[0], Dim("heads", _product(kept[1:-2])), *kept[-2:])
    written = scope.writer.note(Tensor(name, four, value.type.dtype))
    return scope.shapes.reshape(written, kept, f"{name}.split")


# ---- what is shown


def _shown_bias(scope: Scope, q: Value, bias: Value | None, heads: Heads, padded: bool) -> str | None:
    """Return what is added to the scores ("" for nothing), None where the bias does not fit.

    A bias of the model's own comes with minus infinity where nothing is to be seen.
    """
    if bias is None:
        return scope.shared(_ADDED).name if padded and _grouped_query(scope, q, heads.head) else ""
    x = scope.tensor(bias)
    names = set(x.names)
    if names == {heads.query, heads.key}:
        added = scope.shapes.transpose(x, (heads.query, heads.key)).name
    elif heads.all and names == {*heads.all, heads.query, heads.key}:
        added = _merged(scope, x, [heads.all, (heads.query,), (heads.key,)])
    else:
        return None
    nothing = scope.writer.scalar(-math.inf, x.dtype).name
    return scope.writer.one("Where", (scope.shared(_SHOWN).name, added, nothing), f"{x.name}.shown")


def _mask(scope: Scope, bias: str, padded: bool) -> str:
    """Return the mask of the standard operator, "" where its own causal one will do."""
    return bias or (scope.shared(_SHOWN).name if padded else "")


def _lengths(scope: Scope, padded: bool) -> list[str]:
    """Return the index of each sequence's last token, and the number of positions in all."""
    return [scope.shared(_LAST if padded else _LAST_REAL).name, scope.shared(_TOTAL).name]


_BATCH, _SEQ, _ALL = symbol("batch"), symbol("seq"), add(symbol(PAST), symbol("seq"))
_ROWS = (Dim("batch", _BATCH), Dim("1", 1), Dim("seq", _SEQ), Dim("all", _ALL))


def _make_shown(scope: Scope) -> str:
    writer, shapes = scope.writer, scope.shapes
    zero, one = (writer.scalar(value, "i64").name for value in (0, 1))
    total = shapes.scalar(_ALL)
    keys = writer.one("Range", (zero, total, one), "attention.keys")
    start = shapes.scalar(subtract(_ALL, _SEQ))
    rows = writer.one("Range", (start, total, one), "attention.rows")
    rows = writer.one("Unsqueeze", (rows, writer.integers(1)), "attention.queries")
    earlier = writer.one("LessOrEqual", (keys, rows), "attention.causal")
    itself = writer.one("Equal", (keys, rows), "attention.itself")
    mask = writer.one("Cast", (shapes.argument(MASK).name,), "attention.real", to=ELEMENT_TYPES["bool"])
    mask = writer.one("Unsqueeze", (mask, writer.integers(1, 2)), "attention.tokens")
    seen = writer.one("Or", (mask, itself), "attention.seen")
    return writer.one("And", (seen, earlier), "attention.shown")


def _make_added(scope: Scope) -> str:
    shown = scope.shared(_SHOWN).name
    zero, nothing = (scope.writer.scalar(value, "f32").name for value in (0.0, -math.inf))
    return scope.writer.one("Where", (shown, zero, nothing), "attention.added")


def _make_total(scope: Scope) -> str:
    return scope.writer.one("Cast", (scope.shapes.scalar(_ALL),), "attention.total", to=ELEMENT_TYPES["i32"])


def _make_last(scope: Scope) -> str:
    total, one = scope.shared(_TOTAL).name, scope.writer.scalar(1, "i32").name
    last = scope.writer.one("Sub", (total, one), "attention.last.index")
    return scope.writer.one("Expand", (last, scope.shapes.vector(_BATCH)), "attention.last")


def _make_last_real(scope: Scope) -> str:
    mask = scope.shapes.argument(MASK).name
    count = scope.writer.one("ReduceSum", (mask, scope.writer.integers(1)), "attention.count", keepdims=0)
    last = scope.writer.one("Sub", (count, scope.writer.scalar(1, "i64").name), "attention.last.real")
    return scope.writer.one("Cast", (last,), "attention.last", to=ELEMENT_TYPES["i32"])


_SHOWN = Shared("attention.shown", _ROWS, "bool", _make_shown)
_ADDED = Shared("attention.added", _ROWS, "f32", _make_added)
_TOTAL = Shared("attention.total", (), "i32", _make_total)
_LAST = Shared("attention.last", _ROWS[:1], "i32", _make_last)
_LAST_REAL = Shared("attention.last.real", _ROWS[:1], "i32", _make_last_real)
