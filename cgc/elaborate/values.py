"""What a name or an expression can stand for at compile time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cgc.diagnostics import Diagnostic, Label, Location
from cgc.ir.dims import Dim, Size, SymbolicSize
from cgc.ir.graph import Value

if TYPE_CHECKING:
    from cgc.elaborate.frames import Frame


@dataclass(frozen=True, slots=True)
class Unknown:
    """A number that depends on sizes left open (`symbols`), such as `sqrt(head)` in a family checked on its own."""

    symbols: frozenset[str] = frozenset()


UNKNOWN = Unknown()

Scalar: TypeAlias = int | float | bool | str | SymbolicSize | Unknown


def symbols_of(value: Scalar) -> frozenset[str]:
    """Return the sizes left open that a number depends on."""
    match value:
        case Unknown(symbols):
            return symbols
        case SymbolicSize():
            return value.symbols()
        case _:
            return frozenset()


@dataclass(frozen=True, slots=True)
class Number:
    """A compile-time scalar. `text` is how the user wrote it, empty for a literal."""

    value: Scalar
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph, and the frame (function or loop body) it was made in."""

    value: Value
    frame: Frame


@dataclass(frozen=True, slots=True)
class Pack:
    """One dimension, or several bound to one name of a block's header."""

    dims: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Poison:
    """What a name stands for after a fault in its definition: uses of it are not faults again."""


POISON = Poison()

Binding: TypeAlias = Number | Tensor | Pack | Poison
Operand: TypeAlias = Number | Value


class Fault(Exception):
    """A fault of the user's; ends the statement it is found in."""

    def __init__(self, code: str, message: str, *labels: Label, hint: str = "") -> None:
        super().__init__(message)
        self.diagnostic = Diagnostic(code, message, labels, hint)


class Poisoned(Exception):
    """A statement uses a name whose definition has a fault; nothing more to say."""


def label(location: Location, text: str = "") -> Label:
    """Return a label at a place."""
    return Label(location, text)


def describe(dims: tuple[Dim, ...], sizes: bool = False) -> str:
    """Return dimensions as a user writes them, `[batch, seq, width]`, with sizes if asked."""
    return f"[{', '.join(str(dim) if sizes else dim.name for dim in dims)}]"


def as_size(value: Scalar) -> Size | None:
    """Return a scalar as a size, or None where it is not a whole number."""
    if isinstance(value, bool | str | Unknown):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value
