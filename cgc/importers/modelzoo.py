"""Model-zoo YAML of the Cerebras-GPT form: a trainer with model, optimizer, schedules, precision and data, or these at
the top, as in older releases.

The maximal update parametrization (`mup_base_hidden_size` and what goes with it) becomes a `mup` item. There, as here,
the given initial deviations are those before scaling: hidden weights times m^-1/2, those that write to the residual
stream also times (2 layers)^-1/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cgc.diagnostics import Diagnostics
from cgc.importers.document import Entry
from cgc.importers.fields import Fields
from cgc.importers.hub import ACTIVATIONS
from cgc.importers.modelzoo_flat import flat_precision, read_flat_run
from cgc.importers.modelzoo_run import read_run
from cgc.importers.recipe import Recipe, Value, given, number_text, same

_INIT_WITHOUT_EFFECT = ("backend", "model_dir", "checkpoint", "logging", "loggers")
_CALLBACKS = ("ComputeNorm", "CheckLoss", "LogOptimizerParamGroup")
_NO_DROPOUT = "the language has no dropout, which acts in training only: set it to 0, or give `--without-dropout`"
_GPT2 = "models of this form are of the family gpt2, which has no other"


@dataclass(slots=True)
class _Scaling:
    """The lines of a `mup` item before and after `lr`; empty where there is none."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def import_modelzoo(root: Entry, found: Diagnostics, without_dropout: bool) -> Recipe | None:
    """Return the model and the run of a configuration; faults go into `found`."""
    top = Fields(root, "", found)
    if not top.has("trainer"):
        return _flat(top, without_dropout)
    trainer = top.section("trainer", required=True)
    top.finish()
    if trainer is None:
        return None
    init, fit = trainer.section("init", required=True), trainer.section("fit", required=True)
    # where and on what the model is evaluated
    trainer.ignore(("validate", "validate_all"))
    trainer.finish()
    if init is None or fit is None:
        return None
    init.ignore(_INIT_WITHOUT_EFFECT)
    _callbacks(init)
    model = init.section("model", required=True)
    if model is None:
        init.finish()
        return None
    arguments, scaling = _model(model, without_dropout)
    recipe = _recipe(arguments, scaling, *read_run(init, fit, int(arguments["context"])))
    init.finish()
    return recipe


def _flat(top: Fields, without_dropout: bool) -> Recipe | None:
    """Return what a configuration of the older layout says, which has the sections of a trainer at its top."""
    model = top.section("model", required=True)
    if model is None:
        top.finish()
        return None
    precision = flat_precision(model)
    arguments, scaling = _model(model, without_dropout)
    recipe = _recipe(arguments, scaling, *read_flat_run(top, int(arguments["context"]), precision))
    top.finish()
    return recipe


def _recipe(arguments: dict[str, Value], scaling: _Scaling, peak: float, train: list[str]) -> Recipe:
    recipe = Recipe("gpt2", arguments, train=train)
    rate = f"lr = {number_text(peak)}"
    tuned = any(line.startswith("scale") for line in scaling.before)
    if tuned:
        scaling.before.append(rate)
    else:
        train[2:2] = [rate]
    recipe.mup = [*scaling.before, *scaling.after]
    if tuned:
        recipe.mup_comments = [
            "Tuned at these sizes. A configuration has no number of heads at the base; nothing derived depends on it."
        ]
    return recipe


def _callbacks(init: Fields) -> None:
    for entry in init.entries("callbacks"):
        for name, what in entry.value.items() if isinstance(entry.value, dict) else ():
            if name not in _CALLBACKS:
                hint = f"known are {', '.join(_CALLBACKS)}, which only look on"
                place = entry.names.get(name, what.place)
                init.fault("CG1005", f"the callback `{name}` may change the run", place, hint)


# ---- the model


