"""`device` items, those of the user's files and those that come with cgc."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label
from cgc.elaborate.hints import suggest
from cgc.elaborate.quantities import (
    ANY,
    BYTES,
    BYTES_PER_CYCLE,
    BYTES_PER_SECOND,
    COUNT,
    CYCLES,
    HERTZ,
    PER_CYCLE,
    PLAIN,
    POSITIVE,
    WATTS,
    Limits,
    by_name,
    finite,
    listed,
    quantity,
    read_line,
)
from cgc.elaborate.values import Fault
from cgc.program import Device
from cgc.syntax import tree
from cgc.syntax.parser import parse, read_source

LARGEST_GRID = 1 << 14
"""Columns or rows of cores a device may have."""

_QUANTITIES: Mapping[str, tuple[Mapping[str, float], str, Limits]] = {
    "memory": (BYTES, "48 KiB", COUNT),
    "clock": (HERTZ, "1.1 GHz", POSITIVE),
    "multiply_adds": (PER_CYCLE, "4 per cycle", POSITIVE),
    "read": (BYTES_PER_CYCLE, "16 B per cycle", POSITIVE),
    "write": (BYTES_PER_CYCLE, "8 B per cycle", POSITIVE),
    "link": (BYTES_PER_CYCLE, "4 B per cycle", POSITIVE),
    "hop": (CYCLES, "1 cycles", POSITIVE),
    "colors": (PLAIN, "24", COUNT),
    "off_wafer": (BYTES_PER_SECOND, "1.2 Tb/s", POSITIVE),
    "power": (WATTS, "15 kW", ANY),
    "code": (BYTES, "1 KiB", COUNT),
    "task": (CYCLES, "79.2 cycles", ANY),
    "loop": (CYCLES, "38.1 cycles", ANY),
    "vector": (CYCLES, "2.35 cycles", ANY),
    "shift": (CYCLES, "1.74 cycles", POSITIVE),
    "ramp": (CYCLES, "2 cycles", ANY),
    "relay": (CYCLES, "1 cycles", POSITIVE),
    "queue": (PLAIN, "8", COUNT),
}
"""What each entry is counted in, an example, and its limits; `Device` has a field of the same name."""
_OPTIONAL = ("power", "code", "task", "loop", "vector", "shift", "ramp", "relay", "queue")
_GRID = "750 x 994"


def read_device(item: tree.Settings, found: Diagnostics) -> Device | None:
    """Read a `device` item; None, with diagnostics added, where it has faults."""
    assert item.name is not None
    name = item.name.text
    before = len(found)
    settings = (line for line in item.lines if isinstance(line, tree.Setting))
    lines = by_name(settings, ["grid", *_QUANTITIES], "`device`", found)
    missing = [key for key in ("grid", *_QUANTITIES) if key not in lines and key not in _OPTIONAL]
    if missing:
        example = _GRID if missing[0] == "grid" else _QUANTITIES[missing[0]][1]
        hint = f"add a line such as `{missing[0]} = {example}`"
        text = f"device `{name}` does not say its {listed(missing).replace(' or ', ' and ')}"
        found.add(Diagnostic("CG0503", text, (Label(item.name.location),), hint))
    values = {key: value for key in _QUANTITIES if (value := _quantity(lines, key, found)) is not None}
    grid = read_line(lines, "grid", _grid, found)
    if grid is None or len(found) > before:
        return None
    if values.get("code", 0) >= values["memory"]:
        text = (
            f"device `{name}` has no room for data: its code takes {values['code']:,.0f} of {values['memory']:,.0f} B"
        )
        found.add(Diagnostic("CG0502", text, (Label(lines["code"].location),), "`code` is less than `memory`"))
        return None
    entries: dict[str, Any] = {k: int(value) if _QUANTITIES[k][2].whole else value for k, value in values.items()}
    return Device(name=name, columns=grid[0], rows=grid[1], location=item.location, **entries)


def _quantity(lines: Mapping[str, tree.Setting], key: str, found: Diagnostics) -> float | None:
    units, example, limits = _QUANTITIES[key]
    return read_line(lines, key, lambda value: quantity(value, key, units, example, limits), found)


def _grid(value: tree.SettingValue) -> tuple[int, int]:
    """Return columns and rows."""
    hint = f"write columns by rows, as in `grid = {_GRID}`"
    if not isinstance(value, tree.Grid) or value.separator.text != "x":
        raise Fault("CG0502", "`grid` is two numbers with an `x` between", Label(value.location), hint=hint)
    columns, rows = finite(value.columns), finite(value.rows)
    limits = Limits(least=1, most=LARGEST_GRID, whole=True)
    for number, written in ((columns, value.columns), (rows, value.rows)):
        if not limits.holds(number):
            text = f"a grid cannot be {written.text} cores wide or high"
            raise Fault("CG0502", text, Label(written.location), hint=f"it is {limits}")
    return int(columns), int(rows)


def read_devices(items: Iterable[tree.Item], found: Diagnostics) -> tuple[Device, ...]:
    """Read the devices of a file, in order, without those that have faults; adds CG0506 where two share a name."""
    first: dict[str, tree.Name] = {}
    devices: list[Device] = []
    for item in items:
        if not isinstance(item, tree.Settings) or item.keyword != "device" or item.name is None:
            continue
        name = item.name.text
        if name in first:
            labels = (Label(item.name.location, "again here"), Label(first[name].location, "first here"))
            found.add(Diagnostic("CG0506", f"there are two devices `{name}`", labels, "rename one of them"))
            continue
        first[name] = item.name
        device = read_device(item, found)
        if device is not None:
            devices.append(device)
    return tuple(devices)


def device_names() -> list[str]:
    """Return the names of the devices that come with cgc."""
    entries = files("cgc.devices").iterdir()
    return sorted(entry.name.removesuffix(".cg") for entry in entries if entry.name.endswith(".cg"))


def load_device(name_or_path: str) -> Device:
    """Return a device by the name of one that comes with cgc, or from a file: `wafer.cg`, `wafer.cg:small`.

    Raises:
        InputError: CG0508 where there is no such device, or a file has several and none is named; what is wrong with
            the file otherwise.
    """
    if name_or_path in device_names():
        text = files("cgc.devices").joinpath(f"{name_or_path}.cg").read_text(encoding="utf-8")
        return _choose(text, f"devices/{name_or_path}.cg", "")
    path, _, name = name_or_path.rpartition(":")
    if not path.endswith(".cg"):
        path, name = name_or_path, ""
    if not path.endswith(".cg"):
        hint = suggest(name_or_path, device_names()) or f"cgc has {_and(device_names())}; a file's name ends in `.cg`"
        raise InputError([Diagnostic("CG0508", f"there is no device `{name_or_path}`", hint=hint)])
    return _choose(read_source(Path(path), path), path, name)


def _and(names: Iterable[str]) -> str:
    words = list(names)
    return listed(words).replace(" or ", " and ") if words else "none"


def _choose(text: str, shown: str, name: str) -> Device:
    """Return the device called `name` in a file, or its only one."""
    found = Diagnostics()
    devices = read_devices(parse(text, shown).items, found)
    found.raise_if_any({shown: text})
    named = [device for device in devices if name in ("", device.name)]
    if len(named) == 1:
        return named[0]
    names = [device.name for device in devices]
    if not devices:
        message, hint = f"`{shown}` has no device", "write one as `device small { … }`"
    elif not named:
        message, hint = f"`{shown}` has no device `{name}`", suggest(name, names) or f"it has {_and(names)}"
    else:
        message, hint = f"`{shown}` has several devices", f"say which one, as in `{shown}:{names[0]}`"
    raise InputError([Diagnostic("CG0508", message, hint=hint)])
