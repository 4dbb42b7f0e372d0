"""Only the last logits: those of the whole at the last token of each sequence, wherever padding stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from decodable_models import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

from cgc.decoding import decoding, only_last_logits
from cgc.diagnostics import InputError
from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.graph import Graph, walk
from cgc.ir.ops import Call
from cgc.ir.verify import verify
from cgc.program import Program
from cgc.weights import initialize

MODEL = """model m(vocab = 11, width = 8) {
    input tokens[batch, seq <= 16] : id of vocab
    param table[vocab, width] ~ normal(std=1)
    x = table[tokens]
    k = x as [seq -> key]
    scores = dot(x, k, over width)
    hidden = MASKED
    w = exp(hidden - max(hidden, over key))
    y = dot(w / sum(w, over key), k, over key)
    OUTPUTS
}
block unembed(x[batch, seq, width]) {
    inner = linear(x, width -> width, std=1)
    return linear(inner, width -> vocab, std=1) * 0.5
}
"""
MASKED = "where(position(key) <= position(seq), scores, -infinity)"
WITH = {
    "scaled": "output logits = 0.5 * dot(y, table, over width)",
    "a sum over the batch": "output logits = dot(y, table, over width) + dot(y, x, over batch width)",
    "a sum over the batch alone": "output logits = dot(y, table, over width) + sum(y * x, over batch width)",
    "several": "output logits = dot(y, table, over width)\n    output hidden = y",
    "other orders": "output logits[vocab, seq, batch] = dot(y, table, over width)",
    "one twice": "output logits = dot(y, table, over width) * dot(y * 2, table, over width)",
    "a block": "output logits = unembed(y)",
    "a block that is used again": "z = unembed(y)\n    output logits = z\n    output more = sum(z, over vocab)",
    "no contraction": "output logits = y",
}


def program_of(text: str) -> Program:
    (program,) = elaborate_file(text, "m.cg").programs
    return program


def model(outputs: str, masked: str = MASKED) -> Program:
    return program_of(MODEL.replace("OUTPUTS", outputs).replace("MASKED", masked))


def run(graph: Graph, program: Program, tokens: Any, mask: Any) -> dict[str, Any]:
    given = {"tokens": tokens, "attention_mask": mask, "position_ids": np.maximum(mask.cumsum(1) - 1, 0)}
    sizes = {"batch": len(tokens), "past": 0}
    for value in graph.inputs:
        if value.name not in given:
            given[value.name] = np.zeros([int(str(sizes.get(str(dim.size), dim.size))) for dim in value.type.dims])
    names = {value.name for value in graph.inputs}
    inputs = {name: array for name, array in given.items() if name in names}
    return interpret(graph, initialize(program.graph, 0), inputs, np.float64)


PROGRAMS = {**{name: program_of(text) for name, text in MODELS.items()}, **{n: model(text) for n, text in WITH.items()}}


@pytest.mark.parametrize("name", PROGRAMS)
@settings(deadline=None, max_examples=6, derandomize=True)
@given(st.data())
def test_the_last_logits_are_those_of_the_whole(name: str, data: st.DataObject) -> None:
    program = PROGRAMS[name]
    step = decoding(program)
    padded = data.draw(st.booleans())
    narrow = only_last_logits(step, padded).program.graph
    verify(narrow)
    length = data.draw(st.integers(1, 7))
    tokens = np.random.default_rng(length).integers(0, 11, (3, length))
    mask = np.ones((3, length), np.int64)
    if padded:
        mask[1, : data.draw(st.integers(0, length - 1))] = 0
        mask[2, length - data.draw(st.integers(0, length - 1)) :] = 0
    last = [int(np.flatnonzero(row)[-1]) for row in mask]
    whole, found = (run(graph, program, tokens, mask) for graph in (step.program.graph, narrow))
    for output, result in zip(program.graph.outputs, program.graph.body.results, strict=True):
        axes = [result.type.names.index(name) for name in ("batch", "seq")]
        every, got = (np.moveaxis(each[output], axes, (0, 1)) for each in (whole, found))
        assert got.shape == (3, 1, *every.shape[2:])
        assert np.allclose(got[:, 0], every[np.arange(3), last], rtol=1e-9, atol=1e-9)


def test_a_block_that_makes_the_logits_is_opened() -> None:
    narrow = only_last_logits(decoding(PROGRAMS["a block"]), padded=True).program.graph
    largest = max(int(dim.size) for node in walk(narrow.body) for dim in node.output.type.dims if dim.name == "vocab")
    made = [node for node in walk(narrow.body) for v in node.outputs if v.type.has("vocab") and v.type.has("seq")]
    assert largest == 11 and not made
    assert not any(isinstance(node.op, Call) and node.op.function.startswith("unembed") for node in walk(narrow.body))


def test_what_has_no_last_logits_is_said() -> None:
    logits = "output logits = dot(y, table, over width)"
    unmasked = decoding(model(logits, "scores - 1e9 * cast(position(key) > position(seq), f32)"))
    with pytest.raises(InputError, match="which token of a sequence is its last"):
        only_last_logits(unmasked, padded=True)
    assert only_last_logits(unmasked, padded=False).program.graph.body.results[0].type.has("last")
    with pytest.raises(InputError, match="no output along `seq`"):
        only_last_logits(decoding(model("output other = sum(table, over vocab)")), padded=False)


def test_positions_that_go_out_are_no_positions_of_one_sequence() -> None:
    with pytest.raises(InputError, match="made of positions only"):
        decoding(model("output logits = dot(y, table, over width)\n    output where_ = position(seq)"))
