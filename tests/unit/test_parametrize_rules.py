"""Rules of parametrizations: solutions of the conditions, tables by hand, overrides, multipliers, what is printed."""

from __future__ import annotations

import itertools
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from faulty_scaling import MLP, TABLE, edit, mup

from cgc.analysis.exponents import Growth, ParamScale, coordinate_exponents, faults
from cgc.cli import main
from cgc.diagnostics import InputError
from cgc.driver import load_program, parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.ir.graph import Graph
from cgc.parametrize.model import standard_table
from cgc.parametrize.uses import Uses, find_uses
from cgc.passes.inline import inline
from cgc.program import Parametrization, Program


def program_of(text: str, **sizes: int) -> Program:
    (program,) = parametrize_checked(elaborate_file(text, "model.cg", sizes), "all").programs
    return program


def made(text: str, **sizes: int) -> Parametrization:
    found = program_of(text, **sizes).parametrization
    assert found is not None
    return found


# ---- the tables are the solution of the conditions

PROBE = """
model probe(vocab = 64, width = 64, layers = 4) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width]   ~ normal(std=0.02)
    param unembed[vocab, width] ~ normal(std=0.02)
    param gain[width]           ~ ones()
    x = embed[tokens]
    repeat layers as h {
        y = gelu(linear(rms_norm(x, over width), width -> width))
        x = x + linear(y, width -> width, bias=false)
    }
    x = rms_norm(x, over width)
    q = linear(x, width -> width, bias=false)
    k = linear(x, width -> width, bias=false) as [seq -> key]
    z = attend(q, k, k, over width, seq -> key, scale=1.0)
    output logits = dot(gain * z, unembed, over width)
}
"""
HALVES = [half / 2 for half in range(-4, 3)]
"""-2, -1.5, … 1."""
MUP: dict[str, tuple[float, float, float]] = {
    # exponents of the multiplier, the initial deviation and the learning rate: Yang et al. 2022, table 8
    "embed": (0, 0, 0),
    "unembed": (-1, 0, 0),
    "gain": (0, 0, 0),
    "h.rms_norm.scale": (0, 0, 0),
    "h.linear.b": (0, 0, 0),
    "h.linear.w": (0, -0.5, -1),
    "h.linear_2.w": (0, -0.5, -1),
    "rms_norm.scale": (0, 0, 0),
    "q.w": (0, -0.5, -1),
    "k.w": (0, -0.5, -1),
}


@cache
def probe(size: str) -> tuple[Graph, Graph, Uses]:
    """Return the probe, the probe with a size 256 times as large, and its uses."""
    (own,) = elaborate_file(PROBE, "probe.cg").programs
    (grown,) = elaborate_file(PROBE, "probe.cg", {size: 256 * dict(own.arguments)[size]}).programs  # type: ignore[dict-item]
    graphs = inline(own.graph), inline(grown.graph)
    return *graphs, find_uses((graphs[0], *graphs))


def faulty(exponents: dict[str, tuple[float, float, float]], scores: float, size: str = "width") -> bool:
    """Tell whether something in the probe is not as it should be."""
    own, grown, uses = probe(size)
    factors: dict[tuple[int, int | None], float] = {}
    for use in uses.uses:
        if use.kind == "scores":
            factors[use.index, None] = scores if use.contracted[0] == 64 else 0.0  # not weights and values
        for param in use.params:
            factors[use.index, use.operand if use.kind == "elementwise" else None] = exponents[param][0]
    branches = {branch.index: (branch.operand, ("h.linear_2.w",)) for branch in uses.branches}
    growth = Growth(
        own,
        grown,
        256,
        {
            param.name: ParamScale(
                exponents[param.name][1] if param.init.distribution != "constant" or param.init.mean else -math.inf,
                exponents[param.name][2],
                param.init.distribution != "constant",
            )
            for param in own.params
        },
        factors,
        frozenset(use.index for use in uses.uses if use.feeds),
        uses.residual,
        branches,
    )
    return any(faults(fact) for fact in coordinate_exponents(growth))


