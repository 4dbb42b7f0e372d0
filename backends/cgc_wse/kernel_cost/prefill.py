"""A prefill: a model's ops for a whole sequence, one after another on a square of P × P cores, weights on the wafer.

Tokens are cut along the rows of the square, features along its columns (He et al., WaferLLM, OSDI 2025). Every op of
the graph is one of

- weights: a GEMM by the measured algorithm, `mesh`;
- scores and mixing: heads stand beside each other, P / heads columns each. In P steps the keys (or values) of all rows
  come past, S / P of them each time, while a core multiplies its part of their features; the columns of a head then
  add up their scores, or had to copy what they mix with;
- a reduction: the features on a core, then an allreduce of its tokens along the row;
- element by element: one vector of tokens for each feature;
- a gather: a broadcast along a side.

Layers fill squares as in `decode`; there is one sequence, which is in one square at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from cgc.ir.ops import Dot, Gather, Reduce, opcode
from cgc.program import Device, Program
from cgc.services import DecodeRequest
from cgc.target import TargetError
from cgc_wse.flatten import Application, FlatStage, flatten
from cgc_wse.kernel_cost.collectives import allreduce_cycles, broadcast_phase, reduce_phase
from cgc_wse.kernel_cost.decode import cached_dims, candidate_sides, context_of, held_bytes, move_cycles, packed
from cgc_wse.kernel_cost.decode_answer import DecodeAnswer, Step, Trial
from cgc_wse.kernel_cost.gemm import cut, estimate_gemm, exchange_cycles
from cgc_wse.kernel_cost.machine import Machine, machine_of
from cgc_wse.op_work import TokenDims, TokenProduct, WeightProduct, product_of, token_dims
from cgc_wse.plan import gigabytes


@dataclass(frozen=True, slots=True)
class _Square:
    """What all ops share: the dimensions of tokens, how many tokens, the side of the square, the machine."""

    dims: TokenDims
    tokens: int
    side: int
    machine: Machine

    @property
    def rows(self) -> int:
        """Tokens of a core."""
        return -(-self.tokens // self.side)

    def columns(self, features: int) -> int:
        """Return the features of a core."""
        return -(-features // self.side)


def prefill(program: Program, device: Device, request: DecodeRequest) -> DecodeAnswer:
    """Return the cost of a prefill of `request.context` tokens on the best square, or on the one asked for.

    Raises:
        TargetError: CG0608 where the square is none of the device, CG0610 where the model has no tokens to go through,
            CG0604 and CG0606 for a wrong or missing number of tokens, CG0611 where the model does not fit.
    """
    tokens = context_of(program, request.context, new=0)
    stages = flatten(program.graph, {**{s.name: 1 for s in program.graph.symbols}, "seq": tokens})
    machine, dims = machine_of(device, request.dtype), token_dims(program.graph)
    cached = cached_dims(program.graph)
    trials = []
    for side in candidate_sides(request.side, device):
        square = _Square(dims, tokens, side, machine)
        trial = _trial(stages, cached, square, device, anyway=request.ignore_memory)
        if trial is not None:
            trials.append(trial)
    if not trials:
        held = sum(stage.runs * sum(held_bytes(stage, cached, machine.number)) for stage in stages)
        raise TargetError(
            "CG0611",
            f"weights, keys and values of {tokens} tokens take {gigabytes(held)}; whole layers of it do not fit in "
            f"squares of {device.name} ({gigabytes(device.cores * device.memory)})",
            "fewer tokens, another `--grid`, a larger device, or `--ignore-memory`",
        )
    best = min(trials, key=lambda trial: trial.cycles)
    return DecodeAnswer(program.name, device, request.dtype, 0, best, tuple(trials), "prefill", tokens)


def _trial(
    stages: list[FlatStage], cached: frozenset[str], square: _Square, device: Device, *, anyway: bool
) -> Trial | None:
    """Return the prefill on squares of one side; None where the model does not fit in those of the device."""
    side, machine = square.side, square.machine
    held = [sum(held_bytes(stage, cached, machine.number)) for stage in stages for _ in range(stage.runs)]
    packing = packed(held, side, device, anyway=anyway)
    if packing is None:
        return None
    steps = [step for stage in stages for step in _steps(stage, square)]
    if packing.squares > 1:
        widest = max(_entering(stage, square) for stage in stages)
        moved = move_cycles(machine, side, square.rows * square.columns(widest))
        steps.append(Step("next square", "moves", packing.squares - 1, moved))
    return Trial(side, packing.squares, tuple(steps), packing.room)


def _entering(stage: FlatStage, square: _Square) -> int:
    """Return the features that enter a run of a stage."""
    shapes = (stage.tensors[i].shape for i in stage.entering if stage.tensors[i].floating)
    return max((square.dims.features(shape) for shape in shapes), default=1)


def _steps(stage: FlatStage, square: _Square) -> Iterator[Step]:
    for group in stage.groups:
        for application in group.applications:
            if all(stage.tensors[i].generated for i in application.results):
                continue
            kind, cycles = _cost(stage, application, square)
            yield Step(f"{group.path} {opcode(application.op)}", kind, stage.runs * application.times, cycles)


def _cost(stage: FlatStage, application: Application, square: _Square) -> tuple[str, float]:
    """Return the kind of an op and its cycles."""
    machine, rows = square.machine, square.rows
    result = stage.tensors[application.results[0]].shape
    match application.op:
        case Dot():
            return _dot(stage, application, square)
        case Reduce():
            operand = stage.tensors[application.operands[0]].shape
            words = machine.words(rows * square.columns(square.dims.features(result)))
            return "reductions", _pass(operand, square) + allreduce_cycles(machine, square.side, words)
        case Gather():
            words = machine.words(rows * square.columns(square.dims.features(result)))
            return "gathers", machine.task + broadcast_phase(square.side, words).cycles(machine)
        case _:
            return "element by element", _pass(result, square)


def _pass(shape: Mapping[str, int], square: _Square) -> float:
    if not square.dims.has_tokens(shape):
        return square.machine.elementwise(-(-prod(shape.values()) // square.side**2))
    features = square.columns(square.dims.features(shape))
    return square.machine.product(square.rows, features, 1)


def _dot(stage: FlatStage, application: Application, square: _Square) -> tuple[str, float]:
    machine, side = square.machine, square.side
    product = product_of(stage, application, square.dims)
    match product:
        case WeightProduct(inner=inner, outer=outer):
            return "gemm", estimate_gemm(machine, cut(side, side, square.tokens, inner, outer), "mesh").cycles
        case TokenProduct():
            return "attention", _attention(product, square)
        case _:
            vectors = application.multiply_adds / (side * side * square.rows)
            return "gemm", machine.task + machine.product(square.rows, vectors, 1)


def _attention(product: TokenProduct, square: _Square) -> float:
    """Return the cycles of scores or mixing: P steps, in each of which the keys of one row of cores come past."""
    machine, side = square.machine, square.side
    columns = max(1, side // product.heads)
    heads = -(-product.heads // side)
    keys, width = -(-product.keys // side), -(-product.width // columns) * heads
    compute = machine.product(square.rows, width, keys)
    exchange = exchange_cycles(machine, keys * width, 2)
    steps = side * (machine.task + max(compute, exchange))
    words = machine.words(square.rows * heads * -(-product.keys // columns)) if columns > 1 else 0
    sums = reduce_phase("chain", columns, words * columns).cycles(machine) if columns > 1 else 0.0
    return steps + machine.task + sums
