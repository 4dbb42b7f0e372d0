"""Training small copies with PyTorch: the emitted module and its own optimizer, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cgc.driver import UsageError, find_target
from cgc.experiments.data import split, windows
from cgc.program import Program
from cgc.weights import initialize

if TYPE_CHECKING:
    from torch import nn

Array: TypeAlias = "np.ndarray[Any, Any]"

USUAL_RATE = 1e-3
"""The base learning rate where the file gives none."""
EVALUATIONS = 20
"""Batches of held-out text that a loss is the mean of."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a copy is trained: rate at the peak, steps, windows a step, tokens a window, seed."""

    lr: float
    steps: int
    batch: int
    seq: int
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Losses in nats per token: at every step, and on held-out text at the end (infinite where training diverged)."""

    losses: tuple[float, ...]
    held_out: float


def tokens_and_limit(program: Program) -> tuple[str, int, int | None]:
    """Return the name of the token input, its vocabulary, and the most tokens of a sequence, if there is such a limit.

    Raises:
        UsageError: the model does not map one tensor of tokens [batch, seq] to logits over the same vocabulary.
    """
    graph = program.graph
    vocab = graph.inputs[0].type.indexes if len(graph.inputs) == 1 else None
    if vocab is None or not isinstance(vocab.size, int) or len(graph.inputs[0].type.dims) != 2:
        raise UsageError("the experiments train models of one input, tokens[batch, seq] : id of vocab")
    result = graph.body.results[0].type
    if len(graph.outputs) != 1 or result.names[-1:] != (vocab.name,):
        raise UsageError(
            f"the experiments train models with one output, logits over `{vocab.name}`, its last dimension"
        )
    seq = str(graph.inputs[0].type.dims[1].size)
    limit = next((symbol.limit for symbol in graph.symbols if symbol.name == seq), None)
    most = limit.size if limit is not None and isinstance(limit.size, int) else None
    return graph.inputs[0].name, vocab.size, most


def schedule(step: int, steps: int) -> float:
    """Return the part of the peak rate at a step: warmup over a twentieth of the run, then a cosine to a tenth."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2


def live_module(program: Program, seed: int) -> nn.Module:
    """Return the emitted module with weights drawn by cgc from the initial distributions."""
    target: Any = find_target("torch")
    module: nn.Module = target.to_torch(program, initialize(program.graph, seed))
    return module


def optimizer_of(module: nn.Module, lr: float) -> Any:
    """Return the module's own optimizer: AdamW, with the groups that were derived."""
    import torch

    configure: Callable[..., Any] | None = getattr(module, "configure_optimizers", None)
    if configure is not None:
        return configure(learning_rate=lr)
    return torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.0)


def rate_of(program: Program) -> float:
    """Return the base learning rate that the file gives, or a usual one."""
    rates = [program.mup.value("lr") if program.mup else None, program.train.lr if program.train else None, USUAL_RATE]
    return next(rate for rate in rates if rate is not None)


def loss_of(module: nn.Module, tokens: Array, targets: Array) -> Any:
    """Return the mean cross-entropy of one batch as a tensor."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    logits = module(torch.from_numpy(tokens))
    return F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())


def train(program: Program, text: Array, run: Run) -> Outcome:
    """Train a copy on a text."""
    losses = list(steps_of(program, text, run))
    diverged = len(losses) < run.steps + 1
    return Outcome(tuple(losses[: run.steps]), math.inf if diverged else losses[-1])


def steps_of(program: Program, text: Array, run: Run) -> Iterator[float]:
    """Yield the loss of every step, then the one on held-out text; ends early where a loss is no number."""
    import torch

    torch.manual_seed(run.seed)
    module = live_module(program, run.seed)
    optimizer = optimizer_of(module, run.lr)
    peaks = [group["lr"] for group in optimizer.param_groups]
    seen, held_out = split(text)
    random = np.random.default_rng(run.seed)
    for step in range(run.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule(step, run.steps)
        loss = loss_of(module, *windows(seen, run.batch, run.seq, random))
        value = float(loss.detach())
        yield value
        if not math.isfinite(value):
            return
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        fixed = np.random.default_rng(0)
        values = [float(loss_of(module, *windows(held_out, run.batch, run.seq, fixed))) for _ in range(EVALUATIONS)]
    yield float(np.mean(values))
