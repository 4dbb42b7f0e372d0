"""Exponents of growth, and the arithmetic on them: what Θ(n^a) becomes in sums, products and bounded functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

ZERO = -math.inf
"""The exponent of what is exactly zero, or does not change."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Exponents of a value: at initialization, after training, and of the change.

    `aligned` is the part of the change that is alike in all layers: updates of the weights that write the value. What
    comes through fresh random weights is independent from layer to layer.
    """

    init: float
    after: float
    change: float
    aligned: float

    def shifted(self, exponent: float) -> Scale:
        """Return the exponents of the value times Θ(n^exponent)."""
        return Scale(self.init + exponent, self.after + exponent, self.change + exponent, self.aligned + exponent)


def scale(init: float, after: float, change: float) -> Scale:
    """Return exponents of a value of which nothing more is known."""
    return Scale(init, after, change, change)


NOTHING = scale(ZERO, ZERO, ZERO)
STEADY = scale(0.0, 0.0, 0.0)
FIXED = scale(0.0, 0.0, ZERO)


def exponent(value: float, larger: float, ratio: float) -> float:
    """Return the power of the growth `ratio` by which `larger` exceeds `value`, rounded to twelfths."""
    if value == 0 or larger == 0 or math.isinf(value) or math.isinf(larger):
        return ZERO if value == 0 or math.isinf(value) else 0.0
    power = math.log(abs(larger / value)) / math.log(ratio)
    return round(power * 12) / 12


def add(a: Scale, b: Scale) -> Scale:
    """Return the exponents of a sum."""
    pairs = ((a.init, b.init), (a.after, b.after), (a.change, b.change), (a.aligned, b.aligned))
    return Scale(*(max(pair) for pair in pairs))


def multiply(a: Scale, b: Scale, linear: int | None = None) -> Scale:
    """Return the exponents of a product; `linear` is the operand, if any, that fresh random weights made.

    Whatever that one is multiplied by, it has another sign in every layer: only its own change can be alike in all.
    """
    of_a, of_b = a.aligned + b.after, a.after + b.aligned
    aligned = max(of_a, of_b) if linear is None else (of_a, of_b)[linear]
    return Scale(a.init + b.init, a.after + b.after, max(a.change + b.after, a.after + b.change), aligned)


def raised(a: Scale, power: float) -> Scale:
    """Return the exponents of a^power; what is zero is taken for a constant."""
    if a.after == ZERO:
        return FIXED
    init = 0.0 if a.init == ZERO else a.init * power
    after = a.after * power
    return Scale(init, after, after + (a.change - a.after), after + (a.aligned - a.after))


def bounded(a: Scale, odd: bool) -> Scale:
    """Return the exponents of a bounded function; an odd one is linear near zero."""
    if odd:
        return scale(min(a.init, 0.0), min(a.after, 0.0), min(a.change, 0.0))
    return scale(0.0, 0.0, min(a.change, 0.0))


def summed(added: Scale, depth: float) -> tuple[float, float]:
    """Return the exponents at initialization and of the change of what Θ(n^depth) layers add to a residual stream."""
    return added.init + depth / 2, max(added.aligned + depth, added.change + depth / 2)
