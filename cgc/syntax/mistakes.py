"""Faults in a text's form: what lark could not read, said so that it can be mended, and how to read on behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lark import Token, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from cgc.diagnostics import Diagnostic, Label, Location
from cgc.syntax.brackets import PAIRS, Bracket, Open, brackets_of, closing_line, indent_of, open_at, starts_item

_TERMINALS = {
    "_NL": "the end of the line",
    "$END": "the end of the file",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": 'a text in `"`',
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
    "STAR": "`*`",
    "SLASH": "`/`",
    "ARROW": "`->`",
}
_VALUE = frozenset({"NUMBER", "STRING", "TRUE", "FALSE", "NAME", "SIGN"})
_OPERATOR = frozenset({"TIMES", "SIGN", "COMPARE", "CIRCUMFLEX", "AND", "OR", "AS"})
_GROUPS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"MODEL", "BLOCK", "USE", "MUP", "TRAIN", "DEVICE", "CHECKPOINT"}), "`model`, `block` or another item"),
    (frozenset({"DIM", "INPUT", "PARAM", "REPEAT", "RETURN", "OUTPUT", "IF", "NAME"}), "a statement"),
    (_VALUE | {"LPAR", "NOT"}, "an expression"),
    (_VALUE | {"LPAR"}, "an expression"),
    (_VALUE, "a value"),
    (_OPERATOR | {"LSQB"}, "an operator"),
    (_OPERATOR, "an operator"),
    (frozenset({"TIMES", "SIGN"}), "an operator"),
    (frozenset({"OVER", "ALONG"}), "`over`"),
)
"""Terminals that together are one thing to a reader; the first group that fits takes its terminals out."""
_MOST_WORDS = 5

_CHARACTERS = {
    '"': 'a text needs a closing `"` on the same line',
    "'": 'a text stands in double quotes, as in `"pile"`',
    "“": 'a text stands in straight quotes, as in `"pile"`',
    "”": 'a text stands in straight quotes, as in `"pile"`',
    ";": "the end of the line ends a statement; leave the `;` out",
    "%": "write a part of one as a number: `0.5`",
    "@": "a product of tensors names what it sums over: `dot(a, b, over width)`",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`",
    "→": "write `->`",
    "≤": "write `<=`",
    "×": "write `*`; in the grid of a device, `x`",
    "·": "write `*`",
    "−": "write a minus sign of the keyboard, `-`",
    "\xa0": "this is a space that does not break; write a plain one",
}
_WORD_BEFORE = re.compile(r"([A-Za-z_]\w*)\s*$")


@dataclass(frozen=True, slots=True)
class Mistake:
    """A fault in the form of a text, and the text with it taken out (None: nothing behind it can be read)."""

    diagnostic: Diagnostic
    rest: str | None


def explain(error: UnexpectedInput, text: str, path: str) -> Mistake:
    """Say what is wrong where lark stopped reading `text`."""
    lines = text.split("\n")
    if isinstance(error, UnexpectedCharacters):
        line, column = error.line, error.column
        character = lines[line - 1][column - 1 : column]
        letter = "names are made of letters a to z, digits and `_`" if character.isalpha() else ""
        label = Label(Location(path, line, column, line, column + 1))
        shown = character if character.isprintable() else f"U+{ord(character):04X}"
        message = f"`{shown}` does not belong here"
        diagnostic = Diagnostic("CG0101", message, (label,), _CHARACTERS.get(character, letter))
        return Mistake(diagnostic, _without_line(lines, line))
    assert isinstance(error, UnexpectedToken)
    token = error.token
    if token.type == "$END":
        return Mistake(_early_end(error, text, path), None)
    line, column = token.line or 1, token.column or 1
    opened = open_at(text, line, column)
    unclosed = _unclosed(opened, lines, token)
    if unclosed is not None:
        return Mistake(_not_closed(unclosed, path), _behind_unclosed(text, lines, opened.brackets, unclosed, line))
    rest = _without_fault(text, lines, opened, line)
    before = lines[line - 1][: column - 1]
    reserved = _reserved(token, _accepted(error), before, path)
    if reserved is not None:
        return Mistake(reserved, rest)
    what = _TERMINALS["_NL"] if token.type == "_NL" else f"`{token}`"
    label = Label(at_token(path, token), f"needed here: {_expected(error)}")
    hint = _hint(token, _accepted(error), before, opened)
    return Mistake(Diagnostic("CG0103", f"{what} was not expected", (label,), hint), rest)


def at_token(path: str, token: Token) -> Location:
    """Return the place of a token."""
    line, column = token.line or 1, token.column or 1
    return Location(path, line, column, line, column + max(1, len(token.rstrip())))


def _accepted(error: UnexpectedToken) -> frozenset[str]:
    return frozenset(error.accepts or error.expected)


def _expected(error: UnexpectedToken) -> str:
    left = set(_accepted(error))
    words: list[str] = []
    for group, word in _GROUPS:
        if group <= left:
            left -= {*group, "RBRACE", "$END"} if group & {"DIM", "MODEL"} else group
            words.append(word)
    words += sorted(_TERMINALS.get(name, f"`{name.lower()}`") for name in left)
    words = words[:_MOST_WORDS] if len(words) <= _MOST_WORDS else [*words[: _MOST_WORDS - 1], "something else"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" or {words[-1]}" if words else "nothing"


def _early_end(error: UnexpectedToken, text: str, path: str) -> Diagnostic:
    lines = text.rstrip().split("\n")
    line, column = len(lines), len(lines[-1]) + 1
    unclosed = open_at(text, len(text.split("\n")) + 1, 1).forgotten
    if unclosed is not None:
        return _not_closed(unclosed, path)
    place = Location(path, line, column, line, column + 1)
    text = f"the file ends where {_expected(error)} is needed"
    return Diagnostic("CG0102", text, (Label(place, "here"),), hint="finish what was begun, or take it out")


def _not_closed(opened: Bracket, path: str) -> Diagnostic:
    place = Location(path, opened.line, opened.column, opened.line, opened.column + 1)
    return Diagnostic(
        "CG0102", f"this `{opened.text}` is never closed", (Label(place),), f"add the missing `{PAIRS[opened.text]}`"
    )


def _unclosed(opened: Open, lines: list[str], token: Token) -> Bracket | None:
    """Return the bracket that should have been closed before the token, going by how the lines are indented."""
    if not opened.brackets:
        return None
    line = token.line or 1
    here, inner = lines[line - 1], opened.brackets[-1]
    if inner.line == line:
        return inner if inner.text != "{" and token.type == "LBRACE" else None
    if starts_item(here):
        return opened.forgotten if inner.text == "{" else inner
    return inner if inner.text != "{" and indent_of(here) <= inner.indent else None


def _reserved(token: Token, accepted: frozenset[str], before: str, path: str) -> Diagnostic | None:
    """Return the fault that a word of the language is used as a name, if it is that."""
    word = _WORD_BEFORE.search(before)
    if token.type == "EQUAL" and accepted == {"NAME"} and word is not None:
        line = token.line or 1
        name, place = word[1], Location(path, line, word.start(1) + 1, line, word.end(1) + 1)
    elif "NAME" in accepted and token.isidentifier() and token.type != "NAME":
        name, place = str(token), at_token(path, token)
    else:
        return None
    return Diagnostic("CG0103", f"`{name}` is a word of the language", (Label(place),), "choose another name")


def _hint(token: Token, accepted: frozenset[str], before: str, opened: Open) -> str:
    word = _WORD_BEFORE.search(before)
    if accepted == {"TILDE"}:
        return "how a parameter starts follows `~`, as in `~ normal(std=0.02)`"
    if accepted == {"ARROW"}:
        return "names without commas are dimensions, as in `width -> heads head`; is a comma missing?"
    if token == "*" and before.rstrip().endswith("*"):
        return "a power is written `^`"
    if accepted == {"EQUAL", "COMMA"} and word is not None and token.type in ("SIGN", "TIMES"):
        return f"write it out: `{word[1]} = {word[1]} {token} …`"
    if token.type == "RBRACE" and not opened.brackets:
        return "there is one `}` too many here or further up"
    if token.type == "EQUAL" and "LPAR" in accepted:
        return "only a name can stand to the left of `=`; two numbers are compared with `==`"
    if token.type == "NUMBER" and "EQUAL" in accepted and word is not None:
        return f"write `{word[1]}={token}`"
    if accepted == {"AS"}:
        return "a loop has a name, which the names of its parameters start with: `repeat layers as h { … }`"
    if "MODEL" in accepted and not opened.brackets:
        return "statements stand inside the `{ }` of a model or block; is there one `}` too many further up?"
    return ""


# ---- reading on


def _blank(lines: list[str], first: int, last: int) -> str | None:
    """Return the text with the lines from `first` to `last` emptied; None where that changes nothing."""
    if not any(line.strip() for line in lines[first - 1 : last]):
        return None
    return "\n".join("" if first <= i <= last else line for i, line in enumerate(lines, start=1))


def _without_line(lines: list[str], line: int) -> str | None:
    counted = [bracket.text for bracket in brackets_of(lines[line - 1])]
    balanced = all(counted.count(left) == counted.count(right) for left, right in PAIRS.items())
    return _blank(lines, line, line) if balanced else None


def _behind_unclosed(
    text: str, lines: list[str], opened: tuple[Bracket, ...], unclosed: Bracket, line: int
) -> str | None:
    """Leave out everything from the bracket's statement, or its whole item, to before `line`."""
    if unclosed.line == line:
        return _without_fault(text, lines, Open(opened[:-1], None), line)
    if starts_item(lines[line - 1]):
        return _blank(lines, opened[0].line, line - 1)
    return _blank(lines, unclosed.line, line - 1)


def _without_fault(text: str, lines: list[str], opened: Open, line: int) -> str | None:
    """Leave out a faulty line, with the braces it opens; the whole item where that is not enough."""
    outside = not opened.brackets or starts_item(lines[line - 1])
    rest = None if outside else _without_line(lines, line)
    last = closing_line(text, line)
    if rest is not None:
        return rest
    if outside or last is None:
        following = (n for n in range(line + 1, len(lines) + 1) if starts_item(lines[n - 1]))
        first = opened.brackets[0].line if opened.brackets else line
        return _blank(lines, first, next(following, len(lines) + 1) - 1)
    # the body of a loop or branch can be read without its head
    kept = list(lines)
    while last is not None:
        kept[line - 1] = ""
        line, last = last, closing_line(text, last)
    return _blank(kept, line, line)
