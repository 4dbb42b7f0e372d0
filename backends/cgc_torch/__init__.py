"""PyTorch: `model.py` that reads as if written by hand, and the same model as a live `nn.Module`.

`modules` plans classes and functions, `body` writes their statements from `lowering`, `products` and `intrinsics`,
`source` puts the file together; `weights` maps parameters to the state dict, `live` runs it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cgc.program import Program
from cgc.target import Compilation, CompileOptions, Evaluator, TargetError

if TYPE_CHECKING:
    from torch import nn

    from cgc.target import Arrays
    from cgc_torch.weights import Array

__all__ = ["TARGET", "TorchTarget"]


@dataclass(frozen=True, slots=True)
class TorchTarget:
    """The target `torch`."""

    name: str = "torch"
    summary: str = "readable PyTorch source, and a live nn.Module"
    takes: frozenset[str] = frozenset({"weights"})

    def compile(self, program: Program, options: CompileOptions) -> Compilation:
        """Return the project: `model.py`, the program that trains it, and the weights if there are any.

        A model that the training program is not for gets `model.py` alone, and the report says why. Needs no PyTorch.

        Raises:
            TargetError: the weights do not fit.
        """
        from cgc_torch.files import model_artifact, project_artifacts, weights_artifact
        from cgc_torch.project.run import NoTraining
        from cgc_torch.source import model_class

        try:
            artifacts = project_artifacts(program)
            about = f"class {model_class(program)} in model.py, trained by train.py"
        except NoTraining as error:
            artifacts = [model_artifact(program)]
            about = f"class {model_class(program)} in model.py; no train.py, as {error}"
        if options.weights is not None:
            try:
                artifacts.append(weights_artifact(program, options.weights))
            except ValueError as error:
                hint = "give the weights of this model, in its order of dimensions"
                raise TargetError("CG0704", f"the weights do not fit: {error}", hint) from error
        data = {"class": model_class(program), "parameters": program.graph.parameter_count}
        return Compilation(tuple(artifacts), about, data)

    def evaluators(self, program: Program) -> Iterable[tuple[str, Evaluator]]:
        """Return PyTorch eager, compiled, and from the written files."""
        from cgc_torch.live import evaluators

        return evaluators(program)

    def to_torch(self, program: Program, weights: Arrays | None = None) -> nn.Module:
        """Return the live module; see `cgc_torch.live.to_torch`."""
        from cgc_torch.live import to_torch

        return to_torch(program, weights)

    def state_names(self, program: Program) -> Iterable[str]:
        """Return the names of the module's state dict."""
        from cgc_torch.weights import state_entries

        return [entry.key for entry in state_entries(program)]

    def weights_from_state(self, program: Program, state: Arrays) -> Arrays:
        """Return parameters by path for a state dict as arrays (ValueError: it is not this program's)."""
        from cgc_torch.weights import from_state

        return from_state(program, state)

    def state_from_weights(self, program: Program, weights: Arrays) -> Arrays:
        """Return the state dict as arrays for parameters by path (ValueError: they are not this program's)."""
        from cgc_torch.weights import to_state

        return to_state(program, weights)

    def from_torch(self, program: Program, module: nn.Module) -> dict[str, Array]:
        """Return the parameters of a module that `to_torch` made, as arrays by path; see `cgc_torch.live`."""
        from cgc_torch.live import save_weights

        return save_weights(module, program)


TARGET = TorchTarget()
