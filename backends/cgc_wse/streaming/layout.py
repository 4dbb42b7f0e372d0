"""How weight streaming cuts a layer over the wafer.

Features are cut over X cores along one side, tokens over Y; where X is a half, a third, … of that side, as many groups
of tokens stand beside each other. `op_cost` has the cycles of ops, for all such layouts at once.
"""

from __future__ import annotations

import numpy as np

from cgc.program import Device
from cgc_wse.op_cost import OpCosts
from cgc_wse.plan import Layout


def layouts(device: Device, *, whole: bool = False) -> tuple[Layout, ...]:
    """Return every way to cut features over a side of the wafer, or unless `whole` over an equal part of one."""
    found: list[Layout] = []
    for features in _parts(device.columns)[: 1 if whole else None]:
        found.append(Layout(features, (device.columns // features) * device.rows, "columns"))
    for features in _parts(device.rows)[: 1 if whole else None]:
        found.append(Layout(features, (device.rows // features) * device.columns, "rows"))
    return tuple(found)


def _parts(side: int) -> list[int]:
    return sorted({side // groups for groups in range(1, side + 1)}, reverse=True)


class Wafer(OpCosts):
    """A device and an element type: the cycles of ops on all layouts."""

    def __init__(self, device: Device, precision: str, seq: int, *, whole: bool = False) -> None:
        """Prepare for tokens in sequences of `seq`, on the layouts of `layouts`."""
        self.layouts = layouts(device, whole=whole)
        x = np.array([layout.features for layout in self.layouts], dtype=np.float64)
        y = np.array([layout.tokens for layout in self.layouts], dtype=np.float64)
        super().__init__(device, precision, seq, x, y)
        # Every op comes from outside, as the weights do, and starts a task.
        self._told = self._machine.task
