"""Derivatives of the elementwise operations, of one operand and of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, assert_never

from cgc.ir.graph import Value
from cgc.ir.ops import BinaryKind, UnaryKind
from cgc.passes.emitter import Emitter


def unary_gradient(emit: Emitter, kind: UnaryKind, g: Value, x: Value, y: Value) -> Value | None:
    """Return the gradient of the operand `x` of `y = kind(x)`; that of |x| is 0 at 0."""
    match kind:
        case "neg":
            return emit.unary("neg", g)
        case "abs":
            below = emit.where(emit.binary("lt", x, 0.0), emit.unary("neg", g), 0.0)
            return emit.where(emit.binary("gt", x, 0.0), g, below)
        case "exp":
            return emit.mul(g, y)
        case "log":
            return emit.binary("div", g, x)
        case "sqrt":
            return emit.binary("div", g, emit.mul(y, 2.0))
        case "rsqrt":
            return emit.mul(g, emit.mul(emit.mul(y, emit.mul(y, y)), -0.5))
        case "sin" | "cos" | "tanh" | "erf" | "sigmoid":
            return emit.mul(g, _bounded(emit, kind, x, y))
        case "floor" | "not":
            return None
        case _:
            assert_never(kind)


def _bounded(emit: Emitter, kind: Literal["sin", "cos", "tanh", "erf", "sigmoid"], x: Value, y: Value) -> Value:
    """Return the derivative of a bounded function at `x`, where it is `y`."""
    match kind:
        case "sin":
            return emit.unary("cos", x)
        case "cos":
            return emit.unary("neg", emit.unary("sin", x))
        case "tanh":
            return _less(emit, 1.0, emit.mul(y, y))
        case "erf":
            bell = emit.unary("exp", emit.unary("neg", emit.mul(x, x)))
            return emit.mul(bell, 2.0 / math.sqrt(math.pi))
        case "sigmoid":
            return emit.mul(y, _less(emit, 1.0, y))
        case _:
            assert_never(kind)


def _less(emit: Emitter, number: float, x: Value) -> Value:
    return emit.binary("sub", emit.number(number, x.type.dtype), x)


def binary_gradient(
    emit: Emitter, kind: BinaryKind, g: Value, operands: Sequence[Value], y: Value, wanted: Sequence[bool]
) -> list[Value | None]:
    """Return the gradients of the `wanted` operands of `y = a kind b`, over the dimensions of all three."""
    a, b = operands

    def both(first: Callable[[], Value], second: Callable[[], Value]) -> list[Value | None]:
        return [rule() if needed else None for rule, needed in zip((first, second), wanted, strict=True)]

    match kind:
        case "add":
            return both(lambda: g, lambda: g)
        case "sub":
            return both(lambda: g, lambda: emit.unary("neg", g))
        case "mul":
            return both(lambda: emit.mul(g, b), lambda: emit.mul(g, a))
        case "div":
            quotient = emit.binary("div", g, b)
            return both(lambda: quotient, lambda: emit.unary("neg", emit.mul(quotient, y)))
        case "pow":
            return both(lambda: _base(emit, g, a, b), lambda: _exponent(emit, g, a, b, y))
        case "max" | "min":
            return both(lambda: _extreme(emit, kind, g, a, b), lambda: _extreme(emit, kind, g, b, a))
        case "mod":
            return both(lambda: g, lambda: emit.mul(g, _whole(emit, a, b, y)))
        case "lt" | "le" | "gt" | "ge" | "eq" | "ne" | "and" | "or":
            return [None, None]
        case _:
            assert_never(kind)


def _base(emit: Emitter, g: Value, a: Value, b: Value) -> Value:
    """Return g · b · a^(b-1), and zero for a power of zero: there the base does not matter."""
    slope = emit.mul(b, emit.binary("pow", a, emit.binary("sub", b, 1.0)))
    return emit.mul(g, emit.where(emit.binary("eq", b, 0.0), emit.number(0.0, b.type.dtype), slope))


def _exponent(emit: Emitter, g: Value, a: Value, b: Value, y: Value) -> Value:
    """Return g · a^b · log(a), and zero for powers of zero that do not grow without bound."""
    slope = emit.mul(y, emit.unary("log", a))
    flat = emit.binary("and", emit.binary("eq", a, 0.0), emit.binary("ge", b, 0.0))
    return emit.mul(g, emit.where(flat, emit.number(0.0, y.type.dtype), slope))


def _extreme(emit: Emitter, kind: BinaryKind, g: Value, own: Value, other: Value) -> Value:
    """Return g where the operand is chosen, and half of it where both are."""
    chosen = emit.binary("gt" if kind == "max" else "lt", own, other)
    tied = emit.where(emit.binary("eq", own, other), emit.mul(g, 0.5), 0.0)
    return emit.where(chosen, g, tied)


def _whole(emit: Emitter, a: Value, b: Value, y: Value) -> Value:
    """Return -⌊a / b⌋ as (y - a) / b with y = a mod b: a quotient that rounds up to a whole number stays below it."""
    return emit.binary("div", emit.binary("sub", y, a), b)
