"""Draw diagnostics as a person reads them: the source line, carets under the cause, what to do about it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from cgc.diagnostics import Diagnostic, Label, Location

WIDEST = 120
"""Columns of a source line that are shown; of a longer one, the part around the labels."""
BEFORE = 24
"""Columns shown before the label of a clipped line."""
TAB = 4
MOST_CALLS = 6
"""Blocks being expanded that are named; of more, the innermost and the outermost."""

PLAIN, ERROR, BOLD, RULE, MARK, SECOND = "", "1;31", "1", "34", "31", "36"
"""Styles, as the parameters of ANSI's `m`."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A label on the one line it is drawn on, in columns of the screen from 0; `end` is exclusive."""

    start: int
    end: int
    text: str
    first: bool

    @property
    def style(self) -> str:
        return MARK if self.first else SECOND


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the picture: styled parts."""

    parts: tuple[tuple[str, str], ...]

    def written(self, color: bool) -> str:
        """Return the row as text, with ANSI's escapes if `color`."""
        if not color:
            return "".join(text for _, text in self.parts).rstrip()
        return "".join(f"\x1b[{style}m{text}\x1b[0m" if style and text else text for style, text in self.parts)


def render(diagnostics: Iterable[Diagnostic], sources: Mapping[str, str], color: bool = False) -> str:
    """Return the diagnostics drawn in their order, with the lines of `sources` (texts by path) they speak of.

    With `color` the text holds ANSI escapes, and is the same text otherwise. Ends in a newline unless it is empty.
    A place that is in no source is named without a picture.
    """
    drawn = [list(_diagnostic(diagnostic, sources)) for diagnostic in diagnostics]
    blocks = ["\n".join(row.written(color) for row in rows) for rows in drawn]
    if len(blocks) > 1:
        blocks.append(_Row(((ERROR, f"{len(blocks)} errors"),)).written(color))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _diagnostic(diagnostic: Diagnostic, sources: Mapping[str, str]) -> Iterator[_Row]:
    head, *more = _printable(diagnostic.message)
    yield _Row(((ERROR, f"error[{diagnostic.code}]"), (BOLD, f": {head}")))
    for line in more:
        yield _Row(((BOLD, f"  {line}"),))
    shown = [label for label in diagnostic.labels if _source_line(label.location, sources) is not None]
    gutter = max((len(str(label.location.line)) for label in shown), default=1)
    place = diagnostic.location
    if place.file:
        yield _Row(((RULE, " " * gutter + "--> "), (PLAIN, _where(place))))
    if shown:
        yield from _pictures(diagnostic.labels[0], shown, sources, gutter)
    notes = [*_notes(diagnostic, shown)]
    if notes and shown:
        yield _Row(((RULE, " " * (gutter + 1) + "|"),))
    for kind, text in notes:
        lines = _printable(text)
        yield _Row(((RULE, " " * (gutter + 1) + "= "), (BOLD, kind), (PLAIN, f": {lines[0]}")))
        for line in lines[1:]:
            yield _Row(((PLAIN, " " * (gutter + 5 + len(kind)) + line),))


def _notes(diagnostic: Diagnostic, shown: list[Label]) -> Iterator[tuple[str, str]]:
    """Yield what stands below the picture: labels that have none, the hint, the blocks being expanded."""
    for label in diagnostic.labels:
        if label.text and label not in shown:
            where = f" ({_where(label.location)})" if label.location.file else ""
            yield "note", label.text + where
    if diagnostic.hint:
        yield "help", diagnostic.hint
    left_out = len(diagnostic.trace) - MOST_CALLS
    for i, call in enumerate(diagnostic.trace):
        if left_out > 0 and i == MOST_CALLS - 1:
            yield "note", f"in {left_out + 1} calls more"
        if left_out <= 0 or i < MOST_CALLS - 1 or i == len(diagnostic.trace) - 1:
            block = call.text if "(" in call.text else f"{call.text}(...)"
            where = f" called at {_where(call.location)}" if call.location.file else ""
            yield "note", f"in `{block}`{where}"


def _where(place: Location) -> str:
    file = " ".join(_printable(place.file))
    return f"{file}:{place.line}:{place.column}" if place.line > 0 else file


def _source_line(place: Location, sources: Mapping[str, str]) -> str | None:
    """Return the line of the source that `place` starts on, if there is one."""
    lines = sources[place.file].split("\n") if place.file in sources else []
    return lines[place.line - 1] if 0 < place.line <= len(lines) else None


def _pictures(primary: Label, labels: list[Label], sources: Mapping[str, str], gutter: int) -> Iterator[_Row]:
    """Yield the lines of each file, that of the primary label first."""
    bar = " " * (gutter + 1) + "|"
    ordered = sorted(labels, key=lambda label: (label.location.file != primary.location.file, label.location.file))
    for file, group in groupby(ordered, key=lambda label: label.location.file):
        of_file = sorted(group, key=lambda label: label.location.line)
        if file != primary.location.file:
            yield _Row(((RULE, " " * gutter + "::: "), (PLAIN, _where(of_file[0].location))))
        yield _Row(((RULE, bar),))
        last = 0
        for number, of_line in groupby(of_file, key=lambda label: label.location.line):
            if last and number == last + 2:
                yield from _line(sources[file].split("\n")[last], number - 1, [], primary, gutter)
            elif last and number > last + 2:
                yield _Row(((RULE, "..."),))
            yield from _line(sources[file].split("\n")[number - 1], number, list(of_line), primary, gutter)
            last = number


