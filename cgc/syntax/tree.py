"""The syntax tree of a `.cg` file: frozen dataclasses, each with the place it was read from.

Two trees are equal when they say the same; places and comments do not take part.
"""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from cgc.diagnostics import NOWHERE, Location
from cgc.record import record


@record(frozen=True)
class Syntax:
    """Base of all nodes."""

    location: Location = field(default=NOWHERE, compare=False, repr=False, kw_only=True)


# ---- expressions


@record(frozen=True)
class Number(Syntax):
    """`2048`, `6e-3`, `375M`. `text` is as written, `value` what it means."""

    text: str
    value: int | float


@record(frozen=True)
class String(Syntax):
    """`"pile"`."""

    value: str


@record(frozen=True)
class Boolean(Syntax):
    """`true`, `false`."""

    value: bool


@record(frozen=True)
class Name(Syntax):
    """A name; also a dimension in a list of dimensions."""

    text: str


@record(frozen=True)
class Minus(Syntax):
    """`-x` (or `+x`)."""

    sign: str
    operand: Expression


@record(frozen=True)
class Not(Syntax):
    """`not x`."""

    operand: Expression


@record(frozen=True)
class Operation(Syntax):
    """`a + b`, `a <= b`, `a and b`, `a ^ b`."""

    operator: str
    left: Expression
    right: Expression
    operator_location: Location = field(default=NOWHERE, compare=False, repr=False)


@record(frozen=True)
class Parenthesis(Syntax):
    """`(x)`, kept so that the canonical layout keeps it."""

    inside: Expression


@record(frozen=True)
class Index(Syntax):
    """`wte[tokens]`, `wpe[position(seq) over context]`."""

    table: Expression
    index: Expression
    over: Name | None


@record(frozen=True)
class Rename(Syntax):
    """`x as [seq -> key]`."""

    operand: Expression
    names: tuple[tuple[Name, Name], ...]


@record(frozen=True)
class PackArgument(Syntax):
    """`over width`, `along seq`."""

    keyword: str
    dims: tuple[Name, ...]


@record(frozen=True)
class ArrowArgument(Syntax):
    """`width -> heads head`."""

    source: tuple[Name, ...]
    target: tuple[Name, ...]


@record(frozen=True)
class KeywordArgument(Syntax):
    """`std = 0.02`."""

    name: Name
    value: Expression


@record(frozen=True)
class Call(Syntax):
    """`linear(x, width -> heads head)`."""

    callee: Name
    arguments: tuple[Argument, ...]


Expression: TypeAlias = Number | String | Boolean | Name | Minus | Not | Operation | Parenthesis | Index | Rename | Call
Argument: TypeAlias = Expression | PackArgument | ArrowArgument | KeywordArgument

# ---- headers and types


@record(frozen=True)
class TypeName(Syntax):
    """`f32`, or `id of vocab` when `of` is set."""

    name: str
    of: Name | None = None


@record(frozen=True)
class BoundDim(Syntax):
    """`seq`, `seq <= context` in the dimensions of an input or an argument."""

    name: Name
    limit: Name | Number | None = None


@record(frozen=True)
class Rest(Syntax):
    """`...`: any further dimensions."""


@record(frozen=True)
class TensorParameter(Syntax):
    """`x`, `x[batch, seq, width]`, `x : bool`. `dims` is None where any will do; `typed` tells a bare name apart."""

    name: Name
    dims: tuple[BoundDim | Rest, ...] | None
    type: TypeName | None


@record(frozen=True)
class PackParameter(Syntax):
    """`over axis`, `along positions`."""

    keyword: str
    name: Name


@record(frozen=True)
class ArrowParameter(Syntax):
    """`in -> out`."""

    source: Name
    target: Name


@record(frozen=True)
class DimParameter(Syntax):
    """`dim query`."""

    name: Name


@record(frozen=True)
class ScalarParameter(Syntax):
    """`eps = 1e-5`: a compile-time number with a default."""

    name: Name
    default: Expression


Parameter: TypeAlias = TensorParameter | PackParameter | ArrowParameter | DimParameter | ScalarParameter

# ---- statements


@record(frozen=True)
class DimStatement(Syntax):
    """`dim head = width / heads`."""

    name: Name
    value: Expression


@record(frozen=True)
class InputStatement(Syntax):
    """`input tokens[batch, seq <= context] : id of vocab`."""

    name: Name
    dims: tuple[BoundDim | Rest, ...]
    type: TypeName | None


@record(frozen=True)
class ParamStatement(Syntax):
    """`param w[in, out] ~ normal(std=0.02)`."""

    name: Name
    dims: tuple[Name, ...]
    init: Call


@record(frozen=True)
class Assignment(Syntax):
    """`q = ...`, `values, ids = ...`."""

    targets: tuple[Name, ...]
    value: Expression


@record(frozen=True)
class RepeatStatement(Syntax):
    """`repeat layers as h { ... }`."""

    count: Expression
    name: Name
    body: Body


@record(frozen=True)
class ReturnStatement(Syntax):
    """`return a, b`."""

    values: tuple[Expression, ...]


