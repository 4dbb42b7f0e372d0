"""Tokens per second of ONNX models in ONNX Runtime on this processor: cgc's beside those that optimum and
onnxruntime-genai's builder make of the same weights, and for prefill also torch's.

Prefill reads a prompt, decoding gives one more token to each sequence of a batch behind so many known ones. All
sessions have the same options and run by IO binding; models whose attention lets a cache grow in place (cgc's
`--runtime ort` and the builder's) get buffers, the others hand their caches out and in. Rounds of all models are
interleaved, each run in a process of its own, and cgc is compared with each peer, like with like (torch's export has no
cache), by the median of the rounds' ratios and the interval in which that median lies at 95% confidence.
How far the logits of few bits are off those of floats (root of the mean square, relative) stands beside their speed: a
larger block is faster and less exact.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.onnx_peers import builder_command, cgc_command, older_python, peer_commands, prepared
from benchmarks.processes import measure

CELLS = (
    ("prefill", 1, 128),
    ("prefill", 1, 1024),
    ("decode", 1, 128),
    ("decode", 1, 1024),
    ("decode", 8, 128),
    ("decode", 8, 1024),
)
"""What is run, the batch, and the length of the prompt or of what is known."""
OWN: Mapping[str, tuple[str, ...]] = {
    "cgc ort": ("--kv-cache", "--runtime", "ort", "--unpadded", "--flat"),
    "cgc ort, no cache": ("--runtime", "ort", "--flat"),
    "cgc": ("--kv-cache",),
}
WITHOUT_CACHE = {"torch": "cgc ort, no cache"}
"""Peers that keep nothing, and what of cgc's they are compared with."""
LAST = "fp32, logits of the last token"
BLOCKS = (32, 64)
"""Entries to a block of the models of 4 bits."""
HEADS = {"gpt2": (12, 64), "llama": (4, 64)}
"""Heads of keys and the size of each."""
ROUNDS = 9
SECONDS = 0.6
"""How long a cell of a model is run in one round, at least once."""


@dataclass(frozen=True)
class Cell:
    """One thing to run: `kind` prefill or decode."""

    kind: str
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """New tokens of a run."""
        return self.batch * (self.length if self.kind == "prefill" else 1)


class Loaded:
    """A model in a session, ready to run cells."""

    def __init__(self, path: Path, usual: tuple[int, int]) -> None:
        import onnxruntime

        self._usual = usual

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 2
        self._ort = onnxruntime
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._in_place = b"GroupQueryAttention" in path.read_bytes()

    @property
    def decodes(self) -> bool:
        """Tell whether it has a cache."""
        return any(name.startswith("past") for name in self._inputs)

    def prepare(self, cell: Cell) -> Callable[[], None]:
        """Return what runs a cell once."""
        binding, kept = self._bound(cell)

        def run() -> None:
            assert kept
            self._session.run_with_iobinding(binding)

        return run

    def logits(self, cell: Cell) -> Any:
        """Return the logits of a cell."""
        binding, kept = self._bound(cell)
        assert kept
        self._session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()

    def _bound(self, cell: Cell) -> tuple[Any, list[Any]]:
        """Return a binding, logits first, and what it points to."""
        past = 0 if cell.kind == "prefill" else cell.length
        new = cell.length if cell.kind == "prefill" else 1
        random = np.random.default_rng(0)
        binding = self._session.io_binding()
        given = {
            "input_ids": random.integers(0, 32000, (cell.batch, new)),
            "attention_mask": np.ones((cell.batch, past + new), np.int64),
            "position_ids": np.tile(np.arange(past, past + new), (cell.batch, 1)),
        }
        given["tokens"] = given["input_ids"]
        kept: list[Any] = []
        for name in self._inputs:
            if name in given:
                kept.append(self._ort.OrtValue.ortvalue_from_numpy(given[name]))
                binding.bind_ortvalue_input(name, kept[-1])
        for name in sorted(self._outputs, key=lambda name: name != "logits"):
            if not name.startswith("present") or not self._in_place:
                binding.bind_output(name, "cpu")
        for name, value in self._inputs.items():
            if name.startswith("past"):
                self._bind_cache(binding, name, value, (cell, past, new), kept)
        return binding, kept

    def _cache_shape(self, shape: list[Any]) -> tuple[int, int]:
        """Return heads and what each holds; an exporter may leave them open."""
        heads, head = (
            size if isinstance(size, int) else usual
            for size, usual in zip((shape[1], shape[3]), self._usual, strict=True)
        )
        return heads, head

    def _bind_cache(self, binding: Any, name: str, value: Any, sizes: tuple[Cell, int, int], kept: list[Any]) -> None:
        cell, past, new = sizes
        heads, head = self._cache_shape(value.shape)
        length = past + new if self._in_place else past
        shape = (cell.batch, heads, length, head)
        array = np.random.default_rng(1).standard_normal(shape, np.float32) * np.float32(0.1)
        kept.append(self._ort.OrtValue.ortvalue_from_numpy(array))
        binding.bind_ortvalue_input(name, kept[-1])
        if self._in_place:
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), kept[-1])


