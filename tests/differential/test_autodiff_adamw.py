"""Steps of training as a graph against PyTorch: the emitted module, its parameter groups, clipping and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from cgc_torch.live import to_torch
from cgc_torch.weights import from_state, to_state
from gradients import Array, compare
from torch.nn.functional import cross_entropy

from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.builder import Builder, Names
from cgc.ir.dims import Dim, evaluate
from cgc.ir.graph import Graph, Init, Param
from cgc.ir.ops import Binary, Reduce
from cgc.ir.types import TensorType
from cgc.ir.verify import verify
from cgc.parametrize.model import parametrized
from cgc.passes.adamw import AdamW, ParamUpdate, adamw
from cgc.passes.autodiff import autodiff
from cgc.passes.copying import no_function
from cgc.program import Program
from cgc.training import UnknownOptimizer, optimizer_of, train_step

MODEL = "use std/gpt2\n\nmodel m = gpt2(vocab=13, context=8, layers=2, width=16, heads=4)\n"
TRAIN = """
train {
    lr        = 2e-2
    optimizer = adamw(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1)
    schedule  = warmup(2 steps) then linear(to=0.1)
    steps     = 10 steps
MORE}
"""
MUP = """
mup {
    scale width from 8, heads from 2
    init std = 0.3
    lr       = 2e-2
    multiply embedding by 2
MORE}
"""
ITEMS = {
    "as the file says": TRAIN.replace("MORE", ""),
    "gradients clipped": TRAIN.replace("MORE", "    clip      = 0.05\n"),
    "gradients far below the clip": TRAIN.replace("MORE", "    clip      = 1e6\n"),
    "mup": MUP.replace("MORE", "") + TRAIN.replace("    lr        = 2e-2\n", "").replace("MORE", "    clip = 0.5\n"),
    "completep": MUP.replace("heads from 2", "heads from 2, layers from 1").replace(
        "MORE", "    parametrization = completep\n"
    )
    + TRAIN.replace("    lr        = 2e-2\n", "").replace("MORE", ""),
    "a rate of its own": MUP.replace(
        "MORE", "    override ln_f.scale {\n        lr = 5e-3\n        eps = 1e-3\n    }\n"
    )
    + TRAIN.replace("    lr        = 2e-2\n", "").replace("MORE", ""),
}
RATES = (1e-2, 2e-2, 1.5e-2, 4e-3, 1e-3)
BASE = 2e-2


def program_of(item: str) -> Program:
    (program,) = elaborate_file(MODEL + item, "m.cg").programs
    made, faults = parametrized(program)
    assert not faults
    return made


def batch_at(step: int) -> dict[str, Array]:
    rng = np.random.default_rng(step)
    return {name: rng.integers(0, 13, (3, 6)) for name in ("tokens", "targets")}


def by_pytorch(program: Program, weights: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the loss and the parameters after every step, by the emitted module and its own optimizer."""
    module: Any = to_torch(program, weights).double()
    module.load_state_dict({key: torch.tensor(array) for key, array in to_state(program, weights).items()})
    optimizer = module.configure_optimizers(learning_rate=BASE)
    peaks = [group["lr"] for group in optimizer.param_groups]
    clip = program.train.clip if program.train is not None else None
    found: list[dict[str, Array]] = []
    for step, rate in enumerate(RATES):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate / BASE
        batch = batch_at(step)
        logits = module(torch.tensor(batch["tokens"]))
        loss = cross_entropy(logits.flatten(0, 1), torch.tensor(batch["targets"]).flatten())
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        state = {key: tensor.detach().numpy().copy() for key, tensor in module.state_dict().items()}
        found.append({"loss": np.asarray(loss.item()), **from_state(program, state)})
    return found


def by_graph(program: Program, graph: Graph, weights: Mapping[str, Array]) -> list[dict[str, Array]]:
    state = {param.name: weights[param.name] for param in graph.params}
    moments = {
        v.name: np.zeros(state[v.name[8:]].shape) for v in graph.inputs if v.name[:8] in ("adamw.m.", "adamw.v.")
    }
    assert len(moments) == 2 * len(state)
    found: list[dict[str, Array]] = []
    for step, rate in enumerate(RATES):
        given = {"adamw.step": np.asarray(step + 1), "adamw.rate": np.asarray(rate)}
        results = interpret(graph, state, batch_at(step) | moments | given, np.float64)
        moments = {name: results[f"new.{name}"] for name in moments}
        state = {name: results[f"new.{name}"] for name in state}
        found.append({"loss": results["loss"], **state})
    return found


