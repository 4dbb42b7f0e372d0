"""The emitted project as source: files, style, types, and the numbers that it takes from the `train` item."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cgc_torch import TARGET
from cgc_torch.live import import_source
from cgc_torch.project import project_files
from cgc_torch.project.run import NoTraining, planned
from cgc_torch.source import emit
from emitted_projects import write_project

from cgc.driver import load_program
from cgc.program import Program
from cgc.target import CompileOptions
from cgc.training_run import training_run

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = ["tiny.cg", "transfer_mup.cg", "cerebras_gpt/111m_mup.cg", "from_scratch.cg", "llama_8b.cg"]

ODD = """use std/gpt2

model a_model_with_quite_a_long_name_that_people_would_not_choose_but_which_is_allowed = gpt2(
    vocab=60000, context=32, layers=1, width=32, heads=2, tied=false
)

train {
    tokens    = 100K tokens
    batch     = 1000 tokens
    lr        = 1e-3
    schedule  = SCHEDULE
    precision = PRECISION
    seed      = 7
}
"""
SCHEDULES = [
    "warmup(10 steps)",
    "constant",
    "cosine",
    "linear(to=0.2)",
    "warmup(2K tokens) then constant(20 steps) then linear(30 steps, to=0.5) then cosine(to=0.1)",
    "warmup(10 steps) then linear(20 steps, to=0.1)",
    "cosine(20 steps, to=0.3) then constant",
]


def _odd(folder: Path, schedule: str = "cosine", precision: str = "bf16") -> Program:
    path = folder / "odd.cg"
    path.write_text(ODD.replace("SCHEDULE", schedule).replace("PRECISION", precision))
    return load_program(str(path), {})


def _files(program: Program) -> dict[str, str]:
    made = planned(program)
    return project_files(program, made)


def _run(*command: str, folder: Path) -> str:
    """Run a tool in a project's folder, as its owner would, and return what it complains of."""
    line = [sys.executable, "-m", *command]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _written(folder: Path) -> list[Path]:
    folders = [folder / "odd", folder / "plain"]
    write_project(folders[0], ODD.replace("SCHEDULE", SCHEDULES[4]).replace("PRECISION", "bf16"))
    write_project(folders[1], ODD.replace("SCHEDULE", "constant").replace("PRECISION", "f32"))
    for index, name in enumerate(KINDS):
        folders.append(folder / str(index))
        write_project(folders[-1], (EXAMPLES / name).read_text())
    return folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return _written(tmp_path_factory.mktemp("projects"))


def test_formatted_and_lint_clean(folders: list[Path]) -> None:
    for folder in folders:
        assert _run("ruff", "format", "--isolated", "--check", "--diff", ".", folder=folder) == ""
        chosen = "E4,E7,E9,F,I,UP,B,C4,C90,SIM,RUF,PTH,W,D1"
        ignored = "--ignore=RUF002,RUF003,D105,D107"
        assert _run("ruff", "check", "--isolated", f"--select={chosen}", ignored, ".", folder=folder) == ""


@pytest.mark.slow
def test_strictly_typed(folders: list[Path], tmp_path: Path) -> None:
    """With and without bf16. By default `test_torch_source` checks one project together with the models."""
    for folder in folders[:2]:
        assert _run("mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", ".", folder=folder) == ""


def test_imports_torch_and_numpy_only(folders: list[Path]) -> None:
    own = {file.stem for file in folders[0].glob("*.py")}
    for file in folders[0].glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                known = {"torch", "numpy", *own, *(["lm_eval"] if file.stem == "evaluate" else [])}
                assert root in known or root in sys.stdlib_module_names, (file, name)


def test_no_switch_that_does_nothing(folders: list[Path]) -> None:
    """Without clipping or bf16 in the item there is no code for them, and nothing of the templates' marks is left."""
    texts = [(folder / "train.py").read_text() for folder in folders[:3]]
    assert "autocast" in texts[0]
    assert "autocast" not in texts[1]
    assert "clip" not in texts[1]
    assert "get_total_norm" in texts[1]
    assert "clip_grad_norm_" in texts[2]
    for folder in folders:
        for file in (path for path in folder.iterdir() if path.is_file()):
            text = file.read_text()
            assert "#: " not in text or file.suffix == ".cg", file
            assert "@IMPORT@" not in text


