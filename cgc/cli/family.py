"""The command that trains a whole family: `cgc family`."""

from __future__ import annotations

from pathlib import Path

import click

from cgc.cli.options import FORMAT, SET, options, print_json
from cgc.driver import UsageError, parse_overrides


@click.command()
@options(
    click.argument("files", type=click.Path(), nargs=-1, required=True),
    click.option("--data", required=True, type=click.Path(), help="A text; its bytes are the tokens."),
    click.option("--only", multiple=True, metavar="MODEL", help="Only this model."),
    click.option("--lr", type=click.FloatRange(0, min_open=True), help="Peak learning rate; by default the file's."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and data."),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of PyTorch."),
    click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="The folder to write to."),
    SET,
    FORMAT,
)
def family(
    files: tuple[str, ...],
    data: str,
    only: tuple[str, ...],
    lr: float | None,
    seed: int,
    threads: int,
    output: str,
    settings: tuple[str, ...],
    as_json: str,
) -> None:
    """Train every model in FILES on a text for the tokens that its `train` item says, smallest first.

    Killed, it goes on where it was when started again with the same words. `cgc scaling` reads the folders.
    """
    from cgc.experiments.family import members, train_member

    found = members(files, parse_overrides(settings), Path(output), seed, lr)
    known = [member.name for member in found]
    for name in only:
        if name not in known:
            raise UsageError(f"--only {name}: there are {', '.join(known)}")
    try:
        import torch
    except ImportError as error:
        raise UsageError("`cgc family` needs PyTorch; `pip install 'cgc[torch]'`") from error
    torch.set_num_threads(threads)
    results = []
    for member in found:
        if only and member.name not in only:
            continue
        result = train_member(member, data, lambda text: click.echo(text, err=True))
        results.append(result)
        if as_json != "json":
            loss = "diverged" if result["val_loss"] is None else f"loss {result['val_loss']:.4f}"
            flops = f"{result['tokens']:,} tokens, {result['flops']:.3g} FLOPs"
            click.echo(f"{member.name}: {loss} after {flops}, {result['seconds']:.0f} s")
    if as_json == "json":
        print_json({"ok": True, "runs": results})
