"""Read a `.cg` file into a tree, or say what is wrong with its text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lark import Token, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label, Location
from cgc.syntax.build import Build, LimitError
from cgc.syntax.layout import DEEPEST, NestingError
from cgc.syntax.tables import parser
from cgc.syntax.tree import Comment, Definition, File

LARGEST_FILE = 1 << 18
"""Bytes a source file may have."""
MOST_SYNTAX_ERRORS = 20
MOST_READ = 1 << 19
"""Characters read in search of further syntax errors; each one found means reading the file again."""

_COMMENT = re.compile(r'"[^"\n]*"|#[^\n]*')
_WORDS = {
    "_NL": "the end of the line",
    "$END": "the end of the file",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text in quotes",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COMMA": "`,`",
    "EQUAL": "`=`",
    "COLON": "`:`",
    "TILDE": "`~`",
    "DOT": "`.`",
    "TIMES": "`*`",
    "STAR": "`*`",
    "SIGN": "`+`",
    "COMPARE": "a comparison",
    "ARROW": "`->`",
    "POWER": "`^`",
    "SLASH": "`/`",
}


def read_source(path: Path, shown: str) -> str:
    """Return the text of a source file; `shown` is how messages name it.

    Raises:
        InputError: it cannot be read (CG0001), is too large (CG0002) or is not UTF-8 text (CG0003).
    """
    here = Location(shown, 0, 0, 0, 0)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError([Diagnostic("CG0001", f"cannot read `{shown}`: {reason}", (Label(here),))]) from error
    if len(data) > LARGEST_FILE:
        message = f"`{shown}` is larger than {LARGEST_FILE // 1024} KiB"
        raise InputError([Diagnostic("CG0002", message, (Label(here),), "split the model into files with `use`")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"`{shown}` is not text in UTF-8: byte {error.start} is {data[error.start]:#04x}"
        raise InputError([Diagnostic("CG0003", message, (Label(here),))]) from error
    return text.removeprefix("\ufeff")


def parse(text: str, path: str) -> File:
    """Parse the text of a file. The tree's places name the file `path`.

    Raises:
        InputError: with every syntax error found; after one, parsing goes on with the next line.
    """
    found = Diagnostics()
    remaining = text
    for _ in range(min(MOST_SYNTAX_ERRORS, 1 + MOST_READ // (len(text) + 1))):
        try:
            file: File = Build(path).transform(parser().parse(remaining))
        except UnexpectedInput as error:
            found.add(_diagnose(error, text, path))
            blanked = _without_line(remaining, error)
            if blanked is None:
                break
            remaining = blanked
        except NestingError as error:
            found.add(_too_deep(_at_token(path, error.token)))
            break
        except VisitError as error:
            if not isinstance(error.orig_exc, LimitError):
                raise error.orig_exc from error
            found.add(error.orig_exc.diagnostic)
            break
        else:
            found.raise_if_any({path: text})
            return _documented(replace(file, comments=_comments(text)))
    raise InputError(found.sorted(), {path: text})


def _too_deep(location: Location) -> Diagnostic:
    message, hint = f"brackets nest deeper than {DEEPEST}", "give parts of it names of their own"
    return Diagnostic("CG0901", message, (Label(location),), hint)


def _at_token(path: str, token: Token) -> Location:
    line, column = token.line or 1, token.column or 1
    return Location(path, line, column, line, column + max(1, len(token.rstrip())))


def _diagnose(error: UnexpectedInput, text: str, path: str) -> Diagnostic:
    if isinstance(error, UnexpectedCharacters):
        place = Location(path, error.line, error.column, error.line, error.column + 1)
        character = text[error.pos_in_stream or 0]
        hint = 'a text needs a closing `"` on the same line' if character == '"' else ""
        shown = character if character.isprintable() else f"U+{ord(character):04X}"
        return Diagnostic("CG0101", f"`{shown}` does not belong here", (Label(place),), hint)
    assert isinstance(error, UnexpectedToken)
    token = error.token
    expected = _expected(error)
    if token.type == "$END":
        lines = text.rstrip().split("\n")
        place = Location(path, len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2)
        hint = "is a closing bracket missing further up?"
        return Diagnostic("CG0102", f"the file ends where {expected} is needed", (Label(place, "here"),), hint)
    what = _WORDS.get(token.type, f"`{token}`") if token.type == "_NL" else f"`{token}`"
    label = Label(_at_token(path, token), f"needed here: {expected}")
    return Diagnostic("CG0103", f"{what} was not expected", (label,), _syntax_hint(token, error))


def _expected(error: UnexpectedToken) -> str:
    words = sorted({_WORDS.get(name, f"`{name.lower()}`") for name in error.accepts or error.expected})
    words = words[:6] + (["…"] if len(words) > 6 else [])
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" or {words[-1]}" if words else "nothing"


def _syntax_hint(token: Token, error: UnexpectedToken) -> str:
    accepted = error.accepts or error.expected
    if token.type in ("EQUAL", "DOT", "COLON") and "LPAR" in accepted and "NAME" not in accepted:
        return "only a name can stand to the left of `=`"
    if "NAME" in accepted and token.islower() and token.isidentifier():
        return f"`{token}` is a word of the language; choose another name"
    if token.type == "RBRACE":
        return "is there one `}` too many?"
    return ""


def _without_line(text: str, error: UnexpectedInput) -> str | None:
    """Return `text` with the faulty line emptied, so that the rest can be read; None when that would lose a brace."""
    lines = text.split("\n")
    at = (error.line if error.line and error.line > 0 else len(lines)) - 1
    if isinstance(error, UnexpectedToken) and error.token.type == "_NL" and at >= len(lines):
        return None
    if at >= len(lines) or (any(brace in lines[at] for brace in "{}[]()") and not _balanced(lines[at])):
        return None
    if not lines[at].strip():
        return None
    lines[at] = ""
    return "\n".join(lines)


def _balanced(line: str) -> bool:
    return all(line.count(pair[0]) == line.count(pair[1]) for pair in ("()", "[]", "{}"))


def _comments(text: str) -> tuple[Comment, ...]:
    comments: list[Comment] = []
    for number, line in enumerate(text.split("\n"), start=1):
        for found in _COMMENT.finditer(line):
            if found[0].startswith("#"):
                comments.append(Comment(number, found[0].rstrip(), not line[: found.start()].strip()))
    return tuple(comments)


def _documented(file: File) -> File:
    """Give every definition the comment that stands directly above it."""
    alone = {comment.line: comment.text for comment in file.comments if comment.alone}
    items = tuple(
        replace(item, doc=_above(alone, item.location.line)) if isinstance(item, Definition) else item
        for item in file.items
    )
    return replace(file, items=items)


def _above(alone: dict[int, str], line: int) -> str:
    lines: list[str] = []
    while line - 1 in alone:
        line -= 1
        lines.insert(0, alone[line].lstrip("#").strip())
    return "\n".join(lines).strip()