def _line(source: str, number: int, labels: list[Label], primary: Label, gutter: int) -> Iterator[_Row]:
    """Yield a source line and, under it, its marks with their texts."""
    cells = _cells(source)
    spans = [_span(label.location, len(cells)) for label in labels]
    at = next((span[0] for span, label in zip(spans, labels, strict=True) if label is primary), None)
    first, last = _window(cells, at if at is not None else min((span[0] for span in spans), default=0))
    left = "…" if first else ""
    text = left + "".join(cell for cell, _ in cells[first:last]) + ("…" if last < len(cells) else "")
    yield _Row(((RULE, f"{number:>{gutter}} |"), (PLAIN, f" {text}")))
    columns = [len(left)]
    for _, width in cells[first:last]:
        columns.append(columns[-1] + width)

    def column(index: int) -> int:
        return columns[min(max(index - first, 0), len(columns) - 1)]

    marks = [
        _Mark(column(start), max(column(end), column(start) + 1), label.text, label is primary)
        for label, (start, end) in zip(labels, spans, strict=True)
    ]
    for parts in _under(marks):
        yield _Row(((RULE, " " * (gutter + 1) + "| "), *parts))


def _cells(source: str) -> list[tuple[str, int]]:
    """Return what to write for each character and how many columns that takes."""
    cells: list[tuple[str, int]] = []
    column = 0
    for character in source.rstrip("\r"):
        cell = _cell(character, column)
        cells.append(cell)
        column += cell[1]
    return cells


def _cell(character: str, column: int) -> tuple[str, int]:
    if character == "\t":
        width = TAB - column % TAB
        return " " * width, width
    category = unicodedata.category(character)
    if category in ("Mn", "Me"):
        return character, 0
    if category in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return "\N{REPLACEMENT CHARACTER}", 1
    return character, 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _span(place: Location, length: int) -> tuple[int, int]:
    """Return the characters of its first line that `place` covers, within the line; the end exclusive."""
    start = min(max(place.column - 1, 0), length)
    end = length if place.end_line > place.line else min(max(place.end_column - 1, start), length)
    return start, max(start, end)


def _window(cells: list[tuple[str, int]], at: int) -> tuple[int, int]:
    """Return the first and last (exclusive) cell to show so that cell `at` is seen in `WIDEST` columns."""
    if sum(width for _, width in cells) <= WIDEST:
        return 0, len(cells)
    first, room = min(at, len(cells)), BEFORE
    if sum(width for _, width in cells[: first + 1]) <= WIDEST - BEFORE:
        first = 0
    while first > 0 and cells[first - 1][1] <= room:
        first -= 1
        room -= cells[first][1]
    last, room = first, WIDEST
    while last < len(cells) and cells[last][1] <= room:
        room -= cells[last][1]
        last += 1
    return first, last


def _under(marks: list[_Mark]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield the rows under a source line: the marks with the last one's text beside it, then the others' texts."""
    canvas: dict[int, tuple[str, str]] = {}
    for mark in sorted(marks, key=lambda mark: mark.first):
        for column in range(mark.start, mark.end):
            canvas[column] = (mark.style, "^" if mark.first else "-")
    hanging = sorted((mark for mark in marks if mark.text), key=lambda mark: (mark.start, mark.end))
    row = _drawn(canvas)
    last = max(marks, key=lambda mark: (mark.start, mark.end), default=None)
    if hanging and last == hanging[-1] and all(mark.end <= last.end for mark in marks):
        beside = _printable(hanging.pop().text)
        indent = " " * (last.end + 1)
        yield (*row, (last.style, f" {beside[0]}"))
        for line in beside[1:]:
            yield (PLAIN, indent), (last.style, line)
    elif row:
        yield row
    if hanging:
        yield _bars(hanging)
    while hanging:
        mark = hanging.pop()
        # a label that starts where this one does keeps its bar in the rows of its own
        left = [other for other in hanging if other.start < mark.start]
        for line in _printable(mark.text):
            bars = _bars(left)
            used = sum(len(text) for _, text in bars)
            yield (*bars, (PLAIN, " " * (mark.start - used)), (mark.style, line))


def _bars(marks: list[_Mark]) -> tuple[tuple[str, str], ...]:
    return _drawn({mark.start: (mark.style, "|") for mark in marks})


def _drawn(canvas: Mapping[int, tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the characters of `canvas`, each at its column, as styled parts."""
    end = max(canvas, default=-1) + 1
    cells = [canvas.get(column, (PLAIN, " ")) for column in range(end)]
    return tuple((style, "".join(text for _, text in run)) for style, run in groupby(cells, key=lambda cell: cell[0]))


def _printable(text: str) -> list[str]:
    """Return the lines of a message, with nothing in them that would move a terminal's cursor."""
    return ["".join(cell for cell, _ in _cells(line)) for line in text.split("\n")]
