"""Lines of Python as a formatter leaves them: broken where they are too long, text made safe for comments."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 88
"""The line length that formatters take when nobody says otherwise."""

_OPEN, _CLOSE = "([{", ")]}"


def statement(text: str, depth: int, comment: str = "") -> list[str]:
    """Return a statement indented by `depth` steps, with a comment beside it, or above it where it does not fit."""
    indent = "    " * depth
    if len(indent) + len(text) > WIDTH:
        above = [f"{indent}# {comment}"] if comment else []
        return above + exploded(text, indent)
    if not comment:
        return [indent + text]
    beside = f"{indent}{text}  # {comment}"
    return [beside] if len(beside) <= WIDTH else [f"{indent}# {comment}", indent + text]


def exploded(text: str, indent: str) -> list[str]:
    """Return `text` with the arguments of the call at its end (`= f(…)`, `-> T:` after it allowed) on own lines."""
    end = text.rfind(")")
    start = _opening(text, end)
    if start < 0 or not (text.endswith((")", "):")) or text.startswith("def ")):
        return [indent + text]
    arguments = split_arguments(text[start + 1 : end])
    inner = indent + "    "
    head, tail = indent + text[: start + 1], indent + text[end:]
    if len(arguments) == 1 and not text.startswith("def "):
        return [head, *exploded_if_long(arguments[0], inner), tail]
    return [head, *(f"{inner}{argument}," for argument in arguments), tail]


def exploded_if_long(text: str, indent: str) -> list[str]:
    """Return `text` on one line where it fits, else broken at the call it ends with."""
    return [indent + text] if len(indent) + len(text) <= WIDTH or not text.endswith(")") else exploded(text, indent)


def _opening(text: str, end: int) -> int:
    """Return the place of the bracket that the one at `end` closes, -1 for none."""
    depth = 0
    for place in range(end, -1, -1):
        if text[place] in _CLOSE:
            depth += 1
        elif text[place] in _OPEN:
            depth -= 1
            if depth == 0:
                return place
    return -1


def split_arguments(text: str) -> list[str]:
    """Return the arguments in `text` apart: split at commas outside of brackets and strings."""
    parts, depth, quoted, start = [""], 0, False, 0
    for place, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char in _OPEN + _CLOSE:
            depth += 1 if char in _OPEN else -1
        elif char == "," and depth == 0:
            parts[-1] = text[start:place].strip()
            parts.append("")
            start = place + 1
    parts[-1] = text[start:].strip()
    return [part for part in parts if part]


def docstring(text: str, depth: int, more: Sequence[str] = ()) -> list[str]:
    """Return `text` as a docstring, wrapped; `more` are lines put below it as they are.

    The text may be the user's: nothing in it can end the string or escape from it.
    """
    indent = "    " * depth
    paragraphs = [plain(part) for part in text.split("\n\n") if plain(part)]
    first, rest = (paragraphs or ["The model"])[0], paragraphs[1:]
    if first[-1] not in ".!?":
        first += "."
    raw = "r" if any("\\" in part for part in (first, *rest, *more)) else ""
    lines = textwrap.wrap(first, WIDTH - len(indent) - 6 - len(raw), break_on_hyphens=False)
    for part in rest:
        lines += ["", *textwrap.wrap(part, WIDTH - len(indent), break_on_hyphens=False)]
    if more:
        lines += ["", *more]
    opening = f'{indent}{raw}"""{lines[0]}'
    if len(lines) == 1 and len(opening) + 3 <= WIDTH:
        return [opening + '"""']
    return [opening, *(f"{indent}{line}" if line else "" for line in lines[1:]), f'{indent}"""']


def plain(text: str) -> str:
    """Return the user's text as printable words on one line that may stand in a docstring or comment.

    A backslash before a quote, or at the end, would escape it even in a raw string, so there it becomes a slash.
    """
    words = "".join(char if char.isprintable() else " " for char in text).split()
    line = " ".join(words).replace('"""', "'''")
    line = line.replace('\\"', '/"').replace('""', "''")
    return line[:-1] + "/" if line.endswith("\\") else line.rstrip('"') if line.endswith('"') else line
