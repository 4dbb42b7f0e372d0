"""How a graph uses its parameters: one classification, read off types and structure, that every table works on.

The graph is looked at without calls but with its loops, and together with copies of itself at other sizes: node by node
they are the same, and only sizes, constants and initial distributions differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, assert_never

from cgc.ir.graph import Graph, Node, Region, Value
from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)
from cgc.ir.types import TensorType
from cgc.parametrize.chosen import chosen_weights

UseKind: TypeAlias = Literal["lookup", "product", "elementwise", "scores"]
Sizes: TypeAlias = tuple[int, ...]
"""One number for each copy of the graph, the model's own first."""
Numbers: TypeAlias = tuple[float, ...]
Row: TypeAlias = tuple[Node, ...]
"""One node in each copy."""


@dataclass(frozen=True, slots=True)
class Use:
    """One place where parameters, or two activations, meet the rest of the model.

    `index` is the place of the node among all primitive nodes and loops of the inlined graph, in order; `operand` the
    parameter's position. `contracted` and `kept` are the entries of the dimensions summed over, and of the parameter's
    others. `feeds` tells whether a later contraction depends on the result, `loops` the loops around it, outermost
    first. `given` is the factor by which the model itself scales the result.
    """

    kind: UseKind
    params: frozenset[str]
    index: int
    operand: int
    contracted: Sizes
    kept: Sizes
    feeds: bool
    loops: tuple[Sizes, ...]
    given: Numbers


@dataclass(frozen=True, slots=True)
class Branch:
    """What is added to a residual stream: operand `operand` of the node `index`.

    `writers` are the products of parameters it is a linear image of; there are none where it is normalized before it is
    added. `terms` counts what it is a sum of, `stream` tells the residual streams of a model apart.
    """

    index: int
    operand: int
    writers: frozenset[int]
    loops: tuple[Sizes, ...]
    terms: int = 1
    stream: int = 0


@dataclass(slots=True)
class Uses:
    """All uses and branches of a graph, in order.

    `gates` are the products of two activations that are linear in products of parameters behind one operand alone, by
    their places, with that operand. `chosen` are the places of lookups that choose weights.
    """

    uses: list[Use] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    gates: dict[int, int] = field(default_factory=dict)
    chosen: frozenset[int] = frozenset()

    @property
    def residual(self) -> frozenset[int]:
        """The places of products that write to a residual stream."""
        return frozenset(index for branch in self.branches for index in branch.writers)


class DifferentStructure(Exception):
    """Copies of a graph at other sizes are not the same node by node; `node` is where they part."""

    def __init__(self, node: Node | None) -> None:
        super().__init__()
        self.node = node


@dataclass(frozen=True, slots=True)
class _Flow:
    """What is known of a value. Sets of values are bit masks.

    `params`: it is a view of these parameters. `direct`: values it is computed from without a product of parameters,
    `through`: with one. `sums`: values it is a sum with. `writers`: products of parameters it is a linear image of,
    `terms`: how many of them add up. `stream`: the residual stream it is the present state of. `product`: the product
    it is, up to a factor. `number`: it is this scalar.
    """

    params: frozenset[str] = frozenset()
    direct: int = 0
    through: int = 0
    sums: int = 0
    writers: frozenset[int] = frozenset()
    terms: int = 0
    stream: int = 0
    product: int | None = None
    number: Numbers | None = None

    @property
    def depends(self) -> int:
        """Values it is computed from."""
        return self.direct | self.through


def find_uses(graphs: Sequence[Graph]) -> Uses:
    """Classify the uses of all parameters; `graphs` are inlined copies of one model, its own sizes first.

    Raises:
        DifferentStructure: the copies differ in more than sizes and numbers.
    """
    return _Walk(graphs).run()


def entries(types: Sequence[TensorType], names: Sequence[str]) -> Sizes:
    """Return the number of entries of the dimensions `names` in each copy; sizes open until run time count as one."""
    counts: list[int] = []
    for type_ in types:
        count = 1
        for dim in type_.dims:
            if dim.name in names and isinstance(dim.size, int):
                count *= dim.size
        counts.append(count)
    return tuple(counts)


