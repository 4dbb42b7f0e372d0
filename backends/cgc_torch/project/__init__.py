"""The project that `cgc compile --target=torch` writes: the model, and the program that trains it.

`run` turns the `train` item into steps; every other module here writes files of the project. What does not depend on
the model is a file in `templates/`.
"""

from __future__ import annotations

from cgc.program import Program
from cgc_torch.project.run import Planned
from cgc_torch.project.sampling import sampling_files
from cgc_torch.project.template import template
from cgc_torch.project.texts import pyproject_text, readme_text
from cgc_torch.project.training import train_text

__all__ = ["SAME_FOR_ALL", "project_files"]

SAME_FOR_ALL = ("data.py", "tokenizer.py", "parallel.py", "checkpoint.py", "progress.py")
"""Files of a project that do not depend on the model."""


def project_files(program: Program, planned: Planned) -> dict[str, str]:
    """Return the files of the project beside `model.py`, by name.

    A further file of the project is a line here and, where it depends on the model, a module beside this one.
    """
    files = {name: template(name) for name in SAME_FOR_ALL}
    files["train.py"] = train_text(program, planned)
    files |= sampling_files(program, planned)
    files["README.md"] = readme_text(program, planned, tuple(files))
    files["pyproject.toml"] = pyproject_text(program, tuple(files))
    return files
