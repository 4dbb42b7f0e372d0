"""What a target may offer beside `cgc.target.Target`: costs, placement, simulation, decoding, weights by its own names.

Each is a protocol of its own; a command that needs one asks the target for it and says so where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from cgc.program import Program
from cgc.target import CompileOptions

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from cgc.target import Arrays

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
