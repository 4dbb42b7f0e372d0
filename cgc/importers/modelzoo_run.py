"""The run of a model-zoo configuration: optimizer, schedule, precision, clipping, steps, batch."""

from __future__ import annotations

from dataclasses import dataclass

from cgc.diagnostics import Location
from cgc.importers.fields import Fields
from cgc.importers.recipe import number_text, same

_DATA_WITHOUT_EFFECT = (
    *("data_processor", "data_dir", "shuffle", "shuffle_seed", "num_workers", "prefetch_factor"),
    *("persistent_workers", "drop_last", "micro_batch_size"),
)
_PRECISION_WITHOUT_EFFECT = ("precision_opt_level", "log_loss_scale", "loss_scaling_factor", "initial_loss_scale")
_LOOP_WITHOUT_EFFECT = ("eval_frequency", "eval_steps")
PRECISIONS = {"bfloat16": "bf16", "float16": "f16"}
ALL_AT_ONCE = "a step is of `batch_size` sequences at once: multiply it by the steps of accumulation instead"


@dataclass(frozen=True, slots=True)
class Phase:
    """One scheduler: its shape, the rates at its ends, and its steps."""

    shape: str
    start: float
    end: float
    steps: int
    place: Location


def read_run(init: Fields, fit: Fields, context: int) -> tuple[float, list[str]]:
    """Return the peak of the learning rate, and the lines of a `train` item without `lr`: steps and batch first."""
    lines = [f"steps = {_steps(init)} steps", f"batch = {_batch(fit, context)} sequences"]
    optimizer, rate = _optimizer(init)
    peak, schedule = _schedule(init, rate)
    lines += [f"optimizer = {optimizer}", *([f"schedule = {schedule}"] if schedule else [])]
    lines += _precision(init)
    seed = init.whole("seed", default=0, least=0, most=2**32 - 1)
    return peak, [*lines, *([f"seed = {seed}"] if seed else [])]


def _steps(init: Fields) -> int:
    loop = init.section("loop", required=True)
    if loop is None:
        return 1
    steps = loop.whole("max_steps")
    for name in ("num_epochs", "steps_per_epoch"):
        loop.expect(name, hint="a run is as long as `max_steps` says")
    loop.expect("grad_accum_steps", 1, hint=ALL_AT_ONCE)
    loop.ignore(_LOOP_WITHOUT_EFFECT)
    loop.finish()
    return steps


def _batch(fit: Fields, context: int) -> int:
    # where the run starts from, and what it is evaluated on
    fit.ignore(("ckpt_path", "val_dataloader"))
    data = fit.section("train_dataloader", required=True)
    fit.finish()
    return 1 if data is None else batch_of(data, context)


def batch_of(data: Fields, context: int) -> int:
    """Return the sequences of a step, from what describes the data."""
    batch = data.whole("batch_size")
    data.expect("max_sequence_length", context, hint="sequences of a run are as long as `max_position_embeddings`")
    data.expect("grad_accum_steps", 1, hint=ALL_AT_ONCE)
    data.ignore(_DATA_WITHOUT_EFFECT)
    data.finish()
    return batch


def _optimizer(init: Fields) -> tuple[str, float | None]:
    """Return the optimizer as it is written, and the learning rate if it has one."""
    section = init.section("optimizer", required=True)
    chosen = section.only("optimizer") if section is not None else None
    if chosen is None:
        return "adamw()", None
    name, fields = chosen
    if name != "AdamW":
        fields.fault(
            "CG1005", f"the optimizer is `{name}`, which cannot be expressed", fields.place(), "known is `AdamW`"
        )
        # any rate, so that a missing one is no second fault
        return "adamw()", 1.0
    written = adamw_of(fields)
    rate = fields.number("learning_rate", "lr", above=0.0) if fields.has("learning_rate", "lr") else None
    fields.finish()
    return written, rate


def adamw_of(fields: Fields, decay: tuple[str, ...] = ("weight_decay",)) -> str:
    """Return the optimizer as it is written, from its fields without the learning rate."""
    beta1, beta2 = _betas(fields)
    settings = {"beta1": beta1, "beta2": beta2, "eps": fields.number("eps", above=0.0)}
    settings["weight_decay"] = fields.number(*decay)
    fields.expect("correct_bias", True, hint="AdamW corrects the bias of its moments")
    fields.expect("amsgrad", False, hint="AdamW without it is the only optimizer of this form")
    return f"adamw({', '.join(f'{name}={number_text(value)}' for name, value in settings.items())})"


def _betas(fields: Fields) -> tuple[float, float]:
    entries = fields.entries("betas", required=True)
    values = [
        float(entry.value)
        for entry in entries
        if isinstance(entry.value, int | float) and not isinstance(entry.value, bool) and 0 <= entry.value < 1
    ]
    if len(entries) == len(values) == 2:
        return values[0], values[1]
    if fields.has("betas"):
        message = f"`{fields.full('betas')}` is something else"
        fields.fault("CG1003", message, fields.place("betas"), "it is a list of two numbers from 0 to below 1")
    return 0.9, 0.999


def _precision(init: Fields) -> list[str]:
    fields = init.section("precision")
    if fields is None:
        return []
    lines: list[str] = []
    if fields.has("max_gradient_norm"):
        lines.append(f"clip = {fields.number('max_gradient_norm', above=0.0)!r}")
    fields.expect("max_gradient_value", hint="gradients are clipped by their norm only")
    if fields.flag("enabled", default=True):
        lines += half_precision(fields, "float16")
    else:
        fields.ignore(("fp16_type",))
    fields.ignore(_PRECISION_WITHOUT_EFFECT)
    fields.finish()
    return lines


