"""`cgc verify --weights`: a target with a checkpoint's own weights against PyTorch, at the model's own size.

Two comparisons: the logits of whole sequences, and decoding. There the target chooses tokens greedily, with its cache;
PyTorch then reads prompt and tokens at once, and must find the same token likeliest at every position. Where it finds
another, the two logits may be so near that either is right: the gap is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgc.diagnostics import InputError
from cgc.driver import UsageError, find_target, load_program
from cgc.elaborate.values import Scalar
from cgc.ir.graph import Graph
from cgc.program import Program
from cgc.services import DecodingTarget
from cgc.target import TargetError

if TYPE_CHECKING:
    from rich.table import Table

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit of PyTorch, that counts as equal in float32."""
BATCH, PROMPT, TOKENS = 2, 16, 64
"""How many sequences are compared, after how many given tokens each, and how many more by default."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One way of running the model: the largest relative difference of logits, tokens compared and equal, and the
    largest gap (relative to the largest logit) between a token chosen and the one PyTorch finds likeliest.
    """

    target: str
    runner: str
    difference: float
    tokens: int = 0
    equal: int = 0
    gap: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it agrees; a token may differ where PyTorch's own logits do not tell the two apart."""
        return self.difference <= TOLERANCE and self.gap <= TOLERANCE


@dataclass(frozen=True, slots=True)
class WeightsVerification:
    """All comparisons of a model with given weights, on sequences of so many `tokens` after a `prompt`."""

    program: Program
    prompt: int
    tokens: int
    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether all agree, and there is one."""
        return bool(self.comparisons) and all(comparison.ok for comparison in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        runs = [
            {
                "target": c.target,
                "runner": c.runner,
                "difference": c.difference,
                "tokens": c.tokens,
                "equal_tokens": c.equal,
                "largest_gap": c.gap,
                "ok": c.ok,
            }
            for c in self.comparisons
        ]
        sizes = {"sequences": BATCH, "prompt": self.prompt, "tokens": self.tokens}
        return {"ok": self.ok, "model": self.program.name, **sizes, "tolerance": TOLERANCE, "runs": runs}

    def table(self) -> Table:
        """Return a table for the terminal."""
        from rich.table import Table

        count = self.program.graph.parameter_count
        title = f"{self.program.name} ({count:,} parameters) against PyTorch with the same weights: {BATCH} sequences"
        if any(c.tokens for c in self.comparisons):
            title += f", {self.tokens} tokens each after a prompt of {self.prompt}"
        table = Table(title=title, title_justify="left")
        for name in ("target", "run by"):
            table.add_column(name)
        for name in ("largest relative difference of logits", "greedy tokens that are equal"):
            table.add_column(name, justify="right")
        table.add_column("")
        for c in self.comparisons:
            tokens = f"{c.equal} of {c.tokens}" if c.tokens else "-"
            table.add_row(c.target, c.runner, f"{c.difference:.1e}", tokens, "ok" if c.ok else "DIFFERS")
        return table


def verify_weights(
    file: str,
    overrides: Mapping[str, Scalar],
    model: str | None,
    targets: tuple[str, ...],
    weights: str,
    tokens: int | None,
    seed: int,
) -> WeightsVerification:
    """Compare `targets` (by default `onnx`) with PyTorch on `tokens` tokens a sequence after the prompt (by default
    `TOKENS`, or as many as the model takes); errors as `load_program`, and those of reading weights.

    Raises:
        InputError: CG0708, weights are not finite.
        UsageError: a target cannot be run, or the model has no tokens to decode, or takes fewer.
    """
    from cgc.checkpoints import read_checkpoint_file, require_finite

    program = load_program(file, overrides, model)
    arrays = read_checkpoint_file(Path(weights), program)
    prompt, new = _lengths(program.graph, tokens)
    for parameter, array in arrays.items():
        require_finite(parameter, array)  # or the target would be blamed for what it makes of them
    found: list[Comparison] = []
    torch_model = _Torch(program, arrays)
    for name in targets or ("onnx",):
        target = find_target(name)
        inputs = _tokens(program.graph, prompt + new, seed)
        expected = torch_model.logits(inputs)
        for runner, evaluator in target.evaluators(program):
            (got,) = list(evaluator(arrays, {_input(program.graph): inputs}).values())[:1]
            found.append(Comparison(name, runner, _relative(got, expected)))
        if isinstance(target, DecodingTarget) and new:
            given = _tokens(program.graph, prompt, seed + 1)
            found += _decoded(target, program, arrays, torch_model, given, new)
    return WeightsVerification(program, prompt, new, tuple(found))


def _decoded(
    target: DecodingTarget, program: Program, arrays: Any, torch_model: _Torch, prompt: Any, count: int
) -> list[Comparison]:
    """Compare `count` tokens that the target chooses after a `prompt` [batch, seq] with those PyTorch would."""
    import numpy as np

    found: list[Comparison] = []
    try:
        decoders = list(target.decoders(program))
    except (InputError, TargetError):
        return []  # it has no cache, and is run as a whole only
    for runner, decode in decoders:
        chosen, logits = decode(arrays, prompt, count)
        expected = torch_model.logits(np.concatenate([prompt, chosen], 1))[:, prompt.shape[1] - 1 : -1]
        likeliest = expected.max(-1)
        given = np.take_along_axis(expected, chosen[..., None], -1)[..., 0]
        scale = float(np.abs(expected).max()) or 1.0
        equal = int((expected.argmax(-1) == chosen).sum())
        gap = float((likeliest - given).max()) / scale
        found.append(Comparison(target.name, runner, _relative(logits, expected), chosen.size, equal, gap))
    return found


class _Torch:
    """The model in PyTorch, with a checkpoint's weights."""

    def __init__(self, program: Program, arrays: Any) -> None:
        target: Any = find_target("torch")
        self._module = target.to_torch(program, arrays).eval()

    def logits(self, tokens: Any) -> Any:
        """Return [batch, seq, vocab] logits of [batch, seq] tokens."""
        import torch

        with torch.no_grad():
            return self._module(torch.from_numpy(tokens)).numpy()


