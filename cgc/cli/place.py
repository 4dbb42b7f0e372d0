"""The command that places kernels on a wafer: `cgc place`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgc.cli.options import FORMAT, options, print_json, print_rich
from cgc.driver import UsageError

if TYPE_CHECKING:
    from cgc.services import PlaceAnswer, PlaceProgress, Placer

TARGET = "wse-sim"
INTERRUPTED = 130
"""Exit status of a program that an interrupt ended."""


@click.command()
@options(
    click.argument("problem", type=click.Path()),
    click.option("-o", "--output", type=click.Path(), help="The solution file to write."),
    click.option("--check", "solution", type=click.Path(), help="Place nothing: check and score this solution."),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds for all of it. Where it does not cut the search, the seed alone fixes the result.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Fixes the random numbers of the search."),
    click.option("--method", default="search", show_default=True, help="search, cpsat or shelf, the baseline."),
    FORMAT,
)
def place(problem: str, output: str | None, solution: str | None, as_json: str, **rest: Any) -> None:
    """Place the kernels of PROBLEM, a .kgraph of the ISPD 2020 contest, on its grid (docs/placement.md).

    Interrupted (Ctrl-C), it writes the best solution so far.
    """
    if solution is not None:
        if output is not None:
            raise UsageError("--check places nothing, so there is nothing to write: leave `-o` out")
        answer = _ask(lambda target: target.check_placement(problem, solution))
        _print(answer, [], as_json)
        return
    if output is None:
        raise UsageError("name the file to write: `-o solution.txt` (or `--check` one that there is)")
    path = Path(output)
    if path.name in ("", "..") or path.is_dir():
        raise UsageError(f"-o {output}: name a file")
    answer = _place(problem, rest)
    _print(answer, _write(answer.solution, path), as_json)


def _place(problem: str, rest: dict[str, Any]) -> PlaceAnswer:
    from cgc.services import PlaceRequest

    with _shown() as report:
        try:
            return _ask(lambda target: target.place(PlaceRequest(problem, **rest), report))
        except KeyboardInterrupt:
            click.echo("interrupted before there was a solution", err=True)
            sys.exit(INTERRUPTED)


def _ask(ask: Callable[[Placer], PlaceAnswer]) -> PlaceAnswer:
    from cgc.diagnostics import Diagnostic, InputError
    from cgc.driver import find_target
    from cgc.services import Placer
    from cgc.target import TargetError

    target = find_target(TARGET)
    if not isinstance(target, Placer):
        raise UsageError(f"target `{TARGET}` places no kernels")
    try:
        return ask(target)
    except TargetError as error:
        raise InputError([Diagnostic(error.code, str(error), (), error.hint)]) from error


@contextmanager
def _shown() -> Iterator[Callable[[PlaceProgress], None]]:
    """Yield what shows progress on stderr: a bar in a terminal, otherwise a line for each round."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("bounds and starts", total=None)

        def report(progress: PlaceProgress) -> None:
            best = "no score yet" if progress.score is None else f"score {progress.score:,.1f}"
            text = f"{progress.stage}: {best}, bound {progress.bound:,.1f}"
            bar.update(task, description=text, total=progress.total, completed=progress.done)
            if not console.is_terminal:
                click.echo(f"{progress.done}/{progress.total} {text}", err=True)

        yield report


def _write(text: str, path: Path) -> list[Path]:
    from cgc.driver import write_artifacts
    from cgc.target import text_artifact

    return write_artifacts((text_artifact(path.name, text),), path.parent)


def _print(answer: PlaceAnswer, paths: list[Path], as_json: str) -> None:
    if as_json == "json":
        written = {"written": [path.as_posix() for path in paths]} if paths else {}
        print_json({"ok": True, **written, **answer.to_json()})
        return
    print_rich(answer.table())
    for path in paths:
        click.echo(f"wrote {path.as_posix()}")
