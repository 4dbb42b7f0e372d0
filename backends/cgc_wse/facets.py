"""What the cost model asks of each primitive: the memory traffic of one application, and what its derivative reads."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import assert_never

from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)

Shape = dict[str, int]
"""Sizes by dimension name."""


def renames_only(op: Op) -> bool:
    """Tell whether the result is the operand's entries under another name or shape, or a part of them."""
    return isinstance(op, Rename | Transpose | Split | Merge | Slice)


def traffic(op: Op, multiply_adds: int, operands: Sequence[Shape], results: Sequence[Shape]) -> tuple[int, int]:
    """Return (elements read from SRAM, elements written) by one application, in which a dot makes `multiply_adds`.

    A multiply-add reads one operand; the other stays in a register and the sum in an accumulator until it is done.
    Every other op reads its operands once and writes its results; renaming and generating cost nothing.
    """
    written = sum(prod(shape.values()) for shape in results)
    match op:
        case Constant() | Position() | Rename() | Transpose() | Split() | Merge() | Slice():
            return 0, 0
        case Dot():
            return multiply_adds, written
        case Gather():
            return written, written
        case Unary() | Binary() | Where() | Cast() | Reduce() | Scan() | Scatter() | Concat() | TopK():
            return sum(prod(shape.values()) for shape in operands), written
        case Call() | Repeat():
            raise AssertionError("calls and loops are entered")
        case _:
            assert_never(op)


def derivative_reads(op: Op) -> tuple[tuple[int, ...], bool]:
    """Return which operands the derivative of `op` reads, and whether it reads the result."""
    match op:
        case (
            Constant() | Position() | Rename() | Transpose() | Split() | Merge() | Slice() | Cast() | Concat() | Scan()
        ):
            return (), False
        case Dot():
            return (0, 1), False
        case Gather() | Scatter():
            return (1,), False
        case Where():
            return (0,), False
        case TopK():
            return (), True
        case Unary():
            return _unary_reads(op)
        case Binary():
            return ((0, 1), False) if op.kind in ("mul", "div", "pow", "max", "min") else ((), False)
        case Reduce():
            return ((0,), True) if op.kind in ("max", "min") else ((), False)
        case Call() | Repeat():
            raise AssertionError("calls and loops are entered")
        case _:
            assert_never(op)


def _unary_reads(op: Unary) -> tuple[tuple[int, ...], bool]:
    match op.kind:
        case "neg" | "floor" | "not":
            return (), False
        case "exp" | "sqrt" | "rsqrt" | "tanh" | "sigmoid":
            return (), True
        case "abs" | "log" | "sin" | "cos" | "erf":
            return (0,), False
        case _:
            assert_never(op.kind)
