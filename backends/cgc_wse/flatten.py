"""The graph as runs of primitives, each with the kernel it belongs to.

A kernel is what gets a rectangle of its own: a block in which no other block has parameters (`h.attention.q`), or a
statement that stands directly in a model or in a larger block (`h.x`, `logits`). A stage is one run of a top-level
`repeat`, or what stands before, between and after those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from cgc.analysis.flops import iteration_space, node_work
from cgc.ir.dims import SymbolicSize, evaluate
from cgc.ir.graph import Function, Graph, Node, Region, Value, walk
from cgc.ir.ops import Call, Constant, Op, Position, Repeat, Scan, opcode
from cgc.ir.types import TensorType, is_float
from cgc_wse.facets import Shape, renames_only


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of a stage. `root` is the tensor whose entries it shows; `maker` the index of the kernel that made it.

    `param` is the parameter it is (a slice of), `gradient` says whether training needs its gradient; a tensor with
    neither maker nor parameter came from outside, unless it is `generated` (a constant, a position).
    """

    shape: Shape
    root: int
    floating: bool
    gradient: bool
    maker: int | None = None
    param: str = ""
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Application:
    """A primitive applied `times` times in one run of the stage; operands and results are indices of tensors.

    One application makes `multiply_adds`, or `operations` on single elements. `mixes` says that it sums over positions,
    so that one result needs the whole sequence.
    """

    op: Op
    multiply_adds: int
    operations: int
    mixes: bool
    operands: tuple[int, ...]
    results: tuple[int, ...]
    times: int


@dataclass(slots=True)
class Group:
    """The primitives of one kernel, in order. `block` and `library` are empty for a statement."""

    path: str
    block: str
    library: str
    applications: list[Application] = field(default_factory=list)


@dataclass(slots=True)
class FlatStage:
    """A stage: its kernels in order, all tensors in it, and the tensors that enter and leave."""

    name: str
    runs: int
    groups: list[Group] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    entering: list[int] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)


def flatten(graph: Graph, sizes: Mapping[str, int]) -> list[FlatStage]:
    """Return the stages of `graph` in order, with `sizes` for its symbols.

    Raises:
        KeyError: a symbol has no size.
        IndivisibleSize: a size is not an integer at these sizes.
    """
    params = {param.name for param in graph.params}
    gradients: dict[str, bool] = {}
    stages: list[FlatStage] = []
    paths: set[str] = set()
    for name, nodes, results in _runs(graph):
        stage = FlatStage(name, 1)
        flattener = _Flattener(graph, sizes, stage, paths)
        if isinstance(nodes[0].op, Repeat):
            stage.runs = evaluate(nodes[0].op.stack.size, sizes)
            flattener.loop_body(nodes[0], nodes[0].op, params, gradients)
            gradients.update({value.name: True for value in nodes[0].outputs})
        else:
            made = flattener.straight(nodes, results, params, gradients)
            gradients.update({name: stage.tensors[index].gradient for name, index in made.items()})
        if stage.groups:
            stages.append(stage)
    return stages


def _runs(graph: Graph) -> Iterator[tuple[str, tuple[Node, ...], tuple[Value, ...]]]:
    """Cut the top level at its loops: (name, nodes, values that later runs or the outputs use)."""
    nodes = graph.body.nodes
    starts = [0]
    for index, node in enumerate(nodes):
        if isinstance(node.op, Repeat):
            starts += [index, index + 1]
    bounds = sorted({*starts, len(nodes)})
    pieces = [nodes[a:b] for a, b in pairwise(bounds)]
    loops = [piece[0].op.instance if isinstance(piece[0].op, Repeat) else "" for piece in pieces]
    for index, piece in enumerate(pieces):
        after = loops[index - 1] if index else ""
        before = loops[index + 1] if index + 1 < len(pieces) else ""
        name = loops[index] or (f"after {after}" if after else f"before {before}" if before else graph.name)
        later = {value.name for other in pieces[index + 1 :] for node in other for value in node.inputs}
        later |= {value.name for value in graph.body.results}
        yield name, piece, tuple(value for node in piece for value in node.outputs if value.name in later)


