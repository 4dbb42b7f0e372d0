"""µP against Microsoft's `mup`: one model written for both gets the same rates and starts, and trains the same way.

The package is in `make setup`, without its dependencies: it needs PyTorch alone, and its others do not fit a build of
PyTorch for processors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cgc_torch.live import to_torch
from torch import Tensor, nn
from torch.nn import functional

from cgc.driver import load_program
from cgc.program import Program
from cgc.weights import initialize

mup: Any = pytest.importorskip("mup", reason="`make setup` installs it", exc_type=ModuleNotFoundError)

BASE = 32
WIDTHS = (64, 96, 256)
VOCAB, CONTEXT, LAYERS, HEADS = 61, 16, 2, 4
STD, LR, DECAY = 0.08, 6e-3, 0.1

MLP = """
model mlp(vocab = 61, width = 64, hidden = 2 * width) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    x = gelu(linear(embed[tokens], width -> hidden))
    y = gelu(linear(x, hidden -> width))
    logits = linear(y, width -> vocab, bias=false)
    output scores = logits
}
"""
GPT = """
model gpt(vocab = 61, context = 16, layers = 2, width = 64, heads = 4, ffn = 4 * width) {
    dim head = width / heads
    input tokens[batch, seq <= context] : id of vocab
    param wte[vocab, width]     ~ normal(std=0.02)
    param wpe[context, width]   ~ normal(std=0.02)
    param unembed[vocab, width] ~ normal(std=0.02)
    x = wte[tokens] + wpe[position(seq)]
    repeat layers as h {
        x = x + attention(layer_norm(x, over width))
        y = gelu(linear(layer_norm(x, over width), width -> ffn))
        x = x + linear(y, ffn -> width)
    }
    output logits = dot(layer_norm(x, over width), unembed, over width)
}
"""
SETTINGS = f"""
mup {{
    scale width from {BASE}
    init std     = {STD}
    lr           = {LR}
    eps          = 1e-8
    weight_decay = {DECAY}
}}
"""


class MuMlp(nn.Module):
    """The first model for `mup`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width)
        self.first = nn.Linear(width, 2 * width)
        self.second = nn.Linear(2 * width, width)
        self.readout = mup.MuReadout(width, VOCAB, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = functional.gelu(self.first(self.embed(tokens)))
        result: Tensor = self.readout(functional.gelu(self.second(x)))
        return result


class MuLayer(nn.Module):
    """One layer of the second model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        q, k, v = (part(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / q.shape[-1])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = x + self.down(functional.gelu(self.up(self.norm_2(x))))
        return result


class MuGpt(nn.Module):
    """The second model for `mup`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB, width), nn.Embedding(CONTEXT, width)
        self.h = nn.ModuleList(MuLayer(width) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)
        self.readout = mup.MuReadout(width, VOCAB, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for layer in self.h:
            x = layer(x)
        result: Tensor = self.readout(self.norm(x))
        return result


MODELS: dict[str, tuple[str, type[nn.Module]]] = {"mlp": (MLP, MuMlp), "gpt": (GPT, MuGpt)}
TWINS = {
    "mlp": {
        "embed": "embed.weight",
        "linear.w": "first.weight",
        "linear.b": "first.bias",
        "linear_2.w": "second.weight",
        "linear_2.b": "second.bias",
        "logits.w": "readout.weight",
    },
    "gpt": {
        "wte": "wte.weight",
        "wpe": "wpe.weight",
        "unembed": "readout.weight",
        "h.layer_norm.scale": "h.*.norm_1.weight",
        "h.layer_norm.bias": "h.*.norm_1.bias",
        "h.layer_norm_2.scale": "h.*.norm_2.weight",
        "h.layer_norm_2.bias": "h.*.norm_2.bias",
        "h.linear.w": "h.*.up.weight",
        "h.linear.b": "h.*.up.bias",
        "h.linear_2.w": "h.*.down.weight",
        "h.linear_2.b": "h.*.down.bias",
        "layer_norm.scale": "norm.weight",
        "layer_norm.bias": "norm.bias",
        **{f"h.attention.{part}.w": f"h.*.{part}.weight" for part in ("q", "k", "v", "out")},
        **{f"h.attention.{part}.b": f"h.*.{part}.bias" for part in ("q", "k", "v", "out")},
    },
}


def ours(name: str, width: int, folder: Path, *lines: str) -> Program:
    path = folder / f"{name}.cg"
    path.write_text(MODELS[name][0] + SETTINGS.replace("}\n", "".join(f"    {line}\n" for line in lines) + "}\n"))
    return load_program(str(path), {"width": width})


def theirs(name: str, width: int) -> nn.Module:
    make = MODELS[name][1]
    model = make(width)
    mup.set_base_shapes(model, make(BASE), delta=make(2 * BASE), do_assert=True)
    return model


def twins(name: str, model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Return the parameters of a `mup` model by our names, one for each layer."""
    named = dict(model.named_parameters())
    found: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for own, twin in TWINS[name].items():
        keys = [twin.replace("*", str(at)) for at in range(LAYERS)] if "*" in twin else [twin]
        found[own] = [(key, named.pop(key)) for key in keys]
    assert not named, "every parameter of theirs has one of ours"
    return found


def group_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    (group,) = (g for g in optimizer.param_groups if any(parameter is p for p in g["params"]))
    return group


@pytest.mark.parametrize("make", ["MuAdam", "MuAdamW"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MODELS)
def test_learning_rates(name: str, width: int, make: str, tmp_path: Path) -> None:
    program = ours(name, width, tmp_path)
    model = theirs(name, width)
    optimizer = getattr(mup, make)(model.parameters(), lr=LR)
    assert program.parametrization is not None
    assert {setting.name for setting in program.parametrization.params} == TWINS[name].keys()
    seen: set[float] = set()
    for own, parameters in twins(name, model).items():
        for _, parameter in parameters:
            expected = group_of(optimizer, parameter)["lr"]
            assert program.parametrization.param(own).lr == pytest.approx(expected, rel=1e-12), own
            seen.add(expected / LR)
    assert {round(1 / factor, 6) for factor in seen} == {1, width / BASE}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MODELS)
def test_weight_decay_of_mu_adamw_is_that_of_completep(name: str, width: int, tmp_path: Path) -> None:
    """`mup` keeps the product of rate and decay; µP as Cerebras-GPT uses it leaves the decay alone."""
    model = theirs(name, width)
    optimizer = mup.MuAdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    completep = ours(name, width, tmp_path, "parametrization = completep").parametrization
    plain = ours(name, width, tmp_path).parametrization
    assert completep is not None and plain is not None
    for own, parameters in twins(name, model).items():
        matrix = parameters[0][1].dim() > 1
        expected = group_of(optimizer, parameters[0][1])["weight_decay"] if matrix else 0.0
        assert completep.param(own).weight_decay == pytest.approx(expected, rel=1e-12), own
        assert plain.param(own).weight_decay == (DECAY if matrix else 0.0), own


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MODELS)
def test_initial_deviations(name: str, width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, program, model = ours(name, BASE, tmp_path), ours(name, width, tmp_path), theirs(name, width)
    inits, at_base = program.inits, base.inits
    for own, parameters in twins(name, model).items():
        if parameters[0][1].dim() == 1:
            assert inits[own] == at_base[own]
            continue
        drawn: list[Tensor] = []
        for _, parameter in parameters:
            mup.init.normal_(parameter, std=STD)
            drawn.append(parameter.detach().flatten())
        measured = float(torch.cat(drawn).std()) / STD
        assert inits[own].std / at_base[own].std == pytest.approx(measured, rel=0.07), own
        expected = 1.0 if own in ("embed", "wte", "wpe", "unembed", "logits.w") else (BASE / width) ** 0.5
        assert measured == pytest.approx(expected, rel=0.07), own


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MODELS)
def test_the_multiplier_of_logits(name: str, width: int, tmp_path: Path) -> None:
    model = theirs(name, width)
    readout = model.get_submodule("readout")
    x, weight = torch.randn(3, width), torch.randn(VOCAB, width)
    with torch.no_grad():
        readout.get_parameter("weight").copy_(weight)
        factor = float((readout(x) / (x @ weight.T)).mean())
    made = ours(name, width, tmp_path).parametrization
    assert made is not None
    assert made.param("unembed" if name == "gpt" else "logits.w").multiplier == pytest.approx(factor, rel=1e-4)


def copied(own: str, array: np.ndarray[Any, Any], shape: torch.Size, at: int) -> Tensor:
    """Return one parameter of theirs from ours: layers apart, heads merged, [in, out] turned to [out, in]."""
    part = array[at] if own.startswith("h.") else array
    if own.endswith(".w"):
        part = part.reshape(shape[1], shape[0]).T
    return torch.from_numpy(np.ascontiguousarray(part.reshape(tuple(shape))))


@pytest.mark.parametrize("width", [BASE, *WIDTHS])
@pytest.mark.parametrize("name", MODELS)
def test_they_train_alike(name: str, width: int, tmp_path: Path) -> None:
    """From the same weights, some steps of Adam lead to the same logits."""
    program = ours(name, width, tmp_path)
    weights = initialize(program.graph, 0)
    mine, model = to_torch(program, weights).double(), theirs(name, width).double()
    with torch.no_grad():
        for own, parameters in twins(name, model).items():
            for at, (_, parameter) in enumerate(parameters):
                parameter.copy_(copied(own, weights[own], parameter.shape, at))
    optimizers = (mine.configure_optimizers(), mup.MuAdam(model.parameters(), lr=LR))  # type: ignore[operator]
    for group in optimizers[0].param_groups:
        group["weight_decay"] = 0.0
    torch.manual_seed(1)
    first: list[Tensor] = []
    for step in range(4):
        tokens = torch.randint(VOCAB, (2, 9))
        logits = [each(tokens) for each in (mine, model)]
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-8, atol=1e-9, msg=f"step {step}")
        first.append(logits[0].detach())
        for each, optimizer in zip(logits, optimizers, strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(each.flatten(0, 1), tokens.flatten()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert float((first[-1] - first[0]).abs().max()) > 0.01
