"""What no decoding on squares of cores can beat, whatever their sides, and whatever algorithm sums along one.

A token goes through the ops of every layer one after another, and a layer is on one square of some P × P cores, which
holds its weights, keys and values: P² · memory ≥ bytes. There

- no core has less than its even part of a product or of an op on single entries, in parts of entries where need be,
  and it starts what it starts: a loop, a vector instruction for each of its inputs, a task for each way of a sum;
- what all P cores along a side add up depends on the farthest of them. A core is at least (P - 1) / 2 hops from one of
  the ends, so that (P - 1) / 2 hops pass until all parts have come together, and as many until all have the sum, at
  `relay` cycles a hop; each way has a step, 2 T_R + 1, at least. And for n words in each core, a core has to receive
  n (P - 1) / P until the parts of all have been summed, and as many until it has all sums: the larger counts.

`least(P)`, the sum over a layer's ops, is therefore no more than the layer takes on a square of side P, and the least
of it over all P no more than it takes on any. With b sequences and the layers 1 to n,

    step ≥ max(Σ least, b · max least, b · Σ min over P of P² · least(P) / cores)

for a token goes through all layers, one square works on one sequence at a time, and a layer keeps P² cores for as long.
Where weights stream, all layers share one square: step ≥ Σ max(b · least, weights / off_wafer), and the first layer's
weights before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

from cgc.program import Device
from cgc_wse.flatten import FlatStage
from cgc_wse.kernel_cost.decode import DecodeContext, cost_of
from cgc_wse.kernel_cost.machine import Machine


@dataclass(frozen=True, slots=True)
class LeastContext(DecodeContext):
    """As `DecodeContext`, but every core has its even part, and sums take what no algorithm can do without."""

    def part(self, size: float, cores: int) -> float:
        """Return the even part of so many things."""
        return size / cores

    def allreduce(self, cores: int, entries: float) -> float:
        """Return the cycles that any allreduce takes at least, with its start."""
        machine = self.machine
        if cores == 1:
            return machine.task
        words = entries / machine.entries * machine.word * (cores - 1) / cores
        return 2 * machine.task + max(2 * words, (cores - 1) * machine.relay) + 2 * machine.step

    def broadcast(self, entries: float) -> float:
        """Return the cycles of a broadcast along a side: to the end that is farther from the root."""
        machine, cores = self.machine, self.side
        if cores == 1:
            return machine.task
        return (
            machine.task + max(entries / machine.entries * machine.word, (cores - 1) / 2 * machine.relay) + machine.step
        )


@dataclass(frozen=True, slots=True)
class LeastLayer:
    """One run of a stage: the bytes of its weights, the least cycles on any square, and the least core-cycles."""

    weights: int
    cycles: float
    cores: float


def least_layer(
    stage: FlatStage, cached: frozenset[str], machine: Machine, weights: int, caches: int, device: Device
) -> LeastLayer:
    """Return what one run of a stage takes at least for one token; it holds `weights` and `caches` bytes."""
    most = min(device.columns, device.rows)
    cores = -(-(weights + caches) // device.data)
    first = min(most, max(1, isqrt(max(0, cores - 1)) + 1))
    found = [(side, least_cycles(stage, LeastContext(cached, side, machine))) for side in range(first, most + 1)]
    return LeastLayer(weights, min(cycles for _, cycles in found), min(side**2 * cycles for side, cycles in found))


def least_cycles(stage: FlatStage, context: LeastContext) -> float:
    """Return the least cycles of one run of a stage for one token, on squares of one side."""
    return sum(
        application.times * cost_of(stage, application, context)[1]
        for group in stage.groups
        for application in group.applications
        if not all(stage.tensors[i].generated for i in application.results)
    )


def least_resident(layers: Sequence[LeastLayer], batch: int, device: Device) -> float:
    """Return the least seconds of a step where everything stays on squares; `layers` are all runs."""
    once, longest = sum(layer.cycles for layer in layers), max(layer.cycles for layer in layers)
    shared = sum(layer.cores for layer in layers) / device.cores
    return max(once, batch * longest, batch * shared) / device.clock


def least_streaming(layers: Sequence[LeastLayer], batch: int, device: Device) -> float:
    """Return the least seconds of a step where the weights of one layer after another stream past."""
    rows = [max(batch * layer.cycles / device.clock, layer.weights / device.off_wafer) for layer in layers]
    return sum(rows) + layers[0].weights / device.off_wafer
