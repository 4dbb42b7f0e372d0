"""Parse the textual form of a graph that `cgc.ir.text` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, cast

from cgc.ir.dims import Dim, parse_size
from cgc.ir.graph import NOWHERE, Function, Graph, Init, Location, Node, Param, Region, Symbol, Value
from cgc.ir.ops import OPS, Op, Repeat
from cgc.ir.text import FORMAT
from cgc.ir.types import DTYPES, DType, TensorType

_PLACE = re.compile(r" @ (\S.*?):(\d+):(\d+)-(\d+):(\d+)$")
_TYPE = re.compile(r"(\w+)\[([^\]]*)\](?: of (\S+?))?(?=,? |$|,)")
_VALUE = re.compile(r"%(\S+) : ")
_OPS = {("top_k" if op.__name__ == "TopK" else op.__name__.lower()): op for op in OPS}


class MalformedGraphText(ValueError):
    """Text that is not the textual form of a graph; the message names the line."""


def parse_graph(text: str) -> Graph:
    """Parse the textual form; does not verify (see `cgc.ir.verify`).

    Raises:
        MalformedGraphText: the text does not parse.
    """
    reader = _Reader(text.split("\n"))
    try:
        return reader.graph()
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise MalformedGraphText(f"line {reader.at}: {error}") from error


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self.at = 0

    def _next(self) -> str:
        while not self._lines[self.at].strip():
            self.at += 1
        self.at += 1
        return self._lines[self.at - 1].strip()

    def _more(self) -> bool:
        return any(line.strip() for line in self._lines[self.at :])

    def graph(self) -> Graph:
        line, location = _place(self._next())
        keyword, name, _, version = line.split(" ")
        if keyword != "graph" or int(version) != FORMAT:
            raise ValueError(f"not a graph of format {FORMAT}")
        symbols: list[Symbol] = []
        functions: list[Function] = []
        inputs: list[Value] = []
        params: list[Param] = []
        outputs: list[tuple[str, str]] = []
        nodes: list[Node] = []
        scope: dict[str, Value] = {}
        while self._more():
            line = self._next()
            match line.split(" ", 1)[0]:
                case "symbol":
                    symbol, _, limit = line[7:].partition(" <= ")
                    symbols.append(Symbol(symbol, _dim(limit) if limit else None))
                case "function":
                    functions.append(self._function(line))
                case "input":
                    inputs.append(_define(scope, line[6:]))
                case "param":
                    params.append(_param(scope, line))
                case "output":
                    output, _, value = line[7:].partition(" = ")
                    outputs.append((output, value))
                case _:
                    nodes.append(self._node(scope, line))
        arguments = (*inputs, *(param.value for param in params))
        body = Region(arguments, tuple(nodes), tuple(scope[value[1:]] for _, value in outputs))
        names = tuple(output for output, _ in outputs)
        return Graph(name, tuple(symbols), tuple(params), tuple(functions), body, names, location)

    def _function(self, line: str) -> Function:
        line, location = _place(line)
        _, name, head_text = line.split(" ", 2)
        head = json.loads(head_text)
        scope: dict[str, Value] = {}
        arguments: list[Value] = []
        params: list[Param] = []
        nodes: list[Node] = []
        while True:
            line = self._next()
            match line.split(" ", 1)[0]:
                case "argument":
                    arguments.append(_define(scope, line[9:]))
                case "param":
                    params.append(_param(scope, line))
                case "return":
                    results = _uses(scope, line[7:])
                    break
                case _:
                    nodes.append(self._node(scope, line))
        if self._next() != "end":
            raise ValueError("a function ends in `end`")
        static = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in head["static"])
        body = Region((*arguments, *(param.value for param in params)), tuple(nodes), results)
        return Function(name, head["block"], head["library"], static, tuple(params), body, location, head["doc"])

    def _region(self) -> Region:
        inner: dict[str, Value] = {}
        arguments: list[Value] = []
        nodes: list[Node] = []
        while True:
            line = self._next()
            match line.split(" ", 1)[0]:
                case "argument":
                    arguments.append(_define(inner, line[9:]))
                case "yield":
                    results = _uses(inner, line[5:].strip())
                    break
                case _:
                    nodes.append(self._node(inner, line))
        if self._next() != "end":
            raise ValueError("a region ends in `end`")
        return Region(tuple(arguments), tuple(nodes), results)

    def _node(self, scope: dict[str, Value], line: str) -> Node:
        line, location = _place(line)
        results_text, _, rest = line.partition(" = ")
        attributes: dict[str, Any] = {}
        path = ""
        if "{" in rest:
            rest, _, braces = rest.partition(" {")
            attributes, end = json.JSONDecoder().raw_decode("{" + braces)
            path = braces[end - 1 :].removeprefix(" ; ")
        elif " ; " in rest:
            rest, _, path = rest.partition(" ; ")
        name, _, operands = rest.partition(" ")
        inputs = _uses(scope, operands)
        arguments = {key: _rich(value) for key, value in attributes.items()}
        op_class = cast(Callable[..., Op], _OPS[name])
        if _OPS[name] is Repeat:
            arguments["body"] = self._region()
        outputs = _typed_list(results_text)
        for value in outputs:
            scope[value.name] = value
        return Node(op_class(**arguments), inputs, outputs, path, location)


def _place(line: str) -> tuple[str, Location]:
    found = _PLACE.search(line)
    if not found:
        return line, NOWHERE
    file, *numbers = found.groups()
    return line[: found.start()], Location(file, *map(int, numbers))


def _uses(scope: dict[str, Value], text: str) -> tuple[Value, ...]:
    return tuple(scope[name.removeprefix("%")] for name in text.split(", ")) if text else ()


def _define(scope: dict[str, Value], text: str) -> Value:
    (value,) = _typed_list(text)
    scope[value.name] = value
    return value


def _typed_list(text: str) -> tuple[Value, ...]:
    values: list[Value] = []
    while text:
        name = _VALUE.match(text)
        if not name:
            raise ValueError(f"not a typed value: {text}")
        type_, length = _type(text[name.end() :])
        values.append(Value(name[1], type_))
        text = text[name.end() + length :].removeprefix(", ")
    return tuple(values)


def _type(text: str) -> tuple[TensorType, int]:
    found = _TYPE.match(text)
    if not found or found[1] not in DTYPES:
        raise ValueError(f"not a type: {text}")
    dims = tuple(_dim(part) for part in found[2].split(", ")) if found[2] else ()
    indexes = _dim(found[3]) if found[3] else None
    return TensorType(dims, cast(DType, found[1]), indexes), found.end()


def _dim(text: str) -> Dim:
    name, _, size = text.partition("=")
    return Dim(name, parse_size(size or name))


def _param(scope: dict[str, Value], line: str) -> Param:
    line, location = _place(line)
    typed, _, rest = line.removeprefix("param ").partition(" ~ ")
    init, _, stacked = rest.partition(" stacked ")
    value = _define(scope, typed)
    return Param(value, Init(**json.loads(init)), location, int(stacked or 0))


def _rich(value: Any) -> Any:
    match value:
        case {"dim": text}:
            return _dim(text)
        case {"size": text}:
            return parse_size(text)
        case list():
            return tuple(_rich(item) for item in value)
        case _:
            return value
