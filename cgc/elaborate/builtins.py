"""Calls of primitive operators: `dot`, `sum`, `where`, `split`, … Everything else that is called is a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cgc.diagnostics import Label
from cgc.elaborate import static
from cgc.elaborate.values import Fault, Number, Operand
from cgc.ir.dims import Dim, Size, product
from cgc.ir.graph import Value
from cgc.ir.ops import (
    REDUCE_KINDS,
    Concat,
    Dot,
    Merge,
    Position,
    Reduce,
    ReduceKind,
    Scan,
    Slice,
    Split,
    TopK,
    UnaryKind,
    Where,
)
from cgc.ir.rules import RuleViolation
from cgc.ir.types import DTYPES, DType, is_float, is_integer
from cgc.syntax import tree

if TYPE_CHECKING:
    from cgc.elaborate.expressions import Context

UNARY: dict[str, UnaryKind] = {
    "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "sin": "sin", "cos": "cos", "tanh": "tanh",
    "erf": "erf", "sigmoid": "sigmoid", "floor": "floor", "abs": "abs",
}  # fmt: skip
NUMBERS_ONLY = ("log2", "ceil", "round")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, by kind."""

    call: tree.Call
    positional: tuple[tree.Expression, ...]
    over: tuple[tree.PackArgument, ...]
    arrows: tuple[tree.ArrowArgument, ...]
    keywords: dict[str, tree.KeywordArgument]

    def fault(self, usage: str) -> Fault:
        """Return the fault that the arguments are not those of `usage`."""
        name = self.call.callee.text
        return Fault(
            "CG0401", f"these are not the arguments of `{name}`", Label(self.call.location), hint=f"write `{usage}`"
        )

    def expect(
        self, usage: str, positional: int, over: int = 0, arrows: int = 0, keywords: tuple[str, ...] = ()
    ) -> None:
        """Check how many arguments of each kind there are."""
        counts = (len(self.positional), len(self.over), len(self.arrows))
        if counts != (positional, over, arrows) or not self.keywords.keys() <= set(keywords):
            raise self.fault(usage)


def sort_arguments(call: tree.Call) -> Arguments:
    """Sort the arguments of a call by kind; a keyword given twice is a fault."""
    keywords: dict[str, tree.KeywordArgument] = {}
    positional: list[tree.Expression] = []
    for argument in call.arguments:
        if isinstance(argument, tree.KeywordArgument):
            if argument.name.text in keywords:
                text = f"`{argument.name.text}` is given twice"
                raise Fault("CG0402", text, Label(argument.location), hint="leave one of the two out")
            keywords[argument.name.text] = argument
        elif not isinstance(argument, tree.PackArgument | tree.ArrowArgument):
            positional.append(argument)
    over = tuple(a for a in call.arguments if isinstance(a, tree.PackArgument))
    arrows = tuple(a for a in call.arguments if isinstance(a, tree.ArrowArgument))
    return Arguments(call, tuple(positional), over, arrows, keywords)


Primitive = Callable[["Context", Arguments, str], tuple[Operand, ...]]


def _names(context: Context, names: tuple[tree.Name, ...]) -> tuple[str, ...]:
    return tuple(dim.name for dim in context.dims(names))


