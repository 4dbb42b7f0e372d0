"""Nothing is lost: runs that are killed, checkpoints that are damaged or of another run, losses that are no numbers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
from emitted_projects import environment, run, small_project

KILLED_RUNS = Path(__file__).with_name("killed_runs.py")
STEPS = 40
OFTEN = ["--save-every", "1", "--validate-every", "10"]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return what a run logged, without how fast it was."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project(tmp_path_factory.mktemp("project"), STEPS)


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    """A run that nobody disturbed."""
    done = run(project, "train.py", "--out", "whole", *OFTEN)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return project / "whole"


def _killed(project: Path, whole: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill a run at `kills` points; it has to end with the log of the undisturbed one, bit for bit."""
    out = f"killed_{kills}_{seed}"
    command = [sys.executable, str(KILLED_RUNS), str(kills), str(seed), out, *OFTEN]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (project / f"{out}.txt").read_text()
    assert entries(project / out) == entries(whole)
    assert sorted(path.name for path in (project / out).glob("step_*")) == ["step_00000039", "step_00000040"]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_at_three_points(project: Path, whole: Path) -> None:
    assert _killed(project, whole, 3, 0)["kills"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_twenty_points(project: Path, whole: Path, seed: int) -> None:
    found = _killed(project, whole, 20, seed)
    assert found["kills"] == 20
    assert found["in_a_save"] >= 5
    assert len(set(found["starts"])) > 5


def _fails(project: Path, out: Path, *arguments: str) -> str:
    """Return what a run says that has to stop: one line, and no traceback."""
    done = run(project, "train.py", "--out", str(out), *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("train.py: "), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_damaged_and_foreign_checkpoints(project: Path, whole: Path, tmp_path: Path) -> None:
    """Each in a process of its own would take long: all checks are those of `checkpoint.load`, called once each."""
    copies = {}
    for name in ("flipped", "short", "manifest", "missing", "list", "stepless", "unknown"):
        copies[name] = tmp_path / name
        shutil.copytree(whole, copies[name])
    last = {name: copy / "step_00000040" for name, copy in copies.items()}
    tensors = bytearray((last["flipped"] / "__0_0.distcp").read_bytes())
    tensors[len(tensors) // 2] ^= 1
    (last["flipped"] / "__0_0.distcp").write_bytes(tensors)
    (last["short"] / ".metadata").write_bytes((last["short"] / ".metadata").read_bytes()[:-10])
    (last["manifest"] / "manifest.json").write_text('{"step": 40')
    (last["missing"] / "__0_0.distcp").unlink()
    (last["list"] / "manifest.json").write_text("[]")
    described = json.loads((whole / "step_00000040" / "manifest.json").read_text())
    (last["stepless"] / "manifest.json").write_text(json.dumps({**described, "step": None}))
    (last["unknown"] / "manifest.json").write_text(json.dumps({**described, "sha256": {}}))
    code = """
import sys, json
from pathlib import Path
from subprocess import PIPE
import checkpoint
for line in sys.stdin:
    path, run = json.loads(line)
    try:
        checkpoint.load(Path(path), None, None, run)
    except checkpoint.CheckpointError as error:
        print(str(error).replace("\\n", " "))
"""
    own = json.loads((whole / "step_00000040" / "manifest.json").read_text())["run"]
    asked = [[str(path), own] for path in last.values()] + [[str(whole / "step_00000040"), {**own, "batch": 9}]]
    lines = "".join(json.dumps(question) + "\n" for question in asked)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment(),
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    flipped, short, manifest, missing, *others, foreign = done.stdout.splitlines()
    assert "__0_0.distcp is corrupt" in flipped
    assert "step_00000039" in flipped, "what to go on from"
    assert ".metadata is corrupt" in short
    assert "is no whole checkpoint" in manifest
    assert "is no whole checkpoint" in missing
    assert len(others) == 3 and all("is no whole checkpoint" in said for said in others)
    assert "is of another run: batch is 8 there, 9 here" in foreign


def test_what_lies_beside_checkpoints_is_none(whole: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole / "step_best").mkdir()
    (whole / "step_notes.txt").touch()
    code = "import pathlib, sys, checkpoint, weights\n"
    code += "print(*{found(pathlib.Path(sys.argv[1])).name for found in (checkpoint.latest, weights.last_checkpoint)})"
    done = run(project, "-c", code, str(whole))
    (whole / "step_best").rmdir()
    (whole / "step_notes.txt").unlink()
    assert (done.stdout, done.stderr) == ("step_00000040\n", "")


def test_tokens_that_the_model_does_not_know_stop_the_run(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "data", tmp_path / "data")
    tokens = np.fromfile(tmp_path / "data" / "tokens.bin", np.uint16)
    tokens[::5] = 999
    tokens.tofile(tmp_path / "data" / "tokens.bin")
    said = _fails(project, tmp_path / "out", "--data", str(tmp_path / "data"))
    assert "does not know all tokens" in said


def test_an_interrupted_run_says_how_it_goes_on(project: Path) -> None:
    """A shell's background process ignores the signal, and so would ours: it asks for Python's own answer to it."""
    code = "import signal, train; signal.signal(signal.SIGINT, signal.default_int_handler); train.main()"
    command = [sys.executable, "-c", code, "--out", "interrupted", "--steps", "100000"]
    with subprocess.Popen(command, cwd=project, env=environment(), stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None
        while "step " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "train.py: interrupted; start it again to go on\n")


CLAIMED = """
import pathlib, sys, checkpoint
held = checkpoint.claim(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_two_runs_do_not_share_a_folder(project: Path, whole: Path, tmp_path: Path) -> None:
    """The second one says who is there, and touches nothing; the first one's death, of any kind, lets go."""
    shutil.copytree(whole, tmp_path / "out")
    half = tmp_path / "out" / ".step_00000041.partial"
    half.mkdir()
    command = [sys.executable, "-c", CLAIMED, str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=project, env=environment(), stdin=PIPE, stdout=PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        said = _fails(project, tmp_path / "out")
        assert f"process {first.pid} on " in said and said.count("\n") == 1
        assert half.exists(), "it may be what the first one is writing"
        first.kill()
    done = run(project, "train.py", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "") and "from step 40" in done.stdout
    assert not half.exists()


def test_too_little_for_validation_is_said_before_training(project: Path, tmp_path: Path) -> None:
    (tmp_path / "little.txt").write_text("a" * 150)
    assert run(project, "data.py", str(tmp_path / "little.txt"), "--out", str(tmp_path / "data")).returncode == 0
    said = _fails(project, tmp_path / "out", "--data", str(tmp_path / "data"))
    assert "15 tokens for validation are too few for sequences of 16" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_stops_the_run(project: Path, whole: Path) -> None:
    assert "learning_rate is 0.01 there, 0.5 here" in _fails(project, whole, "--lr", "0.5")


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run(project: Path) -> None:
    said = _fails(project, project / "diverged", "--lr", "1e30", "--save-every", "1")
    assert "loss of nan" in said or "loss of inf" in said or "norm nan" in said or "norm inf" in said
    assert "the last good checkpoint is" in said
    assert "step_0000000" in said


@pytest.mark.slow
def test_data_that_do_not_fit(project: Path, tmp_path: Path) -> None:
    assert "holds no tokens" in _fails(project, tmp_path / "a", "--data", "nowhere")
    assert "cannot share a batch" in run(project, "train.py", "--out", "b", "--batch", "9", ranks=2).stderr
