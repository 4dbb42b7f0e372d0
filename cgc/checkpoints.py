"""Weights in the model hub's layout and in cgc's own: safetensors read and written through a `checkpoint` item.

A hub tensor may hold one layer of a parameter, transposed, with some dimensions merged, or several parameters joined.
In cgc's own layout tensors are parameters: their names are the paths, their axes the graph's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, capped
from cgc.elaborate.layouts import STAR, own_axes, own_dims, placeholders
from cgc.ir.graph import Param
from cgc.program import Checkpoint, CheckpointEntry, Program
from cgc.tensor_file import Array, StoredTensor, read_tensors, write_tensors

Arrays: TypeAlias = "Mapping[str, Array]"
Layer: TypeAlias = tuple[int, ...]
"""Which turn of each repeat around a parameter, outermost first; empty for one outside of repeats."""


@dataclass(frozen=True, slots=True)
class Part:
    """A parameter's share of a hub tensor, whose shape is `merged`.

    `expanded` are the sizes of the tensor's axes with merged ones apart, `star` the axis among them that `place`
    indexes (None where the tensor holds one parameter), `order` takes the rest to the parameter's own order.
    """

    merged: tuple[int, ...]
    expanded: tuple[int, ...]
    star: int | None
    place: int
    order: tuple[int, ...]

    def take(self, tensor: Array) -> Array:
        """Return the parameter's layer out of the hub tensor."""
        array = tensor.reshape(self.expanded)
        if self.star is not None:
            array = array[(slice(None),) * self.star + (self.place,)]
        return array.transpose(self.order)

    def give(self, layer: Array) -> Array:
        """Return a layer with its dimensions in the order of the hub tensor, still unmerged; the inverse of `take`."""
        return layer.transpose(tuple(self.order.index(axis) for axis in range(len(self.order))))


_Sources: TypeAlias = dict[str, dict[Layer, tuple[str, Part]]]
"""Where each layer of each parameter is: the name of a tensor, and which part of it."""


def _sizes(param: Param) -> tuple[int, ...]:
    """Return the shape of a parameter whose sizes are known."""
    return tuple(size for size in param.type.shape if isinstance(size, int))


def _part(entry: CheckpointEntry, param: Param, place: int) -> Part:
    dims = own_dims(param)
    axes = own_axes(entry.axes, dims)
    assert axes is not None, "the layout was checked against the graph"
    size = dict(zip((dim.name for dim in dims), _sizes(param)[param.stacked :], strict=True))
    size[STAR] = len(entry.params)
    flat = [name for axis in axes for name in axis]
    star = flat.index(STAR) if STAR in flat else None
    kept = [name for name in flat if name != STAR]
    return Part(
        tuple(math.prod(size[name] for name in axis) for axis in axes),
        tuple(size[name] for name in flat),
        star,
        place,
        tuple(kept.index(dim.name) for dim in dims),
    )


def _layers(param: Param) -> Iterator[Layer]:
    """Yield every turn of the repeats around a parameter, in order."""
    return itertools.product(*(range(size) for size in _sizes(param)[: param.stacked]))


def _tensor_name(tensor: str, param: Param, layer: Layer) -> str:
    """Return the name of the hub tensor of one layer: `{h}` is the turn of the repeat `h`."""
    parts = param.name.split(".")
    repeats = sorted(placeholders(tensor), key=parts.index)
    for repeat, turn in zip(repeats, layer, strict=True):
        tensor = tensor.replace(f"{{{repeat}}}", str(turn))
    return tensor


def _require_sizes(program: Program) -> None:
    open_sizes = [param.name for param in program.graph.params if not isinstance(param.type.count, int)]
    if open_sizes:
        text = f"the sizes of {capped(open_sizes)} are not known"
        raise InputError([Diagnostic("CG0704", text, hint="weights belong to a model with all its sizes")])


# ---- reading


@dataclass(frozen=True, slots=True)
class Located:
    """Where one layer of a parameter is: a tensor of the file, by its name in the layout, and which part of it."""

    name: str
    stored: StoredTensor
    part: Part

    def read(self) -> Array:
        """Return the layer, float32, its dimensions in the graph's order."""
        return self.part.take(self.stored.read())