def solutions(param: str) -> set[tuple[float, float, float]]:
    """Return every (multiplier, init, lr) of the grid that goes with µP for all other parameters."""
    assert not faulty(MUP, -1)
    grid = itertools.product(HALVES, HALVES, HALVES)
    return {found for found in grid if not faulty(MUP | {param: found}, -1)}


@pytest.mark.parametrize("param", ["h.linear.w", "h.linear_2.w", "q.w", "k.w", "embed"])
def test_a_matrix_has_one_solution_up_to_the_symmetry(param: str) -> None:
    """A multiplier n^a is the same as an initial deviation and, for Adam, a rate n^a times as large."""
    init, rate = (sum(pair) for pair in zip(MUP[param][:1] * 2, MUP[param][1:], strict=True))
    expected = {(a, b, c) for a, b, c in itertools.product(HALVES, repeat=3) if (a + b, a + c) == (init, rate)}
    assert solutions(param) == expected
    assert MUP[param] in expected
    assert [found for found in expected if found[0] == 0] == [MUP[param]]


def test_the_output_has_one_largest_solution() -> None:
    """Logits may start smaller: what is fixed is the rate, and how large the start may be."""
    found = solutions("unembed")
    assert {a + c for a, _, c in found} == {-1}
    assert max(a + b for a, b, _ in found) == -1
    assert MUP["unembed"] in found
    assert [b for a, b, _ in found if a == -1 and b == max(b for a, b, _ in found if a == -1)] == [0]


@pytest.mark.parametrize("param", ["gain", "h.rms_norm.scale", "h.linear.b"])
def test_vectors_have_one_rate(param: str) -> None:
    """Their start is a constant of the model; it is not searched."""
    found = {(a, c) for a, c in itertools.product(HALVES, repeat=2) if not faulty(MUP | {param: (a, 0, c)}, -1)}
    assert (0, 0) in found
    assert {a + c for a, c in found} == {0}
    assert [c for a, c in found if a == 0] == [0]


def test_scores_are_divided_by_the_size() -> None:
    assert [scores for scores in HALVES if not faulty(MUP, scores)] == [-1]


def test_the_library_has_these_exponents() -> None:
    """The table of the file, evaluated at 256 times the base width."""
    program = program_of(
        PROBE.replace(", scale=1.0", "") + mup("width from 64", "init std = 1", "lr = 1"), width=64 * 256
    )
    found = program.parametrization
    assert found is not None and standard_table("mup").library

    def power(value: float) -> float:
        return round(math.log(value) / math.log(256), 9)

    for param, (multiplier, init, rate) in MUP.items():
        setting = found.param(param)
        assert power(setting.multiplier) == multiplier, param
        assert power(setting.lr or 0) == rate, param
        if setting.init.distribution != "constant":
            start = setting.init.std * (math.sqrt(4) if setting.group == "residual" else 1)  # 4 branches: 1 / sqrt(4)
            assert power(start) == init, param


@pytest.mark.parametrize(("alpha", "steady"), [(1.0, True), (0.5, False)])
def test_completep_is_a_solution_in_depth(alpha: float, steady: bool) -> None:
    """The branch's factor acts on its product here; at alpha = 1 every layer learns, at 0.5 less and less."""
    deep = dict.fromkeys(MUP, (0.0, 0.0, 0.0))
    inside = (0.0, 0.0, alpha - 1)
    deep |= {"h.rms_norm.scale": inside, "h.linear.b": inside, "h.linear.w": inside}
    deep["h.linear_2.w"] = (-alpha, 0.0, alpha - 1)
    assert faulty(deep, 0, "layers") is not steady
    assert faulty(deep | {"h.linear_2.w": (-alpha + 0.5, 0.0, alpha - 1)}, 0, "layers")
    assert faulty(deep | {"h.linear_2.w": (-alpha, 0.0, alpha - 0.5)}, 0, "layers")
    assert faulty(deep | {"h.linear.w": (0.0, 0.0, alpha - 0.5)}, 0, "layers") or not steady


# ---- CompleteP by hand

