"""Values, nodes, regions, functions and the graph that holds them. All immutable; a pass returns a new graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Literal, TypeAlias

from cgc.diagnostics import NOWHERE as NOWHERE
from cgc.diagnostics import Location as Location
from cgc.ir.dims import Dim, Size, add
from cgc.ir.ops import Op, Repeat
from cgc.ir.types import TensorType
from cgc.record import record


@record(frozen=True)
class Value:
    """An SSA value. Names are unique within a function (or the graph's top level), regions included."""

    name: str
    type: TensorType


@record(frozen=True)
class Node:
    """One application of an op. `path` is where it lives in the user's model: `h.attention.scores`."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    path: str = ""
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def output(self) -> Value:
        """The only output of a node that has one."""
        (value,) = self.outputs
        return value


@record(frozen=True)
class Region:
    """Straight-line code: arguments, nodes in order of execution, results."""

    arguments: tuple[Value, ...]
    nodes: tuple[Node, ...]
    results: tuple[Value, ...]


Distribution: TypeAlias = Literal["normal", "truncated_normal", "uniform", "constant"]


@record(frozen=True)
class Init:
    """An initial distribution.

    normal: mean, std. truncated_normal: the same, cut at ±2 std before use (its own std is then a little smaller).
    uniform: on [-limit, limit]. constant: every entry is `mean`.
    """

    distribution: Distribution
    mean: float = 0.0
    std: float = 0.0
    limit: float = 0.0

    def __str__(self) -> str:
        match self.distribution:
            case "constant":
                return {0.0: "zeros", 1.0: "ones"}.get(self.mean, f"constant({self.mean:g})")
            case "uniform":
                return f"uniform(limit={self.limit:g})"
            case _:
                mean = f"mean={self.mean:g}, " if self.mean else ""
                return f"{self.distribution}({mean}std={self.std:g})"


@record(frozen=True)
class Param:
    """A trained tensor: its value, how it starts, and where it was declared.

    The value's name is its path: `wte`, `h.attention.q.w`. A parameter inside a `repeat` carries the loop's stacking
    dimension in front, in the graph; inside a function the path is relative to the function.
    """

    value: Value
    init: Init
    location: Location = field(default=NOWHERE, compare=False)
    stacked: int = 0

    @property
    def name(self) -> str:
        """The path of the parameter."""
        return self.value.name

    @property
    def type(self) -> TensorType:
        """The type of the parameter, stacking dimensions first."""
        return self.value.type


Static: TypeAlias = int | float | bool | str | tuple[str, ...]


@record(frozen=True)
class Function:
    """A block at one set of dimensions, callable by name.

    `block` is the name in the source, `library` the standard library file it stands in (`std/nn`; empty for a user's
    file), `static` the compile-time arguments by header name: numbers, and tuples of dimension names. A backend may
    recognise (`library`, `block`) as an intrinsic. `body.arguments` are the tensor arguments, then the parameters.
    """

    name: str
    block: str
    library: str
    static: tuple[tuple[str, Static], ...]
    params: tuple[Param, ...]
    body: Region
    location: Location = field(default=NOWHERE, compare=False)
    doc: str = ""

    @property
    def arguments(self) -> tuple[Value, ...]:
        """The tensor arguments, parameters not among them."""
        return self.body.arguments[: len(self.body.arguments) - len(self.params)]

    def argument(self, name: str) -> Static:
        """Return the compile-time argument called `name` (KeyError when there is none)."""
        return dict(self.static)[name]


@record(frozen=True)
class Symbol:
    """A size known only at run time, at most the size of `limit` where that is set."""

    name: str
    limit: Dim | None = None


@record(frozen=True)
class Graph:
    """A whole model. `body.arguments` are the inputs, then the parameters; `body.results` are the outputs, in order."""

    name: str
    symbols: tuple[Symbol, ...]
    params: tuple[Param, ...]
    functions: tuple[Function, ...]
    body: Region
    outputs: tuple[str, ...]
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The run-time inputs, parameters not among them."""
        return self.body.arguments[: len(self.body.arguments) - len(self.params)]

    def function(self, name: str) -> Function:
        """Return the function called `name` (KeyError when there is none)."""
        for function in self.functions:
            if function.name == name:
                return function
        raise KeyError(name)

    @property
    def parameter_count(self) -> Size:
        """The number of trained scalars."""
        total: Size = 0
        for param in self.params:
            total = add(total, param.type.count)
        return total

    def __str__(self) -> str:
        from cgc.ir.text import print_graph

        return print_graph(self)


def walk(region: Region) -> Iterator[Node]:
    """Yield every node of a region and of the loop bodies in it, in order; functions are not entered."""
    for node in region.nodes:
        yield node
        if isinstance(node.op, Repeat):
            yield from walk(node.op.body)