def _input(graph: Graph) -> str:
    names = [value.name for value in graph.inputs if value.type.indexes is not None]
    if len(graph.inputs) != 1 or len(names) != 1 or len(graph.outputs) != 1:
        raise UsageError("--weights: only a model from tokens to logits is compared")
    return names[0]


def _lengths(graph: Graph, tokens: int | None) -> tuple[int, int]:
    """Return how many tokens are given and how many follow, within what the model allows (UsageError beyond)."""
    (tokens_in,) = (value.type for value in graph.inputs if value.name == _input(graph))
    limit = next((symbol.limit for symbol in graph.symbols if symbol.limit and tokens_in.has(symbol.name)), None)
    if limit is None or not isinstance(limit.size, int):
        return PROMPT, tokens or TOKENS
    if tokens is not None and tokens >= limit.size:
        text = f"the model takes {limit.size} at most, of which the prompt is one or more"
        raise UsageError(f"--tokens {tokens}: {text}")
    new = tokens or min(TOKENS, limit.size - 1)
    return min(PROMPT, limit.size - new), new


def _tokens(graph: Graph, seq: int, seed: int) -> Any:
    """Return [batch, seq] tokens."""
    import numpy as np

    name = _input(graph)
    (value,) = (value for value in graph.inputs if value.name == name)
    assert value.type.indexes is not None
    size = value.type.indexes.size
    assert isinstance(size, int)
    return np.random.default_rng(seed).integers(0, size, (BATCH, seq))


def _relative(got: Any, expected: Any) -> float:
    import numpy as np

    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - expected).max()) / (float(np.abs(expected).max()) or 1.0)