@record(frozen=True)
class OutputStatement(Syntax):
    """`output logits[batch, seq, vocab] = ...`; `dims`, if given, is the order of the dimensions."""

    name: Name
    dims: tuple[Name, ...] | None
    value: Expression


@record(frozen=True)
class IfStatement(Syntax):
    """`if bias { ... } else { ... }`, decided at compile time."""

    condition: Expression
    body: Body
    otherwise: Body | None


Statement: TypeAlias = (
    DimStatement
    | InputStatement
    | ParamStatement
    | Assignment
    | RepeatStatement
    | ReturnStatement
    | OutputStatement
    | IfStatement
)


@record(frozen=True)
class Body(Syntax):
    """`{ ... }`."""

    statements: tuple[Statement, ...]


# ---- items


@record(frozen=True)
class Use(Syntax):
    """`use std/gpt2`, `use "../blocks.cg"`; `quoted` is for a path to a file."""

    path: str
    quoted: bool


@record(frozen=True)
class Instance(Syntax):
    """`model small = gpt2(layers=12, ...)`."""

    name: Name
    family: Name
    arguments: tuple[Argument, ...]


@record(frozen=True)
class Definition(Syntax):
    """`model gpt2(...) { ... }` or `block attention(...) { ... }`, by `keyword`; `doc` is the comment above it."""

    keyword: str
    name: Name
    header: tuple[Parameter, ...]
    body: Body
    doc: str = field(default="", compare=False)


@record(frozen=True)
class Quantity(Syntax):
    """`375M tokens`, `20 per param`, `1.2 Tb/s`, `16 B per cycle`; `unit` as words, one space between."""

    number: Number
    sign: str
    unit: str


@record(frozen=True)
class Grid(Syntax):
    """`750 x 994`."""

    columns: Number
    separator: Name
    rows: Number


@record(frozen=True)
class SettingsCall(Syntax):
    """`adamw(beta1=0.9)`, `warmup(375M tokens)`: arguments with a name or without."""

    name: Name
    arguments: tuple[tuple[Name | None, SettingValue], ...]


@record(frozen=True)
class Sequence(Syntax):
    """`warmup(375M tokens) then linear(to=0.1)`."""

    steps: tuple[SettingValue, ...]


SettingValue: TypeAlias = Quantity | String | Name | Boolean | Grid | SettingsCall | Sequence


@record(frozen=True)
class Setting(Syntax):
    """`clip = 1.0`; `keyword` is `init` in `init std = 0.08`."""

    name: Name
    value: SettingValue
    keyword: str = ""


@record(frozen=True)
class Dotted(Syntax):
    """`h.attention.q.w`."""

    text: str


@record(frozen=True)
class Scale(Syntax):
    """`scale width from 256, heads from 4`."""

    growths: tuple[tuple[Name, Number], ...]


@record(frozen=True)
class Multiply(Syntax):
    """`multiply embedding by 10`; inside an override the target is None."""

    target: Dotted | None
    factor: Number


@record(frozen=True)
class Override(Syntax):
    """`override h.attention.q.w { lr = 1e-3 }`."""

    target: Dotted
    lines: tuple[Setting | Multiply, ...]


@record(frozen=True)
class Settings(Syntax):
    """A `mup`, `train` or `device` item; only a device has a name."""

    keyword: str
    name: Name | None
    lines: tuple[Setting | Scale | Multiply | Override, ...]


@record(frozen=True)
class Entry(Syntax):
    """`"wte.weight" [vocab, width] = wte`; `optional` in front where not every model of the family has these."""

    tensor: String
    axes: tuple[tuple[Name, ...], ...]
    params: tuple[Dotted, ...]
    optional: bool = False


@record(frozen=True)
class TensorNames(Syntax):
    """`prefix "transformer."`: may be missing in a file; `ignore "h.{h}.attn.bias"`: may stand in one."""

    keyword: str
    text: String


@record(frozen=True)
class Checkpoint(Syntax):
    """A `checkpoint` item: the hub layout of a family."""

    name: Name
    lines: tuple[TensorNames | Entry, ...]


@record(frozen=True)
class RuleLine(Syntax):
    """`lr = lr / m`; `keyword` is `multiply` in `multiply by 1 / m`, whose name is `multiply` too."""

    name: Name
    value: Expression
    keyword: str = ""


@record(frozen=True)
class Rule(Syntax):
    """`hidden { init = std / sqrt(m) … }`: what a table says of one class of parameters."""

    name: Name
    lines: tuple[RuleLine, ...]


@record(frozen=True)
class Table(Syntax):
    """A `parametrization` item."""

    name: Name
    rules: tuple[Rule, ...]


Item: TypeAlias = Use | Instance | Definition | Settings | Table | Checkpoint


@record(frozen=True)
class Comment:
    """A comment, with the line it stands on; `alone` when nothing else does."""

    line: int
    text: str
    alone: bool


@record(frozen=True)
class File:
    """A whole file."""

    path: str
    items: tuple[Item, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)
