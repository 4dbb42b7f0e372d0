"""Hypothesis strategies for well-formed syntax trees, and for the ways one file's text can be written."""

from __future__ import annotations

import re
from typing import TypeAlias, TypeVar

from hypothesis import strategies as st

from cgc.syntax import tree
from cgc.syntax.build import number_value

Expressions: TypeAlias = st.SearchStrategy[tree.Expression]
T = TypeVar("T")

names = st.builds(tree.Name, st.sampled_from(["a", "b", "x", "width", "head'", "ln_1", "B", "_q", "kv_heads", "seq"]))
numbers = st.builds(
    lambda text: tree.Number(text, number_value(text)),
    st.sampled_from(["0", "1", "12", "2_048", "6e-3", "1e-5", "0.02", "375M", "1.5K", "3B", "10000"]),
)
texts = st.text(st.sampled_from('ab# {}.*()[]/é日\t"').filter(lambda character: character != '"'), max_size=8)
strings = st.builds(tree.String, texts)
booleans = st.builds(tree.Boolean, st.booleans())


def tuples(items: st.SearchStrategy[T], least: int = 0, most: int = 3) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(items, min_size=least, max_size=most).map(tuple)


some_names = tuples(names, 1)

# Each level of the grammar is made of the levels that bind more tightly; `Parenthesis` starts again at the top.


def _operation(operators: str, left: Expressions, right: Expressions) -> Expressions:
    return st.builds(tree.Operation, st.sampled_from(operators.split()), left, right)


def _levels(inner: Expressions) -> Expressions:
    """Return expressions one level deeper than `inner`, which are complete expressions."""
    atoms = (
        numbers
        | strings
        | booleans
        | names
        | st.builds(tree.Parenthesis, inner)
        | st.builds(tree.Call, names, tuples(arguments(inner)))
    )
    renamings = tuples(st.tuples(names, names), 1)
    postfix = atoms | st.builds(tree.Index, atoms, inner, st.none() | names) | st.builds(tree.Rename, atoms, renamings)
    factors: Expressions = (
        postfix | st.builds(tree.Minus, st.sampled_from("+-"), postfix) | _operation("^", postfix, postfix)
    )
    terms: Expressions = factors | _operation("* /", factors, factors)
    sums = terms | _operation("+ -", terms, terms) | _operation("+ -", _operation("+ -", terms, terms), terms)
    compared = sums | _operation("<= >= == != < >", sums, sums)
    negated = compared | st.builds(tree.Not, compared)
    joined: Expressions = negated | _operation("and", negated, negated)
    whole: Expressions = joined | _operation("or", joined, joined)
    return whole


def arguments(inner: Expressions) -> st.SearchStrategy[tree.Argument]:
    return (
        inner
        | st.builds(tree.PackArgument, st.sampled_from(["over", "along"]), some_names)
        | st.builds(tree.ArrowArgument, some_names, some_names)
        | st.builds(tree.KeywordArgument, names, inner)
    )


expressions = _levels(_levels(_levels(numbers | names | strings | booleans)))
shallow = _levels(numbers | names)

calls = st.builds(tree.Call, names, tuples(arguments(shallow)))
types = st.builds(tree.TypeName, st.just("id"), names) | st.builds(tree.TypeName, st.sampled_from(["f32", "bool"]))
patterns = tuples(st.builds(tree.BoundDim, names, st.none() | names | numbers) | st.just(tree.Rest()))
parameters = (
    st.builds(tree.TensorParameter, names, st.none() | patterns, st.none() | types)
    | st.builds(tree.PackParameter, st.sampled_from(["over", "along"]), names)
    | st.builds(tree.ArrowParameter, names, names)
    | st.builds(tree.DimParameter, names)
    | st.builds(tree.ScalarParameter, names, shallow)
)
simple_statements = (
    st.builds(tree.DimStatement, names, shallow)
    | st.builds(tree.InputStatement, names, patterns, st.none() | types)
    | st.builds(tree.ParamStatement, names, tuples(names), calls)
    | st.builds(tree.Assignment, some_names, expressions)
    | st.builds(tree.ReturnStatement, tuples(shallow, 1, 2))
    | st.builds(tree.OutputStatement, names, st.none() | tuples(names), shallow)
)
counts = names | numbers | st.builds(tree.Parenthesis, shallow)


def _nested(statements: st.SearchStrategy[tree.Statement]) -> st.SearchStrategy[tree.Statement]:
    bodies = st.builds(tree.Body, tuples(statements))
    return (
        simple_statements
        | st.builds(tree.RepeatStatement, counts, names, bodies)
        | st.builds(tree.IfStatement, shallow, bodies, st.none() | bodies)
    )


