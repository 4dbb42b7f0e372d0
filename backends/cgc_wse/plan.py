"""What the planner decides, as plain data: rectangles, times, memory, each number with its formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cgc.program import Device
from cgc_wse.cost import Cycles, Resource
from cgc_wse.job import Job
from cgc_wse.kernels import Kernel
from cgc_wse.place.geometry import Rectangle

Mode: TypeAlias = Literal["resident", "streaming"]
Direction: TypeAlias = Literal["forward", "again", "backward"]
Unit: TypeAlias = Literal["bytes", "seconds", "sequences", "stages", "passes"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number on the report and where it comes from."""

    name: str
    value: float
    unit: Unit
    formula: str


def code_figures(device: Device) -> tuple[Figure, ...]:
    """Return the bytes of code in all cores, where the device says what a core leaves to it."""
    text = f"{device.code:,} B of each core, as the device says"
    return (Figure("code", device.code * device.cores, "bytes", text),) if device.code else ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A kernel on its rectangle. `path` is the user's, with the index of the run where each run has its own cores.

    `layer` names the run it stands in (`h.3`). `cycles` are for one sequence of a step; `bytes` is what the model
    keeps in the rectangle, `room` what each of its cores has for vectors on their way.
    """

    path: str
    layer: str
    kernel: Kernel
    area: Rectangle
    cycles: Cycles
    bytes: int
    room: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """Kernels that hold the wafer together, `runs` times in a step; `seconds` is the time of all runs in one step."""

    name: str
    runs: int
    placed: tuple[Placed, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """Runs `first` to `last` of a stage in one direction, as a part of a pass of weight streaming.

    `blocks` are their paths in the order they run in, each with the seconds of one run, and those of them in which what
    it streams crosses the link off the wafer.
    """

    stage: str
    direction: Direction
    first: int
    last: int
    runs: int
    blocks: tuple[tuple[str, float, float], ...]

    @property
    def seconds(self) -> float:
        """Seconds of one run."""
        return sum(seconds for _, seconds, _ in self.blocks)


@dataclass(frozen=True, slots=True)
class Layout:
    """How weight streaming cuts tensors: features over `features` cores along the columns or the rows of the wafer,
    tokens over `tokens` cores.
    """

    features: int
    tokens: int
    along: Literal["columns", "rows"]

    @property
    def cores(self) -> int:
        """Cores that have a part."""
        return self.features * self.tokens

    def text(self) -> str:
        """Return it in words."""
        return f"features over {self.features} cores along the {self.along}, tokens over {self.tokens}"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What sets the time of a step: a resource, on the kernel at `path` (empty for the link off the wafer)."""

    resource: Resource
    path: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A job on a device. `seconds` is the time of a step; `at_once` the sequences on the wafer together.

    `layout` says how weight streaming cuts tensors, in `passes` passes that consist of `sweeps`; `depth` is the number
    of stages of a pipeline, `in_work` that of sequences in one layer.
    """

    job: Job
    device: Device
    mode: Mode
    reason: str
    phases: tuple[Phase, ...]
    memory: tuple[Figure, ...]
    time: tuple[Figure, ...]
    seconds: float
    bottleneck: Bottleneck
    policy: str
    at_once: int
    layout: Layout | None = None
    sweeps: tuple[Sweep, ...] = ()
    passes: int = 1
    depth: int = 1
    in_work: int = 1

    @property
    def bytes(self) -> int:
        """SRAM used."""
        return int(sum(figure.value for figure in self.memory))

    @property
    def tokens_per_second(self) -> float:
        """Tokens of one step over its time."""
        return self.job.tokens / self.seconds


def duration(seconds: float) -> str:
    """Return a time for a table: `50.2 ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def _three_digits(value: float) -> str:
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def gigabytes(count: float) -> str:
    """Return a number of bytes for a sentence: `18.3 GB`, `512 KB`; decimal units."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} B"
