"""`cgc place`: what it writes and prints, and what it says of wrong input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from contest_problems import SOLUTION, TEXT

from cgc.cli import main


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["place", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "toy.kgraph").write_text(TEXT)
    (tmp_path / "legal.txt").write_text(SOLUTION)
    return str(tmp_path / "toy.kgraph"), str(tmp_path / "legal.txt")


def placed(problem: str, output: Path, *more: str) -> Any:
    result = run(problem, "-o", str(output), "--format", "json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_check(files: tuple[str, str]) -> None:
    problem, solution = files
    result = run(problem, "--check", solution)
    assert result.exit_code == 0
    assert "legal" in result.output and "wire length" in result.output
    data = json.loads(run(problem, "--check", solution, "--format", "json").stdout)
    assert data["ok"] and data["legal"]
    assert data["time"] == 288
    assert data["score"] == 2 * data["time"] + 3.5 * data["wire_length"]
    assert 0 < data["time_bound"] <= data["time"]
    assert 0 < data["score_bound"] <= data["score"]


def test_place_search_and_baseline(files: tuple[str, str], tmp_path: Path) -> None:
    problem, _ = files
    found = placed(problem, tmp_path / "one.txt", "--seed", "3")
    shelf = placed(problem, tmp_path / "two.txt", "--method", "shelf")
    assert found["score_bound"] <= found["score"] <= shelf["score"]
    assert found["cut"] is None
    for name, data in (("one.txt", found), ("two.txt", shelf)):
        checked = json.loads(run(problem, "--check", str(tmp_path / name), "--format", "json").stdout)
        assert checked["score"] == data["score"]
        assert checked["time"] == data["time"]


def test_the_same_seed_gives_the_same_file(files: tuple[str, str], tmp_path: Path) -> None:
    problem, _ = files
    placed(problem, tmp_path / "a.txt", "--seed", "1")
    placed(problem, tmp_path / "b.txt", "--seed", "1", "--time-limit", "100000")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


@pytest.mark.parametrize("text", ["", "*)", "(*", "\x00", "conv[", "a\nb\nc", "(*\nwidth=1\n*)", "∀x"])
def test_broken_problems(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.kgraph"
    path.write_text(text)
    result = run(str(path), "-o", str(tmp_path / "o.txt"), "--format", "json")
    assert result.exit_code == 1
    assert all(one["code"].startswith("CG062") and one["hint"] for one in json.loads(result.stdout)["diagnostics"])
    assert not (tmp_path / "o.txt").exists()


def test_files_that_cannot_be_read_or_written(files: tuple[str, str], tmp_path: Path) -> None:
    problem, _ = files
    assert "CG0001" in run(str(tmp_path / "none"), "-o", str(tmp_path / "o")).output
    assert "CG0001" in run(problem, "--check", str(tmp_path / "none")).output
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "CG0003" in run(problem, "--check", str(tmp_path / "binary")).output
    (tmp_path / "file").write_text("")
    assert "CG0004" in run(problem, "-o", str(tmp_path / "file" / "o"), "--method", "shelf").output


def test_a_problem_without_a_solution(files: tuple[str, str], tmp_path: Path) -> None:
    for change in (("width=60\nheight=50", "width=4\nheight=3"), ("memlimit=2000", "memlimit=1")):
        path = tmp_path / "hard.kgraph"
        path.write_text(TEXT.replace(*change))
        result = run(str(path), "-o", str(tmp_path / "o.txt"))
        assert result.exit_code == 1
        assert "CG0624" in result.output


def test_wrong_usage(files: tuple[str, str], tmp_path: Path) -> None:
    problem, solution = files
    assert run(problem).exit_code == 2
    assert run(problem, "-o", str(tmp_path)).exit_code == 2
    assert run(problem, "-o", "x", "--check", solution).exit_code == 2
    assert run(problem, "-o", "x", "--time-limit", "0").exit_code == 2
    result = run(problem, "-o", str(tmp_path / "x"), "--method", "magic")
    assert result.exit_code == 1
    assert "CG0632" in result.output


def test_exact_without_its_library_says_what_to_install(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    result = run(files[0], "-o", str(tmp_path / "x"), "--method", "cpsat")
    assert result.exit_code == 1
    assert "CG0632" in result.output and "cgc[place]" in result.output


def test_an_illegal_solution_is_shown_with_its_line(files: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "illegal.txt"
    path.write_text(SOLUTION.replace("b : place(12 0 R0)", "b : place(11 0 R0)"))
    result = run(files[0], "--check", str(path))
    assert result.exit_code == 1
    assert "`a` overlaps `b`" in result.output and "a : place(0 0 R0)" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_an_interrupt_keeps_the_best_so_far(tmp_path: Path) -> None:
    # Kernels of many sizes: left alone, the search goes on for much longer than a busy machine takes to interrupt it.
    lines = [f"conv[{i}] W=32 H=32 R=3 S=3 C=32 K={16 + i} T=1 U=1 name='k{i}'" for i in range(90)]
    lines += [f"conv[{i}]:y -> conv[{i + 1}]:x" for i in range(89)]
    head = TEXT.partition("(* N")[0].replace("width=60", "width=300").replace("height=50", "height=300")
    (tmp_path / "p.kgraph").write_text(head + "\n".join(lines))
    command = [
        sys.executable,
        "-c",
        # What runs in the background of a shell, as tests may, ignores interrupts unless it asks for them.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cgc.cli import main; main()",
        "place",
        str(tmp_path / "p.kgraph"),
        "-o",
        str(tmp_path / "o.txt"),
    ]
    process = subprocess.Popen(
        [*command, "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("1/"):
            break
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(output)["cut"] == "an interrupt"
    assert (tmp_path / "o.txt").exists()
    assert time.monotonic() - began < 30
