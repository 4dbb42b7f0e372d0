"""Projects as `cgc compile --target=torch` writes them, in a folder, with bytes to train on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cgc_torch import TARGET

from cgc.driver import load_program, write_artifacts
from cgc.target import CompileOptions

SMALL = """use std/gpt2

model small = gpt2(vocab=256, context=16, layers=2, width=32, heads=2)

train {
    steps     = STEPS steps
    batch     = 8 sequences
    lr        = 1e-2
    optimizer = adamw(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    schedule  = warmup(2 steps) then linear(to=0.1)
    clip      = 1.0
}
"""
TEXT = "The quick brown fox jumps over the lazy dog. " * 300


def write_project(folder: Path, source: str) -> Path:
    """Compile a `.cg` text to a project in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.cg").write_text(source)
    program = load_program(str(folder / "model.cg"), {})
    write_artifacts(TARGET.compile(program, CompileOptions()).artifacts, folder)
    return folder


def small_project(folder: Path, steps: int = 12) -> Path:
    """Return a project of a small model of bytes, its tokens made."""
    write_project(folder, SMALL.replace("STEPS", str(steps)))
    (folder / "input.txt").write_text(TEXT)
    done = run(folder, "data.py", "input.txt")
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a program of the project and wait for it."""
    return subprocess.run(
        command(*arguments, ranks=ranks), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def command(*arguments: str, ranks: int = 1) -> list[str]:
    """Return the command line for a program of the project, under torchrun for several ranks."""
    if ranks == 1:
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *arguments]


def environment() -> dict[str, str]:
    """Return an environment in which a project finds nothing but installed packages, and uses one core."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    return {**kept, "OMP_NUM_THREADS": "1"}
