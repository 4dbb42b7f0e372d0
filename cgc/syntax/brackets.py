"""Which brackets of a text are open where: to say which one was forgotten, and to read on behind a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PAIRS = {"(": ")", "[": "]", "{": "}"}
ITEMS = ("use", "model", "block", "mup", "parametrization", "train", "device", "checkpoint")
"""The words that an item of a file starts with."""

_PARTS = re.compile(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]|\n')
_ITEM = re.compile(rf"(?:{'|'.join(ITEMS)})\b")


@dataclass(frozen=True, slots=True)
class Bracket:
    """A bracket of a text: its line and column, from 1, and the columns that its line is indented by."""

    text: str
    line: int
    column: int
    indent: int


@dataclass(frozen=True, slots=True)
class Open:
    """The brackets open at some place, outermost first.

    `suspect` is one whose closing bracket stands further left than its line: that bracket closes another one.
    """

    brackets: tuple[Bracket, ...]
    suspect: Bracket | None

    @property
    def forgotten(self) -> Bracket | None:
        """The bracket that most likely lacks its other half."""
        return self.suspect if self.suspect is not None and self.brackets else next(reversed(self.brackets), None)


def indent_of(line: str) -> int:
    """Return by how many columns a line is indented."""
    return len(line) - len(line.lstrip())


def starts_item(line: str) -> bool:
    """Tell whether a line starts an item of a file."""
    return _ITEM.match(line) is not None


def brackets_of(text: str) -> Iterator[Bracket]:
    """Yield the brackets of a text that stand in no comment and no quotes."""
    lines = text.split("\n")
    line, start = 1, 0
    for part in _PARTS.finditer(text):
        if part[0] == "\n":
            line, start = line + 1, part.end()
        elif len(part[0]) == 1 and part[0] not in "#":
            yield Bracket(part[0], line, part.start() - start + 1, indent_of(lines[line - 1]))


def open_at(text: str, line: int, column: int) -> Open:
    """Return the brackets that are open before a place of the text."""
    stack: list[Bracket] = []
    suspect: Bracket | None = None
    for bracket in brackets_of(text):
        if (bracket.line, bracket.column) >= (line, column):
            break
        if bracket.text in PAIRS:
            stack.append(bracket)
        elif stack and PAIRS[stack[-1].text] == bracket.text:
            opened = stack.pop()
            leads = bracket.column == bracket.indent + 1 and bracket.line > opened.line
            if leads and bracket.text == "}" and bracket.indent < opened.indent:
                suspect = suspect or opened
    return Open(tuple(stack), suspect)


def closing_line(text: str, line: int) -> int | None:
    """Return the line on which the `{` at the end of a line is closed; None where it is not, or there is none."""
    opened = next((b for b in reversed([*brackets_of(text)]) if b.line == line and b.text == "{"), None)
    if opened is None:
        return None
    depth = 0
    for bracket in brackets_of(text):
        if bracket.text in "{}" and (bracket.line, bracket.column) >= (opened.line, opened.column):
            depth += 1 if bracket.text == "{" else -1
            if depth == 0:
                return bracket.line if bracket.line > line else None
    return None
