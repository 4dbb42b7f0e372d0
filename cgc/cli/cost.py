"""The command that times single kernels on a wafer: `cgc cost`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cgc.cli.options import FILE, FORMAT, MODEL, SET, options, print_json, print_rich
from cgc.driver import UsageError, parse_overrides

if TYPE_CHECKING:
    from cgc.services import CostAnswer, CostModel

TARGET = "wse-sim"
LARGEST = 1 << 40
"""The largest size of a kernel."""


_DEVICE = click.option("--device", default="wse3", show_default=True, help="A device by name or a .cg file.")
_GRID = click.option("--grid", required=True, metavar="PxQ", help="Columns by rows of cores: 656x656.")
_DTYPE = click.option("--dtype", type=click.Choice(["f16", "bf16", "f32"]), default="f16", show_default=True)
_SIZE = click.IntRange(1, LARGEST)
_REDUCTIONS = ["auto", "grouped", "autogen", "star", "chain", "tree", "two-phase", "snake"]
_ALLREDUCES = [*_REDUCTIONS, "ring"]
_SUMS = [name for name in _ALLREDUCES if name not in ("snake", "autogen")]
_ALIASES = {
    "pipeline": "chain",
    "vendor": "chain",
    "k-tree": "grouped",
    "auto-gen": "autogen",
    "twophase": "two-phase",
    "meshgemm": "mesh",
}
"""Names that papers use: the vendor's own reduction is a pipelined chain, WaferLLM's a tree of K levels."""


class _Algorithm(click.Choice[str]):
    """An algorithm by its name here or in a paper; `auto` is the fastest, as without one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name here, or None for `auto`."""
        name = str(value).lower().replace("_", "-")
        found = super().convert(_ALIASES.get(name, name), param, ctx)
        return None if found == "auto" else found


def _kernel_options(*own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add what all kernels have, and between that their `own` options."""
    return options(_DEVICE, _GRID, *own, _DTYPE, FORMAT)


@click.group()
def cost() -> None:
    """Cycles of one kernel on a rectangle of cores, by part and algorithm (docs/wafer_cost.md)."""


@cost.command()
@_kernel_options(
    click.option("--m", type=_SIZE, required=True),
    click.option("--k", type=_SIZE, required=True),
    click.option("--n", type=_SIZE, required=True),
    click.option("--algorithm", type=_Algorithm(["auto", "mesh", "cannon", "summa", "allgather"])),
)
def gemm(as_json: str, grid: str, **rest: Any) -> None:
    """[m, n] = [m, k] @ [k, n]."""
    _kernel("gemm", grid, as_json, rest)


@cost.command()
@_kernel_options(
    click.option("--m", type=_SIZE, help="The inner size, as in [1, n] = [1, m] @ [m, n]; with --k the left rows: 1."),
    click.option("--k", type=_SIZE, help="The inner size by its other name."),
    click.option("--n", type=_SIZE, required=True),
    click.option("--groups", type=click.IntRange(1), help="Groups of the reduction; by default the best number."),
    click.option("--algorithm", type=_Algorithm(_SUMS), help="How the parts are summed; grouped by default."),
)
def gemv(as_json: str, grid: str, m: int | None, k: int | None, **rest: Any) -> None:
    """[1, n] = [1, m] @ [m, n]; the inner size is --m or --k."""
    if m is None and k is None:
        raise UsageError("give the inner size: `--m` (or `--k`)")
    if m is not None and k is not None and m != 1:
        raise UsageError(f"--m {m} --k {k}: a gemv has one row, so `--m 1`, or leave one of the two out")
    if rest["groups"] is not None and rest["algorithm"] not in (None, "grouped"):
        raise UsageError(f"--groups: `{rest['algorithm']}` has no groups to choose")
    _kernel("gemv", grid, as_json, {**rest, "k": m if k is None else k})


@cost.command()
@_kernel_options(
    click.option("--n", type=_SIZE, required=True, help="Entries in each core."),
    click.option("--algorithm", type=_Algorithm(_REDUCTIONS), help="By default the fastest."),
)
def reduce(as_json: str, grid: str, **rest: Any) -> None:
    """Sum n entries of every core in one; over the rows, then the columns."""
    _kernel("reduce", grid, as_json, rest)


