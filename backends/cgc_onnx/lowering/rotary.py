"""Rotary positions as an operator, with tables of cosines and sines that are made once for the whole model."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from cgc.ir.dims import Dim, symbol
from cgc.ir.graph import Function, Node, Value
from cgc.passes.kv_cache import POSITIONS
from cgc_onnx.capabilities import MICROSOFT
from cgc_onnx.lowering.deferral import later
from cgc_onnx.lowering.pending import Product, Turned
from cgc_onnx.lowering.scope import Scope, Shared
from cgc_onnx.proto import ELEMENT_TYPES, Attribute
from cgc_onnx.writer import Tensor


def rotary(scope: Scope, node: Node, function: Function) -> Tensor | Turned | None:
    """Write `rope` or `partial_rope` for tokens whose positions are an input of the model; None where nothing fits.

    A product is not turned yet: attention may do so.
    """
    x = node.inputs[0]
    if len(node.inputs) != 2 or function.arguments[1].name != POSITIONS or x.type.dtype != "f32":
        return None
    (seq,), (head,) = (_names(function, name) for name in ("positions", "head"))
    size = x.type.dim(head).size
    turned = function.argument("rotary") if function.block == "partial_rope" else head
    turned_size = _turned(function, turned, size)
    base = function.argument("base")
    batch = [name for name in node.inputs[1].type.names if name != seq]
    if turned_size is None or len(batch) != 1 or not x.type.has(batch[0]) or not isinstance(base, int | float):
        return None
    heads = [name for name in x.type.names if name not in (*batch, seq, head)]
    if any(not isinstance(x.type.dim(name).size, int) for name in heads):
        return None
    roles, operand = (batch[0], seq, heads, head), scope.operand(x)
    tables = _tables(scope, turned_size, float(base))
    if tables is None or not isinstance(operand, Product):
        return _write(scope, node, roles, turned_size, float(base))
    written = later(scope, lambda: _turned_by_tables(scope, node, roles, turned_size, tables))
    return Turned(written, operand, scope.ordered(node.inputs[1]), tables)


Roles: TypeAlias = tuple[str, str, list[str], str]
"""The dimensions of the batch, the positions, the heads, and of what a head holds."""


def _tables(scope: Scope, turned: int, base: float) -> tuple[Shared, Shared] | None:
    """Return the cosines and sines of all positions, None where the runtime takes none, or no last one is known."""
    limit = scope.shapes.limits.get("seq")
    if not scope.writer.profile.fused("RotaryEmbedding") or limit is None or not isinstance(limit.size, int):
        return None
    return _table("Cos", base, turned, limit.size), _table("Sin", base, turned, limit.size)


def _write(scope: Scope, node: Node, roles: Roles, turned: int, base: float) -> Tensor | None:
    tables = _tables(scope, turned, base)
    if tables:
        return _turned_by_tables(scope, node, roles, turned, tables)
    if not scope.writer.profile.standard("RotaryEmbedding"):
        return None
    merged, attributes = _heads_side_by_side(scope, node.inputs[0], roles, turned)
    waves = [scope.shared(_waves(wave, base, turned)).name for wave in ("Cos", "Sin")]
    name = scope.writer.one("RotaryEmbedding", [merged.name, *waves], _wish(scope, node), **attributes)
    return _heads_apart(scope, node, roles, replace(merged, name=name))


def _turned_by_tables(scope: Scope, node: Node, roles: Roles, turned: int, tables: tuple[Shared, Shared]) -> Tensor:
    merged, attributes = _heads_side_by_side(scope, node.inputs[0], roles, turned)
    inputs = [merged.name, scope.ordered(node.inputs[1]).name, *(scope.shared(table).name for table in tables)]
    (name,) = scope.writer.emit("RotaryEmbedding", inputs, _wish(scope, node), domain=MICROSOFT, attributes=attributes)
    return _heads_apart(scope, node, roles, replace(merged, name=name))


def _wish(scope: Scope, node: Node) -> str:
    return f"{scope.wish(node.output)}.merged"


def _heads_side_by_side(scope: Scope, value: Value, roles: Roles, turned: int) -> tuple[Tensor, dict[str, Attribute]]:
    batch, seq, heads, head = roles
    groups, names = [[batch], [seq], [*heads, head]], [batch, seq, "*".join((*heads, head))]
    merged = scope.shapes.merge(scope.tensor(value), groups, names, "merged")
    attributes: dict[str, Attribute] = {"num_heads": _count(value, heads), "interleaved": 0}
    if turned != value.type.dim(head).size:
        attributes["rotary_embedding_dim"] = turned
    return merged, attributes


def _heads_apart(scope: Scope, node: Node, roles: Roles, merged: Tensor) -> Tensor:
    batch, seq, heads, head = roles
    dims = tuple(node.inputs[0].type.dim(name) for name in (batch, seq, *heads, head))
    return scope.shapes.reshape(scope.writer.note(merged), dims, scope.wish(node.output))


def _names(function: Function, argument: str) -> tuple[str, ...]:
    names = function.argument(argument)
    return names if isinstance(names, tuple) else (str(names),)


def _turned(function: Function, turned: object, size: object) -> int | None:
    """Return how many entries of a head are turned: a number, or a dimension of the block."""
    if isinstance(turned, int):
        return turned
    name = turned[0] if isinstance(turned, tuple) and len(turned) == 1 else turned
    if function.block == "rope":
        return size if isinstance(size, int) else None
    for node in function.body.nodes:
        for value in (*node.inputs, *node.outputs):
            if value.type.has(str(name)) and isinstance(found := value.type.dim(str(name)).size, int):
                return found
    return size if isinstance(size, int) else None


def _count(value: Value, heads: list[str]) -> int:
    count = 1
    for name in heads:
        size = value.type.dim(name).size
        assert isinstance(size, int)
        count *= size
    return count


def _frequency(scope: Scope, base: float, turned: int) -> str:
    """1 / base^(2 i / turned) for i below turned / 2, in single precision, as the block defines it."""
    writer = scope.writer
    zero, half, one = (writer.scalar(value, "i64").name for value in (0, turned // 2, 1))
    steps = writer.one("Range", (zero, half, one), "rope.steps")
    steps = writer.one("Mul", (steps, writer.scalar(2, "i64").name), "rope.twice")
    steps = writer.one("Cast", (steps,), "rope.twice.float", to=ELEMENT_TYPES["f32"])
    exponent = writer.one("Div", (steps, writer.scalar(float(turned), "f32").name), "rope.exponent")
    power = writer.one("Pow", (writer.scalar(base, "f32").name, exponent), "rope.power")
    return writer.one("Div", (writer.scalar(1.0, "f32").name, power), "rope.frequency")


def _angles(scope: Scope, positions: str, base: float, turned: int) -> str:
    writer = scope.writer
    numbers = writer.one("Cast", (positions,), "rope.positions", to=ELEMENT_TYPES["f32"])
    return writer.one("Mul", (numbers, _frequency(scope, base, turned)), "rope.angles")


def _table(wave: str, base: float, turned: int, limit: int) -> Shared:
    """Cosines or sines of all positions that the model allows: [position, half]."""

    def make(scope: Scope) -> str:
        writer = scope.writer
        zero, end, one = (writer.scalar(value, "i64").name for value in (0, limit, 1))
        every = writer.one("Range", (zero, end, one), "rope.every")
        every = writer.one("Unsqueeze", (every, writer.integers(1)), "rope.every.column")
        return writer.one(wave, (_angles(scope, every, base, turned),), f"rope.{wave.lower()}")

    dims = (Dim("position", limit), Dim("half", turned // 2))
    return Shared(f"rope.{wave.lower()}.{base:g}.{turned}", dims, "f32", make)


def _waves(wave: str, base: float, turned: int) -> Shared:
    """Cosines or sines of the positions of this run's tokens: [batch, seq, half]."""

    def make(scope: Scope) -> str:
        writer = scope.writer
        positions = writer.one(
            "Unsqueeze", (scope.shapes.argument(POSITIONS).name, writer.integers(2)), "rope.positions.column"
        )
        return writer.one(wave, (_angles(scope, positions, base, turned),), f"rope.{wave.lower()}")

    dims = (Dim("batch", symbol("batch")), Dim("seq", symbol("seq")), Dim("half", turned // 2))
    return Shared(f"rope.{wave.lower()}.{base:g}.{turned}", dims, "f32", make)
