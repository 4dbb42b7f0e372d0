"""Initial distributions: their moments and bounds, one stream for each seed and path, and random inputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_graphs import BATCH, NESTED, SEQ, A, build, program, tensor

from cgc.ir.dims import Dim
from cgc.ir.graph import Init, Param, Value
from cgc.weights import InitialWeights, draw, initialize, random_inputs

N = 200_000


def sample(init: Init, seed: int = 0, name: str = "w", *shape: int) -> np.ndarray[Any, Any]:
    dims = tuple(Dim(f"d{index}", size) for index, size in enumerate(shape or (N,)))
    return draw(Param(Value(name, tensor(*dims)), init), seed)


def moments(x: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return mean, standard deviation and kurtosis."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean()
    return float(wide.mean()), float(wide.std()), float((centred**4).mean() / centred.var() ** 2)


# The standard normal cut at ±2, by parts: with
# p = P(|x| < 2) and d = 2 φ(2), E[x²] = 1 - 2d/p and E[x⁴] = 3 E[x²] - 8d/p.
P = math.erf(math.sqrt(2))
D = 2 * math.exp(-2) / math.sqrt(2 * math.pi)
CUT_VARIANCE = 1 - 2 * D / P
CUT_FOURTH = 3 * CUT_VARIANCE - 8 * D / P


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_normal(seed: int) -> None:
    mean, std, kurtosis = moments(sample(Init("normal", 3.0, 0.5), seed))
    assert mean == pytest.approx(3, abs=0.006)
    assert std == pytest.approx(0.5, rel=0.01)
    assert kurtosis == pytest.approx(3, abs=0.06)
    assert np.abs(sample(Init("normal", std=1.0), seed)).max() > 3.5


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_truncated_normal_is_cut_at_two_deviations(seed: int) -> None:
    x = sample(Init("truncated_normal", -1.0, 0.5), seed)
    mean, std, kurtosis = moments(x)
    assert mean == pytest.approx(-1, abs=0.006)
    assert std == pytest.approx(0.5 * math.sqrt(CUT_VARIANCE), rel=0.01)
    assert kurtosis == pytest.approx(CUT_FOURTH / CUT_VARIANCE**2, abs=0.05)
    assert -2 <= x.min() < -1.99 and -0.01 < x.max() <= 0


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform(seed: int) -> None:
    x = sample(Init("uniform", limit=0.3), seed)
    mean, std, kurtosis = moments(x)
    assert mean == pytest.approx(0, abs=0.003)
    assert std == pytest.approx(0.3 / math.sqrt(3), rel=0.01)
    assert kurtosis == pytest.approx(9 / 5, abs=0.03)
    assert -0.3 <= x.min() < -0.299 and 0.299 < x.max() <= np.float32(0.3)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_constant(value: float) -> None:
    np.testing.assert_array_equal(sample(Init("constant", value), 0, "w", 2, 3), np.full((2, 3), value))


def test_entries_are_independent_along_every_axis() -> None:
    x = sample(Init("normal", std=1.0), 0, "w", 300, 400).astype(float)
    for a, b in ((x[:-1], x[1:]), (x[:, :-1], x[:, 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.015


def test_each_seed_and_each_path_has_its_own_stream() -> None:
    init = Init("normal", std=1.0)
    draws = [sample(init, seed, name, 1000) for seed in (0, 1) for name in ("w", "v", "h.w")]
    for i, a in enumerate(draws):
        assert a.dtype == np.float32
        for b in draws[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.15
    np.testing.assert_array_equal(draws[0], sample(init, 0, "w", 1000))


def test_seed_and_name_do_not_run_together() -> None:
    assert not np.array_equal(sample(Init("normal", std=1.0), 1, "1:w", 9), sample(Init("normal", std=1.0), 11, "w", 9))


def test_a_draw_does_not_depend_on_the_other_parameters() -> None:
    graph = program(NESTED).graph
    wanted = initialize(graph, 7)
    assert list(wanted) == [param.name for param in graph.params]
    for param in graph.params:
        assert wanted[param.name].shape == param.type.shape
    backwards = initialize(replace(graph, params=graph.params[::-1]), 7)
    for name, array in wanted.items():
        np.testing.assert_array_equal(backwards[name], array)
    alone = initialize(replace(graph, params=graph.params[-1:]), 7)
    assert list(alone) == [graph.params[-1].name]
    np.testing.assert_array_equal(alone[graph.params[-1].name], wanted[graph.params[-1].name])


def test_a_stacked_parameter_has_other_numbers_in_every_turn() -> None:
    weights = initialize(program(NESTED).graph, 0)["o.linear.w"]
    assert weights.shape == (3, 4, 4)
    assert len({layer.tobytes() for layer in weights}) == 3


def test_the_lazy_mapping_is_the_same() -> None:
    graph = program(NESTED).graph
    lazy = InitialWeights(graph, 4)
    assert len(lazy) == len(graph.params) and list(lazy) == list(initialize(graph, 4))
    np.testing.assert_array_equal(lazy["first"], initialize(graph, 4)["first"])
    with pytest.raises(KeyError):
        lazy["nothing"]


def test_random_inputs_fit() -> None:
    graph = build(
        lambda _, inputs, __: list(inputs),
        {
            "ids": tensor(BATCH, SEQ, dtype="i64", of=A),
            "own": tensor(BATCH, SEQ, dtype="i32", of=SEQ),
            "mask": tensor(SEQ, dtype="bool"),
            "x": tensor(SEQ, BATCH),
        },
    )
    got = random_inputs(graph, {"batch": 50, "seq": 8}, 0)
    assert set(got["ids"].ravel()) == {0, 1}
    assert set(got["own"].ravel()) == set(range(8))
    assert got["mask"].dtype == bool and got["mask"].shape == (8,)
    assert got["x"].dtype == np.float32 and got["x"].shape == (8, 50)
    again, other = (random_inputs(graph, {"batch": 50, "seq": 8}, seed) for seed in (0, 1))
    for name, array in got.items():
        np.testing.assert_array_equal(array, again[name])
        assert not np.array_equal(array, other[name])


@pytest.mark.parametrize(
    ("init", "text"),
    [
        (Init("constant"), "zeros"),
        (Init("constant", 1.0), "ones"),
        (Init("constant", 0.5), "constant(0.5)"),
        (Init("uniform", limit=0.25), "uniform(limit=0.25)"),
        (Init("normal", std=0.02), "normal(std=0.02)"),
        (Init("truncated_normal", 1.0, 0.02), "truncated_normal(mean=1, std=0.02)"),
    ],
)
def test_text_of_a_distribution(init: Init, text: str) -> None:
    assert str(init) == text
