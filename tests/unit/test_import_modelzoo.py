"""`cgc import` and `cgc export-config` for model-zoo YAML: published files, all twelve models, and what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cgc.diagnostics import InputError
from cgc.driver import load_program, parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.importers.configuration import import_text
from cgc.importers.export import export_text
from cgc.program import Program
from cgc.show.params import params_data

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "cerebras_gpt"
ZOO = ROOT.parent / "shared" / "data" / "modelzoo"
PUBLISHED = {"111m": "111m", "111m_mup": "111m_mup", "13b_bs720": "13b"}
"""Published files, and the examples that describe the same models."""
MODELS = sorted(path.stem for path in EXAMPLES.glob("*.cg"))

published = pytest.mark.skipif(not ZOO.is_dir(), reason="the published configurations are not beside the checkout")


def program(text: str) -> Program:
    checked = elaborate_file(text, "m.cg")
    (found,) = parametrize_checked(checked, "usual").programs
    return found


def numbers(found: Program) -> dict[str, Any]:
    """Return what `cgc params --format json` says, without the places that reasons name, rounded."""

    def rounded(value: Any) -> Any:
        match value:
            case dict():
                return {key: rounded(inner) for key, inner in value.items() if key not in ("model", "reason")}
            case list():
                return [rounded(inner) for inner in value]
            case float():
                return float(f"{value:.9g}")
        return value

    data: dict[str, Any] = rounded(params_data(found))
    return data


def run_of(found: Program) -> dict[str, Any]:
    train = found.train
    assert train is not None
    phases = [
        (phase.shape, phase.length and phase.length.value, round(phase.to, 12)) for phase in train.schedule
    ]  # fmt: skip
    names = ("steps", "batch", "optimizer", "clip", "precision", "seed")
    return {"schedule": phases, **{name: getattr(train, name) for name in names}}


def yaml_of(name: str) -> str:
    return export_text(load_program(str(EXAMPLES / f"{name}.cg")), "modelzoo")


@published
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_the_examples(name: str) -> None:
    made = program(import_text((ZOO / f"{name}.yaml").read_text(), f"{name}.yaml"))
    example = load_program(str(EXAMPLES / f"{PUBLISHED[name]}.cg"))
    ours, theirs, run, example_run = numbers(made), numbers(example), run_of(made), run_of(example)
    if name == "13b_bs720":
        # the file stops where the batch grows, and starts its residual weights a little larger than the paper says
        assert run.pop("steps").value == 57000 and example_run.pop("steps").value == 174335
        for data, std in ((ours, 0.0025), (theirs, 0.00223606798)):
            for param in data["params"]:
                if param["class"] == "residual":
                    assert param["init"].pop("std") == std
    assert ours == theirs
    assert run == example_run


@published
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_there_and_back(name: str) -> None:
    text = import_text((ZOO / f"{name}.yaml").read_text(), f"{name}.yaml", "m")
    exported = export_text(program(text), "modelzoo")
    assert import_text(exported, f"{name}.yaml", "m") == text


@published
@pytest.mark.parametrize("name", PUBLISHED)
def test_exported_files_have_the_fields_of_published_ones(name: str) -> None:
    import yaml

    original = yaml.safe_load((ZOO / f"{name}.yaml").read_text())["trainer"]["init"]
    text = import_text((ZOO / f"{name}.yaml").read_text(), f"{name}.yaml", "m")
    exported = yaml.safe_load(export_text(program(text), "modelzoo"))["trainer"]["init"]
    # the loss is the same mean, said in other words
    for key in exported["model"].keys() - {"loss_scaling", "loss_weight"}:
        assert exported["model"][key] == pytest.approx(original["model"][key]), key
    assert exported["optimizer"] == original["optimizer"]
    assert exported["schedulers"] == original["schedulers"]
    assert exported["precision"].items() <= original["precision"].items()
    assert exported["loop"]["max_steps"] == original["loop"]["max_steps"]


@pytest.mark.parametrize("name", MODELS)
def test_all_models_there_and_back(name: str) -> None:
    example = load_program(str(EXAMPLES / f"{name}.cg"))
    made = program(import_text(yaml_of(name), "m.yaml"))
    assert numbers(made) == numbers(example)
    assert run_of(made) == run_of(example)


def test_numbers_of_mup() -> None:
    """By hand, for 111M: m is 3, 20 branches."""
    data = {param["name"]: param for param in numbers(program(import_text(yaml_of("111m_mup"), "m.yaml")))["params"]}
    assert data["wte"]["multiplier"] == 10 and data["wte"]["lr"] == 6e-3 and data["wte"]["init"]["std"] == 0.08
    assert data["h.mlp.up.w"]["lr"] == 2e-3
    assert data["h.mlp.up.w"]["init"]["std"] == pytest.approx(0.08 * 3**-0.5)
    assert data["h.mlp.down.w"]["init"]["std"] == pytest.approx(0.08 * 3**-0.5 * 20**-0.5)


# ---- variations of one file


def changed(name: str, **changes: Any) -> str:
    """Return a file with the lines of some keys changed; `...` takes a line out."""
    text = yaml_of(name)
    for key, value in changes.items():
        line = re.search(rf"^( *(?:- )?){key}:.*\n", text, re.M)
        assert line is not None, key
        new = "" if value is ... else f"{line.group(1)}{key}: {value}\n"
        text = text[: line.start()] + new + text[line.end() :]
    return text


def added(name: str, after: str, line: str) -> str:
    """Return a file with a line after the first one that has a key."""
    text = yaml_of(name)
    found = re.search(rf"^( *){after}:.*\n", text, re.M)
    assert found is not None
    return text[: found.end()] + found.group(1) + line + "\n" + text[found.end() :]


def made(text: str) -> Program:
    return program(import_text(text, "m.yaml", "m"))


def test_numbers_without_a_dot_are_numbers() -> None:
    train = made(changed("111m", eps="1e-9", end_learning_rate="6e-4")).train
    assert train is not None and train.optimizer is not None and train.lr == 6e-4
    assert dict(train.optimizer.arguments)["eps"] == 1e-9


def test_other_initial_deviations() -> None:
    text = changed("111m_mup", std=0.1, a=-0.2, b=0.2)
    params = {param["name"]: param["init"] for param in numbers(made(text))["params"]}
    assert params["wte"]["std"] == params["wpe"]["std"] == 0.1
    assert params["h.mlp.up.w"]["std"] == pytest.approx(0.08 * 3**-0.5)
    text = yaml_of("111m_mup")
    at = text.index("output_layer_initializer")
    text = text[:at] + text[at:].replace("0.08", "0.04").replace("0.16", "0.08")
    params = {param["name"]: param["init"] for param in numbers(made(text))["params"]}
    assert params["h.mlp.down.w"]["std"] == pytest.approx(0.04 * 3**-0.5 * 20**-0.5)
    assert params["h.attention.out.w"]["std"] == pytest.approx(0.04 * 3**-0.5 * 20**-0.5)


def test_multipliers() -> None:
    found = made(added("111m_mup", "scale_qk_dot_by_d", "output_logits_alpha: 2.0\n      attention_logits_alpha: 3.0"))
    values = {factor["path"]: factor["value"] for factor in numbers(found)["multipliers"]}
    assert values["logits"] == pytest.approx(2 / 3)
    assert values["h.attention.mixed"] == pytest.approx(3 / 8)
    again = made(export_text(found, "modelzoo"))
    assert numbers(again) == numbers(found)
    found = made(added("111m", "filter_size", "embeddings_scale: 7"))
    assert {f["path"]: f["value"] for f in numbers(found)["multipliers"]} == {"wte": 7, "wpe": 7}
    assert found.train is not None and found.train.lr == 6e-4
    assert numbers(made(export_text(found, "modelzoo"))) == numbers(found)


@pytest.mark.parametrize(
    ("width", "heads", "ffn", "base", "base_ffn"),
    [(768, 12, 3072, 256, 1024), (2560, 32, 10240, 256, 1024), (96, 3, 384, 32, 128), (60, 5, 200, 16, 50),
     (64, 4, 100, 64, 100), (64, 4, 256, 32, 100), (100, 10, 400, 7, 28)],
)  # fmt: skip
def test_base_models_build_whatever_the_heads(width: int, heads: int, ffn: int, base: int, base_ffn: int) -> None:
    text = changed(
        "111m_mup", hidden_size=width, num_heads=heads, filter_size=ffn, mup_base_hidden_size=base,
        mup_base_filter_size=base_ffn,
    )  # fmt: skip
    params = {param["name"]: param for param in numbers(made(text))["params"]}
    assert params["h.mlp.up.w"]["lr"] == pytest.approx(6e-3 * base / width)
    assert params["h.attention.out.w"]["lr"] == pytest.approx(6e-3 * base / width)
    assert params["h.mlp.down.w"]["lr"] == pytest.approx(6e-3 * base_ffn / ffn)
    assert params["h.mlp.down.w"]["init"]["std"] == pytest.approx(0.08 * (20 * ffn / base_ffn) ** -0.5)
    assert numbers(made(export_text(made(text), "modelzoo"))) == numbers(made(text))


CONSTANT = """    schedulers:
    - SequentialLR:
        schedulers:
        - LinearLR: {initial_learning_rate: 0.0, end_learning_rate: 0.0006, total_iters: 10}
        - ConstantLR: {learning_rate: 0.0006, total_iters: 20}
        - CosineDecayLR: {initial_learning_rate: 0.0006, end_learning_rate: 0.0, total_iters: 30}
        milestones: [10, 30]
