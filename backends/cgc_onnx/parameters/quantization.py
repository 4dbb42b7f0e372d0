"""Weights of few bits: each block of entries along the contracted axis is integers less a zero point, times a scale.

In 4 bits a block has both, and they are searched for: of some ranges that reach less far than the block's own, whose
steps are finer, the one is taken whose integers come nearest to the block, each with the scale that suits its integers
best (least squares). 8 bits need no search, and no zero point: the entry of largest magnitude is the lowest integer.

The integers are stored two's complement, or shifted to be unsigned, first entry in the low bits, as ONNX's
`DequantizeLinear` and ONNX Runtime's `MatMulNBits` read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cgc.ir.dims import product
from cgc.ir.graph import Graph, Param, Region, Value
from cgc.ir.ops import Call, Dot, Repeat
from cgc.ir.types import TensorType
from cgc.target import TargetError
from cgc_onnx.capabilities import Profile
from cgc_onnx.proto import ElementType

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Bits: TypeAlias = Literal[4, 8]
KINDS: Mapping[str, Bits] = {"int4": 4, "int8": 8}
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256

REACHES = (1.0, 0.95, 0.9)
"""How much of a block's range its integers may span, tried in turn: what lies outside is cut off. More of them, or
finer ones, gain less than 0.3% of the error of normal, Laplace and t distributed entries."""
TILE = 1 << 15
"""Entries looked at together: they stay in a core's cache."""
SMALLEST_SPAN = 1e-36
"""Blocks that reach less far are zeros."""
USES_INTEGERS = 4
"""`accuracy_level` of MatMulNBits: activations are rounded to 8 bits by block too, and integers multiplied."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How matrices are stored: so many bits an entry, so many entries a block; `operator` tells whether the runtime
    multiplies by them as they are, or they are turned into floats first.
    """

    bits: Bits
    block: int
    operator: bool

    @property
    def element(self) -> ElementType:
        """The type of the stored tensor."""
        if self.operator:
            return "u8"
        return "i4" if self.bits == 4 else "i8"

    @property
    def beside(self) -> tuple[str, ...]:
        """The endings of the names of the tensors that lie beside the integers."""
        return ("scale", "zero_point") if self.bits == 4 else ("scale",)

    def fits(self, type_: TensorType, over: Sequence[str]) -> bool:
        """Tell whether a weight contracted along `over` can be cut into blocks."""
        length = product(tuple(type_.dim(name).size for name in over))
        return type_.dtype == "f32" and isinstance(length, int) and length % self.block == 0 and length > 0


def quantization(kind: str | None, block: int | None, profile: Profile) -> Quantization | None:
    """Return what the user asked for, None for nothing.

    Raises:
        TargetError: CG0710, there is no such form, or the opset cannot read it.
    """
    if kind is None:
        if block is not None:
            raise TargetError("CG0710", "`--block` is for quantized weights", "add `--quantize int4`")
        return None
    bits, size = KINDS.get(kind), block or 32
    if bits is None:
        raise TargetError("CG0710", f"there is no form `{kind}` of weights", f"there are {', '.join(KINDS)}")
    if not SMALLEST_BLOCK <= size <= LARGEST_BLOCK or size & (size - 1):
        text = f"a block of {size} entries is none that runtimes read"
        raise TargetError("CG0710", text, f"take a power of two from {SMALLEST_BLOCK} to {LARGEST_BLOCK}")
    operator = profile.fused("MatMulNBits")
    if not operator and not profile.standard("DequantizeLinear by block"):
        text = f"opset {profile.opset} has no operator for weights in blocks"
        raise TargetError("CG0710", text, "add `--runtime ort`, or take `--opset 21` or later")
    return Quantization(bits, size, operator)


# ---- which weights


