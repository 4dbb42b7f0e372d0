"""Choose the lines of a statement: one if it fits and holds no comment, otherwise its brackets are written open.

Open brackets indent what they hold once more and close on a line of their own:

    model gpt2(
        vocab, context, layers, width, heads, ffn = 4 * width, std = 0.02, embed_std = std,
        activation = "gelu"
    ) {

Brackets that hold a comment keep the lines their elements were on, so that each comment stays beside its element.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cgc.syntax.pieces import Group, Item, Piece, Pieces, flat
from cgc.syntax.tree import Comment

WIDTH = 100
"""Columns a line may have, where it can be broken at all."""
INDENT = 4
SMALL = 25
"""Brackets with less than this in them stay closed: opening them would gain little and read badly."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the canonical layout, with the source lines (`first` to `last`) its text came from."""

    text: str
    indent: int
    first: int = 0
    last: int = 0
    opens: bool = False
    """Ends in an opening bracket: no empty line follows."""
    closes: bool = False
    """Begins with a closing bracket: no empty line precedes."""
    bracketed: bool = False
    """Stands between ( ) or [ ]: no empty lines around."""
    item: str = ""
    """On the first line of an item: what it is."""
    align: int = 0
    """Where in `text` spaces may go, to bring what follows below that of the line above; 0 for nowhere."""
    comment: str = ""
    """The comment behind the text, or with no text the comment that is the whole line."""
    blank: bool = False
    """An empty line precedes."""

    @property
    def width(self) -> int:
        """Columns without the comment."""
        return self.indent * INDENT + len(self.text)


class Breaker:
    """Breaks statements into rows, knowing which source lines have comments."""

    def __init__(self, comments: Iterable[Comment]) -> None:
        self._commented = sorted(comment.line for comment in comments)

    def holds_comment(self, first: int, last: int) -> bool:
        """Tell whether a comment stands between brackets on the source lines `first` and `last`."""
        at = bisect_left(self._commented, first)
        return at < len(self._commented) and self._commented[at] < last

    def rows(self, pieces: Pieces, indent: int, first: int, last: int, bracketed: bool = False) -> list[Row]:
        """Return the rows of a statement, or an element, that came from the source lines `first` to `last`."""
        broken = self._broken(pieces, indent)
        rows: list[Row] = []
        text, line = "", first
        for at, piece in enumerate(pieces):
            if isinstance(piece, str) or at not in broken:
                text += flat((piece,))
                continue
            closes = bool(rows)
            opening = Row(text + piece.opening, indent, line, max(line, piece.first), True, closes, bracketed or closes)
            rows += [opening, *self._items(piece, indent + 1)]
            text, line = piece.closing, max(line, piece.last)
        tail = Row(text, indent, line, max(line, last), False, bool(rows), bracketed or bool(rows))
        return [*rows, tail]

    def _broken(self, pieces: Pieces, indent: int) -> set[int]:
        """Return the indices of the brackets to write open."""
        room = WIDTH - indent * INDENT
        groups = {at: piece for at, piece in enumerate(pieces) if isinstance(piece, Group)}
        broken = {at for at, group in groups.items() if self.holds_comment(group.first, group.last)}
        # the last call opens before the first; square brackets hold names, and open for a comment only
        order = [at for at in reversed(groups) if at not in broken and _worth_opening(groups[at])]
        if _longest(pieces, broken) <= room:
            return broken
        enough = next((at for at in order if _longest(pieces, broken | {at}) <= room), None)
        if enough is not None:
            return broken | {enough}
        for at in order:
            shorter = broken | {at}
            if _longest(pieces, shorter) < _longest(pieces, broken):
                broken = shorter
            if _longest(pieces, broken) <= room:
                break
        return broken

    def _items(self, group: Group, indent: int) -> Iterator[Row]:
        """Yield the elements of open brackets, as many on a line as fit or, beside comments, as were."""
        separator = "" if group.chain else ","
        kept = self.holds_comment(group.first, group.last)
        line: list[Item] = []
        for at, item in enumerate(group.items):
            if separator and at + 1 < len(group.items):
                item = replace(item, pieces=(*item.pieces, separator))
            whole = not self._broken(item.pieces, indent)
            apart = kept and bool(line) and line[-1].last != item.first
            if line and (apart or not whole or _width([*line, item]) > WIDTH - indent * INDENT):
                yield _joined(line, indent)
                line = []
            if whole:
                line.append(item)
            else:
                yield from self.rows(item.pieces, indent, item.first, item.last, bracketed=True)
        if line:
            yield _joined(line, indent)


def _worth_opening(group: Group) -> bool:
    return group.opening == "(" and len(flat((group,))) >= SMALL


def _joined(items: list[Item], indent: int) -> Row:
    text = " ".join(flat(item.pieces) for item in items)
    return Row(text, indent, items[0].first, items[-1].last, bracketed=True)


def _width(items: Iterable[Item]) -> int:
    return sum(len(flat(item.pieces)) + 1 for item in items) - 1


def _longest(pieces: tuple[Piece, ...], broken: set[int]) -> int:
    """Return the length of the longest line outside the brackets `broken` when those are written open."""
    longest, length = 0, 0
    for at, piece in enumerate(pieces):
        if at in broken:
            longest, length = max(longest, length + 1), 1
        else:
            length += len(flat((piece,)))
    return max(longest, length)
