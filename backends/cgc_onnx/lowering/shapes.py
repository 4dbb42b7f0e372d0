"""Sizes at run time, and the moves of axes that leave a tensor's entries alone; a move that does nothing is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import lcm
from types import MappingProxyType
from typing import TYPE_CHECKING

from cgc.ir.dims import Dim, Size, product, substitute, symbol
from cgc.passes.kv_cache import MASK, PAST
from cgc.target import TargetError
from cgc_onnx.writer import Tensor, Writer

if TYPE_CHECKING:
    from cgc_onnx.lowering.scope import Shared


class Shapes:
    """Axes and sizes in one ONNX graph or function.

    A size (`seq`, `past+seq`) is read off the shape of the first tensor in `arguments` that has an axis of it, or made
    of its symbols. A symbol that no axis has is one more input of a function, an int64 vector of one entry listed in
    `missing`; so is what is made once for all, in `shared`.
    """

    def __init__(
        self,
        writer: Writer,
        arguments: Sequence[Tensor],
        bound: Mapping[str, int],
        top: bool,
        limits: Mapping[str, Dim | None] = MappingProxyType({}),
    ) -> None:
        """Start with the symbols of `bound` fixed, and others at most `limits`; `top` is the model's own graph, which
        takes no more inputs.
        """
        self.limits = limits
        self.writer = writer
        self.bound = dict(bound)
        self.missing: dict[str, str] = {}
        self.shared: dict[str, tuple[Shared, Tensor]] = {}
        self.top = top
        self._arguments = tuple(arguments)
        self._origins: dict[str, Tensor] = {}
        self._vectors: dict[Size, str] = {}
        self._scalars: dict[Size, str] = {}
        self._unsqueezed: dict[tuple[str, tuple[int, ...]], str] = {}
        self._transposed: dict[tuple[str, tuple[int, ...]], str] = {}

    def argument(self, name: str) -> Tensor:
        """Return the input called `name` of the model (KeyError where there is none)."""
        for tensor in self._arguments:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def fixed(self, size: Size) -> Size:
        """Return `size` with the bound symbols in it replaced."""
        return substitute(size, self.bound)

    def vector(self, size: Size) -> str:
        """Return the name of `size` as an int64 vector of one entry."""
        size = self.fixed(size)
        if isinstance(size, int):
            return self.writer.integers(size)
        if size not in self._vectors:
            names = size.symbols()
            alone = len(names) == 1 and size == symbol(min(names))
            self._vectors[size] = self._symbol(min(names)) if alone else self._read(size) or self._polynomial(size)
        return self._vectors[size]

    def scalar(self, size: Size) -> str:
        """Return the name of `size` as an int64 scalar."""
        size = self.fixed(size)
        if isinstance(size, int):
            return self.writer.scalar(size, "i64").name
        if size not in self._scalars:
            vector = self.vector(size)
            self._scalars[size] = self.writer.one("Squeeze", (vector,), f"{size}.scalar")
        return self._scalars[size]

    def sizes(self, dims: Sequence[Dim]) -> str:
        """Return the name of an int64 vector of the sizes of `dims`."""
        return self._joined([self.fixed(dim.size) for dim in dims])

    def _symbol(self, name: str) -> str:
        if name == PAST and self.writer.profile.runtime == "ort":
            return self._past()
        if read := self._read(symbol(name)):
            return read
        if self.top:
            text = f"no input of the model has an axis whose size is `{name}`"
            raise TargetError("CG0802", text, f"fix it by `--{name}`, or give the model an input with it")
        self.missing[name] = self.writer.fresh(f"{name}.size")
        return self.missing[name]

    def _read(self, size: Size) -> str | None:
        """Return a size off the first axis that has it."""
        for tensor in self._arguments:
            for axis, dim in enumerate(tensor.dims):
                if self.fixed(dim.size) == size:
                    return self.writer.one("Shape", (tensor.name,), f"{size}.size", start=axis, end=axis + 1)
        return None

    def _past(self) -> str:
        """Return the number of earlier tokens by the mask: a cache may be a longer buffer that grows in place."""
        if not self.top:
            self.missing[PAST] = self.writer.fresh(f"{PAST}.size")
            return self.missing[PAST]
        mask = self.argument(MASK)
        total = self.fixed(mask.dims[1].size)
        if total not in self._vectors:
            self._vectors[total] = self.writer.one("Shape", (mask.name,), f"{total}.size", start=1, end=2)
        return self.writer.one("Sub", (self._vectors[total], self.vector(symbol("seq"))), f"{PAST}.size")

    def _polynomial(self, size: Size) -> str:
        """Σ cᵢ·mᵢ as (Σ (d·cᵢ)·(m·mᵢ)) / (d·m), whose factors are all integers."""
        assert not isinstance(size, int)
        scale = lcm(*(coefficient.denominator for _, coefficient in size.terms))
        below = dict.fromkeys(sorted(size.symbols()), 0)
        for monomial, _ in size.terms:
            for name, exponent in monomial:
                below[name] = max(below[name], -exponent)
        terms = []
        for monomial, coefficient in size.terms:
            powers = dict(below)
            for name, exponent in monomial:
                powers[name] += exponent
            terms.append(self._product(int(coefficient * scale), powers))
        total = terms[0]
        for term in terms[1:]:
            total = self.writer.one("Add", (total, term), f"{size}.sum")
        if scale == 1 and not any(below.values()):
            return total
        return self.writer.one("Div", (total, self._product(scale, below)), f"{size}.size")

    def _product(self, factor: int, powers: Mapping[str, int]) -> str:
        factors = [self.vector(symbol(name)) for name, power in powers.items() for _ in range(power)]
        if factor != 1 or not factors:
            factors.append(self.writer.integers(factor))
        total = factors[0]
        for name in factors[1:]:
            total = self.writer.one("Mul", (total, name), "size.product")
        return total

    def reshape(self, x: Tensor, dims: Sequence[Dim], wish: str) -> Tensor:
        """Return `x` with its entries, in order, laid out as `dims`; where it was laid out before, from how it was."""
        x = self._origins.get(x.name, x)
        old = [self.fixed(dim.size) for dim in x.dims]
        new = [self.fixed(dim.size) for dim in dims]
        if old == new:
            return replace(x, dims=tuple(dims))
        name = self.writer.one("Reshape", (x.name, self._shape(old, new)), wish)
        self._origins[name] = x
        return self.writer.note(Tensor(name, tuple(dims), x.dtype))

    def before_reshape(self, x: Tensor) -> Tensor:
        """Return the tensor that `x` was laid out from, `x` itself where it was not."""
        return self._origins.get(x.name, x)

    def after_reshape(self, x: Tensor, outputs: Sequence[str]) -> Tensor:
        """Return what the one node that reads the argument `x` lays it out as, and drop that node; `x` itself where
        anything else reads it, or what it becomes is one of `outputs`.
        """
        readers = [node for node in self.writer.nodes if x.name in node.inputs]
        if len(readers) != 1 or readers[0].op != "Reshape" or readers[0].outputs[0] in outputs:
            return x
        (found,) = (tensor for tensor in self.writer.values if tensor.name == readers[0].outputs[0])
        self.writer.nodes.remove(readers[0])
        return found

    def _shape(self, old: Sequence[Size], new: Sequence[Size]) -> str:
        # In ONNX a 0 keeps the size at the same place, and one -1 takes what is left: mostly no size is computed.
        entries: list[int | None] = []
        for axis, size in enumerate(new):
            kept = axis < len(old) and old[axis] == size
            entries.append(size if isinstance(size, int) else 0 if kept else None)
        if None in entries:
            entries[entries.index(None)] = -1
        return self._joined([size if entry is None else entry for entry, size in zip(entries, new, strict=True)])

    def _joined(self, sizes: Sequence[Size]) -> str:
        """Return the name of an int64 vector; runs of sizes that are known are one constant."""
        parts: list[str] = []
        run: list[int] = []
        for size in sizes:
            if isinstance(size, int):
                run.append(size)
                continue
            if run:
                parts.append(self.writer.integers(*run))
            parts.append(self.vector(size))
            run = []
        if run or not parts:
            parts.append(self.writer.integers(*run))
        return parts[0] if len(parts) == 1 else self.writer.one("Concat", parts, "shape", axis=0)

    def transpose(self, x: Tensor, order: Sequence[str]) -> Tensor:
        """Return `x` with its axes in `order`."""
        if tuple(order) == x.names:
            return x
        axes = tuple(x.axis(name) for name in order)
        if (x.name, axes) not in self._transposed:
            self._transposed[x.name, axes] = self.writer.one(
                "Transpose", (x.name,), f"{x.name}.transposed", perm=list(axes)
            )
        dims = tuple(x.dims[axis] for axis in axes)
        return self.writer.note(Tensor(self._transposed[x.name, axes], dims, x.dtype))

    def align(self, x: Tensor, dims: Sequence[Dim]) -> str:
        """Return the name of `x` with axes that broadcast against `dims`; missing axes in front need none."""
        x = self.transpose(x, [dim.name for dim in dims if dim.name in x.names])
        present = [dim.name in x.names for dim in dims]
        if True not in present:
            return x.name
        first = present.index(True)
        gaps = tuple(axis - first for axis, here in enumerate(present) if axis > first and not here)
        return self.unsqueeze(x.name, gaps)

    def unsqueeze(self, name: str, axes: tuple[int, ...]) -> str:
        """Return the name of tensor `name` with axes of size 1 put in where the result will have `axes`."""
        if not axes:
            return name
        if (name, axes) not in self._unsqueezed:
            self._unsqueezed[name, axes] = self.writer.one(
                "Unsqueeze", (name, self.writer.integers(*axes)), f"{name}.unsqueezed"
            )
        return self._unsqueezed[name, axes]

    def merge(self, x: Tensor, groups: Sequence[Sequence[str]], names: Sequence[str], wish: str) -> Tensor:
        """Return `x` with the dimensions of each of `groups` merged into one axis, called by `names`."""
        x = self.transpose(x, [name for group in groups for name in group])
        by_name = {dim.name: dim for dim in x.dims}
        dims = []
        for group, name in zip(groups, names, strict=True):
            whole = product(tuple(by_name[member].size for member in group))
            dims.append(by_name[group[0]] if len(group) == 1 else Dim(name, whole))
        return self.reshape(x, dims, wish)
