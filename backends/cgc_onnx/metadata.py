"""What a model file says about itself: the model, what made it, its licence where the checkpoint names one, and how its
parameters scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgc.checkpoints import CheckpointWeights
from cgc.ir.graph import NOWHERE
from cgc.program import Parametrization, Program
from cgc.version import VERSION

LARGEST_CARD = 1 << 20
"""Bytes of a model card that is looked through."""


def metadata(program: Program, weights: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the file's metadata; values are text."""
    found = {"cgc.file": program.file, "cgc.model": program.name, "cgc.version": VERSION, "cgc.family": program.family}
    if program.arguments:
        found["cgc.sizes"] = json.dumps(dict(program.arguments))
    if program.graph.location != NOWHERE:
        found["cgc.source"] = str(program.graph.location)
    if program.parametrization is not None:
        found["cgc.parametrization"] = json.dumps(_parametrization(program.parametrization))
    folder = checkpoint_folder(weights)
    licence = _licence(folder) if folder else ""
    return {**found, "license": licence} if licence else found


def checkpoint_folder(weights: Mapping[str, Any] | None) -> Path | None:
    """Return the folder that a checkpoint's files lie in."""
    if not isinstance(weights, CheckpointWeights):
        return None
    places = (place for layers in weights.located.values() for place in layers.values())
    first = next(places, None)
    return first.stored.path.parent if first else None


def _parametrization(found: Parametrization) -> dict[str, Any]:
    """Return the table of a parametrization: what it derived for each parameter, and the forward multipliers."""
    return {
        "name": found.name,
        "parameters": [
            {
                "name": setting.name,
                "class": setting.group,
                "multiplier": setting.multiplier,
                "init": str(setting.init),
                "lr": setting.lr,
                "eps": setting.eps,
                "weight_decay": setting.weight_decay,
            }
            for setting in found.params
        ],
        "multipliers": [
            {"path": factor.path, "class": factor.group, "value": factor.value} for factor in found.factors
        ],
    }


def _licence(folder: Path) -> str:
    """Return the `license` in the head of the checkpoint's model card, "" where there is none."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > LARGEST_CARD:
        return ""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    lines = [line.partition(":")[2].strip() for line in head.splitlines() if line.startswith("license:")]
    return lines[0].strip("'\"") if lines else ""
