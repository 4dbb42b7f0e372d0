"""The command that counts before anything is trained: `cgc plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgc.cli.options import COUNT, FORMAT, MODEL, SET, options, print_json, print_rich
from cgc.driver import UsageError, find_target, parse_overrides

if TYPE_CHECKING:
    from cgc.planning import Rate
    from cgc.services import TimeModel

TARGET = "wse-sim"


@click.command()
@options(
    click.argument("files", type=click.Path(), nargs=-1, required=True),
    click.option("--device", help="Time the steps on this wafer: a device by name (wse2) or a .cg file."),
    click.option("--flops-rate", type=click.FloatRange(0, min_open=True), help="Time them at so many FLOP/s."),
    click.option(
        "--utilization",
        type=click.FloatRange(0, 1, min_open=True),
        help="The part of --flops-rate that is reached.  [default: 1]",
    ),
    click.option("--batch", type=COUNT, help="Sequences of a step; by default the file's."),
    click.option("--seq", type=COUNT, help="Tokens of a sequence; by default what the model takes."),
    SET,
    MODEL,
    FORMAT,
)
def plan(
    files: tuple[str, ...],
    device: str | None,
    flops_rate: float | None,
    utilization: float | None,
    batch: int | None,
    seq: int | None,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
) -> None:
    """Say what training the models in FILES takes: parameters, tokens, FLOPs, steps, time, and the loss to expect.

    FILES may be folders: all .cg files in them, one family.
    """
    from cgc.planning import plan_files
    from cgc.show.plan import plan_table

    where = _where(device, flops_rate, utilization)
    plans = plan_files(_listed(files), parse_overrides(settings), model, where, device, batch, seq)
    if as_json == "json":
        print_json({"ok": True, "models": [found.to_json() for found in plans]})
    else:
        print_rich(plan_table(plans))


def _listed(files: tuple[str, ...]) -> list[str]:
    """Return the files, with those of folders in place of the folders."""
    found: list[str] = []
    for file in files:
        path = Path(file)
        inside = sorted(entry.as_posix() for entry in path.glob("*.cg")) if path.is_dir() else [file]
        if not inside:
            raise UsageError(f"{file}: there are no .cg files in this folder")
        found += inside
    return list(dict.fromkeys(found))


def _where(device: str | None, rate: float | None, utilization: float | None) -> TimeModel | Rate | None:
    from cgc.planning import Rate
    from cgc.services import TimeModel

    if device is not None and rate is not None:
        raise UsageError("give `--device` or `--flops-rate`, not both")
    if utilization is not None and rate is None:
        raise UsageError("--utilization is of `--flops-rate`: give that too")
    if rate is not None:
        return Rate(rate, 1.0 if utilization is None else utilization)
    if device is None:
        return None
    target = find_target(TARGET)
    if not isinstance(target, TimeModel):
        raise UsageError(f"target `{TARGET}` does not say how long a step takes")
    return target