def _model(fields: Fields, without_dropout: bool) -> tuple[dict[str, Value], _Scaling]:
    fields.expect("name", "gpt3", "gpt2", hint="known is `gpt3`, whose form the family gpt2 has")
    _form(fields, without_dropout)
    width, heads = fields.whole("hidden_size"), fields.whole("num_heads")
    sizes: dict[str, Value] = {
        "vocab": fields.whole("vocab_size"),
        "context": (context := fields.whole("max_position_embeddings")),
        "layers": (layers := fields.whole("num_hidden_layers")),
        "width": width,
        "heads": heads,
    }
    if width % heads and not len(fields.found):
        message = f"`{fields.full('hidden_size')}` is {width}, which {heads} does not divide"
        fields.fault("CG1006", message, fields.place("hidden_size"), "`num_heads` has to divide it")
    ffn = fields.whole("filter_size")
    stds = [_deviation(fields, f"{name}initializer") for name in ("embedding_", "", "output_layer_")]
    values: dict[str, Value] = {"ffn": ffn}
    defaults: dict[str, Value] = {"ffn": 4 * width, "eps": 1e-5, "activation": "gelu"}
    tuned = fields.has("mup_base_hidden_size", "mup_base_filter_size")
    scaling = _tuned(fields, (width, ffn, heads, layers), stds) if tuned else _Scaling()
    if not tuned:
        fields.expect("scale_qk_dot_by_d", False, hint="without `mup_base_hidden_size` scores are scaled as usual")
        values |= {"std": stds[1], "embed_std": stds[0], "out_std": stds[2]}
        defaults |= {"std": 0.02, "embed_std": stds[1], "out_std": stds[1] / math.sqrt(2 * layers)}
    _multipliers(fields, scaling, tuned)
    values["eps"] = fields.number("layer_norm_epsilon", above=0.0)
    values["activation"] = _activation(fields)
    _loss(fields, context)
    fields.finish()
    return sizes | given(values, defaults), scaling


def _form(fields: Fields, without_dropout: bool) -> None:
    """Check what is part of the family's structure, and that no dropout is wanted."""
    fields.expect("position_embedding_type", "learned", hint=_GPT2)
    fields.expect("share_embedding_weights", True, hint="the family ties the two matrices of the embeddings")
    fields.expect("attention_type", "scaled_dot_product", hint=_GPT2)
    fields.expect("norm_type", "layernorm", hint=_GPT2)
    fields.expect("use_projection_bias_in_attention", True, hint="projections of the family have biases")
    fields.expect("use_ffn_bias_in_attention", True, hint="projections of the family have biases")
    fields.expect("use_ffn_bias", True, hint="projections of the family have biases")
    fields.expect("use_bias_in_output", False, hint="the output of the family has no bias")
    fields.expect("embedding_layer_norm", False, hint=_GPT2)
    fields.expect("fixed_sparse_attention", hint=_GPT2)
    fields.ignore(("attention_softmax_fp32",))
    for name in ("dropout_rate", "attention_dropout_rate", "residual_dropout_rate", "embedding_dropout_rate"):
        entry = fields.take(name)
        if entry is not None and not without_dropout and (isinstance(entry.value, bool) or entry.value != 0):
            fields.inexpressible(name, entry, _NO_DROPOUT)


def _activation(fields: Fields) -> str:
    name = fields.text("nonlinearity")
    if name not in ACTIVATIONS and fields.has("nonlinearity"):
        hint = f"the library has {', '.join(sorted(set(ACTIVATIONS.values())))}"
        text = f"`{fields.full('nonlinearity')}` is {name!r}, which cannot be expressed"
        fields.fault("CG1005", text, fields.place("nonlinearity"), hint)
    return ACTIVATIONS.get(name, "gelu")


def _deviation(fields: Fields, name: str) -> float:
    """Return the deviation of a normal distribution that is cut at two of them: the family's."""
    section = fields.section(name, required=True)
    if section is None:
        return 1.0
    section.expect("name", "truncated_normal", hint="weights of the family start from a normal cut at two deviations")
    section.expect("mean", 0.0, 0, hint="weights of the family start around 0")
    std = section.number("std", above=0.0)
    low, high = section.number("a", least=-1e18), section.number("b", least=-1e18)
    if section.has("a", "b") and not (same(low, -2 * std) and same(high, 2 * std)):
        message = f"`{section.full('std')}` is {std:g}, and its distribution ends at {low:g} and {high:g}"
        hint = f"weights of the family are cut at two deviations, {-2 * std:g} and {2 * std:g}"
        section.fault("CG1005", message, section.place("a", "b"), hint)
    section.finish()
    return std