def seconds(run: Callable[[], None]) -> float:
    """Return the seconds of one run: the median of as many as fit into `SECONDS`."""
    taken: list[float] = []
    while not taken or sum(taken) < SECONDS:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return median(taken)


def models(family: str, folder: Path, optimum: str) -> dict[str, dict[str, Path]]:
    """Return the models to compare by precision and name, exported where they are not there yet."""
    source, hub = prepared(folder, family)
    log = folder / "log"
    few = {f"int4 by {block}": ("--quantize", "int4", "--block", str(block)) for block in BLOCKS}
    found: dict[str, dict[str, Path]] = {precision: {} for precision in ("fp32", *few)}
    jobs: list[tuple[str, str, list[str], Path]] = []
    for name, flags in OWN.items():
        precisions = {"fp32": ()} if name in WITHOUT_CACHE.values() else {"fp32": (), **few}
        for precision, more in precisions.items():
            out = folder / f"{family}_speed_{name}_{precision}".replace(",", "").replace(" ", "_")
            jobs.append((precision, name, cgc_command(source, hub, out, *flags, *more), out))
    for name, (command, out) in peer_commands(family, hub, folder, optimum).items():
        jobs.append(("fp32", name, command, out))
    if family == "llama":
        for block, precision in zip(BLOCKS, few, strict=True):
            out = folder / f"llama_builder_int4_by_{block}"
            jobs.append((precision, "builder", builder_command(hub, out, "int4", f"block_size={block}"), out))
        own, peer = folder / "llama_speed_cgc_ort_last", folder / "llama_builder_last"
        jobs.append((LAST, "cgc ort", cgc_command(source, hub, own, *OWN["cgc ort"], "--last-logits"), own))
        jobs.append((LAST, "builder", builder_command(hub, peer, "fp32", "prune_lm_head=true"), peer))
    for precision, name, command, out in jobs:
        if not (out / "model.onnx").exists():
            out.mkdir(exist_ok=True)
            measure(command, log)
        found.setdefault(precision, {})[name] = out / "model.onnx"
    return found


def timed(path: Path, usual: tuple[int, int], cell: Cell) -> float | None:
    """Return the seconds of a cell, None for decoding with a model that cannot."""
    loaded = Loaded(path, usual)
    if cell.kind == "decode" and not loaded.decodes:
        return None
    run = loaded.prepare(cell)
    run()
    return seconds(run)


def interval(count: int) -> tuple[int, int]:
    """Return which of so many values in order enclose their distribution's median at 95% confidence, or the first and
    the last where they are too few.
    """
    low, outside = 0, 2 / 2**count
    while (outside := outside + 2 * comb(count, low + 1) / 2**count) <= 0.05:
        low += 1
    return low, count - 1 - low


