"""Which programs are language models: tokens in, logits over the same vocabulary out, so that a loss is known."""

from __future__ import annotations

from dataclasses import dataclass

from cgc.ir.dims import evaluate
from cgc.program import Program


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """One input, tokens [batch, seq] below `vocab`; one output, logits [batch, seq, vocab].

    `context` is the most tokens of a sequence, None where the model sets no limit.
    """

    vocab: int
    context: int | None


def language_model(program: Program) -> LanguageModel | None:
    """Return what is known of a language model, None where `program` is none, or one with other axes."""
    graph = program.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    tokens, logits = graph.inputs[0].type, graph.body.results[0].type
    vocab = tokens.indexes
    if vocab is None or not isinstance(vocab.size, int) or len(tokens.dims) != 2:
        return None
    if logits.dims != (*tokens.dims, vocab) or logits.dtype not in ("f32", "f16", "bf16"):
        return None
    seq = tokens.dims[1].size
    if isinstance(seq, int):
        return LanguageModel(vocab.size, seq)
    limit = next((symbol.limit for symbol in graph.symbols if symbol.name == str(seq)), None)
    return LanguageModel(vocab.size, None if limit is None else evaluate(limit.size, {}))
