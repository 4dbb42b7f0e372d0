"""A program for decoding: the model with a cache of keys and values, for sequences that may start late in a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgc.diagnostics import Diagnostic, InputError, Label
from cgc.ir.dims import Dim
from cgc.passes.kv_cache import MASK, Cache, NoCache, with_kv_cache
from cgc.passes.last_position import at_last_position
from cgc.program import Program


@dataclass(frozen=True, slots=True)
class Decoding:
    """A program whose inputs end in the caches `past.…`, and whose outputs end in `present.…`.

    Its parameters are those of the model, so that the model's weights are its own. New tokens are along `tokens`.
    """

    program: Program
    caches: tuple[Cache, ...]
    tokens: Dim


def decoding(program: Program) -> Decoding:
    """Return a program for decoding (InputError, CG0804: its model cannot be decoded step by step)."""
    try:
        cached = with_kv_cache(program.graph, padded=True)
    except NoCache as error:
        hint = "a cache holds what is renamed from the tokens' dimension, as keys and values are: `as [seq -> key]`"
        labels = (Label(program.graph.location),)
        text = f"there is no KV cache for `{program.name}`: {error}"
        raise InputError([Diagnostic("CG0804", text, labels, hint)]) from error
    return Decoding(replace(program, graph=cached.graph), cached.caches, cached.tokens)


def only_last_logits(step: Decoding, padded: bool) -> Decoding:
    """Return the program with what the model itself gives for the last token of each sequence only.

    Without `padded`, that is the last of all.
    """
    graph = step.program.graph
    mask = next((value for value in graph.inputs if value.name == MASK), None)
    own = graph.outputs[: len(graph.outputs) - len(step.caches)]
    narrow = at_last_position(graph, step.tokens, own, mask if padded else None)
    return replace(step, program=replace(step.program, graph=narrow))
