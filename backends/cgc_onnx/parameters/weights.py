"""Parameters beside the graph: where each tensor lies in the data file, and writing it there without copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from cgc.checkpoints import CheckpointWeights, require_finite
from cgc.ir.dims import Dim
from cgc.ir.graph import Param
from cgc.ir.types import BYTES, DType, is_float
from cgc.target import TargetError
from cgc_onnx.parameters.layout import ROWS, Parameter, indices, static_size
from cgc_onnx.parameters.quantization import Matrix, Quantization, quantize
from cgc_onnx.proto import ELEMENT_TYPES, Attribute, ElementType, Initializer
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
class Beside:
    """A tensor that says how the integers of another are unpacked: `size` bytes from `offset` of the data file."""

    ending: str
    element: ElementType
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Packed:
    """How one tensor is quantized: a matrix of `rows` by the `columns` that are contracted, with what lies `beside`.

    `looked_up` tells whether its rows are needed as a tensor of their own, which has the same bytes.
    """

    how: Quantization
    rows: int
    columns: int
    beside: tuple[Beside, ...]
    looked_up: bool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """The shape of the matrix as it is stored."""
        return (self.rows, self.columns) if self.how.operator else (self.columns, self.rows)

    @property
    def by_row(self) -> tuple[int, int]:
        """The shape of the integers, in bytes, row by row."""
        return self.rows, self.columns * self.how.bits // 8

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the integers as the file says it: MatMulNBits takes bytes by block."""
        how = self.how
        if how.operator:
            return self.rows, self.columns // how.block, how.block * how.bits // 8
        return self.matrix


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of the data file: `size` bytes from `offset`, which are entries `index` of the parameter `param`.

    `dtype` is what the file holds, `wanted` what the graph computes with; of a quantized one, `packed` says how.
    """

    name: str
    param: str
    index: tuple[int, ...]
    dims: tuple[Dim, ...]
    dtype: DType
    offset: int
    size: int
    wanted: DType = "f32"
    packed: Packed | None = None

    @property
    def end(self) -> int:
        """Where what belongs to it ends in the file."""
        last = self.packed.beside[-1] if self.packed else self
        return last.offset + last.size


def plan(
    parameters: Sequence[tuple[Param, Parameter]],
    precision: DType | None = None,
    how: Quantization | None = None,
    few: Mapping[str, Matrix] = MappingProxyType({}),
) -> list[Stored]:
    """Return where each tensor of `parameters` lies, in their order, in `precision` where that is given.

    Those of `few` are quantized.

    Raises:
        TargetError: a parameter has a size that is not known.
    """
    entries: list[Stored] = []
    end = 0
    for param, parameter in parameters:
        dtype = precision if precision and is_float(parameter.dtype) else parameter.dtype
        count = math.prod(static_size(dim) for dim in parameter.dims)
        matrix = _matrix(parameter, few.get(param.name), how)
        for name, index in zip(parameter.names, indices(parameter.loops), strict=True):
            packed = None
            if how is not None and matrix is not None:
                columns = math.prod(static_size(dim) for dim in parameter.dims if dim.name in matrix.contracted)
                size = count * how.bits // 8
                offset = _aligned(end, size)
                beside = _beside(how, count // columns, columns, offset + size)
                packed = Packed(how, count // columns, columns, beside, ROWS in parameter.layout.packed)
            else:
                size = count * BYTES[dtype]
                offset = _aligned(end, size)
            entry = Stored(name, param.name, index, parameter.stored, dtype, offset, size, parameter.dtype, packed)
            entries.append(entry)
            end = entry.end
    return entries


def _matrix(parameter: Parameter, matrix: Matrix | None, how: Quantization | None) -> Matrix | None:
    """Return `matrix` where each tensor of the parameter is one, as it has to lie to be quantized."""
    if matrix is None or how is None or (how.operator and not parameter.layout.packed):
        return None
    return matrix if tuple(dim.name for dim in parameter.loops) == matrix.loops else None


def _beside(how: Quantization, rows: int, columns: int, end: int) -> tuple[Beside, ...]:
    """Return what lies beside a quantized matrix that ends at `end`."""
    count = columns // how.block
    shape = (rows, count) if how.operator else (count, rows)
    scale, *points = how.beside
    scales = Beside(scale, "f32", shape, _aligned(end, LINE), rows * count * BYTES["f32"])
    if not points:
        return (scales,)
    row = -(-count // 2)
    shape, size = ((rows, row), rows * row) if how.operator else (shape, -(-rows * count // 2))
    return scales, Beside(points[0], how.element, shape, _aligned(scales.offset + scales.size, LINE), size)


def _aligned(end: int, size: int) -> int:
    unit = PAGE if size >= LARGE else LINE
    return -(-end // unit) * unit


def write_initializers(writer: Writer, entries: Sequence[Stored], file: str) -> list[Initializer]:
    """Return the tensors that say they lie in `file`, a name relative to the model's, and write the nodes that turn
    what is stored otherwise into what the graph computes with.
    """
    return [tensor for entry in entries for tensor in _initializers(writer, entry, file)]


def _initializers(writer: Writer, entry: Stored, file: str) -> list[Initializer]:
    name, dims = entry.name, tuple(static_size(dim) for dim in entry.dims)
    if entry.packed:
        return _packed(writer, entry, entry.packed, dims, file)
    if entry.dtype != entry.wanted:
        name = writer.fresh(f"{entry.name}.{entry.dtype}")
        writer.named("Cast", (name,), entry.name, to=ELEMENT_TYPES[entry.wanted])
    return [Initializer(name, entry.dtype, dims, file, entry.offset, entry.size)]


def _packed(writer: Writer, entry: Stored, packed: Packed, dims: tuple[int, ...], file: str) -> list[Initializer]:
    how, name = packed.how, entry.name
    beside = [f"{name}.{each.ending}" for each in packed.beside]
    if not how.operator:
        name, beside = writer.fresh(f"{name}.{how.element}"), [writer.fresh(each) for each in beside]
        attributes: dict[str, Attribute] = {"axis": 0, "block_size": how.block}
        if dims == packed.shape:
            writer.named("DequantizeLinear", (name, *beside), entry.name, **attributes)
        else:
            (matrix,) = writer.emit("DequantizeLinear", (name, *beside), f"{entry.name}.matrix", attributes=attributes)
            writer.named("Reshape", (matrix, writer.integers(*dims)), entry.name)
    rows = [Initializer(f"{name}.{ROWS}", how.element, packed.by_row, file, entry.offset, entry.size)]
    return [
        Initializer(name, how.element, packed.shape, file, entry.offset, entry.size),
        *(rows if packed.looked_up else ()),
        *(
            Initializer(name, each.element, each.shape, file, each.offset, each.size)
            for name, each in zip(beside, packed.beside, strict=True)
        ),
    ]


def check_weights(params: Sequence[Param], weights: Arrays) -> None:
    """Check that every parameter has weights; shapes are checked as each is read, so that none is read for it alone.

    Raises:
        TargetError: one has none.
    """
    # Names are iterated, since `in` on a mapping that reads lazily would read the array.
    present = set(weights)
    for param in params:
        if param.name not in present:
            raise TargetError(
                "CG0702", f"the weights have no `{param.name}`", "give every parameter of the model an array"
            )


def write_weights(
    path: Path, entries: Sequence[Stored], params: Sequence[Param], weights: Arrays, own: Sequence[Param] = ()
) -> None:
    """Write the data file: one parameter after another is taken from `weights`, written and let go.

    `own` are the parameters as the weights have them, where `params` have their dimensions in another order.

    Raises:
        TargetError: an array has another shape than its parameter.
        OSError: the file cannot be written.
    """
    by_param: dict[str, list[Stored]] = {}
    for entry in entries:
        by_param.setdefault(entry.param, []).append(entry)
    with path.open("wb", buffering=0) as file:
        for param, given in zip(params, own or params, strict=True):
            for entry, array in _layers(param, given, by_param.get(param.name, []), weights):
                for offset, block in _stored_blocks(entry, array):
                    file.seek(offset)
                    write_all(file.write, block)


def _layers(param: Param, own: Param, entries: Sequence[Stored], weights: Arrays) -> Iterator[tuple[Stored, Array]]:
    """Yield what each of `entries` holds, in the order of `param`; a checkpoint is read one layer at a time."""
    if not entries:
        return
    whole: Array | None = None
    if not isinstance(weights, CheckpointWeights):
        whole = weights[param.name]
        if whole.shape != own.type.shape:
            shape = tuple(map(str, own.type.shape))
            text = f"`{param.name}` has shape {whole.shape}, not ({', '.join(shape)})"
            raise TargetError("CG0704", text, "give the weights of this model, in its order of dimensions")
    for entry in entries:
        order, names = param.type.names[len(entry.index) :], own.type.names[len(entry.index) :]
        if isinstance(weights, CheckpointWeights):
            yield entry, weights.layer(param.name, entry.index, order)
        elif whole is not None:
            yield entry, whole[entry.index].transpose([names.index(name) for name in order])


def _stored_blocks(entry: Stored, array: Array) -> Iterator[tuple[int, Array]]:
    """Yield what to write and where, a bounded part at a time."""
    packed = entry.packed
    if packed is None:
        at = entry.offset
        for block in _blocks(array, entry.dtype, entry.name):
            yield at, block
            at += block.nbytes
        return
    matrix = array.reshape(packed.matrix)
    unit = 1 if packed.how.operator else 2 * packed.how.block
    step = max(1, BLOCK // (matrix[0].size * 4) // unit) * unit
    places: list[Stored | Beside] = [entry, *packed.beside]
    for start in range(0, len(matrix), step):
        parts = quantize(matrix[start : start + step], packed.how, entry.name)
        for place, part in zip(places, parts, strict=True):
            yield place.offset + start * place.size // len(matrix), part


def write_all(write: Callable[[Any], int | None], block: Array) -> None:
    """Write an array's bytes; one write call takes at most 2 GiB on Linux."""
    import numpy as np

    data = block.reshape(-1).view(np.uint8).data
    while data:
        data = data[write(data) or 0 :]


