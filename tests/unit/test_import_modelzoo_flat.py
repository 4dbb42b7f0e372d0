"""Model-zoo YAML of the older layout: model, optimizer, runconfig and train_input at the top."""

from __future__ import annotations

import math

import pytest

from cgc.diagnostics import InputError
from cgc.driver import parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.importers.configuration import import_text
from cgc.importers.export import export_text
from cgc.parametrize.model import parametrization_of
from cgc.program import Program

SIZES = {
    # layers, width, heads, ffn, warmup, decay, shape, steps, batch: the published table of the family
    "111m": (10, 768, 12, 3072, 1525, 7512, "Linear", 9037, 120),
    "256m": (14, 1088, 17, 4352, 693, 8775, "Linear", 9468, 264),
    "590m": (18, 1536, 12, 6144, 693, 21143, "Linear", 21836, 264),
    "1.3b": (24, 2048, 16, 8192, 346, 23988, "CosineDecay", 24334, 528),
    "2.7b": (32, 2560, 32, 10240, 346, 48695, "CosineDecay", 49041, 528),
}


def initializer(name: str, std: float) -> str:
    lines = ("name: truncated_normal", "mean: 0.0", f"std: {std!r}", f"a: {-2 * std!r}", f"b: {2 * std!r}")
    return f"    {name}:\n" + "".join(f"        {line}\n" for line in lines)


def flat(size: str, tuned: bool = True) -> str:
    """Return the configuration of a member of the family, as an older release would have it."""
    layers, width, heads, ffn, warmup, decay, shape, steps, batch = SIZES[size]
    std, peak = (0.08, 6e-3) if tuned else (0.02, 6e-4)
    last = std if tuned else std / math.sqrt(2 * layers)
    stds = {"embedding_initializer": std, "initializer": std, "output_layer_initializer": last}
    starts = "".join(initializer(name, value) for name, value in stds.items())
    scaling = (
        "    mup_base_hidden_size: 256\n    mup_base_filter_size: 1024\n    scale_qk_dot_by_d: True\n"
        "    output_logits_alpha: 1.0\n    embeddings_scale: 10.0\n"
    )
    return f"""
train_input:
    data_processor: "GptHDF5DataProcessor"
    data_dir: "./train/"
    max_sequence_length: 2048
    shuffle: True
    shuffle_seed: 1
    batch_size: {batch}
    num_workers: 8
    persistent_workers: True
eval_input:
    data_processor: "GptHDF5DataProcessor"
    data_dir: "./val/"
    batch_size: {batch}
model:
    vocab_size: 50257
    hidden_size: {width}
    use_position_embedding: True
    position_embedding_type: "learned"
    share_embedding_weights: True
    max_position_embeddings: 2048
    num_hidden_layers: {layers}
    dropout_rate: 0.0
    layer_norm_epsilon: 1.0e-05
    num_heads: {heads}
    attention_type: "scaled_dot_product"
    attention_dropout_rate: 0.0
    use_projection_bias_in_attention: True
    use_ffn_bias_in_attention: True
    filter_size: {ffn}
    nonlinearity: "gelu"
    use_ffn_bias: True
    use_bias_in_output: False
    loss_scaling: "batch_size"
    loss_weight: 0.00048828125
    mixed_precision: True
    fp16_type: "bfloat16"
{starts}
{scaling if tuned else ""}
optimizer:
    optimizer_type: "AdamW"
    betas: [0.9, 0.95]
    eps: 1e-8
    weight_decay_rate: 0.1
    max_gradient_norm: 1.0
    correct_bias: True
    loss_scaling_factor: "dynamic"
    learning_rate:
        - scheduler: "Linear"
          initial_learning_rate: 0.0
          end_learning_rate: {peak!r}
          steps: {warmup}
        - scheduler: "{shape}"
          initial_learning_rate: {peak!r}
          end_learning_rate: {peak / 10!r}
          {"total_iters" if shape == "Linear" else "decay_steps"}: {decay}
runconfig:
    max_steps: {steps}
    log_steps: 1
    checkpoint_steps: 903
    save_initial_checkpoint: False
    num_csx: 1
"""


def program(text: str) -> Program:
    made = import_text(text, "params.yaml", "m")
    (found,) = parametrize_checked(elaborate_file(made, "m.cg"), "all").programs
    return found


def faults(text: str) -> list[tuple[str, str]]:
    with pytest.raises(InputError) as raised:
        import_text(text, "params.yaml", "m")
    return [(found.code, found.message) for found in raised.value.diagnostics]


