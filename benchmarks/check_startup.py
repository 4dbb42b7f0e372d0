"""`cgc check` of the 13B model as a whole process, beside a Python that only imports the libraries it stands on."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.onnx_export import measure, python

MODEL = Path(__file__).parents[1] / "examples" / "cerebras_gpt" / "13b.cg"


def compare(runs: int) -> dict[str, float]:
    """Run both in turn; median seconds of each, and how many times longer the check takes."""
    commands = {
        "cgc": [str(Path(sys.executable).with_name("cgc")), "check", str(MODEL)],
        "imports": python("import lark, click"),
    }
    seconds: dict[str, list[float]] = {who: [] for who in commands}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for who, command in commands.items():
                seconds[who].append(measure(command, Path(folder) / "log").seconds)
    middle = {who: median(taken) for who, taken in seconds.items()}
    return {**middle, "ratio": middle["cgc"] / middle["imports"]}
