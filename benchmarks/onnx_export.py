"""The time and memory of emitting a 111M GPT-2 with weights to ONNX: cgc beside `torch.onnx.export(dynamo=True)`.

Both read one safetensors file and write one ONNX model with external data. Each run is a whole process, start of
Python and imports included, into an empty folder and on a disk that has nothing left to write; memory is the peak
resident set that the operating system reports for it. At the end both models are run on the same tokens, and their
logits compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

SHAPE = {"vocab_size": 50257, "n_positions": 2048, "n_layer": 10, "n_embd": 768, "n_head": 12}
SOURCE = """use std/gpt2

model peer = gpt2(vocab=50257, context=2048, layers=10, width=768, heads=12)
"""
PACKAGES = ("cgc", "numpy", "onnx", "onnxruntime", "onnxscript", "torch", "transformers", "safetensors")

# `activation_function="gelu"` is the exact form, as in the .cg file; the public GPT-2 has the approximation by tanh.
PREPARE = """
import sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel
torch.manual_seed(0)
config = GPT2Config(activation_function="gelu", use_cache=False, **{shape})
GPT2LMHeadModel(config).save_pretrained(sys.argv[1])
"""
TORCH = """
import sys
import torch
from transformers import GPT2LMHeadModel
class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = GPT2LMHeadModel.from_pretrained(sys.argv[1], use_cache=False).eval()
    def forward(self, tokens):
        return self.model(input_ids=tokens, use_cache=False).logits
batch, seq = torch.export.Dim("batch", max=1024), torch.export.Dim("seq", max=2048)
torch.onnx.export(
    Logits().eval(),
    (torch.zeros(2, 16, dtype=torch.int64),),
    sys.argv[2],
    input_names=["tokens"],
    output_names=["logits"],
    dynamic_shapes={"tokens": {0: batch, 1: seq}},
    dynamo=True,
    external_data=True,
)
"""
COMPARE = """
import sys
import numpy as np
import onnxruntime
tokens = np.random.default_rng(0).integers(0, 50257, (2, 96))
results = []
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results.append(session.run(["logits"], {"tokens": tokens})[0])
print(float(np.abs(results[0] - results[1]).max() / np.abs(results[1]).max()))
"""


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall time, and peak resident memory in MiB."""

    seconds: float
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
    return Run(seconds, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def python(code: str, *arguments: str) -> list[str]:
    """Return the command that runs `code` in a fresh interpreter."""
    return [sys.executable, "-c", code, *arguments]


def compare(runs: int) -> dict[str, object]:
    """Run both `runs` times in turn and return all that is to be reported."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, hub, source = folder / "log", folder / "hub", folder / "peer.cg"
        source.write_text(SOURCE, encoding="utf-8")
        measure(python(PREPARE.format(shape=SHAPE), str(hub)), log)
        out = {who: folder / who for who in ("cgc", "torch")}
        entry = "import sys; from cgc.cli import main; sys.argv[0] = 'cgc'; main()"
        weights = str(hub / "model.safetensors")
        commands = {
            "cgc": python(entry, "compile", str(source), "--target=onnx", "--weights", weights, "-o", str(out["cgc"])),
            "torch": python(TORCH, str(hub), str(out["torch"] / "model.onnx")),
        }
        results: dict[str, list[Run]] = {who: [] for who in commands}
        for _ in range(runs):
            for who, command in commands.items():
                shutil.rmtree(out[who], ignore_errors=True)
                out[who].mkdir()
                os.sync()
                results[who].append(measure(command, log))
        measure(python(COMPARE, *(str(out[who] / "model.onnx") for who in commands)), log)
        difference = float(log.read_text().split()[-1])
    middle = {who: median(run.seconds for run in taken) for who, taken in results.items()}
    peak = {who: max(run.mebibytes for run in taken) for who, taken in results.items()}
    return {
        "runs": {who: [asdict(run) for run in taken] for who, taken in results.items()},
        "median_seconds": middle,
        "peak_mebibytes": peak,
        "times_faster": middle["torch"] / middle["cgc"],
        "memory_ratio": peak["cgc"] / peak["torch"],
        "largest_relative_difference_of_logits": difference,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def table(result: dict[str, object]) -> Table:
    """Return the result as a table."""
    seconds, memory = result["median_seconds"], result["peak_mebibytes"]
    assert isinstance(seconds, dict)
    assert isinstance(memory, dict)
    shown = Table(title="GPT-2 111M with weights → ONNX, whole process")
    shown.add_column("")
    for heading in ("seconds", "peak MiB"):
        shown.add_column(heading, justify="right")
    for who, label in (("cgc", "cgc compile --target=onnx"), ("torch", "torch.onnx.export(dynamo=True)")):
        shown.add_row(label, f"{seconds[who]:.2f}", f"{memory[who]:.0f}")
    shown.add_row("ratio", f"{result['times_faster']:.1f} × faster", f"{result['memory_ratio']:.2f}")
    return shown


def main() -> None:
    """Measure, print the table, and write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median time and the largest peak count")
    parser.add_argument("--json", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    result = compare(arguments.runs)
    console = Console()
    console.print(table(result))
    console.print(f"largest relative difference of logits: {result['largest_relative_difference_of_logits']:.1e}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
