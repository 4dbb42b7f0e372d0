"""What the front end hands on: a checked graph, and what the file says about scaling, training and hardware."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from cgc.ir.graph import NOWHERE, Graph, Init, Location, Static
from cgc.record import record


@record(frozen=True)
class Setting:
    """One line of a `mup` item that gives a number: `lr = 6e-3`, `init std = 0.08`, `multiply embedding by 10`."""

    name: str
    value: float | str
    location: Location = field(default=NOWHERE, compare=False)


PARAM_GROUPS = ("embedding", "hidden", "residual", "output", "vector", "attention")
"""Groups of parameters that a `mup` item can name besides paths.

Embeddings, hidden weights, those of them that write to the residual stream, output weights, biases and gains;
`attention` is the scores' factor.
"""


@record(frozen=True)
class Mup:
    """A `mup` item. `base` maps what grows (a dimension or `layers`) to the size the numbers were tuned at.

    Names of settings: `std` in `init`; `lr`, `eps`, `weight_decay`, `alpha` in `values`; a group of `PARAM_GROUPS`, a
    parameter's path or the start of paths in `multipliers` and `overrides`; `lr`, `eps`, `weight_decay`, `std`,
    `multiply` inside an override.
    """

    base: tuple[tuple[str, int], ...]
    init: tuple[Setting, ...]
    values: tuple[Setting, ...]
    multipliers: tuple[Setting, ...]
    overrides: tuple[tuple[str, tuple[Setting, ...]], ...]
    parametrization: Literal["mup", "completep", "sp"] = "mup"
    location: Location = field(default=NOWHERE, compare=False)


@record(frozen=True)
class Amount:
    """A number with the unit it was written in: 375e6 `tokens`, 20 `per param`, 120 `sequences`."""

    value: float
    unit: str = ""


@record(frozen=True)
class Optimizer:
    """`adamw(beta1=…, beta2=…, eps=…, weight_decay=…)`."""

    name: Literal["adamw", "sgd"]
    arguments: tuple[tuple[str, float], ...]


@record(frozen=True)
class SchedulePhase:
    """One phase of the learning rate: `warmup(375M tokens)`, `linear(to=0.1)`; `length` None runs to the end.

    `to` is the learning rate at its end, as a part of the peak.
    """

    shape: Literal["warmup", "linear", "cosine", "constant"]
    length: Amount | None
    to: float


@record(frozen=True)
class Train:
    """A `train` item: the run a model is meant for. Unset entries are None."""

    data: str | None = None
    tokens: Amount | None = None
    steps: Amount | None = None
    batch: Amount | None = None
    lr: float | None = None
    optimizer: Optimizer | None = None
    schedule: tuple[SchedulePhase, ...] = ()
    clip: float | None = None
    precision: Literal["f32", "bf16", "f16"] = "f32"
    seed: int = 0
    location: Location = field(default=NOWHERE, compare=False)


@record(frozen=True)
class Device:
    """A wafer of cores on a mesh.

    Bytes, hertz, bytes per second and cycles throughout; `columns` × `rows` cores are open to programs;
    `multiply_adds` are 16-bit and per core and cycle; `read`, `write` and `link` are bytes per core and cycle;
    `off_wafer` is the link to weight storage; `power` in watts is 0 where unknown.
    """

    name: str
    columns: int
    rows: int
    memory: int
    clock: float
    multiply_adds: float
    read: float
    write: float
    link: float
    hop: float
    colors: int
    off_wafer: float
    power: float = 0.0
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def cores(self) -> int:
        """Number of cores open to programs."""
        return self.columns * self.rows


@record(frozen=True)
class CheckpointEntry:
    """One tensor of a hub checkpoint and the parameters it holds.

    `tensor` is its name, with `{h}` for the index of the repeat `h`. `axes` are its axes, each a tuple of dimension
    names merged row-major; `*` stands for the index into `params`, where one tensor joins several parameters.
    """

    tensor: str
    axes: tuple[tuple[str, ...], ...]
    params: tuple[str, ...]
    location: Location = field(default=NOWHERE, compare=False)


@record(frozen=True)
class Checkpoint:
    """How a hub layout names and shapes a family's parameters.

    A tensor's `prefix` may be missing in a file; tensors whose names match `ignored` may stand in one.
    """

    name: str
    prefix: str
    ignored: tuple[str, ...]
    entries: tuple[CheckpointEntry, ...]
    location: Location = field(default=NOWHERE, compare=False)


@record(frozen=True)
class Program:
    """A checked `.cg` file.

    `family` is the model the instance is made of (`gpt2`), `arguments` its sizes by header name (`layers`, `width`);
    `file` is the path as the user gave it.
    """

    name: str
    graph: Graph
    family: str
    arguments: tuple[tuple[str, Static], ...]
    mup: Mup | None
    train: Train | None
    devices: tuple[Device, ...]
    checkpoint: Checkpoint | None
    file: str
    doc: str = ""

    @property
    def inits(self) -> dict[str, Init]:
        """Initial distribution by parameter path."""
        return {param.name: param.init for param in self.graph.params}
