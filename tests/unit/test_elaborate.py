"""What the language means: names and sizes, primes, choices, loops, paths of parameters, defaults and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import program

from cgc.diagnostics import InputError
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.graph import Graph, Init
from cgc.weights import initialize


def graph(body: str, blocks: str = "", header: str = "width = 4, two = 2, layers = 3", **sizes: Any) -> Graph:
    """Return the graph of a model with an input `x[batch, width]`."""
    text = f"model m({header}) {{\n    input x[batch, width]\n{body}\n}}\n{blocks}\n"
    return program(text, **sizes).graph


def params(graph: Graph) -> dict[str, str]:
    return {param.name: ", ".join(map(str, param.type.dims)) for param in graph.params}


def inits(graph: Graph) -> dict[str, Init]:
    return {param.name: param.init for param in graph.params}


def run(graph: Graph, x: Any = ((1, 2, 3, 4),), **inputs: Any) -> dict[str, Any]:
    return interpret(graph, initialize(graph, 0), {"x": np.array(x), **inputs})


def code(body: str, blocks: str = "") -> list[str]:
    with pytest.raises(InputError) as caught:
        graph(body, blocks)
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


# ---- sizes


def test_a_block_sees_the_sizes_of_its_caller_and_of_its_caller_s_caller() -> None:
    blocks = """
    block outer(x) {
        dim mine = two * 3
        return inner(x)
    }
    block inner(x) {
        param w[width, mine] ~ zeros()
        return dot(x, w, over width) * layers
    }"""
    assert params(graph("output y = outer(x)", blocks)) == {"y.inner.w": "width=4, mine=6"}


def test_a_block_does_not_see_tensors_of_its_caller() -> None:
    assert code("hidden = x * 2\noutput y = f(x)", "block f(x) {\nreturn x + hidden\n}") == ["CG0301"]


def test_a_block_s_own_names_come_before_those_of_its_caller() -> None:
    blocks = "block f(x, two = 5) {\nreturn x * two\n}\nblock g(x) {\ndim two = 7\nreturn x * two\n}"
    got = run(graph("output a = f(x)\noutput b = g(x)\noutput c = x * two", blocks), [[1, 1, 1, 1]])
    assert (got["a"][0, 0], got["b"][0, 0], got["c"][0, 0]) == (5, 7, 2)


def test_one_block_at_several_sizes_of_its_caller() -> None:
    blocks = """
    block inner(x) {
        param w[width, mine] ~ zeros()
        return dot(x, w, over width)
    }
    block small(x) {
        dim mine = 1
        return inner(x)
    }
    block large(x) {
        dim mine = 9
        return inner(x)
    }"""
    made = graph("output a = small(x)\noutput b = large(x)\noutput c = small(x)", blocks)
    assert params(made) == {
        "a.inner.w": "width=4, mine=1",
        "b.inner.w": "width=4, mine=9",
        "c.inner.w": "width=4, mine=1",
    }
    assert len([function for function in made.functions if function.block == "inner"]) == 2
    assert len([function for function in made.functions if function.block == "small"]) == 1


def test_sizes_are_numbers_too() -> None:
    got = run(graph("dim half = width / two\noutput y = x * half + sqrt(width) - log2(width) ^ 2"))
    np.testing.assert_allclose(got["y"], [[0, 2, 4, 6]])


def test_free_sizes_and_their_limits() -> None:
    made = program(
        "model m(context = 8, vocab = 5) {\ninput t[batch, seq <= context] : id of vocab\ninput b[batch] : bool\n"
        "input r[seq, rest <= 3]\ninput i[batch] : i32\noutput y[rest, seq] = r\n}\n"
    ).graph
    assert [(s.name, str(s.limit) if s.limit else "") for s in made.symbols] == [
        ("batch", ""), ("seq", "context=8"), ("rest", "rest_limit=3"),
    ]  # fmt: skip
    assert [str(value.type) for value in made.inputs] == [
        "i64[batch, seq] of vocab=5", "bool[batch]", "f32[seq, rest]", "i32[batch]",
    ]  # fmt: skip
    assert str(made.body.results[0].type) == "f32[rest, seq]"


def test_a_size_must_come_out_whole() -> None:
    assert code("dim third = width / 3\noutput y = x") == ["CG0205"]
    assert code("dim none = width - 4\noutput y = x") == ["CG0208"]


# ---- primes and renames


def test_a_weight_from_a_dimension_to_itself_is_primed_and_loses_its_prime() -> None:
    made = graph("output y = linear(x, width -> width)")
    assert params(made) == {"y.w": "width=4, width'=4", "y.b": "width'=4"}
    assert str(made.body.results[0].type) == "f32[batch, width=4]"
    w = initialize(made, 0)
    np.testing.assert_allclose(run(made)["y"], [[1, 2, 3, 4]] @ w["y.w"] + w["y.b"], rtol=1e-5)


def test_renaming_keeps_the_size_and_makes_an_axis_of_its_own() -> None:
    made = graph("z = x as [width -> key]\noutput y = dot(x, z)\noutput s = dot(z, x, over batch)")
    assert [str(value.type) for value in made.body.results] == [
        "f32[batch, width=4, key=4]", "f32[key=4, width=4]",
    ]  # fmt: skip
    np.testing.assert_array_equal(run(made)["y"], [np.outer([1, 2, 3, 4], [1, 2, 3, 4])])


def test_renaming_to_a_known_name_of_another_size() -> None:
    assert code("output y = x as [width -> two]") == ["CG0204"]
    assert code("output y = dot(x, x as [width -> key]) as [key -> width]") == ["CG0202"]


def test_a_call_may_give_a_dimension_of_an_argument_another_name() -> None:
    blocks = "block f(x[batch, seq]) {\nreturn running_sum(x, over seq)\n}"
    made = graph("output y = f(x, seq=width)", blocks)
    assert str(made.body.results[0].type) == "f32[batch, width=4]"
    np.testing.assert_array_equal(run(made)["y"], [[1, 3, 6, 10]])


# ---- alignment


@pytest.mark.parametrize(
    ("expression", "fits"),
    [("x + mean(x, over width)", True), ("x + p", True), ("p + q", True), ("x + q", False), ("x * x", True)],
)
def test_operands_share_all_dimensions_of_one_or_none(expression: str, fits: bool) -> None:
    body = f"param p[width] ~ zeros()\nparam q[width, two] ~ zeros()\noutput y = {expression}"
    if fits:
        assert graph(body)
    else:
        assert code(body) == ["CG0203"]


# ---- choices


def test_if_is_decided_at_compile_time() -> None:
    blocks = """
    block f(x, kind = "a", deep = false) {
        if kind == "a" and not deep {
            param only_a[width] ~ ones()
            x = x + only_a
        } else {
            param other[width] ~ ones()
            x = x - other
        }
        if layers > 2 {
            return x * 10
        }
        return x
    }"""
    made = graph('output y = f(x)\noutput z = f(x, kind="b")\noutput d = f(x, deep=true)', blocks)
    assert list(params(made)) == ["y.only_a", "z.other", "d.other"]
    got = run(made)
    np.testing.assert_array_equal(got["y"], [[20, 30, 40, 50]])
    np.testing.assert_array_equal(got["z"], [[0, 10, 20, 30]])
    made = graph("output y = f(x)", blocks, layers=2)
    np.testing.assert_array_equal(run(made)["y"], [[2, 3, 4, 5]])


def test_a_condition_is_known_at_compile_time() -> None:
    assert code("y = x\nif x > 0 {\ny = x\n}\noutput z = y") == ["CG0408"]


# ---- loops


def test_loops_carry_what_they_assign_and_see_the_rest() -> None:
    body = """
    a = x
    b = x * 0
    step = x * 2
    repeat layers as h {
        old = a
        a = a + b
        b = old + step
    }
    output first = a
    output second = b
    output seen = step"""
    x = np.array([[1.0, 2, 3, 4]])
    a, b = x, x * 0
    for _ in range(3):
        a, b = a + b, a + 2 * x
    got = run(graph(body), x)
    np.testing.assert_array_equal(got["first"], a)
    np.testing.assert_array_equal(got["second"], b)
    np.testing.assert_array_equal(got["seen"], 2 * x)


def test_parameters_of_loops_are_stacked_outermost_first() -> None:
    body = """
    repeat layers as h {
        repeat two as i {
            x = linear(x, width -> width, bias=false)
        }
        x = x * gain
        param late[width] ~ ones()
        x = x + late
    }
    output y = x""".replace("        x = x * gain\n", "")
    assert params(graph(body)) == {
        "h.i.linear.w": "layers=3, two=2, width=4, width'=4",
        "h.late": "layers=3, width=4",
    }


def test_a_loop_may_not_change_dimensions() -> None:
    assert code("repeat layers as h {\nx = mean(x, over width)\n}\noutput y = x")[0].startswith("CG02")


def test_names_of_a_loop_end_with_it() -> None:
    assert code("repeat layers as h {\ninside = x\nx = inside * 2\n}\noutput y = inside") == ["CG0301"]


# ---- paths


def test_paths_are_made_of_the_names_of_the_calls() -> None:
    blocks = """
    block pair(x) {
        q = linear(x, width -> width, bias=false)
        return q + linear(x, width -> width, bias=false) + linear(x, width -> width, bias=false)
    }"""
    body = """
    a = pair(x)
    b = pair(a) + pair(a)
    a = pair(b)
    output y = pair(a)"""
    assert [name.rsplit(".", 1)[0] for name in params(graph(body, blocks))] == [
        *("a.q", "a.linear", "a.linear_2"),
        *("pair.q", "pair.linear", "pair.linear_2"),
        *("pair_2.q", "pair_2.linear", "pair_2.linear_2"),
        *("pair_3.q", "pair_3.linear", "pair_3.linear_2"),
        *("y.q", "y.linear", "y.linear_2"),
    ]


# ---- headers


def test_defaults_use_what_stands_before_them() -> None:
    header = "width = 4, wide = 2 * width, wider = wide + width, two = 2, layers = 3"
    body = "param p[wide, wider] ~ zeros()\noutput y = x * sum(p, over wide wider)"
    assert params(graph(body, header=header))["p"] == "wide=8, wider=12"
    assert params(graph(body, header=header, width=3))["p"] == "wide=6, wider=9"
    assert params(graph(body, header=header, width=3, wide=5))["p"] == "wide=5, wider=8"


def test_defaults_of_blocks_too() -> None:
    blocks = "block f(x, a = 3, b = a * two) {\nreturn x * (100 * a + b)\n}"
    got = run(graph("output p = f(x)\noutput q = f(x, a=5)\noutput r = f(x, b=1)", blocks), [[1, 1, 1, 1]])
    assert (got["p"][0, 0], got["q"][0, 0], got["r"][0, 0]) == (306, 510, 301)


FAMILY = """
model family(width, ffn = 4 * width, name = "a") {
    input x[batch, width]
    param w[width, ffn] ~ zeros()
    output y = dot(x, w, over width)
}
model one = family(width=6, ffn=2 * width)
"""


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({}, (6, 12)), ({"width": 3}, (3, 6)), ({"ffn": 5}, (6, 5)), ({"width": 2, "ffn": 7}, (2, 7))],
)
def test_settings_replace_arguments_of_an_instance(settings: dict[str, int], shape: tuple[int, int]) -> None:
    made = program(FAMILY, **settings)
    assert made.graph.params[0].type.shape == shape
    assert dict(made.arguments) == {"width": shape[0], "ffn": shape[1], "name": "a"}
    assert (made.name, made.family) == ("one", "family")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("", "CG0401"),
        ("width=2, wdth=3", "CG0402"),
        ("width=2, width=3", "CG0402"),
        ("2", "CG0402"),
        ("width=ffn", "CG0301"),
    ],
)
def test_faulty_instances(arguments: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        elaborate_file(FAMILY + f"model two = family({arguments})\n", "t.cg")
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [fault]


def test_several_results() -> None:
    blocks = "block both(x) {\nreturn x + 1, sum(x, over width)\n}"
    body = """
    more, total = both(x)
    values, ids = top_k(x, width -> two)
    output a = more
    output b = total
    output c = values
    output d = ids"""
    got = run(graph(body, blocks), [[3, 9, 1, 7]])
    np.testing.assert_array_equal(got["a"], [[4, 10, 2, 8]])
    np.testing.assert_array_equal(got["b"], [20])
    np.testing.assert_array_equal(got["c"], [[9, 7]])
    np.testing.assert_array_equal(got["d"], [[1, 3]])
    assert code("a, b, c = both(x)\noutput y = a", blocks) == ["CG0404"]


@pytest.mark.parametrize(
    ("written", "init"),
    [
        ("normal(std=0.5)", Init("normal", std=0.5)),
        ("normal(std=1 / width, mean=two)", Init("normal", 2.0, 0.25)),
        ("truncated_normal(std=0.02)", Init("truncated_normal", std=0.02)),
        ("uniform(limit=sqrt(width))", Init("uniform", limit=2.0)),
        ("constant(value=-3)", Init("constant", -3.0)),
        ("zeros()", Init("constant", 0.0)),
        ("ones()", Init("constant", 1.0)),
    ],
)
def test_distributions(written: str, init: Init) -> None:
    assert inits(graph(f"param w[width] ~ {written}\noutput y = x * w")) == {"w": init}


# ---- files


def test_own_blocks_come_before_used_ones_and_those_before_the_prelude(tmp_path: Path) -> None:
    (tmp_path / "lib.cg").write_text("block relu(x) {\n    return x * 2\n}\nblock silu(x) {\n    return x * 3\n}\n")
    text = (
        "use lib\nmodel m(width = 4) {\n    input x[batch, width]\n"
        "    output a = relu(x)\n    output b = silu(x)\n    output c = gelu(x)\n}\n"
        "block relu(x) {\n    return x * 5\n}\n"
    )
    (made,) = elaborate_file(text, "m.cg", folder=tmp_path).programs
    got = run(made.graph, [[1, 1, 1, 1]])
    assert (got["a"][0, 0], got["b"][0, 0]) == (5, 3)
    np.testing.assert_allclose(got["c"][0, 0], 0.8413447)


def test_lookups() -> None:
    body = """
    param table[rows, width] ~ normal(std=1)
    output y = table[ids]
    output p = table[position(seq) over rows]
    logs = dot(table[ids], table, over width)
    output picked = logs[ids]"""
    text = "model m(rows = 6, width = 3) {\ninput ids[batch, seq <= rows] : id of rows\n" + body + "\n}\n"
    made = program(text).graph
    ids = np.array([[5, 0, 2]])
    table = initialize(made, 0)["table"]
    got = interpret(made, {"table": table}, {"ids": ids})
    np.testing.assert_array_equal(got["y"], table[ids])
    np.testing.assert_array_equal(got["p"], table[:3])
    np.testing.assert_allclose(got["picked"], (table[ids] ** 2).sum(-1), rtol=1e-5)


def test_where_it_stands_is_kept() -> None:
    made = graph("param w[width] ~ zeros()\ny = x * w\noutput z = y + 1")
    assert (made.params[0].location.file, made.params[0].location.line) == ("test.cg", 3)
    assert {(node.path, node.location.line) for node in made.body.nodes} >= {("y", 4)}
