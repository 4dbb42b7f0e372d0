"""Matrix product [M, N] = [M, K] @ [K, N] on a rectangle of cores.

A core holds tiles of Mt · Kt, Kt · Nt and Mt · Nt entries. A step multiplies two tiles by Kt · Nt vector multiply-adds
of length Mt while the next tiles arrive:

    compute  = Kt * (loop + Nt * (vector + Mt / lanes))
    exchange = shift * link words of the larger tile + hops * relay + 2 * T_R + 1
    step     = task + max(compute, exchange)                                             cycles

How often tiles move and how far sets the algorithms apart:

- `mesh`: neighbours in an interleaved ring, two hops apart, so no way is longer (MeshGEMM: He et al., WaferLLM, OSDI
  2025). The left matrix is skewed first, in P / 2 shifts.
- `cannon`: neighbours in a plain ring, whose ends are P - 1 hops apart; both matrices are skewed (Cannon 1969).
- `summa`: in every step one core of each row and column broadcasts its tile (van de Geijn and Watts 1997).
- `allgather`: every core first gathers all tiles of its row and column, then multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass

from cgc_wse.kernel_cost.collectives import Phase
from cgc_wse.kernel_cost.estimate import Estimate
from cgc_wse.kernel_cost.machine import Machine

SQUARE = ("mesh", "cannon")
"""Algorithms that shift in rings of one length both ways, so that the grid has to be square."""

ALGORITHMS = (*SQUARE, "summa", "allgather")

_INTERLEAVED = 2
"""Hops between neighbours in an interleaved ring."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """A product cut for `columns` × `rows` cores: `steps` steps over tiles of Mt · Kt and Kt · Nt entries."""

    columns: int
    rows: int
    m: int
    k: int
    n: int

    @property
    def steps(self) -> int:
        """Parts that the inner dimension is cut into."""
        return max(self.columns, self.rows)

    @property
    def left(self) -> int:
        """Entries of a left tile."""
        return self.m * self.k

    @property
    def right(self) -> int:
        """Entries of a right tile."""
        return self.k * self.n

    @property
    def result(self) -> int:
        """Entries of a tile of the result."""
        return self.m * self.n


def cut(columns: int, rows: int, m: int, k: int, n: int) -> Tiles:
    """Return the tiles of [m, k] @ [k, n], rounded up: M over the rows, N over the columns, K over the longer side."""
    return Tiles(columns, rows, -(-m // rows), -(-k // max(columns, rows)), -(-n // columns))


def compute_cycles(machine: Machine, tiles: Tiles) -> float:
    """Return the cycles in which a core multiplies two tiles: Kt * (loop + Nt * (vector + Mt / lanes))."""
    return machine.product(tiles.m, tiles.n, tiles.k)


def exchange_cycles(machine: Machine, entries: int, hops: int) -> float:
    """Return the cycles in which a tile moves `hops` hops: shift * words + hops * relay + 2 * T_R + 1."""
    return machine.shift * machine.words(entries) + Phase(0, 0, hops, 1).cycles(machine) if hops else 0.0


def estimate_gemm(machine: Machine, tiles: Tiles, algorithm: str) -> Estimate:
    """Return the cost by one of `ALGORITHMS`; those of `SQUARE` take a square grid."""
    if algorithm == "allgather":
        return _gathered(machine, tiles)
    steps, far = tiles.steps, tiles.steps - 1
    hops = min(_INTERLEAVED, far) if algorithm == "mesh" else far
    larger = max(tiles.left, tiles.right)
    compute, exchange = compute_cycles(machine, tiles), exchange_cycles(machine, larger, hops)
    shifts = 0 if algorithm == "summa" else steps // 2
    skewed = tiles.left if algorithm == "mesh" else larger
    skew = shifts * exchange_cycles(machine, skewed, hops)
    body = steps * max(compute, exchange)
    total = {"start_up": (shifts + steps) * machine.task, "skew": skew, "steps": body}
    formulas = {
        "start_up": f"({shifts} shifts + {steps} steps) * task",
        "skew": f"{shifts} * (shift * words of {'the left tile' if algorithm == 'mesh' else 'the larger tile'} "
        f"+ {hops} hops * relay + 2 T_R + 1)",
        "steps": f"{steps} * max(compute of a step, exchange of a step)",
        "compute": f"{steps} * Kt * (loop + Nt * (vector + Mt / lanes))",
        "exchange": f"{steps} * (shift * words of the larger tile + {hops} hops * relay + 2 T_R + 1)",
    }
    if algorithm == "summa":
        total["skew"] = exchange
        formulas["skew"] = "the first broadcast, with nothing to overlap"
    memory = (2 * (tiles.left + tiles.right) + tiles.result) * machine.number
    return Estimate(algorithm, total, {"compute": steps * compute, "exchange": steps * exchange}, formulas, memory)


def _gathered(machine: Machine, tiles: Tiles) -> Estimate:
    """Everything a core gathers comes through its own links, one along the row and one along the column."""
    others = max((tiles.columns - 1) * tiles.left, (tiles.rows - 1) * tiles.right)
    far = tiles.steps - 1
    exchange = exchange_cycles(machine, others, far)
    compute = tiles.steps * compute_cycles(machine, tiles)
    total = {"start_up": 2 * machine.task, "skew": exchange, "steps": compute}
    formulas = {
        "start_up": "2 * task",
        "skew": f"shift * words of the other tiles of a row or column + {far} hops * relay + 2 T_R + 1",
        "steps": f"{tiles.steps} * Kt * (loop + Nt * (vector + Mt / lanes))",
        "compute": "the steps",
        "exchange": "the skew: nothing overlaps",
    }
    memory = (tiles.columns * tiles.left + tiles.rows * tiles.right + tiles.result) * machine.number
    return Estimate("allgather", total, {"compute": compute, "exchange": exchange}, formulas, memory)
