"""Configurations as data in which everything has its place: the common form of JSON and YAML, and a reader of JSON."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeAlias

from cgc.diagnostics import Diagnostic, InputError, Label, Location

DEEPEST = 50
"""Lists and mappings may nest this deep."""
LONGEST_NUMBER = 40
"""Characters that a number may have; the longest that a float prints as has 24."""

Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and its place; `names` are the places of a mapping's keys."""

    value: Scalar | list[Entry] | dict[str, Entry]
    place: Location
    names: dict[str, Location]

    @property
    def shown(self) -> str:
        """The value as messages write it."""
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case value:
                text = json.dumps(value, ensure_ascii=False)
                return text if len(text) <= 60 else f"{text[:57]}…"


def unreadable(text: str, message: str, place: Location, hint: str = "") -> InputError:
    """Return the fault that a configuration cannot be read."""
    return InputError([Diagnostic("CG1001", message, (Label(place),), hint)], {place.file: text})


def number_of(text: str) -> int | float | None:
    """Return a decimal number; None where the text is none, too long, or larger than any float."""
    if len(text) > LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    value = int(text) if _WHOLE.fullmatch(text) else float(text)
    return None if value in (float("inf"), float("-inf")) else value


_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r"[-+.\w]+")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}


def read_json(text: str, shown: str) -> Entry:
    """Return the value of a JSON text; messages name it `shown`.

    Raises:
        InputError: CG1001, it is not JSON, nests too deep, or gives a key twice.
    """
    return _Json(text, shown).read()


class _Json:
    def __init__(self, text: str, shown: str) -> None:
        self._text = text
        self._shown = shown
        self._at = 0
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def read(self) -> Entry:
        """Read the whole text."""
        entry = self._value(0)
        self._skip()
        if self._at < len(self._text):
            raise self._fault("there is more after the end of the value")
        return entry

    def _skip(self) -> None:
        found = _BLANK.match(self._text, self._at)
        assert found is not None, "it matches nothing, too"
        self._at = found.end()

    def _place(self, start: int, end: int) -> Location:
        line, last = bisect_right(self._lines, start), bisect_right(self._lines, end)
        return Location(
            self._shown, line, start - self._lines[line - 1] + 1, last, end - self._lines[last - 1] + 1
        )  # fmt: skip

    def _fault(self, message: str, start: int | None = None) -> InputError:
        start = self._at if start is None else start
        return unreadable(self._text, message, self._place(start, start + 1))

    def _peek(self) -> str:
        self._skip()
        if self._at >= len(self._text):
            raise self._fault("the text ends too early")
        return self._text[self._at]

    def _value(self, depth: int) -> Entry:
        first = self._peek()
        if depth > DEEPEST:
            raise self._fault(f"this nests deeper than {DEEPEST}")
        start = self._at
        match first:
            case "{":
                return self._mapping(depth, start)
            case "[":
                return self._list(depth, start)
            case '"':
                value: Scalar = self._string()
            case _:
                value = self._word()
        return Entry(value, self._place(start, self._at), {})

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            raise self._fault("this text has no end on its line")
        try:
            value = json.loads(found.group())
        except ValueError as error:
            raise self._fault("this text has an escape that JSON has not") from error
        self._at = found.end()
        return str(value)

    def _word(self) -> Scalar:
        found = _WORD.match(self._text, self._at)
        word = found.group() if found is not None else self._text[self._at]
        number = number_of(word)
        if number is None and word not in _WORDS:
            what = "a number too large or too long" if word[0].isdigit() or word[0] == "-" else "no value of JSON"
            raise self._fault(f"`{word[:LONGEST_NUMBER]}` is {what}")
        self._at += len(word)
        return _WORDS[word] if number is None else number

    def _list(self, depth: int, start: int) -> Entry:
        self._at += 1
        entries: list[Entry] = []
        if self._peek() != "]":
            entries.append(self._value(depth + 1))
            while self._separator("]"):
                entries.append(self._value(depth + 1))
        self._at += 1
        return Entry(entries, self._place(start, self._at), {})

    def _separator(self, closing: str) -> bool:
        """Step over a comma; tell whether there was one, and not the end."""
        found = self._peek()
        if found not in (",", closing):
            raise self._fault(f"a comma or `{closing}` is missing here")
        self._at += found == ","
        return found == ","

    def _mapping(self, depth: int, start: int) -> Entry:
        self._at += 1
        entries: dict[str, Entry] = {}
        names: dict[str, Location] = {}
        if self._peek() != "}":
            self._pair(depth, entries, names)
            while self._separator("}"):
                self._pair(depth, entries, names)
        self._at += 1
        return Entry(entries, self._place(start, self._at), names)

    def _pair(self, depth: int, entries: dict[str, Entry], names: dict[str, Location]) -> None:
        if self._peek() != '"':
            raise self._fault("a key in double quotes is missing here")
        start = self._at
        key = self._string()
        if key in entries:
            raise self._fault(f"`{key}` is given twice", start)
        names[key] = self._place(start, self._at)
        if self._peek() != ":":
            raise self._fault(f"a colon is missing after `{key}`")
        self._at += 1
        entries[key] = self._value(depth + 1)
