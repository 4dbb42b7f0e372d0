"""`train.py`: the recipe and the schedule in numbers, around the loop that is the same for all models."""

from __future__ import annotations

from cgc.program import Amount, Program, SchedulePhase
from cgc.training_run import Phase
from cgc.version import VERSION
from cgc_torch.formatting import WIDTH, docstring, plain, statement
from cgc_torch.modules import plan
from cgc_torch.project.run import Planned
from cgc_torch.project.template import template

MICRO_TOKENS = 2**14
"""Tokens of a micro batch unless the user says otherwise: enough to keep a device busy, few enough to fit."""
VALIDATION_TOKENS = 2**18
"""About how many tokens are looked at to see how training goes; at the end it is all there are."""


def train_text(program: Program, planned: Planned) -> str:
    """Return `train.py`."""
    marks = {
        "HEADER": "\n".join(docstring(_about(program), 0, _USE)),
        "IMPORT": "\n".join(_import(plan(program).root.name)),
        "RECIPE": "\n".join(_recipe(program, planned)),
        "SCHEDULE": "\n".join(schedule_function(planned)),
    }
    wanted = {"autocast": planned.train.precision == "bf16", "clip": planned.train.clip is not None}
    return template("train.py", marks, wanted)


def _import(name: str) -> list[str]:
    """Return the import of the model's class, as a formatter leaves it."""
    line = f"from model import {name} as Model"
    return [line] if len(line) <= WIDTH else ["from model import (", f"    {name} as Model,", ")"]


_USE = (
    "    python train.py                                              # this machine",
    "    torchrun --nproc-per-node 8 train.py                         # a copy on each GPU",
    "    torchrun --nproc-per-node 8 train.py --parallel fsdp         # one model in parts",
    "",
    "A run that was killed goes on from its last checkpoint when started again.",
)


def _about(program: Program) -> str:
    origin = f" of {plain(program.file)}" if program.file else ""
    item = f"the `train` item{origin}" if program.train is not None else f"usual settings, as none stand in{origin[3:]}"
    return f"Train {program.name} with {item}; written by cgc {VERSION}."


