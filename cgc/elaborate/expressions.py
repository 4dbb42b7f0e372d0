"""Expressions: from syntax to a value of the graph or a compile-time number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from cgc.diagnostics import NOWHERE, Label, Location
from cgc.elaborate import static
from cgc.elaborate.frames import Frame
from cgc.elaborate.hints import dtype_hint, mend, near_dim, shown, size_words, suggest
from cgc.elaborate.values import (
    Fault,
    Number,
    Operand,
    Pack,
    Poison,
    Poisoned,
    Scalar,
    Tensor,
    Unknown,
    as_size,
    describe,
    symbols_of,
)
from cgc.ir.dims import Dim, SymbolicSize
from cgc.ir.graph import Value
from cgc.ir.ops import Binary, BinaryKind, Cast, Constant, Gather, Op, Rename, Unary, Where
from cgc.ir.rules import RuleViolation
from cgc.ir.types import DType, is_float, is_integer
from cgc.syntax import tree
from cgc.syntax.printer import expression_text

OPERATORS: dict[str, BinaryKind] = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "^": "pow", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
    "==": "eq", "!=": "ne", "and": "and", "or": "or", "max": "max", "min": "min",
}  # fmt: skip
CONSTANTS: dict[str, float] = {"pi": math.pi, "infinity": math.inf}
LARGEST_DIM = 1 << 40
"""Entries a dimension may have."""

CODES = {
    "arity": "CG0401",
    "dtype": "CG0207",
    "missing-dim": "CG0206",
    "duplicate-dim": "CG0202",
    "size": "CG0204",
    "signature": "CG0403",
    "nothing-over": "CG0206",
}

Caller = Callable[["Context", tree.Call, str], tuple[Operand, ...]]


@dataclass(frozen=True, slots=True)
class Context:
    """Where an expression stands: the frame it builds in, and how calls are made there."""

    frame: Frame
    call: Caller
    limits: dict[str, Dim | None]

    # ---- names

    def dim(self, name: tree.Name) -> tuple[Dim, ...]:
        """Return the dimensions that a name stands for (several for a `over`/`->` parameter of a block)."""
        text = name.text
        match self.frame.scope.find(text):
            case Pack(dims):
                return dims
            case Number(value):
                return (Dim(text, self.size(Number(value, text), name.location)),)
            case Poison():
                raise Poisoned
            case Tensor():
                hint = "write the name of one of its dimensions"
                raise Fault("CG0403", f"`{text}` is a tensor, not a dimension", Label(name.location), hint=hint)
            case None:
                raise self.unknown_dim(name)

    def dims(self, names: tuple[tree.Name, ...]) -> tuple[Dim, ...]:
        """Return the dimensions of a list of names."""
        return tuple(dim for name in names for dim in self.dim(name))

    def unknown_dim(self, name: tree.Name) -> Fault:
        """Return the fault that there is no such dimension."""
        known = [other for other in self.frame.scope.names() if isinstance(self.frame.scope.find(other), Pack | Number)]
        hint = near_dim(name.text, known)
        return Fault("CG0201", f"there is no dimension `{name.text}` here", Label(name.location), hint=hint)

    def size(self, number: Number, place: Location) -> int | SymbolicSize:
        """Return a number as the size of a dimension: whole, positive, not absurd."""
        size = as_size(number.value)
        what = f"`{number.text}` is {shown(number.value)}" if number.text else f"this is {shown(number.value)}"
        given = self.frame.scope.place(number.text)
        labels = (Label(place), *((Label(given, "given here"),) if given not in (NOWHERE, place) else ()))
        if size is None:
            hint = "choose numbers that divide, or write `floor(…)` where the rest may be left out"
            raise Fault("CG0205", f"a size is a whole number, but {what}", *labels, hint=hint)
        if isinstance(size, int) and size < 1:
            hint = "give it a larger number; what is not wanted at all is left out by `if`"
            raise Fault("CG0208", f"a size is at least 1, but {what}", *labels, hint=hint)
        if isinstance(size, int) and size > LARGEST_DIM:
            text = f"a dimension has at most 2^40 entries, but {what}"
            raise Fault("CG0208", text, *labels, hint="give it a smaller number")
        return size

    # ---- evaluation

    def value(self, expression: tree.Expression, wish: str = "") -> Value:
        """Evaluate to a tensor; a number becomes a constant of f32."""
        operand = self.operand(expression, wish)
        return self.constant(operand, "f32", expression.location) if isinstance(operand, Number) else operand

    def tensor(self, expression: tree.Expression, wish: str = "") -> Value:
        """Evaluate to a tensor and nothing else."""
        operand = self.operand(expression, wish)
        if isinstance(operand, Number):
            hint = "write a value that has dimensions, such as an input or the result of a block"
            raise Fault("CG0403", "a tensor is needed here, this is a number", Label(expression.location), hint=hint)
        return operand

    def number(self, expression: tree.Expression) -> Number:
        """Evaluate to a number known at compile time."""
        operand = self.operand(expression)
        if isinstance(operand, Value):
            text = "a number known at compile time is needed here, this is a tensor"
            hint = "what an input or a parameter holds is only known when the model runs"
            raise Fault("CG0403", text, Label(expression.location, f"has {describe(operand.type.dims)}"), hint=hint)
        return operand

    def known(self, number: Number, place: Location, hint: str = "use a size of the model's header") -> Number:
        """Return a number that does not depend on sizes known at run time only."""
        runtime = sorted(symbols_of(number.value) & self.limits.keys())
        if runtime:
            text = f"a number known at compile time is needed here, `{runtime[0]}` is known at run time only"
            raise Fault("CG0403", text, Label(place), hint=hint.format(runtime[0]))
        return number

    def operand(self, expression: tree.Expression, wish: str = "") -> Operand:
        """Evaluate an expression that has one result. `wish` is the name the user gives it."""
        match expression:
            case tree.Number(_, value):
                return Number(self._bounded(value, expression.location))
            case tree.String(value) | tree.Boolean(value):
                return Number(value)
            case tree.Name():
                return self._name(expression)
            case tree.Parenthesis(inside):
                return self.operand(inside, wish)
            case tree.Minus(sign, operand):
                inner = self.operand(operand)
                return inner if sign == "+" else self.unary("neg", inner, expression, wish)
            case tree.Not(operand):
                return self.unary("not", self.operand(operand), expression, wish)
            case tree.Operation():
                return self._operation(expression, wish)
            case tree.Index():
                return self._index(expression, wish)
            case tree.Rename():
                return self._rename(expression, wish)
            case tree.Call():
                results = self.call(self, expression, wish)
                if len(results) != 1:
                    message = f"`{expression.callee.text}` gives {len(results)} values, one is needed here"
                    names = ", ".join("abcdefgh"[: len(results)])
                    hint = f"give each a name first: `{names} = {expression.callee.text}(…)`"
                    raise Fault("CG0404", message, Label(expression.location), hint=hint)
                return results[0]
            case _:
                assert_never(expression)

    def _bounded(self, value: float, place: Location) -> float:
        try:
            return static.bounded(value)
        except static.CannotCompute as error:
            raise Fault("CG0208", str(error), Label(place), hint="write a number nearer to zero") from error

    def _name(self, name: tree.Name) -> Operand:
        text = name.text
        match self.frame.scope.find(text):
            case Tensor() as tensor:
                return self.frame.use(tensor)
            case Number(value):
                return Number(value, text)
            case Pack(dims):
                total: Scalar = 1
                for dim in dims:
                    total = static.operate("*", total, dim.size)
                return Number(
                    total, text if len(dims) == 1 and dims[0].name == text else " * ".join(d.name for d in dims)
                )
            case Poison():
                raise Poisoned
            case None:
                if text in CONSTANTS:
                    return Number(CONSTANTS[text], text)
                names = [*self.frame.scope.names(), *CONSTANTS]
                raise Fault(
                    "CG0301", f"there is nothing called `{text}` here", Label(name.location), hint=suggest(text, names)
                )

    def add(self, op: Op, *inputs: Value, place: Location, wish: str = "", places: tuple[Location, ...] = ()) -> Value:
        """Append a node; a broken type rule becomes a fault at `place` with the operands' types."""
        try:
            return self.frame.builder.one(op, *inputs, wish=wish, path=self.path(wish), location=place)
        except RuleViolation as violation:
            raise self.violation(op, violation, inputs, place, places) from violation

    def path(self, wish: str) -> str:
        """Return the path of a value called `wish` here."""
        return ".".join(part for part in (self.frame.path, wish) if part)

    def violation(
        self,
        op: Op,
        violation: RuleViolation,
        inputs: tuple[Value, ...],
        place: Location,
        places: tuple[Location, ...],
    ) -> Fault:
        """Return a broken type rule as a fault with a label under each operand at fault."""
        labels = [
            Label(places[i], f"has {describe(inputs[i].type.dims, violation.rule == 'size')}")
            if violation.rule != "dtype"
            else Label(places[i], f"is {inputs[i].type.dtype}")
            for i in violation.operands
            if i < len(places)
        ]
        hint = ""
        if violation.rule == "missing-dim" and violation.operands:
            hint = suggest(violation.dim, list(inputs[violation.operands[0]].type.names))
        if violation.rule == "duplicate-dim" and violation.dim:
            hint = f"rename one of the two first, as in `as [{violation.dim} -> {violation.dim}_2]`"
        if violation.rule == "dtype":
            condition = isinstance(op, Where) and violation.operands == (0,)
            hint = dtype_hint([inputs[i].type for i in violation.operands if i < len(inputs)], condition)
        message = str(violation)
        return Fault(CODES[violation.rule], message, *(labels or [Label(place)]), hint=hint)

    def constant(self, number: Number, dtype: DType, place: Location) -> Value:
        """Return a number as a constant of the graph."""
        value = self.known(number, place, "a tensor holds it: `1 + max(position({0}), over {0})`").value
        if isinstance(value, str):
            raise Fault(
                "CG0403", "a text is not a tensor", Label(place), hint="texts are compared only: `if kind == …`"
            )
        if isinstance(value, Unknown | SymbolicSize):
            value = math.nan if is_float(dtype) else 0
        elif is_float(dtype):
            value = float(value)
        elif isinstance(value, float):
            text = f"{value:g} is not a whole number, as {dtype} needs"
            raise Fault("CG0207", text, Label(place), hint="write a whole number, or `cast(…, f32)` the tensor")
        return self.add(Constant(value, dtype, number.text), place=place, wish="constant")

    def unary(self, kind: str, operand: Operand, expression: tree.Expression, wish: str) -> Operand:
        """Apply an elementwise function to a number or a tensor."""
        place = expression.location
        if isinstance(operand, Number):
            try:
                return Number(static.apply(kind, operand.value), expression_text(expression))
            except static.CannotCompute as error:
                raise Fault("CG0410", str(error), Label(place), hint=static.OF_NUMBERS) from error
        if kind not in ("neg", "abs", "not") and is_integer(operand.type.dtype):
            operand = self.cast(operand, "f32", place)
        return self.add(Unary(kind), operand, place=place, wish=wish, places=(place,))  # type: ignore[arg-type]

    def cast(self, value: Value, dtype: DType, place: Location, wish: str = "") -> Value:
        """Return `value` as `dtype`."""
        return (
            value if value.type.dtype == dtype else self.add(Cast(dtype), value, place=place, wish=wish or value.name)
        )

    # ---- operators

    def _operation(self, expression: tree.Operation, wish: str) -> Operand:
        left, right = self.operand(expression.left), self.operand(expression.right)
        if isinstance(left, Number) and isinstance(right, Number):
            try:
                return Number(static.operate(expression.operator, left.value, right.value), expression_text(expression))
            except static.CannotCompute as error:
                raise Fault("CG0410", str(error), Label(expression.location), hint=static.OF_NUMBERS) from error
        places = (expression.left.location, expression.right.location)
        return self.binary(OPERATORS[expression.operator], left, right, expression.location, places, wish)

    def binary(
        self,
        kind: BinaryKind,
        left: Operand,
        right: Operand,
        place: Location,
        places: tuple[Location, Location],
        wish: str,
    ) -> Value:
        """Apply an elementwise operator to two tensors, or a tensor and a number."""
        a, b = self._one_dtype(kind, left, right, places)
        self.line_up((a, b), places)
        return self.add(Binary(kind), a, b, place=place, wish=wish, places=places)

    def _one_dtype(
        self, kind: BinaryKind, left: Operand, right: Operand, places: tuple[Location, Location]
    ) -> tuple[Value, Value]:
        dtypes = [operand.type.dtype for operand in (left, right) if isinstance(operand, Value)]
        wanted = next((dtype for dtype in dtypes if is_float(dtype)), dtypes[0])
        fraction = any(isinstance(o, Number) and isinstance(o.value, float | Unknown) for o in (left, right))
        if is_integer(wanted) and (kind in ("div", "pow") or fraction):
            wanted = "f32"
        converted: list[Value] = []
        for operand, place in zip((left, right), places, strict=True):
            if isinstance(operand, Number):
                converted.append(self.constant(operand, wanted, place))
            elif is_integer(operand.type.dtype) and is_float(wanted):
                converted.append(self.cast(operand, wanted, place))
            else:
                converted.append(operand)
        return converted[0], converted[1]

    def line_up(self, values: tuple[Value, ...], places: tuple[Location, ...]) -> None:
        """Check that elementwise operands line up: one has all dimensions of the other, or they share none.

        Two tensors that share some dimensions and each have one of their own are nearly always a mistake.
        """
        for i, a in enumerate(values):
            for j in range(i + 1, len(values)):
                b = values[j]
                left, right = set(a.type.names), set(b.type.names)
                if left <= right or right <= left or not left & right:
                    continue
                labels = (
                    Label(places[i], f"has {describe(a.type.dims)}"),
                    Label(places[j], f"has {describe(b.type.dims)}"),
                )
                raise Fault("CG0203", "these two tensors do not line up", *labels, hint=mend(a, b, self.limits))

    # ---- indexing and renaming

    def _index(self, expression: tree.Index, wish: str) -> Value:
        table, index = self.tensor(expression.table), self.tensor(expression.index)
        places = (expression.table.location, expression.index.location)
        if not is_integer(index.type.dtype):
            text = f"an index is a whole number, not {index.type.dtype}"
            raise Fault("CG0207", text, Label(places[1]), hint="index by tokens, positions, or `cast(…, i64)`")
        dim = self._indexed(expression, table, index)
        return self.add(Gather(dim), table, index, place=expression.location, wish=wish, places=places)

    def _indexed(self, expression: tree.Index, table: Value, index: Value) -> str:
        if expression.over is not None:
            (dim,) = self.dim(expression.over)
            return dim.name
        labels = (
            Label(expression.table.location, f"has {describe(table.type.dims, True)}"),
            Label(expression.index.location, f"counts {index.type.indexes or 'nothing in particular'}"),
        )
        of, first = index.type.indexes, table.type.names[0] if table.type.dims else "…"
        table_text, index_text = expression_text(expression.table), expression_text(expression.index)
        hint = f"say which one is looked up: `{table_text}[{index_text} over {first}]`"
        if of is None:
            hint += f"; an input can be declared `: id of {first}`" if isinstance(expression.index, tree.Name) else ""
            raise Fault("CG0209", "it is not clear which dimension this index looks up", *labels, hint=hint)
        if table.type.has(of.name):
            if table.type.dim(of.name).size != of.size:
                entries = size_words(table.type.dim(of.name).size)
                text = f"the index counts up to {size_words(of.size)}, the table has {entries}"
                hint = f"give both the same size, or the table a dimension of another name than `{of.name}`"
                raise Fault("CG0204", text, *labels, hint=hint)
            return of.name
        limit = self.limits.get(str(of.size))
        if limit is not None and table.type.has(limit.name) and table.type.dim(limit.name) == limit:
            return limit.name
        raise Fault("CG0209", f"the table has no `{of.name}` to look up", *labels, hint=hint)

    def _rename(self, expression: tree.Rename, wish: str) -> Value:
        value = self.tensor(expression.operand, wish)
        names: list[tuple[str, str]] = []
        for old, new in expression.names:
            if value.type.has(old.text):
                source: tuple[Dim, ...] = (value.type.dim(old.text),)
            else:
                source = self.dim(old)
            if len(source) != 1 or not value.type.has(source[0].name):
                label = Label(expression.operand.location, f"has {describe(value.type.dims)}")
                hint = suggest(old.text, list(value.type.names))
                raise Fault("CG0206", f"there is no `{old.text}` to rename", Label(old.location), label, hint=hint)
            names.append((source[0].name, self._new_name(new, source[0])))
        renamed = Rename(tuple(names))
        return self.add(
            renamed, value, place=expression.location, wish=wish or value.name, places=(expression.operand.location,)
        )

    def _size_words(self, dim: Dim) -> str:
        return "known at run time only" if str(dim.size) in self.limits else size_words(dim.size)

    def _new_name(self, name: tree.Name, source: Dim) -> str:
        """Return the dimension that a renaming leads to: a known one of the same size, or a new one."""
        match self.frame.scope.find(name.text):
            case None:
                self.frame.scope.bind(name.text, Pack((Dim(name.text, source.size),)), name.location)
                return name.text
            case Tensor():
                label = Label(self.frame.scope.place(name.text), "this one")
                raise Fault(
                    "CG0303", f"`{name.text}` is a tensor", Label(name.location), label, hint="choose another name"
                )
            case _:
                (known,) = self.dim(name)
        if known.size != source.size:
            sizes = [f"`{dim.name}` is {self._size_words(dim)}" for dim in (source, known)]
            hint = "a renamed dimension keeps its size; choose another name"
            raise Fault("CG0204", ", but ".join(sizes), Label(name.location), hint=hint)
        return known.name
