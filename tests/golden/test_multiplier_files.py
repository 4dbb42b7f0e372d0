"""Forward multipliers put into graphs, as text: each model as written and with its multipliers.

`CGC_UPDATE=1 pytest` writes the files that come out anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cgc.driver import parametrize_checked
from cgc.elaborate.files import elaborate_file
from cgc.ir.read import parse_graph
from cgc.ir.text import print_graph
from cgc.ir.verify import verify
from cgc.program import Program

FOLDER = Path(__file__).parent / "multipliers"
UPDATE = os.environ.get("CGC_UPDATE") == "1"

HEAD = """model m(vocab = 8, width = 4, heads = 2) {
    dim head = width / heads
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
"""
ATTENTION = """    q = linear(x, width -> heads head, bias=false)
    k = q as [seq -> key]
    output y = attend(q, k, k, over head, seq -> key{})
"""
CASES = {
    # at the top level: a node behind the product
    "top_level": (HEAD + "    output logits = dot(x, embed, over width)\n}\n", ""),
    # only the operand that is a parameter
    "operand": (HEAD + "    output y = rms_norm(x, over width)\n}\n", "multiply y.scale by 3"),
    # into the number that the block's header has
    "folded_into_scale": (HEAD + ATTENTION.format("") + "}\n", ""),
    "folded_into_a_given_scale": (HEAD + ATTENTION.format(", scale=0.5") + "}\n", ""),
    "folded_into_a_divisor": (
        HEAD
        + "    q = linear(x, width -> heads head, bias=false)\n    k = q as [seq -> key]\n"
        + "    output y = compare(q, k, over head)\n}\n\n"
        + "block compare(q, k, over head, by = sqrt(head)) {\n    return dot(q, k, over head) / by\n}\n",
        "",
    ),
    # in front of a library block, which stays what it is
    "hoisted": (HEAD + "    output y = gelu(linear(x, width -> width))\n}\n", "multiply linear.w by 3"),
    # one of two calls
    "one_of_two": (
        HEAD + "    a = linear(x, width -> width)\n    output y = linear(relu(a), width -> width)\n}\n",
        "multiply y.w by 3",
    ),
    # both calls alike: one copy, and the block as written is gone
    "both_alike": (
        HEAD + "    a = half(x)\n    output y = half(relu(a))\n}\n\n"
        "block half(x[..., width]) {\n    param w[width, out] ~ normal(std=0.1)\n"
        "    return dot(x, w, over width) as [out -> width]\n}\n",
        "multiply hidden by 3",
    ),
    # a branch of a residual stream in a loop
    "branch_in_a_loop": (
        HEAD.replace("heads = 2", "heads = 2, layers = 3")
        + "    repeat layers as h {\n        x = x + linear(x, width -> width, bias=false)\n    }\n"
        + "    output y = x\n}\n",
        "parametrization = completep",
    ),
}


def program_of(name: str) -> Program:
    model, line = CASES[name]
    model = model.replace("width = 4,", "width = 4, out = width,") if "out]" in model else model
    layers = ", layers from 1" if "layers" in model else ""
    text = f"{model}\nmup {{\n    scale width from 2{layers}\n    {line}\n}}\n"
    (program,) = parametrize_checked(elaborate_file(text, "model.cg"), "none").programs
    return program


def golden(path: Path, text: str) -> None:
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", CASES)
def test_files(name: str) -> None:
    program = program_of(name)
    assert program.scaling is not None
    golden(FOLDER / f"{name}.in.ir", print_graph(program.scaling.own))
    after = print_graph(verify(program.graph))
    golden(FOLDER / f"{name}.out.ir", after)
    assert print_graph(parse_graph(after)) == after


def test_no_file_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.{way}.ir" for name in CASES for way in ("in", "out")}
