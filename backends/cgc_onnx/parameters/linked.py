"""Weights that stay where they are: a graph whose external data points into the checkpoint's own safetensors files.

A tensor of the file whose bytes are those of one layer of a parameter, in whatever order of dimensions, is an
initializer as it lies: the graph takes the parameter in that order (`cgc.passes.parameter_order`). One that joins
several parameters along an axis is an initializer that the graph splits, or several where they lie one after another;
one in another precision is cast. Runtimes do both once, when they load the model.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cgc.checkpoints import CheckpointWeights, Layer, Located
from cgc.ir.graph import Param
from cgc.ir.types import BYTES, DType
from cgc.target import Artifact
from cgc_onnx.parameters.layout import Parameter, indices, static_size
from cgc_onnx.proto import ELEMENT_TYPES, Initializer
from cgc_onnx.writer import Writer

DTYPES: Mapping[str, DType] = MappingProxyType({"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16"})
"""The format's names of floating-point types, and ours."""

UNLINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES, errno.ENOSYS}
"""Faults of a hard link that a copy does not have: another file system, or one without links."""


@dataclass(frozen=True, slots=True)
class Linked:
    """One tensor of the graph, and the entries of a parameter's layer in a checkpoint that it is."""

    name: str
    dims: tuple[int, ...]
    dtype: DType
    place: Located
    layer: Layer


def file_orders(params: Sequence[Param], weights: CheckpointWeights) -> dict[str, tuple[str, ...]]:
    """Return the order of dimensions in which the file has each parameter, the stacking ones first."""
    orders: dict[str, tuple[str, ...]] = {}
    for param in params:
        layers = weights.located[param.name]
        if () in layers and param.stacked:
            continue
        part = next(iter(layers.values())).part
        own = param.type.names[param.stacked :]
        ordered = sorted(range(len(own)), key=part.order.__getitem__)
        orders[param.name] = (*param.type.names[: param.stacked], *(own[at] for at in ordered))
    return orders


def linked(
    parameters: Sequence[tuple[Param, Parameter]],
    weights: CheckpointWeights,
    precision: DType | None = None,
) -> tuple[list[Linked], list[tuple[Param, Parameter]]]:
    """Return the tensors that can stay in the file, and the parameters of the others.

    Those are in another `precision` than the one asked for, or lie otherwise than the graph can take them.
    """
    stay: list[Linked] = []
    others: list[tuple[Param, Parameter]] = []
    for param, parameter in parameters:
        dims = tuple(static_size(dim) for dim in parameter.stored)
        layers = weights.located[param.name]
        if () not in layers and len(parameter.loops) < param.stacked:
            others.append((param, parameter))  # used as a whole, but the file has it layer by layer
            continue
        found = [
            Linked(name, dims, parameter.dtype, layers[layer] if layer in layers else layers[()], layer)
            for name, layer in zip(parameter.names, indices(parameter.loops), strict=True)
        ]
        if all(_fits(tensor, precision) for tensor in found):
            stay += found
        else:
            others.append((param, parameter))
    return stay, others


def _fits(tensor: Linked, precision: DType | None) -> bool:
    """Tell whether the bytes can be read where they lie."""
    stored = tensor.place.stored
    if stored.dtype not in DTYPES or (precision and DTYPES[stored.dtype] != precision):
        return False
    return stored.start % BYTES[DTYPES[stored.dtype]] == 0


def write_linked(writer: Writer, tensors: Iterable[Linked]) -> list[Initializer]:
    """Return the initializers of `tensors`; write the nodes that split and cast, whose results have their names."""
    initializers: list[Initializer] = []
    joined: dict[tuple[str, Layer], list[Linked]] = {}
    for tensor in tensors:
        part = tensor.place.part
        if part.star is not None and math.prod(part.expanded[: part.star]) > 1:
            joined.setdefault((tensor.place.name, tensor.layer), []).append(tensor)
        else:
            initializers.append(_whole(writer, tensor))
    initializers += [_split(writer, group) for group in joined.values()]
    return initializers


def _whole(writer: Writer, tensor: Linked) -> Initializer:
    """Return the initializer of a tensor whose entries lie together."""
    dtype = DTYPES[tensor.place.stored.dtype]
    size = math.prod(tensor.dims) * BYTES[dtype]
    offset = tensor.place.stored.start + _first(tensor) * size
    name = tensor.name
    if dtype != tensor.dtype:
        name = writer.fresh(f"{tensor.name}.{dtype}")
        writer.named("Cast", (name,), tensor.name, to=ELEMENT_TYPES[tensor.dtype])
    return Initializer(name, dtype, tensor.dims, tensor.place.stored.path.name, offset, size)


def _first(tensor: Linked) -> int:
    """Return how many tensors of the same size lie before this one in that of the file."""
    part = tensor.place.part
    if part.star is not None:
        return part.place
    count = math.prod(part.merged) // max(1, math.prod(tensor.dims))
    if count <= 1:
        return 0
    at = 0
    for size, index in zip(part.merged, tensor.layer, strict=False):
        at = at * size + index
    return at


def _split(writer: Writer, group: Sequence[Linked]) -> Initializer:
    """Return the initializer of a joined tensor, and cut it along the axis of its parts."""
    place = group[0].place
    part, dtype = place.part, DTYPES[place.stored.dtype]
    assert part.star is not None
    dims = (math.prod(part.expanded[: part.star]), part.expanded[part.star], math.prod(part.expanded[part.star + 1 :]))
    base = whole = writer.fresh(place.name)
    if dtype != group[0].dtype:
        whole = writer.one("Cast", (base,), f"{base}.cast", to=ELEMENT_TYPES[group[0].dtype])
    by_place = {tensor.place.part.place: tensor for tensor in group}
    wishes = [f"{by_place[at].name if at in by_place else base}.part" for at in range(dims[1])]
    parts = writer.emit("Split", (whole,), wishes, attributes={"axis": 1, "num_outputs": dims[1]})
    for at, tensor in sorted(by_place.items()):
        writer.named("Reshape", (parts[at], writer.integers(*tensor.dims)), tensor.name)
    return Initializer(base, dtype, dims, place.stored.path.name, place.stored.start, place.stored.size)


# ---- the files


def link_artifacts(tensors: Iterable[Linked], copy: bool) -> list[Artifact]:
    """Return the files that `tensors` lie in, as artifacts of the same names: hard links, or copies."""
    paths = sorted({tensor.place.stored.path for tensor in tensors})
    return [_artifact(path, copy) for path in paths]


def _artifact(source: Path, copy: bool) -> Artifact:
    def write(path: Path) -> None:
        real = source.resolve()
        if copy:
            shutil.copyfile(real, path)
            return
        try:
            os.link(real, path)
        except OSError as error:
            if error.errno not in UNLINKABLE:
                raise
            shutil.copyfile(real, path)

    return Artifact(source.name, write)