def contracted(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return the dimensions along which each parameter is contracted, for those that are used in no other way."""
    functions = {function.name: function.body for function in graph.functions}
    found: dict[str, tuple[str, ...]] = {}
    for param in graph.params:
        uses = set(_uses(graph.body, param.value, functions))
        if len(uses) == 1 and (over := uses.pop()):
            found[param.name] = over
    return found


def _uses(region: Region, value: Value, functions: Mapping[str, Region]) -> Iterable[tuple[str, ...]]:
    """Yield how a region uses a value: the dimensions of a contraction in the value's order, () for anything else."""
    for node in region.nodes:
        for place, operand in enumerate(node.inputs):
            if operand.name != value.name:
                continue
            match node.op:
                case Dot(over):
                    other = node.inputs[1 - place]
                    shared = any(other.type.has(name) for name in value.type.names if name not in over)
                    yield () if shared else tuple(name for name in value.type.names if name in over)
                case Call(function):
                    yield from _uses(functions[function], functions[function].arguments[place], functions)
                case Repeat() as op if place >= op.carried + op.shared:
                    yield from _uses(op.body, op.body.arguments[place], functions)
                case _:
                    yield ()
    if any(result.name == value.name for result in region.results):
        yield ()


def rows_first(
    params: Sequence[Param], over: Mapping[str, tuple[str, ...]], how: Quantization
) -> dict[str, tuple[str, ...]]:
    """Return the order of dimensions of every parameter that is quantized: the contracted ones last."""
    return {
        param.name: (*(name for name in param.type.names if name not in over[param.name]), *over[param.name])
        for param in params
        if param.name in over and how.fits(param.type, over[param.name])
    }


# ---- the numbers


def quantize(rows: Array, how: Quantization, name: str) -> tuple[Array, ...]:
    """Return the matrix `name` [rows, columns] as bytes [rows, columns · bits / 8], and what lies beside it: the scales
    [rows, columns / block], and of 4 bits the zero points, two in a byte. The bytes of the zero points begin anew with
    each row for an operator only: otherwise, what is not the end of a matrix has to have an even number of rows.

    Raises:
        TargetError: CG0710, an entry is not finite, or too large to be told from its block's others.
    """
    import numpy as np

    count, length = rows.shape
    blocks = np.ascontiguousarray(rows, np.float32).reshape(-1, how.block)
    integers, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    zeros = np.empty(len(blocks), np.uint8)
    for start in range(0, len(blocks), step := TILE // how.block):
        part = slice(start, start + step)
        tile = np.ascontiguousarray(blocks[part].T)
        if not np.isfinite(tile.max(0) - tile.min(0)).all():
            text = f"`{name}` has an entry that is no finite number, or reaches too far"
            raise TargetError("CG0710", text, "mend the weights, or leave `--quantize` away")
        found, scales[part], zeros[part] = _searched(tile) if how.bits == 4 else _from_largest(tile, how.bits)
        integers[part] = found.astype(np.uint8).T
    if not how.operator:  # shifted back to be signed
        integers ^= 1 << (how.bits - 1)
        zeros ^= 1 << (how.bits - 1)
    by_row = scales.reshape(count, -1)
    if how.bits == 8:
        return integers.reshape(count, length), by_row
    points = zeros.reshape(by_row.shape if how.operator else (1, -1))
    return _in_pairs(integers.reshape(count, length)), by_row, _in_pairs(points)


def _searched(blocks: Array) -> tuple[Array, Array, Array]:
    """Return blocks [entries, blocks] as integers from 0 to 15, and by block the scale and the zero point."""
    import numpy as np

    low, high = np.minimum(blocks.min(0), 0), np.maximum(blocks.max(0), 0)
    span = high - low
    inverses, zeros, scales = np.zeros_like(span), np.zeros_like(span), np.zeros_like(span)
    gains, tried, products = np.full_like(span, -1), np.empty_like(blocks), np.empty_like(blocks)
    for reach in REACHES:
        inverse = np.divide(15 / reach, span, out=np.zeros_like(span), where=span > SMALLEST_SPAN)
        zero = np.clip(np.rint(7.5 - (low + high) * inverse / 2), 0, 15)
        _nearest(blocks, inverse, zero, tried)
        # |block - scale · tried|² is least where scale = block·tried / tried², and then less than block² by
        # block·tried · scale.
        along = np.multiply(blocks, tried, out=products).sum(0)
        square = np.multiply(tried, tried, out=products).sum(0)
        scale = np.divide(along, square, out=np.zeros_like(span), where=square > 0)
        better = (gain := along * scale) > gains
        for kept, found in ((inverses, inverse), (zeros, zero), (scales, scale), (gains, gain)):
            np.copyto(kept, found, where=better)
    _nearest(blocks, inverses, zeros, tried)
    tried += zeros
    return tried, scales, zeros


def _nearest(blocks: Array, inverse: Array, zero: Array, out: Array) -> None:
    """Round blocks [entries, blocks], in units of 1 / `inverse`, to integers from -`zero` to 15 - `zero`."""
    import numpy as np

    np.rint(np.multiply(blocks, inverse, out=out), out=out)
    np.minimum(np.maximum(out, -zero, out=out), 15 - zero, out=out)


def _from_largest(blocks: Array, bits: Bits) -> tuple[Array, Array, int]:
    """Return blocks [entries, blocks] as integers from 0, of which the lowest is each block's entry of largest
    magnitude, and by block the scale; zero is in the middle.
    """
    import numpy as np

    middle = 1 << (bits - 1)
    low, high = blocks.min(0), blocks.max(0)
    scales = np.where(-low > high, low, high) / np.float32(-middle)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > SMALLEST_SPAN)
    return np.clip(np.rint(blocks * inverse), -middle, middle - 1) + middle, scales, middle


def _in_pairs(integers: Array) -> Array:
    """Return integers of 4 bits [rows, columns] as bytes, the first of each two in the low bits."""
    import numpy as np

    if integers.shape[1] % 2:
        integers = np.pad(integers, ((0, 0), (0, 1)))
    pairs = np.ascontiguousarray(integers).view("<u2")
    packed: Array = (pairs | pairs >> 4).astype(np.uint8)
    return packed
