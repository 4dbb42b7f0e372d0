"""What a runtime can run: the one table that decides which operators a model is written in.

`onnx` is the standard at some opset: since which version it has an operator is in `STANDARD`. `ort` is ONNX Runtime,
which has operators of its own beside those (`FUSED`, domain com.microsoft), most of them at any opset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from cgc.target import TargetError

Runtime: TypeAlias = Literal["onnx", "ort"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

NEWEST = 23
"""The opset that models are written in: the first with Attention; ONNX Runtime has it from 1.23 on."""
OLDEST = 18
"""The first opset that has everything a model needs: `Split` into equal parts, axes of `ReduceMax` as an operand."""

IR_VERSIONS: Mapping[int, int] = MappingProxyType({18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11})
"""The file format that came with each opset."""

STANDARD: Mapping[str, int] = MappingProxyType(
    {
        "LayerNormalization": 17,
        "Gelu": 20,
        "DequantizeLinear by block": 21,
        "Attention": 23,
        "RMSNormalization": 23,
        "RotaryEmbedding": 23,
    }
)
"""Operators that came after the oldest opset, or near it, and since which one there are."""

FUSED: Mapping[str, int] = MappingProxyType(
    {
        "FusedMatMul": OLDEST,
        "GatherBlockQuantized": 23,
        "GroupQueryAttention": OLDEST,
        "MatMulNBits": OLDEST,
        "QuickGelu": OLDEST,
        "RotaryEmbedding": OLDEST,
        "SkipLayerNormalization": OLDEST,
        "SkipSimplifiedLayerNormalization": OLDEST,
    }
)
"""Operators of ONNX Runtime's own, and the lowest opset of models that are written with them. Rows with zero points are
looked up since version 1.23, which is the first to read opset 23: a model of a lower one may be for an older runtime.
"""

GROUPED_HEAD = 8
"""`GroupQueryAttention` takes heads of multiples of this size, and turns halves of multiples of it."""

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a model is written for. `padded`: sequences of a batch may start late or end early, as
    `attention_mask` says.
    """

    opset: int = NEWEST
    runtime: Runtime = "onnx"
    padded: bool = True

    def standard(self, operator: str) -> bool:
        """Tell whether the standard operator is there."""
        return STANDARD.get(operator, 0) <= self.opset

    def fused(self, operator: str) -> bool:
        """Tell whether the runtime's own operator is there."""
        return self.runtime == "ort" and FUSED.get(operator, NEWEST + 1) <= self.opset

    @property
    def ir_version(self) -> int:
        """The version of the file format."""
        return IR_VERSIONS[self.opset]


def profile(opset: int | None, runtime: str | None, padded: bool = True) -> Profile:
    """Return what the user asked for.

    Raises:
        TargetError: CG0805, there is no such opset or runtime.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise TargetError("CG0805", f"there is no runtime `{runtime}`", f"there are {', '.join(RUNTIMES)}")
    if opset is not None and opset not in IR_VERSIONS:
        text = f"models are written in the opsets {OLDEST} to {NEWEST}, not {opset}"
        raise TargetError("CG0805", text, f"`--opset {min(max(opset, OLDEST), NEWEST)}` is the nearest")
    return Profile(opset or NEWEST, "ort" if runtime == "ort" else "onnx", padded)
