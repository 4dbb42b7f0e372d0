"""Shape curves: the least height of a rectangle for every width, and back.

Side by side, widths at equal heights add up; on top of each other, heights at equal widths do (Otten 1983, Stockmeyer
1983: optimal orientations and shapes in slicing floorplans). One direction of a curve is made from the other where it
is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ints: TypeAlias = "NDArray[np.int64]"


class Curve(NamedTuple):
    """`heights[w]` is the least height within width w, `widths[h]` the least width within height h.

    What does not fit at all is given the length of the other array, one more than its last index.
    """

    heights: Ints
    widths: Ints


def inverted(values: Ints, size: int) -> Ints:
    """Return for every v in range(size) the first index at which `values`, which never rise, are at most v."""
    counts = np.bincount(np.minimum(values, size), minlength=size + 1)[:size]
    first: Ints = len(values) - np.cumsum(counts)
    return first


def curve_of(x: Ints, y: Ints, limits: tuple[int, int], reach: tuple[int, int]) -> Curve:
    """Return the curve of the rectangles x[i] × y[i] and y[i] × x[i] within `limits` (columns, rows), up to `reach`."""
    heights = np.full(reach[0] + 1, reach[1] + 1, dtype=np.int64)
    for across, up in ((x, y), (y, x)):
        fit = (across <= limits[0]) & (up <= limits[1])
        np.minimum.at(heights, across[fit], up[fit])
    heights = np.minimum.accumulate(heights)
    return Curve(heights, inverted(heights, reach[1] + 1))
