"""A trained model as a folder of the model hub: `config.json` and its weights, multipliers folded in, in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cgc.checkpoints import Arrays, hub_shapes, hub_tensors, read_checkpoint_file, write_weights
from cgc.diagnostics import Diagnostic, InputError
from cgc.driver import UsageError
from cgc.importers.export import export_sizes
from cgc.parametrize.fold import folded
from cgc.program import Program
from cgc.services import NamedWeights
from cgc.target import Artifact, load_target, text_artifact
from cgc.tensor_file import Array, StoredTensor, read_tensors, size_of, write_tensors

MODULE_TARGET = "torch"
DTYPES = {"f32": "F32", "bf16": "BF16", "f16": "F16"}
_HUB_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Weights by parameter path, and the type that all of them are stored in; None where they differ."""

    weights: Arrays
    dtype: str | None


def load_weights(path: Path, program: Program) -> Loaded:
    """Read weights in any layout: the hub's, cgc's own, or that of an emitted module (a project's `model.safetensors`).

    Raises:
        InputError: as `cgc.checkpoints.read_checkpoint_file`; CG0704 too where a module's weights are not this model's.
    """
    stored = read_tensors(path)
    dtypes = {tensor.dtype for tensor in stored.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    target = _module_target()
    if target is not None:
        theirs, own = set(target.state_names(program)), {param.name for param in program.graph.params}
        # a file is the module's where most of it is, and not as much of it cgc's own
        if 2 * len(theirs & stored.keys()) > len(stored) and len(theirs & stored.keys()) > len(own & stored.keys()):
            try:
                return Loaded(target.weights_from_state(program, _State(stored)), dtype)
            except ValueError as error:
                hint = "is it a checkpoint of this model, and of these sizes?"
                raise InputError([Diagnostic("CG0704", f"`{path}` does not fit: {error}", (), hint)]) from error
    return Loaded(read_checkpoint_file(path, program), dtype)


def _module_target() -> NamedWeights | None:
    try:
        target = load_target(MODULE_TARGET)
    except (KeyError, ImportError):
        return None
    return target if isinstance(target, NamedWeights) else None


class _State(Mapping[str, Array]):
    """Tensors of a file, read when they are asked for."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Array:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


class _Scaled(Mapping[str, Array]):
    """Weights with some multiplied by a number, each when it is asked for."""

    def __init__(self, weights: Arrays, scales: Mapping[str, float]) -> None:
        self._weights = weights
        self._scales = scales

    def __getitem__(self, name: str) -> Array:
        array = self._weights[name]
        scale = self._scales.get(name)
        return array if scale is None else (np.asarray(array, np.float64) * scale).astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def hub_folder(program: Program, loaded: Loaded, dtype: str | None, shard_bytes: int) -> tuple[Artifact, ...]:
    """Return the files of a hub folder: `config.json`, and the weights in one file, or in shards with an index.

    `dtype` is `f32`, `bf16` or `f16`; by default that of the weights as they were read. A shard holds at most
    `shard_bytes`, or one tensor. The configuration says nothing of initial distributions or multipliers: the first are
    past, the others folded into the weights.

    Raises:
        InputError: CG0686, a multiplier cannot be folded; CG1008, the model is of another family.
    """
    config: dict[str, Any] = json.loads(export_sizes(program))
    scales = folded(program)
    given = loaded.dtype if loaded.dtype in _HUB_DTYPES and not scales else "F32"
    stored = given if dtype is None else DTYPES[dtype]
    config["dtype"] = _HUB_DTYPES[str(stored)]
    shapes = hub_shapes(program)
    tensors = hub_tensors(program, _Scaled(loaded.weights, scales))
    text = text_artifact("config.json", json.dumps(config, indent=2) + "\n")
    return (text, *_shards(shapes, tensors, str(stored), shard_bytes))


def _shards(
    shapes: Mapping[str, tuple[int, ...]], tensors: Iterator[tuple[str, Array]], dtype: str, most: int
) -> Iterator[Artifact]:
    """Yield the files of the weights. They have to be written in order: tensors are made once, one after another."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = size_of(shape, dtype)
        if groups[-1] and filled + size > most:
            groups.append({})
            filled = 0
        groups[-1][name] = shape
        filled += size
    names = ["model.safetensors"]
    if len(groups) > 1:
        names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        yield _shard(name, group, tensors, dtype)
    if len(groups) > 1:
        total = sum(size_of(shape, dtype) for shape in shapes.values())
        where = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        yield text_artifact("model.safetensors.index.json", json.dumps(index, indent=2) + "\n")


def _shard(
    name: str, shapes: Mapping[str, tuple[int, ...]], tensors: Iterator[tuple[str, Array]], dtype: str
) -> Artifact:
    def write(path: Path) -> None:
        write_tensors(path, shapes, islice(tensors, len(shapes)), dtype)

    return Artifact(name, write)


def imported_weights(program: Program, loaded: Loaded, layout: str, name: str) -> Artifact:
    """Return weights as one file: in the names of the emitted module (`module`), or in cgc's `own` layout.

    Raises:
        InputError: CG0704, weights do not fit the module.
        UsageError: the PyTorch target is not installed.
    """
    if layout == "own":

        def write_own(path: Path) -> None:
            write_weights(path, program, loaded.weights)

        return Artifact(name, write_own)
    target = _module_target()
    if target is None:
        raise UsageError("--layout module needs the target `torch`")
    state = target.state_from_weights(program, dict(loaded.weights))

    def write(path: Path) -> None:
        write_tensors(path, {key: tuple(array.shape) for key, array in state.items()}, iter(state.items()))

    return Artifact(name, write)


def parse_bytes(text: str) -> int:
    """Parse `5GB` or `500MB` (UsageError where it is something else)."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = text[:-2], text[-2:].upper()
    try:
        size = int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError) as error:
        raise UsageError(f"--shard-size {text}: write it as in `--shard-size 5GB`") from error
    if size < 1:
        raise UsageError(f"--shard-size {text}: a shard holds something")
    return size