def _blocks(array: Array, dtype: DType, name: str) -> Iterator[Array]:
    """Yield the tensor `name` as contiguous arrays of `dtype` that follow one another: itself where it is one already.

    Raises:
        InputError: CG0708, an entry is not finite and would be rounded.
        TargetError: CG0710, one is beyond what `dtype` holds.
    """
    import numpy as np

    wanted = numpy_dtype(dtype)
    if array.dtype == wanted and array.flags.c_contiguous:
        yield array
        return
    array = array.reshape(1) if array.ndim == 0 else array
    rows = max(1, BLOCK // max(1, wanted.itemsize * array[:1].size))
    for start in range(0, len(array), rows):
        part = np.ascontiguousarray(array[start : start + rows])
        with np.errstate(over="ignore"):
            stored = part.astype(wanted, copy=False)
        if array.dtype != wanted and is_float(dtype) and not np.isfinite(stored).all():
            require_finite(name, part)
            hint = "take a `--precision` that reaches farther: bf16 and f32 do beyond f16"
            raise TargetError("CG0710", f"`{name}` has an entry that is beyond all numbers of {dtype}", hint)
        yield stored


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the little-endian NumPy type of `dtype`."""
    import numpy as np

    if dtype == "bf16":
        import ml_dtypes

        brain: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return brain
    kinds = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "bool": "?"}
    return np.dtype(kinds[dtype])
