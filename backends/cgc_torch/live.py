"""The emitted source as a live `nn.Module`, and the ways of running a program with PyTorch."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from cgc.program import Program
from cgc_torch.expressions import TORCH_DTYPES
from cgc_torch.files import model_artifact, weights_artifact
from cgc_torch.source import emit, model_class
from cgc_torch.weights import from_state, to_state

if TYPE_CHECKING:
    from cgc.target import Arrays, Evaluator

Array: TypeAlias = np.ndarray[Any, Any]


class _Emitted(importlib.abc.SourceLoader):
    """Loads a module from source that was never written to a file."""

    def __init__(self, source: str) -> None:
        self._source = source

    def get_data(self, path: str) -> bytes:
        """Return the source; `path` is only what tracebacks show."""
        del path
        return self._source.encode()

    def get_filename(self, fullname: str) -> str:
        return f"<{fullname}>"


def import_source(source: str, name: str) -> ModuleType:
    """Import emitted source as a module.

    The module's name ends in a digest of the source, so that the same source is the same module, as with files.
    Tracebacks, `inspect` and `torch.compile` see its lines.
    """
    full = f"cgc_torch.emitted.{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    if full in sys.modules:
        return sys.modules[full]
    loader = _Emitted(source)
    spec = importlib.machinery.ModuleSpec(full, loader, origin=loader.get_filename(full))
    module = importlib.util.module_from_spec(spec)
    module.__file__ = loader.get_filename(full)
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    sys.modules[full] = module
    loader.exec_module(module)
    return module


def to_torch(program: Program, weights: Arrays | None = None) -> nn.Module:
    """Return `program` as a module: the one that the emitted file defines.

    It takes the graph's inputs in order or by name, and returns the output, or a dict of outputs where there are
    several: tokens [batch, seq] to logits [batch, seq, vocab]. `weights` are arrays by parameter path, stacked ones
    with their loop dimensions first; without, parameters are drawn from their initial distributions.

    Raises:
        ValueError: the weights are not this program's.
    """
    make = cast(Callable[[], nn.Module], getattr(import_source(emit(program), program.name), model_class(program)))
    if weights is None:
        return make()
    with torch.device("meta"):
        module = make()
    load_weights(module, program, weights)
    return module


def load_weights(module: nn.Module, program: Program, weights: Arrays) -> None:
    """Copy arrays by parameter path into a module of `program` (ValueError where they are not its parameters)."""
    dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    state = {key: torch.tensor(array, dtype=dtypes[key]) for key, array in to_state(program, weights).items()}
    module.load_state_dict(state, assign=True)


def save_weights(module: nn.Module, program: Program) -> dict[str, Array]:
    """Return the parameters of a module of `program` as arrays by path, stacked ones with their loop dimensions."""
    state = {key: tensor.detach().cpu().numpy() for key, tensor in module.state_dict().items()}
    return from_state(program, state)


def evaluators(program: Program) -> Iterator[tuple[str, Evaluator]]:
    """Return the ways of running `program` with PyTorch: as built, compiled, and from the files that are written."""
    yield "torch (eager)", _eager(program)
    backend = "inductor" if any(shutil.which(name) for name in ("c++", "g++", "clang++")) else "aot_eager"
    yield f"torch (compiled{'' if backend == 'inductor' else ', ' + backend})", _compiled(program, backend)
    yield "torch (emitted)", _emitted(program)


def _eager(program: Program) -> Evaluator:
    def run(weights: Arrays, inputs: Arrays) -> Arrays:
        return _evaluate(to_torch(program, weights), program, inputs)

    return run


def _compiled(program: Program, backend: str) -> Evaluator:
    def run(weights: Arrays, inputs: Arrays) -> Arrays:
        module = to_torch(program, weights)
        return _evaluate(torch.compile(module, fullgraph=True, dynamic=True, backend=backend), program, inputs)

    return run


def _emitted(program: Program) -> Evaluator:
    """Write `model.py` and `model.safetensors` to a folder, and use them as a person would."""

    def run(weights: Arrays, inputs: Arrays) -> Arrays:
        from safetensors.torch import load_file

        with tempfile.TemporaryDirectory() as folder:
            source, saved = Path(folder, "model.py"), Path(folder, "model.safetensors")
            model_artifact(program).write(source)
            weights_artifact(program, weights).write(saved)
            spec = importlib.util.spec_from_file_location("model", source)
            if spec is None or spec.loader is None:
                raise ImportError(f"cannot import {source}")
            file = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(file)
            module = cast(nn.Module, getattr(file, model_class(program))())
            module.load_state_dict(load_file(saved))
            return _evaluate(module, program, inputs)

    return run


def _evaluate(module: Callable[..., Any], program: Program, inputs: Arrays) -> Arrays:
    tensors: dict[str, Tensor] = {}
    for value in program.graph.inputs:
        dtype = getattr(torch, TORCH_DTYPES[value.type.dtype].removeprefix("torch."))
        tensors[value.name] = torch.from_numpy(np.ascontiguousarray(inputs[value.name])).to(dtype)
    with torch.no_grad():
        result = module(*tensors.values())
    outputs: Mapping[str, Tensor] = result if isinstance(result, dict) else {program.graph.outputs[0]: result}
    return {name: tensor.detach().numpy() for name, tensor in outputs.items()}
