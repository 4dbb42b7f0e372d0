"""What the front end hands on: a checked graph, and what the file says about scaling, training and hardware."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from cgc.ir.graph import NOWHERE, Graph, Init, Location, Static
from cgc.record import record
from cgc.syntax.tree import RuleLine


@record(frozen=True)
class Setting:
    """One line of a `mup` item that gives a number: `lr = 6e-3`, `init std = 0.08`, `multiply embedding by 10`."""

    name: str
    value: float | str
    location: Location = field(default=NOWHERE, compare=False)


PARAM_GROUPS = ("embedding", "hidden", "residual", "output", "vector", "attention")
"""Classes of use, which a `mup` item can name besides paths, and for which a table has rules.

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
    parametrization: str = "mup"
    location: Location = field(default=NOWHERE, compare=False)

    def value(self, name: str) -> float | None:
        """Return the number set for `name` (`lr`, `eps`, `weight_decay`, `alpha`), None where there is none."""
        return next((float(s.value) for s in self.values if s.name == name), None)


@record(frozen=True)
class Rule:
    """What a table says of one class: an expression for each of `init`, `lr`, `eps`, `weight_decay`, `multiply`."""

    group: str
    lines: tuple[RuleLine, ...]
    location: Location = field(default=NOWHERE, compare=False)

    def line(self, name: str) -> RuleLine | None:
        """Return the line that sets `name`, None where the rule leaves it as it is."""
        return next((line for line in self.lines if line.name.text == name), None)


@record(frozen=True)
class Table:
    """A `parametrization` item. `library` tells whether it comes with cgc."""

    name: str
    rules: tuple[Rule, ...]
    library: bool
    location: Location = field(default=NOWHERE, compare=False)

    def rule(self, group: str) -> Rule | None:
        """Return the rule for a class, None where the table has none."""
        return next((rule for rule in self.rules if rule.group == group), None)


@record(frozen=True)
class Grown:
    """The model with the sizes `names` made larger by `GROWTH`; `deep` if that only makes loops longer."""

    names: tuple[str, ...]
    deep: bool
    graph: Graph


GROWTH = 256
"""How many times larger a grown size is."""


@record(frozen=True)
class Scaling:
    """What parametrization starts from: the table, the model as written, at its base sizes, and how it grows."""

    table: Table
    own: Graph
    base: Graph
    grown: tuple[Grown, ...]


@record(frozen=True)
class ParamSetting:
    """What a parametrization derives for one parameter.

    `multiplier` is the forward factor of its own use; `lr`, `eps` and `weight_decay` are AdamW's (None where the file
    sets no base value), `lr_factor` the part of the base rate that `lr` is. `reasons` say for each quantity where it
    comes from, `overridden` which of them an `override` gave.
    """

    name: str
    group: str
    uses: tuple[str, ...]
    multiplier: float
    init: Init
    lr: float | None
    eps: float | None
    weight_decay: float | None
    lr_factor: float
    reasons: tuple[tuple[str, str], ...] = ()
    overridden: tuple[str, ...] = ()


@record(frozen=True)
class Factor:
    """A forward multiplier: at which place of the model, for which class, how much, and why."""

    path: str
    group: str
    value: float
    reason: str
    location: Location = field(default=NOWHERE, compare=False)


@record(frozen=True)
class Parametrization:
    """Everything derived for a model: one setting for each parameter, and the forward multipliers in order."""

    name: str
    params: tuple[ParamSetting, ...]
    factors: tuple[Factor, ...]

    def param(self, name: str) -> ParamSetting:
        """Return the setting of a parameter (KeyError when there is none)."""
        for setting in self.params:
            if setting.name == name:
                return setting
        raise KeyError(name)


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

    `code` are the bytes of a core that a plan leaves to instructions.

    The rest times single kernels, in cycles: `task` starts the tasks and links of a step, `loop` one pass of a loop
    around vector instructions, `vector` one vector instruction beside its entries; a link word takes `shift` when tiles
    move; `ramp` is the way from a core to its router (T_R), `relay` a hop in a collective, 0 where it is `hop`. The
    defaults are those of the WSE-3 (`grammar/devices/wse3.cg`), and T_R as measured on a CS-2. `queue` is the link
    words that a router has room for at the end of each link: nothing is published, so the default is in doubt.
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
    code: int = 0
    task: float = 79.2
    loop: float = 38.1
    vector: float = 2.35
    shift: float = 1.74
    ramp: float = 2.0
    relay: float = 0.0
    queue: int = 16
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def cores(self) -> int:
        """Number of cores open to programs."""
        return self.columns * self.rows

    @property
    def data(self) -> int:
        """Bytes of a core that are open to data."""
        return self.memory - self.code


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
    `file` is the path as the user gave it. `scaling` is set where a `mup` item stands; `cgc.parametrize` makes
    `parametrization` of it, and puts its initial distributions and multipliers into the graph.
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
    scaling: Scaling | None = field(default=None, compare=False, repr=False)
    parametrization: Parametrization | None = None

    @property
    def inits(self) -> dict[str, Init]:
        """Initial distribution by parameter path."""
        return {param.name: param.init for param in self.graph.params}
