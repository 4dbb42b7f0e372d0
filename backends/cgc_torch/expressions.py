"""Python expressions as text that knows how tightly it binds, and the few shapes of call that everything is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cgc.ir.types import DType

ATOM: Final = 9
UNARY: Final = 8
PRODUCT: Final = 7
SUM: Final = 6
AND: Final = 5
OR: Final = 4
COMPARE: Final = 3

TORCH_DTYPES: Final[dict[DType, str]] = {
    "f64": "torch.float64",
    "f32": "torch.float32",
    "f16": "torch.float16",
    "bf16": "torch.bfloat16",
    "i64": "torch.int64",
    "i32": "torch.int32",
    "bool": "torch.bool",
}


@dataclass(frozen=True, slots=True)
class Expr:
    """An expression. `level` is how tightly it binds, as in Python's grammar.

    `number` marks a Python number rather than a tensor; `untyped` what a type checker sees as `Any`: the result of
    calling a module, and methods of that. `stem` is where a chain of methods starts and `frame` what
    follows, with `{}` for the stem: `f(x)` and `{}.sum().exp()`.
    """

    text: str
    level: int = ATOM
    number: bool = False
    untyped: bool = False
    stem: str = ""
    frame: str = "{}"

    def at(self, level: int) -> str:
        """Return the text, in parentheses where it binds less tightly than `level`."""
        return self.text if self.level >= level else f"({self.text})"

    def method(self, call: str) -> Expr:
        """Return `self.call`: `call` is `sum(dim=-1)`, or an attribute."""
        return self._followed(f".{call}")

    def indexed(self, index: str) -> Expr:
        """Return `self[index]`."""
        return self._followed(f"[{index}]")

    def _followed(self, suffix: str) -> Expr:
        return self.framed(f"{self.frame}{suffix}" if self.stem else f"{{}}{suffix}", self.untyped)

    def framed(self, frame: str, untyped: bool) -> Expr:
        """Return this expression, or the stem of it, put into `frame`."""
        stem = self.stem or self.at(ATOM)
        return Expr(frame.replace("{}", stem), untyped=untyped, stem=stem, frame=frame)

    def renamed(self, stem: str) -> Expr:
        """Return the same chain on another stem."""
        return replace(self, text=self.frame.replace("{}", stem), stem=stem)


def call(function: str, *arguments: Expr | str) -> Expr:
    """Return `function(arguments)`."""
    texts = [argument if isinstance(argument, str) else argument.text for argument in arguments]
    return Expr(f"{function}({', '.join(text for text in texts if text)})")


def infix(left: Expr, operator: str, right: Expr, level: int) -> Expr:
    """Return `left operator right`; comparisons do not chain, everything else groups to the left."""
    first = left.at(level + 1 if level == COMPARE else level)
    text = f"{first} {operator} {right.at(level + 1)}"
    return Expr(text, level, number=left.number and right.number, untyped=left.untyped or right.untyped)


def prefix(operator: str, x: Expr) -> Expr:
    """Return `operator x` for `-` and `~`."""
    inner = x.at(UNARY + 1)
    return Expr(f"{operator}{inner}", UNARY, x.number, x.untyped)


def number(value: float | int | bool) -> Expr:
    """Return a number as Python spells it; infinities and NaN by their names in `math`."""
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return Expr("math.nan", number=True)
        return Expr("math.inf", number=True) if value > 0 else Expr("-math.inf", UNARY, number=True)
    negative = not isinstance(value, bool) and (value < 0 or (isinstance(value, float) and str(value)[0] == "-"))
    return Expr(repr(value), UNARY if negative else ATOM, number=True)


def sequence(texts: Sequence[str]) -> str:
    """Return a tuple display."""
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def axis_text(axis: int, rank: int) -> str:
    """Return how a person would point at an axis: the last one is -1, the one before -2 where there are many."""
    return str(axis - rank) if axis == rank - 1 or (axis == rank - 2 and rank > 3) else str(axis)


def axes_text(axes: Sequence[int], rank: int) -> str:
    """Return one axis as a number, several as a tuple."""
    texts = [axis_text(axis, rank) for axis in axes]
    return texts[0] if len(texts) == 1 else sequence(texts)


def permuted(x: Expr, order: Sequence[int]) -> Expr:
    """Return `x` with axis `order[i]` as its axis `i`: `x` itself, a transposition, or `permute`."""
    moved = [i for i, axis in enumerate(order) if axis != i]
    if not moved:
        return x
    if len(moved) == 2:
        if moved == [len(order) - 2, len(order) - 1]:
            return x.method("mT")
        return x.method(f"transpose({moved[0]}, {moved[1]})")
    return x.method(f"permute({', '.join(map(str, order))})")


def arranged(x: Expr, have: Sequence[str], want: Sequence[str]) -> Expr:
    """Return `x`, whose axes are named `have`, with its axes in the order `want` (a permutation of `have`)."""
    return permuted(x, [have.index(name) for name in want])


def aligned(x: Expr, have: Sequence[str], want: Sequence[str]) -> Expr:
    """Return `x` so that it broadcasts against axes `want`; `have` is a subset of them, in any order."""
    present = [name for name in want if name in have]
    if x.number or not present:
        return x
    x = arranged(x, have, present)
    slots = [":" if name in have else "None" for name in want[list(want).index(present[0]) :]]
    missing = slots.count("None")
    if not missing:
        return x
    if slots[-missing:] == ["None"] * missing:
        return x.indexed(", ".join(["...", *slots[-missing:]]))
    while slots[-1] == ":":
        slots.pop()
    return x.indexed(", ".join(slots))


def slice_text(start: str, stop: str) -> str:
    """Return `start:stop` with the spaces that formatters put where a bound is not a plain name or number."""
    simple = all(bound == "" or bound.isidentifier() or bound.isdigit() for bound in (start, stop))
    return f"{start}:{stop}" if simple else f"{start} : {stop}".strip()


def sliced(x: Expr, axis: int, rank: int, bounds: str) -> Expr:
    """Return `x[..., bounds]` at `axis`."""
    if axis == rank - 1 and rank > 1:
        return x.indexed(f"..., {bounds}")
    return x.indexed(", ".join([*[":"] * axis, bounds]))


def unflattened(x: Expr, axis: int, rank: int, sizes: Sequence[str]) -> Expr:
    """Return `x` with `axis` split, row-major, into axes of these sizes."""
    if not sizes:
        return x.method(f"squeeze({axis_text(axis, rank)})")
    if len(sizes) == 1:
        return x
    arguments = f"{axis_text(axis, rank)}, {sequence(sizes)}"
    # The method has no types in PyTorch's stubs, the function has.
    if x.untyped:
        return x.method(f"unflatten({arguments})")
    frame = x.frame if x.stem else "{}"
    return x.framed(f"torch.unflatten({frame}, {arguments})", False)


def flattened(x: Expr, first: int, count: int, rank: int) -> Expr:
    """Return `x` with `count` axes from `first` on merged, row-major, into one."""
    if count == 1:
        return x
    last = first + count - 1
    if last == rank - 1:
        return x.method(f"flatten({first - rank})")
    return x.method(f"flatten({first}, {last})")
