"""Codes of faults around training runs, scaling laws and exported checkpoints: CG0680 to CG0694."""

from __future__ import annotations

from cgc.diagnostics.code import Code

TRAINING: dict[str, Code] = {
    "CG0680": Code(
        "A training run cannot be counted",
        "Steps, tokens and FLOPs of a run follow from a `train` item: its `tokens` or `steps`, and its `batch`. A "
        "plan without a batch counts tokens, but the time of a step and a training run need one; the length of a "
        "sequence is the model's limit, or `--seq`.",
    ),
}
