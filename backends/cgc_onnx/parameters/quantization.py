"""Weights of few bits: each block of entries along the contracted axis has a scale of its own, and nothing else.

A block's scale puts its entry of largest magnitude at the lowest integer, -2^(bits - 1), so that every other is within
half a step of an integer. The integers are stored two's complement, or shifted to be unsigned, first entry in the low
bits, as ONNX's `DequantizeLinear` and ONNX Runtime's `MatMulNBits` read them.
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


def quantize(rows: Array, how: Quantization) -> tuple[Array, Array]:
    """Return a matrix [rows, columns] as bytes [rows, columns · bits / 8], and its scales [rows, columns / block]."""
    import numpy as np

    count, length = rows.shape
    blocks = np.ascontiguousarray(rows, np.float32).reshape(count, length // how.block, how.block)
    lowest = -(1 << (how.bits - 1))
    at = np.abs(blocks).argmax(-1, keepdims=True)
    scales = (np.take_along_axis(blocks, at, -1) / np.float32(lowest)).astype(np.float32)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    integers = np.clip(np.rint(blocks * inverse), lowest, -lowest - 1).astype(np.int16).reshape(count, length)
    if how.operator:
        integers -= lowest
    stored: Array = integers.astype(np.uint8)
    if how.bits == 4:
        stored = (stored[:, ::2] & 15) | (stored[:, 1::2] << 4)
    return stored, scales[..., 0]
