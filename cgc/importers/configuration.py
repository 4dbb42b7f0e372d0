"""From a published configuration to the text of a `.cg` file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label, Location
from cgc.importers.document import Entry, read_json
from cgc.importers.hub import import_hub
from cgc.importers.modelzoo import import_modelzoo
from cgc.importers.recipe import name_from
from cgc.importers.yaml_document import read_yaml


def read_configuration(text: str, shown: str) -> Entry:
    """Return a JSON text's value, or a YAML text's where it does not begin like JSON (InputError: CG1001)."""
    return read_json(text, shown) if text.lstrip()[:1] in ("{", "[") else read_yaml(text, shown)


def import_text(text: str, shown: str, name: str | None = None, without_dropout: bool = False) -> str:
    """Return the `.cg` file that says what a configuration says; messages name the configuration `shown`.

    `name` is the model's, by default made of the file's name.

    Raises:
        InputError: CG10xx, with every fault found.
    """
    root = read_configuration(text, shown)
    found = Diagnostics()
    sources = {shown: text}
    zoo = isinstance(root.value, dict) and not root.value.keys().isdisjoint(("trainer", "model", "runconfig"))
    recipe = (import_modelzoo if zoo else import_hub)(root, found, without_dropout)
    found.raise_if_any(sources)
    assert recipe is not None, "what cannot be read has a fault"
    made = recipe.text(name or name_from(_own_name(root, shown), recipe.family), Path(shown).name)
    _check(made, shown, sources)
    return made


def import_file(path: str, name: str | None = None, without_dropout: bool = False) -> str:
    """Return the `.cg` file for a configuration (InputError: it cannot be read, or as `import_text`)."""
    from cgc.syntax.parser import read_source

    try:
        text = read_source(Path(path), path)
    except InputError as error:
        hint = "a configuration is a text of a few KiB; is this a checkpoint?"
        raise InputError(replace(fault, hint=hint) if fault.hint else fault for fault in error.diagnostics) from error
    return import_text(text, path, name, without_dropout)


def _own_name(root: Entry, shown: str) -> str:
    stem = Path(shown).stem
    if stem.startswith("config") and isinstance(root.value, dict) and "_name_or_path" in root.value:
        return str(root.value["_name_or_path"].value).rstrip("/").rpartition("/")[2]
    return stem


def _check(made: str, shown: str, sources: dict[str, str]) -> None:
    """Check what was made; what is left to find is mostly a size that no machine has."""
    from cgc.driver import parametrize_checked
    from cgc.elaborate.files import elaborate_file

    try:
        parametrize_checked(elaborate_file(made, "model.cg"), "usual")
    except InputError as error:
        place = Label(Location(shown, 0, 0, 0, 0))
        faults = [
            Diagnostic("CG1006", f"the model does not build: {fault.message}", (place,), fault.hint)
            for fault in error.diagnostics[:1]
        ]
        raise InputError(faults, sources) from error
