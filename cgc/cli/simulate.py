"""The command that runs a partitioned model on a simulated wafer: `cgc simulate`."""

from __future__ import annotations

import sys

import click

from cgc.cli.options import COUNT, FILE, FORMAT, MODEL, SET, options, print_json, print_rich
from cgc.driver import UsageError, parse_overrides

TARGET = "wse-sim"


@click.command()
@options(
    FILE,
    click.option("--device", help="A device by name or a .cg file; tiny16 by default."),
    click.option(
        "--mode",
        type=click.Choice(["train", "prefill", "decode"]),
        help="A training step, a pass forward, or one token behind a cache; by default what FILE is meant for.",
    ),
    click.option(
        "--run",
        type=click.Choice(["auto", "pipelined", "streaming"]),
        default="auto",
        show_default=True,
        help="Every block on cores of its own, or the layers one after another on all of them.",
    ),
    click.option("--batch", type=COUNT, help="Sequences; 2 by default."),
    click.option("--seq", type=COUNT, help="Tokens a sequence, in decoding the new one among them."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the weights and inputs."),
    SET,
    MODEL,
    FORMAT,
)
def simulate(
    file: str,
    device: str | None,
    mode: str | None,
    run: str,
    batch: int | None,
    seq: int | None,
    seed: int,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
) -> None:
    """Run the model in FILE on a small simulated wafer, core by core, against the reference (docs/simulator.md)."""
    from cgc.diagnostics import Diagnostic, InputError
    from cgc.driver import find_target, load_program
    from cgc.services import SimulationRequest, Simulator
    from cgc.target import TargetError

    target = find_target(TARGET)
    if not isinstance(target, Simulator):
        raise UsageError(f"target `{TARGET}` does not simulate")
    program = load_program(file, parse_overrides(settings), model)
    try:
        answer = target.simulate(program, SimulationRequest(device, mode, run, batch, seq, seed))
    except TargetError as error:
        raise InputError([Diagnostic(error.code, str(error), (), error.hint)]) from error
    if as_json == "json":
        print_json(answer.to_json())
    else:
        print_rich(answer.table())
    if not answer.ok:
        sys.exit(1)
