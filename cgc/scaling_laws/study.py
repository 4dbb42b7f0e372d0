"""What runs say about larger ones: both laws with their intervals, how well they foretell, and what they foretell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from cgc.diagnostics import Diagnostic, InputError
from cgc.driver import UsageError
from cgc.scaling_laws.fit import Fit, Method, PowerLaw, Undetermined, bootstrap, fit, interval
from cgc.scaling_laws.runs import Run

Form: TypeAlias = Literal["power law", "power law above an irreducible loss"]
FORMS: tuple[tuple[Form, bool], ...] = (("power law", False), ("power law above an irreducible loss", True))
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Foretold:
    """A loss that a law foretells at `compute`, with its 95% interval, and the one that was measured, if it was."""

    name: str
    compute: float
    loss: float
    interval: Interval | None
    measured: float | None = None

    @property
    def error(self) -> float | None:
        """By which part of the measured loss the foretold one is larger."""
        return None if self.measured is None else self.loss / self.measured - 1

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {**asdict(self), "error": self.error}


@dataclass(frozen=True, slots=True)
class Fitted:
    """One form fitted to the runs.

    `intervals` are those of exponent, scale and irreducible loss; `held_out` is what the same form, fitted to all runs
    but those of the largest compute, foretells for them; `foretold` answers `--extrapolate`.
    """

    form: Form
    fit: Fit
    intervals: dict[str, Interval]
    held_out: Foretold | None
    foretold: Foretold | None
    laws: tuple[PowerLaw, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        law = self.fit.law
        return {
            "form": self.form,
            "formula": f"(f / {law.scale:.4g}) ** -{law.exponent:.4g} + {law.irreducible:.4g}",
            "exponent": -law.exponent,
            "scale": law.scale,
            "irreducible": law.irreducible,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "rms": self.fit.rms,
            "residuals": list(self.fit.residuals),
            "aicc": self.fit.aicc,
            "held_out": None if self.held_out is None else self.held_out.to_json(),
            "foretold": None if self.foretold is None else self.foretold.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Study:
    """Everything: the runs that laws were fitted to, those left out to be foretold, and the laws.

    `preferred` is the form that Akaike's criterion for few points prefers: an irreducible loss has to earn its place.
    """

    runs: tuple[Run, ...]
    left_out: tuple[Run, ...]
    fits: tuple[Fitted, ...]
    undetermined: tuple[tuple[Form, str], ...]
    method: Method
    samples: int
    seed: int

    @property
    def preferred(self) -> Fitted:
        """The fit to foretell with."""
        return min(self.fits, key=lambda found: math.inf if found.fit.aicc is None else found.fit.aicc)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        foretold = self.preferred.foretold
        return {
            "ok": True,
            "runs": [asdict(run) for run in self.runs],
            "left_out": [asdict(run) for run in self.left_out],
            "method": asdict(self.method),
            "bootstrap": {"samples": self.samples, "seed": self.seed, "level": 0.95},
            "fits": [found.to_json() for found in self.fits],
            "undetermined": [{"form": form, "why": why} for form, why in self.undetermined],
            "preferred": self.preferred.form,
            "extrapolation": None if foretold is None else foretold.to_json(),
        }


def study(
    runs: Sequence[Run], method: Method, extrapolate: str | None = None, samples: int = 1000, seed: int = 0
) -> Study:
    """Fit both laws to runs. `extrapolate` is a compute in FLOPs, or the name of a run: then only runs of less compute
    are fitted to, and that one is foretold.

    Raises:
        InputError: CG0683, there are too few runs; CG0684, their loss does not fall.
        UsageError: there is no such run.
    """
    ordered = sorted(runs, key=lambda run: (run.compute, run.name))
    compute, goals = _goal(ordered, extrapolate)
    used = [run for run in ordered if not goals or run.compute < goals[0].compute]
    fits: list[Fitted] = []
    failed: list[tuple[Form, str]] = []
    for form, irreducible in FORMS:
        try:
            fits.append(_fitted(form, used, irreducible, method, (compute, goals), samples, seed))
        except Undetermined as error:
            failed.append((form, str(error)))
    if not fits:
        different = len({run.compute for run in used})
        if different < 3:
            rest = " of less compute than that one" if goals else ""
            text = f"there are runs at {different} different computes{rest}; a power law needs 3, an irreducible loss 4"
            raise InputError([Diagnostic("CG0683", text, (), "give more tables, logs or folders of runs")])
        text = f"no law fits these runs: {failed[0][1]}"
        hint = "is the column the loss, and the compute that of training?"
        raise InputError([Diagnostic("CG0684", text, (), hint)])
    return Study(tuple(used), tuple(goals), tuple(fits), tuple(failed), method, samples, seed)


def _goal(runs: Sequence[Run], extrapolate: str | None) -> tuple[float | None, list[Run]]:
    """Return the compute to foretell the loss at, and the runs that were made there."""
    if extrapolate is None:
        return None, []
    named = [run for run in runs if run.name == extrapolate]
    if named:
        largest = max(run.compute for run in named)
        return largest, [run for run in named if run.compute == largest]
    try:
        compute = float(extrapolate)
    except ValueError:
        compute = math.nan
    if not math.isfinite(compute) or compute <= 0:
        names = ", ".join(dict.fromkeys(run.name for run in runs))
        raise UsageError(f"--extrapolate {extrapolate}: give FLOPs above 0, or one of the runs: {names[:200]}")
    return compute, []


def _fitted(
    form: Form,
    runs: Sequence[Run],
    irreducible: bool,
    method: Method,
    goal: tuple[float | None, list[Run]],
    samples: int,
    seed: int,
) -> Fitted:
    compute, loss = _arrays(runs)
    found = fit(compute, loss, irreducible, method)
    laws = tuple(bootstrap(compute, loss, found, method, samples, seed))
    intervals: dict[str, Interval] = {}
    if laws:
        intervals["exponent"] = interval(np.array([-law.exponent for law in laws]))
        intervals["scale"] = interval(np.array([law.scale for law in laws]))
        intervals["irreducible"] = interval(np.array([law.irreducible for law in laws]))
    at, measured = goal
    foretold = None if at is None else _foretold(found.law, laws, at, measured)
    return Fitted(form, found, intervals, _held_out(runs, irreducible, method), foretold, laws)


def _arrays(runs: Sequence[Run]) -> tuple[Any, Any]:
    return np.array([run.compute for run in runs]), np.array([run.loss for run in runs])


def _foretold(law: PowerLaw, laws: Sequence[PowerLaw], compute: float, measured: Sequence[Run]) -> Foretold:
    pair = interval(np.array([other(compute) for other in laws])) if laws else None
    mean = sum(run.loss for run in measured) / len(measured) if measured else None
    return Foretold(measured[0].name if measured else f"{compute:g} FLOPs", compute, law(compute), pair, mean)


def _held_out(runs: Sequence[Run], irreducible: bool, method: Method) -> Foretold | None:
    """Return what the runs but those of the largest compute foretell for these; None where they are too few."""
    largest = max(run.compute for run in runs)
    last = [run for run in runs if run.compute == largest]
    try:
        found = fit(*_arrays([run for run in runs if run.compute < largest]), irreducible, method)
    except Undetermined:
        return None
    return _foretold(found.law, (), largest, last)