class _Flattener:
    def __init__(self, graph: Graph, sizes: Mapping[str, int], stage: FlatStage, paths: set[str]) -> None:
        """Prepare to fill `stage`; `paths` are those of all kernels of the graph so far."""
        self._graph = graph
        self._sizes = sizes
        self._stage = stage
        self._paths = paths
        self._used: dict[str, int] = {}

    # ---- the stage's own arguments
    def straight(
        self, nodes: tuple[Node, ...], results: tuple[Value, ...], params: set[str], gradients: Mapping[str, bool]
    ) -> dict[str, int]:
        """Enter a run of top-level nodes that is no loop; return its values' tensors by name."""
        env: dict[str, int] = {}
        made = {value.name for node in nodes for value in node.outputs}
        for node in nodes:
            for value in node.inputs:
                if value.name not in made and value.name not in env:
                    env[value.name] = self._outside(value.name, value.type, params, gradients)
        self._nodes(nodes, env, "", "", 1)
        self._stage.leaving = [env[value.name] for value in results]
        return env

    def loop_body(self, node: Node, op: Repeat, params: set[str], gradients: Mapping[str, bool]) -> None:
        """Enter one run of a top-level loop."""
        env: dict[str, int] = {}
        for argument, value in zip(op.body.arguments, node.inputs, strict=True):
            env[argument.name] = self._outside(value.name, argument.type, params, {**gradients, value.name: True})
        self._nodes(op.body.nodes, env, "", op.instance, 1)
        self._stage.leaving = [env[value.name] for value in op.body.results]

    def _outside(self, name: str, type: TensorType, params: set[str], gradients: Mapping[str, bool]) -> int:
        floating = is_float(type.dtype)
        param = name if name in params else ""
        index = self._tensor(type, gradient=floating and (bool(param) or gradients.get(name, False)), param=param)
        if not param:
            self._stage.entering.append(index)
        return index

    def _tensor(
        self,
        type: TensorType,
        *,
        gradient: bool = False,
        maker: int | None = None,
        param: str = "",
        generated: bool = False,
    ) -> int:
        shape = {dim.name: evaluate(dim.size, self._sizes) for dim in type.dims}
        index = len(self._stage.tensors)
        floating = is_float(type.dtype)
        self._stage.tensors.append(Tensor(shape, index, floating, gradient and floating, maker, param, generated))
        return index

    def _alias(self, type: TensorType, of: int) -> int:
        source = self._stage.tensors[of]
        shape = {dim.name: evaluate(dim.size, self._sizes) for dim in type.dims}
        tensor = Tensor(
            shape, source.root, source.floating, source.gradient, source.maker, source.param, source.generated
        )
        self._stage.tensors.append(tensor)
        return len(self._stage.tensors) - 1

    # ---- nodes
    def _nodes(self, nodes: tuple[Node, ...], env: dict[str, int], prefix: str, container: str, times: int) -> None:
        """Enter nodes that stand directly in `container`; `prefix` is what their paths are relative to."""
        for node, statement in zip(nodes, _statements(nodes), strict=True):
            path = _join(prefix, statement) or container or self._graph.name
            match node.op:
                case Call():
                    function = self._graph.function(node.op.function)
                    inner = {
                        value.name: env[outer.name]
                        for value, outer in zip(function.body.arguments, node.inputs, strict=True)
                    }
                    if _has_parts(self._graph, function):
                        self._nodes(function.body.nodes, inner, path, path, times)
                    else:
                        self._body(function.body, inner, (path, function.block, function.library), times)
                    self._bind(node, function.body, inner, env)
                case Repeat():
                    inner = self._loop(node, node.op, env)
                    self._nodes(
                        node.op.body.nodes, inner, prefix, path, times * evaluate(node.op.stack.size, self._sizes)
                    )
                    self._bind(node, node.op.body, inner, env)
                case _:
                    self._primitive(node, env, (path, "", ""), times)

    def _body(self, body: Region, env: dict[str, int], kernel: tuple[str, str, str], times: int) -> None:
        """Enter everything in a block that is a kernel."""
        for node in body.nodes:
            match node.op:
                case Call():
                    function = self._graph.function(node.op.function)
                    inner = {
                        value.name: env[outer.name]
                        for value, outer in zip(function.body.arguments, node.inputs, strict=True)
                    }
                    self._body(function.body, inner, kernel, times)
                    self._bind(node, function.body, inner, env)
                case Repeat():
                    inner = self._loop(node, node.op, env)
                    self._body(node.op.body, inner, kernel, times * evaluate(node.op.stack.size, self._sizes))
                    self._bind(node, node.op.body, inner, env)
                case _:
                    self._primitive(node, env, kernel, times)

    def _loop(self, node: Node, op: Repeat, env: Mapping[str, int]) -> dict[str, int]:
        pairs = zip(op.body.arguments, node.inputs, strict=True)
        return {argument.name: self._alias(argument.type, env[outer.name]) for argument, outer in pairs}

    def _bind(self, node: Node, body: Region, inner: Mapping[str, int], env: dict[str, int]) -> None:
        for value, inside in zip(node.outputs, body.results, strict=True):
            env[value.name] = inner[inside.name]

    def _primitive(self, node: Node, env: dict[str, int], kernel: tuple[str, str, str], times: int) -> None:
        operands = tuple(env[value.name] for value in node.inputs)
        if isinstance(node.op, Constant | Position):
            env[node.output.name] = self._tensor(node.output.type, generated=True)
            return
        if renames_only(node.op):
            env[node.output.name] = self._alias(node.output.type, operands[0])
            return
        matmul, other = node_work(node).at(self._sizes)
        index = self._kernel(kernel)
        sources = [self._stage.tensors[i] for i in operands]
        generated = all(source.generated for source in sources)
        gradient = any(source.gradient for source in sources)
        results = tuple(
            self._tensor(value.type, gradient=gradient, maker=index, generated=generated) for value in node.outputs
        )
        env.update({value.name: i for value, i in zip(node.outputs, results, strict=True)})
        self._stage.groups[index].applications.append(
            Application(node.op, matmul // 2, other, _mixes(node), operands, results, times)
        )

    def _kernel(self, kernel: tuple[str, str, str]) -> int:
        """Return the kernel being filled if it is this one, else a new one, called `x_2` where there was an `x`."""
        path, block, library = kernel
        groups = self._stage.groups
        if path in self._used and self._used[path] == len(groups) - 1:
            if block:
                groups[-1].block, groups[-1].library = block, library
            return len(groups) - 1
        name, count = path, 1
        while name in self._paths:
            count += 1
            name = f"{path}_{count}"
        self._paths.add(name)
        self._used[path] = len(groups)
        groups.append(Group(name, block, library))
        return len(groups) - 1


def _statements(nodes: tuple[Node, ...]) -> list[str]:
    """Return the path of the statement each node is a part of: its own, or that of the next node that has one."""
    paths: list[str] = []
    current = ""
    for node in reversed(nodes):
        current = node.path if node.path and opcode(node.op) not in ("constant", "position") else current
        paths.append(current)
    return paths[::-1]


def _mixes(node: Node) -> bool:
    """Tell whether a primitive sums over a dimension whose size depends on `seq`."""
    dims, reduced = iteration_space(node)
    over = {*reduced, *([node.op.over] if isinstance(node.op, Scan) else [])}
    sizes = [dim.size for dim in dims if dim.name in over]
    return any(isinstance(size, SymbolicSize) and "seq" in size.symbols() for size in sizes)


def _has_parts(graph: Graph, function: Function) -> bool:
    """Tell whether a block has blocks with parameters in it: then those are the kernels."""
    calls = (node.op.function for node in walk(function.body) if isinstance(node.op, Call))
    return any(graph.function(name).params for name in calls)


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else path
