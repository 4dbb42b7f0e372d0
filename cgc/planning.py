"""What training a model takes before it is trained: parameters, FLOPs in three conventions, tokens, steps, time, loss.

Conventions, for `tokens` D of a run and `parameters` N:

- `six_nd`: 6·N·D, the usual formula.
- `graph`: three times the products of the graph's forward pass, exactly: one for the value, one for each operand's
  gradient. Scores and their product with the values are counted in full, the masked half too; nothing is made again.
- `algorithmic`: the same, and every lookup of a trained table as the product of a one-hot row that it stands for,
  forward and for the table's gradient but not for the gradient of its input, as Cerebras-GPT counts (Dey et al. 2023,
  arXiv 2304.03208).

`causal` leaves the masked half of the scores out of `graph`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from cgc.analysis.flops import forward_work, training_flops
from cgc.diagnostics import Diagnostic, InputError
from cgc.driver import check, select
from cgc.elaborate.values import Scalar
from cgc.ir.dims import SymbolicSize, evaluate
from cgc.ir.graph import Graph, Region
from cgc.ir.ops import Call, Gather, Repeat
from cgc.parametrize.model import parametrization_of
from cgc.program import Program
from cgc.services import StepTime, TimeModel
from cgc.target import CompileOptions, TargetError
from cgc.training_run import COMPUTE_OPTIMAL, TrainingRun, tokens_input, training_run

MEASURED = (2.6e18, 2.3e22)
"""Training FLOPs of the smallest and the largest model of the paper's frontier."""
FRONTIER_VOCABULARY = 50257
"""Losses per token can be compared only where tokens are the same."""


def frontier_loss(flops: float) -> float:
    """Return the Pile test loss of Cerebras-GPT at this compute, in nats per token (Dey et al. 2023, figure 3)."""
    return float((flops / 5.984e22) ** -0.0737 + 0.5066)


@dataclass(frozen=True, slots=True)
class Flops:
    """Training FLOPs of the whole run in each convention (see the module)."""

    six_nd: int
    graph: int
    causal: int
    algorithmic: int


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds of a step and of the run, on `device`: a wafer as `mode`, or a rate of FLOPs."""

    device: str
    step: float
    run: float
    flops_rate: float
    mode: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A machine that is only a rate: `flops` a second at its peak, of which `utilization` is reached."""

    flops: float
    utilization: float


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What training one model takes. `lookups` are parameters in tables and output matrices over a vocabulary.

    Where the batch is not known (`batched` false), `run` counts single sequences.
    """

    model: str
    file: str
    parametrization: str
    parameters: int
    lookups: int
    run: TrainingRun
    batched: bool
    flops: Flops
    loss: float
    time: Time | None

    @property
    def non_embedding(self) -> int:
        """Parameters without tables and without the matrix that makes logits (Kaplan et al. 2020)."""
        return self.parameters - self.lookups

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able data."""
        run = self.run
        low, high = MEASURED
        return {
            "model": self.model,
            "file": self.file,
            "parametrization": self.parametrization,
            "parameters": self.parameters,
            "non_embedding_parameters": self.non_embedding,
            "tokens": run.tokens,
            "tokens_per_parameter": run.tokens / self.parameters if self.parameters else None,
            "length_from": run.chosen,
            "compute_optimal_tokens": round(COMPUTE_OPTIMAL * self.parameters),
            "batch": run.batch if self.batched else None,
            "seq": run.seq,
            "steps": run.steps if self.batched else None,
            "flops": asdict(self.flops),
            "flops_per_token": self.flops.graph / run.tokens,
            "predicted_loss": {
                "value": self.loss,
                "formula": "(f / 5.984e22) ** -0.0737 + 0.5066",
                "flops": "algorithmic",
                "of": "Pile test loss of Cerebras-GPT under SP, nats per token of the GPT-2 vocabulary",
                "extrapolated": not low <= self.flops.algorithmic <= high,
            },
            "time": None if self.time is None else asdict(self.time),
        }


def plan_files(
    files: Iterable[str],
    overrides: Mapping[str, Scalar],
    model: str | None,
    where: TimeModel | Rate | None,
    device: str | None,
    batch: int | None,
    seq: int | None,
) -> list[ModelPlan]:
    """Return the plans of all models in some files (or those called `model`), smallest first; errors as `plan_model`.

    Raises:
        InputError: a file has faults, or no model with all its sizes (CG0406).
        UsageError: there is no model of that name.
    """
    found: list[ModelPlan] = []
    for file in files:
        checked = check(file, overrides, scaling="usual")
        programs = [select(checked, file, model)] if model or not checked.programs else checked.programs
        found += [plan_model(program, where, device, batch, seq) for program in programs]
    return sorted(found, key=lambda plan: (plan.parameters, plan.model))


