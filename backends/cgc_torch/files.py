"""What `cgc compile --target=torch` writes: `model.py`, and `model.safetensors` where there are weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cgc.program import Program
from cgc.target import Artifact, text_artifact
from cgc_torch.sampling import sampling_files
from cgc_torch.source import emit
from cgc_torch.weights import to_state

if TYPE_CHECKING:
    from cgc.target import Arrays


def model_artifact(program: Program) -> Artifact:
    """Return `model.py`."""
    return text_artifact("model.py", emit(program))


def sampling_artifacts(program: Program) -> list[Artifact]:
    """Return `decode.py`, `generate.py` and what they need; none where the model has no KV cache."""
    return [text_artifact(name, text) for name, text in sampling_files(program).items()]


def weights_artifact(program: Program, weights: Arrays) -> Artifact:
    """Return `model.safetensors`: the weights by the module's own names (ValueError where they do not fit)."""
    state = to_state(program, weights)

    def write(path: Path) -> None:
        from safetensors.numpy import save_file

        save_file(state, path, metadata={"format": "pt"})

    return Artifact("model.safetensors", write)
