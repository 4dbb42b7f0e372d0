"""Places the problems of the ISPD 2020 contest and prints the table of docs/placement.md in Markdown.

`python -m benchmarks.placement DIRECTORY` takes every .kgraph in a folder, each as a whole process of `cgc place` with
a time limit of 60 s, beside the baseline `--method shelf`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT = 60


def placed(problem: Path, output: Path, *more: str) -> dict[str, Any]:
    """Place a problem, check what was written, and return what `cgc place` says, with the seconds it took."""
    command = [sys.executable, "-c", "from cgc.cli import main; main()", "place", str(problem)]
    began = time.monotonic()
    done = subprocess.run([*command, "-o", str(output), "--format", "json", *more], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["process_seconds"] = time.monotonic() - began
    check = subprocess.run([*command, "--check", str(output), "--format", "json"], capture_output=True, check=True)
    assert json.loads(check.stdout)["score"] == found["score"]
    return found


def row(problem: Path, folder: Path) -> str:
    """Return the row of one problem."""
    found = placed(problem, folder / "found.txt", "--time-limit", str(LIMIT))
    shelf = placed(problem, folder / "shelf.txt", "--method", "shelf")
    worse = shelf["score"] / found["score"] - 1
    seconds = f"{found['process_seconds']:.0f}" + ("*" if found["cut"] else "")
    return (
        f"| {problem.stem} | {found['kernels']} | {found['time']:,.0f} | {100 * found['time_gap']:.1f}% "
        f"| {found['wire_length']:,.0f} | {found['score']:,.0f} | {found['score_bound']:,.0f} "
        f"| {100 * found['score_gap']:.1f}% | {shelf['score']:,.0f} | {100 * worse:.1f}% "
        f"| {seconds} |"
    )


def main() -> None:
    """Place everything and print."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/ispd2020")
    print("| | kernels | time | over bound | wire | score | bound | gap | baseline's score | worse by | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for problem in sorted(folder.glob("*.kgraph")):
            print(row(problem, Path(scratch)), flush=True)


if __name__ == "__main__":
    main()