def _loss(fields: Fields, context: int) -> None:
    """Check that the loss is the mean over all tokens."""
    kind = fields.text("loss_scaling", default="num_tokens")
    weight = fields.number("loss_weight", default=1.0, above=0.0)
    wanted = {"batch_size": 1 / context, "num_tokens": 1.0}.get(kind)
    if wanted is None:
        text = f"`{fields.full('loss_scaling')}` is {kind!r}, which cannot be expressed"
        fields.fault("CG1005", text, fields.place("loss_scaling"), "it is `batch_size` or `num_tokens`")
    elif abs(weight - wanted) > 1e-3 * wanted and not len(fields.found):
        text = f"`{fields.full('loss_weight')}` is {weight:g}, which cannot be expressed"
        hint = f"the loss is the mean over all tokens: {wanted:g} with `loss_scaling: {kind}`"
        fields.fault("CG1005", text, fields.place("loss_weight", "loss_scaling"), hint)


# ---- the parametrization


def _tuned(fields: Fields, sizes: tuple[int, int, int, int], stds: list[float]) -> _Scaling:
    """Return the lines of a `mup` item for a model of these sizes: width, ffn, heads, layers."""
    width, ffn, heads, layers = sizes
    base, base_ffn = fields.whole("mup_base_hidden_size"), fields.whole("mup_base_filter_size")
    if not fields.has("scale_qk_dot_by_d"):
        fields.whole("scale_qk_dot_by_d")
    fields.expect("scale_qk_dot_by_d", True, hint="the parametrization divides scores by the size of a head")
    fields.expect("scale_output_logits_by_d", True, hint="the parametrization divides logits by the growth of width")
    grows = [f"width from {base}"]
    base_heads = _base_heads(width, heads, base)
    grows += [f"heads from {base_heads}"] if base_heads != heads else []
    grows += [f"ffn from {base_ffn}"] if ffn != 4 * width or base_ffn != 4 * base else []
    before = [f"scale {', '.join(grows)}", f"init std = {number_text(stds[1])}"]
    after: list[str] = []
    starts = {"wte": stds[0], "wpe": stds[0]} if not same(stds[0], stds[1]) else {}
    if not same(stds[2], stds[1]):
        # a deviation of an override is that at the base sizes
        starts |= dict.fromkeys(("h.attention.out.w", "h.mlp.down.w"), stds[2] / math.sqrt(2 * layers))
    for path, std in starts.items():
        after += [f"override {path} {{", f"init std = {number_text(std)}", "}"]
    return _Scaling(before, after)


def _base_heads(width: int, heads: int, base: int) -> int:
    """Return a number of heads with which the base model builds: heads of the same size, else as many."""
    if width % heads == 0 and base % (width // heads) == 0:
        return base // (width // heads)
    return math.gcd(heads, base)


def _multipliers(fields: Fields, scaling: _Scaling, tuned: bool) -> None:
    """Add the tuned multipliers; those of a model without scaling need a `mup` item that says so."""
    factors = {
        "embedding": fields.number("embeddings_scale", default=1.0, above=0.0),
        "output": fields.number("output_logits_alpha", default=1.0, above=0.0),
    }
    if tuned:
        factors["attention"] = fields.number("attention_logits_alpha", default=1.0, above=0.0)
    else:
        fields.expect(
            "attention_logits_alpha", 1.0, 1, hint="without `mup_base_hidden_size` scores are scaled as usual"
        )
    lines = [f"multiply {group} by {number_text(factor)}" for group, factor in factors.items() if factor != 1.0]
    if lines and not tuned:
        scaling.before.append("parametrization = sp")
    scaling.after[:0] = lines
