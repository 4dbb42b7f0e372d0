"""Tiles as NumPy arrays: their shapes, where a part stands in them, and the types a core computes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cgc.interpret import Array
from cgc_wse.partition.layout import Tile
from cgc_wse.partition.program import Buffer


def lengths(part: Tile) -> tuple[int, ...]:
    """Return the shape of a tile."""
    return tuple(high - low for low, high in part)


def slices(part: Tile) -> tuple[slice, ...]:
    """Return where a tile stands in the whole tensor."""
    return tuple(slice(low, high) for low, high in part)


def inside(part: Tile, outer: Tile) -> tuple[slice, ...]:
    """Return where a part stands in a tile."""
    return tuple(slice(p[0] - o[0], p[1] - o[0]) for p, o in zip(part, outer, strict=True))


def numpy_type(buffer: Buffer) -> np.dtype[Any]:
    """Return what a buffer's entries are computed as: floats in 32 bit."""
    if buffer.dtype == "bool":
        return np.dtype("?")
    return np.dtype("i8") if buffer.dtype in ("i64", "i32") else np.dtype("f4")


def given(buffer: Buffer, arrays: Mapping[str, Array]) -> Array:
    """Return an input or parameter as the wafer computes with it."""
    return np.asarray(arrays[buffer.home or buffer.value], numpy_type(buffer))


def own(array: Array) -> Array:
    """Return an array that shares no memory with others."""
    return array if array.base is None else array.copy()