@cost.command()
@_kernel_options(
    click.option("--n", type=_SIZE, required=True, help="Entries."),
    click.option("--algorithm", type=_Algorithm(["auto", "flood"])),
)
def broadcast(as_json: str, grid: str, **rest: Any) -> None:
    """Give n entries of one corner to every core."""
    _kernel("broadcast", grid, as_json, rest)


@cost.command()
@_kernel_options(
    click.option("--n", type=_SIZE, required=True, help="Entries in each core."),
    click.option("--algorithm", type=_Algorithm(_ALLREDUCES), help="By default the fastest."),
)
def allreduce(as_json: str, grid: str, **rest: Any) -> None:
    """Sum n entries of every core, and give every core the sum."""
    _kernel("allreduce", grid, as_json, rest)


_MODEL_DEVICE = click.option("--device", help="A device by name or a .cg file; wse2 by default.")
_SIDE = click.option(
    "--grid", metavar="PxP", help="Side of the square of a layer; by default the best from 240 to 720."
)

_ANYWAY = click.option(
    "--ignore-memory", is_flag=True, help="Also where the model does not fit, as if there were squares enough."
)


@cost.command()
@options(
    FILE,
    _MODEL_DEVICE,
    _SIDE,
    _ANYWAY,
    click.option(
        "--context", type=click.IntRange(1), help="Tokens before the new one; by default what the model takes."
    ),
    _DTYPE,
    SET,
    MODEL,
    FORMAT,
)
def decode(context: int | None, **rest: Any) -> None:
    """One new token of the model in FILE, its weights and cache on the wafer."""
    _model("decode", context, **rest)


@cost.command()
@options(
    FILE,
    _MODEL_DEVICE,
    _SIDE,
    _ANYWAY,
    click.option("--seq", type=click.IntRange(1), help="Tokens of the sequence; by default what the model takes."),
    _DTYPE,
    SET,
    MODEL,
    FORMAT,
)
def prefill(seq: int | None, **rest: Any) -> None:
    """A whole sequence through the model in FILE, its weights on the wafer."""
    _model("prefill", seq, **rest)


def _model(
    op: str,
    tokens: int | None,
    file: str,
    device: str | None,
    grid: str | None,
    dtype: str,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
    ignore_memory: bool,
) -> None:
    from cgc.driver import load_program
    from cgc.services import DecodeRequest

    side = 0
    if grid is not None:
        columns, side = _grid(grid)
        if columns != side:
            raise UsageError(f"--grid {grid}: a layer is run on a square, as in `--grid 420x420`")
    program = load_program(file, parse_overrides(settings), model)
    request = DecodeRequest(device, tokens, side, dtype, ignore_memory)

    def ask(target: CostModel) -> CostAnswer:
        if op == "decode":
            return target.decode_cost(program, request)
        return target.prefill_cost(program, request)

    _print(ask, as_json)


def _grid(text: str) -> tuple[int, int]:
    """Return columns and rows of `656x656`."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})\s*[x×]\s*([1-9][0-9]{0,5})", text)
    if found is None:
        raise UsageError(f"--grid {text}: write columns by rows, as in `--grid 656x656`")
    return int(found[1]), int(found[2])


def _kernel(op: str, grid: str, as_json: str, rest: dict[str, Any]) -> None:
    from cgc.services import KernelRequest

    columns, rows = _grid(grid)
    request = KernelRequest(op=op, columns=columns, rows=rows, **rest)
    _print(lambda target: target.kernel_cost(request), as_json)


def _print(ask: Callable[[CostModel], CostAnswer], as_json: str) -> None:
    from cgc.diagnostics import Diagnostic, InputError
    from cgc.driver import find_target
    from cgc.services import CostModel
    from cgc.target import TargetError

    target = find_target(TARGET)
    if not isinstance(target, CostModel):
        raise UsageError(f"target `{TARGET}` has no cost model of kernels")
    try:
        answer = ask(target)
    except TargetError as error:
        raise InputError([Diagnostic(error.code, str(error), (), error.hint)]) from error
    if as_json == "json":
        print_json(answer.to_json())
    else:
        print_rich(answer.table())
