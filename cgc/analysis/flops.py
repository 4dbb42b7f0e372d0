"""Work: floating-point operations by node and by block.

Convention: a multiply-add of a contraction is two operations; every other elementwise operation or reduction counts one
per element it reads or writes, whichever is more (an exponential counts as one); gathers, renames, reshapes, casts and
constants count none. Softmax(QKᵀ)V is counted in full, the masked half too. This is the "algorithmic" count of
Cerebras-GPT (Dey et al. 2023, arXiv 2304.03208) but for elementwise work, which `matmul` leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from cgc.ir.dims import Dim, Size, add, evaluate, multiply, product
from cgc.ir.graph import Graph, Node, Region
from cgc.ir.ops import (
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
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
from cgc.ir.rules import union


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of contractions (`matmul`) and of everything else (`other`), per forward pass."""

    matmul: Size = 0
    other: Size = 0

    @property
    def total(self) -> Size:
        """All operations."""
        return add(self.matmul, self.other)

    def plus(self, more: Work) -> Work:
        """Return the sum of two amounts of work."""
        return Work(add(self.matmul, more.matmul), add(self.other, more.other))

    def times(self, count: Size) -> Work:
        """Return the work of `count` repetitions."""
        return Work(multiply(self.matmul, count), multiply(self.other, count))

    def at(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Return (matmul, other) as integers at these sizes."""
        return evaluate(self.matmul, sizes), evaluate(self.other, sizes)


@dataclass(frozen=True, slots=True)
class BlockWork:
    """One block, loop or loose operation of the model, in the order of the program.

    `path` is the user's (`h.attention.q`), `block` what it is an instance of (`linear`, `repeat`, or an opcode for an
    operation that stands in no block), `times` how often it runs in one forward pass, `work` and `params` are for one
    run, with everything inside.
    """

    path: str
    block: str
    times: Size
    work: Work
    params: Size
    depth: int


def iteration_space(node: Node) -> tuple[tuple[Dim, ...], tuple[str, ...]]:
    """Return the named dimensions a node iterates over, and which of them are reduced away.

    Calls and loops have none of their own.
    """
    match node.op:
        case Call() | Repeat():
            return (), ()
        case _:
            types = [value.type for value in node.inputs]
            out = node.outputs[0].type
            dims = union([out, *types]) if isinstance(node.op, Dot | Reduce | Binary | Where) else out.dims
            return dims, tuple(dim.name for dim in dims if not out.has(dim.name))


def node_work(node: Node) -> Work:
    """Return the work of one node that is not a call or a loop."""
    match node.op:
        case Dot():
            dims, _ = iteration_space(node)
            return Work(matmul=multiply(2, product(tuple(dim.size for dim in dims))))
        case Unary() | Binary() | Where() | Reduce():
            dims, _ = iteration_space(node)
            return Work(other=product(tuple(dim.size for dim in dims)))
        case Scan() | Scatter() | TopK():
            return Work(other=node.inputs[0].type.count)
        case (
            Constant()
            | Position()
            | Cast()
            | Gather()
            | Rename()
            | Transpose()
            | Split()
            | Merge()
            | Slice()
            | Concat()
        ):
            return Work()
        case Call() | Repeat():
            raise ValueError("calls and loops have no work of their own")
        case op:
            assert_never(op)


def forward_work(graph: Graph) -> Work:
    """Return the work of one forward pass, symbolic in what is left open."""
    return _Counter(graph).region(graph.body)


def training_flops(graph: Graph, sizes: Mapping[str, int]) -> int:
    """Return the operations of one training step at these sizes: forward, and twice that for the backward pass.

    Counts contractions only. The backward pass makes one product for the gradient of each operand; embeddings are
    gathers and have none (Dey et al. 2023 count so too). Recomputation is not included.
    """
    matmul, _ = forward_work(graph).at(sizes)
    return 3 * matmul


def block_work(graph: Graph, depth: int = 99) -> list[BlockWork]:
    """Return the work of every block down to `depth` levels of nesting, outer before inner."""
    counter = _Counter(graph)
    rows: list[BlockWork] = []
    counter.rows(graph.body, "", 1, 0, depth, rows)
    return rows


class _Counter:
    def __init__(self, graph: Graph) -> None:
        self._functions = {function.name: function for function in graph.functions}
        self._known: dict[str, Work] = {}

    def function(self, name: str) -> Work:
        """Return the work of one call of a function."""
        if name not in self._known:
            self._known[name] = self.region(self._functions[name].body)
        return self._known[name]

    def node(self, node: Node) -> Work:
        """Return the work of one node with everything inside it."""
        match node.op:
            case Call(function=name):
                return self.function(name)
            case Repeat(stack=stack, body=body):
                return self.region(body).times(stack.size)
            case _:
                return node_work(node)

    def region(self, region: Region) -> Work:
        """Return the work of a region."""
        work = Work()
        for node in region.nodes:
            work = work.plus(self.node(node))
        return work

    def rows(self, region: Region, prefix: str, times: Size, level: int, depth: int, rows: list[BlockWork]) -> None:
        """Append a row for every block in a region, and for loose operations that do work."""
        for node in region.nodes:
            path = ".".join(part for part in (prefix, node.path) if part)
            match node.op:
                case Call(function=name):
                    function = self._functions[name]
                    params: Size = 0
                    for param in function.params:
                        params = add(params, param.type.count)
                    rows.append(BlockWork(path, function.block, times, self.function(name), params, level))
                    if level < depth:
                        self.rows(function.body, path, times, level + 1, depth, rows)
                case Repeat(stack=stack, body=body) as op:
                    inner: Size = 0
                    for value in body.arguments[op.carried + op.shared :]:
                        inner = add(inner, value.type.count)
                    count = multiply(times, stack.size)
                    rows.append(BlockWork(path, "repeat", count, self.region(body), inner, level))
                    if level < depth:
                        self.rows(body, prefix, count, level + 1, depth, rows)
                case op:
                    work = node_work(node)
                    if work.matmul != 0:
                        rows.append(
                            BlockWork(path or node.output.name, type(op).__name__.lower(), times, work, 0, level)
                        )
