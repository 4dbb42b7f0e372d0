"""Scopes and frames: where names live, and the function or loop body being built.

A block's body sees its own names, and of its caller's only numbers and dimensions (`heads` in `attention` means the
`heads` of the model that uses it). A loop body sees everything around it; tensors it takes from outside become
arguments of the loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cgc.diagnostics import NOWHERE, Location
from cgc.elaborate.values import Binding, Number, Pack, Poison, Tensor
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim
from cgc.ir.graph import Init, Param, Value
from cgc.ir.types import TensorType


class Scope:
    """Names in view. `around` is the scope a loop or branch stands in, `caller` the one a block is used from."""

    def __init__(self, around: Scope | None = None, caller: Scope | None = None) -> None:
        self._bindings: dict[str, Binding] = {}
        self._places: dict[str, Location] = {}
        self._around = around
        self._caller = caller
        self.implicit: dict[str, Number | Pack | Poison | None] = {}

    def bind(self, name: str, binding: Binding, place: Location = NOWHERE) -> None:
        """Give `name` a meaning here."""
        self._bindings[name] = binding
        self._places[name] = place

    def own(self, name: str) -> Binding | None:
        """Return what `name` means in this very scope."""
        return self._bindings.get(name)

    def local(self, name: str) -> Binding | None:
        """Return what `name` means in this body or one around it: not in the caller of a block."""
        return self._bindings.get(name) or (self._around.local(name) if self._around else None)

    def place(self, name: str) -> Location:
        """Return where `name` was given its meaning, in this scope or one around it."""
        if name in self._places:
            return self._places[name]
        return self._around.place(name) if self._around else NOWHERE

    def find(self, name: str) -> Binding | None:
        """Return what `name` means, or None."""
        if name in self._bindings:
            return self._bindings[name]
        if self._around is not None:
            return self._around.find(name)
        if self._caller is None:
            return None
        if name not in self.implicit:
            found = self._caller.find(name)
            self.implicit[name] = None if isinstance(found, Tensor) else found
        return self.implicit[name]

    def names(self) -> set[str]:
        """Return all names in view."""
        outer = self._around or self._caller
        return set(self._bindings) | (outer.names() if outer else set())


@dataclass(slots=True)
class Declared:
    """A parameter of a frame: its path relative to the frame, and the value that stands for it inside."""

    name: str
    value: Value
    init: Init
    location: Location
    stacked: int

    def param(self) -> Param:
        """Return it as a parameter of the graph or function."""
        return Param(self.value, self.init, self.location, self.stacked)


@dataclass(eq=False, slots=True)
class Frame:
    """A region under construction: a model, a block, or the body of a `repeat` (then `around` is set)."""

    builder: Builder
    scope: Scope
    path: str = ""
    around: Frame | None = None
    params: list[Declared] = field(default_factory=list)
    captured: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    instances: Names = field(default_factory=Names)
    carried: set[str] = field(default_factory=set)

    def use(self, tensor: Tensor) -> Value:
        """Return the value that `tensor` is in this frame, bringing it in from an outer one if need be."""
        if tensor.frame is self:
            return tensor.value
        assert self.around is not None
        outer = self.around.use(tensor)
        if outer.name not in self.captured:
            self.captured[outer.name] = (outer, self.builder.value(outer.name.replace(".", "_"), outer.type))
        return self.captured[outer.name][1]

    def declare(self, name: str, type_: TensorType, init: Init, location: Location, stacked: int = 0) -> Value:
        """Add a parameter; its path is `name` after the path of the frame."""
        if self.around is None:
            value = Value(self.builder.names.exact(name), type_)
        else:
            value = self.builder.value(name.replace(".", "_"), type_)
        self.params.append(Declared(name, value, init, location, stacked))
        return value

    def stack_name(self, wish: str) -> str:
        """Return a name for a loop's stacking dimension that no parameter inside uses."""
        taken = {dim.name for declared in self.params for dim in declared.value.type.dims}
        while wish in taken:
            wish += "'"
        return wish


def stacked_type(type_: TensorType, stack: Dim) -> TensorType:
    """Return `type_` with the stacking dimension in front."""
    return type_.with_dims((stack, *type_.dims))
