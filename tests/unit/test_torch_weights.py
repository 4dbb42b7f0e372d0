"""The table from parameters to the state dict, and arrays in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cgc_torch.live import to_torch
from cgc_torch.weights import from_state, state_entries, to_state

from cgc.driver import load_program
from cgc.program import Program
from cgc.weights import initialize

TEXT = """
use std/nn
use std/attention

model small(vocab = 11, layers = 3, rounds = 2, width = 8, heads = 2) {
    dim head = width / heads
    input tokens[batch, seq] : id of vocab
    param wte[vocab, width] ~ normal(std=0.02)
    x = wte[tokens]
    repeat layers as h {
        x = x + attention(layer_norm(x, over width))
        repeat rounds as again {
            x = linear(x, width -> width, bias=false)
        }
    }
    output logits = dot(x, wte, over width)
}
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "small.cg").write_text(TEXT)
    return load_program(str(tmp_path / "small.cg"), {})


def test_table(program: Program) -> None:
    entries = {entry.key: entry for entry in state_entries(program)}
    q = entries["h.2.attention.q.weight"]
    assert (q.param, q.index, q.shape, q.groups) == ("h.attention.q.w", (2,), (8, 2, 4), ((1, 2), (0,)))
    assert q.stored_shape == (8, 8)
    assert entries["h.0.attention.q.bias"].param == "h.attention.q.b"
    assert entries["h.1.layer_norm.weight"].param == "h.layer_norm.scale"
    assert entries["h.1.again.0.linear.weight"].index == (1, 0)
    assert entries["wte"].groups == ((0,), (1,))


def test_table_is_the_state_dict(program: Program) -> None:
    state = to_torch(program).state_dict()
    assert [entry.key for entry in state_entries(program)] == list(state)
    assert [entry.stored_shape for entry in state_entries(program)] == [
        tuple(tensor.shape) for tensor in state.values()
    ]


def test_there_and_back(program: Program) -> None:
    weights = initialize(program.graph, 3)
    state = to_state(program, weights)
    np.testing.assert_array_equal(state["h.1.attention.q.weight"], weights["h.attention.q.w"][1].reshape(8, 8).T)
    back = from_state(program, state)
    assert list(back) == list(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_what_does_not_fit(program: Program) -> None:
    weights = initialize(program.graph, 3)
    with pytest.raises(ValueError, match="no parameter `wte`"):
        to_state(program, {name: array for name, array in weights.items() if name != "wte"})
    with pytest.raises(ValueError, match="unknown parameter `other`"):
        to_state(program, {**weights, "other": weights["wte"]})
    with pytest.raises(ValueError, match=r"`wte` is \[11, 8\].*not \[8, 11\]"):
        to_state(program, {**weights, "wte": weights["wte"].T})
    state = to_state(program, weights)
    with pytest.raises(ValueError, match=r"`wte` is \[11, 8\], not \[3\]"):
        from_state(program, {**state, "wte": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="no entry `wte`; unknown entry `wte2`"):
        from_state(program, {("wte2" if key == "wte" else key): array for key, array in state.items()})
