"""Power laws of loss against compute: L(f) = (f / f₀)^-α, or the same above an irreducible loss E.

Fits minimize squared residuals of the loss (as `curve_fit` does, and so the frontier of Cerebras-GPT: Dey et al. 2023,
section 3), of its logarithm, or Huber's function of either. Levenberg-Marquardt steps run from many starts at once, so
that no single one decides; so do the resampled data of the bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Space: TypeAlias = Literal["loss", "log"]

STARTS = 32
"""Exponents to start from, spread evenly on a logarithmic scale between these two."""
EXPONENTS = (0.003, 3.0)
ITERATIONS = 400
HUBER = 1.345
"""Where Huber's function turns from square to linear, in robust standard deviations: 95% efficiency (Huber 1981)."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """L(f) = (f / `scale`) ^ -`exponent` + `irreducible`, f in FLOPs, L in nats per token."""

    exponent: float
    scale: float
    irreducible: float = 0.0

    def __call__(self, compute: float) -> float:
        """Return the loss at a compute."""
        return math.exp(-self.exponent * (math.log(compute) - math.log(self.scale))) + self.irreducible


@dataclass(frozen=True, slots=True)
class Method:
    """What is minimized: squared residuals of the loss or of its logarithm, or Huber's function of them (`robust`)."""

    space: Space = "loss"
    robust: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """A law fitted to `n` points with `free` constants: its residuals, and their root mean square, in the loss."""

    law: PowerLaw
    free: int
    residuals: tuple[float, ...]
    rms: float

    @property
    def aicc(self) -> float | None:
        """Akaike's criterion for few points (Hurvich and Tsai 1989), lower is better; None where n is too small.

        The variance counts as one more constant.
        """
        n, k = len(self.residuals), self.free + 1
        if n - k - 1 <= 0:
            return None
        return n * math.log(max(self.rms, 1e-12) ** 2) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


class Undetermined(ValueError):
    """The points say nothing about such a law; the message says why."""


def fit(compute: Array, loss: Array, irreducible: bool, method: Method) -> Fit:
    """Fit a law to points: `compute` [n] in FLOPs, `loss` [n].

    Raises:
        Undetermined: too few different computes, or a loss that does not fall.
    """
    free = 3 if irreducible else 2
    different = len(set(compute.tolist()))
    if different < free + 1:
        raise Undetermined(f"{free} constants need runs at {free + 1} different computes; there are {different}")
    x, centre = _centred(compute)
    theta = _best(x, loss[None, :], free, method.space, math.inf)[0]
    if method.robust:
        theta = _best(x, loss[None, :], free, method.space, _bend(x, loss, theta, method.space))[0]
    law = _law(theta, centre)
    if not 1e-6 < law.exponent < 10:
        raise Undetermined("the loss does not fall with compute")
    residuals = loss - _curve(x, theta[None, :])[0]
    return Fit(law, free, tuple(residuals.tolist()), float(np.sqrt(np.mean(residuals**2))))


def bootstrap(compute: Array, loss: Array, found: Fit, method: Method, samples: int, seed: int) -> list[PowerLaw]:
    """Return laws fitted to resampled data: the fit's own curve with its residuals drawn with replacement.

    Residuals are scaled by √(n / (n - constants)) for what the fit has already taken out of them (Davison and Hinkley
    1997, section 6.2). Samples whose loss does not fall are drawn, and left out.
    """
    x, centre = _centred(compute)
    curve = np.array([found.law(value) for value in compute])
    n = len(loss)
    spread = math.sqrt(n / max(1, n - found.free))
    errors = np.log(loss) - np.log(curve) if method.space == "log" else loss - curve
    bend = HUBER * 1.4826 * max(1e-6, float(np.median(np.abs(errors)))) if method.robust else math.inf
    drawn = np.random.default_rng(seed).choice(errors * spread, (samples, n))
    resampled = curve * np.exp(drawn) if method.space == "log" else np.maximum(curve + drawn, 1e-6)
    laws = [_law(theta, centre) for theta in _best(x, resampled, found.free, method.space, bend)]
    return [law for law in laws if 1e-6 < law.exponent < 10]


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of a bootstrap."""
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


# ---- θ = (a, α[, E]): L = exp(a - α x) + E, where x is the logarithm of the compute about its mean


def _centred(compute: Array) -> tuple[Array, float]:
    logs = np.log(compute)
    return logs - logs.mean(), float(logs.mean())


def _law(theta: Array, centre: float) -> PowerLaw:
    a, exponent = float(theta[0]), float(theta[1])
    log_scale = centre + a / exponent if exponent else 0.0
    return PowerLaw(exponent, math.exp(min(max(log_scale, -700.0), 700.0)), float(theta[2]) if len(theta) > 2 else 0.0)


def _curve(x: Array, theta: Array) -> Array:
    """Return the losses [b, n] of laws θ [b, k] at x [n]."""
    above: Array = np.exp(np.clip(theta[:, :1] - theta[:, 1:2] * x, -60, 60))
    return above + theta[:, 2:3] if theta.shape[1] > 2 else above


def _bend(x: Array, loss: Array, theta: Array, space: Space) -> float:
    """Return where Huber's function bends: by the median size of the residuals that least squares leave."""
    residuals, _ = _model(x, loss[None, :], theta[None, :], space)
    return HUBER * 1.4826 * max(1e-6, float(np.median(np.abs(residuals))))


