"""`mup` and `train` items: what they mean, and what is said about faulty ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import cgc
from cgc.diagnostics import Diagnostic, Diagnostics, InputError
from cgc.elaborate.files import elaborate_file
from cgc.elaborate.items import read_train, single
from cgc.program import Amount, Mup, Optimizer, SchedulePhase, Train
from cgc.syntax import tree
from cgc.syntax.parser import parse

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = "use std/gpt2\nmodel tiny = gpt2(vocab=11, context=8, layers=2, width=8, heads=2)\n"


def faults(text: str) -> tuple[Diagnostic, ...]:
    """Return what is wrong with a model that has the items in `text`."""
    with pytest.raises(InputError) as caught:
        elaborate_file(MODEL + text, "test.cg")
    return caught.value.diagnostics


def codes(text: str) -> list[str]:
    return [fault.code for fault in faults(text)]


def only_fault(text: str) -> Diagnostic:
    (fault,) = faults(text)
    assert fault.hint
    assert fault.location.file == "test.cg"
    return fault


def mup(lines: str) -> Mup:
    (program,) = elaborate_file(f"{MODEL}mup {{\n{lines}\n}}\n", "test.cg").programs
    assert program.mup is not None
    return program.mup


def train(lines: str) -> Train:
    (program,) = elaborate_file(f"{MODEL}train {{\n{lines}\n}}\n", "test.cg").programs
    assert program.train is not None
    return program.train


def test_mup_keeps_every_line() -> None:
    item = mup(
        """scale width from 4, heads from 1
        scale layers from 1
        init std = 0.08
        lr = 6e-3
        parametrization = completep
        alpha = 0.5
        multiply embedding by 10
        multiply h.attention.out.w by 2
        override h.mlp { lr = 1e-3
        init std = 0.01
        multiply by 3 }"""
    )
    assert item.base == (("width", 4), ("heads", 1), ("layers", 1))
    assert [(s.name, s.value) for s in item.init] == [("std", 0.08)]
    assert {s.name: s.value for s in item.values} == {"lr": 6e-3, "alpha": 0.5}
    assert item.parametrization == "completep"
    assert [(s.name, s.value) for s in item.multipliers] == [("embedding", 10.0), ("h.attention.out.w", 2.0)]
    ((target, settings),) = item.overrides
    assert target == "h.mlp"
    assert {s.name: s.value for s in settings} == {"lr": 1e-3, "std": 0.01, "multiply": 3.0}


def test_train_keeps_every_line() -> None:
    item = train(
        """data = "pile"
        tokens = 20 per param
        batch = 120 sequences
        lr = 6e-4
        optimizer = adamw(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
        schedule = warmup(375M tokens) then linear(9037 steps, to=0.1) then constant
        clip = 1.0
        precision = bf16
        seed = 7"""
    )
    assert item == Train(
        data="pile",
        tokens=Amount(20.0, "per param"),
        batch=Amount(120.0, "sequences"),
        lr=6e-4,
        optimizer=Optimizer("adamw", (("beta1", 0.9), ("beta2", 0.95), ("eps", 1e-8), ("weight_decay", 0.1))),
        schedule=(
            SchedulePhase("warmup", Amount(375e6, "tokens"), 1.0),
            SchedulePhase("linear", Amount(9037.0, "steps"), 0.1),
            SchedulePhase("constant", None, 0.1),
        ),
        clip=1.0,
        precision="bf16",
        seed=7,
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [("375M tokens", Amount(375e6, "tokens")), ("20 per param", Amount(20.0, "per param"))],
)
def test_tokens_are_counted_or_relative(written: str, meant: Amount) -> None:
    assert train(f"tokens = {written}").tokens == meant


@pytest.mark.parametrize("written", ["9037 steps", "9037"])
def test_steps_need_no_unit(written: str) -> None:
    assert train(f"steps = {written}").steps == Amount(9037.0, "steps")


def test_an_optimizer_without_arguments_has_pytorch_defaults() -> None:
    optimizer = train("optimizer = adamw").optimizer
    assert optimizer is not None
    assert dict(optimizer.arguments) == {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
    assert train("optimizer = sgd(momentum=0.9)").optimizer == Optimizer("sgd", (("momentum", 0.9),))


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        ("batchsize = 12 sequences", "CG0501", "batch"),
        ("optimizer = adamw(beta=0.9)", "CG0501", "beta"),
        ("schedule = constant(to=1)", "CG0501", "no names"),
        ("schedule = warmup(5 steps, to=0.5)", "CG0501", "no names"),
        ("batch = 120", "CG0502", "`sequences` or `tokens`"),
        ("batch = 1.5 sequences", "CG0502", "whole"),
        ("batch = 0 sequences", "CG0502", "at least 1"),
        ("batch = -3 sequences", "CG0502", "at least 1"),
        ("tokens = 20 steps", "CG0502", "`tokens` or `per param`"),
        ("tokens = many", "CG0502", "tokens = 20 per param"),
        ("data = pile", "CG0502", 'data = "pile"'),
        ("lr = 0", "CG0502", "above 0"),
        ("lr = 3 kHz", "CG0502", "lr = 6e-4"),
        ("lr = 1e200", "CG0502", "1e+18"),
        (f"lr = 1{'0' * 30}", "CG0502", "1e+18"),
        (f"steps = 1{'0' * 38}", "CG0502", "1e+18"),
        ("precision = f8", "CG0502", "f32"),
        ('precision = "bf16"', "CG0502", "`f32`, `bf16` or `f16`"),
        ("optimizer = adam(beta1=0.9)", "CG0502", "adamw"),
        ("optimizer = 3", "CG0502", "`adamw` or `sgd`"),
        ("optimizer = adamw(0.9)", "CG0502", "beta1=…"),
        ("optimizer = adamw(beta2=1)", "CG0502", "below 1"),
        ("optimizer = adamw(beta1=-0.1)", "CG0502", "at least 0"),
        ("optimizer = adamw(eps=0)", "CG0502", "above 0"),
        ("optimizer = adamw(eps=tiny)", "CG0502", "eps = 1e-08"),
        ("optimizer = adamw(eps=1e-8, eps=1e-9)", "CG0504", "keep one"),
        ("schedule = cosin(to=0.1)", "CG0502", "cosine"),
        ("schedule = warmup then linear", "CG0502", "warmup(375M tokens)"),
        ("schedule = linear then constant", "CG0502", "linear(375M tokens)"),
        ("schedule = linear(5 steps) then warmup(5 steps)", "CG0502", "before"),
        ("schedule = linear(5 steps, 6 steps)", "CG0502", "leave"),
        ("schedule = linear(5)", "CG0502", "`tokens` or `steps`"),
        ("schedule = linear(to=1.5)", "CG0502", "at most 1"),
        ("clip = 0", "CG0502", "above 0"),
        ("seed = 1.5", "CG0502", "whole"),
        ("seed = -1", "CG0502", "at least 0"),
        ("lr = 1e-3\nlr = 1e-4", "CG0504", "keep one"),
        ("tokens = 5M tokens\nsteps = 5", "CG0504", "keep one"),
    ],
)
def test_faults_of_train(line: str, code: str, hint: str) -> None:
    fault = only_fault(f"train {{\n{line}\n}}\n")
    assert fault.code == code
    assert hint in fault.hint


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        ("learning_rate = 1e-3", "CG0501", "it takes"),
        ("init sdt = 0.1", "CG0501", "init std"),
        ("init std = 0", "CG0502", "above 0"),
        ("init std = 0.1 per param", "CG0502", "init std = 0.08"),
        ("weight_decay = -1", "CG0502", "at least 0"),
        ("alpha = 1", "CG0502", "completep"),
        ("parametrization = mupp", "CG0502", "mup"),
        ("lr = 1\nlr = 2", "CG0504", "keep one"),
        ("scale widht from 4", "CG0505", "did you mean `width`?"),
        ("scale activation from 4", "CG0505", "it has"),
        ("scale seq from 4", "CG0505", "it has"),
        ("scale width from 0", "CG0502", "at least 1"),
        ("scale width from 2.5", "CG0502", "whole"),
        (f"scale width from 1{'0' * 38}", "CG0502", "1e+18"),
        ("scale width from 4, width from 8", "CG0504", "keep one"),
        ("multiply embeddings by 10", "CG0507", "did you mean `embedding`?"),
        ("multiply h.attention.q.ww by 10", "CG0507", "did you mean `h.attention.q.w`?"),
        ("multiply h.1.attention by 2", "CG0507", "`h.attention`"),
        ("multiply embedding by 0", "CG0502", "leave"),
        ("multiply embedding by 1e200", "CG0502", "1e+18"),
        ("multiply embedding by 1\nmultiply embedding by 2", "CG0504", "keep one"),
        ("override h.mpl { lr = 1 }", "CG0507", "did you mean `h.mlp`?"),
        ("override h.mlp { lr = 0 }", "CG0502", "above 0"),
        ("override h.mlp { alpha = 1 }", "CG0501", "it takes"),
        ("override h.mlp { lr = 1 }\noverride h.mlp { eps = 1 }", "CG0504", "together"),
        ("override h.mlp { multiply by 1\nmultiply by 2 }", "CG0504", "keep one"),
    ],
)
def test_faults_of_mup(line: str, code: str, hint: str) -> None:
    fault = only_fault(f"mup {{\n{line}\n}}\n")
    assert fault.code == code
    assert hint in fault.hint


def test_all_faults_come_at_once_and_the_rest_is_kept() -> None:
    text = "train {\nclip = 0\nbatch = 5\nsteps = 10\n}\nmup {\nlr = 0\nscale wdth from 1\n}\n"
    assert codes(text) == ["CG0502", "CG0502", "CG0502", "CG0505"]
    (item,) = parse("train {\nlr = 0\nsteps = 10\n}\n", "test.cg").items
    assert isinstance(item, tree.Settings)
    found = Diagnostics()
    assert read_train(item, found) == Train(steps=Amount(10.0, "steps"))
    assert len(found) == 1


def test_an_item_stands_once_in_a_file() -> None:
    items = parse("train { lr = 1 }\ntrain { lr = 2 }\ntrain { lr = 3 }\nmup { lr = 1 }\n", "test.cg").items
    found = Diagnostics()
    assert single(items, "train", found) is items[0]
    assert single(items, "mup", found) is items[3]
    assert [fault.code for fault in found.sorted()] == ["CG0506", "CG0506"]
    assert [fault.location.line for fault in found.sorted()] == [2, 3]
    assert single((), "mup", Diagnostics()) is None


def test_examples_say_what_the_paper_says() -> None:
    program = cgc.load(EXAMPLES / "cerebras_gpt/111m.cg").program
    assert program.mup is None and program.train is not None
    assert program.train.steps == Amount(9037.0, "steps")
    assert program.train.lr == 6e-4
    scaled = cgc.load(EXAMPLES / "cerebras_gpt/111m_mup.cg").program
    assert scaled.mup is not None and scaled.train is not None
    assert scaled.mup.base == (("width", 256), ("heads", 4))
    assert scaled.train.lr is None
