"""`mup` and `train` items: from lines of the source to the dataclasses of `cgc.program`.

Every fault is added to the diagnostics passed in; what is returned then lacks the faulty lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

from cgc.diagnostics import Diagnostic, Diagnostics, Label, Location
from cgc.elaborate.hints import suggest
from cgc.elaborate.quantities import (
    ANY,
    COUNT,
    POSITIVE,
    Limits,
    by_name,
    check_limits,
    finite,
    listed,
    plain,
    quantity_and_unit,
    read_line,
)
from cgc.elaborate.values import Fault
from cgc.ir.graph import Graph, Static
from cgc.program import PARAM_GROUPS, Amount, Mup, Optimizer, SchedulePhase, Setting, Train
from cgc.syntax import tree

FRACTION = Limits(most=1.0, below=True)
LEVEL = Limits(most=1.0)

_MUP_NUMBERS: Mapping[str, tuple[str, Limits]] = {
    "lr": ("6e-3", POSITIVE),
    "eps": ("1e-8", POSITIVE),
    "weight_decay": ("0.1", ANY),
    "alpha": ("1.0", LEVEL),
    "init std": ("0.08", POSITIVE),
}
_OVERRIDABLE = ("lr", "eps", "weight_decay", "init std")
_PRECISIONS = ("f32", "bf16", "f16")
_TRAIN = ("data", "tokens", "steps", "batch", "lr", "optimizer", "schedule", "clip", "precision", "seed")

_OPTIMIZERS: Mapping[str, Mapping[str, tuple[float, Limits]]] = {
    # PyTorch's defaults, so that an unset argument means the same there
    "adamw": {
        "beta1": (0.9, FRACTION),
        "beta2": (0.999, FRACTION),
        "eps": (1e-8, POSITIVE),
        "weight_decay": (0.01, ANY),
    },
    "sgd": {"momentum": (0.0, FRACTION)},
}
_PHASES = ("warmup", "linear", "cosine", "constant")


def single(items: Iterable[tree.Item], keyword: str, found: Diagnostics) -> tree.Settings | None:
    """Return the only item of a kind (`mup`, `train`); adds CG0506 for every further one."""
    first: tree.Settings | None = None
    for item in items:
        if not isinstance(item, tree.Settings) or item.keyword != keyword:
            continue
        if first is None:
            first = item
            continue
        labels = (Label(head(item), "again here"), Label(head(first), "first here"))
        hint = "a file has one; put its lines together, or the models into files of their own"
        found.add(Diagnostic("CG0506", f"there are two `{keyword}` items", labels, hint))
    return first


def head(item: tree.Settings) -> Location:
    """Return the place of an item's first word."""
    place = item.location
    return Location(place.file, place.line, place.column, place.line, place.column + len(item.keyword))


# ---- mup


def read_mup(
    item: tree.Settings,
    graph: Graph,
    arguments: tuple[tuple[str, Static], ...],
    tables: Sequence[str],
    found: Diagnostics,
) -> Mup:
    """Read a `mup` item for a model; `arguments` are the model's sizes by header name, `tables` what
    `parametrization` can be.

    In `Mup.init` and in overrides the setting `init std` is called `std`; in an override `multiply by` is `multiply`.
    """
    settings = (line for line in item.lines if isinstance(line, tree.Setting))
    lines = by_name(settings, [*_MUP_NUMBERS, "parametrization"], "`mup`", found)
    numbers = {name: setting for name in _MUP_NUMBERS if (setting := _number(lines, name, found)) is not None}
    parametrization = read_line(
        lines, "parametrization", lambda value: _one_of(value, tables, "parametrization"), found
    )
    init = numbers.pop("init std", None)
    return Mup(
        base=_base(item, graph, arguments, found),
        init=() if init is None else (init,),
        values=tuple(numbers.values()),
        multipliers=_multipliers(item, graph, found),
        overrides=_overrides(item, graph, found),
        parametrization=parametrization or "mup",
        location=item.location,
    )


