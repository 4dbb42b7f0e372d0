"""Arithmetic on compile-time numbers: ints stay exact, sizes left open stay symbolic, the rest is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from cgc.elaborate.values import Scalar, Unknown, symbols_of
from cgc.ir.dims import IndivisibleSize, SymbolicSize, add, divide, multiply, subtract

LARGEST = 1 << 62
"""No whole number in a model may be larger."""


OF_NUMBERS = "write numbers that it has a finite result for"
"""How an operation without a result is mended."""


class CannotCompute(ValueError):
    """An operation that has no result; the message says why."""


Plain: TypeAlias = int | float

_COMPARE: dict[str, Callable[[Plain, Plain], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

FUNCTIONS: dict[str, Callable[[float], Plain]] = {
    "exp": math.exp,
    "log": math.log,
    "log2": math.log2,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "erf": math.erf,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "abs": abs,
}


def _unknown(*operands: Scalar) -> Unknown:
    """Return the number that depends on what `operands` depend on."""
    return Unknown(frozenset().union(*map(symbols_of, operands)))


def operate(operator: str, a: Scalar, b: Scalar) -> Scalar:
    """Return `a operator b`.

    Raises:
        CannotCompute: the operands do not fit, or there is no result.
    """
    if operator in ("and", "or"):
        return _logic(operator, a, b)
    if operator in ("==", "!="):
        return _equal(a, b) if operator == "==" else _negate(_equal(a, b))
    if isinstance(a, bool | str) or isinstance(b, bool | str):
        raise CannotCompute(f"`{operator}` takes numbers")
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return _unknown(a, b)
    if isinstance(a, SymbolicSize) or isinstance(b, SymbolicSize):
        return _symbolic(operator, a, b)
    if operator in _COMPARE:
        return _COMPARE[operator](a, b)
    return bounded(_plain(operator, a, b))


def _logic(operator: str, a: Scalar, b: Scalar) -> Scalar:
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return _unknown(a, b)
    if not (isinstance(a, bool) and isinstance(b, bool)):
        raise CannotCompute(f"`{operator}` takes `true` and `false`")
    return (a and b) if operator == "and" else (a or b)


def _equal(a: Scalar, b: Scalar) -> Scalar:
    if isinstance(a, Unknown | SymbolicSize) or isinstance(b, Unknown | SymbolicSize):
        return True if a == b and not isinstance(a, Unknown) else _unknown(a, b)
    if isinstance(a, str) != isinstance(b, str):
        raise CannotCompute("a text is never equal to a number")
    return a == b


def _negate(value: Scalar) -> Scalar:
    return (not value) if isinstance(value, bool) else value


def _symbolic(operator: str, a: int | float | SymbolicSize, b: int | float | SymbolicSize) -> Scalar:
    if isinstance(a, float) or isinstance(b, float):
        return _unknown(a, b)
    match operator:
        case "+":
            return add(a, b)
        case "-":
            return subtract(a, b)
        case "*":
            return multiply(a, b)
        case "/":
            try:
                return divide(a, b)
            except IndivisibleSize:
                return _unknown(a, b)
        case _:
            return _unknown(a, b)


def _plain(operator: str, a: Plain, b: Plain) -> Plain:
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            if b == 0:
                raise CannotCompute("division by zero")
            return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
        case "^":
            return _power(a, b)
        case "max":
            return max(a, b)
        case "min":
            return min(a, b)
        case _:
            raise CannotCompute(f"`{operator}` is not for numbers")


def _power(a: Plain, b: Plain) -> Plain:
    if isinstance(a, int) and isinstance(b, int) and b >= 0 and (abs(a) <= 1 or b <= 64):
        return int(a**b)
    try:
        result = math.pow(a, b)
    except (OverflowError, ValueError) as error:
        raise CannotCompute(f"{a} ^ {b} is not a number that fits") from error
    return result


def bounded(value: Plain) -> Plain:
    """Return `value` unless it is a whole number too large to mean a size (CannotCompute)."""
    if isinstance(value, int) and abs(value) > LARGEST:
        raise CannotCompute("the number is too large")
    return value


def apply(function: str, x: Scalar) -> Scalar:
    """Return a function of a number (`FUNCTIONS`, `neg`, `not`); errors as `operate`."""
    if function == "not":
        if isinstance(x, Unknown):
            return _unknown(x)
        if not isinstance(x, bool):
            raise CannotCompute("`not` takes `true` or `false`")
        return not x
    if isinstance(x, bool | str):
        raise CannotCompute(f"`{function}` takes a number")
    if isinstance(x, Unknown):
        return _unknown(x)
    if function == "neg":
        return multiply(x, -1) if isinstance(x, SymbolicSize) else -x
    if isinstance(x, SymbolicSize):
        return _unknown(x)
    try:
        return bounded(FUNCTIONS[function](x))
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise CannotCompute(f"{function}({x:g}) is not a number") from error
