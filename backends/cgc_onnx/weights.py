"""Parameters beside the graph: where each tensor lies in the data file, and writing it there without copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from onnx import StringStringEntryProto, TensorProto

from cgc.ir.dims import Dim
from cgc.ir.graph import Param
from cgc.ir.types import BYTES, DType
from cgc.target import TargetError
from cgc_onnx.layout import Parameter, static_size
from cgc_onnx.writer import ELEMENT_TYPES

Array: TypeAlias = np.ndarray[Any, Any]

PAGE = 4096
"""Large tensors start on a page of memory, so that a runtime can map them; small ones on a cache line."""
LARGE = 1 << 20
LINE = 64
BLOCK = 1 << 24
"""Bytes converted at a time where an array is not already what the file holds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of the data file: `size` bytes from `offset`, which are entries `index` of the parameter `param`."""

    name: str
    param: str
    index: tuple[int, ...]
    dims: tuple[Dim, ...]
    dtype: DType
    offset: int
    size: int


def plan(parameters: Sequence[tuple[Param, Parameter]]) -> list[Stored]:
    """Return where each tensor of `parameters` lies, in their order.

    Raises:
        TargetError: a parameter has a size that is not known.
    """
    entries: list[Stored] = []
    end = 0
    for param, parameter in parameters:
        size = BYTES[parameter.dtype]
        for dim in parameter.dims:
            size *= static_size(dim)
        unit = PAGE if size >= LARGE else LINE
        indices = cartesian(*(range(static_size(dim)) for dim in parameter.loops))
        for name, index in zip(parameter.names, indices, strict=True):
            offset = -(-end // unit) * unit
            entries.append(Stored(name, param.name, index, parameter.stored, parameter.dtype, offset, size))
            end = offset + size
    return entries


def initializer(entry: Stored, file: str) -> TensorProto:
    """Return the tensor that says it lies in `file`, a name relative to the model's."""
    tensor = TensorProto(name=entry.name, data_type=ELEMENT_TYPES[entry.dtype], data_location=TensorProto.EXTERNAL)
    tensor.dims.extend(static_size(dim) for dim in entry.dims)
    for key, value in (("location", file), ("offset", str(entry.offset)), ("length", str(entry.size))):
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
    return tensor


def check_weights(params: Sequence[Param], weights: Mapping[str, Array]) -> None:
    """Check that every parameter has weights; shapes are checked as each is read, so that none is read for it alone.

    Raises:
        TargetError: one has none.
    """
    # Names are iterated, since `in` on a mapping that reads lazily would read the array.
    present = set(weights)
    for param in params:
        if param.name not in present:
            raise TargetError("CG0702", f"the weights have no `{param.name}`")


def write_weights(path: Path, entries: Sequence[Stored], params: Sequence[Param], weights: Mapping[str, Array]) -> None:
    """Write the data file: one parameter after another is taken from `weights`, written and let go.

    Raises:
        TargetError: an array has another shape than its parameter.
        OSError: the file cannot be written.
    """
    by_param: dict[str, list[Stored]] = {}
    for entry in entries:
        by_param.setdefault(entry.param, []).append(entry)
    with path.open("wb", buffering=0) as file:
        for param in params:
            array = weights[param.name]
            if array.shape != param.type.shape:
                shape = tuple(map(str, param.type.shape))
                raise TargetError("CG0704", f"`{param.name}` has shape {array.shape}, not ({', '.join(shape)})")
            for entry in by_param.get(param.name, ()):
                file.seek(entry.offset)
                for block in _blocks(array[entry.index], numpy_dtype(entry.dtype)):
                    _write_all(file.write, block)
            del array


def _write_all(write: Any, block: Array) -> None:
    # One write call takes at most 2 GiB on Linux.
    data = block.reshape(-1).view(np.uint8).data
    while data:
        data = data[write(data) :]


def _blocks(array: Array, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Yield `array` as contiguous arrays of `dtype` that follow one another: itself where it is one already."""
    if array.dtype == dtype and array.flags.c_contiguous:
        yield array
        return
    if array.ndim == 0:
        yield array.astype(dtype)
        return
    rows = max(1, BLOCK // max(1, dtype.itemsize * array[:1].size))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows], dtype=dtype)


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the little-endian NumPy type of `dtype`."""
    if dtype == "bf16":
        import ml_dtypes

        brain: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return brain
    kinds = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "bool": "?"}
    return np.dtype(kinds[dtype])
