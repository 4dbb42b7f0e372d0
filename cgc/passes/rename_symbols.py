"""Other names for the sizes that are free until a model runs; dimensions keep theirs.

Before:

    symbol rows
    symbol time
    input %tokens : i64[rows, time] of vocab=8

After, with `time` called `seq`:

    symbol rows
    symbol seq
    input %tokens : i64[rows, time=seq] of vocab=8
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

from cgc.ir.dims import SymbolicSize, substitute, symbol
from cgc.ir.graph import Graph, Symbol

_T = TypeVar("_T")


def rename_symbols(graph: Graph, names: Mapping[str, str]) -> Graph:
    """Return `graph` with symbols called otherwise: `names` are new ones by the old.

    Raises:
        ValueError: two would have one name.
    """
    after = [names.get(known.name, known.name) for known in graph.symbols]
    if len(set(after)) < len(after):
        raise ValueError(f"two sizes would be called alike: {', '.join(after)}")
    return _Renaming(names).of(graph) if names else graph


class _Renaming:
    """Rebuilds what sizes stand in, each object once."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._sizes = {old: symbol(new) for old, new in names.items()}
        self._made: dict[int, tuple[object, object]] = {}

    def of(self, x: _T) -> _T:
        """Return `x` with its sizes in the new names; itself where it has none of the old."""
        if id(x) not in self._made:
            self._made[id(x)] = (x, self._anew(x))  # what is kept keeps its identity from being given to another
        return cast(_T, self._made[id(x)][1])

    def _anew(self, x: object) -> object:
        if isinstance(x, SymbolicSize):
            return substitute(x, self._sizes)
        if isinstance(x, tuple):
            parts = tuple(self.of(part) for part in x)
            return parts if any(new is not old for new, old in zip(parts, x, strict=True)) else x
        if not is_dataclass(x) or isinstance(x, type):
            return x
        changes = {field.name: self.of(getattr(x, field.name)) for field in fields(x)}
        if isinstance(x, Symbol):
            changes["name"] = self._names.get(x.name, x.name)
        changed = {name: new for name, new in changes.items() if new is not getattr(x, name)}
        return replace(x, **changed) if changed else x