bodies = st.builds(tree.Body, tuples(_nested(_nested(simple_statements)), most=5))

units = st.sampled_from(["", "tokens", "per param", "B per cycle", "Tb/s", "KiB"])
quantities = st.builds(tree.Quantity, numbers, st.sampled_from(["", "+", "-"]), units)
plain_values = quantities | strings | names | booleans | st.builds(tree.Grid, numbers, names, numbers)
settings_calls = st.builds(tree.SettingsCall, names, tuples(st.tuples(st.none() | names, plain_values)))
steps = plain_values | settings_calls
values = steps | st.builds(tree.Sequence, tuples(steps, 2))
settings = st.builds(tree.Setting, names, values)
init_settings = st.builds(tree.Setting, names, values, st.just("init"))
dotted = st.builds(tree.Dotted, st.sampled_from(["w", "h.attention.q.w", "h.3.ln_1.scale", "embedding"]))
overrides = st.builds(
    tree.Override, dotted, tuples(settings | init_settings | st.builds(tree.Multiply, st.none(), numbers))
)
mup_lines = (
    st.builds(tree.Scale, tuples(st.tuples(names, numbers), 1))
    | settings
    | init_settings
    | st.builds(tree.Multiply, dotted, numbers)
    | overrides
)
rule_lines = st.builds(tree.RuleLine, names, shallow) | st.builds(
    tree.RuleLine, st.just(tree.Name("multiply")), shallow, st.just("multiply")
)
rules = st.builds(tree.Rule, names, tuples(rule_lines))
axes = some_names | st.just((tree.Name("*"),)) | st.just((tree.Name("*"), tree.Name("heads"), tree.Name("head")))
entries = st.builds(tree.Entry, strings, tuples(axes, 1), tuples(dotted, 1), st.booleans())
names_of_tensors = st.builds(tree.TensorNames, st.sampled_from(["prefix", "ignore"]), strings)

items = (
    st.builds(tree.Use, st.sampled_from(["std/nn", "std/gpt2"]), st.just(False))
    | st.builds(tree.Use, texts, st.just(True))
    | st.builds(tree.Instance, names, names, tuples(arguments(shallow), most=8))
    | st.builds(tree.Definition, st.sampled_from(["model", "block"]), names, tuples(parameters, most=8), bodies)
    | st.builds(tree.Settings, st.just("mup"), st.none(), tuples(mup_lines, most=5))
    | st.builds(tree.Table, names, tuples(rules, most=3))
    | st.builds(tree.Settings, st.just("train"), st.none(), tuples(settings, most=5))
    | st.builds(tree.Settings, st.just("device"), names, tuples(settings, most=5))
    | st.builds(tree.Checkpoint, names, tuples(names_of_tensors | entries, most=4))
)
files = st.builds(tree.File, st.just("random.cg"), tuples(items, most=4))

_TOKEN = re.compile(
    r'"[^"\n]*"|#[^\n]*|[A-Za-z_][A-Za-z0-9_]*\'*|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?[KMBT]?'
    r"|->|<=|>=|==|!=|\.\.\.|\n|[^\s]"
)


@st.composite
def rewritten(draw: st.DrawFn, text: str) -> str:
    """Return `text`, which has no comments, with other white space and with comments wherever they may stand."""
    out: list[str] = []
    depth = 0
    tokens = _TOKEN.findall(text)
    for at, token in enumerate(tokens):
        depth += (token in "([") - (token in ")]") if token != "\n" else 0
        last_of_line = token == "\n"
        if last_of_line and at and tokens[at - 1] == "{" and draw(st.integers(0, 3)) == 0:
            continue
        if last_of_line and at + 1 < len(tokens) and tokens[at + 1] == "}" and draw(st.integers(0, 3)) == 0:
            continue
        if last_of_line or depth > 0:
            out.append(draw(_between(last_of_line)) if last_of_line else token + draw(_between(False)))
        else:
            out.append(token + draw(st.sampled_from([" ", " ", "  ", "\t"])))
    return "".join(out)


def _between(ends_line: bool) -> st.SearchStrategy[str]:
    if ends_line:
        common = ["\n", "\n", "\n", "\n\n", "\n\n\n\n", "  \n"]
        rare = ["# one\n", "   #two # three\n", "\n# four\n", '\n\n     # five "\n\n# six\n', "# seven\n\n#\n"]
    else:
        common = [" ", " ", " ", " ", " ", " ", "  ", "\t"]
        rare = ["\n", " # eight\n", "\n\n # nine\n\n", "# ten\n # eleven\n", "#twelve\n\n\n"]
    return st.sampled_from(common * 2 + rare)
