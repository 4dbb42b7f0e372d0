"""Sizes as polynomials: algebra against evaluation at random points, one canonical form, text and back, errors."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cgc.ir.dims import (
    Dim,
    IndivisibleSize,
    Size,
    SymbolicSize,
    add,
    divide,
    evaluate,
    multiply,
    parse_size,
    product,
    substitute,
    subtract,
    symbol,
)

NAMES = ("batch", "heads", "seq", "width'")
B, H, S = symbol("batch"), symbol("heads"), symbol("seq")


@st.composite
def polynomials(draw: st.DrawFn) -> Size:
    """Draw a sum of products of symbols with whole coefficients."""
    total: Size = draw(st.integers(-20, 20))
    for names in draw(st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), max_size=4)):
        total = add(total, multiply(draw(st.integers(-9, 9)), product(tuple(symbol(name) for name in names))))
    return total


POINTS = st.fixed_dictionaries({name: st.integers(1, 50) for name in NAMES})


@given(polynomials(), polynomials(), POINTS)
def test_arithmetic_is_that_of_the_values(a: Size, b: Size, at: dict[str, int]) -> None:
    x, y = evaluate(a, at), evaluate(b, at)
    assert evaluate(add(a, b), at) == x + y
    assert evaluate(subtract(a, b), at) == x - y
    assert evaluate(multiply(a, b), at) == x * y


@given(polynomials(), polynomials(), polynomials())
def test_one_size_has_one_form(a: Size, b: Size, c: Size) -> None:
    assert add(a, b) == add(b, a)
    assert multiply(a, b) == multiply(b, a)
    assert add(add(a, b), c) == add(a, add(b, c))
    assert multiply(a, add(b, c)) == add(multiply(a, b), multiply(a, c))
    assert hash(multiply(a, add(b, c))) == hash(add(multiply(a, b), multiply(a, c)))
    assert subtract(a, a) == 0
    assert subtract(add(a, b), b) == a


@given(polynomials(), st.lists(st.sampled_from(NAMES), max_size=3), st.integers(1, 12))
def test_a_quotient_times_its_divisor_is_the_size(a: Size, names: list[str], count: int) -> None:
    divisor = multiply(count, product(tuple(symbol(name) for name in names)))
    if isinstance(a, int) and isinstance(divisor, int):
        assume(a % divisor == 0)
    assert multiply(divide(a, divisor), divisor) == a
    assert divide(multiply(a, divisor), divisor) == a


@given(polynomials(), POINTS, st.sets(st.sampled_from(NAMES)))
def test_substitution_is_evaluation_in_two_steps(a: Size, at: dict[str, int], first: set[str]) -> None:
    part = substitute(a, {name: at[name] for name in first})
    if isinstance(part, SymbolicSize):
        assert not part.symbols() & first
    assert evaluate(part, at) == evaluate(a, at)
    assert substitute(a, dict(at)) == evaluate(a, at)


@given(polynomials(), polynomials(), POINTS)
def test_a_size_can_stand_for_a_symbol(a: Size, b: Size, at: dict[str, int]) -> None:
    inner = {**at, "seq": evaluate(b, at)}
    assert evaluate(substitute(a, {"seq": b}), at) == evaluate(a, inner)


@given(polynomials(), polynomials())
def test_text_parses_back(a: Size, b: Size) -> None:
    assert parse_size(str(a)) == a
    ratio = divide(multiply(a, S), multiply(6, H))
    assert parse_size(str(ratio)) == ratio
    assert parse_size(f"{a}+{b}") == add(a, b)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (7, "7"),
        (B, "batch"),
        (multiply(S, S), "seq^2"),
        (multiply(multiply(B, 3), S), "3*batch*seq"),
        (add(S, 1), "1+seq"),
        (subtract(S, B), "-1*batch+seq"),
        (divide(S, 2), "1/2*seq"),
        (divide(S, H), "heads^-1*seq"),
    ],
)
def test_text(size: Size, text: str) -> None:
    assert str(size) == text
    assert parse_size(text) == size


def test_what_has_no_symbols_is_an_integer() -> None:
    assert type(divide(multiply(B, 6), multiply(B, 3))) is int
    assert divide(multiply(B, 6), multiply(B, 3)) == 2
    assert type(subtract(add(B, 4), B)) is int
    assert type(parse_size("12")) is int
    assert type(multiply(B, 0)) is int


def test_a_dim_prints_its_size_only_where_it_has_another_name() -> None:
    assert str(Dim("seq", S)) == "seq"
    assert str(Dim("key", S)) == "key=seq"
    assert str(Dim("width", 8)) == "width=8"


def test_symbols() -> None:
    ratio = add(divide(S, H), multiply(B, 2))
    assert isinstance(ratio, SymbolicSize)
    assert ratio.symbols() == {"seq", "heads", "batch"}
    assert product(()) == 1


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (lambda: divide(7, 2), "7 / 2"),
        (lambda: divide(7, 0), "7 / 0"),
        (lambda: divide(S, 0), "seq / (0)"),
        (lambda: divide(S, add(S, 1)), "seq / (1+seq)"),
        (lambda: evaluate(divide(S, 2), {"seq": 3}), "1/2*seq = 3/2"),
    ],
)
def test_divisions_that_do_not_come_out(action: Callable[[], Size], says: str) -> None:
    with pytest.raises(IndivisibleSize) as caught:
        action()
    assert str(caught.value) == says


def test_halves_may_add_up_to_a_whole() -> None:
    size = add(divide(S, 2), divide(B, 2))
    assert evaluate(size, {"seq": 3, "batch": 5}) == 4
    assert substitute(size, {"seq": 3, "batch": 5}) == 4


@pytest.mark.parametrize(("above", "below"), [("a", "b"), ("b", "a")])
def test_a_ratio_does_not_depend_on_the_order_of_its_symbols(above: str, below: str) -> None:
    ratio = divide(symbol(above), symbol(below))
    assert substitute(ratio, {above: 12, below: 4}) == 3
    assert substitute(substitute(ratio, {below: 4}), {above: 12}) == 3


def test_a_symbol_without_a_value() -> None:
    with pytest.raises(KeyError):
        evaluate(S, {"batch": 2})


@pytest.mark.parametrize("text", ["", "+", "seq+", "*", "seq*", "seq^x", "-seq", "2 seq", "1/0", "2^3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_no_fraction_is_lost() -> None:
    third = divide(S, 3)
    assert isinstance(third, SymbolicSize)
    assert third.terms == (((("seq", 1),), Fraction(1, 3)),)
    assert add(add(third, third), third) == S