def in_order(region: Region) -> Iterator[Node]:
    """Yield all nodes of an inlined graph in the order of `Use.index`: a loop before what is in it."""
    for node in region.nodes:
        yield node
        if isinstance(node.op, Repeat):
            yield from in_order(node.op.body)


def twins(regions: Sequence[Region]) -> list[Row]:
    """Return the nodes of copies of a region side by side (DifferentStructure where they do not match)."""
    counts = {len(region.nodes) for region in regions}
    rows = list(zip(*(region.nodes for region in regions), strict=False))
    for row in rows:
        if len({type(node.op) for node in row}) > 1 or len({getattr(node.op, "kind", "") for node in row}) > 1:
            raise DifferentStructure(row[0])
    if len(counts) > 1:
        raise DifferentStructure(rows[-1][0] if rows else None)
    return rows


class _Walk:
    def __init__(self, graphs: Sequence[Graph]) -> None:
        self._graphs = graphs
        self._flows: dict[str, _Flow] = {}
        self._found = Uses()
        self._index = 0
        self._bit = 0
        self._loops: tuple[Sizes, ...] = ()
        self._given: dict[int, Numbers] = {}
        self._feeding: set[str] = set()

    def run(self) -> Uses:
        """Walk the whole graph."""
        graph = self._graphs[0]
        self._found.chosen = chosen_weights(graph)
        _mark(graph.body, self._feeding)
        for value in graph.inputs:
            self._flows[value.name] = self._fresh()
        for param in graph.params:
            self._flows[param.name] = self._fresh(frozenset((param.name,)))
        self._region([graph.body for graph in self._graphs])
        uses = [replace(use, given=self._given.get(use.index, use.given)) for use in self._found.uses]
        return replace(self._found, uses=uses)

    def _fresh(self, params: frozenset[str] = frozenset()) -> _Flow:
        self._bit += 1
        mask = 1 << self._bit
        return _Flow(params, direct=mask, sums=mask, stream=self._bit)

    def _region(self, regions: Sequence[Region]) -> None:
        for row in twins(regions):
            self._node(row)

    def _node(self, row: Row) -> None:
        index, self._index = self._index, self._index + 1
        node = row[0]
        if isinstance(node.op, Repeat):
            self._repeat(row, [twin.op for twin in row])
            return
        flows = [self._flows[value.name] for value in node.inputs]
        self._bit += 1
        mask = 1 << self._bit
        made = self._made(row, index, flows)
        direct, through = mask, 0
        for flow in flows:
            direct |= flow.direct
            through |= flow.through
        if isinstance(node.op, Dot) and any(flow.params for flow in flows):
            direct, through = mask, direct | through
        stream = made.stream or self._bit
        made = replace(made, direct=direct, through=through, sums=made.sums | mask, stream=stream)
        for value in node.outputs:
            self._flows[value.name] = made

    def _repeat(self, row: Row, ops: Sequence[Op]) -> None:
        loops = [op for op in ops if isinstance(op, Repeat)]
        op = loops[0]
        streams: list[int] = []
        starts = [self._flows[given.name] for given in row[0].inputs[: op.carried]]
        for at, (argument, given) in enumerate(zip(op.body.arguments, row[0].inputs, strict=True)):
            outer = self._flows[given.name]
            if at < op.carried:
                inside = self._fresh()
                # two carried values that start as one are two streams from here on
                streams.append(inside.stream if outer.stream in streams else outer.stream)
                outer = replace(inside, stream=streams[at])
            self._flows[argument.name] = outer
        before = self._loops
        stack = tuple(loop.stack.size if isinstance(loop.stack.size, int) else 1 for loop in loops)
        self._loops = (*before, stack)
        self._region([loop.body for loop in loops])
        self._loops = before
        arguments = [self._flows[argument.name].sums for argument in op.body.arguments[: op.carried]]
        results = [self._flows[result.name] for result in op.body.results]
        for at, (value, (direct, through)) in enumerate(
            zip(row[0].outputs, _after_turns(starts, arguments, results), strict=True)
        ):
            made = self._fresh()
            made = replace(made, direct=made.direct | direct, through=through)
            self._flows[value.name] = replace(made, stream=streams[at]) if at < op.carried else made

    # ---- one node

    def _made(self, row: Row, index: int, flows: list[_Flow]) -> _Flow:
        """Return the flow of a node's results, recording the uses in it."""
        match row[0].op:
            case Constant() | Position():
                values = tuple(float(twin.op.value) for twin in row if isinstance(twin.op, Constant))
                return _Flow(number=values or None)
            case Gather(dim):
                return self._lookup(row, index, flows[0], dim)
            case Dot(over):
                return self._dot(row, index, flows, over)
            case Binary():
                return self._binary(row, index, flows)
            case Unary() | Reduce() | Scan() | Scatter() | TopK():
                return _applied(row[0].op, flows[0])
            case Where():
                self._elementwise(row, index, flows)
                return _either(flows[1:])
            case Rename() | Transpose() | Cast() | Split() | Merge() | Slice():
                return flows[0]
            case Concat():
                return replace(_either(flows), params=frozenset().union(*(flow.params for flow in flows)))
            case Call() | Repeat():
                raise AssertionError("inlined, and handled before")
            case op:
                assert_never(op)

    def _use(
        self, kind: UseKind, row: Row, index: int, operand: int, params: frozenset[str], over: Sequence[str]
    ) -> None:
        types = [twin.inputs[operand].type for twin in row]
        kept = [name for name in types[0].names if name not in over]
        if kind == "product":
            other = row[0].inputs[1 - operand].type
            kept = [name for name in kept if not other.has(name)]
        self._found.uses.append(
            Use(
                kind,
                params,
                index,
                operand,
                entries(types, over),
                entries(types, kept),
                row[0].outputs[0].name in self._feeding,
                self._loops,
                tuple(1.0 for _ in row),
            )
        )

    def _lookup(self, row: Row, index: int, table: _Flow, dim: str) -> _Flow:
        if index in self._found.chosen:
            return _Flow(params=table.params)
        if table.params:
            self._use("lookup", row, index, 0, table.params, (dim,))
        return _Flow()

    def _dot(self, row: Row, index: int, flows: list[_Flow], over: tuple[str, ...]) -> _Flow:
        held = [at for at, flow in enumerate(flows) if flow.params]
        for at in held:
            self._use("product", row, index, at, flows[at].params, over)
        if held:
            return _Flow(writers=frozenset((index,)), terms=1, product=index)
        if row[0].inputs[0] == row[0].inputs[1]:
            return _Flow()
        self._use("scores", row, index, 0, frozenset(), over)
        return replace(self._gated(index, flows, "mul"), product=index)

    def _elementwise(self, row: Row, index: int, flows: list[_Flow]) -> None:
        for at, flow in enumerate(flows):
            if flow.params:
                self._use("elementwise", row, index, at, flow.params, ())

    def _binary(self, row: Row, index: int, flows: list[_Flow]) -> _Flow:
        op = row[0].op
        assert isinstance(op, Binary)
        left, right = flows
        if left.number is not None and right.number is not None:
            return _Flow(number=_arithmetic(op.kind, left.number, right.number))
        if all(flow.params or flow.number is not None for flow in flows):
            return _Flow(params=left.params | right.params)
        for at, flow in enumerate(flows):
            other = flows[1 - at]
            if other.number is not None and (op.kind == "mul" or (op.kind == "div" and at == 0)):
                if flow.product is not None:
                    factors = self._given.get(flow.product, tuple(1.0 for _ in row))
                    self._given[flow.product] = _arithmetic(op.kind, factors, other.number)
                return flow
        self._elementwise(row, index, flows)
        if op.kind in ("mul", "div"):
            return self._gated(index, flows, op.kind)
        return self._sum(row[0], index, left, right) if op.kind in ("add", "sub") else _Flow()

    def _sum(self, node: Node, index: int, left: _Flow, right: _Flow) -> _Flow:
        sums = left.sums | right.sums
        for at, (added, stream) in enumerate(((left, right), (right, left))):
            missing = not set(node.inputs[1 - at].type.names) <= set(node.inputs[at].type.names)
            if not stream.params and _is_branch(added, stream.sums, missing):
                branch = Branch(index, at, added.writers, self._loops, max(added.terms, 1), stream.stream)
                self._found.branches.append(branch)
                return _Flow(sums=sums, stream=stream.stream)
        terms = max(left.terms, right.terms) if left.writers & right.writers else left.terms + right.terms
        return _Flow(sums=sums, writers=left.writers | right.writers, terms=terms)

    def _gated(self, index: int, flows: Sequence[_Flow], kind: str) -> _Flow:
        """Return the flow of a product of two values: linear in one of them if that is all that is.

        What a value is multiplied by that was computed from it (a norm, an activation) does not leave it linear.
        """
        if all(flow.writers for flow in flows):
            return _Flow()
        for at, flow in enumerate(flows):
            if flow.writers and not flows[1 - at].depends & flow.sums and (kind == "mul" or at == 0):
                self._found.gates[index] = at
                return _Flow(writers=flow.writers, terms=flow.terms)
        return _Flow()


