"""What an ONNX file holds, as plain records, and their bytes.

A record is encoded as ONNX's schema (onnx.proto, version 1.17 and later) says, fields in ascending order, so that equal
records give equal bytes. Doing this here instead of with the `onnx` package saves its start-up, which takes longer than
making a model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from cgc.ir.types import DType

ElementType: TypeAlias = Literal["u8", "i8", "u4", "i4"] | DType
"""The dtypes of cgc, and those that only quantized weights are stored in."""

ELEMENT_TYPES: Mapping[ElementType, int] = MappingProxyType(
    {
        "f32": 1,
        "u8": 2,
        "i8": 3,
        "i32": 6,
        "i64": 7,
        "bool": 9,
        "f16": 10,
        "f64": 11,
        "bf16": 16,
        "u4": 21,
        "i4": 22,
    }
)
"""The numbers of the element types in `TensorProto.DataType`."""

EXTERNAL = 1
"""`TensorProto.DataLocation`: the data is in another file."""


@dataclass(frozen=True, slots=True)
class TensorData:
    """A tensor's entries, row-major and little-endian; without axes it is a scalar."""

    dtype: ElementType
    dims: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Initializer:
    """A tensor of a graph: either `data` in the file itself, or `size` bytes at `offset` of the file `location`."""

    name: str
    dtype: ElementType
    dims: tuple[int, ...]
    location: str = ""
    offset: int = 0
    size: int = 0
    data: bytes = b""


Attribute: TypeAlias = int | float | str | Sequence[int] | TensorData


@dataclass(slots=True)
class Node:
    """One application of an operator or function; an optional operand that is left out is called ""."""

    op: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """A tensor's type: (size or symbol, denotation) of each axis."""

    name: str
    dtype: ElementType
    dims: tuple[tuple[int | str, str], ...]


@dataclass(frozen=True, slots=True)
class FunctionDef:
    """A function: names of inputs and outputs, nodes, and the opsets (domain, version) they are of."""

    name: str
    domain: str
    doc: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: tuple[ValueInfo, ...]
    opsets: tuple[tuple[str, int], ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class GraphDef:
    """The main graph."""

    name: str
    doc: str
    nodes: list[Node] = field(default_factory=list)
    inputs: list[ValueInfo] = field(default_factory=list)
    outputs: list[ValueInfo] = field(default_factory=list)
    initializers: list[Initializer] = field(default_factory=list)
    values: list[ValueInfo] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelDef:
    """A whole file."""

    graph: GraphDef
    functions: tuple[FunctionDef, ...]
    opsets: tuple[tuple[str, int], ...]
    ir_version: int
    domain: str
    producer: str
    producer_version: str
    model_version: int
    doc: str
    metadata: Mapping[str, str]


# ---- the wire format: a key (field number and kind) before each value


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return b"".join((_varint(number << 3 | 2), _varint(len(value)), value))


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_text(number, value) for value in values)


def _if_any(number: int, value: str) -> bytes:
    return _text(number, value) if value else b""


def _pairs(number: int, pairs: Mapping[str, str]) -> bytes:
    return b"".join(_bytes(number, _text(1, key) + _text(2, pairs[key])) for key in sorted(pairs))


# ---- the messages


def encode(model: ModelDef) -> bytes:
    """Return the bytes of a model's file."""
    return b"".join(
        (
            _integer(1, model.ir_version),
            _text(2, model.producer),
            _text(3, model.producer_version),
            _text(4, model.domain),
            _integer(5, model.model_version),
            _if_any(6, model.doc),
            _bytes(7, _graph(model.graph)),
            _opsets(8, model.opsets),
            _pairs(14, model.metadata),
            *(_bytes(25, _function(function)) for function in model.functions),
        )
    )


def _opsets(number: int, opsets: Iterable[tuple[str, int]]) -> bytes:
    return b"".join(_bytes(number, _text(1, domain) + _integer(2, version)) for domain, version in opsets)


def _graph(graph: GraphDef) -> bytes:
    return b"".join(
        (
            *(_bytes(1, _node(node)) for node in graph.nodes),
            _text(2, graph.name),
            *(_bytes(5, _initializer(tensor)) for tensor in graph.initializers),
            _if_any(10, graph.doc),
            *(_bytes(11, _value(value)) for value in graph.inputs),
            *(_bytes(12, _value(value)) for value in graph.outputs),
            *(_bytes(13, _value(value)) for value in graph.values),
        )
    )


def _function(function: FunctionDef) -> bytes:
    return b"".join(
        (
            _text(1, function.name),
            _texts(4, function.inputs),
            _texts(5, function.outputs),
            *(_bytes(7, _node(node)) for node in function.nodes),
            _if_any(8, function.doc),
            _opsets(9, function.opsets),
            _text(10, function.domain),
            *(_bytes(12, _value(value)) for value in function.values),
            _pairs(14, function.metadata),
        )
    )


def _node(node: Node) -> bytes:
    return b"".join(
        (
            _texts(1, node.inputs),
            _texts(2, node.outputs),
            _text(3, node.name),
            _text(4, node.op),
            *(_bytes(5, _attribute(name, node.attributes[name])) for name in sorted(node.attributes)),
            _if_any(7, node.domain),
            _pairs(9, node.metadata),
        )
    )


def _attribute(name: str, value: Attribute) -> bytes:
    """Return an attribute; the type of `value` decides its kind."""
    match value:
        case int():
            content, kind = _integer(3, int(value)), 2
        case float():
            content, kind = _varint(2 << 3 | 5) + struct.pack("<f", value), 1
        case str():
            content, kind = _text(4, value), 3
        case TensorData():
            content, kind = _bytes(5, _data(value)), 4
        case _:
            content, kind = b"".join(_integer(8, item) for item in value), 7
    return _text(1, name) + content + _integer(20, kind)


def _data(tensor: TensorData) -> bytes:
    dims = b"".join(_integer(1, size) for size in tensor.dims)
    return dims + _integer(2, ELEMENT_TYPES[tensor.dtype]) + _bytes(9, tensor.data)


def _initializer(tensor: Initializer) -> bytes:
    dims = b"".join(_integer(1, size) for size in tensor.dims)
    head = dims + _integer(2, ELEMENT_TYPES[tensor.dtype]) + _text(8, tensor.name)
    if not tensor.location:
        return head + _bytes(9, tensor.data)
    place = (("location", tensor.location), ("offset", str(tensor.offset)), ("length", str(tensor.size)))
    entries = b"".join(_bytes(13, _text(1, key) + _text(2, value)) for key, value in place)
    return head + entries + _integer(14, EXTERNAL)


def _value(value: ValueInfo) -> bytes:
    shape = b"".join(_bytes(1, _dimension(size, denotation)) for size, denotation in value.dims)
    tensor = _integer(1, ELEMENT_TYPES[value.dtype]) + _bytes(2, shape)
    return _text(1, value.name) + _bytes(2, _bytes(1, tensor))


def _dimension(size: int | str, denotation: str) -> bytes:
    known = _integer(1, size) if isinstance(size, int) else _text(2, size)
    return known + _text(3, denotation)
