"""Sizes as Python: fields of the config, attributes of a module, and what is read off a tensor's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cgc.ir.dims import Dim, Size, SymbolicSize, symbol
from cgc.ir.graph import Graph, Region, Value
from cgc.ir.ops import Repeat
from cgc.ir.types import TensorType
from cgc_torch.expressions import ATOM, PRODUCT, SUM, Expr, number
from cgc_torch.names import Namespace, identifier

_LARGEST_FRACTION = 8
"""A size is written as a fraction of another (`head // 2`) up to this denominator; beyond it, as a number."""


class ConfigFields:
    """The named sizes of a model: the instance's own arguments, and every dimension that has one size throughout."""

    def __init__(self, graph: Graph, arguments: Mapping[str, object]) -> None:
        self._given = {k: v for k, v in arguments.items() if isinstance(v, int) and not isinstance(v, bool)}
        self._sizes = {**_dimension_sizes(graph), **self._given}
        self._used: dict[str, int] = {}

    def field(self, dim: Dim) -> str | None:
        """Return the field that holds the size of `dim`, None when no field does, and remember that it is used."""
        name = dim.name.rstrip("'")
        if not isinstance(dim.size, int) or self._sizes.get(name) != dim.size:
            return None
        self._used[name] = dim.size
        return identifier(name)

    def used(self) -> tuple[tuple[str, int], ...]:
        """Return the fields in use with their sizes: the instance's arguments as given, then the others."""
        given = [(identifier(name), size) for name, size in self._given.items() if name in self._used]
        return (*given, *((identifier(n), size) for n, size in self._used.items() if n not in self._given))


def _dimension_sizes(graph: Graph) -> dict[str, int]:
    sizes: dict[str, int] = {}
    ambiguous: set[str] = set()
    for dim in _dims(graph):
        name = dim.name.rstrip("'")
        if isinstance(dim.size, int) and sizes.setdefault(name, dim.size) != dim.size:
            ambiguous.add(name)
    return {name: size for name, size in sizes.items() if name not in ambiguous}