"""


def scheduled(lines: str) -> str:
    return re.sub(r"    schedulers:\n(?:    - .*\n|      .*\n)+", lambda _: lines, yaml_of("111m"))


def test_schedules() -> None:
    found = made(scheduled(CONSTANT))
    assert run_of(found)["schedule"] == [("warmup", 10, 1.0), ("constant", 20, 1.0), ("cosine", 30, 0.0)]
    assert run_of(made(export_text(found, "modelzoo"))) == run_of(found)
    alone = "    schedulers:\n    - ConstantLR: {learning_rate: 0.001, total_iters: 20}\n"
    found = made(scheduled(alone))
    assert found.train is not None and found.train.lr == 1e-3
    assert run_of(found)["schedule"] == [("constant", 20, 1.0)]


def phases(old: str, new: str) -> str:
    assert old in CONSTANT
    return scheduled(CONSTANT.replace(old, new))


CALLBACK = yaml_of("111m").replace("    loop:\n", "    callbacks:\n    - Prune: {}\n    loop:\n")
FAULTS = {
    "unknown": (added("111m", "num_heads", "num_experts: 8"), "CG1004", "model.num_experts` is no field"),
    "position": (changed("111m", position_embedding_type="rotary"), "CG1005", 'position_embedding_type` is "rotary"'),
    "dropout": (changed("111m", dropout_rate=0.1), "CG1005", "dropout_rate` is 0.1"),
    "bias": (changed("111m", use_ffn_bias="false"), "CG1005", "use_ffn_bias` is false"),
    "activation": (changed("111m", nonlinearity="swiglu"), "CG1005", "nonlinearity` is 'swiglu'"),
    "heads": (changed("111m", num_heads=11), "CG1006", "hidden_size` is 768, which 11 does not divide"),
    "negative": (changed("111m", num_hidden_layers=-3), "CG1003", "num_hidden_layers` is -3"),
    "missing": (changed("111m", filter_size=...), "CG1002", "filter_size` is missing"),
    "cut": (changed("111m", a=-0.01), "CG1005", "its distribution ends at -0.01 and 0.04"),
    "normal": (yaml_of("111m").replace("truncated_normal", "normal", 1), "CG1005", 'name` is "normal"'),
    "scores": (changed("111m_mup", scale_qk_dot_by_d="false"), "CG1005", "scale_qk_dot_by_d` is false"),
    "no scores": (changed("111m_mup", scale_qk_dot_by_d=...), "CG1002", "scale_qk_dot_by_d` is missing"),
    "half a mup": (changed("111m_mup", mup_base_filter_size=...), "CG1002", "mup_base_filter_size` is missing"),
    "loss": (changed("111m", loss_weight=0.5), "CG1005", "loss_weight` is 0.5"),
    "bias of moments": (changed("111m", correct_bias="false"), "CG1005", "correct_bias` is false"),
    "betas": (changed("111m", betas="[0.9]"), "CG1003", "betas` is something else"),
    "optimizer": (yaml_of("111m").replace("AdamW:", "Lion:"), "CG1005", "the optimizer is `Lion`"),
    "half": (changed("111m", fp16_type="cbfloat16"), "CG1005", "fp16_type` is 'cbfloat16'"),
    "value clip": (added("111m", "fp16_type", "max_gradient_value: 1.0"), "CG1005", "max_gradient_value` is 1.0"),
    "jump": (phases("{learning_rate: 0.0006", "{learning_rate: 0.0003"), "CG1005", "starts at 0.0003"),
    "start": (phases("initial_learning_rate: 0.0,", "initial_learning_rate: 0.0001,"), "CG1005", "starts at 0.0001"),
    "stones": (phases("[10, 30]", "[10, 31]"), "CG1006", "milestones` is not where"),
    "scheduler": (phases("CosineDecayLR", "ExponentialLR"), "CG1005", "the scheduler is `ExponentialLR`"),
    "epochs": (added("111m", "max_steps", "num_epochs: 3"), "CG1005", "num_epochs` is 3"),
    "short": (added("111m", "batch_size", "max_sequence_length: 128"), "CG1005", "max_sequence_length` is 128"),
    "callback": (CALLBACK, "CG1005", "the callback `Prune`"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_said(name: str) -> None:
    text, code, message = FAULTS[name]
    with pytest.raises(InputError) as raised:
        import_text(text, "m.yaml")
    # from a wrong rate the next scheduler jumps, too
    fault, *more = raised.value.diagnostics
    assert not more or name == "jump"
    assert fault.code == code and message in fault.message and fault.hint
    assert fault.location.file == "m.yaml" and fault.location.line > 0


def test_the_end_of_a_run_may_be_given_in_tokens(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(
        "use std/gpt2\n\nmodel m = gpt2(vocab=256, context=64, layers=2, width=32, heads=2)\n\ntrain {\n"
        "    tokens = 1M tokens\n    batch = 4096 tokens\n    lr = 1e-3\n    optimizer = adamw()\n"
        "    schedule = warmup(40960 tokens) then linear(to=0.1)\n}\n"
    )
    found = run_of(made(export_text(load_program(str(tmp_path / "m.cg")), "modelzoo")))
    assert found["steps"].value == 244 and found["batch"].value == 64
    assert found["schedule"] == [("warmup", 10, 1.0), ("linear", 234, 0.1)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lacks `steps`, `batch`, `optimizer`, `lr`"),
        ("train {\n    lr = 1e-3\n    batch = 3 sequences\n    optimizer = adamw()\n}\n", "lacks `steps`"),
        (
            "train {\n    lr = 1e-3\n    steps = 9 steps\n    batch = 3 sequences\n"
            "    optimizer = sgd(momentum=0.9)\n}\n",
            "the optimizer is `SGD`",
        ),
        (
            "mup {\n    scale width from 16\n    lr = 1e-3\n    override ln_f.scale {\n        lr = 2e-3\n    }\n}\n\n"
            "train {\n    steps = 9 steps\n    batch = 3 sequences\n    optimizer = adamw()\n}\n",
            "the lr of `ln_f.scale` would be 0.001, not 0.002",
        ),
    ],
)
def test_what_the_form_cannot_say_is_not_exported(lines: str, message: str, tmp_path: Path) -> None:
    head = "use std/gpt2\n\nmodel m = gpt2(vocab=256, context=64, layers=2, width=32, heads=2)\n\n"
    (tmp_path / "m.cg").write_text(head + lines)
    with pytest.raises(InputError) as raised:
        export_text(load_program(str(tmp_path / "m.cg")), "modelzoo")
    (fault,) = raised.value.diagnostics
    assert fault.code == "CG1008" and message in fault.message
