"""The loss of a language model: the mean cross-entropy of its logits over the next tokens, in nats.

Before:
    input %tokens : i64[batch, seq] of vocab=8
    %logits : f32[batch, seq, vocab=8] = dot %x, %wte {"over": ["width"]} ; logits
    output logits = %logits

After:
    input %tokens : i64[batch, seq] of vocab=8
    input %targets : i64[batch, seq] of vocab=8
    %logits : f32[batch, seq, vocab=8] = dot %x, %wte {"over": ["width"]} ; logits
    %largest : f32[batch, seq] = reduce %logits {"kind": "max", "over": ["vocab"]} ; loss
    %shifted : f32[batch, seq, vocab=8] = binary %logits, %largest {"kind": "sub"} ; loss
    %unary : f32[batch, seq, vocab=8] = unary %shifted {"kind": "exp"} ; loss
    %reduce : f32[batch, seq] = reduce %unary {"kind": "sum", "over": ["vocab"]} ; loss
    %normalizer : f32[batch, seq] = unary %reduce {"kind": "log"} ; loss
    %chosen : f32[batch, seq] = gather %shifted, %targets {"dim": "vocab"} ; loss
    %binary : f32[batch, seq] = binary %normalizer, %chosen {"kind": "sub"} ; loss
    %loss : f32[] = reduce %binary {"kind": "mean", "over": ["batch", "seq"]} ; loss
    output loss = %loss

The largest logit is subtracted so that nothing overflows; logits of 16 bit are taken to 32 first.
"""

from __future__ import annotations

from dataclasses import replace

from cgc.ir.builder import Builder
from cgc.ir.dims import Dim
from cgc.ir.graph import Graph, Region, Value
from cgc.ir.ops import Binary, Gather, Reduce, Unary
from cgc.ir.types import is_float
from cgc.passes.copying import names_of, no_function
from cgc.passes.emitter import Emitter

LOSS = "loss"
TARGETS = "targets"


class NotALanguageModel(ValueError):
    """No output of the graph gives logits over what an input indexes."""


def with_loss(graph: Graph) -> Graph:
    """Return `graph` with the loss as its only output, and after its inputs one of the tokens' type, `targets`.

    Raises:
        NotALanguageModel: the graph has no tokens, or not logits for each of them.
    """
    logits, tokens, vocab = _logits(graph)
    names = names_of(graph)
    targets = Value(names.fresh(TARGETS), tokens.type)
    emit = Emitter(Builder(names, no_function))
    emit.at(LOSS, graph.location)
    wide = emit.cast(logits, "f32") if logits.type.dtype in ("f16", "bf16") else logits
    over = (vocab.name,)
    shifted = emit.one(Binary("sub"), wide, emit.one(Reduce("max", over), wide, wish="largest"), wish="shifted")
    total = emit.sum(emit.unary("exp", shifted), over)
    normalizer = emit.one(Unary("log"), total, wish="normalizer")
    chosen = emit.one(Gather(vocab.name), shifted, targets, wish="chosen")
    each = emit.binary("sub", normalizer, chosen)
    loss = emit.one(Reduce("mean", each.type.names), each, wish=LOSS)
    arguments = (*graph.inputs, targets, *(param.value for param in graph.params))
    body = Region(arguments, (*graph.body.nodes, *emit.nodes()), (loss,))
    return replace(graph, body=body, outputs=(LOSS,))


def _logits(graph: Graph) -> tuple[Value, Value, Dim]:
    """Return the logits, the tokens they are for, and the vocabulary."""
    found: list[tuple[Value, Value, Dim]] = []
    for tokens in graph.inputs:
        vocab = tokens.type.indexes
        if vocab is None:
            continue
        for value in graph.body.results:
            if is_float(value.type.dtype) and set(value.type.dims) == {*tokens.type.dims, vocab}:
                found.append((value, tokens, vocab))
    if len(found) != 1:
        what = "several outputs that give" if found else "no output that gives"
        raise NotALanguageModel(f"`{graph.name}` has {what} logits over what an input indexes, for each of its entries")
    return found[0]
