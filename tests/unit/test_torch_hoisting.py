"""What depends on no input and no weight is made once in a call of the model, and handed to all that use it."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cgc_torch.cached import emit_cached
from cgc_torch.live import to_torch
from cgc_torch.source import emit, model_class
from torch.overrides import TorchFunctionMode

from cgc.elaborate.files import elaborate_file
from cgc.interpret import interpret
from cgc.ir.graph import Region
from cgc.ir.ops import Constant
from cgc.program import Program
from cgc.weights import initialize, random_inputs

HEAD = """use std/nn
use std/attention
use std/positions

model m(vocab = 13, context = 12, width = 16, heads = 2) {
    dim head = width / heads
    input tokens[batch, seq <= context] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = embed[tokens]
"""
TAIL = "\n    output logits = dot(x, embed, over width)\n}\n"
MIX = """
block mix(x[batch, seq, width], base = 10000) {
    q = rope(linear(x, width -> heads head), along seq, over head, base=base)
    k = rope(linear(x, width -> heads head), along seq, over head, base=base) as [seq -> key]
    v = linear(x, width -> heads head) as [seq -> key]
    return linear(attend(q, k, v, over head, seq -> key), heads head -> width)
}
"""
BIASED = """
block biased(x[batch, seq, width]) {
    q = linear(x, width -> heads head)
    k = linear(x, width -> head) as [seq -> key]
    return linear(attend_with_bias(q, k, k, alibi(seq, key, heads), over head, seq -> key), heads head -> width)
}
"""
LOOKED_BACK = """
block look_back(x[batch, seq, width]) {
    k = x as [seq -> past]
    scores = dot(x, k, over width) - faded(cast(position(past), f32))
    seen = where(position(past) <= position(seq), scores, -infinity)
    return dot(softmax(seen, over past), k, over past)
}

block faded(far[past]) {
    return far * slower(cast(position(past), f32))
}

block slower(far[past]) {
    return exp(-0.1 * far) * exp(-0.2 * cast(position(past), f32))
}
"""
STEPPED = """
block stepped(x[batch, seq, width]) {
    return rope(x, along seq, over width) * scaled(x)
}

block scaled(x[batch, seq, width]) {
    return mean(x, over width) * exp(-0.1 * cast(position(seq), f32))
}
"""
MODELS = {
    "a loop of rotary attention": HEAD + "repeat 3 as h {\n x = x + mix(x, base=100)\n}" + TAIL + MIX,
    "two bases": HEAD
    + "repeat 2 as near {\n x = x + mix(x, base=100)\n}\nrepeat 2 as far {\n x = x + mix(x, base=5000)\n}"
    + TAIL
    + MIX,
    "loops in loops": HEAD
    + "repeat 2 as outer {\n repeat 2 as inner {\n x = x + mix(x, base=9)\n }\n x = rope(x, along seq, over width)\n}"
    + TAIL
    + MIX,
    "biases of distances": HEAD + "repeat 3 as h {\n x = x + biased(x)\n}" + TAIL + BIASED,
    "masks, and functions of tables": HEAD + "repeat 2 as h {\n x = x + look_back(x)\n}" + TAIL + LOOKED_BACK,
    "blocks without weights, twice": HEAD + "x = stepped(x)\n    x = stepped(x)" + TAIL + STEPPED,
    "part of each head": "use std/gpt_neox\nmodel m = gpt_neox(vocab=13, context=12, layers=2, width=32, heads=2)\n",
}
MADE_ONCE = {
    "a loop of rotary attention": {"cos": 1, "sin": 1, "pow": 1},
    "two bases": {"cos": 2, "sin": 2, "pow": 2},
    "loops in loops": {"cos": 2, "sin": 2, "pow": 2},
    "biases of distances": {"pow": 2, "le": 1},
    "masks, and functions of tables": {"exp": 2, "le": 1},
    "blocks without weights, twice": {"cos": 1, "sin": 1, "exp": 1},
    "part of each head": {"cos": 1, "sin": 1, "pow": 1},
}


class _Counted(TorchFunctionMode):
    """Counts the calls of PyTorch's functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls[func.__name__] = self.calls.get(func.__name__, 0) + 1
        return func(*args, **(kwargs or {}))


def _program(name: str) -> Program:
    return elaborate_file(MODELS[name], "m.cg").programs[0]


@pytest.mark.parametrize("name", MODELS)
def test_tables_are_made_once(name: str) -> None:
    program = _program(name)
    weights = initialize(program.graph, 0)
    module = to_torch(program, weights)
    inputs = random_inputs(program.graph, {"batch": 2, "seq": 7}, seed=0)
    with _Counted() as counted, torch.no_grad():
        found = module(torch.from_numpy(inputs["tokens"]).long())
    assert {op: counted.calls.get(op, 0) for op in MADE_ONCE[name]} == MADE_ONCE[name]
    np.testing.assert_allclose(found, interpret(program.graph, weights, inputs)["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in MODELS if "without weights" not in name])
def test_also_while_decoding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of the new tokens' positions, whatever came before: as the whole sequence gives."""
    program = _program(name)
    (tmp_path / "model.py").write_text(emit(program))
    code = emit_cached(program)
    assert code is not None
    (tmp_path / "decode.py").write_text(code)
    model, decode = (_imported(tmp_path, part, monkeypatch) for part in ("model", "decode"))
    torch.manual_seed(0)
    module = getattr(model, model_class(program))()
    tokens = torch.randint(0, 13, (2, 9))
    cache, parts = decode.Cache(), []
    for first, end in ((0, 5), (5, 6), (6, 9)):
        with _Counted() as counted:
            parts.append(decode.decode(module, tokens[:, first:end], cache))
        once = {op: count for op, count in MADE_ONCE[name].items() if op != "le"}
        assert {op: counted.calls.get(op, 0) for op in once} == once
    torch.testing.assert_close(torch.cat(parts, dim=1), module(tokens).detach(), rtol=1e-4, atol=1e-5)


def _imported(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_blocks_take_the_tables_by_name() -> None:
    source = emit(_program("a loop of rotary attention"))
    assert "def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:" in source
    assert source.count("rope_tables(") == 2  # its definition, and the model's call
    two = emit(_program("two bases"))
    assert "cos_2, sin_2 = rope_tables(" in two


def test_what_is_made_once_anyway_stays_where_it_is() -> None:
    """A table that one block uses once is no argument: nothing is to be saved."""
    text = HEAD + "x = rope(x, along seq, over width)" + TAIL
    source = emit(elaborate_file(text, "m.cg").programs[0])
    assert source.count("rope_tables(") == 2
    text = HEAD + "x = look_back(x)" + TAIL + LOOKED_BACK
    source = emit(elaborate_file(text, "m.cg").programs[0])
    assert "mask: Tensor" not in source


def test_zeros_of_either_sign_are_two_constants() -> None:
    """Also where a pass made them, so that they do not say how they were written."""
    block = "block NAME(x[batch, seq, width]) {\n return x + min(1 / (ZERO * (cast(position(seq), f32) + 1)), 1)\n}\n"
    text = HEAD + "repeat 2 as h {\n x = below(x)\n}\nrepeat 2 as g {\n x = above(x)\n}" + TAIL
    text += block.replace("NAME", "below").replace("ZERO", "(-0.0)") + block.replace("NAME", "above").replace(
        "ZERO", "0.0"
    )
    program = elaborate_file(text, "m.cg").programs[0]
    bare = tuple(replace(function, body=_unwritten(function.body)) for function in program.graph.functions)
    source = emit(replace(program, graph=replace(program.graph, functions=bare)))
    assert "-0.0 * total" in source and " 0.0 * total" in source.replace("(", " ")


def _unwritten(region: Region) -> Region:
    """Return a region whose constants do not know how they were written."""
    nodes = [replace(n, op=replace(n.op, text="")) if isinstance(n.op, Constant) else n for n in region.nodes]
    return replace(region, nodes=tuple(nodes))


def test_halves_of_a_model_in_16_bits_keep_their_type() -> None:
    """Angles are of 32 bits; q and k, which attention wants in the type of v, stay of 16."""
    module = to_torch(_program("a loop of rotary attention")).bfloat16()
    assert module(torch.randint(0, 13, (2, 5))).dtype == torch.bfloat16
