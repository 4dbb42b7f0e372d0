"""Newlines: which of them the parser gets to see.

Between ( ) and [ ] a newline means nothing. Elsewhere runs of them count once, none follows an opening brace, and one
always stands before `}` and `else` and at the end of the file, so that `{ a = 1 }` needs no newline of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from lark import Token
from lark.lark import PostLex

NEWLINE = "_NL"
DEEPEST = 100
"""Brackets may nest this deep."""


class NestingError(Exception):
    """Brackets nest deeper than `DEEPEST`; `token` is the one that did it."""

    def __init__(self, token: Token) -> None:
        super().__init__(str(token))
        self.token = token


class Layout(PostLex):
    """Filters the newlines of a token stream."""

    always_accept = (NEWLINE, "RBRACE", "ELSE")

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Yield the tokens of `stream` with only the newlines that end something.

        Nothing is held back: the lexer looks at the parser's state to tell names from words of the language.
        """
        open_brackets: list[str] = []
        last = NEWLINE
        before: Token | None = None
        for token in stream:
            if token.type == NEWLINE:
                inside = bool(open_brackets) and open_brackets[-1] != "LBRACE"
                if inside or before is None or last in (NEWLINE, "LBRACE"):
                    continue
                last = NEWLINE
                yield _newline(before)
                continue
            if token.type in ("RBRACE", "ELSE") and before is not None and last not in (NEWLINE, "LBRACE"):
                yield _newline(before)
            if token.type in ("LPAR", "LSQB", "LBRACE"):
                open_brackets.append(token.type)
                if len(open_brackets) > DEEPEST:
                    raise NestingError(token)
            elif token.type in ("RPAR", "RSQB", "RBRACE") and open_brackets:
                open_brackets.pop()
            yield token
            before, last = token, token.type
        if before is not None and last != NEWLINE:
            yield _newline(before)


def _newline(before: Token) -> Token:
    """Return a newline that takes no room after the token `before`, so that no statement's place reaches past it."""
    line, column, at = before.end_line, before.end_column, before.end_pos
    return Token(NEWLINE, "\n", at, line, column, line, column, at)
