"""The run of a model-zoo configuration in the older layout: `optimizer`, `runconfig` and `train_input` at the top."""

from __future__ import annotations

from cgc.importers.document import Entry
from cgc.importers.fields import Fields
from cgc.importers.modelzoo_run import ALL_AT_ONCE, Phase, adamw_of, batch_of, half_precision, phase_of, schedule_of

_SCHEDULERS = {
    **{"Linear": "LinearLR", "Cosine": "CosineDecayLR", "CosineDecay": "CosineDecayLR", "Constant": "ConstantLR"},
    **{name: name for name in ("LinearLR", "CosineDecayLR", "ConstantLR")},
}
_LENGTHS = ("total_iters", "steps", "decay_steps")
"""Names of a scheduler's steps, newest first."""
_OPTIMIZER_WITHOUT_EFFECT = (
    *("log_summaries", "loss_scaling_factor", "initial_loss_scale", "min_loss_scale", "max_loss_scale"),
    *("steps_per_increase", "ws_summary"),
)
_RUN_WITHOUT_EFFECT = (
    *("log_steps", "checkpoint_steps", "save_initial_checkpoint", "keep_checkpoint_max", "max_checkpoints"),
    *("save_losses", "save_summary_steps", "save_checkpoints_steps", "log_summaries", "model_dir", "mode", "logging"),
    *("eval_steps", "eval_frequency", "num_csx", "num_wgt_servers", "num_act_servers", "num_workers_per_csx"),
    *("precision_opt_level", "enable_distributed", "validate_only", "compile_only", "steps_per_epoch"),
)
_MODEL_WITHOUT_EFFECT = ("boundary_casting", "tf_summary", "enable_vts", "precision_opt_level", "attention_kernel")


def flat_precision(model: Fields) -> list[str]:
    """Return the line of a `train` item for the precision, which stands among the model's fields there."""
    model.ignore(_MODEL_WITHOUT_EFFECT)
    model.expect("use_position_embedding", True, hint="models of this form are of the family gpt2")
    half = model.flag("use_bfloat16", default=False)
    if model.flag("mixed_precision", default=False):
        return half_precision(model, "bfloat16" if half else "float16")
    model.ignore(("fp16_type",))
    return []


def read_flat_run(top: Fields, context: int, precision: list[str]) -> tuple[float, list[str]]:
    """Return the peak of the learning rate, and the lines of a `train` item without `lr`: steps and batch first."""
    top.ignore(("eval_input",))
    run = top.section("runconfig", required=True)
    steps, seed = _length(run) if run is not None else (1, 0)
    data = top.section("train_input", required=True)
    batch = batch_of(data, context) if data is not None else 1
    optimizer = top.section("optimizer", required=True)
    peak, lines = _optimizer(top, optimizer) if optimizer is not None else (1.0, [])
    lines = [f"steps = {steps} steps", f"batch = {batch} sequences", *lines, *precision]
    return peak, [*lines, *([f"seed = {seed}"] if seed else [])]


def _length(run: Fields) -> tuple[int, int]:
    """Return the steps of a run, and its seed."""
    steps = run.whole("max_steps", "num_steps")
    run.expect("num_epochs", hint="a run is as long as `max_steps` says")
    run.expect("grad_accum_steps", 1, hint=ALL_AT_ONCE)
    seed = run.whole("seed", default=0, least=0, most=2**32 - 1)
    run.ignore(_RUN_WITHOUT_EFFECT)
    run.finish()
    return steps, seed


def _optimizer(top: Fields, fields: Fields) -> tuple[float, list[str]]:
    """Return the peak of the learning rate, and the lines for optimizer, schedule and clipping."""
    name = fields.text("optimizer_type", "name")
    if fields.has("optimizer_type", "name") and name.lower() != "adamw":
        place = fields.place("optimizer_type", "name")
        fields.fault("CG1005", f"the optimizer is `{name}`, which cannot be expressed", place, "known is `AdamW`")
        return 1.0, []
    written = adamw_of(fields, ("weight_decay", "weight_decay_rate"))
    peak, schedule = _rate(top, fields)
    lines = [f"optimizer = {written}", *([f"schedule = {schedule}"] if schedule else [])]
    if fields.has("max_gradient_norm"):
        lines.append(f"clip = {fields.number('max_gradient_norm', above=0.0)!r}")
    fields.expect("max_gradient_value", hint="gradients are clipped by their norm only")
    fields.ignore(_OPTIMIZER_WITHOUT_EFFECT)
    fields.finish()
    return peak, lines


def _rate(top: Fields, fields: Fields) -> tuple[float, str]:
    """Return the peak of the learning rate, and the schedule as it is written: a number, a scheduler or a list."""
    entry = fields.take("learning_rate")
    if entry is None or not isinstance(entry.value, list | dict):
        return fields.number("learning_rate", above=0.0), ""
    entries = entry.value if isinstance(entry.value, list) else [entry]
    phases = [phase for at, part in enumerate(entries) if (phase := _phase(fields, part, at)) is not None]
    if not phases or len(fields.found):
        if not entries:
            fields.fault("CG1003", f"`{fields.full('learning_rate')}` is an empty list", entry.place)
        return 1.0, ""
    return schedule_of(top, phases)


def _phase(fields: Fields, entry: Entry, at: int) -> Phase | None:
    inner = Fields(entry, f"{fields.full('learning_rate')}[{at}]", fields.found)
    if not isinstance(entry.value, dict):
        return None
    name = inner.text("scheduler")
    if inner.has("scheduler"):
        return phase_of(_SCHEDULERS.get(name, name), inner, _LENGTHS)
    inner.ignore(inner.names())
    inner.finish()
    return None
