"""One transformer block of Cerebras-GPT 111M on hardware: the time to an answer of cgc's wafer and of ZigZag.

Each is a whole process that starts from a file: cgc from the block in `.cg`, ZigZag from the ONNX that cgc writes of
the same block at the same shape, on the TPU-like accelerator and mapping that come with it. They answer different
questions (a block's rectangles on 745,500 cores, loop orders on one array of 32 x 32): only the times are compared.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.processes import CGC, Run, measure, python

SOURCE = """use std/gpt2

model block = gpt2(vocab=256, context=2048, layers=1, width=768, heads=12)
"""
ZIGZAG = """
import sys
from pathlib import Path
import onnx
import zigzag
from zigzag.api import get_hardware_performance_zigzag
inputs = Path(zigzag.__file__).parent / "inputs"
model = onnx.shape_inference.infer_shapes(onnx.load(sys.argv[1]))
accelerator, mapping = (str(inputs / kind / "tpu_like.yaml") for kind in ("hardware", "mapping"))
found = get_hardware_performance_zigzag(
    model, accelerator, mapping, dump_folder=sys.argv[2], loma_show_progress_bar=False
)
assert found[1] > 0
"""


def compare(runs: int) -> dict[str, Run]:
    """Run both in turn; of each the median seconds and the largest peak MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, source = folder / "log", folder / "block.cg"
        source.write_text(SOURCE, encoding="utf-8")
        shape = ("--batch", "1", "--seq", "2048")
        onnx = ("compile", str(source), "--target=onnx", "--flat", *shape, "-o", str(folder / "onnx"))
        measure(python(CGC, *onnx), log)
        wafer = ("compile", str(source), "--target=wse-sim", *shape, "-o", str(folder / "wafer"))
        commands = {
            "cgc": python(CGC, *wafer),
            "zigzag": python(ZIGZAG, str(folder / "onnx" / "model.onnx"), str(folder / "zigzag")),
        }
        taken: dict[str, list[Run]] = {who: [] for who in commands}
        for _ in range(runs):
            for who, command in commands.items():
                taken[who].append(measure(command, log))
    return {
        who: Run(
            median(one.seconds for one in found),
            median(one.processor for one in found),
            max(one.mebibytes for one in found),
        )
        for who, found in taken.items()
    }


def main() -> None:
    """Measure and print."""
    table = Table(
        "", "seconds", "peak MiB", title="One block of 111M (width 768, 2048 tokens) on hardware, whole process"
    )
    for who, run in compare(3).items():
        table.add_row(who, f"{run.seconds:.2f}", f"{run.mebibytes:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
