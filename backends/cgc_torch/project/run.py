"""The run that a project trains: the `train` item in steps and sequences, with defaults where it says nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgc.analysis.flops import training_flops
from cgc.program import Amount, Optimizer, Program, SchedulePhase, Train
from cgc.training_run import COMPUTE_OPTIMAL, TrainingRun, training_run
from cgc_torch.language_model import LanguageModel, language_model

USUAL_CONTEXT = 1024
"""Tokens of a sequence where the model sets no limit."""
USUAL_TOKENS_PER_STEP = 2**19
LEAST_STEPS = 1000
"""Steps of a run whose batch the file leaves open: small models have fewer tokens to a step."""
"""Tokens of a step where the file gives no batch: half a million (Brown et al. 2020, arXiv 2005.14165, table 2.1)."""
USUAL_RATE = 6e-4
"""The peak learning rate where the file gives none: that of the smallest models of the same table."""

USUAL = Train(
    tokens=Amount(COMPUTE_OPTIMAL, "per param"),
    lr=USUAL_RATE,
    optimizer=Optimizer("adamw", (("beta1", 0.9), ("beta2", 0.95), ("eps", 1e-8), ("weight_decay", 0.1))),
    clip=1.0,
)
"""What a model without a `train` item is trained with, beside the schedule: AdamW as in the same paper, appendix B."""


class NoTraining(ValueError):
    """Why a program gets no training program."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run: sizes, length, schedule; what of it the file does not say is in `assumed`, by name.

    `written` are the phases of the schedule as the file has them. `program` is the one given, with those defaults.
    """

    program: Program
    model: LanguageModel
    run: TrainingRun
    train: Train
    written: tuple[SchedulePhase, ...]
    rate: float
    flops_per_token: int
    assumed: frozenset[str]


def planned(program: Program) -> Planned:
    """Return the run that `program` asks for.

    Raises:
        NoTraining: it is no language model, or is to be trained in a way that the project has not.
    """
    model = language_model(program)
    if model is None:
        raise NoTraining("the model does not map tokens [batch, seq] to logits over their vocabulary")
    train, assumed = _completed(program)
    if train.optimizer is None or train.optimizer.name != "adamw":
        raise NoTraining("the training program has AdamW only")
    if train.precision == "f16":
        raise NoTraining("training in f16 needs scaled losses; bf16 does not")
    context = model.context or USUAL_CONTEXT
    assumed |= set() if model.context else {"context"}
    batch = None
    if train.batch is None:
        whole = training_run(replace(program, train=replace(train, steps=None)), 1, context).tokens
        per_step = min(USUAL_TOKENS_PER_STEP, whole // LEAST_STEPS)
        batch, assumed = max(1, per_step // context), assumed | {"batch"}
    # Rates, eps and decay follow from the `train` item: what was derived from the one in the file may not hold.
    program = replace(program, train=train, parametrization=program.parametrization if not assumed else None)
    run = training_run(program, batch, context)
    if not train.schedule:
        warmup = SchedulePhase("warmup", Amount(max(1, run.steps // 50), "steps"), 1.0)
        train = replace(train, schedule=(warmup, SchedulePhase("cosine", None, 0.1)))
        assumed |= {"schedule"}
        program = replace(program, train=train)
        run = training_run(program, batch, context)
    own = program.mup.value("lr") if program.mup is not None else None
    rate = own if own is not None else train.lr
    assert rate is not None, "completed"
    graph = program.graph
    tokens = graph.inputs[0].type.dims
    sizes = {str(dim.size): count for dim, count in zip(tokens, (1, context), strict=True)}
    flops = training_flops(graph, sizes) // context
    return Planned(program, model, run, train, train.schedule, rate, flops, frozenset(assumed))


def _completed(program: Program) -> tuple[Train, set[str]]:
    """Return the `train` item with usual values for what it leaves open, and the names of those."""
    rate = program.mup is not None and program.mup.value("lr") is not None
    if program.train is None:
        assumed = {"tokens", "optimizer", "clip"} | (set() if rate else {"learning_rate"})
        return (replace(USUAL, lr=None) if rate else USUAL), assumed
    train, assumed = program.train, set[str]()
    if train.lr is None and not rate:
        train, assumed = replace(train, lr=USUAL.lr), assumed | {"learning_rate"}
    if train.optimizer is None:
        train, assumed = replace(train, optimizer=USUAL.optimizer), assumed | {"optimizer"}
    if train.steps is None and train.tokens is None:
        assumed |= {"tokens"}
    return train, assumed
