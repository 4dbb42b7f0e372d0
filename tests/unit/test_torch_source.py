"""The emitted file as source: formatted, lint-clean, typed, importing little, safe against what users write."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cgc_torch import TARGET
from cgc_torch.formatting import docstring, exploded, split_arguments
from cgc_torch.live import import_source, to_torch
from cgc_torch.source import emit, model_class
from hypothesis import given
from hypothesis import strategies as st

from cgc.driver import check, load_program, write_artifacts
from cgc.program import Program
from cgc.target import CompileOptions, TargetError
from cgc.weights import initialize

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = [path.relative_to(EXAMPLES).as_posix() for path in sorted([*EXAMPLES.glob("*.cg"), *EXAMPLES.glob("*/1*m.cg")])]

AWKWARD = """
# A file whose names are hard on Python.
use std/nn

model awkward(l = 4, forward = 6, train = 2) {
    input import[batch, seq, forward]
    input Tensor[batch, seq, forward]
    param class[forward, l] ~ normal(std=0.02)
    self = import + Tensor
    repeat train as half {
        self = self + math(layer_norm(self, over forward))
    }
    torch = dot(self, class, over forward)
    output return_ = torch
    output lambda = sum(self, over forward)
}

# Ends in a quote "
block math(x[batch, seq, forward]) {
    eval = linear(x, forward -> forward, bias=false)
    type = linear(eval, forward -> forward)
    return type * max(eval, 0)
}
"""


def _emitted(folder: Path) -> list[Path]:
    files: list[Path] = []
    for name in NAMES:
        program = check(str(EXAMPLES / name), scaling="usual").programs[-1]
        files.append(folder / f"{name.replace('/', '_').removesuffix('.cg').replace('.', '_')}.py")
        files[-1].write_text(emit(program))
    (folder / "awkward.cg").write_text(AWKWARD)
    files.append(folder / "awkward_model.py")
    files[-1].write_text(emit(load_program(str(folder / "awkward.cg"), {})))
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return _emitted(tmp_path_factory.mktemp("emitted"))


def _run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_formatted_and_lint_clean(files: list[Path]) -> None:
    names = [str(file) for file in files]
    assert _run("ruff", "format", "--isolated", "--check", "--diff", *names) == ""
    chosen = "E4,E7,E9,F,I,UP,B,C4,C90,SIM,RUF,PTH,W"
    assert _run("ruff", "check", "--isolated", f"--select={chosen}", "--ignore=RUF002,RUF003", *names) == ""


def test_strictly_typed(files: list[Path], tmp_path: Path) -> None:
    """The models, and one project but for the adapter to lm-eval: the settings in its `pyproject.toml` are for that."""
    (tmp_path / "project").mkdir()
    program = load_program(str(EXAMPLES / "cerebras_gpt" / "111m.cg"), {})
    written = write_artifacts(TARGET.compile(program, CompileOptions()).artifacts, tmp_path / "project")
    project = [path for path in written if path.suffix == ".py" and path.stem != "evaluate"]
    assert _run("mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", *map(str, [*files, *project])) == ""


def test_imports_little(files: list[Path]) -> None:
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"torch", "math", "re"}
            elif isinstance(node, ast.ImportFrom):
                assert node.module in ("torch", "torch.nn", "torch.utils.checkpoint", "dataclasses", "typing")


def test_lines_fit(files: list[Path]) -> None:
    for file in files:
        assert max(map(len, file.read_text().splitlines())) <= 88


def test_awkward_names_run(tmp_path: Path) -> None:
    (tmp_path / "awkward.cg").write_text(AWKWARD)
    program = load_program(str(tmp_path / "awkward.cg"), {})
    x = torch.ones(2, 3, 6)
    result = to_torch(program)(x, x)
    assert list(result) == ["return_", "lambda"]
    assert list(result["return_"].shape) == [2, 3, 4]


def test_same_bytes_every_time() -> None:
    program = load_program(str(EXAMPLES / "gpt2_small.cg"), {})
    assert emit(program) == emit(load_program(str(EXAMPLES / "gpt2_small.cg"), {}))


def test_names_of_the_file_are_found_again() -> None:
    text = emit(load_program(str(EXAMPLES / "from_scratch.cg"), {}))
    for name in ("class LookBack(", "class Think(", "self.ask", "query =", "allowed =", "self.layer ="):
        assert name in text


def test_counts_its_parameters() -> None:
    program = load_program(str(EXAMPLES / "tiny.cg"), {})
    module = to_torch(program)
    assert module.count_parameters() == program.graph.parameter_count  # type: ignore[operator]


def test_sizes_come_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text("use std/gpt2\nmodel m = gpt2(vocab=61, context=16, layers=2, width=24, heads=3)\n")
    program = load_program(str(tmp_path / "m.cg"), {})
    module = import_source(emit(program), program.name)
    config = dataclasses.replace(module.Config(), layers=5, context=64, vocab=7, ffn=10)
    model = getattr(module, model_class(program))(config)
    assert len(model.h) == 5
    assert list(model(torch.zeros(1, 60, dtype=torch.long)).shape) == [1, 60, 7]


def test_artifacts(tmp_path: Path) -> None:
    program = load_program(str(EXAMPLES / "tiny.cg"), {})
    names = [artifact.name for artifact in TARGET.compile(program, CompileOptions()).artifacts]
    assert names[-1] == "model.py"
    weights = initialize(program.graph, 0)
    done = TARGET.compile(program, CompileOptions(weights=weights))
    for artifact in done.artifacts:
        artifact.write(tmp_path / artifact.name)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "model.safetensors"}


def test_weights_that_do_not_fit() -> None:
    program = load_program(str(EXAMPLES / "tiny.cg"), {})
    with pytest.raises(TargetError, match="no parameter"):
        TARGET.compile(program, CompileOptions(weights={}))


def test_compiling_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from cgc.driver import load_program\n"
        "from cgc.target import CompileOptions\n"
        "from cgc_torch import TARGET\n"
        f"TARGET.compile(load_program({str(EXAMPLES / 'tiny.cg')!r}, {{}}), CompileOptions())\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr == b""


@given(st.text(max_size=300))
def test_no_text_escapes_from_a_docstring(text: str) -> None:
    source = "\n".join(["def f():", *docstring(f"a{text}", 1), "    return 1"])
    tree = ast.parse(source)
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    assert [type(node) for node in function.body] == [ast.Expr, ast.Return]
    assert ast.get_docstring(function) is not None


def test_docs_and_names_of_a_program_are_only_text(tmp_path: Path) -> None:
    program = _with_doc('"""\nimport os  # \\"""\u2028 ends in \\')
    module = ast.parse(emit(program))
    assert not [node for node in ast.walk(module) if isinstance(node, ast.Import) and node.names[0].name == "os"]


