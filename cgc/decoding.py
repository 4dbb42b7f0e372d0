"""A program for decoding: the model with a cache of keys and values, for sequences of a batch that may start late or
end early.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgc.diagnostics import Diagnostic, InputError, Label
from cgc.ir.dims import Dim, symbol
from cgc.passes.kv_cache import MASK, Cache, Cached, NoCache, with_kv_cache
from cgc.passes.last_position import at_last_position
from cgc.passes.rename_symbols import rename_symbols
from cgc.program import Program

BATCH, SEQ = "batch", "seq"
"""What the free sizes of a program for decoding are called."""


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
    names = _usual_names(cached)
    graph = rename_symbols(cached.graph, names)
    tokens = Dim(cached.tokens.name, symbol(names.get(cached.tokens.name, cached.tokens.name)))
    return Decoding(replace(program, graph=graph), cached.caches, tokens)


def _usual_names(cached: Cached) -> dict[str, str]:
    """Return what the sizes of batch and tokens are called otherwise, where that is free: targets know these names."""
    found = {cached.tokens.name: SEQ}
    mask = next((value for value in cached.graph.inputs if value.name == MASK), None)
    if mask is not None and len(mask.type.dims) == 2:
        found[mask.type.names[0]] = BATCH
    taken = {known.name for known in cached.graph.symbols}
    return {old: new for old, new in found.items() if old in taken and new not in taken}


def only_last_logits(step: Decoding, padded: bool) -> Decoding:
    """Return the program with what the model itself gives for the last token of each sequence only.

    Without `padded`, that is the last of all.

    Raises:
        InputError: CG0804, the model does not say which tokens there are, or gives nothing for each.
    """
    graph, why, hint = step.program.graph, "", ""
    mask = next((value for value in graph.inputs if value.name == MASK), None)
    if padded and mask is None:
        why = "nothing is masked, so that it could not be told which token of a sequence is its last"
        hint = "where all sequences of a batch are equally long, `--unpadded` says so"
    own = graph.outputs[: len(graph.outputs) - len(step.caches)]
    narrow = at_last_position(graph, step.tokens, own, mask if padded else None)
    if not why and [value.type for value in narrow.body.results] == [value.type for value in graph.body.results]:
        why = f"it has no output along `{step.tokens.name}`"
        hint = "leave `--last-logits` away"
    if why:
        text = f"`{step.program.name}` has no last logits: {why}"
        raise InputError([Diagnostic("CG0804", text, (Label(graph.location),), hint)])
    return replace(step, program=replace(step.program, graph=narrow))
