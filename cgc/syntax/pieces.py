"""What an expression looks like before its lines are chosen: text, and brackets that may be written over several lines.

`expression_pieces` makes them of a tree; `flat` writes them on one line; `cgc.syntax.rows` breaks the long ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from cgc.syntax import tree
from cgc.syntax.tree import Argument, Expression, Name


@dataclass(frozen=True, slots=True)
class Item:
    """One element between brackets, with the source lines it came from (0 where it came from none)."""

    pieces: Pieces
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Group:
    """Brackets and what stands between them; `first` and `last` are the source lines of the brackets.

    The elements are separated by commas, except those of a `chain`: operands that carry their own operators.
    """

    opening: str
    items: tuple[Item, ...]
    closing: str
    first: int
    last: int
    chain: bool = False


Piece: TypeAlias = str | Group
Pieces: TypeAlias = tuple[Piece, ...]

_LEVELS = ({"or"}, {"and"}, {"<=", ">=", "==", "!=", "<", ">"}, {"+", "-"}, {"*", "/"})


def flat(pieces: Iterable[Piece]) -> str:
    """Return the pieces on one line."""
    return "".join(piece if isinstance(piece, str) else _flat_group(piece) for piece in pieces)


def _flat_group(group: Group) -> str:
    return group.opening + (" " if group.chain else ", ").join(flat(i.pieces) for i in group.items) + group.closing


def expression_pieces(expression: Expression | Argument) -> Pieces:
    """Return how an expression, or an argument of a call, is written."""
    match expression:
        case tree.PackArgument(keyword, dims):
            return (f"{keyword} {words(dims)}",)
        case tree.ArrowArgument(source, target):
            return (f"{words(source)} -> {words(target)}",)
        case tree.KeywordArgument(name, value):
            return (f"{name.text}=", *expression_pieces(value))
        case tree.Number() | tree.String() | tree.Boolean() | tree.Name():
            return (_atom(expression),)
        case tree.Minus() | tree.Not() | tree.Operation():
            return _operation(expression)
        case _:
            return _bracketed(expression)


def _atom(atom: tree.Number | tree.String | tree.Boolean | tree.Name) -> str:
    match atom:
        case tree.Number(text) | tree.Name(text):
            return text
        case tree.String(value):
            return f'"{value}"'
        case tree.Boolean(truth):
            return "true" if truth else "false"
        case _:
            assert_never(atom)


def _operation(operation: tree.Minus | tree.Not | tree.Operation) -> Pieces:
    match operation:
        case tree.Minus(sign, operand):
            return (sign, *expression_pieces(operand))
        case tree.Not(operand):
            return ("not ", *expression_pieces(operand))
        case tree.Operation(operator, left, right):
            return (*expression_pieces(left), f" {operator} ", *expression_pieces(right))
        case _:
            assert_never(operation)


def _bracketed(expression: tree.Parenthesis | tree.Index | tree.Rename | tree.Call) -> Pieces:
    place = expression.location
    match expression:
        case tree.Parenthesis(inside):
            return (Group("(", _chain(inside), ")", place.line, place.end_line, chain=True),)
        case tree.Index(table, index, over):
            pieces = (*expression_pieces(index), f" over {over.text}" if over is not None else "")
            item = Item(pieces, index.location.line, (over or index).location.end_line)
            group = Group("[", (item,), "]", table.location.end_line, place.end_line)
            return (*expression_pieces(table), group)
        case tree.Rename(operand, names):
            items = tuple(
                Item((f"{old.text} -> {new.text}",), old.location.line, new.location.line) for old, new in names
            )
            group = Group("[", items, "]", operand.location.end_line, place.end_line)
            return (*expression_pieces(operand), " as ", group)
        case tree.Call(callee, arguments):
            return (callee.text, argument_group(arguments, callee.location.line, place.end_line))
        case _:
            assert_never(expression)


def argument_group(arguments: Iterable[Argument], first: int, last: int) -> Group:
    """Return the arguments of a call in their parentheses, which stand on the source lines `first` and `last`."""
    return Group("(", tuple(_item(argument) for argument in arguments), ")", first, last)


def name_group(names: Iterable[Name], first: int, last: int) -> Group:
    """Return a list of names in square brackets."""
    return Group("[", tuple(_item(name) for name in names), "]", first, last)


def words(names: Iterable[Name]) -> str:
    """Return names with a space between them."""
    return " ".join(name.text for name in names)


def _item(expression: Argument) -> Item:
    return Item(expression_pieces(expression), expression.location.line, expression.location.end_line)


def _chain(inside: Expression) -> tuple[Item, ...]:
    """Return the operands of the weakest operator in `inside`, each but the first after its operator."""
    level = next((level for level in _LEVELS if isinstance(inside, tree.Operation) and inside.operator in level), set())
    items: list[Item] = []
    while isinstance(inside, tree.Operation) and inside.operator in level:
        right = inside.right
        pieces = (f"{inside.operator} ", *expression_pieces(right))
        items.append(Item(pieces, right.location.line, right.location.end_line))
        inside = inside.left
    return (_item(inside), *reversed(items))
