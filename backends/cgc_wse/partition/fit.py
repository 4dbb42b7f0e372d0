"""A plan that fits into the cores: cheap layouts first, then with memory at a price; and which way to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from cgc.ir.graph import Value
from cgc.program import Device
from cgc.target import TargetError
from cgc_wse.partition.flat import Flat
from cgc_wse.partition.layout import entries
from cgc_wse.partition.lower import lower
from cgc_wse.partition.memory import Peak, peaks, worst
from cgc_wse.partition.moves import Core
from cgc_wse.partition.plan import Plan, Run
from cgc_wse.partition.planner import plan
from cgc_wse.partition.program import ENTRY_BYTES, Partitioned
from cgc_wse.partition.rules import shape_of

Wish: TypeAlias = Literal["auto", "pipelined", "streaming"]

Attempt: TypeAlias = tuple[float, float, bool]
ATTEMPTS: dict[Run, tuple[Attempt, ...]] = {
    "pipelined": ((0.005, 0.2, True), (0.1, 0.8, True)),
    "streaming": ((0.005, 0.0, True), (0.1, 0.0, False), (1.0, 0.0, False), (100.0, 0.0, False)),
}
"""What a byte in a core costs in cycles, how far rectangles go by what blocks hold, and whether weights are streamed
one stretch ahead of where they are read: tried one after another. Never nothing, or all would be copied everywhere.
"""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A plan and its program, with the most bytes that each core holds."""

    plan: Plan
    program: Partitioned
    memory: Mapping[Core, int]

    @property
    def most(self) -> int:
        """Bytes of the fullest core."""
        return max(self.memory.values())


def fit(flat: Flat, device: Device, wish: Wish = "auto") -> Fitted:
    """Return a program for `flat` that fits on the device, pipelined where that fits unless wished otherwise.

    Raises:
        TargetError: CG0641, a core has too little memory whatever is tried.
    """
    _certainly(flat, device, wish)
    if wish != "auto":
        found = _best(flat, device, wish, "as asked for")
        if found.most > device.memory:
            raise _too_large(found, device, wish)
        return found
    given = resident_bytes(flat)
    if given > device.cores * device.memory:
        reason = f"weights and what belongs to them are {given:,} bytes, the wafer has {device.cores * device.memory:,}"
        return _only(flat, device, reason)
    resident = _best(flat, device, "pipelined", "everything fits on the wafer at once")
    if resident.most <= device.memory:
        return resident
    over = resident.most - device.memory
    reason = f"pipelined, the fullest core would hold {over:,} bytes more than it has"
    streamed = _best(flat, device, "streaming", reason)
    if streamed.most > device.memory:
        raise _too_large(min(resident, streamed, key=lambda one: one.most), device, wish)
    return streamed


def _only(flat: Flat, device: Device, reason: str) -> Fitted:
    """Return the streamed program (errors as `fit`)."""
    found = _best(flat, device, "streaming", reason)
    if found.most > device.memory:
        raise _too_large(found, device, "streaming")
    return found


def resident_bytes(flat: Flat) -> int:
    """Return the bytes of all that is given (parameters, moments, caches, inputs), and of the gradients."""
    gradients = {
        v.name: v for node in flat.graph.body.nodes for v in node.outputs if flat.category(v.name) == "gradients"
    }
    return sum(_bytes(value, flat) for value in (*flat.graph.body.arguments, *gradients.values()))


def _bytes(value: Value, flat: Flat) -> int:
    return entries(shape_of(value.type, flat.sizes)) * ENTRY_BYTES[value.type.dtype]


def _certainly(flat: Flat, device: Device, wish: Wish) -> None:
    """Refuse what no layout can save, before anything is planned."""
    capacity = device.cores * device.memory
    values = [value for node in flat.graph.body.nodes for value in node.outputs]
    largest = max([*values, *flat.graph.body.arguments], key=lambda value: _bytes(value, flat))
    least, what = _bytes(largest, flat), f"the largest tensor, `{largest.name}`"
    given = resident_bytes(flat)
    if wish == "pipelined" and given > least:
        least, what = given, "what has to be resident"
    if least > capacity:
        text = f"{what}, takes {least:,} bytes; all cores of {device.name} have {capacity:,}, {least - capacity:,} less"
        stream = "`--run streaming`, " if wish == "pipelined" else ""
        hint = (
            f"{stream}a smaller model (`--set layers=2`), or a device with {-(-least // device.memory):,} cores or more"
        )
        raise TargetError("CG0641", text, hint)


def _best(flat: Flat, device: Device, run: Run, reason: str) -> Fitted:
    """Return the first attempt that fits, or the one that comes nearest."""
    best: Fitted | None = None
    for price, balance, ahead in ATTEMPTS[run]:
        made = replace(plan(flat, device, run, reason, price, balance), ahead=ahead)
        program = lower(flat, made, device)
        found = Fitted(made, program, peaks(program))
        if best is None or found.most < best.most:
            best = found
        if found.most <= device.memory:
            break
    assert best is not None
    return best


def _too_large(found: Fitted, device: Device, wish: Wish) -> TargetError:
    peak = worst(found.program, found.memory)
    over = peak.bytes - device.memory
    text = (
        f"{found.plan.run}, core ({peak.core[0]}, {peak.core[1]}) of {device.name} would hold {peak.bytes:,} bytes, "
        f"{over:,} more than its {device.memory:,}: {_shares(peak)}"
    )
    return TargetError("CG0641", text, _hint(peak, device, wish))


def _shares(peak: Peak) -> str:
    """Return what the bytes are, the most first."""
    ordered = sorted(peak.categories.items(), key=lambda one: -one[1])
    largest = ", ".join(f"{size:,} {name}" for name, size in ordered[:3])
    label, _, size = peak.tensors[0] if peak.tensors else ("nothing", "code", 0)
    return f"{largest}; the largest tensor is `{label}` with {size:,}"


def _hint(peak: Peak, device: Device, wish: Wish) -> str:
    held = sum(size for name, size in peak.categories.items() if name in ("weights", "gradients", "optimizer state"))
    ways = []
    if wish == "pipelined":
        ways.append("`--run streaming` keeps the weights outside")
    if held < peak.bytes / 2:
        ways.append("a smaller `--batch` or `--seq`")
    factor = -(-peak.bytes // device.memory)
    ways.append(f"a device with about {factor} times the cores, or with `memory = {-(-peak.bytes // 1024)} KiB`")
    return "; ".join(ways)
