"""What diagnostics suggest: near names, and the smallest change that would be right."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from cgc.elaborate.values import Scalar
from cgc.ir.dims import Dim, Size, SymbolicSize
from cgc.ir.graph import Value
from cgc.ir.types import TensorType, is_float

MOST_NAMES = 8
"""Names that a hint lists; of more, none."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the question whether a near name was meant, empty where none is near."""
    near = get_close_matches(name, sorted(set(known) - {name}), 1, 0.6)
    return f"did you mean `{near[0]}`?" if near else ""


def shown(value: Scalar) -> str:
    """Return a number as messages write it."""
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def quoted(names: Iterable[str], last: str = "and") -> str:
    """Return names as a list in running text: "`a`, `b` and `c`"."""
    words = [f"`{name}`" for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else "none"


def size_words(size: Size) -> str:
    """Return a size in running text: `768`, `batch * seq`, or that it is known at run time only."""
    return str(size).replace("*", " * ") if isinstance(size, SymbolicSize) else str(size)


def near_dim(name: str, known: Collection[str]) -> str:
    """Return what may have been meant by a dimension that does not exist."""
    near = suggest(name, known)
    if near or not known or len(known) > MOST_NAMES:
        return near or f"`dim {name} = …` makes a dimension, and so does renaming: `x as [seq -> {name}]`"
    return f"here are {quoted(sorted(known))}; renaming makes a new one: `x as [… -> {name}]`"


def mend(a: Value, b: Value, runtime: Collection[str]) -> str:
    """Return the smallest change that could make two tensors line up; `runtime` are sizes known at run time only."""
    left = [dim for dim in a.type.dims if not b.type.has(dim.name)]
    right = [dim for dim in b.type.dims if not a.type.has(dim.name)]
    if len(left) == 1 and len(right) == 1:
        if left[0].size == right[0].size:
            return f"if these are the same, rename one: `… as [{right[0].name} -> {left[0].name}]`"
        if not any(_runtime(dim, runtime) for dim in (*left, *right)):
            return f"did you mean to project with `linear(…, {right[0].name} -> {left[0].name})`?"
    names = " ".join(dim.name for dim in right)
    return (
        f"take the second together, as in `mean(…, over {names})`; `dot(a, b)` multiplies every entry with every other"
    )


def _runtime(dim: Dim, runtime: Collection[str]) -> bool:
    return isinstance(dim.size, SymbolicSize) and not dim.size.symbols().isdisjoint(runtime)


def to_fit(missing: list[str], extra: list[str]) -> str:
    """Return how a tensor without the dimensions `missing` and with `extra` could become what a block takes."""
    if len(missing) == 1 and len(extra) == 1:
        return f"rename it: `… as [{extra[0]} -> {missing[0]}]`, or give `{missing[0]}={extra[0]}` in the call"
    if missing:
        return f"it lacks {quoted(missing)}"
    return f"it has {quoted(extra)} too many; `...` in the header lets further dimensions pass"


def dtype_hint(types: Collection[TensorType], condition: bool = False) -> str:
    """Return how values of these types can be made to fit; `condition` where a truth value is needed."""
    names = {type_.dtype for type_ in types}
    if condition:
        return "a comparison makes a condition, as in `x > 0`; an input can be declared `: bool`"
    if "bool" in names:
        return "`where(condition, 1, 0)` makes numbers of truth values, a comparison the other way round"
    floats = sorted(name for name in names if is_float(name))
    return f"convert one of them, as in `cast(x, {floats[-1]})`" if len(names) > 1 and floats else ""


def to_carry(name: str, start: Value, end: Value) -> str:
    """Return how what a loop carries could become, after a turn, what it was before."""
    before = [dim.name for dim in start.type.dims if dim not in end.type.dims]
    after = [dim.name for dim in end.type.dims if dim not in start.type.dims]
    if before and after and start.type.dtype == end.type.dtype:
        return f"project back at the end of the turn, `linear({name}, {' '.join(after)} -> {' '.join(before)})`"
    return (
        f"what comes out of one turn goes into the next: let it keep its dimensions and type, or rename `{name}` inside"
    )
