"""The dynamic coordinate check: real steps at several widths, and the slopes of what they move against the width.

Where the static check says Θ(n^a), the root mean square of a value, drawn against the width on logarithmic scales, has
the slope a. Weights come from the emitted PyTorch module and its own optimizer; the values are those that the NumPy
reference computes with them, at the very places that the static check speaks of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cgc.analysis.growth import ZERO
from cgc.driver import UsageError, find_target
from cgc.experiments.sizes import Subject, at_width
from cgc.experiments.training import live_module, loss_of, optimizer_of, rate_of, tokens_and_limit
from cgc.interpret import interpret
from cgc.ir.graph import Value
from cgc.parametrize.apply import apply
from cgc.parametrize.check import Check, Finding
from cgc.parametrize.model import derivation, scaling_check
from cgc.program import Program
from cgc.weights import initialize

Array: TypeAlias = "np.ndarray[Any, Any]"
Values: TypeAlias = dict[str, list[Array]]

TOLERANCE = 0.3
"""Slopes that differ by more than this from the exponent disagree: exponents come in steps of a half."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is run at every width: steps on one batch of random tokens, for several seeds."""

    widths: tuple[int, ...]
    steps: int = 4
    batch: int = 4
    seq: int = 32
    seeds: int = 2
    lr: float | None = None


