"""The constants of a core and its links that everything on the wafer is timed with, at one element type, and what a
core takes by itself.

    local work = loops * loop + instructions * vector + entries / lanes                                      cycles

All models count so (single kernels, decoding, weight streaming, pipelines, the partition): what sets them apart is how
many loops and instructions an op takes on a core. What travels is in `collectives`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cgc.program import Device

if TYPE_CHECKING:
    import numpy as np

ENTRY_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
"""Bytes of an entry by element type."""

LINK_WORD = 4
"""Bytes of a link word."""

Amount = TypeVar("Amount", float, "np.ndarray[Any, np.dtype[np.float64]]")
"""A number, or one for each of many layouts."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a kernel sees of a device; times in cycles.

    `task` starts the tasks and links of one step, `loop` one pass of the loop around vector instructions, `vector` one
    vector instruction beside its entries, of which `lanes` take a cycle; `shift` is what a link word takes in a shift
    of tiles, `relay` a hop in a reduction or broadcast, `ramp` the way between core and router (T_R), `word` what a
    link word takes on a link. A link word has `entries` entries, an entry `number` bytes; `memory` are the bytes of a
    core.
    """

    task: float
    loop: float
    vector: float
    shift: float
    relay: float
    ramp: float
    lanes: float
    entries: float
    number: int
    memory: int
    word: float = 1.0

    def words(self, entries: int) -> int:
        """Return the link words that `entries` entries take: two 16-bit entries share a word of 32 bits."""
        return int(-(-entries // self.entries))

    def multiply_add(self, length: Amount) -> Amount:
        """Return the cycles of one vector instruction: vector + length / lanes."""
        return self.vector + length / self.lanes

    def local(self, loops: float, instructions: float, entries: float) -> float:
        """Return the cycles of a core by itself: loops * loop + instructions * vector + entries / lanes."""
        return loops * self.loop + instructions * self.vector + entries / self.lanes

    def product(self, length: float, inner: float, outer: float) -> float:
        """Return the cycles of a dot on a core: `outer` loops over `inner` multiply-adds of vectors of `length`.

        The inner loop of the measured GEMM has outer = Kt, inner = Nt, length = Mt.
        """
        return self.local(outer, outer * inner, outer * inner * length)

    def elementwise(self, entries: float) -> float:
        """Return the cycles of an op on each of `entries` entries: one vector instruction in a loop of its own."""
        return self.local(1, 1, entries)

    @property
    def step(self) -> float:
        """Cycles that one dependent step of a collective adds: 2 * T_R + 1 (Luczynski et al. 2024)."""
        return 2 * self.ramp + 1

    @property
    def hand_on(self) -> float:
        """Cycles by which one more core of a chain delays the head of what it adds up: a hop and a step."""
        return self.relay + self.step


def machine_of(device: Device, dtype: str) -> Machine:
    """Return the constants of `device` for entries of type `dtype` (a key of `ENTRY_BYTES`)."""
    number = ENTRY_BYTES[dtype]
    return Machine(
        task=device.task,
        loop=device.loop,
        vector=device.vector,
        shift=device.shift,
        relay=device.relay or device.hop,
        ramp=device.ramp,
        lanes=device.multiply_adds * 2 / number,
        entries=LINK_WORD / number,
        number=number,
        memory=device.memory,
        word=LINK_WORD / device.link,
    )
