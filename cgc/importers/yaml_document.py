"""A reader of YAML that builds no objects: from the events of PyYAML's safe loader to entries with places.

An alias is the entry of its anchor itself, not a copy, so that aliases of aliases take no room. Plain numbers are those
of YAML 1.2, where `1e-5` is one (in YAML 1.1, which PyYAML follows, it is a text for want of a dot).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cgc.diagnostics import InputError, Location
from cgc.importers.document import DEEPEST, Entry, Scalar, number_of, unreadable

_WORDS: dict[str, Scalar] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read; `key` is the key that waits for its value."""

    entry: Entry
    anchor: str | None
    key: str | None = None
    names: dict[str, Location] = field(default_factory=dict)


def read_yaml(text: str, shown: str) -> Entry:
    """Return the value of a YAML text of one document; messages name it `shown`.

    Raises:
        InputError: CG1001, it is not YAML, nests too deep, or has what configurations have no use for (tags, anchors
            inside themselves, keys that are no words, keys given twice).
    """
    import yaml

    reader = _Reader(text, shown)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            reader.event(event, yaml)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Location(shown, mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 2) if mark else reader.top
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it has no such form"
        raise unreadable(text, f"this is not YAML: {problem}", place) from error
    except (ValueError, OverflowError) as error:
        raise unreadable(text, "this is not YAML: an escape names no character", reader.last) from error
    if reader.result is None:
        raise unreadable(text, "the file is empty", reader.top)
    return reader.result


class _Reader:
    def __init__(self, text: str, shown: str) -> None:
        self._text = text
        self._shown = shown
        self._open: list[_Open] = []
        self._anchors: dict[str, Entry] = {}
        self.top = Location(shown, 0, 0, 0, 0)
        self.last = self.top
        self.result: Entry | None = None

    def event(self, event: Any, yaml: Any) -> None:
        """Take the next event."""
        start, end = event.start_mark, event.end_mark
        place = Location(self._shown, start.line + 1, start.column + 1, end.line + 1, end.column + 1)
        self.last = place
        match event:
            case yaml.ScalarEvent():
                self._tagged(event, place)
                plain = event.implicit[0] and event.style is None
                entry = Entry(self._scalar(event.value, place) if plain else event.value, place, {})
                self._add(entry, event.anchor)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._tagged(event, place)
                if len(self._open) > DEEPEST:
                    raise self._fault(f"this nests deeper than {DEEPEST}", place)
                names: dict[str, Location] = {}
                entry = Entry({} if isinstance(event, yaml.MappingStartEvent) else [], place, names)
                self._key_only_word(place)
                self._open.append(_Open(entry, event.anchor, None, names))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                closed = self._open.pop()
                self._add(closed.entry, closed.anchor)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise self._fault(f"`*{event.anchor}` stands for nothing that ended before it", place)
                self._key_only_word(place)
                self._add(self._anchors[event.anchor], None)
            case yaml.DocumentStartEvent() if self.result is not None:
                raise self._fault("the file has a second document", place)
            case _:
                pass

    def _fault(self, message: str, place: Location) -> InputError:
        return unreadable(self._text, message, place)

    def _tagged(self, event: Any, place: Location) -> None:
        if event.tag is not None:
            raise self._fault(f"tags such as `{event.tag}` are not read", place)

    def _scalar(self, text: str, place: Location) -> Scalar:
        if text in _WORDS:
            return _WORDS[text]
        if text == "<<":
            raise self._fault("`<<` is not read: write the keys out", place)
        number = number_of(text)
        return text if number is None else number

    def _key_only_word(self, place: Location) -> None:
        if self._open and isinstance(self._open[-1].entry.value, dict) and self._open[-1].key is None:
            raise self._fault("a key is one word", place)

    def _add(self, entry: Entry, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = entry
        if not self._open:
            self.result = entry
            return
        around = self._open[-1]
        match around.entry.value:
            case list() as entries:
                entries.append(entry)
            case dict() as entries if around.key is not None:
                entries[around.key] = entry
                around.key = None
            case dict() as entries:
                key = str(entry.value)
                if key in entries:
                    raise self._fault(f"`{key}` is given twice", entry.place)
                around.key = key
                around.names[key] = entry.place
            case _:
                raise AssertionError("only lists and mappings are open")
