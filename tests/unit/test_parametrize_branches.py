"""What counts as a branch of a residual stream: gates and norms on its way, several streams, sums of branches."""

from __future__ import annotations

import pytest

from cgc.diagnostics import InputError
from cgc.driver import parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.parametrize.model import parametrization_of
from cgc.program import Parametrization

HEAD = """
model m(vocab = 64, layers = 6, width = 96, ffn = 4 * width) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width]  ~ normal(std=0.02)
    param second[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
    y = second[tokens]
"""
TAIL = """
    output logits = dot(rms_norm(x + y, over width), embed, over width)
}
"""
WIDTH = "mup {\n    scale width from 24\n    init std = 0.1\n    lr = 1e-2\n}\n"
DEPTH = WIDTH.replace("from 24\n", "from 24, layers from 2\n").replace("}", "    parametrization = completep\n}")
OWN_TABLE = """
parametrization forgotten {
    hidden {
        init = std / sqrt(m)
        lr   = lr / m
    }
    residual {
        init = std / sqrt(m)
        lr   = lr / m
    }
    output {
        multiply by 1 / m
    }
}
"""


def layer(*lines: str) -> str:
    return "\n".join(
        (
            "    repeat layers as h {",
            "        n = rms_norm(x, over width)",
            "        u = linear(n, width -> ffn)",
            "        d = linear(silu(u), ffn -> width)",
            *(f"        {line}" for line in lines),
            "    }",
        )
    )


GATED = {
    "as it is": layer("x = x + d"),
    "a gate from the norm": layer("g = linear(n, width -> width)", "x = x + sigmoid(g) * d"),
    "a gate from the stream itself": layer("x = x + sigmoid(x) * d"),
    "a gain for each entry": layer("param gain[width] ~ constant(value=0.1)", "x = x + gain * d"),
    "one gain": layer("param gain[] ~ ones()", "x = x + d * gain"),
    "over a gate": layer("g = linear(n, width -> width)", "x = x + d / (1 + exp(g))"),
    "where a condition holds": layer("x = x + where(d > 0, 2 * d, d)"),
}


def derived(text: str) -> Parametrization:
    (program,) = parametrize_checked(elaborate_file(text, "model.cg"), "none").programs
    return parametrization_of(program)


def codes(text: str) -> list[str]:
    try:
        parametrize_checked(elaborate_file(text, "model.cg"), "all")
    except InputError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return []


@pytest.mark.parametrize("name", GATED)
def test_a_gated_branch_is_a_branch(name: str) -> None:
    """Six layers of one branch, four times as wide: std / sqrt(6 * 4)."""
    text = HEAD + GATED[name] + TAIL
    (writer,) = (param for param in derived(text + WIDTH).params if param.name == "h.d.w")
    assert writer.group == "residual"
    assert writer.init.std == pytest.approx(0.1 / (6 * 4) ** 0.5)
    deep = derived(text + DEPTH)
    (writer,) = (param for param in deep.params if param.name == "h.d.w")
    assert writer.multiplier == pytest.approx(2 / 6)
    assert writer.init.std == pytest.approx(0.05)
    assert [factor.value for factor in deep.factors if factor.group == "residual"] == [pytest.approx(2 / 6)]
    assert codes(text + DEPTH) == []


NORMED = {
    "a norm behind": layer("x = x + rms_norm(d, over width)"),
    "a layer norm behind": layer("x = x + layer_norm(d, over width)"),
    "two products": layer("e = linear(n, width -> width)", "x = x + d * e"),
    "a bend behind": layer("x = x + tanh(d)"),
}


@pytest.mark.parametrize("name", NORMED)
def test_what_is_no_linear_image_is_a_branch_of_which_no_weight_writes(name: str) -> None:
    """Its size does not follow from one weight; it adds up over the layers all the same."""
    text = HEAD + NORMED[name] + TAIL
    (writer,) = (param for param in derived(text + WIDTH).params if param.name == "h.d.w")
    assert writer.group == "hidden" and writer.init.std == pytest.approx(0.05)
    factors = [factor.value for factor in derived(text + DEPTH).factors if factor.group == "residual"]
    assert factors == [pytest.approx(2 / 6)]
    assert codes(text + DEPTH) == []


@pytest.mark.parametrize("alpha", [0.5, 0.75])
@pytest.mark.parametrize("name", [*GATED, "a norm behind", "a layer norm behind"])
def test_smaller_exponents_of_depth_are_right_for_them(name: str, alpha: float) -> None:
    """What passes through fresh random weights is not alike in all layers, gated or not."""
    text = HEAD + (GATED | NORMED)[name] + TAIL
    assert codes(text + DEPTH.replace("completep", f"completep\n    alpha = {alpha}")) == []
    root = OWN_TABLE.replace("    residual {\n", "    residual {\n        multiply by depth ^ -alpha\n")
    lines = f"forgotten\n    alpha = {alpha}"
    assert "CG0523" in codes(text + root + DEPTH.replace("completep", lines)), "the rate has to follow depth, too"


@pytest.mark.parametrize("turn", ["z = silu(linear(z, width -> width))", "z = z + silu(linear(z, width -> width))"])
def test_a_branch_through_a_loop_of_its_own_is_one(turn: str) -> None:
    inner = ("z = linear(n, width -> width)", "repeat inner as g {", f"    {turn}", "}")
    text = HEAD.replace("4 * width", "4 * width, inner = 2") + layer(*inner, "x = x + linear(z, width -> width)") + TAIL
    (writer,) = (param for param in derived(text + WIDTH).params if param.name == "h.linear.w")
    assert writer.group == "residual" and writer.init.std == pytest.approx(0.1 / (6 * 4) ** 0.5)
    deep = derived(text + DEPTH)
    assert [factor.value for factor in deep.factors if factor.group == "residual"][-1] == pytest.approx(2 / 6)
    assert codes(text + DEPTH) == []
    assert "CG0523" in codes(text + DEPTH.replace("completep", "mup"))