class CheckpointWeights(Mapping[str, "Array"]):
    """Parameters by path, each read from the file when it is asked for.

    `located` says where they are, for those who would rather point there than read.
    """

    def __init__(self, located: Mapping[str, Mapping[Layer, Located]], params: Mapping[str, Param]):
        self.located = located
        self._params = params

    def __getitem__(self, name: str) -> Array:
        import numpy as np

        param, layers = self._params[name], self.located[name]
        if () in layers:
            return layers[()].read()
        array = np.empty(_sizes(param), np.float32)
        for layer, place in layers.items():
            array[layer] = place.read()
        return array

    def layer(self, name: str, layer: Layer, order: tuple[str, ...]) -> Array:
        """Return what a parameter holds at the indices `layer` of its first dimensions, the rest in `order`.

        No other layer is read.
        """
        layers, param = self.located[name], self._params[name]
        array = layers[layer].read() if layer in layers else self[name][layer]
        own = param.type.names[len(layer) :]
        return array.transpose([own.index(dim) for dim in order])

    def __contains__(self, name: object) -> bool:
        return name in self._params

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


def read_checkpoint_file(path: Path, program: Program) -> CheckpointWeights:
    """Return a model's parameters by path, float32, in the graph's order of dimensions, layers of a repeat stacked.

    `path` is a `.safetensors` file, an index of shards, or a folder with one of them, in the hub layout of the model's
    family or in cgc's own. Arrays are read when asked for.

    Raises:
        InputError: CG0701 cannot be read; CG0702 tensors are missing; CG0703 tensors are no parameter's; CG0704 a
            shape is wrong; CG0705 a tensor is not of floating-point numbers; CG0706 an index points elsewhere.
    """
    _require_sizes(program)
    stored = read_tensors(path)
    params = {param.name: param for param in program.graph.params}
    own: _Sources = {name: {(): (name, _whole(param))} for name, param in params.items()}
    prefix, sources = "", own
    ignored: tuple[str, ...] = ()
    if program.checkpoint is not None:
        hub, prefix, ignored = (
            _hub_sources(program.checkpoint, params),
            program.checkpoint.prefix,
            program.checkpoint.ignored,
        )
        if _matches(stored, hub, prefix) >= _matches(stored, own, ""):
            sources = hub
    known = _names(sources)
    patterns = [_pattern(name) for name in ignored]
    tensors: dict[str, StoredTensor] = {}
    unclaimed: list[str] = []
    for name, tensor in stored.items():
        full = next((full for full in (name, prefix + name) if full in known), None)
        if full is not None:
            tensors[full] = tensor
        elif not any(pattern.fullmatch(full) for pattern in patterns for full in (name, prefix + name)):
            unclaimed.append(name)
    _compare(path, tensors, sources, unclaimed)
    located = {
        name: {layer: Located(tensor, tensors[tensor], part) for layer, (tensor, part) in layers.items()}
        for name, layers in sources.items()
    }
    return CheckpointWeights(located, params)


def require_finite(name: str, array: Array) -> None:
    """Raise InputError (CG0708) where an entry of the weight `name` is not finite."""
    import numpy as np

    if not np.isfinite(array).all():
        text = f"`{name}` has an entry that is no finite number"
        hint = "take a checkpoint from before the training diverged, or fetch it anew"
        raise InputError([Diagnostic("CG0708", text, hint=hint)])


def _whole(param: Param) -> Part:
    """Return the share that a parameter has of a tensor that is all of it."""
    shape = _sizes(param)
    return Part(shape, shape, None, 0, tuple(range(len(shape))))


def _hub_sources(checkpoint: Checkpoint, params: Mapping[str, Param]) -> _Sources:
    sources: _Sources = {}
    for entry in checkpoint.entries:
        for place, name in enumerate(entry.params):
            part = _part(entry, params[name], place)
            layers = _layers(params[name])
            sources[name] = {layer: (_tensor_name(entry.tensor, params[name], layer), part) for layer in layers}
    return sources


def _names(sources: _Sources) -> set[str]:
    return {source[0] for layers in sources.values() for source in layers.values()}


def _matches(stored: Iterable[str], sources: _Sources, prefix: str) -> int:
    known = _names(sources)
    return sum(name in known or prefix + name in known for name in stored)


def _pattern(ignored: str) -> re.Pattern[str]:
    """Return the names that an `ignore` line means: `{h}` is any number."""
    pieces = re.split(r"\{\w+\}", ignored)
    return re.compile(r"\d+".join(re.escape(piece) for piece in pieces))


