"""The folder that a model is written to: nothing in it that is not a model of ours is lost."""

from __future__ import annotations

import filecmp
from pathlib import Path

from cgc.target import Artifact, TargetError
from cgc_onnx.deployment import CONFIGURATIONS, TOKENIZER

MODEL = "model.onnx"
DATA = "model.onnx.data"
BESIDE = frozenset({DATA, "model.safetensors", *CONFIGURATIONS, *TOKENIZER})
"""What may lie beside a model; of a checkpoint in several files there are others too."""
PRODUCER = "cgc"
_FIRST = 32
"""Bytes of a model in which its producer's name is, behind the version of the format."""


def guarded(artifact: Artifact) -> Artifact:
    """Return an artifact that is not written in place of another file, but where the folder's model is one of ours.

    Writing raises TargetError (CG0004) otherwise.
    """

    def write(path: Path) -> None:
        artifact.write(path)
        place = path.with_name(artifact.name)
        if not place.is_file() or _is_ours(place.with_name(MODEL)) or filecmp.cmp(path, place, shallow=False):
            return
        text = f"`{place}` is part of no model that cgc wrote, and would be lost"
        raise TargetError("CG0004", text, "choose another folder, or take it away")

    return Artifact(artifact.name, write)


def _is_ours(model: Path) -> bool:
    if not model.is_file():
        return False
    with model.open("rb") as file:
        return b"\x12" + bytes([len(PRODUCER)]) + PRODUCER.encode() in file.read(_FIRST)