def _after_turns(starts: Sequence[_Flow], arguments: Sequence[int], results: Sequence[_Flow]) -> list[tuple[int, int]]:
    """Return what the results of a loop are computed from, without and with a product of parameters: the carried ones
    are `starts` before the first turn and stand in the body as `arguments`, bit masks.
    """
    carried = [(start.direct, start.through) for start in starts]
    found = [(0, 0) for _ in results]
    for _ in range(len(starts) + 1):  # so many turns bring anything from one carried value to any other
        turned = []
        for result in results:
            direct, through = result.direct, result.through
            for mask, (before, behind) in zip(arguments, carried, strict=True):
                if result.direct & mask:
                    direct, through = direct | before, through | behind
                if result.through & mask:
                    through |= before | behind
            turned.append((direct, through))
        found = [(a | c, b | d) for (a, b), (c, d) in zip(found, turned, strict=True)]
        carried = found[: len(starts)]
    return found


def _applied(op: Op, x: _Flow) -> _Flow:
    """Return the flow of a function of one value: some are linear."""
    match op:
        case Unary("neg"):
            return x
        case Reduce("sum" | "mean"):
            return _Flow(x.params, writers=x.writers, terms=x.terms)
        case _:
            return _Flow(x.params)


def _is_branch(added: _Flow, stream: int, missing: bool) -> bool:
    """Tell whether a value that is added to a stream was computed from it by a product of parameters.

    It is linear in such products, or (a norm stands behind them) depends on the stream by no other way: a mean that is
    subtracted does. `missing`: it lacks dimensions of the stream, as that mean.
    """
    if added.writers and not (missing and added.direct & stream):
        return bool(added.depends & stream)
    return bool(added.through & stream) and not added.direct & stream