def _dot(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    if len(args.over) > 1:
        raise args.fault("dot(a, b, over width)")
    args.expect("dot(a, b, over width)", 2, len(args.over))
    a, b = (context.tensor(argument) for argument in args.positional)
    places = (args.positional[0].location, args.positional[1].location)
    over = _names(context, args.over[0].dims) if args.over else ()
    a, b = (context.cast(x, "f32", args.call.location) if is_integer(x.type.dtype) else x for x in (a, b))
    return (context.add(Dot(over), a, b, place=args.call.location, wish=wish, places=places),)


def _reduce(kind: ReduceKind) -> Primitive:
    def build(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
        if kind in ("max", "min") and not args.over:
            return _extreme(context, args, wish)
        args.expect(f"{kind}(x, over width)", 1, 1)
        x = context.tensor(args.positional[0])
        if kind == "mean" and is_integer(x.type.dtype):
            x = context.cast(x, "f32", args.call.location)
        op = Reduce(kind, _names(context, args.over[0].dims))
        places = (args.positional[0].location,)
        return (context.add(op, x, place=args.call.location, wish=wish, places=places),)

    return build


def _extreme(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    kind = args.call.callee.text
    args.expect(f"{kind}(a, b)` or `{kind}(x, over width)", 2)
    left, right = (context.operand(argument) for argument in args.positional)
    if isinstance(left, Number) and isinstance(right, Number):
        try:
            return (Number(static.operate(kind, left.value, right.value)),)
        except static.CannotCompute as error:
            raise Fault("CG0410", str(error), Label(args.call.location), hint=static.OF_NUMBERS) from error
    places = (args.positional[0].location, args.positional[1].location)
    return (context.binary("max" if kind == "max" else "min", left, right, args.call.location, places, wish),)


def _unary(kind: str) -> Primitive:
    def build(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
        args.expect(f"{kind}(x)", 1)
        operand = context.operand(args.positional[0])
        if kind in NUMBERS_ONLY and not isinstance(operand, Number):
            text = f"`{kind}` takes a number known at compile time"
            hint = "this is a tensor, whose entries are known when the model runs"
            raise Fault("CG0403", text, Label(args.positional[0].location), hint=hint)
        return (context.unary(kind, operand, args.call, wish),)

    return build


def _where(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    args.expect("where(condition, a, b)", 3)
    condition = context.tensor(args.positional[0])
    operands = [context.operand(argument) for argument in args.positional[1:]]
    places = tuple(argument.location for argument in args.positional)
    floats = any(is_float(o.type.dtype) if not isinstance(o, Number) else isinstance(o.value, float) for o in operands)
    wanted: DType = next((o.type.dtype for o in operands if not isinstance(o, Number)), "f32")
    wanted = "f32" if floats and not is_float(wanted) else wanted
    a, b = (
        context.constant(o, wanted, place) if isinstance(o, Number) else context.cast(o, wanted, place)
        for o, place in zip(operands, places[1:], strict=True)
    )
    context.line_up((condition, a, b), places)
    return (context.add(Where(), condition, a, b, place=args.call.location, wish=wish, places=places),)


def _cast(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    args.expect("cast(x, f32)", 2)
    x, name = context.tensor(args.positional[0]), args.positional[1]
    if not isinstance(name, tree.Name) or name.text not in DTYPES:
        text = f"a type is one of {', '.join(DTYPES)}"
        raise Fault("CG0207", text, Label(name.location), hint="write `cast(x, f32)`")
    return (context.cast(x, name.text, args.call.location, wish),)


def one_dim(context: Context, expression: tree.Expression) -> Dim:
    """Return the one dimension that an argument names."""
    if not isinstance(expression, tree.Name):
        hint = "write a name that the value has in its brackets, such as `width`"
        raise Fault("CG0403", "the name of a dimension is needed here", Label(expression.location), hint=hint)
    dims = context.dim(expression)
    if len(dims) != 1:
        raise Fault(
            "CG0403",
            f"`{expression.text}` stands for {len(dims)} dimensions, one is needed",
            Label(expression.location),
            hint="name one of them" if dims else "it stands for none here: write the name of one",
        )
    return dims[0]


def _position(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    args.expect("position(seq)", 1)
    dim = one_dim(context, args.positional[0])
    return (context.add(Position(dim), place=args.call.location, wish=wish or "position"),)


def _split(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    args.expect("split(x, width -> heads head)", 1, arrows=1)
    x = context.tensor(args.positional[0])
    arrow = args.arrows[0]
    (source,) = _exactly(context, args, arrow.source, 1, "split(x, width -> heads head)")
    parts = context.dims(arrow.target)
    _check_parts(arrow, source, parts)
    op = Split(source.name, parts)
    return (context.add(op, x, place=args.call.location, wish=wish, places=(args.positional[0].location,)),)


def _check_parts(arrow: tree.ArrowArgument, source: Dim, parts: tuple[Dim, ...]) -> None:
    whole = product(tuple(part.size for part in parts))
    if isinstance(whole, int) and isinstance(source.size, int) and whole != source.size:
        names, sizes = (" * ".join(words) for words in zip(*((p.name, str(p.size)) for p in parts), strict=True))
        message = f"`{source.name}` is {source.size}, but `{names}` is {sizes} = {whole}"
        raise Fault("CG0204", message, Label(arrow.location), hint="the parts of a split multiply to the whole")


def _exactly(
    context: Context, args: Arguments, names: tuple[tree.Name, ...], count: int, usage: str
) -> tuple[Dim, ...]:
    dims = context.dims(names)
    if len(dims) != count:
        raise args.fault(usage)
    return dims


def _merge(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    usage = "merge(x, heads head -> width)"
    args.expect(usage, 1, arrows=1)
    x, arrow = context.tensor(args.positional[0]), args.arrows[0]
    sources = _names(context, arrow.source)
    (target,) = _exactly(context, args, arrow.target, 1, usage)
    op = Merge(sources, target.name)
    place = args.positional[0].location
    result = context.add(op, x, place=args.call.location, wish=wish, places=(place,))
    _check_size(args, result, target)
    return (result,)


def _check_size(args: Arguments, result: Value, target: Dim) -> None:
    size = result.type.dim(target.name).size
    if size != target.size:
        message = f"the result has {size} entries, but `{target.name}` is {target.size}"
        hint = f"give `{target.name}` the size {size}, or the result another name"
        raise Fault("CG0204", message, Label(args.call.location), hint=hint)


def _slice(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    usage = "slice(x, head -> half, from=0)"
    args.expect(usage, 1, arrows=1, keywords=("from",))
    x, arrow = context.tensor(args.positional[0]), args.arrows[0]
    (source,) = _exactly(context, args, arrow.source, 1, usage)
    (target,) = _exactly(context, args, arrow.target, 1, usage)
    start: Size = 0
    if "from" in args.keywords:
        given = args.keywords["from"].value
        number = context.number(given)
        start = 0 if number.value == 0 else context.size(number, given.location)
    op = Slice(source.name, start, target)
    return (context.add(op, x, place=args.call.location, wish=wish, places=(args.positional[0].location,)),)


def _concat(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    usage = "concat(a, b, half -> head)"
    args.expect(usage, max(1, len(args.positional)), arrows=1)
    values = tuple(context.tensor(argument) for argument in args.positional)
    arrow = args.arrows[0]
    sources = _names(context, arrow.source)
    sources = sources * len(values) if len(sources) == 1 else sources
    (target,) = _exactly(context, args, arrow.target, 1, usage)
    op = Concat(sources, target.name)
    places = tuple(argument.location for argument in args.positional)
    result = context.add(op, *values, place=args.call.location, wish=wish, places=places)
    _check_size(args, result, target)
    return (result,)


def _running_sum(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    args.expect("running_sum(x, over seq)", 1, 1)
    x = context.tensor(args.positional[0])
    (dim,) = _exactly(context, args, args.over[0].dims, 1, "running_sum(x, over seq)")
    places = (args.positional[0].location,)
    return (context.add(Scan(dim.name), x, place=args.call.location, wish=wish, places=places),)


def _top_k(context: Context, args: Arguments, wish: str) -> tuple[Operand, ...]:
    usage = "top_k(x, vocab -> best)"
    args.expect(usage, 1, arrows=1)
    x, arrow = context.tensor(args.positional[0]), args.arrows[0]
    (source,) = _exactly(context, args, arrow.source, 1, usage)
    (target,) = _exactly(context, args, arrow.target, 1, usage)
    place = args.call.location
    if isinstance(source.size, int) and isinstance(target.size, int) and target.size > source.size:
        text = f"`{source.name}` has only {source.size} entries"
        hint = f"`{target.name}` is {target.size}: a part is no longer than the whole"
        raise Fault("CG0204", text, Label(place), hint=hint)
    op = TopK(source.name, target)
    try:
        return context.frame.builder.add(op, x, wish=wish or "top", path=context.path(wish), location=place)
    except RuleViolation as violation:
        raise context.violation(
            TopK(source.name, target), violation, (x,), place, (args.positional[0].location,)
        ) from violation


PRIMITIVES: dict[str, Primitive] = {
    "dot": _dot,
    **{kind: _reduce(kind) for kind in REDUCE_KINDS},
    **{kind: _unary(kind) for kind in (*UNARY, *NUMBERS_ONLY)},
    "where": _where,
    "cast": _cast,
    "position": _position,
    "split": _split,
    "merge": _merge,
    "slice": _slice,
    "concat": _concat,
    "running_sum": _running_sum,
    "top_k": _top_k,
}
