"""Put the comments and the empty lines back between the rows of a file, and line up what stands below one another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cgc.syntax.rows import INDENT, WIDTH, Row
from cgc.syntax.tree import Comment

CLOSE = ("use", "instance")
"""Items that may follow one another without an empty line."""
RAGGED = 40
"""Comments behind lines that differ by more columns than this are not lined up."""


def with_comments(rows: list[Row], comments: Iterable[Comment]) -> list[Row]:
    """Return the rows with every comment in its place and with the empty lines that the source had.

    A comment behind code goes behind the last row that began on its line or, where that row is not the end of the
    code before it, above the next row; any other goes above the first row that began after it. Both hold for rows in
    the order of the source, which is how the printer makes them.
    """
    waiting = deque(sorted(comments, key=lambda comment: comment.line))
    done: list[Row] = []
    before = 0
    kind = ""
    for at, row in enumerate(rows):
        until = rows[at + 1].first if at + 1 < len(rows) else None
        above = _take(waiting, row.first)
        beside = _take(waiting, row.last + 1 if until is None else min(row.last + 1, until))
        if beside and not beside[-1].alone:
            row = replace(row, comment=beside.pop().text)
        new = [_own_line(comment, row, comment.line) for comment in above]
        new += [_own_line(comment, row, row.first) for comment in beside]
        spaced = _spaced([*new, row], done[-1] if done else None, before)
        if row.item:
            if done and not (row.item == kind and kind in CLOSE):
                spaced[0] = replace(spaced[0], blank=True)
            kind = row.item
        done += spaced
        before = row.last
    rest = [Row("", 0, c.line, c.line, comment=c.text) for c in waiting]
    tail = _spaced(rest, done[-1] if done else None, before)
    if tail and done:
        tail[0] = replace(tail[0], blank=True)
    return done + tail


def _take(waiting: deque[Comment], line: int) -> list[Comment]:
    """Return the first of the comments, those above `line`, and no longer wait for them."""
    taken: list[Comment] = []
    while waiting and waiting[0].line < line:
        taken.append(waiting.popleft())
    return taken


def _own_line(comment: Comment, row: Row, line: int) -> Row:
    """Return the row of a comment that stands above `row`, as if it came from `line`."""
    indent = row.indent + 1 if row.closes else row.indent
    return Row("", indent, line, line, bracketed=row.bracketed, comment=comment.text)


def _spaced(rows: list[Row], previous: Row | None, before: int) -> list[Row]:
    """Return the rows with an empty line before those that had one; `before` is the source line they follow."""
    spaced: list[Row] = []
    for row in rows:
        apart = previous is not None and 0 < before < row.first - 1
        allowed = previous is not None and not previous.opens and not row.closes and not row.bracketed
        row = replace(row, blank=apart and allowed)
        spaced.append(row)
        previous, before = row, row.last
    return spaced


def lined_up(rows: list[Row]) -> list[Row]:
    """Return the rows with the `~` of params and the `=` of settings below one another, then the comments likewise."""
    rows = list(rows)
    for run in _runs(rows, lambda row: row.align > 0, through_comments=True):
        column = max(rows[at].align for at in run)
        if max(rows[at].width - rows[at].align for at in run) + column <= WIDTH:
            for at in run:
                rows[at] = _padded(rows[at], column)
    for run in _runs(rows, lambda row: bool(row.text and row.comment)):
        widths = [rows[at].width for at in run]
        if max(widths) - min(widths) <= RAGGED:
            for at in run:
                rows[at] = replace(rows[at], text=rows[at].text + " " * (max(widths) - rows[at].width))
    return rows


def _padded(row: Row, column: int) -> Row:
    return replace(row, text=row.text[: row.align] + " " * (column - row.align) + row.text[row.align :])


def _runs(rows: list[Row], member: Callable[[Row], bool], through_comments: bool = False) -> Iterator[list[int]]:
    """Yield the indices of members that follow one another at one indent, with only comments between if at all."""
    run: list[int] = []
    for at, row in enumerate(rows):
        passes = member(row) or (through_comments and not row.text)
        if run and (row.blank or row.indent != rows[run[-1]].indent or not passes):
            yield run
            run = []
        if member(row):
            run.append(at)
    if run:
        yield run


def text_of(rows: Iterable[Row]) -> str:
    """Return the rows as the text of a file."""
    lines: list[str] = []
    for row in rows:
        if row.blank:
            lines.append("")
        between = "  " if row.text and row.comment else ""
        lines.append(f"{' ' * (row.indent * INDENT)}{row.text}{between}{row.comment}")
    return "".join(line + "\n" for line in lines)