def _best(x: Array, losses: Array, free: int, space: Space, bend: float) -> Array:
    """Return the best θ [b, k] of many starts for each row of `losses` [b, n]; residuals beyond `bend` count linearly.

    Exponents of real families are far from zero, and a resampled one is near: with many rows, few starts are enough.
    """
    chosen, lowest = np.zeros((len(losses), free)), np.full(len(losses), np.inf)
    tried = STARTS if len(losses) == 1 else STARTS // 4
    for exponent in np.geomspace(*EXPONENTS, tried):
        theta, cost = _descend(x, losses, _start(x, losses, exponent, free), space, bend)
        better = cost < lowest
        chosen[better], lowest[better] = theta[better], cost[better]
    return chosen


def _start(x: Array, losses: Array, exponent: float, free: int) -> Array:
    """Return θ [b, k] for an exponent: the other constants by linear least squares, where that makes sense."""
    shape = np.exp(np.clip(-exponent * x, -60, 60))
    if free == 2:
        a = np.log(losses).mean(axis=1)
        return np.stack([a, np.full(len(losses), exponent)], axis=1)
    design = np.stack([shape, np.ones_like(shape)], axis=1)
    solved = np.linalg.lstsq(design, losses.T, rcond=None)[0]
    lowest = losses.min(axis=1)
    base = np.clip(solved[1], 0.0, 0.99 * lowest)
    above = np.maximum((losses - base[:, None]).mean(axis=1) / shape.mean(), 1e-9)
    return np.stack([np.log(above), np.full(len(losses), exponent), base], axis=1)


def _descend(x: Array, losses: Array, theta: Array, space: Space, bend: float) -> tuple[Array, Array]:
    """Minimize from θ by Levenberg-Marquardt, all rows at once; returns θ [b, k] and what is minimized [b]."""
    theta = theta.copy()
    _, cost = _weighted(_model(x, losses, theta, space)[0], bend)
    damping = np.full(len(theta), 1e-3)
    rows = np.arange(len(theta))  # those that still move
    for _ in range(ITERATIONS):
        tried = _step(x, losses[rows], theta[rows], damping[rows], space, bend)
        _, lower = _weighted(_model(x, losses[rows], tried, space)[0], bend)
        before = cost[rows]
        better = lower < before
        theta[rows[better]], cost[rows[better]] = tried[better], lower[better]
        damping[rows] = np.clip(np.where(better, damping[rows] / 3, damping[rows] * 4), 1e-12, 1e12)
        done = np.where(better, before - lower <= 1e-12 * before, damping[rows] > 1e6)
        rows = rows[~done]
        if not len(rows):
            break
    return theta, cost


def _step(x: Array, losses: Array, theta: Array, damping: Array, space: Space, bend: float) -> Array:
    """Return the θ [b, k] that a damped step leads to."""
    residuals, jacobian = _model(x, losses, theta, space)
    weights, _ = _weighted(residuals, bend)
    gradient = np.einsum("bnk,bn,bn->bk", jacobian, weights, residuals)
    if theta.shape[1] > 2:
        # an irreducible loss of 0 that wants to be less stays there, and the others move as if it were none
        held = (theta[:, 2] <= 0) & (gradient[:, 2] > 0)
        jacobian[held, :, 2] = 0.0
        gradient[held, 2] = 0.0
    normal = np.einsum("bnk,bn,bnm->bkm", jacobian, weights, jacobian)
    damped = damping[:, None] * np.einsum("bkk->bk", normal) + 1e-12
    normal = normal + np.eye(theta.shape[1]) * damped[:, :, None]
    tried = theta - np.linalg.solve(normal, gradient[:, :, None])[:, :, 0]
    tried[:, 1] = np.clip(tried[:, 1], 1e-9, 20)
    if theta.shape[1] > 2:
        tried[:, 2] = np.clip(tried[:, 2], 0.0, losses.min(axis=1))
    return np.asarray(tried)


def _model(x: Array, losses: Array, theta: Array, space: Space) -> tuple[Array, Array]:
    """Return residuals [b, n] and their derivatives by θ [b, n, k]."""
    curve = _curve(x, theta)
    above = curve - theta[:, 2:3] if theta.shape[1] > 2 else curve
    slopes = [above, -above * x] + ([np.ones_like(above)] if theta.shape[1] > 2 else [])
    jacobian = np.stack(slopes, axis=2)
    if space == "log":
        return np.log(curve) - np.log(losses), jacobian / curve[:, :, None]
    return curve - losses, jacobian


def _weighted(residuals: Array, bend: float) -> tuple[Array, Array]:
    """Return the weights [b, n] and Huber's sum [b]: half the squares, linear beyond `bend` (Huber 1964)."""
    size = np.abs(residuals)
    weights = np.minimum(1.0, bend / np.maximum(size, 1e-300))
    inside = np.minimum(size, bend)
    huber = inside**2 / 2 + inside * (size - inside)
    return weights, huber.sum(axis=1)
