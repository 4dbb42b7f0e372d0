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

from cgc.checkpoints import require_finite
from cgc.ir.dims import product
from cgc.ir.graph import Graph, Region, Value
from cgc.ir.ops import Call, Dot, Gather, Repeat
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
finer ones, gain less than 0.5% of the error of normal, Laplace and t distributed entries."""
TILE = 1 << 17
"""Entries looked at together: they stay in a core's cache."""
SMALLEST_SPAN = 1e-36
"""Blocks that reach no farther are zeros."""
USES_INTEGERS = 4
"""`accuracy_level` of MatMulNBits: activations are rounded to 8 bits by block too, and integers multiplied."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How matrices are stored: so many bits an entry, so many entries a block; `operator` tells whether the runtime
    multiplies by them as they are, or they are turned into floats first, `lookup` whether it also looks up rows of
    those that it multiplies by.
    """

    bits: Bits
    block: int
    operator: bool
    lookup: bool = False

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

    def fits_lookup(self, type_: TensorType, over: Sequence[str]) -> bool:
        """Tell whether rows along `over` of a weight that is multiplied by can also be looked up as it is stored.

        Zero points of 4 bits fill whole bytes in each row: ONNX Runtime before 1.27 does not begin a byte with a row.
        """
        length = product(tuple(type_.dim(name).size for name in over))
        even = isinstance(length, int) and length // self.block % 2 == 0
        return self.lookup and self.fits(type_, over) and (even or self.bits == 8)


def quantization(kind: str | None, block: int | None, profile: Profile) -> Quantization | None:
    """Return what the user asked for, None for nothing.

    Raises:
        TargetError: CG0710, there is no such form, or the opset cannot read it.
    """
    if kind is None:
        if block is not None:
            raise TargetError("CG0710", "`--block` is for quantized weights", "add `--quantize int4`")
        return None
    bits, size = KINDS.get(kind), 32 if block is None else block
    if bits is None:
        raise TargetError("CG0710", f"there is no form `{kind}` of weights", f"there are {', '.join(KINDS)}")
    if not SMALLEST_BLOCK <= size <= LARGEST_BLOCK or size & (size - 1):
        text = f"a block of {size} entries is none that runtimes read"
        raise TargetError("CG0710", text, f"take a power of two from {SMALLEST_BLOCK} to {LARGEST_BLOCK}")
    operator = profile.fused("MatMulNBits")
    if not operator and not profile.standard("DequantizeLinear by block"):
        text = f"opset {profile.opset} has no operator for weights in blocks"
        raise TargetError("CG0710", text, "add `--runtime ort`, or take `--opset 21` or later")
    return Quantization(bits, size, operator, profile.fused("GatherBlockQuantized"))


# ---- which weights


@dataclass(frozen=True, slots=True)
class Matrix:
    """A parameter as a matrix, its `kept` dimensions by the `contracted` ones, for each index of its `loops`."""

    loops: tuple[str, ...]
    kept: tuple[str, ...]
    contracted: tuple[str, ...]

    def order(self, how: Quantization) -> tuple[str, ...]:
        """Return the order in which the dimensions are stored: the contracted ones last for the runtime's operator, and
        first for a standard tensor, of which runtimes make one for their operator.
        """
        matrix = (self.kept, self.contracted) if how.operator else (self.contracted, self.kept)
        return (*self.loops, *matrix[0], *matrix[1])


def matrices(graph: Graph, how: Quantization) -> dict[str, Matrix]:
    """Return the parameters that are quantized: matrices that fit, and are used in no other way, but that the runtime
    can look up rows of one that it multiplies by.

    Raises:
        TargetError: CG0710, there are none.
    """
    functions = {function.name: function.body for function in graph.functions}
    found: dict[str, Matrix] = {}
    only_multiplied = 0
    for param in graph.params:
        uses = list(_uses(graph.body, param.value, functions))
        same = {(use.kept, use.over) for use in uses}
        kept, over = same.pop() if len(same) == 1 else ((), ())
        looked_up = [use.looked_up for use in uses]
        if not kept or not over or all(looked_up):
            continue
        only_multiplied += not any(looked_up)
        if how.fits_lookup(param.type, over) if any(looked_up) else how.fits(param.type, over):
            loops = tuple(name for name in param.type.names if name not in (*kept, *over))
            found[param.name] = Matrix(loops, kept, over)
    if not found:
        text = f"no matrix of the model can be stored in blocks of {how.block}"
        hint = "blocks cut the contracted length evenly: take a smaller `--block`, or leave `--quantize` away"
        if not only_multiplied:
            hint = "leave `--quantize` away: each is used in several ways, or none is multiplied by"
            if not how.lookup:
                hint += "; ONNX Runtime looks rows up in one that it multiplies by: `--runtime ort`"
        raise TargetError("CG0710", text, hint)
    return found


@dataclass(frozen=True, slots=True)
class _Use:
    """The dimensions of a matrix that a contraction keeps and those that it contracts, in its order, or those that a
    row is looked up by and those that it has; none for any other use.
    """

    kept: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    looked_up: bool = False


