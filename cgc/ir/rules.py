"""The type rule of every primitive: operand types in, result types out, or the rule that is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias, assert_never

from cgc.ir.dims import Dim, Size, add, product
from cgc.ir.graph import Function
from cgc.ir.ops import (
    COMPARISONS,
    LOGICAL,
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
    opcode,
)
from cgc.ir.types import TensorType, is_float

Rule: TypeAlias = Literal["arity", "dtype", "missing-dim", "duplicate-dim", "size", "signature", "nothing-over"]
FunctionLookup: TypeAlias = Callable[[str], Function]


class RuleViolation(ValueError):
    """A type rule that does not hold. `operands` are the indices of the operands at fault, `dim` the dimension."""

    def __init__(self, rule: Rule, message: str, operands: tuple[int, ...] = (), dim: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.operands = operands
        self.dim = dim


def _no_functions(name: str) -> Function:
    raise RuleViolation("signature", f"there is no function `{name}`")


def infer(op: Op, inputs: tuple[TensorType, ...], function: FunctionLookup = _no_functions) -> tuple[TensorType, ...]:
    """Return the types of the results of `op` on operands of these types.

    Raises:
        RuleViolation: the operands do not fit.
    """
    match op:
        case Call():
            return _call(op, inputs, function(op.function))
        case Repeat():
            return _repeat(op, inputs)
        case TopK():
            (x,) = _expect(op, inputs, 1)
            _number(x, "top_k")
            dims = _replace_dim(x, op.dim, (op.into,))
            _within(x, op.dim, op.into.size)
            return x.with_dims(dims), TensorType(dims, "i64", x.dim(op.dim))
        case _:
            return (_single(op, inputs),)


def _single(op: Op, inputs: tuple[TensorType, ...]) -> TensorType:
    match op:
        case Constant() | Position():
            _expect(op, inputs, 0)
            return TensorType((), op.dtype) if isinstance(op, Constant) else TensorType((op.dim,), "i64", op.dim)
        case Unary() | Cast() | Reduce() | Scan():
            (x,) = _expect(op, inputs, 1)
            return _of_one(op, x)
        case Rename() | Transpose() | Split() | Merge() | Slice():
            (x,) = _expect(op, inputs, 1)
            return _reshaped(op, x)
        case Binary():
            a, b = _expect(op, inputs, 2)
            return _binary(op, a, b)
        case Where():
            condition, a, b = _expect(op, inputs, 3)
            if condition.dtype != "bool":
                raise RuleViolation("dtype", f"a condition is bool, not {condition.dtype}", (0,))
            _same_dtype(a, b, (1, 2))
            return TensorType(union((condition, a, b)), a.dtype)
        case Dot():
            a, b = _expect(op, inputs, 2)
            return _dot(op, a, b)
        case Gather():
            table, index = _expect(op, inputs, 2)
            return _gather(op, table, index)
        case Scatter():
            x, index = _expect(op, inputs, 2)
            return _scatter(op, x, index)
        case Concat():
            return _concat(op, inputs)
        case Call() | Repeat() | TopK():
            raise AssertionError("handled by infer")
        case _:
            assert_never(op)


def _expect(op: Op, inputs: tuple[TensorType, ...], count: int) -> tuple[TensorType, ...]:
    if len(inputs) != count:
        raise RuleViolation("arity", f"`{opcode(op)}` takes {count} operands, not {len(inputs)}")
    return inputs


def union(types: Iterable[TensorType]) -> tuple[Dim, ...]:
    """Return the union of the operands' dimensions: those of the operand with most first, then what others add.

    Raises:
        RuleViolation: two operands give one name different sizes.
    """
    operands = list(types)
    order = sorted(range(len(operands)), key=lambda i: (-len(operands[i].dims), i))
    seen: dict[str, tuple[Dim, int]] = {}
    for index in order:
        for dim in operands[index].dims:
            known = seen.setdefault(dim.name, (dim, index))
            if known[0].size != dim.size:
                pair = (min(index, known[1]), max(index, known[1]))
                raise RuleViolation(
                    "size", f"`{dim.name}` is {known[0].size} in one and {dim.size} in the other", pair, dim.name
                )
    return tuple(dim for dim, _ in seen.values())


def _same_dtype(a: TensorType, b: TensorType, operands: tuple[int, ...]) -> None:
    if a.dtype != b.dtype:
        raise RuleViolation("dtype", f"{a.dtype} and {b.dtype} do not mix", operands)


def _of_one(op: Unary | Cast | Reduce | Scan, x: TensorType) -> TensorType:
    match op:
        case Unary():
            fits = x.dtype == "bool" if op.kind == "not" else op.kind in ("neg", "abs") or is_float(x.dtype)
            if not fits or (x.dtype == "bool" and op.kind != "not"):
                raise RuleViolation("dtype", f"`{op.kind}` does not take {x.dtype}", (0,))
            return TensorType(x.dims, x.dtype)
        case Cast():
            return TensorType(x.dims, op.dtype)
        case Reduce():
            _require(x, op.over, 0)
            _number(x, op.kind)
            if op.kind == "mean" and not is_float(x.dtype):
                raise RuleViolation("dtype", f"a mean is taken of floats, not of {x.dtype}", (0,))
            return TensorType(tuple(dim for dim in x.dims if dim.name not in op.over), x.dtype)
        case Scan():
            _require(x, (op.over,), 0)
            _number(x, "scan")
            return TensorType(x.dims, x.dtype)


def _number(x: TensorType, what: str) -> None:
    if x.dtype == "bool":
        raise RuleViolation("dtype", f"`{what}` does not take bool", (0,))


def _binary(op: Binary, a: TensorType, b: TensorType) -> TensorType:
    _same_dtype(a, b, (0, 1))
    if (op.kind in LOGICAL) != (a.dtype == "bool") and not (op.kind in ("eq", "ne") and a.dtype == "bool"):
        raise RuleViolation("dtype", f"`{op.kind}` does not take {a.dtype}", (0, 1))
    if op.kind == "div" and not is_float(a.dtype):
        raise RuleViolation("dtype", f"`div` does not take {a.dtype}", (0, 1))
    return TensorType(union((a, b)), "bool" if op.kind in COMPARISONS else a.dtype)


def _dot(op: Dot, a: TensorType, b: TensorType) -> TensorType:
    _same_dtype(a, b, (0, 1))
    if not is_float(a.dtype):
        raise RuleViolation("dtype", f"`dot` does not take {a.dtype}", (0, 1))
    _require(a, op.over, 0)
    _require(b, op.over, 1)
    union((a, b))
    dims = [dim for dim in a.dims if dim.name not in op.over]
    dims += [dim for dim in b.dims if dim.name not in op.over and not a.has(dim.name)]
    return TensorType(tuple(dims), a.dtype)


def _gather(op: Gather, table: TensorType, index: TensorType) -> TensorType:
    _require(table, (op.dim,), 0)
    if index.dtype not in ("i64", "i32"):
        raise RuleViolation("dtype", f"an index is an integer, not {index.dtype}", (1,))
    if index.has(op.dim):
        raise RuleViolation("duplicate-dim", f"the index itself has `{op.dim}`", (1,), op.dim)
    kept = TensorType(tuple(dim for dim in table.dims if dim.name != op.dim), table.dtype)
    union((kept, index))
    extra = [dim for dim in kept.dims if not index.has(dim.name)]
    return TensorType((*index.dims, *extra), table.dtype, table.indexes)


def _scatter(op: Scatter, x: TensorType, index: TensorType) -> TensorType:
    _require(x, op.over, 0)
    _number(x, "scatter")
    if index.dtype not in ("i64", "i32"):
        raise RuleViolation("dtype", f"an index is an integer, not {index.dtype}", (1,))
    if index.has(op.dim.name):
        raise RuleViolation("duplicate-dim", f"the index itself has `{op.dim.name}`", (1,), op.dim.name)
    _require(x, index.names, 0)
    union((x, index))
    return TensorType(_distinct((op.dim, *(dim for dim in x.dims if dim.name not in op.over))), x.dtype)


def _concat(op: Concat, inputs: tuple[TensorType, ...]) -> TensorType:
    if len(inputs) != len(op.dims) or not inputs:
        raise RuleViolation("arity", f"`concat` names {len(op.dims)} dimensions for {len(inputs)} operands")
    first = inputs[0]
    total = Dim(op.into, 0)
    for index, (x, name) in enumerate(zip(inputs, op.dims, strict=True)):
        _require(x, (name,), index)
        _same_dtype(first, x, (0, index))
        total = Dim(op.into, add(total.size, x.dim(name).size))
        rest = {dim for dim in x.dims if dim.name != name}
        if rest != {dim for dim in first.dims if dim.name != op.dims[0]}:
            raise RuleViolation("size", "the operands differ beside the joined dimension", (0, index))
    return first.with_dims(_replace_dim(first, op.dims[0], (total,)))


def _reshaped(op: Rename | Transpose | Split | Merge | Slice, x: TensorType) -> TensorType:
    match op:
        case Rename():
            _require(x, tuple(old for old, _ in op.names), 0)
            new = dict(op.names)
            return x.with_dims(_distinct(tuple(Dim(new.get(dim.name, dim.name), dim.size) for dim in x.dims)))
        case Transpose():
            if sorted(op.order) != sorted(x.names):
                raise RuleViolation(
                    "missing-dim", f"the order names {list(op.order)}, the value has {list(x.names)}", (0,)
                )
            return x.with_dims(tuple(x.dim(name) for name in op.order))
        case Split():
            _require(x, (op.dim,), 0)
            if product(tuple(dim.size for dim in op.into)) != x.dim(op.dim).size:
                parts = " · ".join(str(dim.size) for dim in op.into)
                raise RuleViolation("size", f"`{op.dim}` is {x.dim(op.dim).size}, not {parts}", (0,), op.dim)
            return x.with_dims(_replace_dim(x, op.dim, op.into))
        case Merge():
            if not op.dims:
                raise RuleViolation("arity", "`merge` names no dimension")
            _require(x, op.dims, 0)
            whole = Dim(op.into, product(tuple(x.dim(name).size for name in op.dims)))
            kept = tuple(dim for dim in x.dims if dim.name not in op.dims[1:])
            return x.with_dims(_distinct(tuple(whole if dim.name == op.dims[0] else dim for dim in kept)))
        case Slice():
            _require(x, (op.dim,), 0)
            if isinstance(op.start, int) and op.start < 0:
                raise RuleViolation("size", f"a slice starts at 0 or later, not at {op.start}", (0,), op.dim)
            _within(x, op.dim, add(op.start, op.into.size))
            return x.with_dims(_replace_dim(x, op.dim, (op.into,)))


def _within(x: TensorType, name: str, count: Size) -> None:
    size = x.dim(name).size
    if isinstance(size, int) and isinstance(count, int) and count > size:
        raise RuleViolation("size", f"`{name}` has {size} entries, not {count}", (0,), name)


def _replace_dim(x: TensorType, name: str, into: tuple[Dim, ...]) -> tuple[Dim, ...]:
    _require(x, (name,), 0)
    dims: list[Dim] = []
    for dim in x.dims:
        dims.extend(into if dim.name == name else (dim,))
    return _distinct(tuple(dims))


def _distinct(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    names = [dim.name for dim in dims]
    for name in names:
        if names.count(name) > 1:
            raise RuleViolation("duplicate-dim", f"the result would have `{name}` twice", (0,), name)
    return dims


def _require(x: TensorType, names: tuple[str, ...], operand: int) -> None:
    if len(set(names)) != len(names):
        raise RuleViolation("duplicate-dim", f"{list(names)} names a dimension twice", (operand,))
    for name in names:
        if not x.has(name):
            raise RuleViolation("missing-dim", f"there is no `{name}` in {x}", (operand,), name)


def _call(op: Call, inputs: tuple[TensorType, ...], function: Function) -> tuple[TensorType, ...]:
    wanted = tuple(value.type for value in function.body.arguments)
    if op.args != len(function.arguments) or inputs != wanted:
        raise RuleViolation("signature", f"`{op.function}` takes ({', '.join(map(str, wanted))})")
    return tuple(value.type for value in function.body.results)


def _repeat(op: Repeat, inputs: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    wanted = tuple(value.type for value in op.body.arguments)
    loose = op.carried + op.shared
    stacked = tuple(x.with_dims((op.stack, *x.dims)) for x in wanted[loose:])
    if inputs != (*wanted[:loose], *stacked):
        raise RuleViolation("signature", f"the body of `{op.instance}` takes ({', '.join(map(str, wanted))})")
    results = tuple(value.type for value in op.body.results)
    if results[: op.carried] != wanted[: op.carried]:
        raise RuleViolation("signature", f"`{op.instance}` does not carry the types it started with")
    if len(results) != op.carried + op.collected:
        count = len(results) - op.carried
        raise RuleViolation("signature", f"`{op.instance}` collects {op.collected} values, its body gives {count}")
    for x in results[op.carried :]:
        _distinct((op.stack, *x.dims))
    return (
        *results[: op.carried],
        *(TensorType((op.stack, *x.dims), x.dtype, x.indexes) for x in results[op.carried :]),
    )
