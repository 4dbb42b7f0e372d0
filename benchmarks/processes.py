"""Whole processes, measured: start of Python and imports included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CGC = "import sys; from cgc.cli import main; sys.argv[0] = 'cgc'; main()"


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall time, seconds of processor time, and peak resident memory in MiB."""

    seconds: float
    processor: float
    mebibytes: float


def measure(command: list[str], log: Path) -> Run:
    """Run a command to its end and return what it took; RuntimeError with its output when it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} … failed:\n{log.read_text(errors='replace')[-4000:]}")
    # Kilobytes on Linux, bytes on macOS.
    peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak)


def python(code: str, *arguments: str, interpreter: str = sys.executable) -> list[str]:
    """Return the command that runs `code` in a fresh interpreter."""
    return [interpreter, "-c", code, *arguments]
