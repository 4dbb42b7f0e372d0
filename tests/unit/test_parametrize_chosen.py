"""Lookups that choose weights, as of experts, are told from lookups of embeddings by what the rows are used for."""

from __future__ import annotations

import pytest

from cgc.diagnostics import InputError
from cgc.driver import parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.parametrize.model import parametrization_of
from cgc.program import Parametrization

EXPERTS = """model moe(vocab = 64, context = 16, layers = 2, width = 32, experts = 4, ffn = 2 * width) {
    input tokens[batch, seq <= context] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
    repeat layers as h {
        n = rms_norm(x, over width)
        param router[width, experts] ~ normal(std=0.02)
        dim one = 1
        gate, chosen = top_k(softmax(dot(n, router, over width), over experts), experts -> one)
        param up[experts, width, ffn] ~ normal(std=0.02)
        param down[experts, ffn, width] ~ normal(std=0.02)
        inside = gelu(dot(n, up[chosen], over width))
        y = dot(inside, down[chosen], over ffn)
        x = x + mean(y * gate, over one)
    }
    param unembed[vocab, width] ~ normal(std=0.02)
    output logits = dot(rms_norm(x, over width), unembed, over width)
}
"""
SAMPLED = """model sampled(vocab = 64, width = 32) {
    input tokens[batch, seq <= 16] : id of vocab
    input candidates[batch, sample] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    dim out = width
    param w[width, out] ~ normal(std=0.02)
    param unembed[vocab, out] ~ normal(std=0.02)
    x = gelu(dot(embed[tokens], w, over width))
    output logits = dot(x, unembed[candidates], over out)
}
"""
MUP = "mup {\n    scale width from 16\n    init std = 0.08\n    lr = 8e-3\n}\n"
SP = "mup {\n    scale width from 16\n    lr = 8e-3\n    parametrization = sp\n}\n"


def checked(text: str) -> Parametrization:
    (program,) = parametrize_checked(elaborate_file(f"use std/nn\n\n{text}", "model.cg"), "all").programs
    return parametrization_of(program)


def groups(text: str) -> dict[str, str]:
    return {param.name: param.group for param in checked(text).params}


def test_experts_are_hidden_and_the_second_writes_to_the_stream() -> None:
    found = checked(EXPERTS + MUP)
    params = {param.name: param for param in found.params}
    assert {name: param.group for name, param in params.items() if not name.endswith("scale")} == {
        "embed": "embedding",
        "h.router": "hidden",
        "h.up": "hidden",
        "h.down": "residual",
        "unembed": "output",
    }
    assert params["h.up"].init.std == pytest.approx(0.08 / 2**0.5) and params["h.up"].lr == pytest.approx(4e-3)
    assert params["h.down"].init.std == pytest.approx(0.08 / (2 * 2) ** 0.5)
    assert [factor.group for factor in found.factors] == ["output"]


def test_experts_under_standard_parametrization_are_reported() -> None:
    with pytest.raises(InputError) as caught:
        checked(EXPERTS + SP)
    text = " ".join(diagnostic.message for diagnostic in caught.value.diagnostics)
    assert "`h.up`" in text and "`h.down`" in text


def test_rows_that_weights_multiply_are_an_embedding_and_rows_that_activations_multiply_an_output() -> None:
    assert groups(SAMPLED + MUP) == {"embed": "embedding", "w": "hidden", "unembed": "output"}


@pytest.mark.parametrize(
    "line", ["dot(embed[tokens], second[tokens], over width)", "dot(embed[tokens], embed, over width)"]
)
def test_two_embeddings_stay_embeddings(line: str) -> None:
    text = f"""model m(vocab = 64, width = 32) {{
    input tokens[batch, seq <= 16] : id of vocab
    param embed[vocab, width]  ~ normal(std=0.02)
    param second[vocab, width] ~ normal(std=0.02)
    output y = {line} + sum(second[tokens], over width)
}}
"""
    (program,) = parametrize_checked(elaborate_file(text + MUP, "model.cg"), "none").programs
    assert {param.name: param.group for param in parametrization_of(program).params} == {
        "embed": "embedding",
        "second": "embedding",
    }
