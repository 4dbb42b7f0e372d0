"""From lark's parse tree to `cgc.syntax.tree`: one method a grammar rule."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

from lark import Token, v_args
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from cgc.diagnostics import NOWHERE, Diagnostic, Label, Location
from cgc.syntax import tree

SUFFIXES = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
DEEPEST = 100
"""Expressions may nest this deep."""


LONGEST_NUMBER = 40
LARGEST_NUMBER = 1e300
"""Characters a number may have, and what it may amount to."""


class LimitError(Exception):
    """The text goes beyond what the compiler takes; `diagnostic` says where and how."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def number_value(text: str) -> int | float:
    """Return what a number means: `375M` is 375000000, `1_000` is 1000, `6e-3` is a float."""
    plain = text.replace("_", "")
    scale = SUFFIXES.get(plain[-1], 1)
    plain = plain[:-1] if scale != 1 else plain
    if plain.isdigit():
        return int(plain) * scale
    # in decimal, because 1.001K is 1001 and the nearest float to 1.001, times 1000, is not
    value = float(Decimal(plain) * scale)
    return int(value) if scale != 1 and value.is_integer() else value


def _operation(self: Build, meta: Meta, left: Any, operator: Token, right: Any) -> tree.Operation:
    return self.operation(meta, left, operator, right)