def _dims(graph: Graph) -> list[Dim]:
    found: list[Dim] = []
    regions: list[Region] = [graph.body, *(function.body for function in graph.functions)]
    while regions:
        region = regions.pop()
        values: list[Value] = list(region.arguments)
        for node in region.nodes:
            values += node.outputs
            if isinstance(node.op, Repeat):
                regions.append(node.op.body)
                found.append(node.op.stack)
        found += [dim for value in values for dim in value.type.dims]
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a size is read: axis `axis` of the variable `variable`, divided by `divisor`."""

    variable: str
    axis: int
    divisor: int


class Sizes:
    """The sizes that one function or module reads, gathered while its code is written.

    In a module (`fields` given) fixed sizes are attributes set from the config; in a plain function they are read off
    the arguments' shapes. Free sizes always are, but those that `given` has expressions for. `device` is where a module
    without tensor arguments stands.
    """

    def __init__(
        self,
        arguments: Sequence[tuple[str, TensorType]],
        local: Namespace,
        fields: ConfigFields | None = None,
        attributes: Namespace | None = None,
        device: str = "",
        given: Mapping[str, str] | None = None,
    ) -> None:
        self._given = given or {}
        self._arguments = arguments
        self._local = local
        self._fields = fields
        self._device = device
        self._attribute_names = attributes or Namespace()
        self.attributes: dict[str, str] = {}
        self._variables: dict[str, str] = {}
        self._sources: dict[str, _Source] = {}
        self._quotients: dict[str, str] = {}
        self._parts: dict[int, str] = {}
        self.extras: dict[str, str] = {}

    def dim(self, dim: Dim) -> Expr:
        """Return the size of `dim` as an expression."""
        if not isinstance(dim.size, int):
            return self.size(dim.size)
        if self._fields is not None:
            name = self._fields.field(dim)
            if name is None or dim.size <= 1:
                return number(dim.size)
            if name not in self.attributes:
                self.attributes[name] = self._attribute_names.fresh(name)
            return Expr(f"self.{self.attributes[name]}", number=True)
        return self._fixed(dim)

    def size(self, size: Size) -> Expr:
        """Return a size as an expression: a number, or a polynomial in the free sizes."""
        if isinstance(size, int):
            return number(size)
        terms = [_product(self, monomial, coefficient) for monomial, coefficient in size.terms]
        text = " + ".join(term.at(SUM) for term in terms).replace("+ -", "- ")
        return Expr(text, SUM if len(terms) > 1 else terms[0].level, number=True)

    def offset(self, size: Size) -> Expr:
        """Return where a slice starts: the part that came before it by name, where there is one of that size."""
        if isinstance(size, int) and size in self._parts:
            return Expr(self._parts[size], number=True)
        return self.size(size)

    def symbol(self, name: str) -> Expr:
        """Return the variable that holds the free size `name`; one the caller has to pass where no argument has it."""
        if name in self._given:
            return Expr(self._given[name], number=True)
        if name not in self._variables:
            source = self._find(name)
            variable = self._local.fresh(identifier(name))
            self._variables[name] = variable
            if source:
                self._sources[variable] = source
            else:
                self.extras[name] = variable
        return Expr(self._variables[name], number=True)

    def device(self) -> str:
        """Return the device to create tensors on; one the caller has to pass where there is no tensor argument."""
        if self._arguments:
            return f"{self._arguments[0][0]}.device"
        if self._device:
            return self._device
        if "device" not in self.extras:
            self.extras["device"] = self._local.fresh("device")
        return self.extras["device"]

    def asked(self) -> tuple[tuple[str, str], ...]:
        """Return what the caller has to pass beside the arguments, and the variables that hold it; the device last."""
        return tuple(sorted(self.extras.items(), key=lambda item: item[0] == "device"))

    def prologue(self) -> list[str]:
        """Return the statements that read the sizes off the arguments' shapes."""
        lines: list[str] = []
        for argument, type in self._arguments:
            found = {s.axis: v for v, s in self._sources.items() if s.variable == argument and s.divisor == 1}
            rest = {v: s for v, s in self._sources.items() if s.variable == argument and s.divisor != 1}
            if len(found) > 1:
                names = [found.get(axis, "_") for axis in range(len(type.dims))]
                lines.append(f"{', '.join(names)} = {argument}.shape")
            else:
                lines += [f"{name} = {argument}.shape[{_from_end(axis, type)}]" for axis, name in found.items()]
            lines += [f"{v} = {s.variable}.shape[{_from_end(s.axis, type)}] // {s.divisor}" for v, s in rest.items()]
        return lines + [f"{variable} = {text}" for variable, text in self._quotients.items()]

    def _find(self, name: str) -> _Source | None:
        wanted = symbol(name)
        for variable, type in self._arguments:
            for axis, dim in enumerate(type.dims):
                if dim.size == wanted:
                    return _Source(variable, axis, 1)
        for variable, type in self._arguments:
            for axis, dim in enumerate(type.dims):
                match dim.size:
                    case SymbolicSize(terms=((((only, 1),), Fraction(denominator=1) as factor),)) if only == name:
                        return _Source(variable, axis, int(factor))
                    case _:
                        pass
        return None

    def _fixed(self, dim: Dim) -> Expr:
        """Return a fixed size in a plain function: off a shape, as a part of one, or as it is."""
        if not isinstance(dim.size, int) or dim.size <= 1:
            return self.size(dim.size)
        if dim.name in self._variables:
            return Expr(self._variables[dim.name], number=True)
        whole = self._whole(dim.name, dim.size)
        if whole is None:
            return number(dim.size)
        variable, axis, found = whole
        source = _Source(variable, axis, 1)
        if found.size == dim.size:
            known = [name for name, other in self._sources.items() if other == source]
            return Expr(known[0] if known else self._read(dim.name, source), number=True)
        text = f"{self._fixed(found).text} // {_ratio(found, dim.size)}"
        self._variables[dim.name] = self._local.fresh(identifier(dim.name))
        self._quotients[self._variables[dim.name]] = text
        self._parts.setdefault(dim.size, self._variables[dim.name])
        return Expr(self._variables[dim.name], number=True)

    def _read(self, name: str, source: _Source) -> str:
        self._variables[name] = self._local.fresh(identifier(name))
        self._sources[self._variables[name]] = source
        return self._variables[name]

    def _whole(self, name: str, size: int) -> tuple[str, int, Dim] | None:
        """Return the argument's dimension to read `size` off: the same name, else the same size, else a multiple."""
        dims = [(v, axis, dim) for v, type in self._arguments for axis, dim in enumerate(type.dims)]
        for entry in dims:
            if entry[2].name == name and entry[2].size == size:
                return entry
        for entry in dims:
            if 1 < _ratio(entry[2], size) <= _LARGEST_FRACTION:
                return entry
        return None


def _ratio(whole: Dim, part: int) -> int:
    return whole.size // part if isinstance(whole.size, int) and whole.size % part == 0 else 0


def _from_end(axis: int, type: TensorType) -> int:
    return -1 if axis == len(type.dims) - 1 and axis > 0 else axis


def _product(sizes: Sizes, monomial: Sequence[tuple[str, int]], coefficient: Fraction) -> Expr:
    above = [sizes.symbol(name).text for name, exponent in monomial for _ in range(exponent)]
    below = [sizes.symbol(name).text for name, exponent in monomial for _ in range(-exponent)]
    if coefficient.numerator != 1 or not above:
        above.insert(0, str(coefficient.numerator))
    if coefficient.denominator != 1:
        below.append(str(coefficient.denominator))
    text = " * ".join(above) + "".join(f" // {factor}" for factor in below)
    return Expr(text, PRODUCT if len(above) + len(below) > 1 else ATOM, number=True)
