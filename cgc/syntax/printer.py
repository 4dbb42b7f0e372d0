"""Write a tree in the one canonical layout."""

from __future__ import annotations

from cgc.syntax.pieces import expression_pieces, flat
from cgc.syntax.tree import Argument, Expression


def expression_text(expression: Expression | Argument) -> str:
    """Return an expression, or an argument of a call, on one line."""
    return flat(expression_pieces(expression))
