"""What the values of one region are in ONNX: a tensor each, or, for parameters, the tensors they are stored in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product as cartesian
from typing import TypeAlias

from cgc.ir.dims import Dim
from cgc.ir.graph import Value
from cgc.ir.types import DType, TensorType
from cgc_onnx.lowering.pending import Pending, written
from cgc_onnx.lowering.shapes import Shapes
from cgc_onnx.parameters.layout import ROWS, Layout, Parameter, static_size, stored_dims
from cgc_onnx.parameters.quantization import Quantization
from cgc_onnx.writer import Tensor, Writer


@dataclass(frozen=True, slots=True)
class Shared:
    """A tensor that all functions read and the main graph makes once, by `key`; in functions it is one more input."""

    key: str
    dims: tuple[Dim, ...]
    dtype: DType
    make: Callable[[Scope], str]


Operand: TypeAlias = Tensor | Parameter | Pending


class Scope:
    """The values visible in one region. Regions that are written inline share `shapes` and have a `prefix` each."""

    def __init__(self, shapes: Shapes, prefix: str = "", how: Quantization | None = None) -> None:
        self.shapes = shapes
        self.how = how
        self.prefix = prefix
        self._operands: dict[str, Operand] = {}

    @property
    def writer(self) -> Writer:
        """Where nodes go."""
        return self.shapes.writer

    def inline(self, instance: str) -> Scope:
        """Return an empty scope for a region written inside this one, its names behind `instance`."""
        return Scope(self.shapes, f"{self.prefix}{instance}." if instance else self.prefix, self.how)

    def define(self, value: Value, operand: Operand) -> None:
        """Say what `value` is."""
        self._operands[value.name] = operand

    def operand(self, value: Value) -> Operand:
        """Return what `value` is, a parameter as it is stored."""
        return self._operands[value.name]

    def wish(self, value: Value) -> str:
        """Return the ONNX name that `value` would like to have."""
        return self.prefix + value.name

    def tensor(self, value: Value) -> Tensor:
        """Return `value` as one tensor with an axis for each of its dimensions, axes in any order."""
        operand = self._operands[value.name]
        return self.whole(operand) if isinstance(operand, Parameter) else written(operand)

    def ordered(self, value: Value) -> Tensor:
        """Return `value` as one tensor with its axes in the order of its type."""
        return self.shapes.transpose(self.tensor(value), value.type.names)

    def whole(self, parameter: Parameter) -> Tensor:
        """Return a parameter with an axis for each of its dimensions; what is one tensor a turn is put together."""
        if parameter.loops:
            return self._stack(parameter)
        stored = Tensor(parameter.names[0], parameter.stored, parameter.dtype)
        return self.shapes.reshape(stored, parameter.dims, f"{stored.name}.split")

    def _stack(self, parameter: Parameter) -> Tensor:
        axes = self.writer.integers(*range(len(parameter.loops)))
        parts = [self.writer.one("Unsqueeze", (name, axes), f"{name}.turn") for name in parameter.names]
        for at in range(len(parameter.loops) - 1, -1, -1):
            size = static_size(parameter.loops[at])
            parts = [
                self.writer.one("Concat", parts[start : start + size], f"{parameter.path}.stacked", axis=at)
                for start in range(0, len(parts), size)
            ]
        return self.writer.note(Tensor(parts[0], (*parameter.loops, *parameter.dims), parameter.dtype))

    def shared(self, entry: Shared) -> Tensor:
        """Return a tensor that is made once for the whole model."""
        made = self.shapes.shared
        if entry.key not in made:
            name = entry.make(self) if self.shapes.top else self.writer.fresh(entry.key)
            made[entry.key] = (entry, self.writer.note(Tensor(name, entry.dims, entry.dtype)))
        return made[entry.key][1]

    def packed(self, value: Value) -> tuple[str, ...] | None:
        """Return the integers of a packed matrix and what lies beside them, None for any other value."""
        operand = self._operands[value.name]
        if not isinstance(operand, Parameter) or not operand.layout.packed:
            return None
        return operand.names[0], *operand.beside[0][: len(operand.layout.multiplied.packed)]

    def packed_rows(self, value: Value) -> tuple[str, ...] | None:
        """Return the same of a packed matrix whose rows are looked up, its integers row by row."""
        packed, operand = self.packed(value), self._operands[value.name]
        if not packed or not isinstance(operand, Parameter) or ROWS not in operand.layout.packed:
            return None
        return operand.beside[0][-1], *packed[1:]

    def matrix(self, value: Value, groups: tuple[int, ...]) -> Tensor:
        """Return `value`, axes in the order of its type, merged into axes by `groups`: free where stored so."""
        operand = self._operands[value.name]
        layout = Layout((), groups)
        if isinstance(operand, Parameter) and operand.layout == layout:
            return Tensor(operand.names[0], operand.stored, operand.dtype)
        return self._merged(self.ordered(value), layout)

    def _merged(self, x: Tensor, layout: Layout) -> Tensor:
        return self.shapes.reshape(x, stored_dims(x.dims, layout), f"{x.name}.merged")

    def stored(self, value: Value, layout: Layout) -> Parameter:
        """Return `value` in a certain layout; what is not stored so is cut and merged at run time."""
        operand = self._operands[value.name]
        if isinstance(operand, Parameter) and ROWS in operand.layout.packed and ROWS not in layout.packed:
            beside = tuple(names[:-1] for names in operand.beside)
            operand = replace(operand, layout=operand.layout.multiplied, beside=beside)
        if isinstance(operand, Parameter) and (len(operand.loops), replace(operand.layout, loops=())) == (
            len(layout.loops),
            replace(layout, loops=()),
        ):
            return operand
        assert not layout.packed, f"{value.name} is packed for some of its uses only"
        whole = self.ordered(value)
        loops, dims = whole.dims[: len(layout.loops)], whole.dims[len(layout.loops) :]
        names = []
        for indices in cartesian(*(range(static_size(dim)) for dim in loops)):
            x = whole
            for index in indices:
                x = self.slice_of(x, index)
            names.append(self._merged(x, Layout((), layout.groups)).name)
        return Parameter(value.name, tuple(names), loops, dims, whole.dtype, layout)

    def slice_of(self, x: Tensor, index: int) -> Tensor:
        """Return entry `index` of the first axis of `x`."""
        at = self.writer.scalar(index, "i64").name
        name = self.writer.one("Gather", (x.name, at), f"{x.name}.{index}", axis=0)
        return self.writer.note(Tensor(name, x.dims[1:], x.dtype))

    def result(self, name: str, dims: tuple[Dim, ...], type: TensorType) -> Tensor:
        """Return a tensor just written, whose type the file will hold, with the dtype of `type`."""
        return self.writer.note(Tensor(name, dims, type.dtype))
