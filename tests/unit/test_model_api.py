"""The Python API: `cgc.load`, and everything one does with a model."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import cgc
from cgc.driver import Timings, UsageError, write_artifacts
from cgc.interpret import BadInput, interpret
from cgc.target import Artifact, text_artifact
from cgc.version import VERSION
from cgc.weights import initialize

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples/tiny.cg"


def small() -> cgc.Model:
    return cgc.load(TINY, layers=2, width=8, heads=2, vocab=11)


def test_load() -> None:
    model = cgc.load(str(TINY))
    assert (model.program.name, model.program.family) == ("tiny", "gpt2")
    assert model.graph is model.program.graph
    assert model.parameter_count == 834_304
    assert list(model) == list(model.params) == list(model.graph.params)
    assert repr(model) == "<cgc model tiny: 834,304 parameters>"
    assert cgc.__version__ == VERSION


def test_sizes_are_replaced() -> None:
    sizes = dict(small().program.arguments)
    assert {name: sizes[name] for name in ("layers", "width", "heads", "vocab", "ffn", "context")} == {
        "layers": 2, "width": 8, "heads": 2, "vocab": 11, "ffn": 32, "context": 64,
    }  # fmt: skip
    assert dict(cgc.load(TINY, activation="silu", std=0.5).program.arguments)["activation"] == "silu"


def test_faults_are_an_input_error_with_diagnostics(tmp_path: Path) -> None:
    with pytest.raises(cgc.InputError) as caught:
        cgc.load(tmp_path / "missing.cg")
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["CG0001"]
    bad = tmp_path / "bad.cg"
    bad.write_text("model m(width = 8) {\n    input x[batch, width]\n    output y = x + nothing + none\n}\n")
    with pytest.raises(cgc.InputError, match="CG0301") as caught:
        cgc.load(bad)
    assert caught.value.diagnostics[0].location.line == 3
    assert str(bad) in caught.value.sources
    with pytest.raises(cgc.InputError):
        cgc.load(TINY, width=10)
    with pytest.raises(UsageError, match="wdth"):
        cgc.load(TINY, wdth=10)


def test_choosing_a_model(tmp_path: Path) -> None:
    text = "model {}(width = 8) {{\n    input x[batch, width]\n    output y = x + {}\n}}\n"
    both = tmp_path / "both.cg"
    both.write_text(text.format("one", 1) + text.format("two", 2))
    assert cgc.load(both, model="two").program.name == "two"
    with pytest.raises(cgc.InputError, match="several models"):
        cgc.load(both)
    with pytest.raises(UsageError, match="did you mean `two`"):
        cgc.load(both, model="twoo")


def test_initialize_and_run() -> None:
    model = small()
    weights = model.initialize(3)
    assert weights.keys() == {param.name for param in model}
    for name, array in initialize(model.graph, 3).items():
        np.testing.assert_array_equal(weights[name], array)
    tokens = np.array([[1, 2, 10], [0, 0, 5]])
    got = model.run(weights, tokens=tokens)
    assert got["logits"].shape == (2, 3, 11)
    np.testing.assert_array_equal(got["logits"], interpret(model.graph, weights, {"tokens": tokens})["logits"])
    with pytest.raises(BadInput, match="`tokens` is missing"):
        model.run(weights)
    with pytest.raises(BadInput, match="index outside"):
        model.run(weights, tokens=tokens + 1)


def test_a_causal_model_does_not_look_ahead() -> None:
    model = small()
    weights = model.initialize()
    tokens = np.arange(6)[None]
    longer = model.run(weights, tokens=np.concatenate([tokens, [[9, 9]]], 1))["logits"]
    np.testing.assert_allclose(model.run(weights, tokens=tokens)["logits"], longer[:, :6], atol=1e-5)


def test_to_networkx() -> None:
    net = small().to_networkx()
    assert net.name == "tiny"
    assert {"input:tokens", "param:h.attention.q.w", "output:logits"} <= set(net.nodes)
    assert net.nodes["param:wte"]["op"] == "param"


def test_compile_writes_into_a_new_folder(tmp_path: Path) -> None:
    paths = small().compile("torch", tmp_path / "a" / "b", weights=small().initialize())
    assert paths and all(path.is_file() for path in paths)
    assert set((tmp_path / "a/b").iterdir()) == set(paths)


def test_compile_takes_the_options_of_the_command(tmp_path: Path) -> None:
    model = cgc.load(TINY, layers=2, width=32, heads=2, vocab=11)
    weights = model.initialize(1)
    paths = model.compile("onnx", tmp_path, weights=weights, kv_cache=True, runtime="ort", quantize="int8", block=16)
    assert {path.name for path in paths} >= {"model.onnx", "model.onnx.data", "genai_config.json"}
    by_seed = model.compile("onnx", tmp_path / "seed", seed=1, kv_cache=True, runtime="ort", quantize="int8", block=16)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in by_seed]
    with pytest.raises(UsageError, match="--kv-cache"):
        model.compile("torch", tmp_path / "torch", kv_cache=True)
    with pytest.raises(TypeError, match="kvcache"):
        model.compile("onnx", tmp_path / "torch", kvcache=True)
    assert not (tmp_path / "torch").exists()


def test_tables_for_terminals_and_notebooks() -> None:
    model = small()
    stream = io.StringIO()
    Console(file=stream, width=200).print(model)
    html = model._repr_html_()
    for param in model:
        assert param.name in stream.getvalue()
        assert f"<code>{param.name}</code>" in html
    assert html.count("<tr>") == len(model.params) + 1
    assert f"{model.parameter_count:,}" in html and f"{model.parameter_count:,}" in stream.getvalue()


def test_importing_costs_nothing_and_unknown_names_are_attribute_errors() -> None:
    code = "import sys, cgc; print(sorted({'numpy', 'lark', 'rich', 'torch', 'click'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout == "[]\n"
    assert set(cgc.__all__) == {"InputError", "Model", "__version__", "load", "load_device"}
    assert all(getattr(cgc, name) is not None for name in cgc.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = cgc.nothing


def test_artifacts_are_written_all_or_not_at_all(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("old")
    artifacts = (text_artifact("a.txt", "new\n"), Artifact("b.txt", broken))
    with pytest.raises(cgc.InputError, match=r"CG0004: cannot write to .*No space left on device"):
        write_artifacts(artifacts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
    assert write_artifacts(artifacts[:1], tmp_path) == [tmp_path / "a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"new\n"


def test_an_artifact_that_fails_otherwise_leaves_nothing(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_artifacts((Artifact("b.txt", broken),), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_timings_add_up_by_name() -> None:
    timings = Timings()
    for name in ("a", "b", "a"):
        with timings.stage(name):
            pass
    assert list(timings.seconds) == ["a", "b"]
    assert all(seconds >= 0 for seconds in timings.seconds.values())
    with pytest.raises(KeyError), timings.stage("c"):
        raise KeyError
    assert "c" in timings.seconds