def _number(lines: Mapping[str, tree.Setting], name: str, found: Diagnostics) -> Setting | None:
    example, limits = _MUP_NUMBERS[name]
    number = read_line(lines, name, lambda value: plain(value, name, example, limits), found)
    return None if number is None else Setting(name.removeprefix("init "), number, lines[name].location)


def _base(
    item: tree.Settings, graph: Graph, arguments: tuple[tuple[str, Static], ...], found: Diagnostics
) -> tuple[tuple[str, int], ...]:
    """Return what grows and from which size, in the order written."""
    sizes = [name for name, value in arguments if isinstance(value, int) and not isinstance(value, bool)]
    sizes += [dim.name for param in graph.params for dim in param.type.dims if not dim.name.endswith("'")]
    base: dict[str, tuple[int, tree.Name]] = {}
    for name, number in (growth for line in item.lines if isinstance(line, tree.Scale) for growth in line.growths):
        if name.text not in sizes:
            hint = suggest(name.text, sizes) or f"it has {listed(dict.fromkeys(sizes)).replace(' or ', ' and ')}"
            message = f"`{name.text}` is not a size of the model `{graph.name}`"
            found.add(Diagnostic("CG0505", message, (Label(name.location),), hint))
        elif name.text in base:
            labels = (Label(name.location, "again here"), Label(base[name.text][1].location, "first here"))
            found.add(Diagnostic("CG0504", f"`scale {name.text}` is given twice", labels, "keep one of the two"))
        else:
            size = _whole(number, f"scale {name.text}", found)
            base[name.text] = (size or 1, name)
    return tuple((name, size) for name, (size, _) in base.items())


def _whole(number: tree.Number, name: str, found: Diagnostics) -> int | None:
    try:
        size = finite(number)
    except Fault as fault:
        found.add(fault.diagnostic)
        return None
    if not COUNT.holds(size):
        message, hint = f"`{name}` cannot start from {number.text}", f"it is {COUNT}"
        found.add(Diagnostic("CG0502", message, (Label(number.location),), hint))
        return None
    return int(size)


def _target(target: tree.Dotted, graph: Graph, what: str, found: Diagnostics) -> bool:
    """Tell whether `target` is a group of parameters, a parameter, or the start of some parameters' paths."""
    paths = [param.name for param in graph.params]
    if target.text in PARAM_GROUPS or any(f"{path}.".startswith(f"{target.text}.") for path in paths):
        return True
    parts = target.text.split(".")
    without_numbers = ".".join(part for part in parts if not part[0].isdigit())
    if len(without_numbers) < len(target.text):
        hint = f"the layers of a repeat are one parameter: `{without_numbers}`"
    else:
        starts = [".".join(path.split(".")[:depth]) for path in paths for depth in range(1, path.count(".") + 2)]
        hint = suggest(target.text, [*PARAM_GROUPS, *starts]) or f"a parameter's path, or one of {listed(PARAM_GROUPS)}"
    message = f"`{what} {target.text}` names no parameter of `{graph.name}`, and no group of them"
    found.add(Diagnostic("CG0507", message, (Label(target.location),), hint))
    return False


def _multiplier(line: tree.Multiply, name: str, found: Diagnostics) -> Setting | None:
    try:
        factor = finite(line.factor)
    except Fault as fault:
        found.add(fault.diagnostic)
        return None
    if factor == 0:
        hint = "leave the line out, or the parameter"
        found.add(
            Diagnostic("CG0502", "a multiplier of 0 turns the parameter off", (Label(line.factor.location),), hint)
        )
        return None
    return Setting(name, factor, line.location)


def _multipliers(item: tree.Settings, graph: Graph, found: Diagnostics) -> tuple[Setting, ...]:
    settings: dict[str, Setting] = {}
    for line in item.lines:
        if not isinstance(line, tree.Multiply) or line.target is None:
            continue
        setting = _multiplier(line, line.target.text, found)
        if not _target(line.target, graph, "multiply", found) or setting is None:
            continue
        if setting.name in settings:
            labels = (Label(line.location, "again here"), Label(settings[setting.name].location, "first here"))
            found.add(Diagnostic("CG0504", f"`multiply {setting.name}` is given twice", labels, "keep one of the two"))
            continue
        settings[setting.name] = setting
    return tuple(settings.values())