LLAMA = "use std/llama\nmodel m = llama(vocab=64, context=32, layers=8, width=96, heads=12, kv_heads=6, ffn=240)\n"
BASES = "width from 32, heads from 4, kv_heads from 2, ffn from 60, layers from 2"


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("layers", [2, 8])
def test_completep(alpha: float, layers: int) -> None:
    """Dey et al. 2025, table 1, with the later correction of epsilon."""
    std, lr, eps, decay = 0.08, 6e-3, 1e-8, 0.1
    m, deep = 3.0, layers / 2
    lines = (f"init std = {std}", f"lr = {lr}", f"eps = {eps}", f"weight_decay = {decay}", f"alpha = {alpha}")
    found = made(LLAMA + mup(BASES, "parametrization = completep", *lines), layers=layers)
    inner = lr * deep ** (alpha - 1)
    for setting in found.params:
        got = [setting.lr, setting.eps, setting.weight_decay]
        start: float | None = None
        ffn = setting.name == "h.mlp.down.w"
        width = 4.0 if ffn else m
        match setting.name:
            case "embed" | "unembed":
                expected, start = [lr, eps / m, decay], std
            case "norm_f.scale":
                expected = [lr, eps / m, 0.0]
            case "h.norm_1.scale" | "h.norm_2.scale":
                expected = [inner, eps * deep**-alpha / m, 0.0]
            case _:
                expected = [inner / width, eps * deep**-alpha / width, decay * width]
                start = std / math.sqrt(width)
        assert got == pytest.approx(expected, rel=1e-12), setting.name
        if start is not None:
            assert setting.init.std == pytest.approx(start, rel=1e-12), setting.name
    factors = {factor.path: factor.value for factor in found.factors}
    assert factors.pop("logits") == pytest.approx(1 / m)
    assert factors.pop("h.attention.mixed") == pytest.approx(1 / math.sqrt(8))
    assert factors == ({} if deep == 1 else {"h.x": pytest.approx(deep**-alpha)})
    branches = [factor for factor in found.factors if factor.group == "residual"]
    assert len(branches) == (0 if deep == 1 else 2)


# ---- base values and overrides

GPT2 = "use std/gpt2\nmodel m = gpt2(vocab=64, context=32, layers=2, width=96, heads=6)\n"
WIDTH = "width from 24"


def test_without_a_tuned_deviation_the_declared_ones_are_scaled() -> None:
    found = made(GPT2 + mup(WIDTH))
    for name, start in {"wte": 0.02, "h.attention.q.w": 0.01, "h.mlp.up.w": 0.01}.items():
        assert found.param(name).init.std == pytest.approx(start), name
    # the model has its 1 / sqrt(2 layers) already, at the base as here
    assert found.param("h.mlp.down.w").init.std == pytest.approx(0.02 / math.sqrt(4) / 2)
    assert all(setting.lr is None and setting.eps is None for setting in found.params)
    assert found.param("h.mlp.up.w").lr_factor == 0.25


def test_a_declared_deviation_that_depends_on_width_is_taken_at_the_base() -> None:
    model = edit(MLP, ("bias=false)", "bias=false, std=1 / sqrt(width))"))
    assert made(model + mup("width from 16")).param("linear_2.w").init.std == pytest.approx(1 / math.sqrt(16) / 2)


def test_the_train_item_gives_what_the_mup_item_does_not() -> None:
    train = "train {\n    lr = 1e-2\n    optimizer = adamw(eps=1e-7, weight_decay=0.2)\n}\n"
    setting = made(GPT2 + mup(WIDTH) + train).param("h.mlp.up.w")
    assert setting.lr == pytest.approx(2.5e-3) and (setting.eps, setting.weight_decay) == (1e-7, 0.2)
    setting = made(GPT2 + mup(WIDTH, "lr = 4e-2", "eps = 1e-6", "weight_decay = 0.3") + train).param("h.mlp.up.w")
    assert setting.lr == pytest.approx(1e-2) and (setting.eps, setting.weight_decay) == (1e-6, 0.3)


