"""What a valid graph is. Runs after the front end always, and between all passes in tests."""

from __future__ import annotations

from cgc.ir.graph import Function, Graph, Node, Region, Value
from cgc.ir.ops import Call, Repeat
from cgc.ir.rules import FunctionLookup, RuleViolation, infer


class InvalidGraph(Exception):
    """A graph that breaks a rule: an error in the compiler, or in a graph text that someone edited."""


def verify(graph: Graph) -> Graph:
    """Return `graph` if it is valid.

    Raises:
        InvalidGraph: a value is used before it is defined or defined twice, a type is not what the op's rule gives, a
            function is called before it is defined, parameters do not match arguments, or an output has no value.
    """
    known: dict[str, Function] = {}

    def lookup(name: str) -> Function:
        if name not in known:
            raise InvalidGraph(f"function `{name}` is called before it is defined")
        return known[name]

    for function in graph.functions:
        if function.name in known:
            raise InvalidGraph(f"function `{function.name}` is defined twice")
        where = f"function `{function.name}`"
        _params(where, function.body, tuple(param.value for param in function.params))
        _Scope(where, lookup).top(function.body)
        known[function.name] = function
    where = f"graph `{graph.name}`"
    _params(where, graph.body, tuple(param.value for param in graph.params))
    _Scope(where, lookup).top(graph.body)
    if len(graph.outputs) != len(graph.body.results) or len(set(graph.outputs)) != len(graph.outputs):
        raise InvalidGraph(f"{where}: {len(graph.outputs)} output names for {len(graph.body.results)} results")
    _symbols(graph)
    return graph


def _params(where: str, body: Region, params: tuple[Value, ...]) -> None:
    if params and body.arguments[-len(params) :] != params:
        raise InvalidGraph(f"{where}: the last arguments are not the parameters")


def _symbols(graph: Graph) -> None:
    declared = {symbol.name for symbol in graph.symbols}
    for value in graph.inputs:
        for dim in value.type.dims:
            unknown = set() if isinstance(dim.size, int) else dim.size.symbols() - declared
            if unknown:
                raise InvalidGraph(f"graph `{graph.name}`: size {min(unknown)} of `{value.name}` is not declared")


class _Scope:
    """The values visible at one point of a function."""

    def __init__(self, where: str, function: FunctionLookup) -> None:
        self._where = where
        self._function = function
        self._defined: dict[str, Value] = {}

    def top(self, region: Region) -> None:
        self._enter(region)

    def _define(self, value: Value) -> None:
        if value.name in self._defined:
            raise InvalidGraph(f"{self._where}: `{value.name}` is defined twice")
        names = value.type.names
        if len(set(names)) != len(names):
            raise InvalidGraph(f"{self._where}: `{value.name}` has a dimension twice: {value.type}")
        self._defined[value.name] = value

    def _use(self, value: Value, visible: set[str]) -> None:
        if value.name not in visible or self._defined[value.name] != value:
            raise InvalidGraph(f"{self._where}: `{value.name}` is not visible where it is used, or has another type")

    def _enter(self, region: Region) -> None:
        visible: set[str] = set()
        for value in region.arguments:
            self._define(value)
            visible.add(value.name)
        for node in region.nodes:
            for value in node.inputs:
                self._use(value, visible)
            self._check(node)
            for value in node.outputs:
                self._define(value)
                visible.add(value.name)
        for value in region.results:
            self._use(value, visible)

    def _check(self, node: Node) -> None:
        if isinstance(node.op, Repeat):
            self._enter(node.op.body)
        try:
            types = infer(node.op, tuple(value.type for value in node.inputs), self._function)
        except RuleViolation as violation:
            at = f" ({node.location})" if node.location.file else ""
            raise InvalidGraph(f"{self._where}: {_describe(node)}: {violation}{at}") from violation
        if types != tuple(value.type for value in node.outputs):
            raise InvalidGraph(f"{self._where}: {_describe(node)} gives {', '.join(map(str, types))}")


def _describe(node: Node) -> str:
    what = f"call of `{node.op.function}`" if isinstance(node.op, Call) else type(node.op).__name__.lower()
    return f"{what} → {', '.join(f'`{value.name}`' for value in node.outputs)}"
