"""Fields of a configuration taken by name and type. What nobody took is a fault: nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cgc.diagnostics import Diagnostic, Diagnostics, Label, Location
from cgc.elaborate.hints import quoted, suggest
from cgc.importers.document import Entry, Scalar

LARGEST = 2**40
"""No size is larger."""
MOST = 1e18
"""No other number is larger."""


class Fields:
    """The fields of one mapping. Faults go into `found`; a faulty field has its default, or any value of its type."""

    def __init__(self, entry: Entry, path: str, found: Diagnostics) -> None:
        self._entry = entry
        self._path = path
        self.found = found
        self._taken: set[str] = set()
        self._missing: list[str] = []
        if not isinstance(entry.value, dict):
            text = f"`{path}` is {entry.shown}, not a mapping" if path else "a configuration is a mapping of fields"
            self.fault("CG1003", text, entry.place)
        self._entries = entry.value if isinstance(entry.value, dict) else {}

    def fault(self, code: str, message: str, place: Location, hint: str = "") -> None:
        """Add a fault."""
        self.found.add(Diagnostic(code, message, (Label(place),), hint))

    def full(self, name: str) -> str:
        """Return a field's name with the sections it stands in."""
        return f"{self._path}.{name}" if self._path else name

    def place(self, *names: str) -> Location:
        """Return the place of the first field given among `names`, else of the mapping's beginning."""
        return next((self._entries[name].place for name in names if name in self._entries), self._start())

    def _start(self) -> Location:
        place = self._entry.place
        return Location(place.file, place.line, place.column, place.line, place.column + 1)

    def has(self, *names: str) -> bool:
        """Tell whether one of the fields is given, and not null."""
        return any(name in self._entries and self._entries[name].value is not None for name in names)

    def names(self) -> list[str]:
        """Return the names of all fields."""
        return list(self._entries)

    def only(self, kind: str) -> tuple[str, Fields] | None:
        """Return the one name in a mapping such as `{AdamW: {…}}`, and the fields below it."""
        names = self.names()
        inner = self.section(names[0]) if len(names) == 1 else None
        if inner is None and isinstance(self._entry.value, dict):
            message = (
                f"`{self._path}` has {len(names)} keys" if len(names) != 1 else f"`{self.full(names[0])}` is empty"
            )
            self.fault("CG1003", message, self._start(), f"it is one {kind} with its settings")
        return None if inner is None else (names[0], inner)

    def take(self, *names: str) -> Entry | None:
        """Return the field that has one of the names, None where there is none or it is null.

        Two fields of one meaning have to agree (CG1006).
        """
        self._taken.update(names)
        given = [(name, self._entries[name]) for name in names if self.has(name)]
        for name, entry in given[1:]:
            if entry.value != given[0][1].value:
                message = f"`{self.full(name)}` is {entry.shown}, and `{given[0][0]}` is {given[0][1].shown}"
                labels = (Label(entry.place), Label(given[0][1].place, "this says the same"))
                hint = "they are names of one field: keep one of the two"
                self.found.add(Diagnostic("CG1006", message, labels, hint))
        return given[0][1] if given else None

    def _required(self, names: tuple[str, ...]) -> Entry | None:
        entry = self.take(*names)
        if entry is None:
            self._missing.append(names[0])
        return entry

    def _wrong(self, name: str, entry: Entry, wanted: str) -> None:
        self.fault("CG1003", f"`{self.full(name)}` is {entry.shown}", entry.place, f"it is {wanted}")

    def whole(self, *names: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        """Return a whole number; without `default` it has to be there."""
        entry = self._required(names) if default is None else self.take(*names)
        if entry is None:
            return least if default is None else default
        value = entry.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(names[0], entry, f"a whole number from {least} to {most}")
            return least
        return value

    def number(
        self,
        *names: str,
        default: float | None = None,
        above: float | None = None,
        least: float = 0.0,
        most: float = MOST,
    ) -> float:
        """Return a number of at least `least` (or more than `above`); without `default` it has to be there."""
        entry = self._required(names) if default is None else self.take(*names)
        if entry is None:
            return 1.0 if default is None else default
        value = entry.value
        low = above if above is not None else least
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not (low <= value <= most) or (above is not None and value == above):  # type: ignore[operator]
            wanted = f"above {above:g}" if above is not None else f"of at least {least:g}"
            self._wrong(names[0], entry, f"a number {wanted}" + ("" if most == MOST else f" and at most {most:g}"))
            return 1.0 if default is None else default
        return float(value)  # type: ignore[arg-type]

    def flag(self, *names: str, default: bool) -> bool:
        """Return a truth value."""
        entry = self.take(*names)
        if entry is None:
            return default
        if not isinstance(entry.value, bool):
            self._wrong(names[0], entry, "true or false")
            return default
        return entry.value

    def text(self, *names: str, default: str | None = None) -> str:
        """Return a text; without `default` it has to be there."""
        entry = self._required(names) if default is None else self.take(*names)
        if entry is None:
            return default or ""
        if not isinstance(entry.value, str):
            self._wrong(names[0], entry, "a text")
            return default or ""
        return entry.value

    def section(self, name: str, required: bool = False) -> Fields | None:
        """Return the fields of a mapping in this one."""
        entry = self._required((name,)) if required else self.take(name)
        return None if entry is None else Fields(entry, self.full(name), self.found)

    def entries(self, name: str, required: bool = False) -> list[Entry]:
        """Return the entries of a list."""
        entry = self._required((name,)) if required else self.take(name)
        if entry is None:
            return []
        if not isinstance(entry.value, list):
            self._wrong(name, entry, "a list")
            return []
        return entry.value

    def expect(self, name: str, *allowed: Scalar, hint: str) -> None:
        """Take a field that may have only some values, the others being nothing that can be expressed (CG1005)."""
        entry = self.take(name)
        if entry is None:
            return
        value = entry.value
        known = any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in allowed)
        if isinstance(value, list | dict) or not known:
            self.inexpressible(name, entry, hint)

    def inexpressible(self, name: str, entry: Entry, hint: str) -> None:
        """Add the fault that a field says what a model of the family cannot."""
        self.fault("CG1005", f"`{self.full(name)}` is {entry.shown}, which cannot be expressed", entry.place, hint)

    def ignore(self, names: Iterable[str]) -> None:
        """Take fields that do not change any number of the model."""
        self._taken.update(names)

    def finish(self, known: Collection[str] = ()) -> None:
        """Add a fault for all fields that are missing, and one for every field that nobody took."""
        if self._missing and isinstance(self._entry.value, dict):
            lacking = [self.full(name) for name in dict.fromkeys(self._missing)]
            message = f"{quoted(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
            self.fault("CG1002", message, self._start(), "nothing can be taken for granted in its place")
        for name in self._entries:
            if name not in self._taken:
                hint = suggest(name, {*self._taken, *known}) or "take it out if it does not change the model"
                place = self._entry.names.get(name, self._entries[name].place)
                self.fault("CG1004", f"`{self.full(name)}` is no field that is known here", place, hint)
