"""Write a tree in the one canonical layout.

`format_file` writes a file with its comments; `expression_text` one expression, for messages. The layout depends on
the tree, on where the comments stand and on which statements had an empty line between them, and on nothing else of
the source, so that formatting twice is formatting once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from cgc.syntax import tree
from cgc.syntax.comments import lined_up, text_of, with_comments
from cgc.syntax.pieces import (
    Group,
    Item,
    Piece,
    Pieces,
    argument_group,
    expression_pieces,
    flat,
    name_group,
    words,
)
from cgc.syntax.rows import Breaker, Row


def expression_text(expression: tree.Expression | tree.Argument) -> str:
    """Return an expression, or an argument of a call, on one line."""
    return flat(expression_pieces(expression))


def format_file(file: tree.File) -> str:
    """Return the text of a file in the canonical layout, with all its comments.

    The text parses to an equal tree, and formats to itself.
    """
    writer = _Writer(Breaker(file.comments))
    rows = [row for item in file.items for row in writer.item(item)]
    return text_of(lined_up(with_comments(rows, file.comments)))


class _Writer:
    """Makes rows of items and statements."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    # items

    def item(self, item: tree.Item) -> Iterator[Row]:
        """Yield the rows of an item; the first says what it is."""
        rows = iter(self._item(item))
        kind = "use" if isinstance(item, tree.Use) else "instance" if isinstance(item, tree.Instance) else "item"
        yield replace(next(rows), item=kind)
        yield from rows

    def _item(self, item: tree.Item) -> Iterable[Row]:
        place = item.location
        match item:
            case tree.Use(path, quoted):
                return self._statement((f'use "{path}"' if quoted else f"use {path}",), 0, item)
            case tree.Instance(name, family, arguments):
                group = argument_group(arguments, family.location.line, place.end_line)
                return self._statement((f"model {name.text} = {family.text}", group), 0, item)
            case tree.Definition(keyword, name, header, body):
                parameters = tuple(Item(_parameter(p), p.location.line, p.location.end_line) for p in header)
                group = Group("(", parameters, ")", name.location.line, body.location.line)
                return self._body((f"{keyword} {name.text}", group, " "), 0, place.line, body)
            case tree.Settings(keyword, name, lines):
                head = keyword if name is None else f"{keyword} {name.text}"
                inside = [row for line in lines for row in self._setting(line, 1)]
                return self._braces((f"{head} ",), inside, 0, (place.line, place.line, place.end_line))
            case tree.Table(name, rules):
                inside = [row for rule in rules for row in self._rule(rule)]
                head = f"parametrization {name.text} "
                return self._braces((head,), inside, 0, (place.line, place.line, place.end_line))
            case tree.Checkpoint(name, lines):
                inside = [row for line in lines for row in self._checkpoint_line(line)]
                return self._braces((f"checkpoint {name.text} ",), inside, 0, (place.line, place.line, place.end_line))
            case _:
                assert_never(item)

    def _braces(self, head: Pieces, inside: list[Row], indent: int, lines: tuple[int, int, int]) -> list[Row]:
        """Return `head { inside }`; `lines` are the source lines of the head's start and of the two braces."""
        start, opening, closing = lines
        if not inside and not self._breaker.holds_comment(opening, closing):
            return self._breaker.rows((*head, "{}"), indent, start, closing)
        *rows, last = self._breaker.rows((*head, "{"), indent, start, opening)
        end = Row("}", indent, closing, closing, closes=True)
        return [*rows, replace(last, opens=True), *inside, end]

    def _body(self, head: Pieces, indent: int, start: int, body: tree.Body) -> list[Row]:
        inside = [row for statement in body.statements for row in self.statement(statement, indent + 1)]
        return self._braces(head, inside, indent, (start, body.location.line, body.location.end_line))

    # statements

    def _statement(self, pieces: Pieces, indent: int, node: tree.Syntax, before: Pieces = ()) -> list[Row]:
        """Return the rows of a statement; what follows the pieces `before` is lined up with the lines around."""
        place = node.location
        first, *rest = self._breaker.rows((*before, *pieces), indent, place.line, place.end_line)
        align = len(flat(before))
        if before and first.text.startswith(flat((*before, pieces[0]))):
            first = replace(first, align=align)
        return [first, *rest]

    def statement(self, statement: tree.Statement, indent: int) -> list[Row]:
        """Return the rows of a statement of a body."""
        place = statement.location
        match statement:
            case tree.RepeatStatement(count, name, body):
                head = ("repeat ", *expression_pieces(count), f" as {name.text} ")
                return self._body(head, indent, place.line, body)
            case tree.IfStatement():
                return self._if(statement, indent)
            case tree.ParamStatement(name, dims, init):
                group = name_group(dims, name.location.line, init.location.line)
                return self._statement(
                    (" ~ ", *expression_pieces(init)), indent, statement, (f"param {name.text}", group)
                )
            case _:
                return self._statement(_simple(statement), indent, statement)

    def _if(self, statement: tree.IfStatement, indent: int) -> list[Row]:
        head = ("if ", *expression_pieces(statement.condition), " ")
        body, otherwise = statement.body, statement.otherwise
        if otherwise is None:
            return self._body(head, indent, statement.location.line, body)
        # comments between `}` and `else` have no place of their own: they end the first body
        inside = [row for inner in body.statements for row in self.statement(inner, indent + 1)]
        start = otherwise.location.line
        rows = self._braces(head, inside, indent, (statement.location.line, body.location.line, start))
        if rows[-1].text == "}":
            rows.pop()
        else:
            rows[-1] = replace(rows[-1], text=rows[-1].text.removesuffix("}"), opens=True)
        first, *rest = self._body(("} else ",), indent, start, otherwise)
        return [*rows, replace(first, closes=True), *rest]

    # settings and checkpoints

    def _setting(self, line: tree.Setting | tree.Scale | tree.Multiply | tree.Override, indent: int) -> list[Row]:
        place = line.location
        match line:
            case tree.Setting(name, value, keyword):
                key = f"{keyword} {name.text}" if keyword else name.text
                return self._statement((" = ", *_value(value)), indent, line, (key,))
            case tree.Scale(growths):
                grown = ", ".join(f"{name.text} from {base.text}" for name, base in growths)
                return self._statement((f"scale {grown}",), indent, line)
            case tree.Multiply(target, factor):
                what = f"multiply {target.text} by" if target is not None else "multiply by"
                return self._statement((f"{what} {factor.text}",), indent, line)
            case tree.Override(target, lines):
                inside = [row for inner in lines for row in self._setting(inner, indent + 1)]
                head = (f"override {target.text} ",)
                return self._braces(head, inside, indent, (place.line, target.location.line, place.end_line))
            case _:
                assert_never(line)

    def _rule(self, rule: tree.Rule) -> list[Row]:
        place = rule.location
        inside: list[Row] = []
        for line in rule.lines:
            if line.keyword:
                inside += self._statement(("multiply by ", *expression_pieces(line.value)), 2, line)
            else:
                inside += self._statement((" = ", *expression_pieces(line.value)), 2, line, (line.name.text,))
        return self._braces((f"{rule.name.text} ",), inside, 1, (place.line, place.line, place.end_line))

    def _checkpoint_line(self, line: tree.TensorNames | tree.Entry) -> list[Row]:
        match line:
            case tree.TensorNames(keyword, text):
                return self._statement((f'{keyword} "{text.value}"',), 1, line)
            case tree.Entry(tensor, axes, params, optional):
                items = tuple(Item((_axis(axis),), axis[0].location.line, axis[-1].location.line) for axis in axes)
                group = Group("[", items, "]", tensor.location.line, params[0].location.line)
                names = ", ".join(param.text for param in params)
                word = "optional " if optional else ""
                return self._statement((f'{word}"{tensor.value}" ', group, f" = {names}"), 1, line)
            case _:
                assert_never(line)


