"""From what was asked to an answer: sizes cut, the algorithm chosen, alternatives named."""

from __future__ import annotations

from cgc.program import Device
from cgc.services import KernelRequest
from cgc.target import TargetError
from cgc_wse.kernel_cost import gemm, gemv
from cgc_wse.kernel_cost.collectives import REDUCTIONS, group_counts
from cgc_wse.kernel_cost.estimate import Answer, Estimate
from cgc_wse.kernel_cost.machine import Machine, machine_of

MANY_GROUPS = (2, 4, 8, 16, 32)
"""Numbers of groups shown as alternatives."""


def answer(request: KernelRequest, device: Device) -> Answer:
    """Return the cost of a kernel.

    Raises:
        TargetError: CG0608 where the grid does not fit on the device, CG0609 where the algorithm does not run on it.
    """
    check_grid(request.columns, request.rows, device)
    machine = machine_of(device, request.dtype)
    match request.op:
        case "gemm":
            return _gemm(request, device, machine)
        case "gemv":
            return _gemv(request, device, machine)
        case _:
            return _collective(request, device, machine)


def check_grid(columns: int, rows: int, device: Device) -> None:
    """Raise TargetError CG0608 unless the grid lies within the device."""
    if columns > device.columns or rows > device.rows:
        text = f"a grid of {columns} x {rows} cores is larger than {device.name} ({device.columns} x {device.rows})"
        raise TargetError(
            "CG0608", text, f"`--grid {min(columns, device.columns)}x{min(rows, device.rows)}` lies in it"
        )


def _gemm(request: KernelRequest, device: Device, machine: Machine) -> Answer:
    columns, rows = request.columns, request.rows
    square = columns == rows
    if request.algorithm in gemm.SQUARE and not square:
        side = min(columns, rows)
        text = f"`{request.algorithm}` shifts tiles in rings of one length: {columns} x {rows} cores are no square"
        raise TargetError("CG0609", text, f"`--grid {side}x{side}`, or `--algorithm summa`")
    tiles = gemm.cut(columns, rows, request.m, request.k, request.n)
    possible = [name for name in gemm.ALGORITHMS if square or name not in gemm.SQUARE]
    found = {name: gemm.estimate_gemm(machine, tiles, name) for name in possible}
    # The measured algorithm is the usual one; where it does not run, the fastest of the others that fits in memory.
    usual = "mesh" if square else _fastest(list(found.values()), device).algorithm
    chosen = found.pop(request.algorithm or usual)
    sizes = {"m": request.m, "k": request.k, "n": request.n}
    padded = {"m": tiles.m * rows, "k": tiles.k * tiles.steps, "n": tiles.n * columns}
    return Answer(
        "gemm",
        device,
        columns,
        rows,
        request.dtype,
        sizes,
        {"Mt": tiles.m, "Kt": tiles.k, "Nt": tiles.n, "steps": tiles.steps},
        chosen,
        tuple(found.values()),
        _padding(sizes, padded),
    )


def _fastest(estimates: list[Estimate], device: Device) -> Estimate:
    return min(estimates, key=lambda one: (one.memory > device.memory, one.cycles))


def _gemv(request: KernelRequest, device: Device, machine: Machine) -> Answer:
    columns, rows = request.columns, request.rows
    if request.groups is not None and request.groups > rows:
        text = f"{request.groups} groups in columns of {rows} cores"
        raise TargetError("CG0609", text, f"`--groups` is at most {rows}; without it the best number is taken")
    k, n = -(-request.k // rows), -(-request.n // columns)
    found = {name: gemv.estimate_gemv(machine, rows, k, n, name) for name in gemv.ALGORITHMS}
    if request.groups is not None:
        found[gemv.GROUPED] = gemv.estimate_gemv(machine, rows, k, n, gemv.GROUPED, request.groups)
    chosen = found.pop(request.algorithm or gemv.GROUPED)
    others = list(found.values())
    for groups in sorted({*MANY_GROUPS} & {*group_counts(rows)}):
        if chosen.counts != {"groups": groups}:
            others.append(gemv.estimate_gemv(machine, rows, k, n, gemv.GROUPED, groups))
    sizes = {"k": request.k, "n": request.n}
    padded = {"k": k * rows, "n": n * columns}
    tile = {"Kt": k, "Nt": n}
    notes = _padding(sizes, padded)
    return Answer("gemv", device, columns, rows, request.dtype, sizes, tile, chosen, tuple(others), notes)


def _collective(request: KernelRequest, device: Device, machine: Machine) -> Answer:
    op, columns, rows = request.op, request.columns, request.rows
    names = _collectives(op, columns, rows)
    if request.algorithm is not None and request.algorithm not in names:
        text = f"`{request.algorithm}` leaves the sum of a part in every core: it is no reduction to one of them"
        raise TargetError("CG0609", text, "`cgc cost allreduce`, or another algorithm")
    found = {name: gemv.estimate_collective(machine, op, columns, rows, request.n, name) for name in names}
    best = min(found, key=lambda name: found[name].cycles)
    chosen = found.pop(request.algorithm or best)
    words = machine.words(request.n)
    notes = ("the formulas alone: a kernel adds the start of tasks, `task` cycles for each collective",)
    return Answer(
        op,
        device,
        columns,
        rows,
        request.dtype,
        {"n": request.n},
        {"link words": words},
        chosen,
        tuple(found.values()),
        notes,
    )


def _collectives(op: str, columns: int, rows: int) -> tuple[str, ...]:
    """Return the algorithms of a collective on a grid; a snake needs both sides."""
    if op == "broadcast":
        return ("flood",)
    snake = (gemv.SNAKE,) if columns > 1 and rows > 1 else ()
    ring = (gemv.RING,) if op == "allreduce" else ()
    return (gemv.GROUPED, *REDUCTIONS, gemv.GENERATED, *snake, *ring)


def _padding(sizes: dict[str, int], padded: dict[str, int]) -> tuple[str, ...]:
    """Say which sizes were rounded up to whole tiles."""
    changed = [
        f"{name} = {sizes[name]:,} is padded to {padded[name]:,}" for name in sizes if sizes[name] != padded[name]
    ]
    return (f"the grid does not divide every size: {', '.join(changed)}",) if changed else ()
