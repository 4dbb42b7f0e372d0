"""Which entry of the module's state dict is which parameter, and arrays in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cgc.ir.dims import Dim
from cgc.program import Program
from cgc_torch.modules import Child, Layers, Leaf, Owned, Unit, plan

if TYPE_CHECKING:
    from cgc.target import Arrays

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the state dict.

    It holds the parameter at path `param` at position `index` of the loops around it (outermost first, empty outside
    of any). `shape` are the sizes of the parameter's own dimensions; axis i of the entry merges those in `groups[i]`,
    row-major: the weight of a linear layer `[width, heads, head]` is stored `[heads · head, width]`, so its groups are
    `((1, 2), (0,))`.
    """

    param: str
    index: tuple[int, ...]
    key: str
    shape: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the entry in the state dict."""
        return tuple(math.prod(self.shape[axis] for axis in group) for group in self.groups)

    def stored(self, array: Array) -> Array:
        """Return the entry's array, contiguous, for the parameter's (stacking dimensions first)."""
        own = array[self.index]
        order = [axis for group in self.groups for axis in group]
        return np.ascontiguousarray(own.transpose(order).reshape(self.stored_shape))

    def restored(self, array: Array) -> Array:
        """Return the parameter's slice, in its own dimensions, for the entry's array."""
        order = [axis for group in self.groups for axis in group]
        apart = array.reshape([self.shape[axis] for axis in order])
        return apart.transpose([order.index(axis) for axis in range(len(order))])


def state_entries(program: Program) -> tuple[Entry, ...]:
    """Return the entries of the emitted module's state dict, in its order: one for each parameter and loop index."""
    return tuple(_entries(plan(program).root, "", "", ()))


def _entries(unit: Unit, path: str, key: str, index: tuple[int, ...]) -> Iterator[Entry]:
    owned = [member for member in unit.members if isinstance(member, Owned)]
    for member in [*owned, *(member for member in unit.members if not isinstance(member, Owned))]:
        match member:
            case Owned(attribute=attribute, path=own, value=value):
                groups = tuple((axis,) for axis in range(len(value.type.dims)))
                yield Entry(path + own, index, key + attribute, _sizes(value.type.dims), groups)
            case Leaf(attribute=attribute, instance=instance, builtin=module):
                for slot in module.slots:
                    dims = module.inner if slot.param != "b" else module.outer
                    if slot.param == "w":
                        dims = (*module.inner, *module.outer)
                    name = f"{key}{attribute}.{slot.name}"
                    yield Entry(f"{path}{instance}.{slot.param}", index, name, _sizes(dims), slot.groups)
            case Child(attribute=attribute, instance=instance, unit=inner):
                yield from _entries(inner, f"{path}{instance}.", f"{key}{attribute}.", index)
            case Layers(attribute=attribute, instance=instance, unit=inner, stack=stack):
                for layer in range(_sizes((stack,))[0]):
                    yield from _entries(inner, f"{path}{instance}.", f"{key}{attribute}.{layer}.", (*index, layer))


def _sizes(dims: tuple[Dim, ...]) -> tuple[int, ...]:
    sizes: list[int] = []
    for dim in dims:
        if not isinstance(dim.size, int):
            raise ValueError(f"the size of `{dim.name}` is not fixed: {dim.size}")
        sizes.append(dim.size)
    return tuple(sizes)


def to_state(program: Program, weights: Arrays) -> dict[str, Array]:
    """Return the state dict, as arrays, for parameters by path (stacked ones with their loop dimensions first).

    Raises:
        ValueError: a parameter is missing, one is unknown, or one has another shape.
    """
    types = {param.name: param.type for param in program.graph.params}
    _same_names(set(types), set(weights), "parameter")
    for name, type in types.items():
        if tuple(weights[name].shape) != _sizes(type.dims):
            raise ValueError(f"`{name}` is {list(_sizes(type.dims))} ({type}), not {list(weights[name].shape)}")
    return {entry.key: entry.stored(weights[entry.param]) for entry in state_entries(program)}


def from_state(program: Program, state: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters by path for a state dict as arrays; the inverse of `to_state`.

    Raises:
        ValueError: an entry is missing, one is unknown, or one has another shape.
    """
    entries = state_entries(program)
    _same_names({entry.key for entry in entries}, set(state), "entry")
    arrays: dict[str, Array] = {}
    types = {param.name: param.type for param in program.graph.params}
    for entry in entries:
        array = state[entry.key]
        if array.shape != entry.stored_shape:
            raise ValueError(f"`{entry.key}` is {list(entry.stored_shape)}, not {list(array.shape)}")
        whole = arrays.setdefault(entry.param, np.empty(_sizes(types[entry.param].dims), array.dtype))
        whole[entry.index] = entry.restored(array)
    return arrays


def _same_names(wanted: set[str], given: set[str], what: str) -> None:
    if wanted != given:
        missing, unknown = sorted(wanted - given), sorted(given - wanted)
        parts = [f"no {what} `{missing[0]}`"] if missing else []
        parts += [f"unknown {what} `{unknown[0]}`"] if unknown else []
        raise ValueError("; ".join(parts))
