"""What a generator of random programs knows about the names in view: their dimensions, types and magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, TypeAlias, TypeVar

from hypothesis import strategies as st

from cgc.ir.dims import Size, evaluate

Kind: TypeAlias = Literal["float", "int", "bool"]
T = TypeVar("T")

FREE = {"batch": 3, "seq": 6, "rows": 4}
"""Symbols of the programs and the largest value each is run with."""
MOST_ENTRIES = 3000
MOST_DIMS = 5
TAME = 8.0
"""Largest magnitude that a loop may carry around."""

TRICKY = (
    "self", "forward", "torch", "nn", "F", "math", "tensor", "class", "lambda", "len", "shape", "dtype", "device",
    "sum",
    "linear", "mean", "exp", "T", "Tensor", "None", "print", "range", "zip", "functional", "weight", "bias", "w", "b",
    "scale", "Module", "init", "x_2", "x", "y", "n", "i", "_", "__init__", "batch_size", "training", "register", "pass",
    "gelu", "softmax", "onnx", "Constant", "layers_2", "h", "eps", "from_numpy", "int", "float", "bool", "key", "query",
)  # fmt: skip
"""Names that mean something in Python, PyTorch or ONNX, or in the library."""


@dataclass(frozen=True)
class Val:
    """A tensor in view. `text` is a name or an expression in parentheses; `exact` floats are the same bits everywhere.

    `of` is the dimension whose entries it counts; `most` bounds the magnitude, roughly.
    """

    text: str
    dims: frozenset[str]
    kind: Kind = "float"
    most: float = 4.0
    exact: bool = False
    of: str = ""

    @property
    def named(self) -> bool:
        """Whether the text is a name, which can be given another value."""
        return not self.text.startswith("(")


@dataclass
class Choices:
    """What is left to chance, drawn through hypothesis."""

    draw: st.DrawFn

    def pick(self, options: Iterable[T]) -> T:
        """Return one of `options`."""
        found = list(options)
        return found[0] if len(found) == 1 else found[self.draw(st.integers(0, len(found) - 1))]

    def some(self, options: Iterable[T], least: int, most: int) -> list[T]:
        """Return between `least` and `most` of `options`, in random order."""
        left, found = list(options), []
        for _ in range(self.count(min(least, len(left)), min(most, len(left)))):
            found.append(left.pop(self.count(0, len(left) - 1)))
        return found

    def count(self, least: int, most: int) -> int:
        """Return a whole number."""
        return least if least >= most else self.draw(st.integers(least, most))

    def chance(self, percent: int) -> bool:
        """Return True so often."""
        return self.draw(st.integers(0, 99)) >= 100 - percent


@dataclass
class World:
    """What a whole program shares: sizes of dimensions by their real names, blocks, names that are taken."""

    choices: Choices
    sizes: dict[str, Size] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    made: list[MadeBlock] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    serial: int = 0

    def entries(self, dims: Iterable[str]) -> int:
        """Return how many entries a tensor has at the largest sizes."""
        return prod(evaluate(self.sizes[dim], FREE) for dim in dims)

    def static(self, dim: str) -> bool:
        """Tell whether a size is known at compile time."""
        return isinstance(self.sizes[dim], int)

    def size(self, dim: str) -> int:
        """Return a size that is known at compile time."""
        size = self.sizes[dim]
        assert isinstance(size, int)
        return size

    def fits(self, dims: Iterable[str]) -> bool:
        """Tell whether a tensor of these dimensions is small enough."""
        found = set(dims)
        return len(found) <= MOST_DIMS and self.entries(found) <= MOST_ENTRIES

    def bound(self, dim: str) -> int | None:
        """Return what an index into `dim` stays under at any run."""
        size = self.sizes[dim]
        return size if isinstance(size, int) else self.bounds.get(str(size))

    def fresh(self, letter: str, tricky: bool = True) -> str:
        """Return a name that nothing in the program has."""
        if tricky and self.choices.chance(15):
            name = self.choices.pick(TRICKY)
            if name not in self.used:
                self.used.add(name)
                return name
        self.serial += 1
        self.used.add(f"{letter}{self.serial}")
        return f"{letter}{self.serial}"


@dataclass(frozen=True)
class MadeBlock:
    """A block that was written, for another call: the arguments that fit, the call around them, and what it gives."""

    arguments: tuple[Val, ...]
    call: Callable[[Sequence[str]], str]
    needs: frozenset[str]
    results: tuple[Val, ...]


@dataclass
class Frame:
    """A body being written. `spelled` says how a dimension is written in it, `packs` what a name of several stands for.

    `own` are the names that may be given another value of the same type here.
    """

    world: World
    indent: str
    vals: list[Val] = field(default_factory=list)
    spelled: dict[str, str] = field(default_factory=dict)
    packs: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    numbers: list[tuple[str, float]] = field(default_factory=list)
    flags: list[tuple[str, bool]] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    kind: Literal["model", "block", "loop"] = "model"
    depth: int = 0

    def emit(self, line: str) -> None:
        """Append a line."""
        self.lines.append(self.indent + line)

    def dims(self, dims: Iterable[str]) -> str:
        """Return dimensions as they are written here, between spaces."""
        found = tuple(dims)
        packs = [alias for alias, meant in self.packs if meant == found]
        if packs and self.world.choices.chance(50):
            return packs[0]
        return " ".join(self.spelled[dim] for dim in found)

    def known(self, dims: Iterable[str]) -> bool:
        """Tell whether all dimensions can be written here."""
        return all(dim in self.spelled for dim in dims)

    def declare(self, text: str, size: Size) -> str:
        """Declare a dimension; return its name."""
        name = self.world.fresh("d")
        self.world.sizes[name] = size
        self.spelled[name] = name
        self.emit(f"dim {name} = {text}")
        return name

    def static_dim(self, most: int = 4, least: int = 1) -> str:
        """Return a new dimension of a small size."""
        size = self.world.choices.count(least, most)
        return self.declare(str(size), size)

    def param(self, dims: Sequence[str]) -> Val:
        """Declare a parameter."""
        name = self.world.fresh("p")
        init = self.world.choices.pick(
            ("normal(std=0.5)", "truncated_normal(std=0.4, mean=0.1)", "uniform(limit=1)", "zeros()", "ones()")
        )
        self.emit(f"param {name}[{', '.join(self.spelled[dim] for dim in dims)}] ~ {init}")
        val = Val(name, frozenset(dims), exact=True, most=2.0)
        self.vals.append(val)
        return val

    def bind(self, val: Val, *, inline: bool = True) -> Val:
        """Give an expression a name, or keep it for use inside another one; return the value in view."""
        choices = self.world.choices
        if inline and len(val.text) < 45 and choices.chance(25):
            found = replace(val, text=f"({val.text})")
            self.vals.append(found)
            return found
        same = [v for v in self.vals if v.text in self.own and v.dims == val.dims and v.kind == val.kind]
        if same and choices.chance(30):
            name = choices.pick(same).text
            self.forget(name)
        else:
            name = self.world.fresh("v")
            self.own.add(name)
        self.emit(f"{name} = {val.text}")
        self.vals.append(replace(val, text=name))
        return self.vals[-1]

    def forget(self, name: str) -> None:
        """Drop a name that gets another value, and the expressions that may use it."""
        self.vals = [v for v in self.vals if v.text != name and v.named]

    def like(self, test: Callable[[Val], bool]) -> list[Val]:
        """Return the values in view that pass a test, the latest twice."""
        found = [v for v in self.vals if test(v) and self.known(v.dims)]
        return found + found[-3:]


def aligned(a: Iterable[str], b: Iterable[str]) -> bool:
    """Tell whether two tensors line up elementwise."""
    left, right = set(a), set(b)
    return left <= right or right <= left or not left & right