def _overrides(item: tree.Settings, graph: Graph, found: Diagnostics) -> tuple[tuple[str, tuple[Setting, ...]], ...]:
    overrides: dict[str, tuple[tree.Override, tuple[Setting, ...]]] = {}
    for line in item.lines:
        if not isinstance(line, tree.Override) or not _target(line.target, graph, "override", found):
            continue
        name = line.target.text
        if name in overrides:
            labels = (
                Label(line.target.location, "again here"),
                Label(overrides[name][0].target.location, "first here"),
            )
            found.add(Diagnostic("CG0504", f"`override {name}` is given twice", labels, "put the lines together"))
            continue
        overrides[name] = (line, _override(line, found))
    return tuple((name, settings) for name, (_, settings) in overrides.items())


def _override(line: tree.Override, found: Diagnostics) -> tuple[Setting, ...]:
    inside = (inner for inner in line.lines if isinstance(inner, tree.Setting))
    lines = by_name(inside, _OVERRIDABLE, "`override`", found)
    settings = [setting for name in lines if (setting := _number(lines, name, found)) is not None]
    factors = [inner for inner in line.lines if isinstance(inner, tree.Multiply)]
    for factor in factors[1:]:
        labels = (Label(factor.location, "again here"), Label(factors[0].location, "first here"))
        found.add(Diagnostic("CG0504", "`multiply by` is given twice", labels, "keep one of the two"))
    if factors and (setting := _multiplier(factors[0], "multiply", found)) is not None:
        settings.append(setting)
    return tuple(settings)


def _one_of(value: tree.SettingValue, words: Sequence[str], name: str) -> str:
    if isinstance(value, tree.Name) and value.text in words:
        return value.text
    written = f"`{value.text}`" if isinstance(value, tree.Name) else "this"
    near = suggest(value.text, words) if isinstance(value, tree.Name) else ""
    raise Fault("CG0502", f"`{name}` cannot be {written}", Label(value.location), hint=near or f"it is {listed(words)}")


# ---- train


def read_train(item: tree.Settings, found: Diagnostics) -> Train:
    """Read a `train` item. Arguments of the optimizer that are not set have PyTorch's defaults."""
    lines = by_name((line for line in item.lines if isinstance(line, tree.Setting)), _TRAIN, "`train`", found)
    if "tokens" in lines and "steps" in lines:
        labels = (Label(lines["steps"].location, "and here"), Label(lines["tokens"].location, "here"))
        message = "the length of the run is given twice, in `tokens` and in `steps`"
        found.add(Diagnostic("CG0504", message, labels, "keep one of the two"))

    def number(name: str, example: str, limits: Limits) -> float | None:
        return read_line(lines, name, lambda value: plain(value, name, example, limits), found)

    def amount(name: str, units: tuple[str, ...], example: str) -> Amount | None:
        return read_line(lines, name, lambda value: _amount(value, name, units, example), found)

    steps = amount("steps", ("steps", ""), "9037 steps")
    precision = read_line(lines, "precision", lambda value: _one_of(value, _PRECISIONS, "precision"), found)
    return Train(
        data=read_line(lines, "data", _text, found),
        tokens=amount("tokens", ("tokens", "per param"), "20 per param"),
        steps=None if steps is None else Amount(steps.value, "steps"),
        batch=amount("batch", ("sequences", "tokens"), "120 sequences"),
        lr=number("lr", "6e-4", POSITIVE),
        optimizer=read_line(lines, "optimizer", _optimizer, found),
        schedule=read_line(lines, "schedule", _schedule, found) or (),
        clip=number("clip", "1.0", POSITIVE),
        precision=cast('Literal["f32", "bf16", "f16"]', precision or "f32"),
        seed=int(number("seed", "0", Limits(most=2**32 - 1, whole=True)) or 0),
        location=item.location,
    )


def _text(value: tree.SettingValue) -> str:
    if not isinstance(value, tree.String):
        raise Fault("CG0502", "`data` is a text", Label(value.location), hint='write it as in `data = "pile"`')
    return value.value


