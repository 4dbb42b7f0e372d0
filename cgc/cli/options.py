"""What the commands share: arguments and options, and how results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cgc.driver import DUMPS

if TYPE_CHECKING:
    from rich.console import RenderableType

JSON = "cgc.json"
"""Key in click's shared `meta`: diagnostics are wanted as JSON."""

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.argument("file", type=click.Path(dir_okay=True))


def _remember_format(ctx: click.Context, _: click.Parameter, value: str) -> str:
    ctx.meta[JSON] = value == "json"
    return value


FORMAT = click.option(
    "--format",
    "as_json",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How to print.",
    callback=_remember_format,
    is_eager=True,
)
COUNT = click.IntRange(1, 10**9)
"""Sequences, or tokens of one."""
MODEL = click.option("--model", help="Which model, where the file has several.")
SET = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Replace a size, as in --set layers=4."
)
TIMINGS = click.option("--timings", is_flag=True, help="Print the seconds of every stage to stderr.")
DUMP = click.option("--dump-after", type=click.Choice(DUMPS), help="Print the graph as text after this pass.")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Apply several click options."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def print_json(data: Any) -> None:
    """Print data as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_rich(renderable: RenderableType) -> None:
    """Print a table or the like; at full width where the output is no terminal."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=180, color_system=None)
    console.print(renderable)


def written(paths: list[Path], as_json: str, data: Any = None) -> None:
    """Name the files that were written; as JSON with more data."""
    if as_json == "json":
        print_json({"ok": True, "written": [path.as_posix() for path in paths], **({"report": data} if data else {})})
    else:
        for path in paths:
            click.echo(f"wrote {path.as_posix()}")
