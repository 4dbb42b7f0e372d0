"""`README.md` and `pyproject.toml` of a project."""

from __future__ import annotations

import json
import re

from cgc.program import Program
from cgc.version import VERSION
from cgc_torch.formatting import plain
from cgc_torch.modules import plan
from cgc_torch.project.run import Planned
from cgc_torch.project.template import template

_FILES = {
    "model.py": "the model, its initial weights, its loss, and the parameter groups of AdamW",
    "train.py": "the training program: recipe, schedule, loop",
    "data.py": "text to a file of tokens, and that file to batches",
    "tokenizer.py": "bytes, or GPT-2's byte-pair encoding",
    "parallel.py": "DDP, FSDP, activation checkpointing, compilation by block",
    "checkpoint.py": "checkpoints that survive being killed",
    "progress.py": "terminal, `log.jsonl`, TensorBoard, `loss.svg`",
    "decode.py": "the model one token after another, with a cache of keys and values",
    "generate.py": "text from a trained model",
    "evaluate.py": "lm-eval on a trained model, with tasks from local files",
    "weights.py": "checkpoints to `model.safetensors`, and both to a model",
}


def readme_text(program: Program, planned: Planned, files: tuple[str, ...]) -> str:
    """Return `README.md`."""
    run = planned.run
    rows = [f"| `{name}` | {_FILES[name]} |" for name in ("model.py", *files) if name in _FILES]
    byte_level = planned.model.vocab < 50257
    prepare = "python data.py input.txt" if byte_level else "python data.py input.txt --bpe vocab.bpe encoder.json"
    few = planned.model.vocab < 256
    below = f"; the model knows those below {planned.model.vocab} only, and `train.py` refuses any other"
    marks = {
        "LIMIT": below if few else ", so any text is data",
        "TITLE": program.name,
        "VERSION": VERSION,
        "SOURCE": f" from `{plain(program.file)}`" if program.file else "",
        "CLASS": plan(program).root.name,
        "PARAMETERS": f"{program.graph.parameter_count:,}",
        "PREPARE": prepare,
        "FILES": "\n".join(rows),
        "STEPS": f"{run.steps:,}",
        "BATCH": f"{run.batch:,}",
        "CONTEXT": f"{run.seq:,}",
        "TOKENS": f"{run.tokens:,}",
        "ASSUMED": _assumed(planned),
    }
    return template("README.md", marks, {"bytes": byte_level})


def _assumed(planned: Planned) -> str:
    if not planned.assumed:
        return "All of it is from the file's `train` item."
    names = ", ".join(f"`{name}`" for name in sorted(planned.assumed))
    return f"The file does not say everything; usual values stand for {names}, and are marked in `train.py`."


def pyproject_text(program: Program, files: tuple[str, ...]) -> str:
    """Return `pyproject.toml`."""
    name = re.sub(r"[^a-z0-9]+", "-", program.name.lower()).strip("-") or "model"
    modules = sorted({name.removesuffix(".py") for name in ("model.py", *files) if name.endswith(".py")})
    marks = {"NAME": name, "MODULES": json.dumps(modules), "TITLE": program.name}
    return template("pyproject.toml", marks)
