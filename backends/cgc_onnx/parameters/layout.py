"""In which shape a parameter is stored: decided by its uses, so that nothing is sliced or reshaped at run time.

A parameter stacked over the layers of a `repeat` becomes one tensor a layer; one that is only ever the weight of a
contraction becomes the matrix that MatMul wants: `w[width, heads, head]` is stored as [width, heads·head].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product as cartesian
from typing import TypeAlias

from cgc.ir.dims import Dim, evaluate, product
from cgc.ir.graph import Node, Region, Value
from cgc.ir.ops import Binary, Call, Dot, Gather, Op, Repeat
from cgc.ir.types import DType, TensorType
from cgc.target import TargetError

ROWS = "rows"
"""The ending of a tensor that is a packed matrix once more, for lookups: the same bytes without an axis of blocks."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a parameter is stored.

    `loops` are the leading stacking dimensions that become separate tensors; each entry says after how many parts of
    the parameter's path the index stands (`h.attention.q.w` with 1 is `h.3.attention.q.w`). `groups` are the numbers
    of neighbouring dimensions merged into each stored axis. A matrix that is `packed` is stored as integers; these are
    the endings of the tensors beside it that say how it is unpacked, in the order in which operators take them, and
    `ROWS` where rows of it are looked up.
    """

    loops: tuple[int, ...]
    groups: tuple[int, ...]
    packed: tuple[str, ...] = ()

    @property
    def multiplied(self) -> Layout:
        """The same without what only lookups need."""
        return replace(self, packed=tuple(ending for ending in self.packed if ending != ROWS))


@dataclass(frozen=True, slots=True)
class WeightUse:
    """The contraction of operand `index`, whose dimensions are `first` + `second`, of which one group is reduced.

    `transposed`: the reduced dimensions come last.
    """

    index: int
    groups: tuple[int, ...]
    transposed: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as a graph or function sees it: `names` are the ONNX tensors, one a combination of loop indices in
    row-major order, each holding `dims` in the shape that `layout` says. `path` is its name there, without indices.
    """

    path: str
    names: tuple[str, ...]
    loops: tuple[Dim, ...]
    dims: tuple[Dim, ...]
    dtype: DType
    layout: Layout
    beside: tuple[tuple[str, ...], ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """All ONNX tensors of it, in the order in which functions take them."""
        return (*self.names, *(name for names in self.beside for name in names))

    @property
    def stored(self) -> tuple[Dim, ...]:
        """The axes of each stored tensor."""
        return stored_dims(self.dims, self.layout)


LayoutLookup: TypeAlias = Callable[[str], tuple[Layout, ...]]
"""Name of a function → the layouts of its parameters, in order."""


def natural(type: TensorType) -> Layout:
    """Return the layout that stores a parameter as its type says."""
    return Layout((), (1,) * len(type.dims))


def stored_dims(dims: tuple[Dim, ...], layout: Layout) -> tuple[Dim, ...]:
    """Return the axes of one stored tensor of `dims`; a merged axis is called `heads*head`."""
    axes: list[Dim] = []
    start = 0
    for count in layout.groups:
        group = dims[start : start + count]
        axes.append(Dim("*".join(dim.name for dim in group), product(tuple(dim.size for dim in group))))
        start += count
    return tuple(axes)


def weight_use(op: Dot, inputs: tuple[TensorType, TensorType], is_param: tuple[bool, bool]) -> WeightUse | None:
    """Tell which operand of a contraction is a plain weight: a parameter that shares no other dimension with the
    other operand, and whose reduced dimensions stand together at one end.
    """
    for index in (1, 0):
        w, x = inputs[index], inputs[1 - index]
        over = [name in op.over for name in w.names]
        shared = any(x.has(name) for name in w.names if name not in op.over)
        if not is_param[index] or shared or not op.over:
            continue
        count, rest = len(op.over), len(w.dims) - len(op.over)
        if all(over[:count]):
            return WeightUse(index, (count, rest) if rest else (count,), False)
        if all(over[rest:]):
            return WeightUse(index, (rest, count), True)
    return None


PackedLookup: TypeAlias = Callable[[TensorType, Dot | Gather], tuple[str, ...]]
"""Tells what lies beside a weight of this type, contracted or looked up like that: () where it is not packed."""


def never_packed(_: TensorType, __: Dot | Gather) -> tuple[str, ...]:
    """Pack nothing."""
    return ()


def layouts(
    region: Region, params: Iterable[Value], callee: LayoutLookup, packed: PackedLookup = never_packed
) -> dict[str, Layout]:
    """Return the layout of each of `params`, arguments of `region`: what all its uses agree on, else its type's own.

    Rows of a packed matrix can be looked up as well as those of its type's own layout.
    """
    wanted: dict[str, set[Layout]] = {value.name: set() for value in params}
    looked_up: set[str] = set()
    results: set[tuple[str, tuple[str, ...]]] = set()
    for node in region.nodes:
        demands = _demands(node.op, node.inputs, wanted, callee, packed)
        if isinstance(node.op, Dot):
            results |= {(node.output.name, produced) for produced in _produced(node, wanted)}
        if isinstance(node.op, Binary):
            demands = _added(node.inputs, wanted, results)
        for value, demand in zip(node.inputs, demands, strict=True):
            if value.name not in wanted:
                continue
            if value is node.inputs[0] and isinstance(node.op, Gather) and _looks_up_rows(node, node.op, packed):
                looked_up.add(value.name)
            else:
                wanted[value.name].add(demand)
    for value in region.results:
        if value.name in wanted:
            wanted[value.name].add(natural(value.type))
    types = {value.name: value.type for value in region.arguments}
    return {name: _agreed(demands, types[name], name in looked_up) for name, demands in wanted.items()}


def _looks_up_rows(node: Node, op: Gather, packed: PackedLookup) -> bool:
    """Tell whether entries of the first dimension are taken whole, and could be out of a packed matrix."""
    table, index = (value.type for value in node.inputs)
    return op.dim == table.names[0] and not any(index.has(name) for name in table.names) and packed(table, op) != ()


def _produced(node: Node, params: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """Yield the dimensions that a weight gives its product, which has them as one axis."""
    assert isinstance(node.op, Dot)
    a, b = node.inputs
    use = weight_use(node.op, (a.type, b.type), (a.name in params, b.name in params))
    if use:
        yield tuple(name for name in node.inputs[use.index].type.names if name not in node.op.over)


def _added(
    inputs: tuple[Value, ...], params: Mapping[str, object], products: set[tuple[str, tuple[str, ...]]]
) -> list[Layout]:
    """Return the layouts of the operands of arithmetic: what is shaped as a weight's product is one axis, like it."""
    demands = [natural(value.type) for value in inputs]
    for index, value in enumerate(inputs):
        if value.name in params and (inputs[1 - index].name, value.type.names) in products:
            demands[index] = Layout((), (len(value.type.dims),))
    return demands


def _agreed(demands: set[Layout], type: TensorType, looked_up: bool) -> Layout:
    multiplied = {layout.multiplied for layout in demands}
    if len(multiplied) != 1:
        return natural(type)
    (layout,) = multiplied
    if looked_up and (not layout.packed or replace(layout, packed=()) != Layout((), (1, len(type.dims) - 1))):
        return natural(type)
    rows = looked_up or any(ROWS in demand.packed for demand in demands)
    return replace(layout, packed=(*layout.packed, ROWS)) if rows else layout


def _demands(
    op: Op, inputs: tuple[Value, ...], params: Mapping[str, object], callee: LayoutLookup, packed: PackedLookup
) -> list[Layout]:
    demands = [natural(value.type) for value in inputs]
    match op:
        case Dot():
            a, b = inputs
            use = weight_use(op, (a.type, b.type), (a.name in params, b.name in params))
            if use:
                whole = len(use.groups) == 2 and use.transposed
                demands[use.index] = Layout((), use.groups, packed(inputs[use.index].type, op) if whole else ())
        case Call():
            depth = len(op.instance.split(".")) if op.instance else 0
            for index, layout in enumerate(callee(op.function), start=op.args):
                demands[index] = replace(layout, loops=tuple(depth + place for place in layout.loops))
        case Repeat():
            depth = len(op.instance.split(".")) if op.instance else 0
            for index, layout in enumerate(repeat_layouts(op, callee, packed), start=op.carried + op.shared):
                demands[index] = replace(layout, loops=(depth, *(depth + place for place in layout.loops)))
        case _:
            pass
    return demands


def repeat_layouts(op: Repeat, callee: LayoutLookup, packed: PackedLookup = never_packed) -> tuple[Layout, ...]:
    """Return the layouts of what a loop's body takes one slice of per iteration, in order."""
    stacked = op.body.arguments[op.carried + op.shared :]
    found = layouts(op.body, stacked, callee, packed)
    return tuple(found[value.name] for value in stacked)


def static_size(dim: Dim) -> int:
    """Return the size of a dimension that must be known.

    Raises:
        TargetError: it is not.
    """
    if not isinstance(dim.size, int):
        text = f"`{dim.name}` has size {dim.size}, and ONNX needs a number there"
        raise TargetError("CG0802", text, "give the model a number for it")
    return evaluate(dim.size, {})


def indices(loops: tuple[Dim, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the tensors that a parameter stacked over `loops` is stored in, in row-major order."""
    return cartesian(*(range(static_size(dim)) for dim in loops))


def declare(value: Value, layout: Layout, path: str = "") -> Parameter:
    """Return `value` as stored by `layout`, its tensors named by `path` (its own name where that is empty) with the
    loops' indices put in.
    """
    path = path or value.name
    loops, dims = value.type.dims[: len(layout.loops)], value.type.dims[len(layout.loops) :]
    parts = path.split(".")
    names = []
    for turns in indices(loops):
        indexed = list(parts)
        for place, index in reversed(list(zip(layout.loops, turns, strict=True))):
            indexed.insert(place, str(index))
        names.append(".".join(indexed))
    beside = tuple(tuple(f"{name}.{ending}" for ending in layout.packed) for name in names)
    return Parameter(path, tuple(names), loops, dims, value.type.dtype, layout, beside)


def step(parameter: Parameter, index: int) -> Parameter:
    """Return what iteration `index` of the outermost loop sees of a stacked parameter."""
    count = len(parameter.names) // static_size(parameter.loops[0])
    part = slice(index * count, (index + 1) * count)
    return replace(
        parameter,
        names=parameter.names[part],
        beside=parameter.beside[part],
        loops=parameter.loops[1:],
        layout=replace(parameter.layout, loops=parameter.layout.loops[1:]),
    )