def _recipe(program: Program, planned: Planned) -> list[str]:
    """Return the dataclass of the run's numbers, each with where it comes from."""
    run, train, assumed = planned.run, planned.train, planned.assumed
    rows = [
        ("vocab", "int", str(planned.model.vocab), "different tokens"),
        ("context", "int", str(run.seq), _context(planned)),
        ("steps", "int", str(run.steps), _length(planned)),
        ("batch", "int", str(run.batch), _batch(planned)),
        ("learning_rate", "float", repr(planned.rate), _rate(program, assumed)),
    ]
    if train.clip is not None:
        source = "; assumed" if "clip" in assumed else ""
        rows.append(("clip", "float", repr(train.clip), f"the largest norm of all gradients together{source}"))
    rows.append(("seed", "int", str(train.seed), "of weights and of the order of the data"))
    rows.append(("flops_per_token", "int", str(planned.flops_per_token), ""))
    about = f"How {program.name} is trained."
    lines = ["@dataclass(frozen=True)", "class Recipe:", *docstring(about, 1), ""]
    for name, type, value, source in rows[:-1]:
        lines += statement(f"{name}: {type} = {value}", 1, plain(source))
    lines += [
        "    # Products of the forward pass, two operations a multiply-add, times three: the",
        "    # backward pass makes two for each. Scores count in full, lookups and recomputed",
        "    # activations not at all.",
        f"    flops_per_token: int = {planned.flops_per_token}",
    ]
    batches = max(1, VALIDATION_TOKENS // run.tokens_per_step)
    return [
        *lines,
        "",
        "",
        f"MICRO_BATCH = {max(1, MICRO_TOKENS // run.seq)}",
        '"""How many sequences a rank takes at a time, unless the command line says so."""',
        f"VALIDATION_BATCHES = {batches}",
        '"""How many batches are looked at during training; at its end it is all there are."""',
    ]


def _context(planned: Planned) -> str:
    if "context" in planned.assumed:
        return "tokens of a sequence; assumed, the model sets no limit"
    return "tokens of a sequence: as many as the model takes"


def _length(planned: Planned) -> str:
    train, run = planned.train, planned.run
    if train.steps is not None:
        return "steps of the `train` item"
    said = train.tokens or Amount(20.0, "per param")
    which = "assumed" if "tokens" in planned.assumed else f"tokens = {_amount(said)}"
    per = f"{_amount(said)} of {planned.program.graph.parameter_count:,}" if said.unit == "per param" else ""
    shown = f"{which}: {per}" if "tokens" in planned.assumed else which
    return f"{shown}, {run.tokens:,} tokens"


def _batch(planned: Planned) -> str:
    if "batch" in planned.assumed:
        return "sequences of a step; assumed: half a million tokens"
    said = planned.train.batch
    assert said is not None, "assumed otherwise"
    source = f"; batch = {_amount(said)}" if said.unit == "tokens" else ""
    return f"sequences of a step, on all ranks together{source}"


def _rate(program: Program, assumed: frozenset[str]) -> str:
    if "learning_rate" in assumed:
        return "the peak; assumed"
    item = "mup" if program.mup is not None and program.mup.value("lr") is not None else "train"
    return f"the peak; lr of the `{item}` item"


def _amount(amount: Amount) -> str:
    return f"{amount.value:,.15g} {amount.unit}".strip()


# ---- the schedule


def schedule_function(planned: Planned) -> list[str]:
    """Return the function of the schedule: the phases one after another, the last one to the end of the run."""
    phases, written = planned.run.phases, planned.written
    said = " then ".join(map(_phase_text, written))
    assumed = " (assumed)" if "schedule" in planned.assumed else ""
    fitted = any(not _fixed(phase) for phase in written)
    lines = [
        "def schedule(step: int, steps: int) -> float:",
        *docstring(f"Return the part of the peak learning rate at a step: {said}{assumed}.", 1),
    ]
    if not fitted:
        lines[0] = "def schedule(step: int, _: int) -> float:"
    first = 0
    for index, (phase, source) in enumerate(zip(phases, written, strict=True)):
        last = index == len(phases) - 1
        length = str(phase.steps) if _fixed(source) else (f"(steps - {first})" if first else "steps")
        lines += _phase_lines(phase, first, length, last)
        first += phase.steps
    return lines


def _fixed(phase: SchedulePhase) -> bool:
    return phase.length is not None or phase.shape == "constant"


def _phase_lines(phase: Phase, first: int, length: str, last: bool) -> list[str]:
    if phase.shape == "constant" and last:
        return [f"    return {phase.to!r}"]
    depth, lines = 1, list[str]()
    if not last or phase.shape == "warmup":
        lines.append(f"    if step < {first + phase.steps}:")
        depth = 2
    pad = "    " * depth
    done = f"(step - {first}) / {length}" if first else f"step / {length}"
    if last and phase.shape != "warmup":
        done = f"min(1.0, {done})"
    match phase.shape:
        case "warmup":
            lines.append(f"{pad}return (step + 1) / {length}")
        case "constant":
            lines.append(f"{pad}return {phase.to!r}")
        case "linear":
            lines.append(f"{pad}done = {done}")
            sign, way = ("+" if phase.to >= phase.start else "-"), abs(phase.to - phase.start)
            lines.append(f"{pad}return {phase.start!r} {sign} {way!r} * done")
        case "cosine":
            lines.append(f"{pad}done = {done}")
            lines.append(f"{pad}return {phase.to!r} + {phase.start - phase.to!r} * (1 + math.cos(math.pi * done)) / 2")
    return [*lines, "    return 1.0"] if last and phase.shape == "warmup" else lines


def _phase_text(phase: SchedulePhase) -> str:
    parts = [_amount(phase.length)] if phase.length is not None else []
    parts += [f"to={phase.to:g}"] if phase.shape in ("linear", "cosine") else []
    return f"{phase.shape}({', '.join(parts)})" if parts else phase.shape


assert WIDTH == 88, "the templates are written for the line length of the emitted model"
