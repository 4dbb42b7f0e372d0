"""The public surface for targets: what a plugin in the entry-point group `cgc.targets` provides.

A plugin's entry point names an object that satisfies `Target`. cgc calls `compile`, writes the artifacts it returns
(each to a temporary name first) and prints the report; `cgc verify` runs `evaluators` against the NumPy reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

from cgc.program import Program

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from cgc.passes.kv_cache import Cache

    Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]

GROUP = "cgc.targets"


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the user asked for. A target says so (TargetError) where it cannot honour one.

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
    """The result of a target: files, what to print, and the same as JSON-able data."""

    artifacts: tuple[Artifact, ...]
    report: RenderableType | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


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

    def compile(self, program: Program, options: CompileOptions) -> Compilation:
        """Lower `program`; raises TargetError."""
        ...

    def evaluators(self, program: Program) -> Iterable[tuple[str, Evaluator]]:
        """Return every way this target has of running the program on this machine, by a name to print."""
        ...


Decoder: TypeAlias = "Callable[[Arrays, np.ndarray[Any, Any], int], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]"
"""(weights by parameter path, prompt [batch, seq], how many tokens) → tokens chosen greedily [batch, count], and the
logits that each was chosen by [batch, count, vocab]."""


@runtime_checkable
class DecodingTarget(Protocol):
    """What a target offers beside `Target` where it can decode token by token, with a cache."""

    name: str

    def decoders(self, program: Program) -> Iterable[tuple[str, Decoder]]:
        """Return every way of decoding on this machine, by a name to print; raises TargetError."""
        ...


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """One kernel to be timed on a rectangle of `columns` × `rows` cores; sizes are of the whole kernel.

    `m`, `k` and `n` are those of [m, k] @ [k, n], or `n` the entries in each core of a collective; `algorithm` and
    `groups` None take the usual or the best.
    """

    op: str
    device: str
    columns: int
    rows: int
    dtype: str
    n: int
    m: int = 1
    k: int = 1
    algorithm: str | None = None
    groups: int | None = None


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """A model's step for one new token after `context` tokens, or a prefill of so many, on a square of `side` cores.

    The best is taken where `side` is 0. With `ignore_memory` a model may need more squares than the device has.
    """

    device: str | None
    context: int | None
    side: int = 0
    dtype: str = "f16"
    ignore_memory: bool = False


class CostAnswer(Protocol):
    """What a cost model says."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        ...

    def table(self) -> RenderableType:
        """Return it for printing."""
        ...


@runtime_checkable
class CostModel(Protocol):
    """What a target offers beside `Target` where it can say what single kernels cost."""

    def kernel_cost(self, request: KernelRequest) -> CostAnswer:
        """Return the cost of one kernel; raises TargetError."""
        ...

    def decode_cost(self, program: Program, request: DecodeRequest) -> CostAnswer:
        """Return the cost of a decode step; raises TargetError."""
        ...

    def prefill_cost(self, program: Program, request: DecodeRequest) -> CostAnswer:
        """Return the cost of a prefill of `request.context` tokens; raises TargetError."""
        ...


@dataclass(frozen=True, slots=True)
class PlaceRequest:
    """A problem of kernels to be placed, by its file.

    `method` is one of the target's; `seed` fixes its random numbers; without `time_limit` (seconds) it ends by itself.
    """

    problem: str
    method: str = "search"
    seed: int = 0
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class PlaceProgress:
    """How far a search is: what it does, rounds done of how many, the best score so far and a lower bound on it."""

    stage: str
    done: int
    total: int
    score: float | None
    bound: float


class PlaceAnswer(Protocol):
    """A legal placement: what it is worth, and what no other can beat."""

    @property
    def solution(self) -> str:
        """The text of the solution file; empty where one was only checked."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        ...

    def table(self) -> RenderableType:
        """Return it for printing."""
        ...


@runtime_checkable
class Placer(Protocol):
    """What a target offers beside `Target` where it can place kernels that somebody else describes."""

    def place(self, request: PlaceRequest, report: Callable[[PlaceProgress], None]) -> PlaceAnswer:
        """Return the best placement found; raises TargetError and InputError.

        A KeyboardInterrupt ends the search early: the best placement so far is returned, if there is one.
        """
        ...

    def check_placement(self, problem: str, solution: str) -> PlaceAnswer:
        """Return what the placement in the file `solution` is worth; raises InputError where it is not legal."""
        ...


@dataclass(frozen=True, slots=True)
class BlockCost:
    """What a block costs in one step: all its `runs` together, on `cores` cores each.

    `multiply_adds` are those of one sequence going forward; `share` is its part of the time of a step, where blocks run
    side by side its part of the work; `bound` what sets its time.
    """

    path: str
    runs: int
    multiply_adds: int
    parameters: int
    share: float
    cores: int
    bound: str


@runtime_checkable
class BlockCosts(Protocol):
    """What a target offers beside `Target` where it can say what the blocks of a program cost."""

    def block_costs(self, program: Program, options: CompileOptions) -> Iterable[BlockCost]:
        """Return the cost of every block that has one, in order; raises TargetError."""
        ...


@dataclass(frozen=True, slots=True)
class SimulationRequest:
    """A model to be run on a simulated wafer, with random weights and inputs.

    `mode` is train, prefill or decode, None what the model is meant for; `run` is auto, pipelined or streaming; `batch`
    and `seq` None are small numbers that the model takes.
    """

    device: str | None
    mode: str | None = None
    run: str = "auto"
    batch: int | None = None
    seq: int | None = None
    seed: int = 0


class SimulationAnswer(CostAnswer, Protocol):
    """What a simulation says."""

    @property
    def ok(self) -> bool:
        """Whether the results are those of the reference, and the memory as predicted."""
        ...


@runtime_checkable
class Simulator(Protocol):
    """What a target offers beside `Target` where it can run a program as the hardware would."""

    def simulate(self, program: Program, request: SimulationRequest) -> SimulationAnswer:
        """Run a program and compare it with the reference; raises TargetError."""
        ...


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one training step on a device, and in which way of running it (`resident`, `streaming`)."""

    seconds: float
    device: str
    mode: str


@runtime_checkable
class TimeModel(Protocol):
    """What a target offers beside `Target` where it can say how long a training step takes."""

    def step_time(self, program: Program, options: CompileOptions) -> StepTime:
        """Return the time of a training step of `options.batch` sequences; raises TargetError."""
        ...


@runtime_checkable
class NamedWeights(Protocol):
    """What a target offers beside `Target` where its programs keep weights under names of their own."""

    def state_names(self, program: Program) -> Iterable[str]:
        """Return the names under which a program of the target keeps its weights."""
        ...

    def weights_from_state(self, program: Program, state: Arrays) -> Arrays:
        """Return parameters by path for arrays by those names (ValueError: they are not this program's)."""
        ...

    def state_from_weights(self, program: Program, weights: Arrays) -> Arrays:
        """Return arrays by those names for parameters by path (ValueError as above)."""
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
