"""Running an emitted model, written to disk and loaded as a user would, in ONNX Runtime and in ONNX's reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cgc.program import Program
from cgc.target import CompileOptions, Evaluator
from cgc_onnx.emit import MODEL, artifacts
from cgc_onnx.weights import Array, numpy_dtype


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
            results: list[Any] = session.run(list(program.graph.outputs), _feeds(program, inputs))
        return dict(zip(program.graph.outputs, results, strict=True))

    return run


def reference_evaluator(program: Program, *, flat: bool = False) -> Evaluator:
    """Return `program` as a function that ONNX's reference evaluator computes."""

    def run(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        import onnx
        from onnx.reference import ReferenceEvaluator

        with TemporaryDirectory() as folder:
            model = onnx.load(str(write(program, CompileOptions(flat=flat, weights=weights), Path(folder))))
        results: Any = ReferenceEvaluator(model).run(list(program.graph.outputs), _feeds(program, inputs))
        return {name: np.asarray(x) for name, x in zip(program.graph.outputs, results, strict=True)}

    return run