def _with_doc(doc: str) -> Program:
    return dataclasses.replace(load_program(str(EXAMPLES / "tiny.cg"), {}), doc=doc, file=f"a/{doc}.cg")


def test_calls_are_broken_at_their_arguments() -> None:
    assert split_arguments('a, f(b, c), "d, e", [g, h]') == ["a", "f(b, c)", '"d, e"', "[g, h]"]
    assert exploded("x = f(a, g(b))", "  ") == ["  x = f(", "      a,", "      g(b),", "  )"]
    assert exploded("x = f(a) + 1", "") == ["x = f(a) + 1"]


def test_a_parametrization_says_why_its_numbers_are_what_they_are() -> None:
    source = emit(load_program(str(EXAMPLES / "cerebras_gpt" / "111m_mup.cg")))
    for said in (
        "# std / sqrt(m) with m = 3",
        "# std / sqrt(branches * m) with m = 3, branches = 20",
        "logits            * 0.333333  1 / m with m = 3",
        "# hidden: lr / m with m = 3",
    ):
        assert said in source
    assert "Multipliers" not in emit(load_program(str(EXAMPLES / "tiny.cg")))


def test_settings_other_than_the_rate_have_their_reason_too(tmp_path: Path) -> None:
    text = (EXAMPLES / "cerebras_gpt" / "111m_mup.cg").read_text(encoding="utf-8")
    deep = text.replace("heads from 4", "heads from 4, layers from 5")
    (tmp_path / "deep.cg").write_text(deep.replace("mup {", "mup {\n    parametrization = completep\n"))
    source = emit(load_program(str(tmp_path / "deep.cg")))
    assert "#     eps: " in source
    assert "#     weight_decay: " in source
