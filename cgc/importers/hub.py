"""Configurations of the model hub (`config.json`) for gpt2, gpt_neox and llama.

A field that is not given has the meaning it has in the `transformers` library, except that sizes have to be given, and
that dropout which is not spoken of is none.
"""

from __future__ import annotations

from cgc.diagnostics import Diagnostics
from cgc.importers.document import Entry
from cgc.importers.fields import Fields
from cgc.importers.recipe import Recipe, Value, given

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names of activations there, and the library's."""

MODELS = ("gpt2", "gpt_neox", "llama")

WITHOUT_EFFECT = (
    # where the file comes from, and how it is read and kept
    *("_name_or_path", "name_or_path", "_commit_hash", "architectures", "auto_map", "transformers_version"),
    *("torch_dtype", "dtype", "_attn_implementation_autoset", "use_cache", "model_type"),
    # ids of tokens, and settings of generation
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id"),
    *("prefix", "task_specific_params", "id2label", "label2id", "num_labels", "problem_type"),
    # what a call returns besides the logits, and heads of other models than the language model
    *("output_attentions", "output_hidden_states", "output_past", "return_dict", "gradient_checkpointing"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
    "classifier_dropout",
    # other orders of the same sums
    *("reorder_and_upcast_attn", "pretraining_tp", "chunk_size_feed_forward"),
)
"""Fields that change no number of the model."""

_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout", "attention_dropout")
_NO_DROPOUT = "the language has no dropout, which acts in training only: set it to 0, or give `--without-dropout`"


def import_hub(root: Entry, found: Diagnostics, without_dropout: bool) -> Recipe | None:
    """Return the model of a configuration; faults go into `found`."""
    fields = Fields(root, "", found)
    kind = fields.text("model_type")
    if kind not in MODELS:
        if fields.has("model_type"):
            hint = "cgc has the families `gpt2`, `gpt_neox` and `llama`; write a model of your own for others"
            fields.fault("CG1007", f"models of type `{kind}` are not known", fields.place("model_type"), hint)
        else:
            hint = (
                'a hub configuration says it, as in `"model_type": "gpt2"`; one of a model zoo has `trainer` or `model`'
            )
            fields.fault("CG1007", "this is no configuration that is known", fields.place(), hint)
        return None
    fields.ignore(WITHOUT_EFFECT)
    for name in _DROPOUTS:
        entry = fields.take(name)
        if entry is not None and not without_dropout and (isinstance(entry.value, bool) or entry.value != 0):
            fields.inexpressible(name, entry, _NO_DROPOUT)
    fields.expect("is_encoder_decoder", False, hint="the families are decoders")
    fields.expect("is_decoder", False, True, hint="the families are decoders")
    fields.expect("add_cross_attention", False, hint="the families are decoders without an encoder")
    fields.expect("quantization_config", hint="give the configuration of the model before it was quantized")
    match kind:
        case "gpt2":
            recipe = _gpt2(fields)
        case "gpt_neox":
            recipe = _gpt_neox(fields)
        case _:
            recipe = _llama(fields)
    fields.finish()
    return recipe


def _activation(fields: Fields, name: str, default: str) -> str:
    written = fields.text(name, default=default)
    if written not in ACTIVATIONS:
        hint = f"the library has {', '.join(sorted(set(ACTIVATIONS.values())))}"
        text = f"`{name}` is {written!r}, which cannot be expressed"
        fields.fault("CG1005", text, fields.place(name), hint)
        return "gelu"
    return ACTIVATIONS[written]


def _divides(fields: Fields, number: int, by: int, names: tuple[str, str]) -> None:
    if number % by and not len(fields.found):
        message = f"`{names[0]}` is {number}, which {by} does not divide"
        fields.fault("CG1006", message, fields.place(names[0]), f"`{names[1]}` has to divide it")


def _gpt2(fields: Fields) -> Recipe:
    """`n_ctx` is the older name of `n_positions`."""
    sizes: dict[str, Value] = {
        "vocab": fields.whole("vocab_size"),
        "context": fields.whole("n_positions", "n_ctx", "max_position_embeddings"),
        "layers": fields.whole("n_layer", "num_hidden_layers"),
        "width": (width := fields.whole("n_embd", "hidden_size")),
        "heads": (heads := fields.whole("n_head", "num_attention_heads")),
    }
    width_name = "n_embd" if fields.has("n_embd") else "hidden_size"
    _divides(fields, width, heads, (width_name, "n_head" if fields.has("n_head") else "num_attention_heads"))
    fields.expect("scale_attn_weights", True, hint="the family divides scores by the root of a head's size")
    fields.expect("scale_attn_by_inverse_layer_idx", False, hint="all layers of the family are alike")
    values: dict[str, Value] = {
        "ffn": fields.whole("n_inner", "intermediate_size", default=4 * width),
        "std": fields.number("initializer_range", default=0.02, above=0.0),
        "eps": fields.number("layer_norm_epsilon", default=1e-5, above=0.0),
        "activation": _activation(fields, "activation_function", "gelu_new"),
        "tied": fields.flag("tie_word_embeddings", default=True),
    }
    defaults: dict[str, Value] = {"ffn": 4 * width, "std": 0.02, "eps": 1e-5, "activation": "gelu", "tied": True}
    return Recipe("gpt2", sizes | given(values, defaults))


def _rope(fields: Fields, old_base: tuple[str, ...], old_part: str, part: float) -> tuple[float, float]:
    """Return base and rotated part of rotary positions, which newer files give in `rope_parameters`."""
    flat_base = fields.number(*old_base, default=10000.0, above=0.0)
    flat_part = fields.number(old_part, default=part, above=0.0, most=1.0) if old_part else 1.0
    said: dict[str, tuple[float, str]] = {}
    for name in ("rope_parameters", "rope_scaling"):
        inner = fields.section(name)
        if inner is None:
            continue
        before = len(fields.found)
        for kind in ("rope_type", "type"):
            inner.expect(kind, "default", hint="the library has rotary positions without scaling")
        if inner.has("rope_theta"):
            said["base"] = (inner.number("rope_theta", above=0.0), inner.full("rope_theta"))
        if inner.has("partial_rotary_factor"):
            said["part"] = (
                inner.number("partial_rotary_factor", above=0.0, most=1.0),
                inner.full("partial_rotary_factor"),
            )
        # what else a kind of scaling takes that is not known is no further fault
        if len(fields.found) == before:
            inner.finish()
    _agree(fields, said.get("base"), old_base, flat_base)
    _agree(fields, said.get("part"), (old_part,) if old_part else (), flat_part)
    base = said["base"][0] if "base" in said else flat_base
    return base, said["part"][0] if "part" in said else flat_part


def _agree(fields: Fields, said: tuple[float, str] | None, old: tuple[str, ...], value: float) -> None:
    if said is not None and fields.has(*old) and said[0] != value:
        message = f"`{said[1]}` is {said[0]:g}, and `{old[0]}` is {value:g}"
        fields.fault("CG1006", message, fields.place(*old), "they are names of one field: keep one of the two")


def _gpt_neox(fields: Fields) -> Recipe:
    sizes: dict[str, Value] = {
        "vocab": fields.whole("vocab_size"),
        "context": fields.whole("max_position_embeddings"),
        "layers": fields.whole("num_hidden_layers"),
        "width": (width := fields.whole("hidden_size")),
        "heads": (heads := fields.whole("num_attention_heads")),
    }
    _divides(fields, width, heads, ("hidden_size", "num_attention_heads"))
    base, part = _rope(fields, ("rotary_emb_base", "rope_theta"), "rotary_pct", 0.25)
    head = max(1, width // heads)
    rotary = int(head * part)
    if not len(fields.found) and (rotary < 2 or rotary % 2):
        message = f"rotary positions turn {rotary} entries of a head of {head}"
        fields.fault("CG1006", message, fields.place("rotary_pct", "rope_parameters"), "it has to be an even number")
    values: dict[str, Value] = {
        "ffn": fields.whole("intermediate_size"),
        "rotary": rotary,
        "base": base,
        "eps": fields.number("layer_norm_eps", default=1e-5, above=0.0),
        "std": fields.number("initializer_range", default=0.02, above=0.0),
        "activation": _activation(fields, "hidden_act", "gelu"),
        "parallel": fields.flag("use_parallel_residual", default=True),
        "bias": fields.flag("attention_bias", default=True),
        "tied": fields.flag("tie_word_embeddings", default=False),
    }
    defaults: dict[str, Value] = {"ffn": 4 * width, "rotary": head / 4, "base": 10000, "eps": 1e-5, "std": 0.02}
    return Recipe(
        "gpt_neox",
        sizes | given(values, defaults | {"activation": "gelu", "parallel": True, "bias": True, "tied": False}),
    )


def _llama(fields: Fields) -> Recipe:
    sizes: dict[str, Value] = {
        "vocab": fields.whole("vocab_size"),
        "context": fields.whole("max_position_embeddings"),
        "layers": fields.whole("num_hidden_layers"),
        "width": (width := fields.whole("hidden_size")),
        "heads": (heads := fields.whole("num_attention_heads")),
        "ffn": fields.whole("intermediate_size"),
    }
    kv_heads = fields.whole("num_key_value_heads", default=heads)
    _divides(fields, heads, kv_heads, ("num_attention_heads", "num_key_value_heads"))
    if not fields.has("head_dim"):
        _divides(fields, width, heads, ("hidden_size", "num_attention_heads"))
    head = fields.whole("head_dim", default=max(1, width // heads))
    if not len(fields.found) and head % 2:
        message = f"a head has {head} entries"
        fields.fault("CG1006", message, fields.place("head_dim", "hidden_size"), "rotary positions need an even number")
    base, _ = _rope(fields, ("rope_theta",), "", 1.0)
    fields.expect("hidden_act", "silu", "swish", hint="the gated layer of the family is of `silu`")
    values: dict[str, Value] = {
        "kv_heads": kv_heads,
        "head": head,
        "base": base,
        "eps": fields.number("rms_norm_eps", default=1e-6, above=0.0),
        "std": fields.number("initializer_range", default=0.02, above=0.0),
        "tied": fields.flag("tie_word_embeddings", default=False),
        "bias": fields.flag("attention_bias", default=False),
        "mlp_bias": fields.flag("mlp_bias", default=False),
    }
    defaults: dict[str, Value] = {"kv_heads": heads, "head": width / heads, "base": 10000, "eps": 1e-5, "std": 0.02}
    return Recipe("llama", sizes | given(values, defaults | dict.fromkeys(("tied", "bias", "mlp_bias"), False)))
