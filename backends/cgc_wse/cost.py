"""The first-order model of a kernel's time on a rectangle of cores.

Three things take cycles and are taken to overlap completely, so that the slowest sets the time:

    compute = (multiply-adds + other operations) / (multiply_adds · cores)
    sram    = max(bytes read / (read · cores), bytes written / (write · cores))
    fabric  = max(bytes received / side, bytes sent / other side) / link

Where there are dots, inputs run along the rows and sums along the columns, or the other way round, whichever is faster:
each side of the rectangle has a link for each core on it. Other blocks let their entries pass straight through, over
the longer side. The derivative sends gradients back over the same links. Entries of 4 bytes take two lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cgc.program import Device
from cgc_wse.kernels import Kernel, Work
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
        "compute": "(multiply-adds + other operations) / (multiply_adds * cores)",
        "sram": "max(bytes read / (read * cores), bytes written / (write * cores))",
        "fabric": "max(bytes received / side, bytes sent / other side) / link",
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


def core_cycles(work: Work, device: Device, number: int) -> tuple[float, float]:
    """Return cycles of one core for `work`, by compute and by SRAM, entries being of `number` bytes."""
    lanes = device.multiply_adds * 2 / number
    moved = max(work.read / device.read, work.written / device.write)
    return (work.macs + work.operations) / lanes, number * moved


def kernel_cycles(kernel: Kernel, work: Work, crossings: int, area: Rectangle, device: Device, number: int) -> Cycles:
    """Return the cycles of `work`, during which the kernel's border is crossed `crossings` times, on a rectangle."""
    compute, sram = core_cycles(work, device, number)
    return Cycles(compute / area.cores, sram / area.cores, crossings * number * _crossing(kernel, area) / device.link)


def crossing_entries(kernel: Kernel) -> tuple[int, int]:
    """Return the entries that cross the short side of a kernel's rectangle going forward, and the long side."""
    few, many = sorted((kernel.received, kernel.sent))
    return (few, many) if kernel.forward.macs else (0, many)


def _crossing(kernel: Kernel, area: Rectangle) -> float:
    """Return the entries that the busiest link carries, going forward."""
    short, long = sorted((area.width, area.height))
    few, many = crossing_entries(kernel)
    return max(few / short, many / long)


def update_seconds(kernel: Kernel, area: Rectangle, device: Device, state: int) -> float:
    """Return the time of the optimizer's pass over a kernel's parameters: `state` bytes of each are read once."""
    return kernel.parameters * state / (device.read * area.cores * device.clock)
