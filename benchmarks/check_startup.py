"""`cgc check` of the 13B model as a whole process, beside a Python that only imports the libraries it stands on, and
beside itself with a `mup` item: what derivation and the static coordinate check add.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.processes import measure, python

MUP = """
mup {
    scale width from 256, heads from 4
    init std = 0.08
    lr       = 6e-3
    multiply embedding by 10
}
"""
MODEL = Path(__file__).parents[1] / "examples" / "cerebras_gpt" / "13b.cg"


def compare(runs: int) -> dict[str, float]:
    """Run all in turn; median seconds of each, and how many times longer the check takes."""
    with tempfile.TemporaryDirectory() as folder:
        scaled = Path(folder) / "scaled.cg"
        scaled.write_text(MODEL.read_text(encoding="utf-8") + MUP, encoding="utf-8")
        cgc = str(Path(sys.executable).with_name("cgc"))
        commands = {
            "cgc": [cgc, "check", str(MODEL)],
            "imports": python("import lark, click"),
            "mup": [cgc, "check", str(scaled)],
        }
        seconds: dict[str, list[float]] = {who: [] for who in commands}
        for _ in range(runs):
            for who, command in commands.items():
                seconds[who].append(measure(command, Path(folder) / "log").seconds)
    middle = {who: median(taken) for who, taken in seconds.items()}
    return {**middle, "ratio": middle["cgc"] / middle["imports"]}