def plan_model(
    program: Program, where: TimeModel | Rate | None, device: str | None, batch: int | None, seq: int | None
) -> ModelPlan:
    """Return the plan of a model; `where` is what says how long a step takes.

    Raises:
        InputError: CG0680, the run cannot be counted; or the device says why it cannot train the model.
    """
    batched = batch is not None or (program.train is not None and program.train.batch is not None)
    counted = batched or isinstance(where, TimeModel)
    run = training_run(program, batch if counted else 1, seq)
    graph = program.graph
    count = graph.parameter_count
    assert isinstance(count, int), "the sizes of a program's parameters are known"
    flops = _flops(program, run)
    made = parametrization_of(program)
    sizes = {param.name: evaluate(param.type.count, {}) for param in graph.params}
    lookups = sum(sizes[setting.name] for setting in made.params if setting.group in ("embedding", "output"))
    time = None if where is None else _time(program, run, flops, where, device)
    loss = frontier_loss(flops.algorithmic)
    return ModelPlan(program.name, program.file, made.name, count, lookups, run, batched, flops, loss, time)


def _flops(program: Program, run: TrainingRun) -> Flops:
    graph = program.graph
    rows, columns = (str(dim.size) for dim in tokens_input(program).type.dims)
    sizes = {known.name: {rows: run.batch, columns: run.seq}.get(known.name, 1) for known in graph.symbols}
    step = training_flops(graph, sizes)
    lookups = 4 * _lookup_products(graph, sizes)
    count = graph.parameter_count
    assert isinstance(count, int), "the sizes of a program's parameters are known"
    masked = 3 * _masked(graph, sizes, columns)
    whole = step * run.steps
    return Flops(6 * count * run.tokens, whole, whole - masked * run.steps, whole + lookups * run.steps)


def _masked(graph: Graph, sizes: dict[str, int], seq: str) -> int:
    """Return the forward operations on scores that a causal mask makes useless: those of keys after the query.

    Of s² pairs s(s + 1)/2 count. Terms of the work that are quadratic in the length of a sequence are such pairs.
    """
    work = forward_work(graph).matmul
    if not isinstance(work, SymbolicSize):
        return 0
    total = Fraction(0)
    for monomial, coefficient in work.terms:
        if (seq, 2) in monomial:
            pairs = math.prod(Fraction(sizes[name]) ** exponent for name, exponent in monomial)
            total += coefficient * pairs * Fraction(sizes[seq] - 1, 2 * sizes[seq])
    return int(total)


def _lookup_products(graph: Graph, sizes: dict[str, int]) -> int:
    """Return the multiply-adds of every lookup in a trained table, made as the product of one-hot rows."""
    functions = {function.name: function for function in graph.functions}

    def region(body: Region, trained: set[str]) -> int:
        total = 0
        for node in body.nodes:
            held = [value.name in trained for value in node.inputs]
            match node.op:
                case Gather(dim=dim) if held[0]:
                    rows = evaluate(node.inputs[0].type.dim(dim).size, sizes)
                    total += rows * evaluate(node.output.type.count, sizes)
                case Call(function=name):
                    inner = functions[name].body
                    total += region(inner, {v.name for v, of in zip(inner.arguments, held, strict=True) if of})
                case Repeat(stack=stack, body=inner):
                    inside = {v.name for v, of in zip(inner.arguments, held, strict=True) if of}
                    total += evaluate(stack.size, sizes) * region(inner, inside)
                case _:
                    pass
        return total

    return region(graph.body, {param.name for param in graph.params})


def _time(program: Program, run: TrainingRun, flops: Flops, where: TimeModel | Rate, device: str | None) -> Time:
    if isinstance(where, Rate):
        rate = where.flops * where.utilization
        step = flops.graph / run.steps / rate
        name = f"{where.flops:g} FLOP/s at {where.utilization:g}"
        return Time(name, step, step * run.steps, rate, "rate")
    try:
        found: StepTime = where.step_time(program, CompileOptions(batch=run.batch, seq=run.seq, device=device))
    except TargetError as error:
        raise InputError([Diagnostic(error.code, str(error), (), error.hint)]) from error
    achieved = flops.graph / run.steps / found.seconds
    return Time(found.device, found.seconds, found.seconds * run.steps, achieved, found.mode)
