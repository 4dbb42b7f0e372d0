"""One step of training a model as a graph: loss, gradients, update."""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.graph import Graph
from cgc.ir.types import is_float
from cgc.parametrize.model import parametrization_of
from cgc.passes.adamw import AdamW, ParamUpdate, adamw
from cgc.passes.autodiff import autodiff
from cgc.passes.inline import inline
from cgc.passes.loss import with_loss
from cgc.program import ParamSetting, Program


class UnknownOptimizer(ValueError):
    """The program trains with an optimizer that has no update as a graph."""


def gradient_graph(graph: Graph, recompute: bool = False) -> Graph:
    """Return the loss of a model and its gradients.

    The loss is the model's own where exactly one of its outputs is a float without dimensions, else the cross-entropy
    of a language model (NotALanguageModel where it is none). With `recompute` loops collect no more than what they
    carry, and the backward pass computes the rest again.
    """
    whole = inline(graph)
    named = zip(whole.outputs, whole.body.results, strict=True)
    own = [(name, value) for name, value in named if not value.type.dims and is_float(value.type.dtype)]
    if len(own) != 1:
        return autodiff(with_loss(whole), recompute)
    ((name, loss),) = own
    return autodiff(replace(whole, outputs=(name,), body=replace(whole.body, results=(loss,))), recompute)


def train_step(program: Program, recompute: bool = False) -> Graph:
    """Return the graph of one step: the loss, and the new parameters and moments.

    Its inputs are those of the model, `targets` (unless the model has a loss of its own), `adamw.step` (from 1),
    `adamw.rate` (the base learning rate of this step), and the moments `adamw.m.NAME` and `adamw.v.NAME`, which start
    from zero. Learning rates, eps and weight decay are each parameter's own, as the parametrization derives them;
    gradients are clipped where the `train` item says so.

    Raises:
        NotALanguageModel: the model has no tokens or no logits.
        UnknownOptimizer: the `train` item asks for something else than AdamW.
    """
    return adamw(gradient_graph(program.graph, recompute), optimizer_of(program))


def optimizer_of(program: Program) -> AdamW:
    """Return the optimizer that a program asks for (errors as `train_step`)."""
    train = program.train
    chosen = train.optimizer if train is not None else None
    if chosen is not None and chosen.name != "adamw":
        raise UnknownOptimizer(f"`{program.name}` trains with `{chosen.name}`; a step is made for `adamw`")
    arguments = dict(chosen.arguments) if chosen is not None else {}
    base = program.mup.value("lr") if program.mup is not None else None
    if base is None and train is not None:
        base = train.lr
    params = {setting.name: _update(setting, base) for setting in parametrization_of(program).params}
    beta1, beta2 = arguments.get("beta1", 0.9), arguments.get("beta2", 0.999)
    return AdamW(beta1, beta2, train.clip if train is not None else None, params)


def _update(setting: ParamSetting, base: float | None) -> ParamUpdate:
    """Return what is done to a parameter; a rate of its own follows the schedule where there is a base rate.

    So it is in PyTorch, where a schedule multiplies the rates of all parameter groups.
    """
    eps = 1e-8 if setting.eps is None else setting.eps
    factor, fixed = setting.lr_factor, None
    if "lr" in setting.overridden and setting.lr is not None:
        factor, fixed = (setting.lr / base, None) if base else (1.0, setting.lr)
    return ParamUpdate(factor, eps, setting.weight_decay or 0.0, fixed)
