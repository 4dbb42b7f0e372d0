"""The time and memory of exporting about 111M weights to ONNX: cgc beside `torch.onnx.export(dynamo=True)`, optimum's
exporter, and onnxruntime-genai's model builder; and cgc alone on 1.3B.

All read one safetensors file. cgc is run as it compares: without a cache beside torch's exporter, which makes none, and
with one beside the others. Each run is a whole process, start of Python and imports included, into an empty folder and
on a disk that has nothing left to write; memory is the peak resident set that the operating system reports for it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.onnx_peers import OLDER, cgc_command, older_python, peer_commands, prepared
from benchmarks.processes import Run, measure

PACKAGES = ("cgc", "numpy", "onnx", "onnxruntime", "onnxruntime-genai", "onnxscript", "torch", "transformers")
OWN: dict[str, tuple[str, ...]] = {
    "cgc": (),
    "cgc --kv-cache": ("--kv-cache",),
    "cgc --kv-cache --runtime ort": ("--kv-cache", "--runtime", "ort"),
}
LARGE = """use std/gpt2

model large = gpt2(vocab=50257, context=2048, layers=24, width=2048, heads=16)
"""
BLOCK = 1 << 22
"""Numbers written at a time into the file of random weights."""


def graph_bytes(folder: Path) -> int:
    """Return the size of the graph: the model file, without data that lies beside it."""
    return (folder / "model.onnx").stat().st_size


def compare_family(family: str, folder: Path, optimum: str, runs: int, log: Path) -> dict[str, Any]:
    """Run every exporter `runs` times in turn."""
    source, hub = prepared(folder, family)
    commands = peer_commands(family, hub, folder, optimum)
    for name, flags in OWN.items():
        out = folder / f"{family}_{name.replace(' ', '').replace('--', '_')}"
        commands[name] = (cgc_command(source, hub, out, *flags), out)
    taken: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, (command, out) in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            os.sync()
            taken[name].append(measure(command, log))
    return {
        name: {
            "runs": [asdict(run) for run in results],
            "seconds": median(run.seconds for run in results),
            "processor_seconds": median(run.processor for run in results),
            "peak_mebibytes": max(run.mebibytes for run in results),
            "graph_bytes": graph_bytes(commands[name][1]),
        }
        for name, results in taken.items()
    }


def large(folder: Path, runs: int, log: Path) -> dict[str, Any]:
    """Export 1.3B random weights."""
    import numpy as np

    from cgc.checkpoints import hub_shapes
    from cgc.driver import load_program

    source, hub = folder / "large.cg", folder / "large_hub"
    source.write_text(LARGE, encoding="utf-8")
    hub.mkdir(exist_ok=True)
    shapes = hub_shapes(load_program(str(source)))
    if not (hub / "model.safetensors").exists():
        _random_file(hub / "model.safetensors", shapes, np.random.default_rng(0).random(BLOCK, np.float32) * 0.1 - 0.05)
    taken = []
    for _ in range(runs):
        shutil.rmtree(folder / "large", ignore_errors=True)
        os.sync()
        taken.append(measure(cgc_command(source, hub, folder / "large", "--kv-cache", "--runtime", "ort"), log))
    return {
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "seconds": median(run.seconds for run in taken),
        "processor_seconds": median(run.processor for run in taken),
        "peak_mebibytes": max(run.mebibytes for run in taken),
        "graph_bytes": graph_bytes(folder / "large"),
    }


def _random_file(path: Path, shapes: dict[str, tuple[int, ...]], block: Any) -> None:
    """Write a checkpoint whose tensors repeat one block of random numbers: what is in them takes no part in this."""
    entries: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    data = block.tobytes()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, end, len(data)):
            file.write(data[: end - start])


def compare(runs: int, folder: Path) -> dict[str, Any]:
    """Run everything and return all that is to be reported."""
    log, optimum = folder / "log", older_python(folder / "optimum")
    families = {family: compare_family(family, folder, optimum, runs, log) for family in ("gpt2", "llama")}
    return {
        "families": families,
        "ratios": {family: ratios(results) for family, results in families.items()},
        "1.3B": large(folder, runs, log),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "optimum": list(OLDER),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def ratios(results: dict[str, Any]) -> dict[str, Any]:
    """Return how many times faster cgc is than each peer (median over the rounds), and its part of the memory."""
    found: dict[str, Any] = {}
    for peer in ("torch", "optimum", "builder"):
        if peer not in results:
            continue
        own = results["cgc" if peer == "torch" else "cgc --kv-cache --runtime ort"]
        pairs = list(zip(results[peer]["runs"], own["runs"], strict=True))
        found[peer] = {
            "times_faster": median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs),
            "memory": own["peak_mebibytes"] / results[peer]["peak_mebibytes"],
        }
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def table(result: dict[str, Any]) -> Table:
    """Return the result as a table."""
    shown = Table(title="about 111M weights → ONNX, whole processes")
    shown.add_column("")
    for heading in (
        "seconds",
        "processor seconds",
        "peak MiB",
        "graph bytes",
        "cgc is faster by",
        "its part of memory",
    ):
        shown.add_column(heading, justify="right")
    for family, results in result["families"].items():
        for name, row in results.items():
            ratio = result["ratios"][family].get(name)
            compared = (f"{ratio['times_faster']:.1f} ×", f"{ratio['memory']:.3f}") if ratio else ("", "")
            shown.add_row(f"{family}: {name}", *_cells(row), *compared)
    shown.add_row("gpt2 1.3B: cgc --kv-cache --runtime ort", *_cells(result["1.3B"]), "", "")
    return shown


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['seconds']:.2f}",
        f"{row['processor_seconds']:.2f}",
        f"{row['peak_mebibytes']:.0f}",
        f"{row['graph_bytes']:,}",
    )


def main() -> None:
    """Measure, print the table, and write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median time and the largest peak count")
    parser.add_argument("--json", type=Path, help="where to write the result as JSON")
    parser.add_argument("--folder", type=Path, help="where to keep weights, models and optimum's environment")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        result = compare(arguments.runs, folder)
    Console(width=180).print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