def test_files_and_report() -> None:
    program = load_program(str(EXAMPLES / "tiny.cg"), {})
    done = TARGET.compile(program, CompileOptions())
    names = [artifact.name for artifact in done.artifacts]
    assert names[-1] == "model.py"
    assert {"train.py", "data.py", "README.md", "pyproject.toml", "checkpoint.py"} <= set(names)
    assert _files(program) == _files(load_program(str(EXAMPLES / "tiny.cg"), {}))


def _schedule(program: Program) -> ModuleType:
    """Import the schedule and the recipe, which need nothing of the other files."""
    text = _files(program)["train.py"]
    tree = ast.parse(text)
    kept = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    wanted = [node for node in kept if node.name in ("Recipe", "schedule")]
    source = "import math\nfrom dataclasses import dataclass\n\n" + "\n\n".join(map(ast.unparse, wanted))
    return import_source(source, "recipe")


@pytest.mark.parametrize("written", SCHEDULES)
def test_the_schedule_is_that_of_the_run(written: str, tmp_path: Path) -> None:
    program = _odd(tmp_path, written)
    run = training_run(program)
    emitted = _schedule(program)
    assert emitted.Recipe().steps == run.steps == 101
    for step in (*range(run.steps), run.steps + 30):
        assert emitted.schedule(step, run.steps) == pytest.approx(run.rate(step), abs=1e-12), step


def test_amounts_become_steps_and_sequences(tmp_path: Path) -> None:
    recipe = _schedule(_odd(tmp_path)).Recipe()
    assert (recipe.vocab, recipe.context, recipe.seed) == (60000, 32, 7)
    assert recipe.batch == 31  # 1000 tokens in sequences of 32
    assert not hasattr(recipe, "clip")


def test_what_the_file_leaves_open_is_assumed_and_said(tmp_path: Path) -> None:
    made = planned(load_program(str(EXAMPLES / "from_scratch.cg"), {}))
    assert made.assumed == {"tokens", "optimizer", "clip", "learning_rate", "batch", "schedule"}
    text = _files(load_program(str(EXAMPLES / "from_scratch.cg"), {}))
    assert "assumed" in text["train.py"]
    assert "`batch`" in text["README.md"]
    assert planned(load_program(str(EXAMPLES / "tiny.cg"), {})).assumed == frozenset()


def test_flops_are_those_of_the_products() -> None:
    """By hand for tiny: 2 operations for each weight and token, scores and values, three times."""
    vocab, context, layers, width = 256, 64, 4, 128
    weights = layers * 12 * width * width + vocab * width
    scores = layers * 2 * context * width
    assert planned(load_program(str(EXAMPLES / "tiny.cg"), {})).flops_per_token == 3 * 2 * (weights + scores)


@pytest.mark.parametrize(
    ("change", "why"),
    [("precision", "f16"), ("optimizer", "AdamW only")],
)
def test_what_it_cannot_train_gets_the_model_alone(change: str, why: str, tmp_path: Path) -> None:
    program = _odd(tmp_path, precision="f16" if change == "precision" else "f32")
    if change == "optimizer":
        assert program.train is not None
        source = (tmp_path / "odd.cg").read_text().replace("    seed ", "    optimizer = sgd(momentum=0.9)\n    seed ")
        (tmp_path / "odd.cg").write_text(source)
        program = load_program(str(tmp_path / "odd.cg"), {})
    with pytest.raises(NoTraining, match=why):
        planned(program)
    done = TARGET.compile(program, CompileOptions())
    assert [artifact.name for artifact in done.artifacts] == ["model.py"]
    assert why in str(done.report)


def test_no_language_model_no_training(tmp_path: Path) -> None:
    (tmp_path / "m.cg").write_text(
        "use std/nn\n\nmodel m(width = 8) {\n    input x[batch, width]\n    output y = linear(x, width -> width)\n}\n"
    )
    with pytest.raises(NoTraining):
        planned(load_program(str(tmp_path / "m.cg"), {}))


def test_rates_follow_from_what_is_assumed() -> None:
    """A model with `mup` and no `train` item gets the assumed weight decay, at the rates of its own table."""
    program = load_program(str(EXAMPLES / "transfer_mup.cg"), {})
    assert program.train is None
    assert planned(program).rate == 8e-3
    model = emit(planned(program).program)
    assert "betas=(0.9, 0.95)" in model
    assert '"weight_decay": 0.1' in model
    assert "configure_optimizers(self, learning_rate: float = 0.008)" in model
