"""The command that fits loss against compute: `cgc scaling`."""

from __future__ import annotations

from pathlib import Path

import click

from cgc.cli.options import FORMAT, options, print_json, print_rich
from cgc.driver import UsageError, write_artifacts


@click.command()
@options(
    click.argument("runs", type=click.Path(), nargs=-1, required=True),
    click.option("--extrapolate", metavar="FLOPS|RUN", help="Foretell the loss at this compute, or of a run left out."),
    click.option(
        "--residuals",
        type=click.Choice(["loss", "log"]),
        default="loss",
        show_default=True,
        help="What is to be small: differences of the loss, or of its logarithm.",
    ),
    click.option("--robust", is_flag=True, help="Huber's function instead of squares: outliers count less."),
    click.option("--samples", type=click.IntRange(0, 100_000), default=1000, show_default=True, help="Bootstraps."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap."),
    click.option("-o", "--output", type=click.Path(dir_okay=False), help="A picture: a .svg or .png file."),
    FORMAT,
)
def scaling(
    runs: tuple[str, ...],
    extrapolate: str | None,
    residuals: str,
    robust: bool,
    samples: int,
    seed: int,
    output: str | None,
    as_json: str,
) -> None:
    """Fit loss against compute: a power law, and one above an irreducible loss.

    RUNS are tables (CSV or JSON with compute and loss) and folders of training runs (log.jsonl); docs/scaling.md.
    """
    from cgc.scaling_laws.fit import Method
    from cgc.scaling_laws.runs import read_runs
    from cgc.scaling_laws.study import study
    from cgc.show.study import study_table, undetermined_lines

    kind = Path(output).suffix.removeprefix(".") if output is not None else "svg"
    if kind not in ("svg", "png"):
        raise UsageError(f"-o {output}: a picture is a .svg or a .png file")
    found = study(read_runs(runs), Method("log" if residuals == "log" else "loss", robust), extrapolate, samples, seed)
    paths: list[Path] = []
    if output is not None:
        from cgc.scaling_laws.picture import scaling_picture

        path = Path(output)
        paths = write_artifacts((scaling_picture(found, path.name, kind),), path.parent)
    if as_json == "json":
        print_json({**found.to_json(), "written": [path.as_posix() for path in paths]})
        return
    print_rich(study_table(found))
    for line in (*undetermined_lines(found), *(f"wrote {path.as_posix()}" for path in paths)):
        click.echo(line)
