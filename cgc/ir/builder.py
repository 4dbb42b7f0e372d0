"""Build a region node by node, with inferred types and fresh, legible names."""

from __future__ import annotations

from cgc.ir.graph import NOWHERE, Location, Node, Region, Value
from cgc.ir.ops import Op, opcode
from cgc.ir.rules import FunctionLookup, infer
from cgc.ir.types import TensorType


class Names:
    """Names already used in one function, and fresh ones made from a wish: `x`, `x_2`, `x_3`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        self._reserved: set[str] = set()

    def reserve(self, names: set[str]) -> None:
        """Keep `names` for `exact`: `fresh` will not give them out."""
        self._reserved |= names

    def exact(self, name: str) -> str:
        """Take `name` itself, which must be free."""
        if name in self._taken:
            raise ValueError(f"`{name}` is taken")
        self._taken.add(name)
        return name

    def fresh(self, wish: str) -> str:
        """Return `wish`, or the first of `wish_2`, `wish_3`, … that is free, and take it."""
        name, count = wish, self._next.get(wish, 1)
        while name in self._taken or name in self._reserved:
            count += 1
            name = f"{wish}_{count}"
        self._next[wish] = count
        self._taken.add(name)
        return name


class Builder:
    """Collects the nodes of one region."""

    def __init__(self, names: Names, function: FunctionLookup) -> None:
        self.names = names
        self._function = function
        self._nodes: list[Node] = []

    def region(self) -> Builder:
        """Return a builder for a region inside this one: same names, same functions."""
        return Builder(self.names, self._function)

    def value(self, wish: str, type: TensorType) -> Value:
        """Return a new value that no node defines: an argument."""
        return Value(self.names.fresh(wish), type)

    def add(
        self, op: Op, *inputs: Value, wish: str = "", path: str = "", location: Location = NOWHERE
    ) -> tuple[Value, ...]:
        """Append a node and return its outputs.

        Raises:
            RuleViolation: the operands do not fit the op.
        """
        types = infer(op, tuple(value.type for value in inputs), self._function)
        outputs = tuple(self.value(wish or opcode(op), type) for type in types)
        self._nodes.append(Node(op, inputs, outputs, path, location))
        return outputs

    def one(self, op: Op, *inputs: Value, wish: str = "", path: str = "", location: Location = NOWHERE) -> Value:
        """Append a node with one result and return it (errors as `add`)."""
        (value,) = self.add(op, *inputs, wish=wish, path=path, location=location)
        return value

    def finish(self, arguments: tuple[Value, ...], results: tuple[Value, ...]) -> Region:
        """Return the region built so far."""
        return Region(arguments, tuple(self._nodes), results)
