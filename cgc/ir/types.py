"""What a value is: an ordered tuple of named dimensions and a dtype."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from cgc.ir.dims import Dim, Size, product

DType: TypeAlias = Literal["f64", "f32", "f16", "bf16", "i64", "i32", "bool"]
DTYPES: tuple[DType, ...] = get_args(DType)

BYTES: dict[DType, int] = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "bool": 1}


def is_float(dtype: DType) -> bool:
    """Tell whether `dtype` is a floating-point type."""
    return dtype in ("f64", "f32", "f16", "bf16")


def is_integer(dtype: DType) -> bool:
    """Tell whether `dtype` is an integer type (bool is not)."""
    return dtype in ("i64", "i32")


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor's type. `indexes` is set on integer tensors whose entries are indices into that dimension."""

    dims: tuple[Dim, ...]
    dtype: DType = "f32"
    indexes: Dim | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the dimensions, in order."""
        return tuple(dim.name for dim in self.dims)

    @property
    def shape(self) -> tuple[Size, ...]:
        """The sizes of the dimensions, in order."""
        return tuple(dim.size for dim in self.dims)

    @property
    def count(self) -> Size:
        """The number of elements."""
        return product(self.shape)

    def dim(self, name: str) -> Dim:
        """Return the dimension called `name`.

        Raises:
            KeyError: there is none.
        """
        for dim in self.dims:
            if dim.name == name:
                return dim
        raise KeyError(name)

    def axis(self, name: str) -> int:
        """Return the position of the dimension called `name` (KeyError when there is none)."""
        for axis, dim in enumerate(self.dims):
            if dim.name == name:
                return axis
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Tell whether a dimension is called `name`."""
        return any(dim.name == name for dim in self.dims)

    def with_dims(self, dims: tuple[Dim, ...]) -> TensorType:
        """Return the same type over other dimensions."""
        return replace(self, dims=dims)

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.dims))}]"
        return f"{text} of {self.indexes}" if self.indexes else text