def _either(flows: Sequence[_Flow]) -> _Flow:
    """Return the flow of a value whose entries are each of one of several values."""
    terms = max((flow.terms for flow in flows), default=0)
    return _Flow(writers=frozenset().union(*(flow.writers for flow in flows)), terms=terms)


def _arithmetic(kind: str, left: Numbers, right: Numbers) -> Numbers:
    match kind:
        case "add":
            return tuple(a + b for a, b in zip(left, right, strict=True))
        case "sub":
            return tuple(a - b for a, b in zip(left, right, strict=True))
        case "mul":
            return tuple(a * b for a, b in zip(left, right, strict=True))
        case "div":
            return tuple(a / b if b else float("inf") for a, b in zip(left, right, strict=True))
        case _:
            return left


def _mark(region: Region, feeding: set[str]) -> None:
    """Add the names of all values that a contraction depends on."""

    def add(values: Sequence[Value]) -> None:
        feeding.update(value.name for value in values)

    for node in reversed(region.nodes):
        op = node.op
        if isinstance(op, Repeat):
            carried = op.body.arguments[: op.carried]
            add([inside for out, inside in zip(node.outputs, op.body.results, strict=True) if out.name in feeding])
            for _ in range(2):
                _mark(op.body, feeding)
                add([inside for arg, inside in zip(carried, op.body.results, strict=True) if arg.name in feeding])
            add([given for arg, given in zip(op.body.arguments, node.inputs, strict=True) if arg.name in feeding])
        elif isinstance(op, Dot) or any(value.name in feeding for value in node.outputs):
            add(node.inputs)
