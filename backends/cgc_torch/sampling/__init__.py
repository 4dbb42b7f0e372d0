"""What an emitted project does with a trained model: `generate.py` samples text, `evaluate.py` runs lm-eval on it, and
`weights.py` reads and writes what they load. The texts lie in `templates/`.
"""

from __future__ import annotations

import re
from importlib.resources import files

from cgc.ir.dims import evaluate
from cgc.program import Program
from cgc.version import VERSION
from cgc_torch.cached import TOKENS, emit_cached
from cgc_torch.formatting import plain
from cgc_torch.modules import plan

__all__ = ["sampling_files"]


def sampling_files(program: Program) -> dict[str, str]:
    """Return the files by name: `decode.py`, `generate.py`, `evaluate.py`, `weights.py`; none for a model without a
    KV cache, or whose output is not one tensor of logits over its tokens' vocabulary.
    """
    graph = program.graph
    vocab = graph.inputs[0].type.indexes if len(graph.inputs) == 1 else None
    if vocab is None or not isinstance(vocab.size, int) or len(graph.outputs) != 1:
        return {}
    if graph.body.results[0].type.names != (*graph.inputs[0].type.names, vocab.name):
        return {}
    decoder = emit_cached(program)
    if decoder is None:
        return {}
    limit = next((symbol.limit for symbol in graph.symbols if symbol.name == TOKENS), None)
    marks = {
        "TITLE": plain(program.name),
        "VERSION": VERSION,
        "CLASS": plan(program).root.name,
        "VOCAB": str(vocab.size),
        "CONTEXT": "None" if limit is None else str(evaluate(limit.size, {})),
    }
    texts = {name: _filled(name, marks) for name in ("generate.py", "evaluate.py", "weights.py")}
    return {"decode.py": decoder, **texts}


def _filled(name: str, marks: dict[str, str]) -> str:
    source = files("cgc_torch.sampling").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda mark: marks[mark[1]], source)
