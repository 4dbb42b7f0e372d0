"""What is to be run: the sizes, the precision and what training keeps for each parameter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from cgc.ir.dims import evaluate
from cgc.program import Program
from cgc.target import CompileOptions, TargetError

Purpose: TypeAlias = Literal["training", "forward", "decode"]

PURPOSES: dict[str, Purpose] = {"train": "training", "prefill": "forward", "decode": "decode"}
"""What `--mode` says, and what it is."""

NUMBER_BYTES = {"f32": 4, "bf16": 2, "f16": 2}
GRADIENT_BYTES = 4
"""Gradients are summed over the sequences of a step in float32."""


@dataclass(frozen=True, slots=True)
class Job:
    """`batch` sequences of `seq` tokens a step on each of `wafers` wafers; `sizes` are those of one sequence.

    `number` is the size in bytes of a weight and of an entry of an activation, `optimizer_state` the bytes that the
    optimizer keeps for each parameter. `whole` is the batch of all wafers. With `recompute` training stores only what
    enters a layer. In decoding, each sequence has `seq` tokens, the newest of which is made in the step.
    """

    purpose: Purpose
    batch: int
    seq: int
    sizes: tuple[tuple[str, int], ...]
    precision: str
    number: int
    optimizer: str
    optimizer_state: int
    recompute: bool = False
    wafers: int = 1
    whole: int = 0

    @property
    def sequences(self) -> int:
        """Sequences of one step on all wafers."""
        return self.whole or self.batch

    @property
    def tokens(self) -> int:
        """Tokens of one step on all wafers."""
        return self.sequences * (1 if self.purpose == "decode" else self.seq)

    def on(self, wafers: int) -> Job:
        """Return the same job, its batch spread over so many wafers."""
        return replace(self, wafers=wafers, batch=-(-self.sequences // wafers), whole=self.sequences)


def job_of(program: Program, options: CompileOptions) -> Job:
    """Return what `program` is meant for at these options: training where it has a `train` item, else a forward pass.

    Raises:
        TargetError: CG0604 where a size is out of range or the model has no such size, CG0606 where a size is unknown,
            CG0640 where an option is for another mode, CG0656 where there are more wafers than sequences.
    """
    train = program.train
    purpose: Purpose = "forward" if train is None else "training"
    if options.mode is not None:
        purpose = PURPOSES[options.mode]
    if options.recompute and purpose != "training":
        text = "`--recompute` is for training, which stores what it computes again otherwise; this is a pass forward"
        raise TargetError("CG0640", text, "leave it out, or ask for `--mode train`")
    sizes = _sizes(program, options)
    seq, batch = sizes.get("seq", 1), 1
    if "batch" in sizes:
        batch, sizes["batch"] = sizes["batch"], 1
        # A prefill or a decode step that was asked for by name is one request, unless a batch is given.
        meant = options.batch is None and options.mode in (None, "train")
        if meant and train is not None and train.batch is not None:
            per = seq if train.batch.unit == "tokens" else 1
            batch = max(1, round(train.batch.value / per))
    precision = train.precision if train is not None else "f16"
    optimizer, state = _optimizer(program, NUMBER_BYTES[precision])
    ordered = tuple(sorted(sizes.items()))
    job = Job(purpose, batch, seq, ordered, precision, NUMBER_BYTES[precision], optimizer, state, options.recompute)
    if options.wafers > batch:
        text = f"{options.wafers} wafers for a batch of {batch}: each needs a sequence of its own"
        raise TargetError("CG0656", text, f"`--wafers {batch}` at most, or a larger `--batch`")
    return job.on(options.wafers)


def other_purpose(job: Job) -> Job:
    """Return the same job for the other purpose: training, or a forward pass where it is that."""
    return replace(job, purpose="forward" if job.purpose == "training" else "training")


def _sizes(program: Program, options: CompileOptions) -> dict[str, int]:
    given = {name: value for name, value in (("batch", options.batch), ("seq", options.seq)) if value is not None}
    sizes: dict[str, int] = {}
    for symbol in program.graph.symbols:
        limit = None if symbol.limit is None else evaluate(symbol.limit.size, {})
        size = given.pop(symbol.name, 1 if symbol.name == "batch" else limit)
        if size is None:
            hint = f"say how large it may become in the model: `{symbol.name} <= 2048`"
            hint += "; sequences are counted by `batch`, their tokens by `seq`"
            hint = "give it with `--seq`" if symbol.name == "seq" else hint
            raise TargetError("CG0606", f"the size of `{symbol.name}` is not known", hint)
        if size < 1 or (limit is not None and size > limit):
            most = f"it is at most {limit}, the size of `{symbol.limit.name}`" if symbol.limit else "it is at least 1"
            raise TargetError("CG0604", f"`{symbol.name}` cannot be {size}", most)
        sizes[symbol.name] = size
    if given:
        name = min(given)
        raise TargetError("CG0604", f"`{program.name}` has no free size `{name}`", f"leave `--{name}` out")
    return sizes


def _optimizer(program: Program, number: int) -> tuple[str, int]:
    """Return the optimizer's name and its bytes a parameter: float32 moments, and a float32 copy of a 16-bit weight."""
    copy = 0 if number == 4 else 4
    optimizer = program.train.optimizer if program.train is not None else None
    if optimizer is None or optimizer.name == "adamw":
        return "adamw", copy + 8
    return "sgd", copy + (4 if dict(optimizer.arguments).get("momentum") else 0)
