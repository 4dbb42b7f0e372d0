"""Read a `.cg` file into a tree, or say what is wrong with its text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lark import UnexpectedInput
from lark.exceptions import VisitError

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label, Location
from cgc.input_file import open_input
from cgc.syntax.build import Build, LimitError
from cgc.syntax.layout import DEEPEST, NestingError
from cgc.syntax.mistakes import at_token, explain
from cgc.syntax.tables import parser
from cgc.syntax.tree import Comment, Definition, File

LARGEST_FILE = 1 << 18
"""Bytes a source file may have."""
MOST_SYNTAX_ERRORS = 20
MOST_READ = 1 << 19
"""Characters read in search of further syntax errors; each one found means reading the file again."""

_COMMENT = re.compile(r'"[^"\n]*"|#[^\n]*')


def read_source(path: Path, shown: str) -> str:
    """Return the text of a source file; `shown` is how messages name it.

    Raises:
        InputError: it cannot be read (CG0001), is too large (CG0002) or is not UTF-8 text (CG0003).
    """
    here = Location(shown, 0, 0, 0, 0)
    try:
        with open_input(path) as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = "give the path of a `.cg` file that exists and can be read"
        raise InputError([Diagnostic("CG0001", f"cannot read `{shown}`: {reason}", (Label(here),), hint)]) from error
    if len(data) > LARGEST_FILE:
        message = f"`{shown}` is larger than {LARGEST_FILE // 1024} KiB"
        raise InputError([Diagnostic("CG0002", message, (Label(here),), "split the model into files with `use`")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"`{shown}` is not text in UTF-8: byte {error.start} is {data[error.start]:#04x}"
        raise InputError([Diagnostic("CG0003", message, (Label(here),), "save the file as UTF-8")]) from error
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
            mistake = explain(error, remaining, path)
            found.add(mistake.diagnostic)
            if mistake.rest is None:
                break
            remaining = mistake.rest
        except NestingError as error:
            found.add(_too_deep(at_token(path, error.token)))
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
