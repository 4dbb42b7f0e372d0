"""The memory of the cores: what is allocated where, and the most that each core ever held."""

from __future__ import annotations

from cgc_wse.partition.moves import Core
from cgc_wse.partition.program import Buffer


class OutOfMemory(Exception):
    """A core has no room for a tensor."""

    def __init__(self, core: Core, buffer: Buffer, needed: int, there: int, held: list[tuple[str, int]]) -> None:
        super().__init__(
            f"core ({core[0]}, {core[1]}) has no room for `{buffer.label}` ({buffer.value}): it needs {needed:,} bytes "
            f"and {there:,} are left"
        )
        self.core = core
        self.buffer = buffer
        self.held = held


class Memories:
    """One memory for each core, `capacity` bytes large; `used` there from the start."""

    def __init__(self, capacity: int, used: dict[Core, int]) -> None:
        self._capacity = capacity
        self._used = dict(used)
        self.most = dict(used)
        self._held: dict[Core, dict[int, tuple[Buffer, int]]] = {core: {} for core in used}

    def allocate(self, core: Core, buffer: Buffer, size: int) -> None:
        """Make room for a tile of `size` bytes.

        Raises:
            OutOfMemory: there is none.
        """
        used = self._used[core] + size
        if used > self._capacity:
            held = sorted(((b.label, n) for b, n in self._held[core].values()), key=lambda one: -one[1])
            raise OutOfMemory(core, buffer, size, self._capacity - self._used[core], held)
        self._used[core] = used
        self.most[core] = max(self.most[core], used)
        self._held[core][buffer.id] = (buffer, size)

    def free(self, core: Core, buffer: Buffer) -> None:
        """Give the room of a tile back."""
        found = self._held[core].pop(buffer.id, None)
        if found is not None:
            self._used[core] -= found[1]
