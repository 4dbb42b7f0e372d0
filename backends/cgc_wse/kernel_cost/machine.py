"""The constants of a core and its links that kernels are timed with, at one element type."""

from __future__ import annotations

from dataclasses import dataclass

from cgc.program import Device

ENTRY_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
"""Bytes of an entry by element type."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a kernel sees of a device; times in cycles.

    `task` starts the tasks and links of one step, `loop` one pass of the loop around vector instructions, `vector` one
    vector instruction beside its entries, of which `lanes` take a cycle; `shift` is what a link word takes in a shift
    of tiles, `relay` a hop in a reduction or broadcast, `ramp` the way between core and router (T_R). A link word has
    `entries` entries, an entry `number` bytes; `memory` are the bytes of a core.
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

    def words(self, entries: int) -> int:
        """Return the link words that `entries` entries take: two 16-bit entries share a word of 32 bits."""
        return int(-(-entries // self.entries))

    def multiply_add(self, length: int) -> float:
        """Return the cycles of one vector multiply-add: vector + length / lanes."""
        return self.vector + length / self.lanes

    @property
    def step(self) -> float:
        """Cycles that one dependent step of a collective adds: 2 * T_R + 1 (Luczynski et al. 2024)."""
        return 2 * self.ramp + 1


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
        entries=device.link / number,
        number=number,
        memory=device.memory,
    )
