"""The Python API: `cgc.load` and what one does with a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgc.driver import Request, Timings, compile_program, load_program
from cgc.elaborate.values import Scalar
from cgc.ir.graph import Graph, Param
from cgc.program import Program
from cgc.target import load_target

if TYPE_CHECKING:
    import torch
    from rich.console import Console, ConsoleOptions, RenderResult

    from cgc.target import Arrays


class Model:
    """A checked model. Shows itself as a table of its parameters in a terminal (rich) and in notebooks."""

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def graph(self) -> Graph:
        """The dataflow graph."""
        return self.program.graph

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters, in the order of declaration."""
        return self.program.graph.params

    @property
    def parameter_count(self) -> int:
        """The number of trained scalars."""
        count = self.program.graph.parameter_count
        assert isinstance(count, int)
        return count

    def initialize(self, seed: int = 0) -> dict[str, Any]:
        """Draw every parameter from its initial distribution; float32 arrays by path."""
        from cgc.weights import initialize

        return initialize(self.graph, seed)

    def run(self, weights: Arrays, **inputs: Any) -> dict[str, Any]:
        """Run the NumPy reference: outputs by name, dimensions in the graph's order."""
        from cgc.interpret import interpret

        return interpret(self.graph, weights, inputs)

    def load_weights(self, path: str | Path) -> Mapping[str, Any]:
        """Read a safetensors checkpoint (hub layout or cgc's own) as arrays by parameter path.

        Raises:
            InputError: the file does not hold this model's parameters.
        """
        from cgc.checkpoints import read_checkpoint_file

        return read_checkpoint_file(Path(path), self.program)

    def to_torch(self, weights: str | Path | Arrays | None = None) -> torch.nn.Module:
        """Return the model as a live `torch.nn.Module`.

        It maps the inputs ([batch, seq] tokens) to the outputs ([batch, seq, vocab] logits). `weights` is a checkpoint
        file, or arrays by parameter path; without, parameters are drawn from their initial distributions.
        """
        arrays = self.load_weights(weights) if isinstance(weights, str | Path) else weights
        target: Any = load_target("torch")
        module: torch.nn.Module = target.to_torch(self.program, arrays)
        return module

    def compile(
        self, target: str, out: str | Path, *, weights: str | Path | Arrays | None = None, **options: Any
    ) -> list[Path]:
        """Compile for a target (`torch`, `onnx`, `wse-sim`) into the folder `out`; return what was written.

        `options` are those of `cgc compile`: `kv_cache=True, quantize="int4"`. `weights` is a checkpoint file, or
        arrays by parameter path.

        Raises:
            InputError: the target cannot compile this model, weights do not fit, or the folder cannot be written.
            UsageError: there is no such target, it is not installed completely, or has no use for an option.
            TypeError: there is no such option.
        """
        given = str(weights) if isinstance(weights, Path) else weights
        return compile_program(self.program, target, Path(out), Request(weights=given, **options), Timings())[1]

    def to_networkx(self) -> Any:
        """Return the graph as a `networkx.MultiDiGraph`."""
        from cgc.ir.to_networkx import to_networkx

        return to_networkx(self.graph)

    def __repr__(self) -> str:
        return f"<cgc model {self.program.name}: {self.parameter_count:,} parameters>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from cgc.show.params import params_table

        yield params_table(self.program)

    def _repr_html_(self) -> str:
        from cgc.show.params import params_html

        return params_html(self.program)

    def __iter__(self) -> Iterator[Param]:
        return iter(self.params)


def load(path: str | Path, *, model: str | None = None, **sizes: Scalar) -> Model:
    """Check a `.cg` file and return its model; `sizes` replace the file's (`layers=4`).

    Raises:
        InputError: the file has faults; `.diagnostics` lists them.
        UsageError: there is no such model, or the model no such size.
    """
    return Model(load_program(Path(path).as_posix(), sizes, model))
