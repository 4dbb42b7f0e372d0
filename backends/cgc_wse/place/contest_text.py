"""Reading the texts of the ISPD 2020 contest: what problems and solutions have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cgc.diagnostics import Diagnostic, Diagnostics, Label, Location

LARGEST = 1 << 20
"""The largest number that any argument may have: times and areas of all kernels stay exact."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its comments; they are blanks, so that columns stay."""

    number: int
    text: str


class Faults:
    """Collects what is wrong in one file, by line."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self._found = Diagnostics()

    def add(self, code: str, line: int, message: str, hint: str, span: tuple[int, int] | None = None) -> None:
        """Keep a fault in a line, all of it or the columns of `span`."""
        lines = self.text.splitlines()
        whole = lines[line - 1] if line <= len(lines) else ""
        first, last = span or (len(whole) - len(whole.lstrip()), len(whole.rstrip()))
        place = Location(self.file, line, first + 1, line, max(last, first + 1) + 1)
        self._found.add(Diagnostic(code, message, (Label(place),), hint))

    def missing(self, code: str, message: str, hint: str) -> None:
        """Keep a fault of the file as a whole."""
        self._found.add(Diagnostic(code, f"{self.file}: {message}", (), hint))

    @property
    def any(self) -> bool:
        """Whether anything is wrong."""
        return len(self._found) > 0

    def raise_if_any(self) -> None:
        """Raise InputError with all of them, if there is one."""
        self._found.raise_if_any({self.file: self.text})


def without_comments(text: str, faults: Faults, code: str) -> tuple[list[Line], str]:
    """Return the lines of a text with `(* … *)` blanked out, and the text of the first comment."""
    blank = []
    first, position = "", 0
    while (start := text.find("(*", position)) >= 0:
        end = text.find("*)", start + 2)
        if end < 0:
            faults.add(code, text.count("\n", 0, start) + 1, "this comment does not end", "end it with `*)`")
            end = len(text)
        blank += [text[position:start], re.sub(r"[^\n]", " ", text[start : end + 2])]
        first = first or text[start + 2 : end]
        position = end + 2
    blank.append(text[position:])
    lines = [Line(number, line) for number, line in enumerate("".join(blank).split("\n"), start=1)]
    return [line for line in lines if line.text.strip()], first


def whole(word: str) -> int | None:
    """Return a number written in digits, from 0 to `LARGEST`; None where it is something else."""
    if not re.fullmatch(r"[0-9]{1,9}", word):
        return None
    value = int(word)
    return value if value <= LARGEST else None