def test_a_mixture_of_branches_is_a_branch() -> None:
    """Experts mixed by weights, and attention without a projection behind it."""
    experts = layer(
        "param up[ffn, width, experts] ~ normal(std=0.02)",
        "r = softmax(linear(n, width -> experts), over experts)",
        "x = x + dot(dot(u, up, over ffn), r, over experts)",
    )
    head = HEAD.replace("4 * width", "4 * width, experts = 3")
    values = layer(
        "v = linear(n, width -> width) as [seq -> key]",
        "e = softmax(dot(n, n as [seq -> key], over width) / width, over key)",
        "x = x + dot(e, v, over key)",
    )
    for text, writer in ((head + experts, "h.up"), (HEAD + values, "h.v.w")):
        (param,) = (param for param in derived(text + TAIL + WIDTH).params if param.name == writer)
        assert param.group == "residual" and param.init.std == pytest.approx(0.1 / (6 * 4) ** 0.5)
        for alpha in (0.5, 1.0):
            assert codes(text + TAIL + DEPTH.replace("completep", f"completep\n    alpha = {alpha}")) == []


def test_tables_in_a_loop_follow_depth() -> None:
    body = layer(
        "param table[vocab, width] ~ normal(std=0.02)", "x = x + linear(silu(n) + table[tokens], width -> width)"
    )
    for alpha in (0.5, 1.0):
        text = HEAD + body + TAIL + DEPTH.replace("completep", f"completep\n    alpha = {alpha}\n    eps = 1e-8")
        params = {param.name: param for param in derived(text).params}
        assert params["h.table"].group == "embedding"
        assert params["h.table"].lr == pytest.approx(1e-2 * 3 ** (alpha - 1))
        assert params["h.table"].eps == pytest.approx(1e-8 * 3**-alpha / 4)
        assert params["embed"].lr == 1e-2 and params["embed"].eps == pytest.approx(1e-8 / 4)
        assert codes(text) == []


def test_without_an_exponent_of_depth_the_start_alone_is_wrong() -> None:
    text = HEAD + GATED["as it is"] + TAIL + DEPTH.replace("completep", "completep\n    alpha = 0")
    assert codes(text) == ["CG0523"]


@pytest.mark.parametrize("name", [*GATED, *NORMED])
def test_a_forgotten_depth_scale_is_found_behind_gates_and_norms(name: str) -> None:
    text = HEAD + (GATED | NORMED)[name] + TAIL + OWN_TABLE
    assert codes(text + WIDTH.replace("}", "    parametrization = forgotten\n}")) == []
    assert "CG0523" in codes(text + DEPTH.replace("completep", "forgotten"))


def test_a_norm_of_the_stream_has_no_branch_in_it() -> None:
    for norm in ("layer_norm(x, over width)", "x - mean(x, over width)", "x / (1 + max(x, over width))"):
        body = layer("x = x + d", f"x = {norm}")
        factors = [factor.group for factor in derived(HEAD + body + TAIL + DEPTH).factors]
        assert factors == ["residual", "output"], norm


TWO = """
    repeat layers as h {
        x = x + linear(rms_norm(x, over width), width -> width)
        x = x + linear(rms_norm(x, over width), width -> width)
    }
    repeat 3 as g {
        y = y + linear(rms_norm(y, over width), width -> width)
    }
"""
ONE_LOOP = """
    repeat layers as h {
        x = x + linear(rms_norm(x, over width), width -> width)
        y = y + linear(rms_norm(y, over width) + x, width -> width)
        y = y + linear(rms_norm(y, over width), width -> width)
    }
"""
REVERSIBLE = """
    y = x
    repeat layers as h {
        x = x + linear(rms_norm(x, over width), width -> width)
        y = y + linear(rms_norm(y, over width) * x, width -> width)
    }
"""
IN_TURN = """
    repeat layers as h {
        x = x + linear(rms_norm(x, over width), width -> width)
    }
    x = 0.5 * x
    repeat 4 as g {
        x = x + linear(rms_norm(x, over width), width -> width)
    }
"""
STREAMS = {
    "two loops": (TWO, {"h.linear.w": 12, "h.linear_2.w": 12, "g.linear.w": 3}),
    "one loop": (ONE_LOOP, {"h.linear.w": 6, "h.linear_2.w": 12, "h.linear_3.w": 12}),
    "two that start as one": (REVERSIBLE, {"h.linear.w": 6, "h.linear_2.w": 6}),
    "one loop after the other": (IN_TURN, {"h.linear.w": 10, "g.linear.w": 10}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_residual_stream_counts_its_own_branches(name: str) -> None:
    body, branches = STREAMS[name]
    params = {param.name: param for param in derived(HEAD + body + TAIL + WIDTH).params}
    for writer, count in branches.items():
        assert params[writer].group == "residual"
        assert params[writer].init.std == pytest.approx(0.1 / (count * 4) ** 0.5), writer


def test_branches_added_at_once_count_as_branches_added_one_by_one() -> None:
    def stds(line: str) -> list[float]:
        body = layer("e = linear(n, width -> width)", line)
        params = {param.name: param for param in derived(HEAD + body + TAIL + WIDTH).params}
        return [params["h.d.w"].init.std, params["h.e.w"].init.std]

    assert stds("x = x + (d + e)") == stds("x = x + d + e") == stds("x = d + x + e")
    assert stds("x = x + (d + e)")[0] == pytest.approx(0.1 / (12 * 4) ** 0.5)
