"""Rotary positions as an operator, with tables of cosines and sines that are made once for the whole model."""

from __future__ import annotations

from cgc.ir.dims import Dim, symbol
from cgc.ir.graph import Function, Node, Value
from cgc.passes.kv_cache import POSITIONS
from cgc_onnx.capabilities import MICROSOFT
from cgc_onnx.proto import ELEMENT_TYPES, Attribute
from cgc_onnx.scope import Scope, Shared
from cgc_onnx.writer import Tensor

WAVES = ("Cos", "Sin")


def rotary(scope: Scope, node: Node, function: Function) -> Tensor | None:
    """Write `rope` or `partial_rope` for tokens whose positions are an input of the model; None where nothing fits."""
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
    return _write(scope, node, (batch[0], seq, heads, head), turned_size, float(base))


def _write(scope: Scope, node: Node, roles: tuple[str, str, list[str], str], turned: int, base: float) -> Tensor | None:
    batch, seq, heads, head = roles
    value, profile = node.inputs[0], scope.writer.profile
    merged = scope.shapes.merge(
        scope.tensor(value), [[batch], [seq], [*heads, head]], [batch, seq, "*".join((*heads, head))], "merged"
    )
    attributes: dict[str, Attribute] = {"num_heads": _count(value, heads), "interleaved": 0}
    if turned != value.type.dim(head).size:
        attributes["rotary_embedding_dim"] = turned
    limit = scope.shapes.limits.get("seq")
    wish = f"{scope.wish(node.output)}.merged"
    if profile.fused("RotaryEmbedding") and limit is not None and isinstance(limit.size, int):
        tables = [scope.shared(_table(wave, base, turned, limit.size)).name for wave in WAVES]
        inputs = [merged.name, scope.ordered(node.inputs[1]).name, *tables]
        (name,) = scope.writer.emit("RotaryEmbedding", inputs, wish, domain=MICROSOFT, attributes=attributes)
    elif profile.standard("RotaryEmbedding"):
        waves = [scope.shared(_waves(wave, base, turned)).name for wave in WAVES]
        (name,) = scope.writer.emit("RotaryEmbedding", [merged.name, *waves], wish, attributes=attributes)
    else:
        return None
    dims = tuple(value.type.dim(name) for name in (batch, seq, *heads, head))
    return scope.shapes.reshape(
        scope.writer.note(Tensor(name, merged.dims, value.type.dtype)), dims, scope.wish(node.output)
    )


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
