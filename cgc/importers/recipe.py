"""What an import makes of a configuration, and its text as `.cg` in the canonical layout."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = int | float | str | bool

SAME = 1e-6
"""Numbers that differ by no more than this part are meant to be one, rounded somewhere."""

_WORDS = frozenset(
    (
        *("use", "model", "block", "mup", "parametrization", "train", "device", "checkpoint", "input", "output"),
        *("param", "dim", "repeat", "as", "if", "else", "return", "true", "false", "over", "along", "and", "or"),
        *("not", "id", "of", "from", "by", "then", "per", "init", "scale", "multiply", "override", "prefix", "ignore"),
    )
)


@dataclass(slots=True)
class Recipe:
    """A model of a family: arguments in the header's order, and the lines of its `mup` and `train` items.

    `comments` stand at the top, `mup_comments` above the `mup` item.
    """

    family: str
    arguments: dict[str, Value]
    mup: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    mup_comments: list[str] = field(default_factory=list)

    def text(self, name: str, origin: str) -> str:
        """Return the file; `origin` says what it was made from."""
        from cgc.syntax.parser import parse
        from cgc.syntax.printer import format_file

        lines = [f"# {comment}" for comment in (f"Made by `cgc import` from {origin}.", *self.comments)]
        arguments = ", ".join(f"{key}={value_text(value)}" for key, value in self.arguments.items())
        lines += [f"use std/{self.family}", "", f"model {name} = {self.family}({arguments})"]
        if self.mup:
            lines += ["", *(f"# {comment}" for comment in self.mup_comments), "mup {", *self.mup, "}"]
        if self.train:
            lines += ["", "train {", *self.train, "}"]
        return format_file(parse("\n".join(lines) + "\n", "model.cg"))


def same(a: float, b: float) -> bool:
    """Tell whether two numbers are one, up to rounding."""
    return abs(a - b) <= SAME * max(abs(a), abs(b))


def given(values: Mapping[str, Value], defaults: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values that are not what the family takes for granted."""

    def usual(name: str, value: Value) -> bool:
        default = defaults.get(name)
        if isinstance(value, str | bool) or isinstance(default, str | bool) or default is None:
            return value == default
        return abs(value - default) <= 1e-12 * abs(default)

    return {name: value for name, value in values.items() if not usual(name, value)}


def value_text(value: Value) -> str:
    """Return a value as it is written in an expression."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else number_text(value)


def number_text(value: float) -> str:
    """Return a number as a person would write it: 50257, 0.1, 6e-4."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    digits = repr(value)
    if 0.01 <= abs(value) < 1e15:
        return digits
    shortest = next(text for n in range(18) if float(text := f"{value:.{n}e}") == value)
    mantissa, _, exponent = shortest.partition("e")
    return f"{mantissa}e{int(exponent)}"


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a model."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and text not in _WORDS


def name_from(text: str, family: str) -> str:
    """Return a name for a model made of a file's or a model's name."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower()
    if words[:1].isdigit() or words in {"", "config", family} or words in _WORDS or keyword.iskeyword(words):
        words = f"{family}_{words}".rstrip("_") if words not in {"", "config", family} else f"my_{family}"
    return words