def _simple(
    statement: tree.DimStatement | tree.InputStatement | tree.Assignment | tree.ReturnStatement | tree.OutputStatement,
) -> Pieces:
    """Return the pieces of a statement without a body."""
    place = statement.location
    match statement:
        case tree.DimStatement(name, value):
            return (f"dim {name.text} = ", *expression_pieces(value))
        case tree.InputStatement(name, dims, type_):
            end = type_.location.line if type_ is not None else place.end_line
            return (f"input {name.text}", _pattern(dims, name.location.line, end), _typed(type_))
        case tree.Assignment(targets, value):
            return (", ".join(target.text for target in targets) + " = ", *expression_pieces(value))
        case tree.ReturnStatement(values):
            return ("return ", *_separated(values))
        case tree.OutputStatement(name, dims, value):
            order = () if dims is None else (name_group(dims, name.location.line, value.location.line),)
            return (f"output {name.text}", *order, " = ", *expression_pieces(value))
        case _:
            assert_never(statement)


def _separated(values: Iterable[tree.Expression]) -> Iterator[Piece]:
    for at, value in enumerate(values):
        yield from ((", ",) if at else ())
        yield from expression_pieces(value)


def _parameter(parameter: tree.Parameter) -> Pieces:
    match parameter:
        case tree.TensorParameter(name, dims, type_):
            place = parameter.location
            end = type_.location.line if type_ is not None else place.end_line
            pattern = () if dims is None else (_pattern(dims, name.location.line, end),)
            return (name.text, *pattern, _typed(type_))
        case tree.PackParameter(keyword, name):
            return (f"{keyword} {name.text}",)
        case tree.ArrowParameter(source, target):
            return (f"{source.text} -> {target.text}",)
        case tree.DimParameter(name):
            return (f"dim {name.text}",)
        case tree.ScalarParameter(name, default):
            return (f"{name.text} = ", *expression_pieces(default))
        case _:
            assert_never(parameter)