@dataclass(frozen=True, slots=True)
class Slopes:
    """One place: root mean squares by width at initialization and of the change, their slopes, and the exponents.

    `at_most`: the exponents are those of long training, when all is correlated; after a few steps less is right too.
    """

    tensor: str
    kind: str
    init: tuple[float, ...]
    change: tuple[float, ...]
    init_slope: float | None
    change_slope: float | None
    init_exponent: float | None
    change_exponent: float | None
    at_most: bool

    @property
    def disagreements(self) -> tuple[str, ...]:
        """What the static check says otherwise: `init`, `change`."""
        found: list[str] = []
        for name, slope, power in (
            ("init", self.init_slope, self.init_exponent),
            ("change", self.change_slope, self.change_exponent),
        ):
            if slope is None or power is None:
                continue
            if slope > power + TOLERANCE or (slope < power - TOLERANCE and not self.at_most):
                found.append(name)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Result:
    """The whole check."""

    model: str
    parametrization: str
    setup: Setup
    growing: tuple[str, ...]
    tensors: tuple[Slopes, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        return {
            "model": self.model,
            "parametrization": self.parametrization,
            "widths": list(self.setup.widths),
            "steps": self.setup.steps,
            "seeds": self.setup.seeds,
            "growing": list(self.growing),
            "tolerance": TOLERANCE,
            "tensors": [
                {
                    "tensor": row.tensor,
                    "kind": row.kind,
                    "init": list(row.init),
                    "change": list(row.change),
                    "init_slope": row.init_slope,
                    "init_exponent": row.init_exponent,
                    "change_slope": row.change_slope,
                    "change_exponent": row.change_exponent,
                    "disagreements": list(row.disagreements),
                }
                for row in self.tensors
            ],
        }


def coordinate_check(subject: Subject, setup: Setup, progress: Callable[[str], None]) -> Result:
    """Run the check; `progress` is told what is being done.

    Raises:
        UsageError: fewer than two widths, no `mup` item, or no language model.
        InputError: the model cannot be built at a width.
    """
    if len(setup.widths) < 2:
        raise UsageError("--widths: a slope needs two widths at least")
    program = subject.program()
    check = scaling_check(program)
    if check is None:
        raise UsageError(f"{subject.file} has no `mup` item that says what grows")
    tokens_and_limit(program)  # a model that cannot be trained is known before anything is, too
    findings = _direction(check, program)
    observed: list[list[tuple[float, float]]] = []
    # all of them first: a width that cannot be is known before anything is trained
    copies = [at_width(subject, width, program) for width in setup.widths]
    for width, copy in zip(setup.widths, copies, strict=True):
        runs = []
        for seed in range(setup.seeds):
            progress(f"width {width}, seed {seed}")
            runs.append(_run(copy, findings, setup, seed))
        observed.append([_mean(pair) for pair in zip(*runs, strict=True)])
    rows = tuple(_slopes(finding, setup.widths, [row[at] for row in observed]) for at, finding in enumerate(findings))
    assert program.parametrization is not None
    return Result(program.name, program.parametrization.name, setup, findings[0].names, rows)


def _direction(check: Check, program: Program) -> list[Finding]:
    """Return the findings to compare with: those of all wide sizes growing together."""
    assert program.scaling is not None
    wide = [grown.names for grown in program.scaling.grown if not grown.deep]
    if not wide:
        raise UsageError("only the depth grows in this model; there is no width to vary")
    together = max(wide, key=len)
    kinds = ("product", "lookup", "scores", "branch")
    return [found for found in check.findings(local=False) if found.names == together and found.fact.kind in kinds]


def _mean(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return float(np.mean([pair[0] for pair in pairs])), float(np.mean([pair[1] for pair in pairs]))


def _run(program: Program, findings: Sequence[Finding], setup: Setup, seed: int) -> list[tuple[float, float]]:
    """Return the root mean square at each place, at initialization and of the change after the steps."""
    name, vocab, limit = tokens_and_limit(program)
    seq = min(setup.seq, limit) if limit is not None else setup.seq
    random = np.random.default_rng(seed)
    tokens = random.integers(0, vocab, (setup.batch, seq + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    target: Any = find_target("torch")
    module = live_module(program, seed)
    optimizer = optimizer_of(module, rate_of(program) if setup.lr is None else setup.lr)
    places = _names(program, findings)
    before = _observe(program, places, initialize(program.graph, seed), {name: inputs})
    for _ in range(setup.steps):
        optimizer.zero_grad()
        loss_of(module, inputs, targets).backward()
        optimizer.step()
    after = _observe(program, places, target.from_torch(program, module), {name: inputs})
    return [
        (_size(before[place]), _size([b - a for a, b in zip(before[place], after[place], strict=True)]))
        for place in places
    ]


def _names(program: Program, findings: Sequence[Finding]) -> list[str]:
    """Return the name of the value at each place, in the inlined graph: scaled as far as numbers scale it."""
    made = derivation(program)
    names: list[str] = []
    for finding in findings:
        fact = finding.fact
        node = made.nodes[fact.index if fact.last < 0 else fact.last]
        names.append(node.inputs[fact.operand].name if fact.kind == "branch" else node.outputs[0].name)
    return names


def _observe(program: Program, places: Sequence[str], weights: Any, inputs: dict[str, Array]) -> Values:
    """Run the reference on the parametrized, inlined graph, and return the values at the places, one for each turn."""
    made = derivation(program)
    graph = apply(made.graphs[0], {site.place: site.values[0] for site in made.sites() if site.values[0] != 1.0})
    wanted = set(places)
    found: Values = {name: [] for name in places}

    def observe(value: Value, array: Array) -> None:
        if value.name in wanted:
            found[value.name].append(np.array(array, np.float64))

    interpret(graph, weights, inputs, observe=observe)
    return found


def _size(arrays: Sequence[Array]) -> float:
    finite = [array[np.isfinite(array)] for array in arrays]
    squares = [float(np.mean(array * array)) for array in finite if array.size]
    return math.sqrt(float(np.mean(squares))) if squares else 0.0


def _slopes(finding: Finding, widths: Sequence[int], observed: Sequence[tuple[float, float]]) -> Slopes:
    init = tuple(pair[0] for pair in observed)
    change = tuple(pair[1] for pair in observed)
    scale = finding.fact.scale
    return Slopes(
        finding.tensor,
        finding.fact.kind,
        init,
        change,
        slope(widths, init),
        slope(widths, change),
        None if scale.init == ZERO else scale.init,
        None if scale.change == ZERO else scale.change,
        finding.fact.kind == "scores" or not finding.fact.feeds,
    )


def slope(widths: Sequence[int], sizes: Sequence[float]) -> float | None:
    """Return the slope of the straight line through (log width, log size); None where a size is zero or no number."""
    if any(not math.isfinite(size) or size <= 0 for size in sizes):
        return None
    return float(np.polyfit(np.log(widths), np.log(sizes), 1)[0])