OVERRIDES = mup(
    WIDTH,
    "init std = 0.08",
    "lr = 6e-3",
    "weight_decay = 0.1",
    "override h.mlp {\n        lr = 8e-3\n        init std = 0.04\n    }",
    "override h.mlp.up.w {\n        lr = 1.6e-2\n        weight_decay = 0.5\n        eps = 1e-5\n    }",
    "override ln_f.scale {\n        weight_decay = 0.7\n        lr = 1e-4\n    }",
)


def test_overrides_are_numbers_at_the_base_sizes() -> None:
    found = made(GPT2 + OVERRIDES)
    up, down, bias = (found.param(f"h.mlp.{name}") for name in ("up.w", "down.w", "up.b"))
    assert up.lr == pytest.approx(4e-3) and (up.weight_decay, up.eps) == (0.5, 1e-5)
    assert up.init.std == pytest.approx(0.02)
    assert down.lr == pytest.approx(2e-3) and down.weight_decay == 0.1
    assert down.init.std == pytest.approx(0.02)
    assert bias.lr == pytest.approx(8e-3) and bias.init.distribution == "constant"
    assert sorted(up.overridden) == ["eps", "init", "lr", "weight_decay"]
    assert sorted(down.overridden) == ["init", "lr"]
    assert found.param("ln_f.scale").lr == 1e-4
    assert found.param("wte").overridden == () and found.param("h.attention.q.w").overridden == ()


def test_overrides_are_marked_wherever_they_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "model.cg"
    path.write_text(GPT2 + OVERRIDES)
    text = run("params", path).output
    rows = {row.split()[1]: row for row in text.splitlines() if row.startswith("│")}
    assert rows["h.mlp.up.w"].count("*") >= 3 and "*" not in rows["wte"]
    assert "* from an override" in text
    explained = run("explain", path, "h.mlp.up.w").output
    assert "from the override 0.016 (" in explained and "model.cg" in explained


# ---- multipliers


def factors(text: str) -> dict[str, float]:
    return {factor.path: factor.value for factor in made(text).factors}


def test_multiply_by_group_and_by_path() -> None:
    plain = factors(GPT2 + mup(WIDTH))
    assert plain.keys() == {"h.attention.mixed", "logits"}
    assert plain["logits"] == 0.25
    group = factors(GPT2 + mup(WIDTH, "multiply embedding by 10", "multiply output by 3", "multiply attention by 2"))
    assert group.pop("wte") == group.pop("wpe") == 10
    assert group == {"h.attention.mixed": pytest.approx(2 * plain["h.attention.mixed"]), "logits": 0.75}
    path = factors(GPT2 + mup(WIDTH, "multiply h.mlp.up.w by 0.5", "multiply wpe by 7"))
    assert path.pop("wpe") == 7 and len(path) == 3
    assert sorted(path.values()) == sorted((*plain.values(), 0.5))


def test_a_table_of_ones_own() -> None:
    text = MLP + edit(TABLE, ("by 1 / m\n", "by 2 / m\n"), ("init = std / sqrt(m)", "init = std * 3 / sqrt(m)"))
    found = made(text + mup("width from 16", "parametrization = mine", "init std = 0.1", "lr = 8e-3"))
    assert found.name == "mine"
    assert found.param("linear.w").init.std == pytest.approx(0.15)
    assert found.param("linear.w").lr == pytest.approx(2e-3)
    assert found.param("unembed").multiplier == pytest.approx(0.5)


# ---- the command line


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_set_is_as_good_as_editing_the_file(tmp_path: Path) -> None:
    path, other = tmp_path / "model.cg", tmp_path / "other.cg"
    text = GPT2 + mup("width from 24, heads from 2, layers from 1", "lr = 1e-2", "parametrization = completep")
    path.write_text(text)
    other.write_text(edit(text, ("width=96, heads=6", "width=48, heads=12"), ("layers=2", "layers=5")))
    edited = json.loads(run("params", other, "--format", "json").output)
    sizes = ("--set", "width=48", "--set", "heads=12", "--set", "layers=5")
    assert json.loads(run("params", path, *sizes, "--format", "json").output) == edited
    assert json.loads(run("params", path, "--format", "json").output) != edited
    assert load_program(str(path), {"width": 48, "heads": 12, "layers": 5}).graph == load_program(str(other)).graph


