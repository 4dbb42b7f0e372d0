"""Lines of the form `name = value` in items, and the numbers with units that stand in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cgc.diagnostics import Diagnostic, Diagnostics, Label
from cgc.elaborate.hints import suggest
from cgc.elaborate.values import Fault
from cgc.syntax import tree

T = TypeVar("T")

LARGEST = 1e18
"""No number of an item, in its base unit, is larger: more tokens, bytes or hertz than that is a slip."""

BYTES: Mapping[str, float] = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
HERTZ: Mapping[str, float] = {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9}
PER_CYCLE: Mapping[str, float] = {"per cycle": 1}
BYTES_PER_CYCLE: Mapping[str, float] = {"B per cycle": 1}
CYCLES: Mapping[str, float] = {"cycles": 1, "cycle": 1}
_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
BYTES_PER_SECOND: Mapping[str, float] = {
    **{f"{prefix}B/s": scale for prefix, scale in _DECIMAL.items()},
    **{f"{prefix}b/s": scale / 8 for prefix, scale in _DECIMAL.items()},
}
"""A capital B is a byte, a small b a bit: 8 b/s are 1 B/s."""
WATTS: Mapping[str, float] = {"W": 1, "kW": 10**3}
PLAIN: Mapping[str, float] = {"": 1}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a number may be: from `least` (itself out when `above`) to `most` (out when `below`), whole or not."""

    least: float = 0.0
    most: float = LARGEST
    above: bool = False
    below: bool = False
    whole: bool = False

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "number"
        lower = f"above {self.least:g}" if self.above else f"of at least {self.least:g}"
        if self.most == LARGEST:
            return f"a {kind} {lower}"
        return f"a {kind} {lower} and {'below' if self.below else 'at most'} {self.most:g}"

    def holds(self, value: float) -> bool:
        """Tell whether `value` is allowed."""
        lower = value > self.least if self.above else value >= self.least
        upper = value < self.most if self.below else value <= self.most
        return lower and upper and (not self.whole or float(value).is_integer())


ANY = Limits()
POSITIVE = Limits(above=True)
COUNT = Limits(least=1, whole=True)


def listed(words: Iterable[str]) -> str:
    """Return words as a list in running text: "`a`, `b` or `c`"."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def finite(number: tree.Number, sign: str = "") -> float:
    """Return a number of the source as a float.

    Raises:
        Fault: CG0502, it is larger than `LARGEST`.
    """
    size = number.value
    if size > LARGEST:
        hint = f"no setting takes more than {LARGEST:g}"
        raise Fault("CG0502", "the number is too large", Label(number.location), hint=hint)
    return -float(size) if sign == "-" else float(size)


def quantity(
    value: tree.SettingValue, name: str, units: Mapping[str, float], example: str, limits: Limits = ANY
) -> float:
    """Return a number in the base unit of `units` (a factor for each unit that is taken).

    Raises:
        Fault: CG0502, with what would be right; `example` is one value that is.
    """
    written, unit = quantity_and_unit(value, name, units, example)
    number = written * units[unit]
    check_limits(number, name, limits, value)
    return number


def quantity_and_unit(value: tree.SettingValue, name: str, units: Iterable[str], example: str) -> tuple[float, str]:
    """Return a number as written and its unit, one of `units`; errors as `quantity`."""
    known = tuple(units)
    if not isinstance(value, tree.Quantity):
        text = f"`{name}` is a number"
        raise Fault("CG0502", text, Label(value.location), hint=f"write it as in `{name} = {example}`")
    number = finite(value.number, value.sign)
    if value.unit not in known:
        raise _wrong_unit(value, name, known, example)
    return number, value.unit


def check_limits(number: float, name: str, limits: Limits, value: tree.SettingValue) -> None:
    """Raise Fault CG0502 unless `number` is within `limits`."""
    if not limits.holds(number):
        raise Fault("CG0502", f"`{name}` cannot be {number:g}", Label(value.location), hint=f"it is {limits}")


def plain(value: tree.SettingValue, name: str, example: str, limits: Limits = ANY) -> float:
    """Return a number without a unit; errors as `quantity`."""
    return quantity(value, name, PLAIN, example, limits)


def _wrong_unit(value: tree.Quantity, name: str, known: tuple[str, ...], example: str) -> Fault:
    named = [unit for unit in known if unit]
    place = Label(value.location)
    if not named:
        return Fault("CG0502", f"`{name}` has no unit", place, hint=f"write it as in `{name} = {example}`")
    what = f"`{name}` is not measured in `{value.unit}`" if value.unit else f"`{name}` needs a unit"
    hint = f"its unit is {listed(named)}, as in `{name} = {example}`"
    if value.number.text.endswith("B") and any(unit.startswith("B") for unit in named):
        hint = f"`{value.number.text}` is a number of billions; bytes are written apart: `{value.number.text[:-1]} B`"
    return Fault("CG0502", what, place, hint=hint)


def by_name(
    lines: Iterable[tree.Setting], known: Iterable[str], item: str, found: Diagnostics
) -> dict[str, tree.Setting]:
    """Return the lines of an item by name; a line `init std = …` is called `init std`.

    Adds CG0501 for a name that is not in `known`, and CG0504 for one that is set twice.
    """
    names = list(known)
    lines_by_name: dict[str, tree.Setting] = {}
    for line in lines:
        name = f"{line.keyword} {line.name.text}".strip()
        if name not in names:
            hint = suggest(name, names) or f"it takes {listed(names).replace(' or ', ' and ')}"
            found.add(Diagnostic("CG0501", f"{item} has no setting `{name}`", (Label(line.name.location),), hint))
        elif name in lines_by_name:
            labels = (Label(line.name.location, "again here"), Label(lines_by_name[name].name.location, "first here"))
            found.add(Diagnostic("CG0504", f"`{name}` is set twice", labels, "keep one of the two"))
        else:
            lines_by_name[name] = line
    return lines_by_name


def read_line(
    lines: Mapping[str, tree.Setting], name: str, read: Callable[[tree.SettingValue], T], found: Diagnostics
) -> T | None:
    """Return what `read` makes of the line `name`; None where there is no such line or it has a fault."""
    line = lines.get(name)
    if line is None:
        return None
    try:
        return read(line.value)
    except Fault as fault:
        found.add(fault.diagnostic)
        return None