def _typed(type_: tree.TypeName | None) -> str:
    if type_ is None:
        return ""
    return f" : {type_.name}" if type_.of is None else f" : {type_.name} of {type_.of.text}"


def _pattern(dims: Iterable[tree.BoundDim | tree.Rest], first: int, last: int) -> Group:
    items = (Item((_pattern_dim(dim),), dim.location.line, dim.location.end_line) for dim in dims)
    return Group("[", tuple(items), "]", first, last)


def _pattern_dim(dim: tree.BoundDim | tree.Rest) -> str:
    if isinstance(dim, tree.Rest):
        return "..."
    return dim.name.text if dim.limit is None else f"{dim.name.text} <= {dim.limit.text}"


def _axis(axis: tuple[tree.Name, ...]) -> str:
    alone = len(axis) == 1 and axis[0].text != "*"
    return axis[0].text if alone else f"({words(axis)})"


def _value(value: tree.SettingValue) -> Pieces:
    match value:
        case tree.Quantity(number, sign, unit):
            return (f"{sign}{number.text}{' ' if unit else ''}{unit}",)
        case tree.String() | tree.Name() | tree.Boolean():
            return expression_pieces(value)
        case tree.Grid(columns, separator, rows):
            return (f"{columns.text} {separator.text} {rows.text}",)
        case tree.SettingsCall(name, arguments):
            place = value.location
            items = tuple(
                Item(
                    (f"{key.text}=" if key is not None else "", *_value(inner)),
                    (key or inner).location.line,
                    inner.location.end_line,
                )
                for key, inner in arguments
            )
            return (name.text, Group("(", items, ")", place.line, place.end_line))
        case tree.Sequence(steps):
            pieces: Pieces = _value(steps[0])
            for step in steps[1:]:
                pieces = (*pieces, " then ", *_value(step))
            return pieces
        case _:
            assert_never(value)
