"""The public surface for targets: what a plugin in the entry-point group `cgc.targets` provides.

A plugin's entry point names an object that satisfies `Target`. cgc calls `compile`, writes the artifacts it returns
(each to a temporary name first) and prints the report; `cgc verify` runs `evaluators` against the NumPy reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from cgc.program import Program

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from cgc.passes.kv_cache import Cache

    Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]

GROUP = "cgc.targets"


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the user asked for, of what the target `takes`; it says so (TargetError) where it cannot honour one.

    `weights` maps parameter paths to arrays (stacked parameters with their leading loop dimensions), None for a
    graph without weights. For a wafer, `mode` is what the model is run for (`train`, `prefill`, `decode`; None: what it
    is meant for), `run` how (`pipelined`, `streaming`; None: the faster), on how many `wafers`; `recompute` makes
    training store only what enters a layer. For ONNX, `copy_weights` asks for files of their own where those of a
    checkpoint could be shared; `caches` are those of a program made for decoding; `opset` and `runtime` are what the
    result is to run in, `unpadded` says that all sequences of a batch begin together; `precision`, or `quantize` with
    entries to a `block`, is how weights are stored.
    """

    batch: int | None = None
    seq: int | None = None
    device: str | None = None
    flat: bool = False
    weights: Arrays | None = None
    mode: str | None = None
    run: str | None = None
    wafers: int = 1
    recompute: bool = False
    copy_weights: bool = False
    caches: tuple[Cache, ...] = ()
    opset: int | None = None
    runtime: str | None = None
    unpadded: bool = False
    precision: str | None = None
    quantize: str | None = None
    block: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of the result: its name, and how to write it. `write` gets a temporary path in the same folder."""

    name: str
    write: Callable[[Path], None]


def text_artifact(name: str, text: str) -> Artifact:
    """Return an artifact that is `text` in UTF-8."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8", newline="\n")

    return Artifact(name, write)


@dataclass(frozen=True, slots=True)
class Compilation:
    """The result of a target: files, what to print, and the same as JSON-able data.

    `others` are names of files that the target writes with other options: those that are in the folder are no part of
    this result, and the user is told.
    """

    artifacts: tuple[Artifact, ...]
    report: RenderableType | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    others: frozenset[str] = frozenset()


class TargetError(Exception):
    """Input a target cannot compile; becomes the diagnostic `code` with this message and hint."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


Evaluator: TypeAlias = "Callable[[Arrays, Arrays], Arrays]"
"""(weights by parameter path, inputs by name) → outputs by name, with dimensions in the graph's order."""


class Target(Protocol):
    """A backend."""

    name: str
    summary: str
    takes: frozenset[str]
    """The options of `CompileOptions` that it heeds, and `kv_cache` if it compiles programs made for decoding.

    Any other that a user gives is refused before `compile` is called.
    """

    def compile(self, program: Program, options: CompileOptions) -> Compilation:
        """Lower `program`; raises TargetError."""
        ...

    def evaluators(self, program: Program) -> Iterable[tuple[str, Evaluator]]:
        """Return every way this target has of running the program on this machine, by a name to print."""
        ...


def target_names() -> list[str]:
    """Return the names of the installed targets, sorted."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=GROUP)})


def load_target(name: str) -> Target:
    """Import and return the target called `name`.

    Raises:
        KeyError: no such target is installed.
        ImportError: its libraries are not.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast(Target, point.load())
    raise KeyError(name)
