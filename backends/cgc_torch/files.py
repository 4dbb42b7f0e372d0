"""What `cgc compile --target=torch` writes: the project, and `model.safetensors` where there are weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cgc.program import Program
from cgc.target import Artifact, text_artifact
from cgc_torch.source import emit
from cgc_torch.weights import to_state

if TYPE_CHECKING:
    from cgc.target import Arrays


def model_artifact(program: Program) -> Artifact:
    """Return `model.py`."""
    return text_artifact("model.py", emit(program))


def project_artifacts(program: Program) -> list[Artifact]:
    """Return the files of the project, the model last (NoTraining where there is nothing to train)."""
    from cgc_torch.project import project_files
    from cgc_torch.project.run import planned

    made = planned(program)
    beside = [text_artifact(name, text) for name, text in project_files(program, made).items()]
    return [*beside, model_artifact(made.program)]


def weights_artifact(program: Program, weights: Arrays) -> Artifact:
    """Return `model.safetensors`: the weights by the module's own names (ValueError where they do not fit)."""
    state = to_state(program, weights)

    def write(path: Path) -> None:
        from safetensors.numpy import save_file

        save_file(state, path, metadata={"format": "pt"})

    return Artifact("model.safetensors", write)
