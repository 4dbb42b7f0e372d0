"""Row vector times matrix, [1, N] = [1, K] @ [K, N], and the collectives as kernels of their own.

The vector is cut along the rows of cores and present in every column; a core multiplies its tile by Kt vector
multiply-adds of length Nt; the columns sum their parts and every core of a column gets the sum:

    local     = Kt * (vector + Nt / lanes)
    allreduce = the phases of the reduction and of the broadcast (`collectives`)
    start_up  = 2 * task: the reduction, the broadcast                                   cycles
"""

from __future__ import annotations

from collections.abc import Iterable

from cgc_wse.kernel_cost.collectives import (
    NOTHING,
    REDUCTIONS,
    Phase,
    best_groups,
    broadcast_phase,
    grouped_phases,
    reduce_phase,
    ring_phase,
)
from cgc_wse.kernel_cost.estimate import Estimate
from cgc_wse.kernel_cost.generated import generated_phase
from cgc_wse.kernel_cost.machine import Machine

GROUPED = "grouped"
RING = "ring"
SNAKE = "snake"
GENERATED = "autogen"
ALGORITHMS = (GROUPED, *REDUCTIONS, RING)
"""How parts are summed: in groups towards their middle as WaferLLM's GEMV does, by one of `REDUCTIONS` and a broadcast,
or in a ring, after which every core has the sum.
"""

_PHASE = "max(C, E / N + L * relay) + (2 T_R + 1) * D"


def estimate_gemv(machine: Machine, rows: int, k: int, n: int, algorithm: str, groups: int | None = None) -> Estimate:
    """Return the cost for tiles of `k` · `n` entries in columns of `rows` cores; no `groups` takes the best number."""
    words = machine.words(n)
    counts: dict[str, int] = {}
    if algorithm == GROUPED:
        counts["groups"] = groups or best_groups(machine, rows, words)
        inner, outer, back = grouped_phases(machine, rows, words, counts["groups"])
        sums = {"reduce_in_groups": inner, "reduce_over_groups": outer, "broadcast": back}
    elif algorithm == RING:
        sums = {"ring": ring_phase(rows, words)}
    else:
        sums = {"reduce": reduce_phase(algorithm, rows, words), "broadcast": broadcast_phase(rows, words)}
    # Its one loop starts while the tasks do: the measured GEMV show none.
    local = machine.local(0, k, k * n)
    total = {
        "start_up": (2 if rows > 1 else 1) * machine.task,
        "compute": local,
        **{name: phase.cycles(machine) for name, phase in sums.items()},
    }
    formulas = {"start_up": "task for the reduction, task for the broadcast", "compute": "Kt * (vector + Nt / lanes)"}
    formulas |= {name: f"{_PHASE}: {_shown(phase)}" for name, phase in sums.items()}
    # The tile, the part of the vector, the sum and what arrives of it.
    memory = (k * n + k + 2 * n) * machine.number
    exchange = sum(phase.cycles(machine) for phase in sums.values())
    formulas["exchange"] = "all phases of the allreduce"
    return Estimate(algorithm, total, {"exchange": exchange}, formulas, memory, counts)


def estimate_collective(machine: Machine, op: str, columns: int, rows: int, n: int, algorithm: str) -> Estimate:
    """Return the cost of `op` over `n` entries in each core: along every row, then along the column of the sums.

    `algorithm` is one of `REDUCTIONS`, or `GROUPED`, `GENERATED`, `SNAKE` or `RING`.

    A broadcast runs from the root over the rectangle as words pass: down a column, and along every row from there. The
    cycles are those of the formula alone: no start of tasks. `SNAKE` is one chain through all rows; after a `RING`
    every core has the sum and nothing is broadcast.
    """
    words = machine.words(n)
    phases: dict[str, Phase] = {}
    hops = 0.0
    if algorithm == SNAKE:
        phases["reduce_along_snake"] = reduce_phase("chain", columns * rows, words)
        hops = columns + rows - 2
    for name, cores in (("rows", columns), ("columns", rows)):
        if cores == 1 or algorithm == SNAKE:
            continue
        reductions, back = _reductions(machine, name, cores, words, algorithm)
        phases |= {} if op == "broadcast" else reductions
        hops += back
    if op != "reduce" and algorithm != RING:
        phases["broadcast"] = Phase(words, words, hops, 1) if hops else NOTHING
    total = {name: phase.cycles(machine) for name, phase in phases.items()}
    formulas = {name: f"{_PHASE}: {_shown(phase)}" for name, phase in phases.items()}
    inside = _sums(phase.parts(machine) for phase in phases.values())
    formulas |= {"travel": "sum of max(C, E / N + L * relay)", "depth": "sum of (2 T_R + 1) * D"}
    return Estimate(algorithm, total, inside, formulas, (1 if op == "broadcast" else 2) * n * machine.number)


def _reductions(machine: Machine, name: str, cores: int, words: int, algorithm: str) -> tuple[dict[str, Phase], float]:
    """Return the phases of a reduction along one side, and the hops that a broadcast from its root takes."""
    if algorithm == RING:
        return {f"ring_along_{name}": ring_phase(cores, words)}, 0.0
    if algorithm == GENERATED:
        return {f"reduce_along_{name}": generated_phase(machine, cores, words)}, cores - 1
    if algorithm != GROUPED:
        phases = {f"reduce_along_{name}": reduce_phase(algorithm, cores, words)} if algorithm in REDUCTIONS else {}
        return phases, cores - 1
    inner, outer, back = grouped_phases(machine, cores, words, best_groups(machine, cores, words))
    return {f"reduce_in_groups_along_{name}": inner, f"reduce_over_groups_along_{name}": outer}, back.distance


def _sums(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    sums = {"travel": 0.0, "depth": 0.0}
    for part in parts:
        for name, value in part.items():
            sums[name] += value
    return sums


def _shown(phase: Phase) -> str:
    return f"C = {phase.contention:g}, E / N = {phase.load:.6g}, L = {phase.distance:g}, D = {phase.depth:g}"