@v_args(inline=True, meta=True)
class Build(Transformer_NonRecursive[Token, tree.File]):
    """Builds the tree of one file, without recursion: the text decides how deep lark's tree is."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._depth: dict[int, int] = {}

    def _at(self, meta: Meta) -> Location:
        if meta.empty:
            return NOWHERE
        return Location(self._path, meta.line, meta.column, meta.end_line, meta.end_column)

    def _token(self, token: Token) -> Location:
        line, column = cast(int, token.line), cast(int, token.column)
        return Location(self._path, line, column, line, column + len(token))

    def _name(self, token: Token) -> tree.Name:
        return tree.Name(str(token), location=self._token(token))

    def _number(self, token: Token) -> tree.Number:
        place = self._token(token)
        # the length first: Python refuses to read an integer of thousands of digits
        if len(token) > LONGEST_NUMBER or (value := number_value(str(token))) > LARGEST_NUMBER:
            message = f"a number is at most {LARGEST_NUMBER:.0e}, written with {LONGEST_NUMBER} characters or fewer"
            raise LimitError(Diagnostic("CG0104", message, (Label(place),), "`infinity` is a number by name"))
        return tree.Number(str(token), value, location=place)

    def _string(self, token: Token) -> tree.String:
        return tree.String(str(token)[1:-1], location=self._token(token))

    def _nested(self, node: Any, *children: Any) -> Any:
        depth = 1 + max((self._depth.get(id(child), 0) for child in children), default=0)
        if depth > DEEPEST:
            message, hint = f"this expression nests deeper than {DEEPEST}", "give parts of it names of their own"
            raise LimitError(Diagnostic("CG0901", message, (Label(node.location),), hint))
        self._depth[id(node)] = depth
        return node

    # expressions

    def number(self, _: Meta, token: Token) -> tree.Number:
        return self._number(token)

    def string(self, _: Meta, token: Token) -> tree.String:
        return self._string(token)

    def boolean(self, _: Meta, token: Token) -> tree.Boolean:
        return tree.Boolean(token == "true", location=self._token(token))

    def name(self, _: Meta, token: Token) -> tree.Name:
        return self._name(token)

    def operation(self, meta: Meta, left: Any, operator: Token | str, right: Any) -> tree.Operation:
        place = self._token(operator) if isinstance(operator, Token) else left.location.to(right.location)
        node = tree.Operation(str(operator), left, right, place, location=self._at(meta))
        return cast(tree.Operation, self._nested(node, left, right))

    sum = product = comparison = _operation

    def disjunction(self, meta: Meta, left: Any, right: Any) -> tree.Operation:
        return self.operation(meta, left, "or", right)

    def conjunction(self, meta: Meta, left: Any, right: Any) -> tree.Operation:
        return self.operation(meta, left, "and", right)

    def power(self, meta: Meta, left: Any, right: Any) -> tree.Operation:
        return self.operation(meta, left, "^", right)

    def negation(self, meta: Meta, operand: Any) -> Any:
        return self._nested(tree.Not(operand, location=self._at(meta)), operand)

    def minus(self, meta: Meta, sign: Token, operand: Any) -> Any:
        return self._nested(tree.Minus(str(sign), operand, location=self._at(meta)), operand)

    def parenthesis(self, meta: Meta, inside: Any) -> Any:
        return self._nested(tree.Parenthesis(inside, location=self._at(meta)), inside)

    def index(self, meta: Meta, table: Any, index: Any, over: Token | None) -> Any:
        name = self._name(over) if over is not None else None
        return self._nested(tree.Index(table, index, name, location=self._at(meta)), table, index)

    def rename(self, meta: Meta, operand: Any, *names: tuple[tree.Name, tree.Name]) -> Any:
        return self._nested(tree.Rename(operand, names, location=self._at(meta)), operand)

    def renaming(self, _: Meta, old: Token, new: Token) -> tuple[tree.Name, tree.Name]:
        return self._name(old), self._name(new)

    def call(self, meta: Meta, callee: Token, *arguments: Any) -> Any:
        return self._nested(tree.Call(self._name(callee), arguments, location=self._at(meta)), *arguments)

    def pack_argument(self, meta: Meta, keyword: Token, dims: tuple[tree.Name, ...]) -> tree.PackArgument:
        return tree.PackArgument(str(keyword), dims, location=self._at(meta))

    def arrow_argument(self, meta: Meta, source: Any, target: Any) -> tree.ArrowArgument:
        return tree.ArrowArgument(source, target, location=self._at(meta))

    def keyword_argument(self, meta: Meta, name: Token, value: Any) -> Any:
        node = tree.KeywordArgument(self._name(name), value, location=self._at(meta))
        return self._nested(node, value)

    def dim_names(self, _: Meta, *names: Token) -> tuple[tree.Name, ...]:
        return tuple(self._name(name) for name in names)

    # headers

    def bare_parameter(self, meta: Meta, name: Token) -> tree.TensorParameter:
        return tree.TensorParameter(self._name(name), None, None, location=self._at(meta))

    def tensor_parameter(self, meta: Meta, name: Token, *rest: Any) -> tree.TensorParameter:
        dims = next((part for part in rest if isinstance(part, tuple)), None)
        type_ = next((part for part in rest if isinstance(part, tree.TypeName)), None)
        return tree.TensorParameter(self._name(name), dims, type_, location=self._at(meta))

    def pack_parameter(self, meta: Meta, keyword: Token, name: Token) -> tree.PackParameter:
        return tree.PackParameter(str(keyword), self._name(name), location=self._at(meta))

    def arrow_parameter(self, meta: Meta, source: Token, target: Token) -> tree.ArrowParameter:
        return tree.ArrowParameter(self._name(source), self._name(target), location=self._at(meta))

    def dim_parameter(self, meta: Meta, name: Token) -> tree.DimParameter:
        return tree.DimParameter(self._name(name), location=self._at(meta))

    def scalar_parameter(self, meta: Meta, name: Token, default: Any) -> tree.ScalarParameter:
        return tree.ScalarParameter(self._name(name), default, location=self._at(meta))

    def pattern(self, _: Meta, *dims: Any) -> tuple[tree.BoundDim | tree.Rest, ...]:
        return tuple(dim for dim in dims if dim is not None)

    def bound_dim(self, meta: Meta, name: Token, limit: Token | None) -> tree.BoundDim:
        bound: tree.Name | tree.Number | None = None
        if limit is not None:
            bound = self._number(limit) if limit.type == "NUMBER" else self._name(limit)
        return tree.BoundDim(self._name(name), bound, location=self._at(meta))

    def rest(self, meta: Meta) -> tree.Rest:
        return tree.Rest(location=self._at(meta))

    def id_type(self, meta: Meta, of: Token) -> tree.TypeName:
        return tree.TypeName("id", self._name(of), location=self._at(meta))

    def plain_type(self, meta: Meta, name: Token) -> tree.TypeName:
        return tree.TypeName(str(name), None, location=self._at(meta))

    def name_list(self, _: Meta, *names: Token | None) -> tuple[tree.Name, ...]:
        return tuple(self._name(name) for name in names if name is not None)

    # statements: the last child of each is its newline, which the grammar filters out

    def body(self, meta: Meta, *statements: Any) -> tree.Body:
        return tree.Body(statements, location=self._at(meta))

    def dim_statement(self, meta: Meta, name: Token, value: Any) -> tree.DimStatement:
        return tree.DimStatement(self._name(name), value, location=self._at(meta))

    def input_statement(self, meta: Meta, name: Token, dims: Any, type_: Any = None) -> tree.InputStatement:
        return tree.InputStatement(self._name(name), dims, type_, location=self._at(meta))

    def param_statement(self, meta: Meta, name: Token, dims: Any, init: Any) -> tree.ParamStatement:
        return tree.ParamStatement(self._name(name), dims, init, location=self._at(meta))

    def assignment(self, meta: Meta, targets: tuple[tree.Name, ...], value: Any) -> tree.Assignment:
        return tree.Assignment(targets, value, location=self._at(meta))

    def targets(self, _: Meta, *names: Token) -> tuple[tree.Name, ...]:
        return tuple(self._name(name) for name in names)

    def repeat_statement(self, meta: Meta, count: Any, name: Token, body: tree.Body) -> tree.RepeatStatement:
        return tree.RepeatStatement(count, self._name(name), body, location=self._at(meta))

    def return_statement(self, meta: Meta, *values: Any) -> tree.ReturnStatement:
        return tree.ReturnStatement(values, location=self._at(meta))

    def output_statement(self, meta: Meta, name: Token, dims: Any, value: Any) -> tree.OutputStatement:
        return tree.OutputStatement(self._name(name), dims, value, location=self._at(meta))

    def if_statement(
        self, meta: Meta, condition: Any, body: tree.Body, otherwise: tree.Body | None = None
    ) -> tree.IfStatement:
        return tree.IfStatement(condition, body, otherwise, location=self._at(meta))

    # items

    def use(self, meta: Meta, path: str | Token) -> tree.Use:
        quoted = isinstance(path, Token)
        return tree.Use(path[1:-1] if quoted else str(path), quoted, location=self._at(meta))

    def path(self, _: Meta, *names: Token) -> str:
        return "/".join(names)

    def instance(self, meta: Meta, name: Token, family: Token, *arguments: Any) -> tree.Instance:
        return tree.Instance(self._name(name), self._name(family), arguments, location=self._at(meta))

    def _definition(self, keyword: str, meta: Meta, name: Token, rest: tuple[Any, ...]) -> tree.Definition:
        *header, body = rest
        return tree.Definition(keyword, self._name(name), tuple(header), body, location=self._at(meta))

    def model(self, meta: Meta, name: Token, *rest: Any) -> tree.Definition:
        return self._definition("model", meta, name, rest)

    def block(self, meta: Meta, name: Token, *rest: Any) -> tree.Definition:
        return self._definition("block", meta, name, rest)

    def dotted(self, meta: Meta, *parts: Token) -> tree.Dotted:
        return tree.Dotted(".".join(parts), location=self._at(meta))

    def growth(self, _: Meta, name: Token, base: Token) -> tuple[tree.Name, tree.Number]:
        return self._name(name), self._number(base)

    def scale(self, meta: Meta, *growths: tuple[tree.Name, tree.Number]) -> tree.Scale:
        return tree.Scale(growths, location=self._at(meta))

    def setting(self, meta: Meta, name: Token, value: Any) -> tree.Setting:
        return tree.Setting(self._name(name), value, location=self._at(meta))

    def init_setting(self, meta: Meta, name: Token, value: Any) -> tree.Setting:
        return tree.Setting(self._name(name), value, "init", location=self._at(meta))

    def multiply(self, meta: Meta, target: tree.Dotted, factor: Token) -> tree.Multiply:
        return tree.Multiply(target, self._number(factor), location=self._at(meta))

    def multiply_by(self, meta: Meta, factor: Token) -> tree.Multiply:
        return tree.Multiply(None, self._number(factor), location=self._at(meta))

    def override(self, meta: Meta, target: tree.Dotted, *lines: Any) -> tree.Override:
        return tree.Override(target, lines, location=self._at(meta))

    def mup(self, meta: Meta, *lines: Any) -> tree.Settings:
        return tree.Settings("mup", None, lines, location=self._at(meta))

    def rule_line(self, meta: Meta, name: Token, value: Any) -> tree.RuleLine:
        return tree.RuleLine(self._name(name), value, location=self._at(meta))

    def rule_factor(self, meta: Meta, value: Any) -> tree.RuleLine:
        place = self._at(meta)
        end = place.column + len("multiply")
        name = tree.Name("multiply", location=Location(place.file, place.line, place.column, place.line, end))
        return tree.RuleLine(name, value, "multiply", location=place)

    def rule(self, meta: Meta, name: Token, *lines: tree.RuleLine) -> tree.Rule:
        return tree.Rule(self._name(name), lines, location=self._at(meta))

    def parametrization(self, meta: Meta, name: Token, *rules: tree.Rule) -> tree.Table:
        return tree.Table(self._name(name), rules, location=self._at(meta))

    def train(self, meta: Meta, *lines: Any) -> tree.Settings:
        return tree.Settings("train", None, lines, location=self._at(meta))

    def device(self, meta: Meta, name: Token, *lines: Any) -> tree.Settings:
        return tree.Settings("device", self._name(name), lines, location=self._at(meta))

    def quantity(self, meta: Meta, sign: Token | None, number: Token, unit: str) -> tree.Quantity:
        return tree.Quantity(self._number(number), str(sign or ""), unit, location=self._at(meta))

    def unit(self, _: Meta, *words: Token | None) -> str:
        if len(words) == 1 or words[0] is None:
            last = next((word for word in reversed(words) if word is not None), None)
            return f"per {last}" if last is not None else ""
        name, over, per = words[0], words[1], words[2]
        return f"{name}{f'/{over}' if over is not None else ''}{f' per {per}' if per is not None else ''}"

    def grid(self, meta: Meta, columns: Token, separator: Token, rows: Token) -> tree.Grid:
        return tree.Grid(self._number(columns), self._name(separator), self._number(rows), location=self._at(meta))

    def settings_call(self, meta: Meta, name: Token, *arguments: Any) -> tree.SettingsCall:
        pairs = tuple(a if isinstance(a, tuple) else (None, a) for a in arguments if a is not None)
        return tree.SettingsCall(self._name(name), pairs, location=self._at(meta))

    def settings_keyword(self, _: Meta, name: Token, value: Any) -> tuple[tree.Name, Any]:
        return self._name(name), value

    def sequence(self, meta: Meta, *steps: Any) -> tree.Sequence:
        return tree.Sequence(steps, location=self._at(meta))

    def axis_dim(self, _: Meta, name: Token) -> tuple[tree.Name, ...]:
        return (self._name(name),)

    def axis_group(self, _: Meta, *names: Token) -> tuple[tree.Name, ...]:
        return tuple(self._name(name) for name in names)

    def axes(self, _: Meta, *axes: tuple[tree.Name, ...]) -> tuple[tuple[tree.Name, ...], ...]:
        return axes

    def prefix(self, meta: Meta, text: Token) -> tree.TensorNames:
        return tree.TensorNames("prefix", self._string(text), location=self._at(meta))

    def ignore(self, meta: Meta, text: Token) -> tree.TensorNames:
        return tree.TensorNames("ignore", self._string(text), location=self._at(meta))

    def entry(self, meta: Meta, optional: Token | None, tensor: Token, axes: Any, *params: tree.Dotted) -> tree.Entry:
        return tree.Entry(self._string(tensor), axes, params, optional is not None, location=self._at(meta))

    def checkpoint(self, meta: Meta, name: Token, *lines: Any) -> tree.Checkpoint:
        return tree.Checkpoint(self._name(name), lines, location=self._at(meta))

    def start(self, _: Meta, *items: tree.Item) -> tree.File:
        return tree.File(self._path, items)