def _compare(path: Path, tensors: Mapping[str, StoredTensor], sources: _Sources, unclaimed: list[str]) -> None:
    """Raise InputError with everything in which the file's tensors are not those of the model."""
    found = Diagnostics()
    known = _names(sources)
    missing = sorted(known - tensors.keys())
    if missing:
        hint = "is it a checkpoint of this model, and of this many layers?"
        found.add(Diagnostic("CG0702", f"`{path}` lacks {capped(missing)}", hint=hint))
    if unclaimed:
        hint = "a tensor that belongs to no parameter needs an `ignore` line in the layout"
        alike = tuple(f".{_like(name)}" for name in unclaimed)
        if any(f".{_like(name)}".endswith(alike) for name in known):
            hint = "are there as many layers in the model as in the checkpoint?"
        found.add(Diagnostic("CG0703", f"`{path}` has {capped(unclaimed)}, which no parameter claims", hint=hint))
    for layers in sources.values():
        for tensor, part in layers.values():
            stored = tensors.get(tensor)
            if stored is None:
                continue
            if stored.shape != part.merged:
                where = _where(path, stored)
                text = f"`{tensor}`{where} has the shape {_shape(stored.shape)}; the model's is {_shape(part.merged)}"
                found.add(Diagnostic("CG0704", text, hint="are the sizes of the model those of the checkpoint?"))
                break  # the other layers have the same fault
            if not stored.is_float:
                hint = "cgc reads F64, F32, F16 and BF16"
                text = f"`{tensor}`{_where(path, stored)} has entries of type {stored.dtype}"
                found.add(Diagnostic("CG0705", text, hint=hint))
                break
    found.raise_if_any({})


def _like(name: str) -> str:
    """Return what a name has in common with those of the same tensor in other layers."""
    return re.sub(r"\d+", "0", name)


def _where(path: Path, stored: StoredTensor) -> str:
    """Say which file a tensor is in, where that is not the one that was given but a part of it, or in a folder."""
    return "" if stored.path == path else f" in `{stored.path.name}`"


def _shape(sizes: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


# ---- writing


def hub_tensors(program: Program, weights: Arrays) -> Iterator[tuple[str, Array]]:
    """Yield the tensors of the model's hub layout by name, in the order of its `checkpoint` item; float32.

    Raises:
        InputError: CG0707, the model's family has no layout.
    """
    import numpy as np

    params = {param.name: param for param in program.graph.params}
    for entry in _layout(program).entries:
        parts = [_part(entry, params[name], place) for place, name in enumerate(entry.params)]
        arrays = [np.asarray(weights[name], np.float32) for name in entry.params]
        for layer in _layers(params[entry.params[0]]):
            layers = [part.give(array[layer]) for part, array in zip(parts, arrays, strict=True)]
            tensor = layers[0] if parts[0].star is None else np.stack(layers, parts[0].star)
            yield _tensor_name(entry.tensor, params[entry.params[0]], layer), tensor.reshape(parts[0].merged)


def hub_shapes(program: Program) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that `hub_tensors` yields, in its order (errors as there)."""
    _require_sizes(program)
    params = {param.name: param for param in program.graph.params}
    return {
        _tensor_name(entry.tensor, params[entry.params[0]], layer): _part(entry, params[entry.params[0]], 0).merged
        for entry in _layout(program).entries
        for layer in _layers(params[entry.params[0]])
    }


def _layout(program: Program) -> Checkpoint:
    if program.checkpoint is None:
        hint = "add a `checkpoint` item of the same name beside the family"
        raise InputError([Diagnostic("CG0707", f"`{program.family}` has no layout for the model hub", hint=hint)])
    return program.checkpoint


def write_checkpoint_file(path: Path, program: Program, weights: Arrays) -> None:
    """Write a model's parameters to a safetensors file in its hub layout, float32.

    Raises:
        InputError: CG0707 the family has no layout; CG0004 the file cannot be written.
    """
    write_tensors(path, hub_shapes(program), hub_tensors(program, weights))


def write_weights(path: Path, program: Program, weights: Arrays) -> None:
    """Write a model's parameters to a safetensors file in cgc's own layout, float32 (InputError as above)."""
    import numpy as np

    _require_sizes(program)
    shapes = {param.name: _sizes(param) for param in program.graph.params}
    write_tensors(path, shapes, ((name, np.asarray(weights[name], np.float32)) for name in shapes))
