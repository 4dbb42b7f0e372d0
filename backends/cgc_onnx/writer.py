"""The nodes of one ONNX graph or function as they are written, with fresh names and constants written once."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cgc.ir.builder import Names
from cgc.ir.dims import Dim, Size, substitute
from cgc.ir.types import DType, TensorType
from cgc_onnx.capabilities import Profile
from cgc_onnx.proto import Attribute, ElementType, Node, TensorData, ValueInfo

DOMAIN = "cgc"
"""The domain of the functions made from blocks."""

_FORMATS: Mapping[ElementType, str] = MappingProxyType(
    {"f64": "<d", "f32": "<f", "f16": "<e", "i64": "<q", "i32": "<i", "bool": "?"}
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An ONNX tensor. `dims` are in the order of its axes, which may be another than the order of the graph's value:
    axes are only moved where somebody needs them in a certain place.
    """

    name: str
    dims: tuple[Dim, ...]
    dtype: DType

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the dimensions, in order."""
        return tuple(dim.name for dim in self.dims)

    @property
    def type(self) -> TensorType:
        """The type, axes in order."""
        return TensorType(self.dims, self.dtype)

    def axis(self, name: str) -> int:
        """Return the axis of the dimension called `name` (ValueError when there is none)."""
        return self.names.index(name)

    def renamed(self, new: dict[str, str]) -> Tensor:
        """Return the same tensor with dimensions called otherwise."""
        return replace(self, dims=tuple(Dim(new.get(dim.name, dim.name), dim.size) for dim in self.dims))


def scalar(value: float | int | bool, dtype: DType) -> TensorData:
    """Return a rank-0 tensor of `value`; what is beyond a floating-point type's range becomes infinite in it."""
    if dtype == "bf16":
        # The upper half of the float32, rounded to nearest even.
        bits = int.from_bytes(_packed("<f", value), "little")
        return TensorData(dtype, (), int((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF).to_bytes(2, "little"))
    return TensorData(dtype, (), _packed(_FORMATS[dtype], value))


def _packed(form: str, value: float | int | bool) -> bytes:
    try:
        return struct.pack(form, value)
    except OverflowError:
        return struct.pack(form, math.copysign(math.inf, value))


def integers(values: Sequence[int]) -> TensorData:
    """Return an int64 vector."""
    return TensorData("i64", (len(values),), struct.pack(f"<{len(values)}q", *values))


class Writer:
    """Collects the nodes of one ONNX graph or function; every name is used once in it."""

    def __init__(self, profile: Profile, reserved: Iterable[str] = ()) -> None:
        """Start empty; names in `reserved` are given to nothing that is written."""
        self.profile = profile
        self.nodes: list[Node] = []
        self.values: list[Tensor] = []
        self.source = ""
        self._names = Names()
        self._node_names = Names()
        self._constants: dict[tuple[str, str], str] = {}
        self._produced: set[str] = set()
        for name in reserved:
            self.fresh(name)

    def fresh(self, wish: str) -> str:
        """Return `wish`, or something near it that is still free, and take it."""
        return self._names.fresh(wish or "value")

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        wishes: str | Sequence[str],
        *,
        domain: str = "",
        name: str = "",
        attributes: Mapping[str, Attribute] = MappingProxyType({}),
    ) -> list[str]:
        """Append a node and return the names of its outputs, one for each of `wishes`; an empty one leaves one out."""
        outputs = [self.fresh(wishes)] if isinstance(wishes, str) else [wish and self.fresh(wish) for wish in wishes]
        metadata = {"source": self.source} if self.source else {}
        label = self._node_names.fresh(name or outputs[0])
        node = Node(op, domain, label, list(inputs), list(outputs), attributes, metadata)
        self.nodes.append(node)
        self._produced.update(name for name in outputs if name)
        return outputs

    def one(self, op: str, inputs: Sequence[str], wish: str, **attributes: Attribute) -> str:
        """Append a node of the standard domain with one output and return its name."""
        return self.emit(op, inputs, wish, attributes=attributes)[0]

    def named(self, op: str, inputs: Sequence[str], name: str, **attributes: Attribute) -> None:
        """Append a node of the standard domain whose output is called `name`, which was taken before."""
        metadata = {"source": self.source} if self.source else {}
        label = self._node_names.fresh(name)
        self.nodes.append(Node(op, "", label, list(inputs), [name], attributes, metadata))
        self._produced.add(name)

    def tensor(self, op: str, inputs: Sequence[str], like: Tensor, wish: str, **attributes: Attribute) -> Tensor:
        """Append a node whose output has the dimensions and dtype of `like`."""
        return self.note(replace(like, name=self.one(op, inputs, wish, **attributes)))

    def note(self, tensor: Tensor) -> Tensor:
        """Remember a tensor's type for the file, and return it."""
        self.values.append(tensor)
        return tensor

    def scalar(self, value: float | int | bool, dtype: DType) -> Tensor:
        """Return a rank-0 constant, written once."""
        key = (dtype, repr(value))
        if key not in self._constants:
            self._constants[key] = self._constant(scalar(value, dtype), f"{dtype}.{value}")
        return Tensor(self._constants[key], (), dtype)

    def integers(self, *values: int) -> str:
        """Return the name of a constant int64 vector, written once."""
        key = ("shape", repr(values))
        if key not in self._constants:
            text = ".".join(map(str, values))
            self._constants[key] = self._constant(integers(values), f"i64.[{text}]")
        return self._constants[key]

    def _constant(self, value: TensorData, wish: str) -> str:
        source, self.source = self.source, ""
        name = self.one("Constant", (), wish, value=value)
        self.source = source
        return name

    def finish(self, results: Sequence[tuple[str, str]]) -> list[str]:
        """Return the names of the graph's or function's outputs, each the output of a node of its own.

        `results` are tensors with the names they must have ("" where any will do), which were `reserved`.
        """
        outputs: list[str] = []
        renamed: dict[str, str] = {}
        for name, wanted in results:
            if name in self._produced and name not in outputs and name not in renamed:
                renamed[name] = wanted or name
                outputs.append(renamed[name])
                continue
            copy = self.one("Identity", (renamed.get(name, name),), f"{name}.copy")
            renamed[copy] = wanted or copy
            outputs.append(renamed[copy])
        self._rename({old: new for old, new in renamed.items() if old != new})
        self.drop_unused(outputs)
        return outputs

    def drop_unused(self, outputs: Sequence[str]) -> None:
        """Drop nodes that nothing reads: runtimes run them all the same."""
        read = set(outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if read.intersection(node.outputs):
                kept.append(node)
                read.update(name for name in node.inputs if name)
        self.nodes = kept[::-1]
        self.values = [tensor for tensor in self.values if tensor.name in read]

    def _rename(self, new: dict[str, str]) -> None:
        if not new:
            return
        for node in self.nodes:
            for names in (node.inputs, node.outputs):
                for index, name in enumerate(names):
                    if name in new:
                        names[index] = new[name]
        self.values = [replace(tensor, name=new.get(tensor.name, tensor.name)) for tensor in self.values]


def value_infos(tensors: Iterable[Tensor], bound: Mapping[str, Size]) -> tuple[ValueInfo, ...]:
    """Return the types of tensors for the file, each name once."""
    return tuple(value_info(tensor, bound) for tensor in {tensor.name: tensor for tensor in tensors}.values())


def value_info(tensor: Tensor, bound: Mapping[str, Size]) -> ValueInfo:
    """Return a tensor's type for the file: sizes where known, symbols by name, each axis denoted by its dimension.

    `bound` gives symbols the sizes that the user fixed, or the names that the file has for them.
    """
    sizes = (substitute(dim.size, bound) for dim in tensor.dims)
    dims = (
        (size if isinstance(size, int) else str(size), dim.name) for size, dim in zip(sizes, tensor.dims, strict=True)
    )
    return ValueInfo(tensor.name, tensor.dtype, tuple(dims))
