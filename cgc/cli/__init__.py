"""The command line: `commands` is the entry point, groups of commands stand beside it. No logic: the driver has it."""

from cgc.cli.commands import main

__all__ = ["main"]