@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_has_the_numbers_of_the_model_zoo(size: str) -> None:
    layers, width, heads, ffn, *_ = SIZES[size]
    found = program(flat(size))
    params = {param.name: param for param in parametrization_of(found).params}
    m, m_ffn = width / 256, ffn / 1024
    for name, std, rate in (
        ("wte", 0.08, 6e-3),
        ("wpe", 0.08, 6e-3),
        *((f"h.attention.{name}.w", 0.08 / math.sqrt(m), 6e-3 / m) for name in "qkv"),
        ("h.attention.out.w", 0.08 / math.sqrt(m * 2 * layers), 6e-3 / m),
        ("h.mlp.up.w", 0.08 / math.sqrt(m), 6e-3 / m),
        ("h.mlp.down.w", 0.08 / math.sqrt(m_ffn * 2 * layers), 6e-3 / m_ffn),
    ):
        assert params[name].init.std == pytest.approx(std), name
        assert params[name].lr == pytest.approx(rate), name
        assert params[name].eps == 1e-8 and params[name].weight_decay == 0.1
    factors = {factor.path: factor.value for factor in parametrization_of(found).factors}
    assert factors["logits"] == pytest.approx(1 / m)
    assert factors["wte"] == factors["wpe"] == 10.0
    assert factors["h.attention.mixed"] == pytest.approx((width // heads) ** -0.5), "on top of 1 / sqrt(head)"


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_run_is_read_and_goes_into_the_new_layout_and_back(size: str, tuned: bool) -> None:
    *_, warmup, decay, shape, steps, batch = SIZES[size]
    text = import_text(flat(size, tuned), "params.yaml", "m")
    assert f"steps     = {steps} steps" in text and f"batch     = {batch} sequences" in text
    kind = "linear" if shape == "Linear" else "cosine"
    assert f"warmup({warmup} steps) then {kind}({decay} steps, to=0.1)" in text
    assert "clip      = 1.0" in text and "precision = bf16" in text and "weight_decay=0.1" in text
    (made,) = parametrize_checked(elaborate_file(text, "m.cg"), "usual").programs
    again = import_text(export_text(made, "modelzoo"), "params.yaml", "m")
    assert again == text


CHANGES = {
    # what is changed, and what the message names
    "an unknown field": ("    num_csx: 1", "    num_csx: 1\n    turbo: True", "runconfig.turbo"),
    "rates by hand": (
        "    correct_bias: True",
        "    correct_bias: True\n    adjust_learning_rate:\n        decoder_kernel: 0.33",
        "optimizer.adjust_learning_rate",
    ),
    "logits by hand": ("    output_logits_alpha: 1.0", "    output_logits_scale: 0.33", "model.output_logits_scale"),
    "another optimizer": ('"AdamW"', '"Sgd"', "Sgd"),
    "no optimizer": ('    optimizer_type: "AdamW"\n', "", "optimizer.optimizer_type"),
    "another schedule": ('scheduler: "Linear"', 'scheduler: "Polynomial"', "Polynomial"),
    "no kind of schedule": ('- scheduler: "Linear"\n          initial', "- initial", "optimizer.learning_rate[0]"),
    "a jump in the rate": ("end_learning_rate: 0.006", "end_learning_rate: 0.004", "starts at 0.006"),
    "a rate that is a text": ("steps: 1525", 'steps: "many"', "total_iters"),
    "accumulated gradients": ("    log_steps: 1", "    grad_accum_steps: 4", "runconfig.grad_accum_steps"),
    "no steps": ("    max_steps: 9037\n", "", "runconfig.max_steps"),
    "no batch": ("    batch_size: 120\n    num", "    num", "train_input.batch_size"),
    "no size": ("    hidden_size: 768\n", "", "model.hidden_size"),
    "another size of sequences": ("max_sequence_length: 2048", "max_sequence_length: 1024", "max_sequence_length"),
    "rotary positions": ('"learned"', '"rotary"', "model.position_embedding_type"),
    "no base of ffn": ("    mup_base_filter_size: 1024\n", "", "model.mup_base_filter_size"),
    "scores as usual": ("scale_qk_dot_by_d: True", "scale_qk_dot_by_d: False", "model.scale_qk_dot_by_d"),
    "fp8": ('fp16_type: "bfloat16"', 'fp16_type: "e4m3"', "model.fp16_type"),
    "an optimizer that is a list": ("optimizer:\n", "optimizer: []\nother:\n", "optimizer"),
    "no run": ("runconfig:\n", "other:\n", "runconfig"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_expressed_is_named(name: str) -> None:
    old, new, named = CHANGES[name]
    text = flat("111m")
    assert old in text
    found = faults(text.replace(old, new, 1))
    assert all(code.startswith("CG10") for code, _ in found)
    assert any(named in message for _, message in found), found


def test_accumulation_of_one_step_and_half_precision_by_its_older_name() -> None:
    text = flat("111m").replace("    log_steps: 1", "    grad_accum_steps: 1")
    assert import_text(text, "f.yaml", "m") == import_text(flat("111m"), "f.yaml", "m")
    older = flat("111m").replace('    fp16_type: "bfloat16"', "    use_bfloat16: True")
    assert import_text(older, "f.yaml", "m") == import_text(flat("111m"), "f.yaml", "m")
    single = flat("111m").replace("mixed_precision: True", "mixed_precision: False")
    assert "precision" not in import_text(single, "f.yaml", "m")


def test_a_rate_alone_is_a_run_without_schedule() -> None:
    text = flat("111m")
    start, end = text.index("    learning_rate:"), text.index("runconfig:")
    made = import_text(f"{text[:start]}    learning_rate: 6.0e-3\n{text[end:]}", "f.yaml", "m")
    assert "lr       = 6e-3" in made and "schedule" not in made
    (_, message), *_ = faults(f"{text[:start]}    learning_rate: []\n{text[end:]}")
    assert "optimizer.learning_rate" in message


ODD = ["", "null", "[]", "{}", "-1", "1e30", "'x'", "true", ".nan", "*nothing", "&a [*a]"]


@pytest.mark.parametrize("value", ODD)
def test_any_value_in_any_place_is_imported_or_a_diagnostic(value: str) -> None:
    """Every value stands in every fourth place."""
    lines = flat("111m").split("\n")
    for at, line in list(enumerate(lines))[ODD.index(value) % 4 :: 4]:
        key, colon, _ = line.partition(":")
        if colon:
            try:
                import_text("\n".join((*lines[:at], f"{key}: {value}", *lines[at + 1 :])), "f.yaml", "m")
            except InputError as error:
                assert all(found.code.startswith("CG10") for found in error.diagnostics), (key, value)
