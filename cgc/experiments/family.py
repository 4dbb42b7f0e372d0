"""A family trained as its `train` item says: every model for its own number of tokens, on the bytes of a text.

Each model has a folder: `config.json` says what is trained, `log.jsonl` is a line for every few steps, `result.json`
ends it, and `state.safetensors` is where training goes on that was killed. What a step trains on depends on the seed
and the step alone, so that a run that was interrupted gives the very numbers of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cgc.analysis.flops import training_flops
from cgc.driver import UsageError, check, write_artifacts
from cgc.elaborate.values import Scalar
from cgc.experiments.data import read_bytes, split, windows
from cgc.experiments.training import live_module, loss_of, optimizer_of, rate_of, tokens_and_limit
from cgc.program import Program
from cgc.target import Artifact, text_artifact
from cgc.training_run import TrainingRun, training_run

if TYPE_CHECKING:
    from torch import nn

Array: TypeAlias = "np.ndarray[Any, Any]"

LOG_EVERY = 50
"""Steps between two lines of the log."""
SAVE_EVERY = 30.0
"""Seconds between two saved states."""
EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True)
class Member:
    """One model of a family, its run, and where its results are kept."""

    program: Program
    run: TrainingRun
    lr: float
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.program.name

    def config(self, text: Array) -> dict[str, Any]:
        """Return what decides the result, as JSON-able data."""
        run, count = self.run, self.program.graph.parameter_count
        sizes = {"batch": run.batch, "seq": run.seq}
        return {
            "model": self.name,
            "arguments": dict(self.program.arguments),
            "parametrization": self.program.parametrization.name if self.program.parametrization else "sp",
            "parameters": count,
            "batch": run.batch,
            "seq": run.seq,
            "steps": run.steps,
            "tokens": run.tokens,
            "flops": training_flops(self.program.graph, sizes) * run.steps,
            "lr": self.lr,
            "schedule": [[phase.shape, phase.steps, phase.start, phase.to] for phase in run.phases],
            "seed": self.seed,
            "graph": hashlib.sha256(str(self.program.graph).encode()).hexdigest()[:16],
            "text": hashlib.sha256(text.tobytes()).hexdigest()[:16],
        }


def members(
    files: tuple[str, ...], overrides: dict[str, Scalar], out: Path, seed: int, lr: float | None = None
) -> list[Member]:
    """Return all models of some files, smallest first; `lr` comes before the rate that a file gives.

    Raises:
        InputError: a file has faults, or its run cannot be counted (CG0680).
        UsageError: a model is no language model, or two have one name.
    """
    found: list[Member] = []
    for file in files:
        for program in check(file, overrides, scaling="none").programs:
            tokens_and_limit(program)
            found.append(Member(program, training_run(program), lr or rate_of(program), seed, out / program.name))
    names = [member.name for member in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two models are called `{twice[0]}`: each needs a folder of its own")
    if not found:
        raise UsageError(f"{', '.join(files)}: there is no model to train")
    return sorted(found, key=lambda member: member.run.tokens)


def train_member(member: Member, data: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train one model to the end of its run, or return the result that it has already.

    Raises:
        InputError: the text cannot be used (CG0006), or the folder cannot be written (CG0004).
    """
    _, vocab, _ = tokens_and_limit(member.program)
    text = read_bytes(Path(data), vocab)
    config = member.config(text)
    state = _State.of(member, config)
    if state.result is not None:
        return state.result
    trained, held_out = split(text)
    started = time.monotonic()
    saved = started
    for line in _steps(member, trained, state):
        last = line["step"] == member.run.steps
        diverged = not math.isfinite(line["loss"])
        if last or diverged or line["step"] % LOG_EVERY == 0:
            state.lines.append({**line, "flops": config["flops"] * line["tokens"] // config["tokens"]})
            progress(f"{member.name}: step {line['step']} of {member.run.steps}, loss {line['loss']:.4f}")
        if diverged:
            break
        if not last and time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            state.seconds += saved - started
            started = saved
            state.save(line["step"])
    state.seconds += time.monotonic() - started
    return state.finish(_evaluate(state.module, held_out, member.run.seq))


def _steps(member: Member, text: Array, state: _State) -> Iterator[dict[str, Any]]:
    """Train, yielding a line after every step; ends early where the loss is no number."""
    import torch

    run, clip = member.run, member.program.train.clip if member.program.train else None
    module, optimizer = state.module, state.optimizer
    for step in range(state.step, run.steps):
        for group, peak in zip(optimizer.param_groups, state.peaks, strict=True):
            group["lr"] = peak * run.rate(step)
        random = np.random.default_rng((member.seed, step))
        loss = loss_of(module, *windows(text, run.batch, run.seq, random))
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        tokens = (step + 1) * run.tokens_per_step
        rate = member.lr * run.rate(step)
        yield {"step": step + 1, "tokens": tokens, "loss": float(loss.detach()), "lr": rate}


def _evaluate(module: nn.Module, text: Array, seq: int) -> float:
    """Return the mean loss over all of a text in windows that do not overlap; infinite where it is no number."""
    import torch

    places = np.arange(0, len(text) - seq, seq)[:, None] + np.arange(seq)
    losses: list[float] = []
    with torch.no_grad():
        for start in range(0, len(places), EVALUATION_BATCH):
            chosen = places[start : start + EVALUATION_BATCH]
            losses += [float(loss_of(module, text[chosen], text[chosen + 1]))] * len(chosen)
    mean = sum(losses) / len(losses)
    return mean if math.isfinite(mean) else math.inf


class _State:
    """Where the training of one model stands: in memory, and in its folder."""

    def __init__(self, member: Member, config: dict[str, Any]) -> None:
        self._folder = member.folder
        self._config = config
        self.module = live_module(member.program, member.seed)
        self.optimizer = optimizer_of(self.module, member.lr)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.seconds = 0.0
        self.lines: list[dict[str, Any]] = []
        self.result: dict[str, Any] | None = None

    @classmethod
    def of(cls, member: Member, config: dict[str, Any]) -> _State:
        """Return the state that a folder holds of this very run, a new one where it holds none."""
        state = cls(member, config)
        if _read(member.folder / "config.json") != config:
            write_artifacts((text_artifact("config.json", json.dumps(config, indent=2) + "\n"),), member.folder)
            for name in ("result.json", "state.safetensors"):
                (member.folder / name).unlink(missing_ok=True)
        state.result = _read(member.folder / "result.json")
        if state.result is None:
            state.load()
        return state

    def _named(self) -> Iterator[tuple[str, Any]]:
        for name, parameter in self.module.named_parameters():
            yield f"parameter:{name}", parameter
            moments = self.optimizer.state.get(parameter, {})
            yield from ((f"{kind}:{name}", value) for kind, value in moments.items())

    def save(self, step: int) -> None:
        """Write the state after a step, in one piece, so that it is never half of it."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().clone().contiguous() for name, value in self._named()}
        about = {"step": step, "seconds": self.seconds, "lines": self.lines}

        def write(path: Path) -> None:
            save_file(tensors, path, metadata={"run": json.dumps(about)})

        write_artifacts((self._log(), Artifact("state.safetensors", write)), self._folder)

    def load(self) -> None:
        """Take up the state in the folder, if there is one that can be read."""
        import torch
        from safetensors import SafetensorError, safe_open

        path = self._folder / "state.safetensors"
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return
        with torch.no_grad():
            parameters = dict(self.module.named_parameters())
            for key, tensor in tensors.items():
                kind, _, name = key.partition(":")
                if kind == "parameter":
                    parameters[name].copy_(tensor)
                else:
                    self.optimizer.state[parameters[name]][kind] = tensor
        self.step, self.seconds, self.lines = about["step"], about["seconds"], about["lines"]

    def _log(self) -> Artifact:
        return text_artifact("log.jsonl", "".join(json.dumps(line) + "\n" for line in self.lines))

    def finish(self, held_out: float) -> dict[str, Any]:
        """Write the result of the whole run, and return it."""
        keys = ("model", "parametrization", "parameters", "tokens", "flops")
        loss = held_out if math.isfinite(held_out) else None
        result = {**{key: self._config[key] for key in keys}, "val_loss": loss, "seconds": round(self.seconds, 1)}
        if self.lines:
            self.lines[-1] = {**self.lines[-1], "val_loss": loss}
        text = text_artifact("result.json", json.dumps(result, indent=2) + "\n")
        write_artifacts((self._log(), text), self._folder)
        (self._folder / "state.safetensors").unlink(missing_ok=True)
        return result


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
