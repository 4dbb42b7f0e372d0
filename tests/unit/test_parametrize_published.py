"""Cerebras-GPT as published (Dey et al. 2023, arXiv 2304.03208): every derived number, and the resulting graph.

The figures and the model below are written down here once more, from the paper, not computed by cgc.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import cgc
from cgc.cli import main
from cgc.interpret import interpret
from cgc.weights import initialize

FOLDER = Path(__file__).parents[2] / "examples" / "cerebras_gpt"
erf = np.vectorize(math.erf)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Published:
    """One configuration: sizes, and what they were trained with."""

    layers: int
    width: int
    heads: int
    ffn: int
    lr: float
    eps: float
    mup: bool = False


SP = {
    "111m": Published(10, 768, 12, 3072, 6e-4, 1e-8),
    "256m": Published(14, 1088, 17, 4352, 6e-4, 1e-8),
    "590m": Published(18, 1536, 12, 6144, 2e-4, 1e-8),
    "1.3b": Published(24, 2048, 16, 8192, 2e-4, 1e-8),
    "2.7b": Published(32, 2560, 32, 10240, 2e-4, 1e-8),
    "6.7b": Published(32, 4096, 32, 16384, 1.2e-4, 1e-9),
    "13b": Published(40, 5120, 40, 20480, 1.2e-4, 1e-9),
}
CONFIGURATIONS = SP | {
    f"{name}_mup": Published(found.layers, found.width, found.heads, found.ffn, 6e-3, 1e-8, mup=True)
    for name, found in SP.items()
    if name in ("111m", "256m", "590m", "1.3b", "2.7b")
}
BASE_WIDTH, BASE_FFN, STD, EMBEDDING = 256, 1024, 0.08, 10.0

MATRICES = {
    "h.attention.q.w": "hidden",
    "h.attention.k.w": "hidden",
    "h.attention.v.w": "hidden",
    "h.attention.out.w": "residual",
    "h.mlp.up.w": "hidden",
    "h.mlp.down.w": "residual",
}
NORMS = ("h.ln_1", "h.ln_2", "ln_f")
BIASES = tuple(name.removesuffix("w") + "b" for name in MATRICES)
VECTORS = (
    {f"{norm}.scale": 1.0 for norm in NORMS} | {f"{norm}.bias": 0.0 for norm in NORMS} | dict.fromkeys(BIASES, 0.0)
)


@cache
def params(name: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["params", str(FOLDER / f"{name}.cg"), "--format", "json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def tensors(name: str) -> dict[str, Any]:
    return {param["name"]: param for param in params(name)["params"]}


def test_all_published_configurations_are_there() -> None:
    assert {path.stem for path in FOLDER.glob("*.cg")} == CONFIGURATIONS.keys()
    assert len(CONFIGURATIONS) == 12


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_shapes(name: str) -> None:
    it, found = CONFIGURATIONS[name], tensors(name)
    head = it.width // it.heads
    assert found["wte"]["shape"] == [50257, it.width]
    assert found["wpe"]["shape"] == [2048, it.width]
    assert found["h.attention.q.w"]["shape"] == [it.layers, it.width, it.heads, head]
    assert found["h.mlp.down.w"]["shape"] == [it.layers, it.ffn, it.width]
    assert found.keys() == {"wte", "wpe", *MATRICES, *VECTORS}
    assert params(name)["parametrization"] == ("mup" if it.mup else "sp")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_initial_distributions(name: str) -> None:
    it, found = CONFIGURATIONS[name], tensors(name)
    std = STD if it.mup else 0.02
    for table in ("wte", "wpe"):
        assert found[table]["init"] == {"distribution": "truncated_normal", "mean": 0.0, "std": std}
    for matrix, group in MATRICES.items():
        m = it.ffn / BASE_FFN if matrix == "h.mlp.down.w" else it.width / BASE_WIDTH
        expected = std / np.sqrt((m if it.mup else 1) * (2 * it.layers if group == "residual" else 1))
        assert found[matrix]["init"]["distribution"] == "truncated_normal"
        assert found[matrix]["init"]["mean"] == 0
        assert found[matrix]["init"]["std"] == pytest.approx(expected, rel=1e-12), matrix
    for vector, value in VECTORS.items():
        assert found[vector]["init"] == {"distribution": "constant", "value": value, "std": 0.0}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_adamw(name: str) -> None:
    it, found = CONFIGURATIONS[name], tensors(name)
    for tensor, param in found.items():
        m = 1.0
        if it.mup and tensor in MATRICES:
            m = it.ffn / BASE_FFN if tensor == "h.mlp.down.w" else it.width / BASE_WIDTH
        assert param["lr"] == pytest.approx(it.lr / m, rel=1e-12), tensor
        assert param["lr_factor"] == pytest.approx(1 / m, rel=1e-12), tensor
        assert param["eps"] == it.eps, tensor
        assert param["weight_decay"] == (0.0 if tensor in VECTORS else 0.1), tensor
        assert param["overridden"] == []


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_multipliers(name: str) -> None:
    it, found = CONFIGURATIONS[name], tensors(name)
    tables = ("wte", "wpe")
    assert {tensor: param["multiplier"] for tensor, param in found.items()} == {
        tensor: EMBEDDING if it.mup and tensor in tables else 1.0 for tensor in found
    }
    if not it.mup:
        assert params(name)["multipliers"] == []
        return
    by_class = [(factor["class"], factor["value"]) for factor in params(name)["multipliers"]]
    head = it.width / it.heads
    assert by_class == [
        ("embedding", EMBEDDING),
        ("embedding", EMBEDDING),
        # on top of the model's own 1 / sqrt(head), so that a score is divided by the size of a head
        ("attention", pytest.approx(1 / np.sqrt(head), rel=1e-12)),
        ("output", pytest.approx(BASE_WIDTH / it.width, rel=1e-12)),
    ]
    paths = [factor["path"] for factor in params(name)["multipliers"]]
    assert paths[:2] == ["wte", "wpe"] and paths[3] == "logits"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_classes(name: str) -> None:
    expected = {"wte": "embedding", "wpe": "embedding", **MATRICES, **dict.fromkeys(VECTORS, "vector")}
    assert {tensor: param["class"] for tensor, param in tensors(name).items()} == expected


# ---- the graph


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    centered = x - x.mean(-1, keepdims=True)
    result: Array = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * scale + bias
    return result


def by_hand(w: dict[str, Array], tokens: Array, embedding: float, scores: float, logits: float) -> Array:
    """GPT-2 with the three multipliers of µP, in plain NumPy."""
    seq = tokens.shape[1]
    x = embedding * (w["wte"][tokens] + w["wpe"][:seq])
    mask = np.tril(np.ones((seq, seq), bool))
    for at in range(len(w["h.mlp.up.w"])):
        layer = {key[2:]: value[at] for key, value in w.items() if key.startswith("h.")}
        y = layer_norm(x, layer["ln_1.scale"], layer["ln_1.bias"])
        q, k, v = (
            np.einsum("bsw,whd->bhsd", y, layer[f"attention.{which}.w"]) + layer[f"attention.{which}.b"][:, None]
            for which in "qkv"
        )
        products = np.where(mask, q @ k.swapaxes(-1, -2) * scores, -np.inf)
        weights = np.exp(products - products.max(-1, keepdims=True))
        mixed = weights / weights.sum(-1, keepdims=True) @ v
        x = x + np.einsum("bhsd,hdw->bsw", mixed, layer["attention.out.w"]) + layer["attention.out.b"]
        y = layer_norm(x, layer["ln_2.scale"], layer["ln_2.bias"])
        up = y @ layer["mlp.up.w"] + layer["mlp.up.b"]
        x = x + (0.5 * up * (1 + erf(up / np.sqrt(2)))) @ layer["mlp.down.w"] + layer["mlp.down.b"]
    result: Array = logits * layer_norm(x, w["ln_f.scale"], w["ln_f.bias"]) @ w["wte"].T
    return result


@pytest.mark.parametrize(("width", "heads"), [(512, 8), (128, 4)])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_graph_computes_the_published_model(name: str, width: int, heads: int) -> None:
    it = CONFIGURATIONS[name]
    model = cgc.load(FOLDER / f"{name}.cg", layers=2, width=width, heads=heads, vocab=61, context=16)
    rng = np.random.default_rng(0)
    weights = {key: w + 0.02 * rng.standard_normal(w.shape) for key, w in initialize(model.graph, 0).items()}
    tokens = rng.integers(0, 61, (2, 9))
    head = width // heads
    factors = (EMBEDDING, 1 / head, BASE_WIDTH / width) if it.mup else (1.0, 1 / np.sqrt(head), 1.0)
    expected = by_hand(weights, tokens, *factors)
    got = interpret(model.graph, weights, {"tokens": tokens}, np.float64)["logits"]
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    # the comparison would notice each of the multipliers
    if it.mup and width != BASE_WIDTH:
        for at in range(3):
            without = [1.0 if at == place and at != 1 else factor for place, factor in enumerate(factors)]
            without[1] = 1 / np.sqrt(head) if at == 1 else without[1]
            assert np.abs(by_hand(weights, tokens, *without) - got).max() > 1e-3