def test_explain_names_class_rule_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.cg"
    path.write_text(GPT2 + mup(WIDTH, "init std = 0.08", "lr = 6e-3", "multiply embedding by 10"))
    text = run("explain", path, "h.mlp.down.w").output
    for part in (
        "h.mlp.down.w [layers = 2, ffn = 384, width = 96]",
        "class: residual",
        "init: truncated_normal(std=0.02)",
        "std / sqrt(branches * m) with m = 4, branches = 4 (mup, residual), std = 0.08",
        "lr: 0.0015    lr / m with m = 4 (mup, residual)",
        "eps: no base value is given",
        "logits × 0.25    1 / m with m = 4 (mup, output)",
        "rules: parametrization mup, std/parametrizations.cg:",
    ):
        assert part in text, part
    text = run("explain", path, "wte").output
    assert "class: embedding" in text and "used as: embedding, output" in text
    assert "multiplier: 10    multiply by 10 (" in text
    data = json.loads(run("explain", path, "wte", "--format", "json").output)
    assert (data["class"], data["multiplier"], data["explanation"] + "\n") == ("embedding", 10, text)
    assert "did you mean `wte`" in CliRunner().invoke(main, ["explain", str(path), "wt"]).output


# ---- rules that come to no possible number

IMPOSSIBLE = {
    "a division by zero at one size": ("lr = lr / (m - 2)", "division by zero", "lr / (m - 2)"),
    "a root at a larger size": ("init = sqrt(3 - m)", "is not a number", "sqrt(3 - m)"),
    "a rate below zero": ("lr = -lr", "`lr` of the class `hidden` comes to -", "-lr"),
    "a deviation below zero": ("init = -std", "`init` of the class `hidden` comes to -", "-std"),
    "a deviation of zero": ("init = std * 0", "`init` of the class `hidden` comes to 0", "std * 0"),
    "a deviation of zero at the base": ("init = std * log(m)", "comes to 0", "std * log(m)"),
    "an epsilon below zero": ("eps = 0 - eps", "`eps` of the class `hidden` comes to -", "0 - eps"),
    "a weight decay below zero": ("weight_decay = 2 - m", "`weight_decay` of the class `hidden`", "2 - m"),
}


@pytest.mark.parametrize("tuned_std", [True, False])
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_rule_that_comes_to_no_possible_number_is_a_fault_at_its_place(name: str, tuned_std: bool) -> None:
    line, message, place = IMPOSSIBLE[name]
    tuned = (
        "init std = 0.1" if tuned_std and line.startswith("init") else "",
        "lr = 1e-2",
        "eps = 1e-8",
        "weight_decay = 0.1",
        "parametrization = own",
    )
    text = MLP + f"parametrization own {{\n    hidden {{\n        {line}\n    }}\n}}\n"
    text += mup("width from 32", *(setting for setting in tuned if setting))
    for strictness in ("all", "none"):
        with pytest.raises(InputError) as raised:
            parametrize_checked(elaborate_file(text, "model.cg"), strictness)  # type: ignore[arg-type]
        (found,) = raised.value.diagnostics
        assert (found.code, message in found.message) == ("CG0410", True), found.message
        row = text.split("\n")[found.location.line - 1]
        assert place in row and found.location.column >= row.index("=") + 2


def test_a_rule_may_turn_a_weight_off() -> None:
    """A rate of zero freezes, an epsilon or a weight decay of zero is one."""
    text = MLP + "parametrization own {\n    hidden {\n        lr = 0 * lr\n        weight_decay = 0\n    }\n}\n"
    text += mup("width from 32", "lr = 1e-2", "weight_decay = 0.1", "parametrization = own")
    checked = parametrize_checked(elaborate_file(text, "model.cg"), "none")
    found = checked.programs[0].parametrization
    assert found is not None
    assert {(param.lr, param.weight_decay) for param in found.params if param.group == "hidden"} == {(0.0, 0.0)}
