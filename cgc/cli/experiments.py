"""The commands that train small copies: `cgc coordcheck` and `cgc sweep`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgc.cli.options import FILE, FORMAT, MODEL, SET, options, print_json, print_rich, written
from cgc.driver import UsageError, parse_overrides, write_artifacts
from cgc.target import text_artifact

if TYPE_CHECKING:
    from cgc.experiments.sweep import Plan, Store
    from cgc.experiments.workers import Report


class Rate(click.FloatRange):
    """A finite number in a range: NaN lies beyond no end of any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number (click.BadParameter where it is none, or not finite)."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


OUT = click.option("-o", "--output", type=click.Path(file_okay=False), help="The folder to write to.")
WIDTHS = click.option("--widths", required=True, help="Widths with commas: 128,256,512.")


@click.command()
@options(
    FILE,
    WIDTHS,
    click.option("--steps", type=click.IntRange(1), default=4, show_default=True, help="Steps at every width."),
    click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Sequences a step."),
    click.option("--seq", type=click.IntRange(1), default=32, show_default=True, help="Tokens a sequence."),
    click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Runs at every width."),
    click.option("--lr", type=Rate(0, min_open=True), help="Base learning rate; by default the file's."),
    OUT,
    SET,
    MODEL,
    FORMAT,
)
def coordcheck(
    file: str, widths: str, output: str | None, settings: tuple[str, ...], model: str | None, as_json: str, **rest: Any
) -> None:
    """Train the model in FILE for a few steps at several widths, and compare how values grow with the static check."""
    import json

    from cgc.experiments.coordcheck import Setup, coordinate_check
    from cgc.experiments.sizes import Subject, parse_widths
    from cgc.show.scaling import slopes_table

    subject = Subject(file, tuple(parse_overrides(settings).items()), model)
    result = coordinate_check(subject, Setup(parse_widths(widths), **rest), lambda text: click.echo(text, err=True))
    data = result.to_json()
    paths: list[Path] = []
    if output is not None:
        from cgc.experiments.pictures import coordinate_pictures

        report = text_artifact("coordcheck.json", json.dumps(data, indent=2) + "\n")
        paths = write_artifacts((report, *coordinate_pictures(result)), Path(output))
    if as_json == "json":
        print_json({**data, "written": [path.as_posix() for path in paths]})
        return
    print_rich(slopes_table(result))
    for row in result.tensors:
        for what in row.disagreements:
            measured, static = (
                (row.init_slope, row.init_exponent) if what == "init" else (row.change_slope, row.change_exponent)
            )
            click.echo(f"{row.tensor} ({row.kind}): {what} grows with the power {measured:.2f}, not {static:g}")
    written(paths, as_json)


@click.command()
@options(
    FILE,
    click.option("--over", required=True, help="What to vary: lr=1e-3,2e-3,4e-3, or a size of the model."),
    WIDTHS,
    click.option("--data", required=True, type=click.Path(), help="A text; its bytes are the tokens."),
    click.option("--steps", type=click.IntRange(1), default=300, show_default=True, help="Steps of a trial."),
    click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Sequences a step."),
    click.option("--seq", type=click.IntRange(1), default=64, show_default=True, help="Tokens a sequence, at most."),
    click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trials for every value."),
    click.option("--lr", type=Rate(0, min_open=True), help="Base learning rate, where it is not varied."),
    click.option("--workers", type=click.IntRange(1), help="Trials at a time; by default one for each core."),
    click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: its address, `auto`, or `local`."),
    click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="The folder to write to."),
    SET,
    MODEL,
    FORMAT,
)
def sweep(
    file: str,
    over: str,
    widths: str,
    data: str,
    lr: float | None,
    workers: int | None,
    ray: str | None,
    output: str,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
    **rest: Any,
) -> None:
    """Train small copies of the model in FILE on a text, for several values at several widths.

    Killed, it goes on where it was when started again with the same words.
    """
    from cgc.experiments.data import read_bytes
    from cgc.experiments.sizes import Subject, at_width, parse_widths
    from cgc.experiments.sweep import Plan, Store, parse_over
    from cgc.experiments.training import rate_of, tokens_and_limit

    name, values = parse_over(over)
    subject = Subject(file, tuple(parse_overrides(settings).items()), model)
    program = subject.program()
    _, vocab, _ = tokens_and_limit(program)
    read_bytes(Path(data), vocab)
    plan = Plan(subject, name, values, parse_widths(widths), data=data, lr=lr or rate_of(program), **rest)
    if name != "lr" and name not in dict(program.arguments):
        raise UsageError(f"--over {over}: the model has no `{name}`; `lr` and its sizes can be varied")
    for width in plan.widths:
        at_width(subject, width, program)
    _run(plan, Store(Path(output), plan), Path(output), workers, ray, as_json)


def _run(plan: Plan, store: Store, folder: Path, workers: int | None, ray: str | None, as_json: str) -> None:
    from cgc.experiments.sweep import curves, missing, summary
    from cgc.experiments.workers import cores, on_ray, on_this_machine
    from cgc.show.scaling import sweep_table

    open_trials = list(missing(plan, store))
    total = len(plan.trials())
    if len(open_trials) < total:
        click.echo(f"{total - len(open_trials)} of {total} trials are done already", err=True)
    reports = on_ray(open_trials, ray) if ray is not None else on_this_machine(open_trials, workers or cores())
    lost = [report for report in _shown(reports, total, len(open_trials), store) if report.result is None]
    results = [kept for trial in plan.trials() if (kept := store.result(trial)) is not None]
    found = curves(plan, results)
    data = summary(plan, found)
    paths = _write(plan, results, folder)
    if as_json == "json":
        dead = [{"trial": report.trial.name, "why": report.death} for report in lost]
        print_json({**data, "trials": results, "dead": dead, "written": [path.as_posix() for path in paths]})
    else:
        print_rich(sweep_table(plan, found, data))
        written(paths, as_json)
    if len(results) < total:
        sys.exit(1)


def _write(plan: Plan, results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    from cgc.experiments.pictures import sweep_pictures
    from cgc.experiments.sweep import curves, table

    if not results:
        return []
    title = f"{Path(plan.subject.file).stem}: {plan.steps} steps of {plan.batch} × {plan.seq} bytes"
    pictures = sweep_pictures(curves(plan, results), plan.over, title)
    return write_artifacts((table(plan, results), *pictures), folder)


def _shown(reports: Iterator[Report], total: int, wanted: int, store: Store) -> Iterator[Report]:
    """Keep every result and show the progress; yields the last report of every trial."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("trials", total=total, completed=total - wanted)
        for report in reports:
            if report.result is not None:
                store.keep(report.trial, report.result)
            else:
                tried = "; it is tried again" if report.again else ""
                progress.console.print(f"{report.trial.name} died: {report.death}{tried}")
            if not report.again:
                progress.advance(task)
                yield report
