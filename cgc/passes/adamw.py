"""AdamW's update of all parameters, after their gradients (Loshchilov and Hutter 2019, arXiv 1711.05101).

Before:
    param %w : f32[width=8] ~ {...}
    output loss = %loss
    output grad.w = %d_w

After, where each right side stands for a few primitives:
    input %adamw.step : i64[]
    input %adamw.rate : f32[]
    input %adamw.m.w : f32[width=8]
    input %adamw.v.w : f32[width=8]
    param %w : f32[width=8] ~ {...}
    %m = beta1 · %adamw.m.w + (1 - beta1) · %d_w
    %v = beta2 · %adamw.v.w + (1 - beta2) · %d_w²
    %new = %w - rate · decay · %w - rate / (1 - beta1^step) · %m / (√%v / √(1 - beta2^step) + eps)
    output loss = %loss
    output new.w = %new
    output new.adamw.m.w = %m
    output new.adamw.v.w = %v

`rate` is the base learning rate of this step times the parameter's factor, as `torch.optim.AdamW` has it in a parameter
group; steps count from 1. With `clip` all gradients are first scaled so that their norm together is at most that, as
`torch.nn.utils.clip_grad_norm_` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cgc.ir.builder import Builder
from cgc.ir.graph import Graph, Region, Value
from cgc.ir.types import TensorType
from cgc.passes.autodiff import GRADIENT
from cgc.passes.copying import names_of, no_function
from cgc.passes.emitter import Emitter

STEP, RATE, FIRST, SECOND = "adamw.step", "adamw.rate", "adamw.m.", "adamw.v."
NEW = "new."


@dataclass(frozen=True, slots=True)
class ParamUpdate:
    """What AdamW does to one parameter; `fixed` is a learning rate in place of the factor of the base rate."""

    factor: float = 1.0
    eps: float = 1e-8
    weight_decay: float = 0.0
    fixed: float | None = None


@dataclass(frozen=True, slots=True)
class AdamW:
    """The optimizer: moments' decay rates, the largest norm of all gradients, and each parameter's own by name."""

    beta1: float = 0.9
    beta2: float = 0.999
    clip: float | None = None
    params: Mapping[str, ParamUpdate] | None = None

    def of(self, name: str) -> ParamUpdate:
        """Return what is done to a parameter."""
        return (self.params or {}).get(name, ParamUpdate())


def adamw(graph: Graph, optimizer: AdamW) -> Graph:
    """Return `graph`, as `autodiff` made it, with new parameters and moments as outputs in place of the gradients."""
    names = names_of(graph)
    step, rate = Value(names.exact(STEP), TensorType((), "i64")), Value(names.exact(RATE), TensorType((), "f32"))
    emit = Emitter(Builder(names, no_function), "adamw")
    count = len(graph.outputs) - len(graph.params)
    slopes = list(graph.body.results[count:])
    assert graph.outputs[count:] == tuple(f"{GRADIENT}{param.name}" for param in graph.params), "autodiff made it"
    emit.at("", graph.location)
    if optimizer.clip is not None:
        slopes = _clipped(emit, slopes, optimizer.clip)
    update = _Update(emit, optimizer, step, rate)
    moments: list[Value] = []
    outputs: list[tuple[str, Value]] = []
    for param, slope in zip(graph.params, slopes, strict=True):
        m, v = (Value(names.exact(f"{kind}{param.name}"), param.type) for kind in (FIRST, SECOND))
        moments += [m, v]
        emit.at(param.name, param.location)
        made = update.parameter(param.value, slope, m, v, optimizer.of(param.name))
        outputs += zip((f"{NEW}{param.name}", f"{NEW}{m.name}", f"{NEW}{v.name}"), made, strict=True)
    arguments = (*graph.inputs, step, rate, *moments, *(param.value for param in graph.params))
    results = (*graph.body.results[:count], *(value for _, value in outputs))
    body = Region(arguments, (*graph.body.nodes, *emit.nodes()), results)
    return replace(graph, body=body, outputs=(*graph.outputs[:count], *(name for name, _ in outputs)))


def _clipped(emit: Emitter, slopes: Sequence[Value], clip: float) -> list[Value]:
    """Return the gradients scaled so that the norm of all of them is at most `clip`."""
    squares = [emit.cast(emit.sum(emit.mul(slope, slope), slope.type.names), "f32") for slope in slopes]
    if not squares:
        return []
    total = squares[0]
    for square in squares[1:]:
        total = emit.binary("add", total, square)
    norm = emit.binary("add", emit.unary("sqrt", total), 1e-6)
    share = emit.binary("min", emit.binary("div", emit.number(clip, "f32"), norm), 1.0)
    return [emit.mul(slope, emit.cast(share, slope.type.dtype)) for slope in slopes]


class _Update:
    def __init__(self, emit: Emitter, optimizer: AdamW, step: Value, rate: Value) -> None:
        self._emit = emit
        self._optimizer = optimizer
        self._rate = rate
        count = emit.cast(step, "f32")
        self._first, self._second = (self._missing(count, beta) for beta in (optimizer.beta1, optimizer.beta2))
        self._root = emit.unary("sqrt", self._second)

    def _missing(self, count: Value, beta: float) -> Value:
        """Return 1 - beta^step: what moments that started from zero lack."""
        emit = self._emit
        one = emit.number(1.0, "f32")
        return emit.binary("sub", one, emit.binary("pow", emit.number(beta, "f32"), count))

    def _moment(self, before: Value, now: Value, beta: float) -> Value:
        emit = self._emit
        return emit.binary("add", emit.mul(before, beta), emit.mul(now, 1.0 - beta))

    def parameter(self, param: Value, slope: Value, m: Value, v: Value, own: ParamUpdate) -> tuple[Value, Value, Value]:
        """Return the new parameter and its new moments."""
        emit, dtype = self._emit, param.type.dtype
        m = self._moment(m, slope, self._optimizer.beta1)
        v = self._moment(v, emit.mul(slope, slope), self._optimizer.beta2)
        rate = emit.number(own.fixed, "f32") if own.fixed is not None else self._scaled(self._rate, own.factor)
        if own.weight_decay:
            kept = emit.binary("sub", emit.number(1.0, "f32"), emit.mul(rate, own.weight_decay))
            param = emit.mul(param, emit.cast(kept, dtype))
        length = emit.binary("div", rate, self._first)
        spread = emit.binary("div", emit.unary("sqrt", v), emit.cast(self._root, dtype))
        move = emit.binary("div", m, emit.binary("add", spread, own.eps))
        return emit.binary("sub", param, emit.mul(move, emit.cast(length, dtype))), m, v

    def _scaled(self, rate: Value, factor: float) -> Value:
        return rate if factor == 1 else self._emit.mul(rate, factor)
