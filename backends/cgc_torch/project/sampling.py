"""What a project does with a trained model: `generate.py` samples text, `evaluate.py` runs lm-eval on it, `decode.py`
is the model with a KV cache that the first uses, and `weights.py` reads and writes what they load.
"""

from __future__ import annotations

from cgc.program import Program
from cgc.version import VERSION
from cgc_torch.cached import emit_cached
from cgc_torch.formatting import plain
from cgc_torch.modules import plan
from cgc_torch.project.run import Planned
from cgc_torch.project.template import template


def sampling_files(program: Program, planned: Planned) -> dict[str, str]:
    """Return the files by name; `weights.py` alone for a model without a KV cache."""
    marks = {
        "TITLE": plain(program.name),
        "VERSION": VERSION,
        "CLASS": plan(program).root.name,
        "VOCAB": str(planned.model.vocab),
        "CONTEXT": str(planned.model.context),
    }
    weights = {"weights.py": template("weights.py", marks)}
    decoder = emit_cached(program)
    if decoder is None:
        return weights
    return {"decode.py": decoder, **{n: template(n, marks) for n in ("generate.py", "evaluate.py")}, **weights}
