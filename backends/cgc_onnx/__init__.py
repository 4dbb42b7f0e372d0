"""The target `onnx`: one model file with dynamic batch and sequence, blocks as functions, weights beside it.

`emit` builds the file, `functions` its structure, `lower`, `contraction` and `intrinsics` its operators, `proto` its
bytes; `linked` points into a checkpoint's files, `weights` writes a data file; `evaluate` runs the model.
"""

from __future__ import annotations

from collections.abc import Iterable

from cgc.program import Program
from cgc.services import Decoder
from cgc.target import Compilation, CompileOptions, Evaluator


class OnnxTarget:
    """ONNX models, for ONNX Runtime and whatever else reads opset 23."""

    name = "onnx"
    summary = "an ONNX model with dynamic batch and sequence, blocks as functions, weights as external data"
    takes = frozenset(
        {"batch", "seq", "flat", "weights", "copy_weights", "kv_cache", "unpadded"}
        | {"opset", "runtime", "precision", "quantize", "block"}
    )

    def compile(self, program: Program, options: CompileOptions) -> Compilation:
        """Return `model.onnx`, and with weights the files they are in: a checkpoint's own, or `model.onnx.data`.

        Without weights every parameter is an input of the model, named by its path.

        Raises:
            TargetError: an option does not fit the model, weights are missing, or a size must be known and is not.
        """
        from cgc_onnx.emit import artifacts
        from cgc_onnx.folder import BESIDE

        emission, files = artifacts(program, options)
        return Compilation(files, emission.report(), emission.summary(), BESIDE)

    def evaluators(self, program: Program) -> Iterable[tuple[str, Evaluator]]:
        """Return ONNX Runtime and ONNX's reference evaluator; both write the model's files and load them."""
        from cgc_onnx.evaluate import onnxruntime_evaluator, reference_evaluator

        return (
            ("onnxruntime", onnxruntime_evaluator(program)),
            ("onnx reference", reference_evaluator(program)),
        )

    def decoders(self, program: Program) -> Iterable[tuple[str, Decoder]]:
        """Return ONNX Runtime with each set of operators that a model for decoding is written in."""
        from cgc_onnx.evaluate import WAYS, onnxruntime_decoder

        return tuple((way, onnxruntime_decoder(program, way)) for way in WAYS)


TARGET = OnnxTarget()
