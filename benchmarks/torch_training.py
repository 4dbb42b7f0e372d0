"""A training step of an emitted model beside transformers' GPT-2 and nanoGPT's model: time and peak memory.

    NANOGPT=path/to/nanoGPT/model.py python -m benchmarks.torch_training [--cells tiny wide ...] [--runs 7]

Same shapes (biases, exact GELU, tied embeddings, no dropout, float32), same tokens, and for all the same strongest
setting around them: fused AdamW in two groups, gradients clipped and set to None. All models of a cell live in one
process and take their steps in turn, in rounds that start with another model each. Time is the median of CPU seconds of
one thread, which other work on the machine disturbs less than the clock; the ratio is the median over the rounds of the
ratio within a round, which it disturbs less still. Memory is the peak of PyTorch's allocations in a step as its
profiler records them, on top of parameters and moments, for each model in the same process too.

nanoGPT is no package: without `NANOGPT` its column says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

SOURCE = """use std/gpt2

model peer = gpt2(vocab={vocab}, context={context}, layers={layers}, width={width}, heads={heads})
"""
MISSING = "NANOGPT not given"


@dataclass(frozen=True)
class Cell:
    """A shape; `batch` sequences of `context` tokens a step."""

    vocab: int
    context: int
    layers: int
    width: int
    heads: int
    batch: int


CELLS = {
    "tiny": Cell(256, 64, 4, 128, 4, 12),
    "wide": Cell(256, 256, 6, 384, 6, 8),
    "deep": Cell(256, 256, 12, 256, 4, 4),
    "vocabulary": Cell(50257, 256, 4, 256, 4, 4),
    "gpt2": Cell(50257, 512, 12, 768, 12, 2),
}
PEERS = ("cgc", "transformers", "nanoGPT")


@dataclass(frozen=True)
class Measured:
    """CPU seconds of a step in each round, and the peak of memory in MiB."""

    rounds: tuple[float, ...]
    mebibytes: float

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


Loss = Callable[[Any, Any, Any], Any]


def ours(cell: Cell) -> tuple[Any, Loss]:
    """Return the emitted model and its loss."""
    from cgc_torch import TARGET

    from cgc.driver import load_program

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.cg"
        path.write_text(SOURCE.format(**{name: getattr(cell, name) for name in cell.__dataclass_fields__}))
        model: Any = TARGET.to_torch(load_program(str(path)))
    return model, lambda called, tokens, targets: called(tokens, targets)


def public(cell: Cell) -> tuple[Any, Loss]:
    """Return transformers' GPT-2 and its loss, which shifts the targets itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=cell.vocab, n_positions=cell.context, n_embd=cell.width, n_layer=cell.layers, n_head=cell.heads,
        activation_function="gelu", embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    model.train()
    return model, lambda called, tokens, _: called(input_ids=tokens, labels=tokens, use_cache=False).loss


def nano(cell: Cell, path: str) -> tuple[Any, Loss]:
    """Return the model in nanoGPT's file, and its loss."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    config = module.GPTConfig(cell.context, cell.vocab, cell.layers, cell.heads, cell.width, 0.0, True)
    return module.GPT(config), lambda called, tokens, targets: called(tokens, targets)[1]


def step_of(model: Any, called: Any, loss: Loss, tokens: Any, targets: Any) -> Callable[[], None]:
    """Return a step of training."""
    import torch

    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)

    def step() -> None:
        loss(called, tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_of(step: Callable[[], None]) -> int:
    """Return the most bytes that a step allocates beyond what was there before it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def measure(cell: Cell, compiled: bool, runs: int) -> dict[str, Measured]:
    """Return what a step of each model takes, all in this process and in turn."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = torch.randint(cell.vocab, (cell.batch, cell.context + 1))
    tokens, targets = whole[:, :-1].contiguous(), whole[:, 1:].contiguous()
    made = {"cgc": ours(cell), "transformers": public(cell)}
    if "NANOGPT" in os.environ:
        made["nanoGPT"] = nano(cell, os.environ["NANOGPT"])
    steps, held = {}, {}
    for name, (model, loss) in made.items():
        called = torch.compile(model) if compiled else model
        steps[name] = step_of(model, called, loss, tokens, targets)
        held[name] = 3 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        for _ in range(2):
            steps[name]()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(runs):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            start = time.process_time()
            steps[name]()
            seconds[name].append(time.process_time() - start)
    return {name: Measured(tuple(seconds[name]), (held[name] + peak_of(steps[name])) / 2**20) for name in names}


def compare(cells: list[str], runs: int) -> dict[tuple[str, bool], dict[str, Measured]]:
    """Measure all cells, eager and compiled."""
    return {(name, compiled): measure(CELLS[name], compiled, runs) for name in cells for compiled in (False, True)}


def ratio(what: str, own: Measured, peers: list[Measured]) -> float:
    """Return the ratio to the better one of the peers."""
    if what == "seconds":
        return max(median(a / b for a, b in zip(own.rounds, peer.rounds, strict=True)) for peer in peers)
    return own.mebibytes / min(peer.mebibytes for peer in peers)


def rows(found: dict[tuple[str, bool], dict[str, Measured]]) -> list[str]:
    """Return the table in Markdown; ratios are to the better one of the peers."""
    lines = [
        "| cell | what | cgc | transformers | nanoGPT | ratio to the best peer |",
        "|---|---|---|---|---|---|",
    ]
    for (name, compiled), measured in found.items():
        mode = "compiled" if compiled else "eager"
        for what, unit, scale in (("seconds", "CPU ms a step", 1000.0), ("mebibytes", "peak MiB", 1.0)):
            values = {peer: scale * getattr(one, what) for peer, one in measured.items()}
            shown = [f"{values[peer]:.1f}" if peer in values else MISSING for peer in PEERS]
            best = ratio(what, measured["cgc"], [one for peer, one in measured.items() if peer != "cgc"])
            lines.append(f"| {name}, {mode} | {unit} | {' | '.join(shown)} | {best:.2f} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Training steps beside transformers and nanoGPT.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["tiny", "vocabulary"])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    print("\n".join(rows(compare(options.cells, options.runs))))


if __name__ == "__main__":
    main()
