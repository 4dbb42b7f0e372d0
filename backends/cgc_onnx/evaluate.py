"""Running an emitted model, written to disk and loaded as a user would, in ONNX Runtime and in ONNX's reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np

from cgc.decoding import decoding
from cgc.program import Program
from cgc.services import Decoder
from cgc.target import CompileOptions, Evaluator
from cgc_onnx.emit import artifacts
from cgc_onnx.folder import MODEL
from cgc_onnx.parameters.weights import Array, numpy_dtype


def write(program: Program, options: CompileOptions, folder: Path) -> Path:
    """Write the model's files into `folder` and return the path of the model."""
    for artifact in artifacts(program, options)[1]:
        artifact.write(folder / artifact.name)
    return folder / MODEL


def _feeds(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {
        value.name: np.asarray(inputs[value.name], dtype=numpy_dtype(value.type.dtype), order="C")
        for value in program.graph.inputs
    }


def onnxruntime_evaluator(program: Program, *, flat: bool = False) -> Evaluator:
    """Return `program` as a function that ONNX Runtime computes on the processor."""

    def run(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        with TemporaryDirectory() as folder:
            path = write(program, CompileOptions(flat=flat, weights=weights), Path(folder))
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            results: list[Any] = session.run(None, _feeds(program, inputs))
        return dict(zip(program.graph.outputs, results, strict=True))

    return run


def reference_evaluator(program: Program, *, flat: bool = False) -> Evaluator:
    """Return `program` as a function that ONNX's reference evaluator computes."""

    def run(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        import onnx
        from onnx.reference import ReferenceEvaluator

        with TemporaryDirectory() as folder:
            # ONNX's own loader refuses data that has a second name, as a linked checkpoint has.
            options = CompileOptions(flat=flat, weights=weights, copy_weights=True)
            model = onnx.load(str(write(program, options, Path(folder))))
        results: Any = ReferenceEvaluator(model).run(None, _feeds(program, inputs))
        return {name: np.asarray(x) for name, x in zip(program.graph.outputs, results, strict=True)}

    return run


WAYS: Mapping[str, tuple[int | None, str | None]] = MappingProxyType(
    {
        "onnxruntime, standard operators": (None, None),
        "onnxruntime, its own operators": (None, "ort"),
        "onnxruntime, opset 18": (18, None),
    }
)
"""How a model for decoding is written: (opset, runtime)."""


def onnxruntime_decoder(program: Program, way: str) -> Decoder:
    """Return `program` with a cache as a function that decodes greedily; `way` is one of `WAYS`.

    Raises:
        InputError: CG0804, the model cannot be decoded.
    """
    made = decoding(program)
    opset, runtime = WAYS[way]

    def run(weights: Mapping[str, Array], prompt: Array, count: int) -> tuple[Array, Array]:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        options = CompileOptions(weights=weights, caches=made.caches, opset=opset, runtime=runtime)
        with TemporaryDirectory() as folder:
            path = write(made.program, options, Path(folder))
            session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
            return _greedy(session, prompt, count)

    return run


def _greedy(session: Any, prompt: Array, count: int) -> tuple[Array, Array]:
    names = [value.name for value in session.get_outputs()]
    known = {value.name: value.shape for value in session.get_inputs()}
    sizes = {"batch_size": len(prompt), "past_sequence_length": 0}
    state: dict[str, Array] = {
        name: np.zeros([sizes.get(size, size) for size in shape], np.float32)
        for name, shape in known.items()
        if name.startswith("past")
    }
    tokens, length = prompt, prompt.shape[1]
    chosen: list[Array] = []
    logits: list[Array] = []
    for _ in range(count):
        positions = np.broadcast_to(np.arange(length - tokens.shape[1], length), tokens.shape)
        mask = np.ones((len(prompt), length), np.int64)
        inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, **state}
        found = session.run(names, {name: np.ascontiguousarray(x) for name, x in inputs.items() if name in known})
        results = dict(zip(names, found, strict=True))
        logits.append(results["logits"][:, -1:])
        tokens = logits[-1].argmax(-1)
        chosen.append(tokens)
        length += 1
        state = {past: results[_present(past)] for past in state}
    return np.concatenate(chosen, 1), np.concatenate(logits, 1)


def _present(past: str) -> str:
    """Return the output that goes with a cache's input."""
    return past.replace("past_key_values", "present", 1) if "past_key" in past else past.replace("past", "present", 1)
