"""The cycles of a block by what takes them: compute, SRAM and fabric, which overlap, so that the slowest sets the time.

Where they come from depends on how the model is run: `pipeline` on rectangles, `streaming` on the whole
wafer, `kernel_cost.decode` for one token at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cgc.program import Device
from cgc_wse.kernels import Kernel
from cgc_wse.place.geometry import Rectangle

Resource: TypeAlias = Literal["compute", "sram", "fabric", "off-wafer"]


def formulas(mode: str, purpose: str) -> dict[str, str]:
    """Return where the cycles of a block for one sequence come from, as printed on the report."""
    if purpose == "decode":
        return {
            "compute": "multiply-adds / (multiply_adds * cores)",
            "fabric": "cycles of all ops one after another: starts, local work, sums and broadcasts (cgc cost decode)",
        }
    if mode == "streaming":
        return {
            "compute": "sum over ops of task + turns * (f + 1) * (vector + t / lanes), f features of t tokens",
            "sram": "sum over ops of bytes read / read of the fullest core",
            "fabric": "sum over ops of max(vectors along the row, weights along the column) / link",
        }
    return {
        "compute": "sum over ops of starts, vectors * vector + entries / lanes, and the way along a side",
        "sram": "sum over ops of bytes read / read of the fullest core",
        "fabric": "max(sum over ops of words along a side, bytes received / side, bytes sent / other side) / link",
    }


@dataclass(frozen=True, slots=True)
class Cycles:
    """Cycles a kernel takes for one sequence, by what takes them."""

    compute: float
    sram: float
    fabric: float

    @property
    def total(self) -> float:
        """The time, all three overlapping."""
        return max(self.compute, self.sram, self.fabric)

    def scaled(self, factor: float) -> Cycles:
        """Return `factor` times as many."""
        return Cycles(factor * self.compute, factor * self.sram, factor * self.fabric)

    def plus(self, other: Cycles) -> Cycles:
        """Return the cycles of one after the other."""
        return Cycles(self.compute + other.compute, self.sram + other.sram, self.fabric + other.fabric)

    @property
    def bound(self) -> Resource:
        """What sets the time."""
        if self.compute >= max(self.sram, self.fabric):
            return "compute"
        return "sram" if self.sram >= self.fabric else "fabric"


def peak_flops(device: Device) -> float:
    """Return FLOP/s of all cores together in 16 bit: two for each multiply-add."""
    return 2 * device.multiply_adds * device.cores * device.clock


def update_seconds(kernel: Kernel, area: Rectangle, device: Device, state: int) -> float:
    """Return the time of the optimizer's pass over a kernel's parameters: `state` bytes of each are read once."""
    return kernel.parameters * state / (device.read * area.cores * device.clock)
