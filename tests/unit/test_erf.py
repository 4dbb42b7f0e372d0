"""The error function for arrays against the one of the standard library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgc.erf import erf


def test_dense_grid() -> None:
    x = np.linspace(-7, 7, 20_001)
    np.testing.assert_allclose(erf(x), [math.erf(v) for v in x], rtol=0, atol=3e-15)


def test_where_the_methods_meet() -> None:
    for edge in (2.5, 6.5):
        x = np.array([np.nextafter(edge, 0), edge, np.nextafter(edge, 9)])
        np.testing.assert_allclose(erf(x), [math.erf(v) for v in x], rtol=0, atol=3e-15)


@given(st.floats(allow_nan=False))
def test_any_number(x: float) -> None:
    got = float(erf(np.array([x]))[0])
    assert got == pytest.approx(math.erf(x), rel=1e-13, abs=0)
    assert float(erf(np.array([-x]))[0]) == -got


def test_small_numbers_keep_their_digits() -> None:
    x = 10.0 ** np.arange(-300, 0)
    np.testing.assert_allclose(erf(x), [math.erf(v) for v in x], rtol=1e-14)


def test_special_values() -> None:
    got = erf(np.array([0.0, -0.0, np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(got, [0, 0, 1, -1, np.nan])
    assert not np.signbit(got[0]) and np.signbit(got[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_shape_and_dtype_are_kept(dtype: type[np.floating], shape: tuple[int, ...]) -> None:
    got = erf(np.full(shape, 0.5, dtype))
    assert got.shape == shape and got.dtype == dtype
    np.testing.assert_allclose(got, np.full(shape, math.erf(0.5)), rtol=1e-3)
