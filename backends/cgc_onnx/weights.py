"""Parameters beside the graph: where each tensor lies in the data file, and writing it there without copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cgc.checkpoints import CheckpointWeights
from cgc.ir.dims import Dim
from cgc.ir.graph import Param
from cgc.ir.types import BYTES, DType
from cgc.target import TargetError
from cgc_onnx.layout import Parameter, indices, static_size
from cgc_onnx.proto import ELEMENT_TYPES, Initializer
from cgc_onnx.writer import Writer

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Arrays: TypeAlias = "Mapping[str, Array]"

PAGE = 4096
"""Large tensors start on a page of memory, so that a runtime can map them; small ones on a cache line."""
LARGE = 1 << 20
LINE = 64
BLOCK = 1 << 24
"""Bytes converted at a time where an array is not already what the file holds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of the data file: `size` bytes from `offset`, which are entries `index` of the parameter `param`.

    `dtype` is what the file holds, `wanted` what the graph computes with.
    """

    name: str
    param: str
    index: tuple[int, ...]
    dims: tuple[Dim, ...]
    dtype: DType
    offset: int
    size: int
    wanted: DType = "f32"


def plan(parameters: Sequence[tuple[Param, Parameter]], precision: DType | None = None) -> list[Stored]:
    """Return where each tensor of `parameters` lies, in their order; matrices in `precision` where that is given.

    Raises:
        TargetError: a parameter has a size that is not known.
    """
    entries: list[Stored] = []
    end = 0
    for param, parameter in parameters:
        dtype = precision or parameter.dtype
        size = BYTES[dtype]
        for dim in parameter.dims:
            size *= static_size(dim)
        unit = PAGE if size >= LARGE else LINE
        for name, index in zip(parameter.names, indices(parameter.loops), strict=True):
            offset = -(-end // unit) * unit
            entries.append(Stored(name, param.name, index, parameter.stored, dtype, offset, size, parameter.dtype))
            end = offset + size
    return entries


def write_initializers(writer: Writer, entries: Sequence[Stored], file: str) -> list[Initializer]:
    """Return the tensors that say they lie in `file`, a name relative to the model's, and cast what is stored in
    another precision.
    """
    return [_initializer(writer, entry, file) for entry in entries]


def _initializer(writer: Writer, entry: Stored, file: str) -> Initializer:
    name = entry.name
    if entry.dtype != entry.wanted:
        name = writer.fresh(f"{entry.name}.{entry.dtype}")
        writer.named("Cast", (name,), entry.name, to=ELEMENT_TYPES[entry.wanted])
    dims = tuple(static_size(dim) for dim in entry.dims)
    return Initializer(name, entry.dtype, dims, file, entry.offset, entry.size)


def check_weights(params: Sequence[Param], weights: Arrays) -> None:
    """Check that every parameter has weights; shapes are checked as each is read, so that none is read for it alone.

    Raises:
        TargetError: one has none.
    """
    # Names are iterated, since `in` on a mapping that reads lazily would read the array.
    present = set(weights)
    for param in params:
        if param.name not in present:
            raise TargetError("CG0702", f"the weights have no `{param.name}`")


def write_weights(path: Path, entries: Sequence[Stored], params: Sequence[Param], weights: Arrays) -> None:
    """Write the data file: one parameter after another is taken from `weights`, written and let go.

    A checkpoint's are put into the order of dimensions that `params` have.

    Raises:
        TargetError: an array has another shape than its parameter.
        OSError: the file cannot be written.
    """
    by_param: dict[str, list[Stored]] = {}
    for entry in entries:
        by_param.setdefault(entry.param, []).append(entry)
    with path.open("wb", buffering=0) as file:
        for param in params:
            if param.name in by_param:
                for entry, array in layers_of(param, by_param[param.name], weights):
                    file.seek(entry.offset)
                    for block in _blocks(array, entry.dtype):
                        write_all(file.write, block)


def layers_of(param: Param, entries: Sequence[Stored], weights: Arrays) -> Iterator[tuple[Stored, Array]]:
    """Yield what each of `entries`, all of `param`, holds; of a checkpoint no more than that is read at a time.

    Raises:
        TargetError: an array has another shape than its parameter.
    """
    if isinstance(weights, CheckpointWeights):
        for entry in entries:
            yield entry, weights.layer(param.name, entry.index, param.type.names[len(entry.index) :])
        return
    whole = weights[param.name]
    if whole.shape != param.type.shape:
        shape = tuple(map(str, param.type.shape))
        raise TargetError("CG0704", f"`{param.name}` has shape {whole.shape}, not ({', '.join(shape)})")
    for entry in entries:
        yield entry, whole[entry.index]


def write_all(write: Callable[[Any], int | None], block: Array) -> None:
    """Write an array's bytes; one write call takes at most 2 GiB on Linux."""
    import numpy as np

    data = block.reshape(-1).view(np.uint8).data
    while data:
        data = data[write(data) or 0 :]


def _blocks(array: Array, dtype: DType) -> Iterator[Array]:
    """Yield `array` as contiguous arrays of `dtype` that follow one another: itself where it is one already."""
    import numpy as np

    wanted = numpy_dtype(dtype)
    if array.dtype == wanted and array.flags.c_contiguous:
        yield array
        return
    if array.ndim == 0:
        yield array.astype(wanted)
        return
    rows = max(1, BLOCK // max(1, wanted.itemsize * array[:1].size))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).astype(wanted, copy=False)


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the little-endian NumPy type of `dtype`."""
    import numpy as np

    if dtype == "bf16":
        import ml_dtypes

        brain: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return brain
    kinds = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "bool": "?"}
    return np.dtype(kinds[dtype])
