"""Linear forms in positions: `position(key) - position(seq) + 1` as slopes and a start, and what their sign is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cgc.ir.ops import BinaryKind, UnaryKind
from cgc.ir.types import TensorType

MOST = 8
"""Values that are one of more forms than this are not followed."""


@dataclass(frozen=True, slots=True)
class Form:
    """start + Σ slope · position, by the name of the dimension; slopes are sorted by it, and none is zero."""

    slopes: tuple[tuple[str, Fraction], ...]
    start: Fraction

    @property
    def whole(self) -> bool:
        """Whether all numbers in it are whole."""
        return all(number.denominator == 1 for number in (self.start, *(slope for _, slope in self.slopes)))

    def renamed(self, names: Mapping[str, str]) -> Form:
        """Return the form over other names of the dimensions."""
        return Form(tuple(sorted((names.get(name, name), slope) for name, slope in self.slopes)), self.start)


Forms = tuple[Form, ...]


def sums(a: Form, b: Form) -> Form:
    """Return `a + b`."""
    slopes = dict(a.slopes)
    for name, slope in b.slopes:
        slopes[name] = slopes.get(name, Fraction(0)) + slope
    return Form(tuple(sorted((name, slope) for name, slope in slopes.items() if slope)), a.start + b.start)


def negated(forms: Forms) -> Forms:
    """Return every form times -1."""
    return tuple(_times(form, Fraction(-1)) for form in forms)


def _times(form: Form, number: Fraction) -> Form:
    if not number:
        return Form((), Fraction(0))
    return Form(tuple((name, slope * number) for name, slope in form.slopes), form.start * number)


def scaled(forms: Forms, by: Forms) -> Forms | None:
    """Return every form times a number; None where `by` is no number."""
    if len(by) != 1 or by[0].slopes:
        return None
    return tuple(_times(form, by[0].start) for form in forms)


def several(forms: Iterable[Form]) -> Forms | None:
    """Return the distinct ones of `forms`; None where they are too many."""
    found = tuple(dict.fromkeys(forms))
    return found if len(found) <= MOST else None


def both(a: Forms, b: Forms, combine: Callable[[Form, Form], Form]) -> Forms:
    """Return all combinations of a form of `a` and one of `b`."""
    return tuple(dict.fromkeys(combine(x, y) for x in a for y in b))


def unary_forms(kind: UnaryKind, forms: Forms | None) -> Forms | None:
    """Return the forms of `kind(x)`; None where they are none."""
    if forms is None:
        return None
    match kind:
        case "neg":
            return negated(forms)
        case "abs":
            return several((*forms, *negated(forms)))
        case "floor" if all(form.whole for form in forms):
            return forms
        case _:
            return None


def binary_forms(kind: BinaryKind, a: Forms | None, b: Forms | None) -> Forms | None:
    """Return the forms of `a kind b`; None where they are none."""
    if a is None or b is None:
        return None
    match kind:
        case "add":
            return both(a, b, sums)
        case "sub":
            return both(a, negated(b), sums)
        case "max" | "min":
            return several((*a, *b))
        case "mul":
            return scaled(a, b) or scaled(b, a)
        case "div" if len(b) == 1 and not b[0].slopes and b[0].start:
            return scaled(a, (Form((), 1 / b[0].start),))
        case _:
            return None


def bounds(form: Form, tokens: str, key: str, type: TensorType) -> tuple[float, float]:
    """Return the least and the largest value of a form, and with a `key`, where that is later than the token.

    Positions run from 0 to the size of their dimension in `type`, less one, or without end where it is not known.
    """
    slopes, start = dict(form.slopes), form.start
    late = slopes.pop(key, Fraction(0)) if key else Fraction(0)
    slopes[tokens] = slopes.get(tokens, Fraction(0)) + late
    steps = [(late, math.inf), *((slope, _last(name, type)) for name, slope in slopes.items())]
    low = high = float(start + late)
    for slope, last in steps:
        if slope < 0:
            low += float(slope) * last
        elif slope > 0:
            high += float(slope) * last
    return low, high


def _last(name: str, type: TensorType) -> float:
    size = type.dim(name).size if type.has(name) else None
    return size - 1 if isinstance(size, int) else math.inf


def known_sign(kind: str, ranges: Sequence[tuple[float, float]]) -> float | None:
    """Return what `gap kind 0` is for gaps in all of these ranges: 1, 0, or None where it depends."""
    answers = {_answer(kind, low, high) for low, high in ranges}
    return answers.pop() if len(answers) == 1 else None


def _answer(kind: str, low: float, high: float) -> float | None:
    always = {"lt": high < 0, "le": high <= 0, "gt": low > 0, "ge": low >= 0, "eq": low == high == 0}
    never = {"lt": low >= 0, "le": low > 0, "gt": high <= 0, "ge": high < 0, "eq": low > 0 or high < 0}
    if kind == "ne":
        answer = _answer("eq", low, high)
        return None if answer is None else 1.0 - answer
    return 1.0 if always.get(kind) else 0.0 if never.get(kind) else None