def half_precision(fields: Fields, default: str) -> list[str]:
    """Return the line of a `train` item that says in which type of half the size a run computes."""
    kind = fields.text("fp16_type", default=default)
    if kind in PRECISIONS:
        return [f"precision = {PRECISIONS[kind]}"]
    text = f"`{fields.full('fp16_type')}` is {kind!r}, which cannot be expressed"
    fields.fault("CG1005", text, fields.place("fp16_type"), "known are `bfloat16` and `float16`")
    return []


# ---- the learning rate


def _schedule(init: Fields, rate: float | None) -> tuple[float, str]:
    """Return the peak of the learning rate and the schedule as it is written, empty where there is none."""
    entries = init.entries("schedulers") or init.entries("scheduler")
    if not entries:
        if rate is None:
            init.number("schedulers")
        return rate or 1.0, ""
    if len(entries) > 1:
        hint = "put them into one `SequentialLR`"
        init.fault("CG1005", "there are several schedulers at a time", entries[1].place, hint)
    phases = _phases(Fields(entries[0], init.full("schedulers"), init.found))
    if not phases or len(init.found):
        return 1.0, ""
    peak, words = schedule_of(init, phases)
    if rate is not None and not same(rate, peak):
        message = f"`{init.full('optimizer')}` has the learning rate {rate:g}, and the schedule rises to {peak:g}"
        init.fault("CG1006", message, init.place("optimizer"), "the schedule decides: take the other out")
    return peak, words


def schedule_of(init: Fields, phases: list[Phase]) -> tuple[float, str]:
    """Return the peak of the learning rate, and the phases as a schedule is written; faults go to `init`'s."""
    peak = max(max(phase.start, phase.end) for phase in phases)
    return peak, " then ".join(_words(init, phases, peak))


def _phases(section: Fields) -> list[Phase]:
    chosen = section.only("scheduler")
    if chosen is None:
        return []
    name, fields = chosen
    if name != "SequentialLR":
        phase = phase_of(name, fields)
        return [] if phase is None else [phase]
    phases: list[Phase] = []
    for at, entry in enumerate(fields.entries("schedulers", required=True)):
        inner = Fields(entry, f"{fields.full('schedulers')}[{at}]", fields.found).only("scheduler")
        phase = phase_of(*inner) if inner is not None else None
        phases += [phase] if phase is not None else []
    ends = [sum(phase.steps for phase in phases[: at + 1]) for at in range(len(phases) - 1)]
    stones = [entry.value for entry in fields.entries("milestones")]
    if stones and stones != ends and not len(fields.found):
        message = f"`{fields.full('milestones')}` is not where the schedulers end"
        fields.fault("CG1006", message, fields.place("milestones"), f"they end at {', '.join(map(str, ends))}")
    fields.expect("last_epoch", -1, hint="a run starts at its beginning")
    fields.finish()
    return phases


def phase_of(name: str, fields: Fields, steps_names: tuple[str, ...] = ("total_iters",)) -> Phase | None:
    """Return one scheduler, None where its kind is not known."""
    place = fields.place()
    match name:
        case "LinearLR" | "CosineDecayLR":
            start, end = fields.number("initial_learning_rate"), fields.number("end_learning_rate")
        case "ConstantLR":
            start = end = fields.number("learning_rate")
        case _:
            hint = "known are `LinearLR`, `CosineDecayLR` and `ConstantLR`, and `SequentialLR` of them"
            fields.fault("CG1005", f"the scheduler is `{name}`, which cannot be expressed", place, hint)
            return None
    steps = fields.whole(*steps_names)
    fields.expect("disable_lr_steps_reset", False, True, hint="it is true or false")
    fields.expect("last_epoch", -1, hint="a run starts at its beginning")
    fields.finish()
    shape = "constant" if start == end else "linear" if name == "LinearLR" else "cosine"
    return Phase(shape, start, end, steps, place)


def _words(init: Fields, phases: list[Phase], peak: float) -> list[str]:
    """Return the phases as they are written, each going on from where the one before it ended."""
    words: list[str] = []
    level = peak
    for at, phase in enumerate(phases):
        rises = at == 0 and phase.shape == "linear" and phase.start == 0 and same(phase.end, peak)
        if rises:
            words.append(f"warmup({phase.steps} steps)")
        elif not (same(phase.start, level) or phase.start == level):
            begins = "at its peak or at 0" if at == 0 else f"at {level:g}, where the one before it ends"
            message = f"the learning rate of this scheduler starts at {phase.start:g}"
            init.fault("CG1005", message, phase.place, f"a schedule goes on without a jump: let it start {begins}")
        elif phase.shape == "cosine" and phase.end > phase.start:
            init.fault("CG1005", "the learning rate rises along a cosine", phase.place, "let it rise with `LinearLR`")
        elif phase.shape == "constant":
            words.append(f"constant({phase.steps} steps)")
        else:
            end = f", to={part_text(phase.end, peak)}" if phase.end else ""
            words.append(f"{phase.shape}({phase.steps} steps{end})")
        level = phase.end
    return words


def part_text(end: float, peak: float) -> str:
    """Return the shortest part of `peak` that is `end`: 0.1 for 6e-5 of 6e-4."""
    part = min(end / peak, 1.0)
    for digits in range(1, 17):
        short = float(f"{part:.{digits}g}")
        if abs(short * peak - end) <= 1e-12 * end:
            return number_text(short)
    return number_text(part)