@pytest.mark.parametrize(("name", "recompute"), [*((name, False) for name in ITEMS), ("mup", True)])
def test_steps_are_those_of_pytorch(name: str, recompute: bool) -> None:
    program = program_of(ITEMS[name])
    rng = np.random.default_rng(5)
    weights = {
        p.name: p.init.mean + rng.normal(0, 0.3, [evaluate(size, {}) for size in p.type.shape])
        for p in program.graph.params
    }
    graph = verify(train_step(program, recompute))
    for expected, found in zip(by_pytorch(program, weights), by_graph(program, graph, weights), strict=True):
        compare({n: expected[n] for n in found}, found, name, 1e-8)


def test_settings_differ_from_parameter_to_parameter() -> None:
    """The cases above would prove little if all parameters had one setting."""
    updates = dict(optimizer_of(program_of(ITEMS["completep"])).params or {})
    assert len({update.eps for update in updates.values()}) > 1
    assert len({update.factor for update in updates.values()}) > 1
    assert len({update.weight_decay for update in updates.values()}) > 2
    own = optimizer_of(program_of(ITEMS["a rate of its own"])).of("ln_f.scale")
    assert (own.factor, own.eps, own.fixed) == (0.25, 1e-3, None)


def test_other_optimizers_have_no_step() -> None:
    with pytest.raises(UnknownOptimizer, match="`sgd`"):
        train_step(program_of("\ntrain {\n    optimizer = sgd(momentum=0.9)\n}\n"))


W = Dim("w", 4)


def quadratic() -> Graph:
    """Return Σ (a · x)² + Σ b, and its gradients; `c` does not matter."""
    build = Builder(Names(), no_function)
    x = build.value("x", TensorType((W,)))
    params = [build.value(name, TensorType((W,))) for name in "abc"]
    y = build.one(Binary("mul"), params[0], x)
    total = build.one(Reduce("sum", ("w",)), build.one(Binary("mul"), y, y))
    loss = build.one(Binary("add"), total, build.one(Reduce("sum", ("w",)), params[1]))
    body = build.finish((x, *params), (loss,))
    known = tuple(Param(value, Init("normal", std=1.0)) for value in params)
    return autodiff(verify(Graph("quadratic", (), known, (), body, ("loss",))))


@pytest.mark.parametrize("clip", [None, 1e-3, 0.5, 100.0])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_adamw_itself(clip: float | None, beta1: float) -> None:
    """Each parameter with its own rate, epsilon and decay, one that gets no gradient, and one with a fixed rate."""
    own = {"a": ParamUpdate(0.5, 1e-3, 0.2), "b": ParamUpdate(3.0, 1e-8, 0.0), "c": ParamUpdate(1.0, 0.1, 0.3, 0.07)}
    step = verify(adamw(quadratic(), AdamW(beta1, 0.99, clip, own)))
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=4) for name in "abc"}
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    rates = {name: (lambda r, u=update: u.fixed or u.factor * r) for name, update in own.items()}
    optimizer = torch.optim.AdamW(
        [
            {"params": [tensors[name]], "lr": rates[name](0.1), "eps": update.eps, "weight_decay": update.weight_decay}
            for name, update in own.items()
        ],
        betas=(beta1, 0.99),
    )
    moments = {v.name: np.zeros(4) for v in step.inputs if v.name.startswith(("adamw.m.", "adamw.v."))}
    for count in range(1, 7):
        rate, x = 0.1 / count, rng.normal(size=4)
        for group, name in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = rates[name](rate)
        optimizer.zero_grad()
        ((tensors["a"] * torch.tensor(x)) ** 2).sum().add(tensors["b"].sum()).add(tensors["c"].sum() * 0).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(tensors.values()), clip)
        optimizer.step()
        given = {"x": x, "adamw.step": np.asarray(count), "adamw.rate": np.asarray(rate), **moments}
        results = interpret(step, arrays, given, np.float64)
        arrays = {name: results[f"new.{name}"] for name in arrays}
        moments = {name: results[f"new.{name}"] for name in moments}
        compare({name: tensors[name].detach().numpy() for name in own}, arrays, f"step {count}", 1e-12)


def test_a_step_in_32_bit_learns() -> None:
    """As it would really run: float32 throughout, from the initial weights, the loss goes down on one batch."""
    from cgc.weights import initialize

    program = program_of(ITEMS["gradients clipped"])
    graph = train_step(program)
    state: dict[str, Array] = dict(initialize(program.graph, 0))
    moments = {
        v.name: np.zeros(state[v.name[8:]].shape) for v in graph.inputs if v.name[:8] in ("adamw.m.", "adamw.v.")
    }
    losses: list[float] = []
    for count in range(1, 16):
        given = {"adamw.step": np.asarray(count), "adamw.rate": np.asarray(1e-2)}
        results = interpret(graph, state, batch_at(0) | moments | given)
        losses.append(float(results["loss"]))
        state = {name: results[f"new.{name}"] for name in state}
        moments = {name: results[f"new.{name}"] for name in moments}
    assert losses[0] == pytest.approx(np.log(13), rel=0.05) and losses[-1] < losses[0] - 0.5
