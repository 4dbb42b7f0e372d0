"""Small programs built node by node, and their comparison: ONNX Runtime and ONNX's reference against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cgc_onnx.evaluate import onnxruntime_evaluator, reference_evaluator, write
from cgc_onnx.parameters.weights import numpy_dtype

from cgc.interpret import interpret
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, Size, evaluate, symbol
from cgc.ir.graph import Function, Graph, Init, Param, Symbol, Value
from cgc.ir.types import DType, TensorType
from cgc.ir.verify import verify
from cgc.program import Program
from cgc.target import CompileOptions

BATCH = Dim("batch", symbol("batch"))
SEQ = Dim("seq", symbol("seq"))
KEY = Dim("key", symbol("seq"))
SYMBOLS = (Symbol("batch"), Symbol("seq"))
NORMAL = Init("normal", std=1.0)

Body = Callable[[Builder, Sequence[Value], Sequence[Value]], Sequence[Value]]
Arrays = Mapping[str, np.ndarray[Any, Any]]


def tensor(*dims: Dim, dtype: DType = "f32", of: Dim | None = None) -> TensorType:
    """Return a tensor type; `of` is the dimension that its entries index."""
    return TensorType(dims, dtype, of)


def build(
    body: Body,
    inputs: Mapping[str, TensorType],
    params: Mapping[str, TensorType] | None = None,
    functions: tuple[Function, ...] = (),
) -> Program:
    """Return a program whose outputs `y0`, `y1`, … are what `body` returns for the inputs and parameters."""
    by_name = {function.name: function for function in functions}
    builder = Builder(Names(), by_name.__getitem__)
    values = [builder.value(name, type) for name, type in inputs.items()]
    trained = [Param(builder.value(name, type), NORMAL) for name, type in (params or {}).items()]
    weights = [param.value for param in trained]
    results = tuple(body(builder, values, weights))
    region = builder.finish((*values, *weights), results)
    names = tuple(f"y{index}" for index in range(len(results)))
    graph = verify(Graph("sample", SYMBOLS, tuple(trained), functions, region, names))
    return Program("sample", graph, "sample", (), None, None, (), None, "sample.cg")


def function(
    name: str,
    body: Body,
    arguments: Mapping[str, TensorType],
    params: Mapping[str, TensorType] | None = None,
    known: tuple[Function, ...] = (),
) -> Function:
    """Return a block of a user's own; `known` are the functions that it may call."""
    program = build(body, arguments, params, known)
    graph = program.graph
    return Function(name, name, "", (), graph.params, graph.body, doc=f"What {name} is for.")


def sample(
    types: Mapping[str, TensorType], sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, np.ndarray[Any, Any]]:
    """Return random arrays of these types: indices within range, floats away from zero's neighbourhood by chance."""
    return {name: _array(type, sizes, rng) for name, type in types.items()}


def _array(type: TensorType, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = tuple(_size(dim.size, sizes) for dim in type.dims)
    if type.dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if type.dtype in ("i64", "i32"):
        kind = np.int64 if type.dtype == "i64" else np.int32
        if type.indexes:
            return rng.integers(0, _size(type.indexes.size, sizes), shape).astype(kind)
        return np.asarray(rng.integers(1, 9, shape) * rng.choice([-1, 1], shape), dtype=kind)
    return rng.standard_normal(shape).astype(numpy_dtype(type.dtype))


def _size(size: Size, sizes: Mapping[str, int]) -> int:
    return evaluate(size, sizes)


def inputs_of(program: Program) -> dict[str, TensorType]:
    """Return the types of a program's inputs by name."""
    return {value.name: value.type for value in program.graph.inputs}


def params_of(program: Program) -> dict[str, TensorType]:
    """Return the types of a program's parameters by path."""
    return {param.name: param.type for param in program.graph.params}


def largest_difference(expected: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> float:
    """Return max |expected - got| relative to max(1, |expected|); infinities and NaN must stand at the same places."""
    assert expected.shape == got.shape
    assert expected.dtype == got.dtype
    if expected.dtype == np.bool_ or expected.dtype.kind == "i":
        return float(np.any(expected != got))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(expected[~finite], got[~finite])
    if not finite.any():
        return 0.0
    scale = max(1.0, float(np.abs(expected[finite]).max()))
    return float(np.abs(expected[finite].astype(np.float64) - got[finite].astype(np.float64)).max()) / scale


def compare(program: Program, weights: Arrays, inputs: Arrays, tolerance: float = 1e-5) -> None:
    """Check both runtimes, with functions and flat, against the NumPy reference."""
    double = any(array.dtype == np.float64 for array in (*weights.values(), *inputs.values()))
    expected = interpret(program.graph, weights, inputs, np.float64 if double else np.float32)
    for flat in (False, True):
        for evaluator in (onnxruntime_evaluator(program, flat=flat), reference_evaluator(program, flat=flat)):
            got = evaluator(weights, inputs)
            assert list(got) == list(program.graph.outputs)
            for name, value in zip(program.graph.outputs, program.graph.body.results, strict=True):
                # NumPy computes all floats in one precision; the model has the one declared.
                wanted = np.asarray(expected[name]).astype(numpy_dtype(value.type.dtype))
                assert largest_difference(wanted, np.asarray(got[name])) <= tolerance, (name, flat)


def compare_at(program: Program, seed: int, tolerance: float = 1e-5) -> None:
    """Compare at random sizes and on random data, all decided by `seed`."""
    rng = np.random.default_rng(seed)
    sizes = {"batch": int(rng.integers(1, 4)), "seq": int(rng.integers(1, 7))}
    weights = sample(params_of(program), sizes, rng)
    compare(program, weights, sample(inputs_of(program), sizes, rng), tolerance)


def check_file(program: Program, folder: Path, *, flat: bool = False, weights: Arrays | None = None) -> onnx.ModelProto:
    """Write the model, run ONNX's checker with shape inference on the file, and return the model without its data."""
    path = write(program, CompileOptions(flat=flat, weights=weights), folder)
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(str(path), load_external_data=False)