def compare(paths: Mapping[str, Path], rounds: int, usual: tuple[int, int]) -> dict[str, Any]:
    """Return, for each cell, tokens per second by model, and how many times as fast as each peer cgc is.

    Each cell of a model has a process of its own: in one process, what comes first gets the better or the worse memory.
    """
    result: dict[str, Any] = {}
    for cell in (Cell(*each) for each in CELLS):
        taken: dict[str, list[float]] = {}
        names = list(paths)
        for turn in range(rounds):
            for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
                words = [str(paths[name]), *usual, cell.kind, cell.batch, cell.length]
                command = [sys.executable, "-m", "benchmarks.onnx_speed", "--one", *map(str, words)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                if found is not None:
                    taken.setdefault(name, []).append(found)
            names = [name for name in names if name in taken]
        ratios: dict[str, dict[str, float]] = {}
        for peer in (name for name in taken if name not in OWN):
            own = taken[WITHOUT_CACHE.get(peer, "cgc ort")]
            row = sorted(theirs / ours for theirs, ours in zip(taken[peer], own, strict=True))
            low, high = interval(len(row))
            ratios[peer] = {"median": median(row), "low": row[low], "high": row[high]}
        result[f"{cell.kind} {cell.batch}x{cell.length}"] = {
            "tokens_per_second": {name: cell.tokens / median(row) for name, row in taken.items()},
            "cgc_times_faster": ratios,
        }
    return result


def errors(paths: Mapping[str, Path], exact: Path, usual: tuple[int, int]) -> dict[str, float]:
    """Return how far the logits of each model are off those of `exact`, relative: the root of the mean square."""
    cell = Cell("prefill", 1, 1024)
    wanted = Loaded(exact, usual).logits(cell)
    off = {name: Loaded(path, usual).logits(cell) - wanted for name, path in paths.items()}
    return {name: float(np.sqrt(np.mean(each**2) / np.mean(wanted**2))) for name, each in off.items()}


def best_peer(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Return the peer that cgc is ahead of by the least."""
    return min(ratios, key=lambda peer: ratios[peer]["median"])


def ratio(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Return how many times as fast as the best peer cgc is, and the interval."""
    if not ratios:
        return "no peer"
    found = ratios[best_peer(ratios)]
    return f"{found['median']:.3f} ({found['low']:.2f} to {found['high']:.2f})"


def table(title: str, result: Mapping[str, Any]) -> Table:
    """Return one precision of one family as a table."""
    result = dict(result)
    off = result.pop("error", {})
    names = list(next(iter(result.values()))["tokens_per_second"])
    shown = Table(title=f"{title}: tokens per second")
    shown.add_column("")
    for name in names:
        shown.add_column(name, justify="right")
    shown.add_column("cgc ÷ best peer", justify="right")
    for cell, found in result.items():
        speeds = found["tokens_per_second"]
        least = ratio(found["cgc_times_faster"])
        shown.add_row(cell, *(f"{speeds[name]:.0f}" if name in speeds else "-" for name in names), least)
    if off:
        shown.add_row("error of logits", *(f"{off[name]:.3f}" for name in names), "")
    return shown


def run_all(folder: Path, rounds: int, families: tuple[str, ...] = ("gpt2", "llama")) -> dict[str, Any]:
    """Measure all families and precisions."""
    optimum = older_python(folder / "optimum")
    result: dict[str, Any] = {}
    for family in families:
        by_precision = models(family, folder, optimum)
        for precision, paths in by_precision.items():
            found = compare(paths, rounds, HEADS[family])
            if precision.startswith("int4"):
                found["error"] = errors(paths, by_precision["fp32"]["cgc ort"], HEADS[family])
            result[f"{family} {precision}"] = found
    return result


def main() -> None:
    """Measure, print the tables, and write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds of each cell")
    parser.add_argument("--family", action="append", choices=["gpt2", "llama"], help="only this one")
    parser.add_argument("--json", type=Path, help="where to write the result as JSON")
    parser.add_argument("--folder", type=Path, help="where to keep weights, models and optimum's environment")
    words = ("MODEL", "HEADS", "HEAD", "KIND", "BATCH", "LENGTH")
    parser.add_argument("--one", nargs=len(words), metavar=words, help="only time this, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        path, heads, head, kind, batch, length = arguments.one
        print(json.dumps(timed(Path(path), (int(heads), int(head)), Cell(kind, int(batch), int(length)))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        result = run_all(folder, arguments.rounds, tuple(arguments.family or ("gpt2", "llama")))
    for title, found in result.items():
        Console(width=150).print(table(title, found))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
