"""What the compiler says when something is wrong: places, diagnostics, and the error that carries them.

`codes` is the list of all codes with their explanations; `render` draws a diagnostic with carets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a source file: lines and columns from 1, the end exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def to(self, end: Location) -> Location:
        """Return the place from the start of this one to the end of `end`."""
        return Location(self.file, self.line, self.column, end.end_line, end.end_column)


NOWHERE = Location("", 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Label:
    """A place under which something is written."""

    location: Location
    text: str = ""


ELSEWHERE = "choose another place, or see to it that this one can be written to"
"""How what cannot be written is mended."""
MOST_LISTED = 6


def capped(names: Iterable[str]) -> str:
    """Return the first few names as a list in running text, and how many more there are."""
    words = list(names)
    shown = [f"`{word}`" for word in words[:MOST_LISTED]]
    more = len(words) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault in the input: a stable code, what is wrong, where (the first label is the cause), and how to mend it.

    `trace` names the blocks being expanded when the fault showed, innermost first, each with the place of its call.
    """

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    hint: str = ""
    trace: tuple[Label, ...] = ()

    @property
    def location(self) -> Location:
        """The place of the cause; `NOWHERE` for a fault without one."""
        return self.labels[0].location if self.labels else NOWHERE

    def to_json(self) -> dict[str, Any]:
        """Return the diagnostic as JSON-able data."""
        return {
            "code": self.code,
            "message": self.message,
            "labels": [_label_json(label) for label in self.labels],
            "hint": self.hint,
            "trace": [_label_json(label) for label in self.trace],
        }


def _label_json(label: Label) -> dict[str, Any]:
    place = label.location
    return {
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
        "text": label.text,
    }


class InputError(Exception):
    """The input has faults; `diagnostics` says which, in the order of their places. `sources` are the files' texts."""

    def __init__(self, diagnostics: Iterable[Diagnostic], sources: dict[str, str] | None = None) -> None:
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources or {})
        super().__init__("\n".join(f"{d.location}: {d.code}: {d.message}" for d in self.diagnostics))


class Diagnostics:
    """Collects diagnostics while a file is read, each fault once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Location, str], Diagnostic] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep `diagnostic`, unless the same fault was already found at the same place."""
        key = (diagnostic.code, diagnostic.location, "" if diagnostic.location.file else diagnostic.message)
        self._found.setdefault(key, diagnostic)

    def __len__(self) -> int:
        return len(self._found)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return what was found, by place."""
        return tuple(sorted(self._found.values(), key=_place))

    def raise_if_any(self, sources: dict[str, str]) -> None:
        """Raise InputError with everything found so far, if there is anything."""
        if self._found:
            raise InputError(self.sorted(), sources)


def _place(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    place = diagnostic.location
    return place.file, place.line, place.column, diagnostic.code
