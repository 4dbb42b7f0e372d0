"""A program for decoding: every layer written out, with a cache of keys and values of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cgc.diagnostics import Diagnostic, InputError, Label
from cgc.passes.kv_cache import Cache, NoCache, with_kv_cache
from cgc.passes.unroll import unroll
from cgc.program import Program


@dataclass(frozen=True, slots=True)
class Decoding:
    """A program whose inputs end in the caches `past.…` [batch, past, …], and whose outputs end in `present.…`.

    Its parameters are those of the model, layer by layer: `h.w` becomes `h.0.w`, `h.1.w`, …
    """

    program: Program
    caches: tuple[Cache, ...]

    def weights(self, stacked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's arrays by path as those of this program: slices of what was stacked."""
        return {param.name: _slice(param.name, stacked) for param in self.program.graph.params}


def decoding(program: Program) -> Decoding:
    """Return a program for decoding (InputError, CG0804: its model cannot be decoded step by step)."""
    try:
        cached = with_kv_cache(unroll(program.graph))
    except NoCache as error:
        hint = "a cache holds what is renamed from the tokens' dimension, as keys and values are: `as [seq -> key]`"
        labels = (Label(program.graph.location),)
        text = f"there is no KV cache for `{program.name}`: {error}"
        raise InputError([Diagnostic("CG0804", text, labels, hint)]) from error
    return Decoding(replace(program, graph=cached.graph, checkpoint=None), cached.caches)


def _slice(name: str, stacked: Mapping[str, Any]) -> Any:
    parts = name.split(".")
    if name in stacked:
        return stacked[name]
    index = tuple(int(part) for part in parts if part.isdigit())
    return stacked[".".join(part for part in parts if not part.isdigit())][index]
