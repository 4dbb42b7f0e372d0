"""Tables of parametrization: `parametrization` items, checked, and the arithmetic of their rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cgc.diagnostics import Diagnostic, Diagnostics, Label
from cgc.elaborate import static
from cgc.elaborate.hints import quoted, suggest
from cgc.elaborate.values import Fault
from cgc.program import PARAM_GROUPS, Rule, Table
from cgc.syntax import tree

LINES = ("init", "lr", "eps", "weight_decay", "multiply")
"""What a rule can set."""
NAMES = ("std", "lr", "eps", "weight_decay", "m", "depth", "alpha", "branches")
"""What the expressions of a rule can use; attention has `size` and `given` besides."""
OF_ATTENTION = ("size", "given")


def read_table(item: tree.Table, library: bool, found: Diagnostics) -> Table:
    """Read a `parametrization` item; what is returned lacks the faulty lines."""
    rules: dict[str, Rule] = {}
    for rule in item.rules:
        group = rule.name.text
        if group not in PARAM_GROUPS:
            hint = suggest(group, PARAM_GROUPS) or f"there are {quoted(PARAM_GROUPS)}"
            text = f"there is no class of parameters `{group}`"
            found.add(Diagnostic("CG0501", text, (Label(rule.name.location),), hint))
        elif group in rules:
            labels = (Label(rule.name.location, "again here"), Label(rules[group].location, "first here"))
            found.add(Diagnostic("CG0504", f"the rule for `{group}` is given twice", labels, "put the lines together"))
        else:
            rules[group] = Rule(group, tuple(_lines(rule, found)), rule.name.location)
    return Table(item.name.text, tuple(rules.values()), library, item.name.location)


def _lines(rule: tree.Rule, found: Diagnostics) -> Iterator[tree.RuleLine]:
    group = rule.name.text
    known = ("multiply",) if group == "attention" else LINES
    seen: dict[str, tree.RuleLine] = {}
    for line in rule.lines:
        name = line.name
        if name.text not in known:
            hint = suggest(name.text, known) or f"there are {quoted(known)}"
            text = f"a rule for `{group}` has no `{name.text}`"
            found.add(Diagnostic("CG0501", text, (Label(name.location),), hint))
            continue
        if name.text in seen:
            labels = (Label(name.location, "again here"), Label(seen[name.text].location, "first here"))
            found.add(Diagnostic("CG0504", f"`{name.text}` is given twice", labels, "keep one of the two"))
            continue
        seen[name.text] = line
        names = dict.fromkeys((*NAMES, *(OF_ATTENTION if group == "attention" else ())), 1.0)
        try:
            evaluate(line.value, names)
        except Fault as fault:
            found.add(fault.diagnostic)
            continue
        yield line


def evaluate(expression: tree.Expression, names: Mapping[str, float]) -> float:
    """Return the number that an expression is.

    Raises:
        Fault: a name means nothing here, or there is no result.
    """
    match expression:
        case tree.Number(_, value):
            return float(value)
        case tree.Name(text):
            if text not in names:
                hint = suggest(text, names) or f"there are {quoted(names)}"
                message = f"`{text}` means nothing in a rule of this class"
                raise Fault("CG0301", message, Label(expression.location), hint=hint)
            return names[text]
        case tree.Parenthesis(inside):
            return evaluate(inside, names)
        case tree.Minus(sign, operand):
            value = evaluate(operand, names)
            return -value if sign == "-" else value
        case tree.Operation(operator, left, right) if operator in ("+", "-", "*", "/", "^"):
            return _computed(expression, operator, evaluate(left, names), evaluate(right, names))
        case tree.Call(callee, (argument,)) if callee.text in static.FUNCTIONS:
            if not isinstance(argument, tree.PackArgument | tree.ArrowArgument | tree.KeywordArgument):
                return _computed(expression, callee.text, evaluate(argument, names))
        case tree.Call(callee, (left, right)) if callee.text in ("max", "min"):
            plain = (tree.PackArgument, tree.ArrowArgument, tree.KeywordArgument)
            if not isinstance(left, plain) and not isinstance(right, plain):
                return _computed(expression, callee.text, evaluate(left, names), evaluate(right, names))
        case _:
            pass
    hint = "a rule computes with numbers: `lr / m`, `std / sqrt(branches * m)`, `depth ^ -alpha`"
    raise Fault("CG0410", "this is not arithmetic of numbers", Label(expression.location), hint=hint)


def _computed(expression: tree.Expression, function: str, *operands: float) -> float:
    try:
        result = static.operate(function, *operands) if len(operands) == 2 else static.apply(function, operands[0])
    except static.CannotCompute as error:
        raise Fault("CG0410", str(error), Label(expression.location), hint=static.OF_NUMBERS) from error
    assert isinstance(result, int | float)
    return float(result)


def names_in(expression: tree.Expression | tree.Argument) -> Iterator[str]:
    """Yield the names an expression uses."""
    match expression:
        case tree.Name(text):
            yield text
        case tree.Parenthesis(inside) | tree.Minus(operand=inside):
            yield from names_in(inside)
        case tree.Operation(_, left, right):
            yield from names_in(left)
            yield from names_in(right)
        case tree.Call(_, arguments):
            for argument in arguments:
                yield from names_in(argument)
        case _:
            pass


def uses_depth_exponent(table: Table) -> bool:
    """Tell whether a rule of the table uses `alpha`."""
    return any("alpha" in names_in(line.value) for rule in table.rules for line in rule.lines)
