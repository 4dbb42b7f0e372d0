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
    "CG0681": Code(
        "Runs cannot be read",
        "`cgc scaling` reads tables (CSV with a line of column names, JSON lists of objects) that have a `compute` and "
        "a `loss`, and folders of training runs with a `log.jsonl`. `docs/scaling.md` has the fields of each.",
    ),
    "CG0682": Code(
        "A run has an impossible number",
        "Computes, losses, parameters and tokens are finite and above 0. A run that diverged has no loss to fit to: "
        "leave it out.",
    ),
    "CG0683": Code(
        "There are too few runs",
        "A power law has two constants and an irreducible loss is a third; runs at as many different computes, and one "
        "more, are needed before they mean anything.",
    ),
    "CG0684": Code(
        "Runs follow no power law",
        "The loss of these runs does not fall as their compute grows. Mostly a column is another one than it is taken "
        "for, or one of the runs diverged.",
    ),
    "CG0686": Code(
        "A multiplier cannot be folded into weights",
        "Checkpoints of the model hub hold weights and no multipliers: `cgc export-weights` multiplies the weights "
        "instead, and gains and biases where a weight has two uses. A multiplier before something nonlinear, or at one "
        "of two uses of a weight with nothing else to change, has no such form.",
    ),
}