def _uses(region: Region, value: Value, functions: Mapping[str, Region]) -> Iterable[_Use]:
    """Yield how a region uses a value."""
    for node in region.nodes:
        for place, operand in enumerate(node.inputs):
            if operand.name != value.name:
                continue
            match node.op:
                case Dot(over):
                    other = node.inputs[1 - place]
                    shared = any(other.type.has(name) for name in value.type.names if name not in over)
                    names = value.type.names if not shared else ()
                    yield _Use(tuple(n for n in names if n not in over), tuple(n for n in names if n in over))
                case Gather(dim) if place == 0 and not any(node.inputs[1].type.has(n) for n in value.type.names):
                    yield _Use((dim,), tuple(n for n in value.type.names if n != dim), looked_up=True)
                case Call(function, _, args) if place >= args:
                    yield from _uses(functions[function], functions[function].arguments[place], functions)
                case Repeat() as op if place >= op.carried + op.shared:
                    yield from _uses(op.body, op.body.arguments[place], functions)
                case _:
                    yield _Use()
    if any(result.name == value.name for result in region.results):
        yield _Use()


# ---- the numbers


def quantize(matrix: Array, how: Quantization, name: str) -> tuple[Array, ...]:
    """Return the integers of the matrix `name` as bytes, and what lies beside them by block: the scales, and of 4 bits
    the zero points, two in a byte. Blocks are along the last axis for the runtime's operator, else along the first.

    The zero points of an operator begin a byte with each row. Those of a standard tensor do not: a part of a matrix
    that is not its end has an even number of blocks along the first axis, or they would end within a byte.

    Raises:
        InputError: CG0708, an entry is not finite.
        TargetError: CG0710, one is too large to be told from its block's others.
    """
    import numpy as np

    integers = np.empty(matrix.shape, np.uint8)
    blocks, found = (_by_block(each, how) for each in (matrix, integers))
    _, groups, count = blocks.shape
    scales, zeros = np.empty((groups, count), np.float32), np.empty((groups, count), np.uint8)
    wide = min(count, TILE // how.block)
    high = max(1, TILE // (how.block * wide))
    for group in range(0, groups, high):
        for start in range(0, count, wide):
            part = slice(group, group + high), slice(start, start + wide)
            tile = np.ascontiguousarray(blocks[:, *part], np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                reach = tile.max(0) - tile.min(0)
            if not np.isfinite(reach).all():
                require_finite(name, tile)
                text = f"`{name}` reaches too far for its blocks to have a scale"
                raise TargetError("CG0710", text, "mend the weights, or leave `--quantize` away")
            fitted = _searched(tile) if how.bits == 4 else _from_largest(tile, how.bits)
            found[:, *part] = fitted[0].astype(np.uint8)
            scales[part], zeros[part] = fitted[1:]
    if not how.operator:  # shifted back to be signed
        integers ^= 1 << (how.bits - 1)
        zeros ^= 1 << (how.bits - 1)
        zeros = zeros.reshape(1, -1)
    if how.bits == 8:
        return integers, scales
    return _in_pairs(integers if how.operator else integers.reshape(1, -1)), scales, _in_pairs(zeros)


def _by_block(matrix: Array, how: Quantization) -> Array:
    """Return a matrix as [entries of a block, groups of blocks, blocks]."""
    if how.operator:
        return matrix.reshape(len(matrix), -1, how.block).transpose(2, 0, 1)
    return matrix.reshape(-1, how.block, matrix.shape[1]).transpose(1, 0, 2)


def _searched(blocks: Array) -> tuple[Array, Array, Array]:
    """Return blocks [entries, …] as integers from 0 to 15, and by block the scale and the zero point."""
    import numpy as np

    low, high = np.minimum(blocks.min(0), 0), np.maximum(blocks.max(0), 0)
    span = high - low
    blocks = blocks * np.divide(1, span, out=np.zeros_like(span), where=span > SMALLEST_SPAN)
    middle = np.divide(low + high, 2 * span, out=np.zeros_like(span), where=span > SMALLEST_SPAN)
    inverses, zeros, scales = np.zeros_like(span), np.zeros_like(span), np.zeros_like(span)
    gains, tried, products = np.full_like(span, -1), np.empty_like(blocks), np.empty_like(blocks)
    for reach in REACHES:
        inverse = np.full_like(span, 15 / reach)
        zero = np.clip(np.rint(7.5 - middle * inverse), 0, 15)
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
    return tried, scales * span, zeros


def _nearest(blocks: Array, inverse: Array, zero: Array, out: Array) -> None:
    """Round blocks [entries, …], in units of 1 / `inverse`, to integers from -`zero` to 15 - `zero`."""
    import numpy as np

    np.rint(np.multiply(blocks, inverse, out=out), out=out)
    np.minimum(np.maximum(out, -zero, out=out), 15 - zero, out=out)


def _from_largest(blocks: Array, bits: Bits) -> tuple[Array, Array, int]:
    """Return blocks [entries, …] as integers from 0, of which the lowest is each block's entry of largest
    magnitude, and by block the scale; zero is in the middle.
    """
    import numpy as np

    middle = 1 << (bits - 1)
    low, high = blocks.min(0), blocks.max(0)
    largest = np.where(-low > high, low, high)
    scales = largest / np.float32(-middle)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(largest) > SMALLEST_SPAN)
    return np.clip(np.rint(blocks * inverse), -middle, middle - 1) + middle, scales, middle


def _in_pairs(integers: Array) -> Array:
    """Return integers of 4 bits [rows, columns] as bytes, the first of each two in the low bits."""
    import numpy as np

    if integers.shape[1] % 2:
        integers = np.pad(integers, ((0, 0), (0, 1)))
    pairs = np.ascontiguousarray(integers).view("<u2")
    packed: Array = (pairs | pairs >> 4).astype(np.uint8)
    return packed
