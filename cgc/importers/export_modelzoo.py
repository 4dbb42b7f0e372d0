"""A program with its run as model-zoo YAML of the Cerebras-GPT form.

Numbers of the parametrization are taken from what was derived, not from how the file says it: deviations before scaling
are those of the parameters, scaled back.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from cgc.diagnostics import Diagnostic, InputError
from cgc.program import Amount, Parametrization, Program, SchedulePhase, Train

_ACTIVATIONS = {"gelu_tanh": "gelu_new"}
_PRECISIONS = {"bf16": "bfloat16", "f16": "float16"}


def modelzoo_text(program: Program) -> str:
    """Return the configuration of a gpt2 with a `train` item; what it cannot say is left out.

    Raises:
        InputError: CG1008, the file says too little of a run.
    """
    train = program.train
    lacking = _lacking(program)
    if train is None or lacking:
        hint = "model-zoo YAML describes a model and its run: give the `train` item these lines"
        message = f"`{program.name}` cannot be exported: its run lacks {', '.join(lacking)}"
        raise InputError([Diagnostic("CG1008", message, (), hint)])
    train = in_steps(program, train)
    assert train.steps is not None and train.batch is not None and train.optimizer is not None, "nothing is lacking"
    rate = peak(program)
    settings = dict(train.optimizer.arguments)
    optimizer = {
        "betas": [settings.get("beta1", 0.0), settings.get("beta2", 0.0)],
        "eps": settings.get("eps", 0.0),
        "weight_decay": settings.get("weight_decay", 0.0),
        "correct_bias": True,
    }
    optimizer |= _tuned_optimizer(program)
    init: dict[str, Any] = {
        "model": _model(program),
        "optimizer": {"AdamW" if train.optimizer.name == "adamw" else "SGD": optimizer},
    }
    if train.schedule:
        init["schedulers"] = [{"SequentialLR": {"schedulers": _schedulers(train.schedule, rate)}}]
    else:
        optimizer["learning_rate"] = rate
    init["precision"] = {"enabled": train.precision != "f32"}
    if train.precision != "f32":
        init["precision"]["fp16_type"] = _PRECISIONS[train.precision]
    if train.clip is not None:
        init["precision"]["max_gradient_norm"] = train.clip
    init["loop"] = {"max_steps": int(train.steps.value)}
    if train.seed:
        init["seed"] = train.seed
    data: dict[str, Any] = {"batch_size": int(train.batch.value)}
    if train.data is not None:
        data["data_dir"] = train.data
    return "\n".join(_yaml({"trainer": {"init": init, "fit": {"train_dataloader": data}}})) + "\n"


def _lacking(program: Program) -> list[str]:
    train = program.train or Train()
    given = {
        "`steps`": train.steps or train.tokens,
        "`batch`": train.batch,
        "`optimizer`": train.optimizer,
        "`lr`": peak(program),
    }
    return [name for name, value in given.items() if not value]


def peak(program: Program) -> float:
    """Return the largest learning rate that the file gives, 0 where it gives none."""
    said = program.mup.value("lr") if program.mup is not None else None
    return said or (program.train.lr if program.train is not None else None) or 0.0


def _tuned_optimizer(program: Program) -> dict[str, float]:
    """Return what a `mup` item says of the optimizer, which comes before what the `train` item says."""
    if program.mup is None:
        return {}
    said = {name: program.mup.value(name) for name in ("eps", "weight_decay")}
    return {name: value for name, value in said.items() if value is not None}


def in_steps(program: Program, train: Train) -> Train:
    """Return a run with all lengths in steps and the batch in sequences; tokens are rounded to whole steps."""
    context = dict(program.arguments)["context"]
    assert isinstance(context, int), "the family's header says it"
    if train.batch is None:
        return train
    sequences = train.batch.value / context if train.batch.unit == "tokens" else train.batch.value
    batch = max(1, round(sequences))

    def steps(amount: Amount) -> Amount:
        tokens = amount.value
        if amount.unit == "steps":
            return amount
        if amount.unit == "per param":
            tokens *= float(program.graph.parameter_count)  # type: ignore[arg-type]
        return Amount(float(max(1, round(tokens / (batch * context)))), "steps")

    length = train.steps or (steps(train.tokens) if train.tokens is not None else None)
    phases: list[SchedulePhase] = []
    for phase in train.schedule:
        spent = sum(before.length.value for before in phases if before.length is not None)
        rest = Amount(max(1.0, length.value - spent), "steps") if length is not None else None
        phases.append(replace(phase, length=rest if phase.length is None else steps(phase.length)))
    return replace(train, steps=length, tokens=None, batch=Amount(float(batch), "sequences"), schedule=tuple(phases))


# ---- the model


def _model(program: Program) -> dict[str, Any]:
    sizes: dict[str, Any] = dict(program.arguments)
    fields: dict[str, Any] = {
        "name": "gpt3",
        "vocab_size": sizes["vocab"],
        "max_position_embeddings": sizes["context"],
        "position_embedding_type": "learned",
        "share_embedding_weights": True,
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_heads": sizes["heads"],
        "filter_size": sizes["ffn"],
        "nonlinearity": _ACTIVATIONS.get(sizes["activation"], sizes["activation"]),
        "layer_norm_epsilon": sizes["eps"],
        "dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
        "attention_type": "scaled_dot_product",
        "use_projection_bias_in_attention": True,
        "use_ffn_bias_in_attention": True,
        "use_ffn_bias": True,
        "use_bias_in_output": False,
        "loss_scaling": "num_tokens",
        "loss_weight": 1.0,
    }
    return fields | _parametrization(program, sizes)


def _parametrization(program: Program, sizes: dict[str, Any]) -> dict[str, Any]:
    from cgc.parametrize.model import parametrization_of

    made = parametrization_of(program)
    stds = [made.param(name).init.std for name in ("wte", "h.attention.q.w", "h.mlp.down.w")]
    mup = program.mup
    fields: dict[str, Any] = {}
    base = dict(mup.base).get("width") if mup is not None else None
    alpha = 1.0
    if mup is not None and base is not None and mup.parametrization == "mup":
        base_ffn = dict(mup.base).get("ffn", sizes["ffn"] * base // sizes["width"])
        growth = sizes["width"] / base
        stds[1] = _rounded(stds[1] * math.sqrt(growth))
        stds[2] = _rounded(stds[2] * math.sqrt(2 * sizes["layers"] * sizes["ffn"] / base_ffn))
        alpha = growth
        fields = {"mup_base_hidden_size": base, "mup_base_filter_size": base_ffn, "scale_qk_dot_by_d": True}
        said = {setting.name: float(setting.value) for setting in mup.multipliers}
        if "attention" in said:
            fields["attention_logits_alpha"] = said["attention"]
    scale, logits = _factor(made, "wte"), _factor(made, "logits") * alpha
    for name, value in (("embeddings_scale", scale), ("output_logits_alpha", logits)):
        if not math.isclose(value, 1.0, rel_tol=1e-12):
            fields[name] = value
    names = ("embedding_initializer", "initializer", "output_layer_initializer")
    return {name: _initializer(std) for name, std in zip(names, stds, strict=True)} | fields


def _factor(made: Parametrization, path: str) -> float:
    return math.prod(factor.value for factor in made.factors if factor.path == path)


def _rounded(value: float) -> float:
    """Return a number without the noise of its last digits."""
    return float(f"{value:.13g}")


def _initializer(std: float) -> dict[str, Any]:
    return {"name": "truncated_normal", "mean": 0.0, "std": std, "a": -2 * std, "b": 2 * std}


# ---- the learning rate


def _schedulers(phases: tuple[SchedulePhase, ...], rate: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    level = 1.0
    for phase in phases:
        steps = int(phase.length.value) if phase.length is not None else 1
        start = 0.0 if phase.shape == "warmup" else _rounded(level * rate)
        end = {"initial_learning_rate": start, "end_learning_rate": _rounded(phase.to * rate), "total_iters": steps}
        match phase.shape:
            case "constant":
                found.append({"ConstantLR": {"learning_rate": start, "total_iters": steps}})
            case "cosine":
                found.append({"CosineDecayLR": end})
            case "warmup" | "linear":
                found.append({"LinearLR": end})
        level = phase.to
    return found


# ---- YAML


def _yaml(value: dict[str, Any], indent: int = 0) -> list[str]:
    """Return the lines of a mapping; texts are those of JSON, which every reader of YAML takes."""
    lines: list[str] = []
    space = "  " * indent
    for name, inner in value.items():
        match inner:
            case dict():
                lines += [f"{space}{name}:", *_yaml(inner, indent + 1)]
            case [dict(), *_]:
                lines.append(f"{space}{name}:")
                for entry in inner:
                    first, *rest = _yaml(entry, indent + 1)
                    lines += [f"{space}- {first.strip()}", *rest]
            case _:
                lines.append(f"{space}{name}: {_scalar(inner)}")
    return lines


def _scalar(value: Any) -> str:
    """Return a scalar; a float has a dot, without which older readers take `1e-08` for a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_scalar(entry) for entry in value)}]"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}{e}{exponent}"
    if isinstance(value, str) and not value.isidentifier():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
