"""Sweeps: small copies of a model trained on a text at several widths and values of a hyperparameter.

Every finished trial is a file of its own, written in one step, so that a sweep that is killed goes on where it was, and
a trial that dies takes nothing with it: it is tried again, and reported.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cgc.driver import UsageError, write_artifacts
from cgc.experiments.data import read_bytes
from cgc.experiments.sizes import Subject, at_width
from cgc.experiments.training import Run, tokens_and_limit, train
from cgc.target import Artifact, text_artifact

ATTEMPTS = 3
"""How often a trial is tried that dies."""
TAIL = 10
"""The training loss of a trial is the mean of the last part of this many of its steps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep trains: every value of `over` (`lr`, or a size of the model) at every width, for every seed."""

    subject: Subject
    over: str
    values: tuple[float, ...]
    widths: tuple[int, ...]
    seeds: int
    data: str
    lr: float
    steps: int
    batch: int
    seq: int

    def trials(self) -> list[Trial]:
        """Return all trials; those that take longest come first, so that none is left alone at the end."""
        widths = sorted(self.widths, reverse=True)
        return [
            Trial(self, width, value, seed) for width in widths for value in self.values for seed in range(self.seeds)
        ]

    def digest(self, text: str) -> str:
        """Return what stands for everything that decides the result of a trial, besides its own numbers."""
        parts = [self.over, self.lr, self.steps, self.batch, self.seq, self.subject.overrides, self.subject.model, text]
        data = Path(self.data).read_bytes() if Path(self.data).is_file() else b""
        return hashlib.sha256(repr(parts).encode() + data).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run of a sweep."""

    plan: Plan
    width: int
    value: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its file, without an ending."""
        return f"width{self.width}-{self.plan.over}{self.value:g}-seed{self.seed}"

    def run(self) -> dict[str, Any]:
        """Train, and return the result as JSON-able data."""
        plan = self.plan
        program = at_width(plan.subject, self.width)
        lr = plan.lr
        if plan.over == "lr":
            lr = self.value
        else:
            size = int(self.value) if self.value == int(self.value) else self.value
            subject = Subject(plan.subject.file, (*plan.subject.overrides, (plan.over, size)), plan.subject.model)
            program = at_width(subject, self.width)
        _, vocab, limit = tokens_and_limit(program)
        seq = min(plan.seq, limit) if limit is not None else plan.seq
        outcome = train(program, read_bytes(Path(plan.data), vocab), Run(lr, plan.steps, plan.batch, seq, self.seed))
        tail = outcome.losses[-max(1, plan.steps // TAIL) :]
        trained = sum(tail) / len(tail) if tail else math.inf
        return {
            "width": self.width,
            plan.over: self.value,
            "seed": self.seed,
            "parameters": program.graph.parameter_count,
            "steps": len(outcome.losses),
            "train_loss": trained if math.isfinite(trained) else None,
            "held_out_loss": outcome.held_out if math.isfinite(outcome.held_out) else None,
        }


@dataclass(frozen=True, slots=True)
class Point:
    """The held-out loss at one value: the mean over seeds, the smallest and the largest; infinite if one diverged."""

    value: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """All points of one width."""

    width: int
    points: tuple[Point, ...]

    @property
    def best(self) -> Point | None:
        """The point of the lowest loss; None where every trial diverged."""
        finite = [point for point in self.points if math.isfinite(point.mean)]
        return min(finite, key=lambda point: point.mean) if finite else None


class Store:
    """The folder of a sweep: one file for each finished trial, and which sweep it belongs to."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        text = Path(plan.subject.file).read_text(encoding="utf-8") if Path(plan.subject.file).is_file() else ""
        self._folder = folder / "trials"
        self._digest = plan.digest(text)

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """Return the result of a finished trial of this very sweep, None where there is none."""
        path = self._folder / f"{trial.name}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(found, dict) and found.get("sweep") == self._digest
        return found["result"] if same and isinstance(found.get("result"), dict) else None

    def keep(self, trial: Trial, result: dict[str, Any]) -> None:
        """Write the result of a trial, in one step (InputError where the folder cannot be written)."""
        text = json.dumps({"sweep": self._digest, "result": result}, indent=2) + "\n"
        write_artifacts((text_artifact(f"{trial.name}.json", text),), self._folder)


def curves(plan: Plan, results: Iterable[dict[str, Any]]) -> list[Curve]:
    """Return the loss by value for every width, widths and values in order."""
    losses: dict[tuple[int, float], list[float]] = {}
    for result in results:
        loss = result["held_out_loss"]
        losses.setdefault((result["width"], result[plan.over]), []).append(math.inf if loss is None else loss)
    found: list[Curve] = []
    for width in sorted(plan.widths):
        points = []
        for value in sorted(plan.values):
            seeds = losses.get((width, value))
            if seeds:
                points.append(Point(value, sum(seeds) / len(seeds), min(seeds), max(seeds)))
        found.append(Curve(width, tuple(points)))
    return found


def table(plan: Plan, results: Sequence[dict[str, Any]]) -> Artifact:
    """Return the results as CSV, in the order of width, value, seed."""
    rows = sorted(results, key=lambda row: (row["width"], row[plan.over], row["seed"]))
    buffer = io.StringIO()
    names = ["width", plan.over, "seed", "parameters", "steps", "train_loss", "held_out_loss"]
    writer = csv.DictWriter(buffer, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text_artifact("results.csv", buffer.getvalue())


def summary(plan: Plan, found: Sequence[Curve]) -> dict[str, Any]:
    """Return the best value at every width, and by how many doublings it moves from width to width."""
    best = {curve.width: curve.best for curve in found}
    values = [point.value for point in best.values() if point is not None]
    moved = math.log2(max(values) / min(values)) if values and min(values) > 0 else None
    return {
        "over": plan.over,
        "best": {str(width): None if point is None else asdict(point) for width, point in best.items()},
        "moves_by_doublings": moved,
    }


def parse_over(text: str) -> tuple[str, tuple[float, ...]]:
    """Parse `lr=1e-3,2e-3` (UsageError where it is something else)."""
    name, equals, numbers = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"--over {text}: write `--over lr=1e-3,2e-3,4e-3`")
    try:
        values = tuple(sorted({float(part) for part in numbers.split(",") if part.strip()}))
    except ValueError as error:
        raise UsageError(f"--over {text}: write numbers with commas") from error
    if not values or not all(map(math.isfinite, values)) or (name == "lr" and min(values) <= 0):
        raise UsageError(f"--over {text}: give finite numbers{' above 0' if name == 'lr' else ''}")
    return name, values


def missing(plan: Plan, store: Store) -> Iterator[Trial]:
    """Yield the trials that have no result yet."""
    for trial in plan.trials():
        if store.result(trial) is None:
            yield trial
