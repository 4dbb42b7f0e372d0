"""Greedy decoding of an ONNX model with the hub's names, and of the public implementation, for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from click.testing import CliRunner

from cgc.cli import main

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Inputs by name → outputs by name."""


def compiled(source: str, hub: Any, folder: Path, *flags: str) -> Path:
    """Save the public model `hub`, compile `source` with its weights, and return the folder written."""
    hub.save_pretrained(folder / "hub")
    (folder / "m.cg").write_text(source, encoding="utf-8")
    words = ["compile", str(folder / "m.cg"), "--target=onnx", "--kv-cache", "--weights", str(folder / "hub")]
    run = CliRunner().invoke(main, [*words, "-o", str(folder / "out"), *flags])
    assert run.exit_code == 0, run.output
    return folder / "out"


def session(folder: Path) -> Any:
    """Return ONNX Runtime with the model in `folder`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def runner(loaded: Any) -> Run:
    """Return a session as a function."""
    names = [value.name for value in loaded.get_outputs()]
    return lambda inputs: dict(zip(names, loaded.run(names, dict(inputs)), strict=True))


def empty_caches(shapes: Mapping[str, list[Any]], batch: int) -> dict[str, Array]:
    """Return caches without a past; `shapes` are those of the model's inputs."""
    sizes = {"batch_size": batch, "past_sequence_length": 0}
    return {
        name: np.zeros([sizes.get(size, size) for size in shape], np.float32)
        for name, shape in shapes.items()
        if name.startswith("past_key_values.")
    }


def greedy(run: Run, shapes: Mapping[str, list[Any]], prompt: Array, mask: Array, count: int) -> Array:
    """Return `count` tokens for each row of `prompt`, each the likeliest: the prompt at once, then one at a time."""
    state, tokens, found = empty_caches(shapes, len(prompt)), prompt, []
    for _ in range(count):
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -tokens.shape[1] :]
        inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, **state}
        results = run({name: array for name, array in inputs.items() if name in shapes})
        tokens = np.asarray(results["logits"])[:, -1:].argmax(-1)
        found.append(tokens)
        mask = np.concatenate([mask, np.ones((len(prompt), 1), np.int64)], 1)
        state = {
            name.replace("present", "past_key_values"): np.asarray(array)
            for name, array in results.items()
            if name.startswith("present.")
        }
    return np.concatenate(found, 1)


def input_shapes(loaded: Any) -> dict[str, list[Any]]:
    """Return the shapes of a session's inputs by name."""
    return {value.name: list(value.shape) for value in loaded.get_inputs()}


def public_greedy(public: Any, prompt: Array, count: int) -> Array:
    """Return the tokens that the public implementation finds likeliest, the whole sequence anew for each."""
    tokens = torch.tensor(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens = torch.cat((tokens, public(tokens).logits[:, -1:].argmax(-1)), 1)
    return tokens[:, prompt.shape[1] :].numpy()
