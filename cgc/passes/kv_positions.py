"""What positions are used for, and what a cached value is to attention: facts that `kv_cache` decides by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from cgc.ir.dims import symbol
from cgc.ir.graph import Function, Node, Region, Value
from cgc.ir.ops import Binary, Call, Cast, Constant, Dot, Position, Repeat, Unary, Where

Role: TypeAlias = Literal["key", "value", ""]
"""What attention does with a cached value: keys are compared with queries, values are summed over their keys."""

HIDDEN = -1e4
"""A score that is set to this or less is one that does not count."""


def pure_values(region: Region) -> dict[str, frozenset[str]]:
    """Return the values of `region` that are made of positions and constants only, with the positions in each."""
    pure: dict[str, frozenset[str]] = {}
    for node in region.nodes:
        match node.op:
            case Position():
                pure[node.output.name] = frozenset({node.output.name})
            case Constant():
                pure[node.output.name] = frozenset()
            case Unary() | Binary() | Cast() | Where() if all(value.name in pure for value in node.inputs):
                pure[node.output.name] = frozenset().union(*(pure[value.name] for value in node.inputs))
            case _:
                pass
    return pure


def places(region: Region, tokens: str) -> frozenset[str]:
    """Return the positions that are only compared with one another: something pure has both tokens and keys.

    They can be counted from wherever the batch starts. All others are positions in a token's own sequence.
    """
    pure = pure_values(region)
    found: set[str] = set()
    for node in region.nodes:
        for value in node.outputs:
            if value.name in pure and value.type.has(tokens) and key_dims(value, tokens):
                found |= pure[value.name]
    return frozenset(found)


def key_dims(value: Value, tokens: str) -> list[str]:
    """Return the dimensions of `value` that tokens were renamed to."""
    return [dim.name for dim in value.type.dims if dim.size == symbol(tokens) and dim.name != tokens]


def hidden_branch(node: Node, constants: Mapping[str, float]) -> int | None:
    """Return which operand of a `where` hides scores (1 where the condition holds, 2 where not); None for neither."""
    for place in (1, 2):
        if constants.get(node.inputs[place].name, 0.0) <= HIDDEN:
            return place
    return None


def constants_of(region: Region) -> dict[str, float]:
    """Return the values of `region` that are constants."""
    return {node.output.name: float(node.op.value) for node in region.nodes if isinstance(node.op, Constant)}


def role(region: Region, name: str, key: str, functions: Mapping[str, Function]) -> Role:
    """Return what the value called `name`, whose tokens are on the axis `key`, is to attention."""
    following = {name}
    for node in region.nodes:
        used = [place for place, value in enumerate(node.inputs) if value.name in following]
        if not used:
            continue
        match node.op:
            case Dot(over):
                return "value" if key in over else "key"
            case Call(function):
                body = functions[function].body
                found = role(body, body.arguments[used[0]].name, key, functions)
            case Repeat(body=body):
                found = role(body, body.arguments[used[0]].name, key, functions)
            case _:
                found = ""
        if found:
            return found
        following |= {value.name for value in node.outputs if value.type.has(key)}
    return ""
