"""The model file: what it says about itself, its options, and that it is the same every time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cgc_onnx import TARGET
from cgc_onnx.capabilities import IR_VERSIONS, NEWEST
from cgc_onnx.evaluate import onnxruntime_evaluator, write
from cgc_onnx.writer import DOMAIN

from cgc.driver import load_program
from cgc.interpret import interpret
from cgc.program import Program
from cgc.target import CompileOptions, Target, TargetError
from cgc.version import VERSION
from cgc.weights import initialize

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {"vocab": 31, "context": 8, "layers": 2, "width": 12, "heads": 3}


@pytest.fixture(scope="module")
def program() -> Program:
    return load_program(str(EXAMPLES / "tiny.cg"), SMALL)


def _weights(program: Program) -> dict[str, np.ndarray[Any, Any]]:
    return initialize(program.graph, 0)


def _model(program: Program, options: CompileOptions, folder: Path) -> onnx.ModelProto:
    return onnx.load(str(write(program, options, folder)), load_external_data=False)


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_target_is_a_target() -> None:
    target: Target = TARGET
    assert target.name == "onnx"


def test_model_says_what_made_it(program: Program, tmp_path: Path) -> None:
    model = _model(program, CompileOptions(), tmp_path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["cgc.model"] == "tiny"
    assert metadata["cgc.file"].endswith("examples/tiny.cg")
    assert metadata["cgc.version"] == model.producer_version == VERSION
    assert model.ir_version == IR_VERSIONS[NEWEST]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": NEWEST, DOMAIN: 1}


def test_sizes_of_inputs_and_outputs_have_names(program: Program, tmp_path: Path) -> None:
    graph = _model(program, CompileOptions(weights=_weights(program)), tmp_path).graph
    assert [(value.name, _sizes(value)) for value in graph.input] == [("tokens", ["batch", "seq"])]
    assert [(value.name, _sizes(value)) for value in graph.output] == [("logits", ["batch", "seq", 31])]
    assert [dim.denotation for dim in graph.output[0].type.tensor_type.shape.dim] == ["batch", "seq", "vocab"]


@pytest.mark.parametrize("flat", [False, True])
def test_fixed_sizes(program: Program, flat: bool, tmp_path: Path) -> None:
    options = CompileOptions(batch=2, seq=5, flat=flat, weights=_weights(program))
    model = _model(program, options, tmp_path)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert _sizes(model.graph.input[0]) == [2, 5]
    assert _sizes(model.graph.output[0]) == [2, 5, 31]
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert not [node for node in nodes if node.op_type == "Shape"]


@pytest.mark.parametrize("flat", [False, True])
def test_bytes_are_the_same_every_time(program: Program, flat: bool, tmp_path: Path) -> None:
    contents = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        write(program, CompileOptions(flat=flat, weights=_weights(program)), folder)
        contents.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert len(contents[0]) == 2
    assert contents[0] == contents[1]


def test_nodes_know_their_source_line(program: Program, tmp_path: Path) -> None:
    model = _model(program, CompileOptions(), tmp_path)
    sources = {node.op_type: entry.value for node in model.graph.node for entry in node.metadata_props}
    assert sources["h"].startswith("std/gpt2.cg:")
    assert all(function.doc_string for function in model.functions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CompileOptions(seq=9), "`seq` = 9 is beyond `context` = 8"),
        (CompileOptions(weights={}), "the weights have no `wte`"),
    ],
)
def test_options_that_do_not_fit(program: Program, options: CompileOptions, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        TARGET.compile(program, options)


def test_size_that_the_model_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "m.cg"
    path.write_text("model m(width = 6) {\n    input x[seq, width]\n    output y = x + x\n}\n", encoding="utf-8")
    with pytest.raises(TargetError, match="no size `batch`"):
        TARGET.compile(load_program(str(path)), CompileOptions(batch=2))


def test_thirteen_billion_parameters_without_weights_are_quick_and_small(tmp_path: Path) -> None:
    program = load_program(str(EXAMPLES / "cerebras_gpt" / "13b.cg"))
    start = time.perf_counter()
    write(program, CompileOptions(), tmp_path)
    assert time.perf_counter() - start < 1
    assert (tmp_path / "model.onnx").stat().st_size < 500_000
    code = (
        "from pathlib import Path\n"
        "from cgc.driver import load_program\n"
        "from cgc.target import CompileOptions\n"
        "from cgc_onnx.evaluate import write\n"
        f"program = load_program({str(EXAMPLES / 'cerebras_gpt' / '13b.cg')!r})\n"
        f"write(program, CompileOptions(), Path({str(tmp_path)!r}))\n"
        # Of this process alone: the operating system's other figure starts with the parent's.
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert peak < 200 << 10


def test_the_package_imports_without_onnx() -> None:
    code = "import sys, cgc_onnx; assert not {'onnx', 'numpy', 'onnxruntime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loop_or_block_may_be_called_as_an_operator_is(tmp_path: Path) -> None:
    """ONNX Runtime takes any node called `Constant` for the operator, also a call of a function."""
    path = tmp_path / "m.cg"
    path.write_text(
        "model m(width = 4) {\n    input x[batch, width]\n    y = Constant(x)\n    z = x\n"
        "    repeat 2 as Loop {\n        y = linear(y, width -> width)\n        z = z + y\n    }\n"
        "    repeat 2 as Constant {\n        y = linear(y, width -> width)\n        z = z + y\n    }\n"
        "    output a = y\n    output b = z\n}\n\n"
        "block Constant(x) {\n    param w[width] ~ ones()\n    return x * w\n}\n",
        encoding="utf-8",
    )
    program = load_program(str(path))
    weights = initialize(program.graph, 0)
    inputs = {"x": np.ones((2, 4), np.float32)}
    found = onnxruntime_evaluator(program)(weights, inputs)
    for name, wanted in interpret(program.graph, weights, inputs).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)
