"""Kernels: what each block of a stage computes, reads, receives, sends and keeps, for one sequence.

Numbers are for one sequence (`batch` = 1) and one run of the stage. Training runs a kernel forward, makes again what
its derivative reads and it did not keep (it keeps what it received, not what it made), and runs the derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from cgc.ir.graph import Graph
from cgc.ir.ops import Dot, Gather, opcode
from cgc_wse.facets import Shape, derivative_reads, traffic
from cgc_wse.flatten import Application, FlatStage, Group, Tensor, flatten


@dataclass(frozen=True, slots=True)
class Work:
    """Amounts of work: multiply-adds, operations on single elements beside them, elements read and written in SRAM."""

    macs: int = 0
    operations: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.macs + other.macs,
            self.operations + other.operations,
            self.read + other.read,
            self.written + other.written,
        )


@dataclass(frozen=True, slots=True)
class Kernel:
    """A block that gets a rectangle. Counts are of elements, for one sequence.

    `forward`, `remade` and `backward` are its work; `received` and `sent` cross its border going forward; `kept` stays
    in it until the backward pass; `held` is what it must have of a whole sequence before it can go on; `parameters` are
    the trained scalars that live in it; `entering` is what enters the stage, for its first kernel. `kind` is the
    block's name, or for a statement that of its heaviest primitive.
    """

    path: str
    kind: str
    library: str
    forward: Work
    remade: Work
    backward: Work
    received: int
    sent: int
    kept: int
    held: int
    parameters: int
    entering: int = 0

    @property
    def training(self) -> Work:
        """The work of one training step."""
        return self.forward + self.remade + self.backward


@dataclass(frozen=True, slots=True)
class Stage:
    """Kernels that work at the same time, `runs` times one after another with other parameters each time.

    `entering` counts the elements of the activations that enter one run; `streamed` the trained scalars one run needs.
    """

    name: str
    runs: int
    kernels: tuple[Kernel, ...]
    entering: int
    streamed: int

    @property
    def parameters(self) -> int:
        """Trained scalars that live in one run."""
        return sum(kernel.parameters for kernel in self.kernels)

    @property
    def kept(self) -> int:
        """Elements that one run keeps for the backward pass."""
        return sum(kernel.kept for kernel in self.kernels)

    @property
    def held(self) -> int:
        """Elements of a sequence that one run has at a time going forward."""
        return sum(kernel.held for kernel in self.kernels)


def stages_of(graph: Graph, sizes: Mapping[str, int]) -> tuple[Stage, ...]:
    """Return the stages of `graph` with `sizes` for its symbols (errors as `flatten`)."""
    return stages_from(flatten(graph, sizes))


def stages_from(flat: Sequence[FlatStage]) -> tuple[Stage, ...]:
    """Return the stages of a flat graph. A parameter of several kernels lives in the one that does most with it."""
    owners: dict[str, tuple[int, int, int]] = {}
    for s, stage in enumerate(flat):
        for g, kernel in enumerate(stage.groups):
            macs = _forward(stage, kernel.applications).macs
            for name in _params(stage, kernel):
                if name not in owners or macs > owners[name][0]:
                    owners[name] = (macs, s, g)
    homes: dict[tuple[int, int], list[str]] = {}
    for name, (_, s, g) in owners.items():
        homes.setdefault((s, g), []).append(name)
    return tuple(
        _stage(stage, {g: homes.get((s, g), []) for g in range(len(stage.groups))}) for s, stage in enumerate(flat)
    )


def _stage(stage: FlatStage, homes: Mapping[int, list[str]]) -> Stage:
    used_by: dict[int, set[int]] = {}
    for g, kernel in enumerate(stage.groups):
        for application in kernel.applications:
            for index in application.operands:
                used_by.setdefault(stage.tensors[index].root, set()).add(g)
    kernels = tuple(_kernel(stage, g, used_by, homes[g]) for g in range(len(stage.groups)))
    streamed = _count(stage, {root for kernel in stage.groups for root in _params(stage, kernel).values()})
    return Stage(stage.name, stage.runs, kernels, _count(stage, _activations(stage, stage.entering)), streamed)


def _kernel(stage: FlatStage, index: int, used_by: Mapping[int, set[int]], homes: list[str]) -> Kernel:
    kernel = stage.groups[index]
    made = {i for application in kernel.applications for i in application.results}
    received = {
        root
        for root in _activations(stage, (i for a in kernel.applications for i in a.operands))
        if stage.tensors[root].maker != index
    }
    leaving = {stage.tensors[i].root for i in stage.leaving}
    sent = {root for root in _activations(stage, made) if root in leaving or used_by.get(root, set()) - {index}}
    kept, remade = kept_tensors(stage, index, kernel.applications)
    params = _params(stage, kernel)
    return Kernel(
        path=kernel.path,
        kind=kernel.block or _kind(stage, kernel),
        library=kernel.library,
        forward=_forward(stage, kernel.applications),
        remade=_forward(stage, remade),
        backward=_backward(stage, kernel.applications),
        received=_count(stage, received),
        sent=_count(stage, sent),
        kept=_count(stage, kept),
        held=_count(stage, received) if any(a.mixes for a in kernel.applications) else 0,
        parameters=_count(stage, {params[name] for name in homes}),
        entering=_count(stage, _activations(stage, stage.entering)) if index == 0 else 0,
    )


def _params(stage: FlatStage, kernel: Group) -> dict[str, int]:
    """Return the parameters a kernel uses: their tensors by name."""
    tensors = (stage.tensors[i] for application in kernel.applications for i in application.operands)
    return {tensor.param: tensor.root for tensor in tensors if tensor.param}


def _activations(stage: FlatStage, indices: Iterable[int]) -> set[int]:
    """Return the roots of the float tensors among `indices` that are neither parameters nor generated."""
    tensors = (stage.tensors[i] for i in indices)
    return {t.root for t in tensors if t.floating and not t.param and not t.generated}


def _count(stage: FlatStage, roots: set[int]) -> int:
    return _elements(stage, roots)


def _shapes(stage: FlatStage, indices: Iterable[int]) -> list[Shape]:
    return [stage.tensors[i].shape for i in indices]


def _elements(stage: FlatStage, indices: Iterable[int]) -> int:
    return sum(prod(shape.values()) for shape in _shapes(stage, indices))


def _times(work: Work, times: int) -> Work:
    return Work(times * work.macs, times * work.operations, times * work.read, times * work.written)


def _forward(stage: FlatStage, applications: Iterable[Application]) -> Work:
    total = Work()
    for a in applications:
        read, written = traffic(a.op, a.multiply_adds, _shapes(stage, a.operands), _shapes(stage, a.results))
        total += _times(Work(a.multiply_adds, a.operations, read, written), a.times)
    return total


def _backward(stage: FlatStage, applications: Iterable[Application]) -> Work:
    """A dot has one dot for each operand that needs a gradient; other derivatives take as many operations as it did."""
    total = Work()
    for a in applications:
        wanted = [i for i in a.operands if stage.tensors[i].gradient]
        if not wanted:
            continue
        results = _elements(stage, a.results)
        written = results if isinstance(a.op, Gather) else _elements(stage, wanted)
        if isinstance(a.op, Dot):
            macs = a.multiply_adds * len(wanted)
            work = Work(macs, 0, macs, written)
        else:
            reads, result = derivative_reads(a.op)
            read = results * (1 + result) + _elements(stage, [a.operands[i] for i in reads])
            work = Work(0, a.operations, read, written)
        total += _times(work, a.times)
    return total


def kept_tensors(stage: FlatStage, kernel: int, applications: list[Application]) -> tuple[set[int], list[Application]]:
    """Return the tensors a kernel received that its backward pass reads, and the primitives it has to apply again."""
    makers = {i: a for a in applications for i in a.results}
    kept: set[int] = set()
    again: dict[int, Application] = {}

    def read(index: int) -> None:
        tensor: Tensor = stage.tensors[index]
        if tensor.param or tensor.generated:
            return
        if tensor.maker != kernel:
            kept.update({tensor.root} if tensor.floating else ())
            return
        application = makers[tensor.root]
        if tensor.root not in again:
            again.update(dict.fromkeys(application.results, application))
            for operand in application.operands:
                read(operand)

    for a in applications:
        if any(stage.tensors[i].gradient for i in a.operands):
            reads, result = derivative_reads(a.op)
            for i in (*(a.operands[r] for r in reads), *(a.results if result else ())):
                read(i)
    distinct = {id(a): a for a in again.values()}
    return kept, list(distinct.values())


def _kind(stage: FlatStage, kernel: Group) -> str:
    """Name a statement after its heaviest primitive."""

    def weight(a: Application) -> tuple[int, int]:
        return a.multiply_adds, _elements(stage, a.results)

    heaviest = max(kernel.applications, key=weight)
    return opcode(heaviest.op) if opcode(heaviest.op) in ("dot", "gather") else "elementwise"
