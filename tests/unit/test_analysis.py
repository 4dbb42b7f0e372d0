"""Work and memory of whole models against closed forms derived by hand from the papers' equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_graphs import BATCH, NESTED, SEQ, A, B, C, build, one, program, tensor

import cgc
from cgc.analysis.flops import (
    Work,
    block_work,
    forward_work,
    iteration_space,
    node_work,
    training_flops,
)
from cgc.analysis.memory import Memory, Precision, memory, saved_bytes
from cgc.ir.builder import Builder
from cgc.ir.dims import Dim, evaluate, multiply, symbol
from cgc.ir.graph import Graph, Value
from cgc.ir.ops import (
    Binary,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Op,
    Position,
    Reduce,
    Rename,
    Scan,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)
from cgc.ir.types import TensorType

EXAMPLES = Path(__file__).parents[2] / "examples"
T = tensor


@dataclass(frozen=True)
class Gpt2:
    """Sizes of a GPT-2, and what follows from them."""

    vocab: int
    context: int
    layers: int
    width: int
    heads: int
    ffn: int

    def graph(self) -> Graph:
        sizes = ", ".join(f"{name}={value}" for name, value in self.__dict__.items())
        return program(f"use std/gpt2\nmodel m = gpt2({sizes})\n").graph

    def params(self) -> int:
        attention = 4 * self.width**2 + 4 * self.width
        mlp = 2 * self.width * self.ffn + self.ffn + self.width
        norms = 2 * 2 * self.width
        return (self.vocab + self.context) * self.width + self.layers * (attention + mlp + norms) + 2 * self.width

    def matmul(self, batch: int, seq: int) -> int:
        """Return forward operations: two for each weight and token, and QKᵀ and its product with V."""
        per_token = 2 * (4 * self.width**2 + 2 * self.width * self.ffn) + 2 * 2 * seq * self.width
        return batch * seq * (self.layers * per_token + 2 * self.vocab * self.width)

    def other(self, batch: int, seq: int) -> int:
        """Return elementwise operations and reductions, line by line of the library."""
        norm = 7 * self.width + 2  # two means, a difference, a square, a product, scale, bias; eps and rsqrt once
        attention = 4 * self.width + 7 * self.heads * seq  # biases; scale, mask, and five for softmax
        mlp = self.ffn + 5 * self.ffn + self.width  # bias; gelu has five; bias
        per_token = self.layers * (2 * norm + attention + mlp + 2 * self.width) + norm + self.width
        return batch * seq * per_token + self.layers * seq * seq  # the mask compares positions once

    def saved(self, batch: int, seq: int) -> int:
        """Return bytes of all results in 16 bit: views count nothing, the mask one byte an entry."""
        tokens = batch * seq
        norm = tokens * (5 * self.width + 4)
        scores = tokens * self.heads * seq
        attention = tokens * 9 * self.width + 6 * scores + 2 * tokens * self.heads
        mlp = tokens * (7 * self.ffn + 2 * self.width)
        layer = 2 * norm + attention + mlp + 2 * tokens * self.width
        ends = 2 * tokens * self.width + seq * self.width + norm + tokens * self.vocab
        return 2 * (self.layers * layer + ends) + self.layers * seq * seq


MODELS = [
    Gpt2(vocab=17, context=12, layers=2, width=8, heads=2, ffn=32),
    Gpt2(vocab=31, context=9, layers=3, width=12, heads=3, ffn=20),
    Gpt2(vocab=50257, context=1024, layers=12, width=768, heads=12, ffn=3072),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"width{model.width}")
@pytest.mark.parametrize(("batch", "seq"), [(1, 1), (3, 7)])
def test_gpt2(model: Gpt2, batch: int, seq: int) -> None:
    graph, sizes = model.graph(), {"batch": batch, "seq": seq}
    assert graph.parameter_count == model.params()
    assert forward_work(graph).at(sizes) == (model.matmul(batch, seq), model.other(batch, seq))
    assert training_flops(graph, sizes) == 3 * model.matmul(batch, seq)
    used = memory(graph, sizes)
    assert (used.weights, used.gradients, used.optimizer) == tuple(model.params() * n for n in (2, 2, 12))
    assert used.saved == model.saved(batch, seq)
    assert used.training == 16 * model.params() + model.saved(batch, seq)


def test_gpt2_small_in_figures() -> None:
    graph = cgc.load(EXAMPLES / "gpt2_small.cg").graph
    assert graph.parameter_count == 124_439_808
    # 169,869,312 in the layers' weights, 37,748,736 in attention, 77,194,752 in the output matrix, each token
    assert forward_work(graph).at({"batch": 1, "seq": 1024})[0] == 1024 * 284_812_800


@pytest.mark.parametrize(("kv_heads", "heads"), [(4, 4), (2, 4), (1, 4)])
def test_llama(kv_heads: int, heads: int) -> None:
    vocab, context, layers, width, ffn = 29, 16, 3, 16, 40
    text = f"vocab={vocab}, context={context}, layers={layers}, width={width}, ffn={ffn}"
    graph = program(f"use std/llama\nmodel m = llama({text}, heads={heads}, kv_heads={kv_heads})\n").graph
    narrow = kv_heads * (width // heads)
    weights = 2 * width * width + 2 * width * narrow + 3 * width * ffn
    assert graph.parameter_count == 2 * vocab * width + layers * (weights + 2 * width) + width
    for batch, seq in ((1, 1), (2, 5)):
        per_token = layers * (2 * weights + 4 * seq * width) + 2 * vocab * width
        assert forward_work(graph).at({"batch": batch, "seq": seq})[0] == batch * seq * per_token


def test_llama_8b_in_figures() -> None:
    graph = cgc.load(EXAMPLES / "llama_8b.cg").graph
    assert graph.parameter_count == 8_030_261_248
    # without the embedding 7,504,658,432 weights in products (norms are none); attention 4 · 32 · 4096 a key
    weights = 8_030_261_248 - 128_256 * 4096 - 65 * 4096
    assert forward_work(graph).at({"batch": 1, "seq": 8192})[0] == 8192 * (2 * weights + 4 * 32 * 4096 * 8192)


W: list[tuple[Op, list[TensorType], int, int]] = [
    (Dot(("b",)), [T(A, B), T(B, C)], 2 * 2 * 3 * 4, 0),
    (Dot(("b",)), [T(A, B), T(C, A, B)], 2 * 2 * 3 * 4, 0),
    (Dot(()), [T(A), T(B)], 2 * 2 * 3, 0),
    (Dot(("a",)), [T(A), T(A)], 2 * 2, 0),
    (Unary("exp"), [T(A, B)], 0, 6),
    (Binary("add"), [T(A), T(B)], 0, 6),
    (Where(), [T(C, dtype="bool"), T(A), T()], 0, 8),
    (Reduce("mean", ("b",)), [T(A, B)], 0, 6),
    (Scan("b"), [T(A, B)], 0, 6),
    (TopK("b", Dim("k", 1)), [T(A, B)], 0, 6),
    (Constant(1.0, "f32"), [], 0, 0),
    (Position(A), [], 0, 0),
    (Cast("f16"), [T(A)], 0, 0),
    (Gather("a"), [T(A, B), T(C, dtype="i64")], 0, 0),
    (Rename((("a", "z"),)), [T(A)], 0, 0),
    (Transpose(("b", "a")), [T(A, B)], 0, 0),
    (Split("c", (Dim("l", 2), Dim("r", 2))), [T(C)], 0, 0),
    (Merge(("a", "b"), "n"), [T(A, B)], 0, 0),
    (Slice("b", 0, Dim("p", 2)), [T(B)], 0, 0),
    (Concat(("a", "b"), "n"), [T(A), T(B)], 0, 0),
]


@pytest.mark.parametrize(("op", "operands", "matmul", "other"), W, ids=[type(case[0]).__name__ for case in W])
def test_work_of_one_node(op: Op, operands: list[TensorType], matmul: int, other: int) -> None:
    (node,) = one(op, *operands).body.nodes
    assert node_work(node) == Work(matmul, other)
    assert node_work(node).total == matmul + other


def test_iteration_spaces() -> None:
    def space(op: Op, *operands: TensorType) -> tuple[set[str], set[str]]:
        (node,) = one(op, *operands).body.nodes
        dims, reduced = iteration_space(node)
        return {dim.name for dim in dims}, set(reduced)

    assert space(Dot(("b",)), T(A, B), T(B, C)) == ({"a", "b", "c"}, {"b"})
    assert space(Reduce("sum", ("a",)), T(A, B)) == ({"a", "b"}, {"a"})
    assert space(Binary("add"), T(A), T(B)) == ({"a", "b"}, set())
    assert space(Gather("a"), T(A, B), T(C, dtype="i64")) == ({"b", "c"}, set())


def test_loops_multiply_and_rows_add_up() -> None:
    graph = program(NESTED).graph
    sizes = {"batch": 5}
    linear = 5 * 2 * 4 * 4
    assert forward_work(graph).at(sizes)[0] == 3 * linear + 2 * 2 * linear
    rows = {row.path: row for row in block_work(graph)}
    assert [rows[path].times for path in ("o", "o.linear", "o.i", "o.i.mixed", "z", "z.t.linear")] == [3, 3, 6, 6, 1, 2]
    assert rows["o.linear"].work.at(sizes) == (linear, 5 * 4)
    assert rows["o.linear"].params == 4 * 4 + 4
    assert rows["o.i.mixed"].params == 3 * 4
    assert rows["o"].params == 4 * 4 + 4 + 2 * 3 * 4
    assert (rows["o.i.mixed"].block, rows["o"].block, rows["o"].depth) == ("mixed", "repeat", 0)
    top = block_work(graph, 0)
    assert {row.depth for row in top} == {0}
    assert sum(evaluate(row.work.matmul, sizes) * evaluate(row.times, sizes) for row in top) == 7 * linear


def test_loose_products_have_a_row() -> None:
    rows = block_work(MODELS[0].graph(), 0)
    assert [(row.path, row.block) for row in rows] == [("h", "repeat"), ("ln_f", "layer_norm"), ("logits", "dot")]


def test_work_stays_symbolic() -> None:
    work = forward_work(one(Dot(("a",)), T(BATCH, SEQ, A), T(A, C)))
    assert work == Work(multiply(16, multiply(symbol("batch"), symbol("seq"))), 0)
    assert work.times(3).plus(Work(1, 2)).at({"batch": 2, "seq": 5}) == (481, 2)


def chain(length: int) -> Graph:
    """Return a graph of exponentials one after another."""

    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        value = inputs[0]
        for _turn in range(length):
            value = builder.one(Unary("exp"), value)
        return [value]

    return build(body, {"x": T(BATCH, C)})


def test_peak_is_two_neighbours_of_a_chain_and_saved_is_all() -> None:
    for length, peak in ((1, 1), (2, 2), (9, 2)):
        used = memory(chain(length), {"batch": 10}, Precision(activation=2))
        assert (used.saved, used.peak) == (length * 80, peak * 80)


def test_peak_counts_what_is_needed_later() -> None:
    def body(builder: Builder, inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
        first = builder.one(Unary("exp"), inputs[0])
        second = builder.one(Unary("exp"), first)
        third = builder.one(Unary("exp"), second)
        return [builder.one(Binary("add"), first, third)]

    # first, second and third are live at once; then first, third and the sum
    assert memory(build(body, {"x": T(C)}), {}).peak == 3 * 4 * 2


@pytest.mark.parametrize(
    ("op", "operands", "saved"),
    [
        (Rename((("a", "z"),)), [T(A)], 0),
        (Split("c", (Dim("l", 2), Dim("r", 2))), [T(C)], 0),
        (Constant(1.0, "f32"), [], 0),
        (Position(A), [], 0),
        (Merge(("b", "a"), "n"), [T(A, B)], 2 * 6),
        (Unary("exp"), [T(A, B)], 2 * 6),
        (Binary("lt"), [T(A, B), T()], 1 * 6),
        (Cast("i64"), [T(A)], 8 * 2),
        (TopK("b", Dim("k", 2)), [T(B)], (2 + 8) * 2),
    ],
    ids=lambda case: type(case).__name__,
)
def test_saved_bytes_of_one_node(op: Op, operands: list[TensorType], saved: int) -> None:
    assert memory(one(op, *operands), {}).saved == saved


def test_precision() -> None:
    graph = MODELS[0].graph()
    sizes = {"batch": 2, "seq": 3}
    full = memory(graph, sizes, Precision(4, 4, 8, 4))
    count = MODELS[0].params()
    mask = MODELS[0].layers * 3 * 3
    assert (full.weights, full.gradients, full.optimizer) == (4 * count, 4 * count, 8 * count)
    assert full.saved - mask == 2 * (MODELS[0].saved(2, 3) - mask)
    assert Memory(1, 2, 3, 4, 5).training == 10


def test_saved_bytes_by_block_add_up() -> None:
    graph, sizes = MODELS[1].graph(), {"batch": 2, "seq": 5}
    rows = saved_bytes(graph, sizes)
    assert sum(rows.values()) == memory(graph, sizes).saved == MODELS[1].saved(2, 5)
    assert rows["ln_f"] == 2 * 10 * (5 * 12 + 4)
    assert rows["h.mlp"] == 3 * 2 * 10 * (7 * 20 + 2 * 12)
    assert rows["logits"] == 2 * 10 * 31
