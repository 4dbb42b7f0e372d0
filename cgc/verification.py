"""`cgc verify`: every target against the NumPy reference, on a shrunken copy where the model is too large to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cgc.diagnostics import InputError
from cgc.driver import UsageError, find_target, load_program
from cgc.elaborate.values import Scalar
from cgc.ir.graph import Graph
from cgc.program import Program
from cgc.target import TargetError, target_names

if TYPE_CHECKING:
    from rich.table import Table

TOLERANCE = 1e-4
"""Largest difference, relative to the largest magnitude of the reference's output, that counts as equal in float32."""
LARGEST = 3_000_000
"""A model with more parameters is shrunk."""
RUN_SIZES = ((1, 1), (2, 7), (3, 16))
"""Batch and sequence of the runs; sequences are cut to what the model allows."""
SHRUNKEN: dict[str, int] = {"layers": 2, "vocab": 97, "context": 32}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way of running the model: its largest relative difference over all runs, or why it did not run."""

    target: str
    evaluator: str
    difference: float | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether it agrees with the reference."""
        return self.difference is not None and self.difference <= TOLERANCE


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcomes, and what was run."""

    program: Program
    shrunken: Mapping[str, Scalar]
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether every target that ran agrees, and at least one did run."""
        return bool(self.outcomes) and all(outcome.ok for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        return {
            "ok": self.ok,
            "model": self.program.name,
            "parameters": self.program.graph.parameter_count,
            "shrunken": dict(self.shrunken),
            "tolerance": TOLERANCE,
            "runs": [
                {
                    "target": o.target,
                    "evaluator": o.evaluator,
                    "difference": o.difference,
                    "ok": o.ok,
                    "problem": o.problem,
                }
                for o in self.outcomes
            ],
        }

    def table(self) -> Table:
        """Return a table for the terminal."""
        from rich.table import Table

        shrunken = ", ".join(f"{name}={value}" for name, value in self.shrunken.items())
        size = f"{self.program.graph.parameter_count:,} parameters" + (f"; shrunken to {shrunken}" if shrunken else "")
        table = Table(title=f"{self.program.name} ({size}) against the NumPy reference", title_justify="left")
        table.add_column("target")
        table.add_column("run by")
        table.add_column("largest relative difference", justify="right")
        table.add_column("")
        for outcome in self.outcomes:
            shown = f"{outcome.difference:.1e}" if outcome.difference is not None else "-"
            table.add_row(
                outcome.target, outcome.evaluator, shown, "ok" if outcome.ok else outcome.problem or "DIFFERS"
            )
        return table


def verify_file(
    file: str, overrides: Mapping[str, Scalar], model: str | None, targets: tuple[str, ...], seed: int, full: bool
) -> Verification:
    """Run the model of a file through every target that is installed (or `targets`).

    Raises:
        InputError: as `load_program`.
        UsageError: none of `targets` has anything that computes, or as `load_program`.
    """
    program = load_program(file, overrides, model)
    shrunken: dict[str, Scalar] = {}
    if not full:
        program, shrunken = _shrunk(file, overrides, model, program)
    outcomes = tuple(verify_program(program, targets or tuple(target_names()), seed))
    if targets and not outcomes:
        raise UsageError(f"--target {targets[0]}: what it makes computes nothing that could be compared")
    return Verification(program, shrunken, outcomes)


def _shrunk(
    file: str, overrides: Mapping[str, Scalar], model: str | None, program: Program
) -> tuple[Program, dict[str, Scalar]]:
    """Return a small copy of a large model: fewer layers, tokens and positions, then a smaller width."""
    shrunken: dict[str, Scalar] = {}
    for candidate in _candidates(program):
        if _size(program.graph) <= LARGEST:
            break
        attempt = {**shrunken, **candidate}
        try:
            program = load_program(file, {**overrides, **attempt}, model)
        except InputError:
            continue
        shrunken = attempt
    return program, shrunken


def _size(graph: Graph) -> int:
    count = graph.parameter_count
    return count if isinstance(count, int) else 0


def _candidates(program: Program) -> list[dict[str, Scalar]]:
    """Return changes of sizes to try, one after another; each that the model's own checks accept is kept."""
    sizes = {name: value for name, value in program.arguments if isinstance(value, int) and not isinstance(value, bool)}
    changes: list[dict[str, Scalar]] = [{name: small} for name, small in SHRUNKEN.items() if sizes.get(name, 0) > small]
    for divisor in (4, 8, 16, 32, 64, 128):
        if "width" in sizes and sizes["width"] % divisor == 0:
            narrow: dict[str, Scalar] = {"width": sizes["width"] // divisor}
            if "ffn" in sizes and sizes["ffn"] % divisor == 0:
                narrow["ffn"] = sizes["ffn"] // divisor
            changes.append(narrow)
    return changes


def verify_program(program: Program, targets: tuple[str, ...], seed: int) -> list[Outcome]:
    """Run `program` with random weights and inputs through the evaluators of `targets`."""
    from cgc.interpret import interpret
    from cgc.weights import initialize, random_inputs

    weights = _moved(program.graph, initialize(program.graph, seed), seed)
    runs = [random_inputs(program.graph, sizes, seed + i) for i, sizes in enumerate(_sizes(program.graph))]
    expected = [interpret(program.graph, weights, inputs) for inputs in runs]
    problem = _not_a_number(expected)
    outcomes: list[Outcome] = []
    for name in targets:
        try:
            evaluators = list(find_target(name).evaluators(program))
        except ImportError as error:
            outcomes.append(Outcome(name, "-", None, f"needs `{error.name}`, which is not installed"))
            continue
        for evaluator_name, evaluator in evaluators:
            try:
                differences = [
                    _difference(evaluator(weights, inputs), outputs)
                    for inputs, outputs in zip(runs, expected, strict=True)
                ]
            except TargetError as error:
                outcomes.append(Outcome(name, evaluator_name, None, f"{error.code}: {error}"))
                continue
            outcomes.append(Outcome(name, evaluator_name, None if problem else max(differences), problem))
    return outcomes


def _moved(graph: Graph, weights: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the weights, those that start as a constant moved from it: what is all zeros would hide what is before."""
    import numpy as np

    random = np.random.default_rng(seed)
    constant = {param.name for param in graph.params if param.init.distribution == "constant"}
    moves = {name: 0.1 * random.standard_normal(weights[name].shape) for name in weights if name in constant}
    return {
        name: array + moves[name].astype(array.dtype) if name in moves else array for name, array in weights.items()
    }


def _sizes(graph: Graph) -> list[dict[str, int]]:
    """Return values for the symbols of a graph, for each run."""
    sizes: list[dict[str, int]] = []
    for batch, seq in RUN_SIZES:
        run: dict[str, int] = {}
        for symbol in graph.symbols:
            limit = symbol.limit.size if symbol.limit is not None else None
            wish = seq if limit is not None or symbol.name == "seq" else batch
            run[symbol.name] = min(wish, limit) if isinstance(limit, int) else wish
        sizes.append(run)
    return sizes


def _not_a_number(outputs: list[dict[str, Any]]) -> str:
    """Say which output of the reference is NaN somewhere: what agrees with that agrees with nothing."""
    import numpy as np

    names = [name for run in outputs for name, array in run.items() if np.isnan(array).any()]
    return f"`{names[0]}` is NaN in the reference" if names else ""


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Return the largest difference, relative to the largest magnitude of each output; infinity for another shape."""
    import numpy as np

    largest = 0.0
    for name, wanted in expected.items():
        got = np.asarray(found[name])
        if got.shape != wanted.shape:
            return float("inf")
        if not wanted.size:
            continue
        scale = float(np.max(np.abs(np.where(np.isfinite(wanted), wanted, 0)))) or 1.0
        same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0.0, np.abs(got.astype(np.float64) - wanted.astype(np.float64)))
        largest = max(largest, float(np.max(np.nan_to_num(gap, nan=np.inf))) / scale)
    return largest
