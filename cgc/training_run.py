"""A `train` item as a run in steps: how many tokens a step has, how many steps there are, and the rate at each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cgc.diagnostics import Diagnostic, InputError, Label
from cgc.ir.dims import evaluate
from cgc.ir.graph import Value
from cgc.program import Amount, Program, SchedulePhase

COMPUTE_OPTIMAL = 20.0
"""Tokens per parameter where the file names none (Hoffmann et al. 2022, arXiv 2203.15556; Dey et al. 2023)."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the learning rate in steps: from `start` (part of the peak) to `to`, over `steps`."""

    shape: Literal["warmup", "linear", "cosine", "constant"]
    steps: int
    start: float
    to: float

    def at(self, step: int) -> float:
        """Return the part of the peak rate at a step of this phase, counted from 0."""
        done = min(1.0, step / self.steps)
        match self.shape:
            case "warmup":
                return (step + 1) / self.steps
            case "linear":
                return self.start + (self.to - self.start) * done
            case "cosine":
                return self.to + (self.start - self.to) * (1 + math.cos(math.pi * done)) / 2
            case "constant":
                return self.to


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """`steps` steps of `batch` sequences of `seq` tokens; `chosen` says what set the length."""

    batch: int
    seq: int
    steps: int
    phases: tuple[Phase, ...]
    chosen: Literal["tokens", "steps", "20 per parameter"]

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step."""
        return self.batch * self.seq

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.tokens_per_step

    def rate(self, step: int) -> float:
        """Return the part of the peak learning rate at a step, counted from 0; after the last phase it stays."""
        left = step
        for phase in self.phases:
            if left < phase.steps:
                return phase.at(left)
            left -= phase.steps
        return self.phases[-1].to if self.phases else 1.0


def training_run(program: Program, batch: int | None = None, seq: int | None = None) -> TrainingRun:
    """Return the run of a program's `train` item; without one, or without a length, 20 tokens per parameter.

    `batch` (sequences) and `seq` (tokens of a sequence, the model's limit by default) come before what the file says.

    Raises:
        InputError: CG0680, the batch or the length of a sequence is not known, or too long.
    """
    train = program.train
    seq = _sequence(program, seq)
    batch = batch or _batch(program, seq)
    per_step = batch * seq
    chosen: Literal["tokens", "steps", "20 per parameter"]
    if train is not None and train.steps is not None:
        chosen, steps = "steps", int(train.steps.value)
    else:
        said = train.tokens if train is not None else None
        chosen = "20 per parameter" if said is None else "tokens"
        steps = _steps(program, said or Amount(COMPUTE_OPTIMAL, "per param"), per_step)
    phases: list[Phase] = []
    for phase in train.schedule if train is not None else ():
        phases.append(_phase(program, phase, phases, steps, per_step))
    return TrainingRun(batch, seq, steps, tuple(phases), chosen)


def _steps(program: Program, amount: Amount, per_step: int) -> int:
    if amount.unit == "steps":
        return int(amount.value)
    tokens = amount.value
    if amount.unit == "per param":
        count = program.graph.parameter_count
        assert isinstance(count, int), "the sizes of a program's parameters are known"
        tokens *= count
    return max(1, round(tokens / per_step))


def _phase(program: Program, phase: SchedulePhase, before: list[Phase], steps: int, per_step: int) -> Phase:
    start = before[-1].to if before else (0.0 if phase.shape == "warmup" else 1.0)
    spent = sum(earlier.steps for earlier in before)
    length = max(1, steps - spent) if phase.length is None else _steps(program, phase.length, per_step)
    return Phase(phase.shape, length, start, phase.to)


def tokens_input(program: Program) -> Value:
    """Return the model's input of tokens [batch, seq] (InputError, CG0680: it has none)."""
    tokens = next((value for value in program.graph.inputs if value.type.indexes is not None), None)
    if tokens is None or len(tokens.type.dims) != 2:
        hint = "a run is counted in tokens, as of `input tokens[batch, seq <= context] : id of vocab`"
        raise _unknown(program, "the model has no tokens [batch, seq]", hint)
    return tokens


def _sequence(program: Program, asked: int | None) -> int:
    size = tokens_input(program).type.dims[1].size
    if isinstance(size, int):
        return size
    limits = {known.name: known.limit for known in program.graph.symbols}
    most = limits.get(str(size))
    limit = None if most is None else evaluate(most.size, {})
    if asked is not None and limit is not None and asked > limit:
        raise _unknown(program, f"a sequence of {asked} tokens is longer than the model takes: {limit}", "")
    if asked is None and limit is None:
        hint = "say how long one may be, as in `input tokens[batch, seq <= context]`, or give `--seq`"
        raise _unknown(program, "the length of a sequence is not known", hint)
    return asked or limit or 1


def _batch(program: Program, seq: int) -> int:
    said = program.train.batch if program.train is not None else None
    if said is None:
        hint = "add a line like `batch = 120 sequences` to the `train` item, or give `--batch`"
        raise _unknown(program, "the batch of a step is not known", hint)
    return max(1, round(said.value / seq if said.unit == "tokens" else said.value))


def _unknown(program: Program, why: str, hint: str) -> InputError:
    place = program.train.location if program.train is not None else program.graph.location
    labels = (Label(place),) if place.file == program.file else ()
    return InputError([Diagnostic("CG0680", f"the run of `{program.name}` cannot be counted: {why}", labels, hint)])