def _amount(value: tree.SettingValue, name: str, units: tuple[str, ...], example: str) -> Amount:
    number, unit = quantity_and_unit(value, name, units, example)
    whole = unit in ("steps", "sequences", "")
    check_limits(number, name, COUNT if whole else POSITIVE, value)
    return Amount(number, unit)


def _called(value: tree.SettingValue, words: Iterable[str], name: str) -> tree.SettingsCall:
    """Return a value of the form `word(…)`, or the bare `word` as a call without arguments."""
    known = list(words)
    call = tree.SettingsCall(value, (), location=value.location) if isinstance(value, tree.Name) else value
    if not isinstance(call, tree.SettingsCall):
        raise Fault("CG0502", f"`{name}` cannot be this", Label(value.location), hint=f"it is {listed(known)}")
    if call.name.text not in known:
        hint = suggest(call.name.text, known) or f"it is {listed(known)}"
        raise Fault("CG0502", f"there is no {name} `{call.name.text}`", Label(call.name.location), hint=hint)
    return call


def _named(call: tree.SettingsCall, known: Iterable[str]) -> dict[str, tree.SettingValue]:
    """Return the named arguments of a call."""
    names = list(known)
    arguments: dict[str, tree.SettingValue] = {}
    for name, value in call.arguments:
        if name is None:
            continue
        if name.text not in names:
            hint = suggest(name.text, names) or (f"it takes {listed(names)}" if names else "it takes no names")
            raise Fault("CG0501", f"`{call.name.text}` has no `{name.text}`", Label(name.location), hint=hint)
        if name.text in arguments:
            raise Fault("CG0504", f"`{name.text}` is set twice", Label(name.location), hint="keep one of the two")
        arguments[name.text] = value
    return arguments


def _optimizer(value: tree.SettingValue) -> Optimizer:
    call = _called(value, _OPTIMIZERS, "optimizer")
    known = _OPTIMIZERS[call.name.text]
    for name, argument in call.arguments:
        if name is None:
            hint = f"write `{call.name.text}({', '.join(f'{key}=…' for key in known)})`"
            raise Fault("CG0502", "arguments of an optimizer are given by name", Label(argument.location), hint=hint)
    given = _named(call, known)
    arguments = tuple(
        (key, plain(given[key], key, f"{default:g}", limits) if key in given else default)
        for key, (default, limits) in known.items()
    )
    return Optimizer(cast('Literal["adamw", "sgd"]', call.name.text), arguments)


def _schedule(value: tree.SettingValue) -> tuple[SchedulePhase, ...]:
    steps = value.steps if isinstance(value, tree.Sequence) else (value,)
    phases: list[SchedulePhase] = []
    for i, step in enumerate(steps):
        phase = _phase(step, phases[-1].to if phases else 1.0)
        if phase.shape == "warmup" and i:
            raise Fault("CG0502", "`warmup` comes first", Label(step.location), hint="write it before the first `then`")
        if phase.length is None and (phase.shape == "warmup" or i < len(steps) - 1):
            hint = f"say for how long, as in `{phase.shape}(375M tokens)` or `{phase.shape}(1000 steps)`"
            raise Fault("CG0502", f"this `{phase.shape}` needs a length", Label(step.location), hint=hint)
        phases.append(phase)
    return tuple(phases)


def _phase(value: tree.SettingValue, level: float) -> SchedulePhase:
    """Read one phase; `level` is the learning rate it starts from, as a part of the peak."""
    call = _called(value, _PHASES, "schedule")
    shape = cast('Literal["warmup", "linear", "cosine", "constant"]', call.name.text)
    falls = shape in ("linear", "cosine")
    given = _named(call, ("to",) if falls else ())
    lengths = [argument for name, argument in call.arguments if name is None]
    if len(lengths) > 1:
        raise Fault("CG0502", f"`{shape}` has one length", Label(lengths[1].location), hint="leave this one out")
    length = _amount(lengths[0], shape, ("tokens", "steps"), "375M tokens") if lengths else None
    if not falls:
        return SchedulePhase(shape, length, 1.0 if shape == "warmup" else level)
    return SchedulePhase(shape, length, plain(given["to"], "to", "0.1", LEVEL) if "to" in given else 0.0)
