"""Sizes and named dimensions.

A size is an `int` where it is known and a `SymbolicSize`, a polynomial with rational coefficients over named symbols,
where it is not: `batch` and `seq` at run time, `width` and `heads` in a family checked on its own. Both are plain,
hashable values in one canonical form, so that two sizes are equal exactly when `==` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

Monomial: TypeAlias = tuple[tuple[str, int], ...]
"""Symbols with their (possibly negative) exponents, sorted by name; the empty tuple is the constant."""


@dataclass(frozen=True, slots=True)
class SymbolicSize:
    """A size that depends on symbols: Σ coefficient · Π symbol^exponent, terms sorted, no zero coefficients."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    def symbols(self) -> frozenset[str]:
        """Return the names this size depends on."""
        return frozenset(name for monomial, _ in self.terms for name, _ in monomial)

    def __str__(self) -> str:
        return "+".join(_term_text(monomial, coefficient) for monomial, coefficient in self.terms)


Size: TypeAlias = int | SymbolicSize


@dataclass(frozen=True, slots=True)
class Dim:
    """A named dimension: `width` of size 768, or `key` of size `seq`."""

    name: str
    size: Size

    def __str__(self) -> str:
        text = str(self.size)
        return self.name if text == self.name else f"{self.name}={text}"


class IndivisibleSize(ValueError):
    """A division of sizes that leaves a remainder, or whose divisor is not a single term."""


def symbol(name: str) -> SymbolicSize:
    """Return the size that is the free symbol `name`."""
    return SymbolicSize((((((name, 1),)), Fraction(1)),))


def _term_text(monomial: Monomial, coefficient: Fraction) -> str:
    factors = [name if exponent == 1 else f"{name}^{exponent}" for name, exponent in monomial]
    if coefficient != 1 or not factors:
        factors.insert(0, str(coefficient))
    return "*".join(factors)


def _terms(size: Size) -> dict[Monomial, Fraction]:
    if isinstance(size, int):
        return {(): Fraction(size)} if size else {}
    return dict(size.terms)


def _canonical(terms: Mapping[Monomial, Fraction]) -> Size:
    kept = sorted((monomial, value) for monomial, value in terms.items() if value)
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == () and kept[0][1].denominator == 1:
        return int(kept[0][1])
    return SymbolicSize(tuple(kept))


def add(a: Size, b: Size) -> Size:
    """Return `a + b`."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    terms = _terms(a)
    for monomial, coefficient in _terms(b).items():
        terms[monomial] = terms.get(monomial, Fraction(0)) + coefficient
    return _canonical(terms)


def subtract(a: Size, b: Size) -> Size:
    """Return `a - b`."""
    return add(a, multiply(b, -1))


def _join(a: Monomial, b: Monomial, sign: int) -> Monomial:
    exponents = dict(a)
    for name, exponent in b:
        exponents[name] = exponents.get(name, 0) + sign * exponent
    return tuple(sorted((name, exponent) for name, exponent in exponents.items() if exponent))


def multiply(a: Size, b: Size) -> Size:
    """Return `a · b`."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    terms: dict[Monomial, Fraction] = {}
    for left, x in _terms(a).items():
        for right, y in _terms(b).items():
            monomial = _join(left, right, 1)
            terms[monomial] = terms.get(monomial, Fraction(0)) + x * y
    return _canonical(terms)


def divide(a: Size, b: Size) -> Size:
    """Return `a / b` where it is exact; a symbolic quotient is kept as a ratio.

    Raises:
        IndivisibleSize: two integers leave a remainder, `b` is zero, or `b` is a sum.
    """
    if isinstance(a, int) and isinstance(b, int):
        if b == 0 or a % b:
            raise IndivisibleSize(f"{a} / {b}")
        return a // b
    return _ratio(a, b)


def _ratio(a: Size, b: Size) -> Size:
    """Return `a / b`, which may be a fraction without symbols."""
    divisor = _terms(b)
    if len(divisor) != 1:
        raise IndivisibleSize(f"{a} / ({b})")
    ((monomial, coefficient),) = divisor.items()
    return _canonical({_join(m, monomial, -1): c / coefficient for m, c in _terms(a).items()})


def product(sizes: tuple[Size, ...]) -> Size:
    """Return the product of `sizes`; 1 for none."""
    total: Size = 1
    for size in sizes:
        total = multiply(total, size)
    return total


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """Return the integer that `size` is once every symbol in it has a value.

    Raises:
        KeyError: a symbol has no value.
        IndivisibleSize: the value is not an integer.
    """
    if isinstance(size, int):
        return size
    total = Fraction(0)
    for monomial, coefficient in size.terms:
        term = coefficient
        for name, exponent in monomial:
            term *= Fraction(values[name]) ** exponent
        total += term
    if total.denominator != 1:
        raise IndivisibleSize(f"{size} = {total}")
    return int(total)


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """Return `size` with each symbol that `values` names replaced by its value.

    Raises:
        IndivisibleSize: a symbol to divide by became zero or a sum.
    """
    if isinstance(size, int) or not size.symbols() & values.keys():
        return size
    total: Size = 0
    for monomial, coefficient in size.terms:
        term: Size = _canonical({(): coefficient})
        for name, exponent in monomial:
            factor = values.get(name, symbol(name))
            for _ in range(abs(exponent)):
                term = multiply(term, factor) if exponent > 0 else _ratio(term, factor)
        total = add(total, term)
    return total


def parse_size(text: str) -> Size:
    """Parse what `str` of a size prints.

    Raises:
        ValueError: `text` is not a size.
    """
    total: dict[Monomial, Fraction] = {}
    for part in text.split("+"):
        coefficient = Fraction(1)
        monomial: Monomial = ()
        for factor in part.split("*"):
            if factor[:1].isdigit() or factor[:1] == "-":
                coefficient *= _fraction(factor)
                continue
            name, _, exponent = factor.partition("^")
            if not name:
                raise ValueError(f"not a size: {text!r}")
            monomial = _join(monomial, ((name, int(exponent or 1)),), 1)
        total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return _canonical(total)


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(f"not a number: {text!r}") from error
