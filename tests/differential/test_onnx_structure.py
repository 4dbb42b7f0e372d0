"""Calls, repeats and how their parameters are stored, in both runtimes, as functions and flat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx_programs import BATCH, KEY, SEQ, Body, build, check_file, compare_at, function, params_of, sample, tensor

from cgc.cli import main
from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, add, symbol
from cgc.ir.graph import Value
from cgc.ir.ops import Binary, Call, Concat, Dot, Position, Reduce, Rename, Repeat, Slice, Transpose
from cgc.program import Program

WIDTH, HEADS, HEAD, LAYERS, INNER = Dim("width", 6), Dim("heads", 3), Dim("head", 2), Dim("layers", 3), Dim("g", 2)
X = tensor(BATCH, SEQ, WIDTH)


def _project(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
    (x,), (w, b) = inputs, params
    return [builder.one(Binary("add"), builder.one(Dot(("width",)), x, w), b)]


def _back(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
    return [builder.one(Dot(("heads", "head")), inputs[0], params[0])]


PROJECT = function("project", _project, {"x": X}, {"w": tensor(WIDTH, HEADS, HEAD), "b": tensor(HEADS, HEAD)})
BACK = function("back", _back, {"x": tensor(BATCH, SEQ, HEADS, HEAD)}, {"w": tensor(HEADS, HEAD, WIDTH)})


def _block(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
    q = builder.one(Call("project", "q", 1), inputs[0], *params[:2], wish="q")
    return [builder.one(Call("back", "out", 1), q, params[2], wish="out")]


BLOCK = function(
    "block",
    _block,
    {"x": X},
    {"q.w": tensor(WIDTH, HEADS, HEAD), "q.b": tensor(HEADS, HEAD), "out.w": tensor(HEADS, HEAD, WIDTH)},
    (PROJECT, BACK),
)


def _layer(builder: Builder) -> Repeat:
    body = builder.region()
    x = body.value("x", X)
    params = [body.value(f"attention_{param.name.replace('.', '_')}", param.type) for param in BLOCK.params]
    out = body.one(Call("block", "attention", 1), x, *params, wish="attention")
    result = body.one(Binary("add"), x, out, wish="x")
    return Repeat("h", LAYERS, 1, 0, body.finish((x, *params), (result,)))


def _model(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
    return builder.add(_layer(builder), inputs[0], *params, wish="x")


def model() -> Program:
    """Return a model of three layers, each a block that calls two blocks."""
    params = {f"h.attention.{param.name}": tensor(LAYERS, *param.type.dims) for param in BLOCK.params}
    return build(_model, {"tokens": X}, params, (PROJECT, BACK, BLOCK))


@pytest.mark.parametrize("seed", [0, 1])
def test_layers_of_blocks(seed: int) -> None:
    compare_at(model(), seed)


@pytest.mark.parametrize("flat", [False, True])
def test_layers_are_stored_one_by_one_as_matrices(flat: bool, tmp_path: Path) -> None:
    program = model()
    weights = sample(params_of(program), {}, np.random.default_rng(0))
    file = check_file(program, tmp_path, flat=flat, weights=weights)
    stored = {tensor.name: list(tensor.dims) for tensor in file.graph.initializer}
    assert stored == {
        name: shape
        for layer in range(3)
        for name, shape in (
            (f"h.{layer}.attention.q.w", [6, 6]),
            (f"h.{layer}.attention.q.b", [6]),
            (f"h.{layer}.attention.out.w", [6, 6]),
        )
    }


def test_functions_are_the_users_blocks(tmp_path: Path) -> None:
    file = check_file(model(), tmp_path)
    assert [function.name for function in file.functions] == ["project", "back", "block", "h"]
    assert [node.name for node in file.graph.node] == ["h.0", "h.1", "h.2"]
    block, layer = file.functions[2:]
    assert [node.name for node in block.node] == ["q", "out"]
    assert [node.name for node in layer.node if node.domain] == ["attention"]
    assert list(layer.input) == ["x", "attention.q.w", "attention.q.b", "attention.out.w"]
    assert "What block is for." in block.doc_string


def test_flat_nodes_have_full_paths(tmp_path: Path) -> None:
    file = check_file(model(), tmp_path, flat=True)
    assert not file.functions
    assert not [node for node in file.graph.node if node.domain]
    assert any(node.name.startswith("h.2.attention.q.") for node in file.graph.node)


def test_without_weights_parameters_are_inputs(tmp_path: Path) -> None:
    file = check_file(model(), tmp_path)
    names = [value.name for value in file.graph.input]
    assert names[0] == "tokens"
    assert names[1:4] == ["h.0.attention.q.w", "h.1.attention.q.w", "h.2.attention.q.w"]
    assert not file.graph.initializer
    assert not (tmp_path / "model.onnx.data").exists()


def test_nested_repeats() -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        outer = builder.region()
        x, bias = outer.value("x", X), outer.value("bias", tensor(WIDTH))
        ws, scale = outer.value("g.w", tensor(INNER, WIDTH, WIDTH_2)), outer.value("scale", tensor(WIDTH))
        inner = outer.region()
        z, shift, w = inner.value("z", X), inner.value("shift", tensor(WIDTH)), inner.value("w", tensor(WIDTH, WIDTH_2))
        y = inner.one(Rename((("width_2", "width"),)), inner.one(Dot(("width",)), z, w))
        y = inner.one(Binary("add"), y, shift)
        loop = Repeat("g", INNER, 1, 1, inner.finish((z, shift, w), (y,)))
        y = outer.one(Binary("mul"), outer.one(loop, x, bias, ws), scale)
        loop = Repeat("h", LAYERS, 1, 1, outer.finish((x, bias, ws, scale), (y,)))
        return builder.add(loop, inputs[0], params[0], *params[1:])

    params = {
        "bias": tensor(WIDTH),
        "h.g.w": tensor(LAYERS, INNER, WIDTH, WIDTH_2),
        "h.scale": tensor(LAYERS, WIDTH),
    }
    program = build(body, {"x": X}, params)
    compare_at(program, 0)


WIDTH_2 = Dim("width_2", 6)


def test_nested_repeats_name_both_indices(tmp_path: Path) -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        outer = builder.region()
        x, ws = outer.value("x", X), outer.value("h_g_w", tensor(INNER, WIDTH))
        inner = outer.region()
        z, w = inner.value("z", X), inner.value("w", tensor(WIDTH))
        loop = Repeat("g", INNER, 1, 0, inner.finish((z, w), (inner.one(Binary("add"), z, w),)))
        loop = Repeat("h", LAYERS, 1, 0, outer.finish((x, ws), (outer.one(loop, x, ws),)))
        return builder.add(loop, inputs[0], *params)

    program = build(body, {"x": X}, {"h.g.w": tensor(LAYERS, INNER, WIDTH)})
    file = check_file(program, tmp_path, weights=sample(params_of(program), {}, np.random.default_rng(0)))
    assert [tensor.name for tensor in file.graph.initializer][1:3] == ["h.0.g.1.w", "h.1.g.0.w"]
    assert {function.name: list(function.input[1:]) for function in file.functions} == {
        "h": ["g.0.w", "g.1.w"],
        "g": ["w"],
    }
    compare_at(program, 1)


def test_carried_values_that_change_places() -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        region = builder.region()
        a, b, c = (region.value(name, X) for name in "abc")
        total = region.one(Binary("add"), region.one(Binary("mul"), a, b), c)
        loop = Repeat("steps", LAYERS, 2, 1, region.finish((a, b, c), (b, total)))
        return builder.add(loop, *inputs)

    compare_at(build(body, dict.fromkeys("abc", X)), 0)


def test_stack_that_is_computed_is_cut_at_run_time() -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        doubled = builder.one(Binary("add"), params[0], params[0])
        layer = _layer(builder)
        return builder.add(layer, inputs[0], doubled, *params[1:])

    params = {f"h.attention.{param.name}": tensor(LAYERS, *param.type.dims) for param in BLOCK.params}
    compare_at(build(body, {"x": X}, params, (PROJECT, BACK, BLOCK)), 0)


def test_parameter_with_two_uses_is_stored_as_declared() -> None:
    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        q = builder.one(Call("project", "q", 1), inputs[0], *params)
        return [builder.one(Binary("add"), q, builder.one(Reduce("sum", ("width",)), params[0]))]

    params = {"q.w": tensor(WIDTH, HEADS, HEAD), "q.b": tensor(HEADS, HEAD)}
    compare_at(build(body, {"x": X}, params, (PROJECT,)), 0)


def _distances(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
    """A function no argument of which has the symbol it needs."""
    double = Dim("double", add(symbol("seq"), symbol("seq")))
    distance = builder.one(Binary("sub"), builder.one(Position(KEY)), builder.one(Position(SEQ)))
    return [distance, builder.one(Position(double)), builder.one(Binary("add"), inputs[0], inputs[0])]


DISTANCES = function("distances", _distances, {"a": tensor(WIDTH)})


def _outer(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
    return builder.add(Call("distances", "inner", 1), inputs[0])[:2]


def test_functions_without_an_argument_of_that_size() -> None:
    outer = function("outer", _outer, {"a": tensor(WIDTH)}, known=(DISTANCES,))

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        return builder.add(Call("outer", "far", 1), inputs[1])

    compare_at(build(body, {"x": X, "a": tensor(WIDTH)}, functions=(DISTANCES, outer)), 0)


def test_function_that_returns_its_argument_and_one_value_twice() -> None:
    def both(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        y = builder.one(Transpose(("width", "seq", "batch")), inputs[0])
        total = builder.one(Binary("mul"), y, params[0])
        return [inputs[0], y, total, total, params[0]]

    inner = function("both", both, {"x": X}, {"w": tensor(WIDTH)})

    def body(builder: Builder, inputs: Sequence[Value], params: Sequence[Value]) -> Sequence[Value]:
        return builder.add(Call("both", "both", 1), inputs[0], params[0])

    compare_at(build(body, {"x": X}, {"both.w": tensor(WIDTH)}, (inner,)), 0)


def _sized(body: Body) -> Program:
    return build(body, {"x": tensor(BATCH, SEQ, WIDTH)})


def test_sizes_that_are_computed() -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        twice = builder.one(Concat(("seq", "seq"), "twice"), inputs[0], inputs[0])
        half = Dim("half", symbol("seq"))
        second = builder.one(Slice("twice", symbol("seq"), half), twice)
        flat = builder.one(Dot(("width",)), twice, builder.one(Rename((("half", "other"),)), second))
        return [twice, second, flat]

    compare_at(_sized(body), 2)


@pytest.mark.parametrize(
    ("made", "name"), [("output embed = embed[ids]", "embed_out"), ("output ids = ids", "ids_out")]
)
def test_an_output_called_as_an_input_or_a_parameter(made: str, name: str, tmp_path: Path) -> None:
    source = "model a(vocab = 16, w = 4) {\n    input ids[batch, seq] : id of vocab\n"
    source += "    param embed[vocab, w] ~ normal(std=1)\n"
    (tmp_path / "m.cg").write_text(f"{source}    {made}\n    output other = embed[ids] * 2\n}}\n")
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(main, words).exit_code == 0
    loaded = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in loaded.get_outputs()] == [name, "other"]
    run = CliRunner().invoke(main, ["verify", str(tmp_path / "m.cg"), "--target", "onnx"])
    assert run.exit_code == 0, run.output
