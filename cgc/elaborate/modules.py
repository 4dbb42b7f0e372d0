"""Source files and what they can see of each other: `use`, the library, and the prelude.

A file sees its own definitions first, then those of the files it uses, then the prelude: the library's layers,
attention, positions and losses, which need no `use`.
"""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label
from cgc.syntax import tree
from cgc.syntax.parser import parse, read_source

DEEPEST_USE = 50
"""Files that may use each other in a row."""
TABLES = "std/parametrizations"
"""Where the library has its parametrizations."""
PRELUDE = ("std/nn", "std/attention", "std/positions", "std/loss")


@dataclass(slots=True)
class Module:
    """One parsed file. `library` is its name in the standard library (`std/nn`), empty for a user's file."""

    shown: str
    library: str
    file: tree.File
    blocks: dict[str, tree.Definition] = field(default_factory=dict)
    models: dict[str, tree.Definition] = field(default_factory=dict)
    checkpoints: dict[str, tree.Checkpoint] = field(default_factory=dict)
    tables: dict[str, tree.Table] = field(default_factory=dict)
    uses: list[Module] = field(default_factory=list)
    lacking: bool = False
    """A file that it uses cannot be read: what it does not find may be there."""


def _identity(path: Path) -> str:
    """Return what makes a file the same file, however its path is spelled."""
    return os.path.realpath(path)


def _shown(path: Path) -> str:
    """Return a path as messages name it, without detours such as `a/../`."""
    plain = Path(os.path.normpath(path))
    return (plain if _identity(plain) == _identity(path) else path).as_posix()


def library_names() -> list[str]:
    """Return the names of the library's files: `std/attention`, `std/gpt2`, …"""
    entries = files("cgc.std").iterdir()
    return sorted(f"std/{entry.name.removesuffix('.cg')}" for entry in entries if entry.name.endswith(".cg"))


class Modules:
    """Loads files, each once. `sources` collects their texts for diagnostics."""

    def __init__(self, found: Diagnostics) -> None:
        self.found = found
        self.sources: dict[str, str] = {}
        self._loaded: dict[str, Module | None] = {}
        self._loading: list[str] = []

    def main(self, text: str, shown: str, folder: Path) -> Module:
        """Parse the text of the file being compiled and what it uses; errors as `parse`."""
        self.sources[shown] = text
        self._loading.append(_identity(folder / Path(shown).name))
        return self._enter(parse(text, shown), shown, "", folder)

    def _enter(self, file: tree.File, shown: str, library: str, folder: Path | None) -> Module:
        module = Module(shown, library, file)
        for item in file.items:
            match item:
                case tree.Definition(keyword="block"):
                    self._define(module.blocks, item)
                case tree.Definition():
                    self._define(module.models, item)
                case tree.Checkpoint():
                    module.checkpoints[item.name.text] = item
                case tree.Table(name=name):
                    if name.text in module.tables:
                        labels = (
                            Label(name.location, "again here"),
                            Label(module.tables[name.text].name.location, "first here"),
                        )
                        text = f"parametrization `{name.text}` is defined twice"
                        self.found.add(Diagnostic("CG0303", text, labels, "rename one of them"))
                    module.tables.setdefault(name.text, item)
                case tree.Use():
                    used = self._use(item, folder)
                    if used is None:
                        module.lacking = True
                    else:
                        module.uses.append(used)
                case _:
                    pass
        return module

    def _define(self, into: dict[str, tree.Definition], item: tree.Definition) -> None:
        name = item.name.text
        if name in into:
            labels = (Label(item.name.location, "again here"), Label(into[name].name.location, "first here"))
            self.found.add(
                Diagnostic("CG0303", f"{item.keyword} `{name}` is defined twice", labels, "rename one of them")
            )
        into.setdefault(name, item)
        self._distinct(item)

    def _distinct(self, item: tree.Definition) -> None:
        """Check that no name stands twice in a header."""
        first: dict[str, tree.Name] = {}
        for parameter in item.header:
            match parameter:
                case tree.ArrowParameter(source=source, target=target):
                    names: tuple[tree.Name, ...] = (source, target)
                case _:
                    names = (parameter.name,)
            for name in names:
                if name.text in first:
                    labels = (Label(name.location, "again here"), Label(first[name.text].location, "first here"))
                    text = f"`{name.text}` stands twice in the header of `{item.name.text}`"
                    self.found.add(Diagnostic("CG0303", text, labels, "choose another name"))
                first.setdefault(name.text, name)

    def _use(self, item: tree.Use, folder: Path | None) -> Module | None:
        if item.path.startswith("std/") and not item.quoted:
            if item.path not in library_names():
                near = get_close_matches(item.path, library_names(), 1, 0.5)
                hint = f"did you mean `use {near[0]}`?" if near else f"the library has {', '.join(library_names())}"
                self.found.add(
                    Diagnostic("CG0304", f"there is no `{item.path}` in the library", (Label(item.location),), hint)
                )
                return None
            return self.library(item.path)
        if folder is None:
            return None
        path = folder / (item.path if item.quoted else f"{item.path}.cg")
        return self._file(path, item)

    def library(self, name: str) -> Module | None:
        """Return a file of the standard library."""
        shown = f"{name}.cg"
        if shown not in self._loaded:
            text = files("cgc.std").joinpath(f"{name.removeprefix('std/')}.cg").read_text(encoding="utf-8")
            self.sources[shown] = text
            self._loaded[shown] = None
            self._loaded[shown] = self._enter(parse(text, shown), shown, name, None)
        return self._loaded[shown]

    def _file(self, path: Path, item: tree.Use) -> Module | None:
        key, shown = _identity(path), _shown(path)
        if key in self._loading:
            files_in_circle = [*self._loading[self._loading.index(key) :], key]
            chain = " → ".join(f"`{Path(file).name}`" for file in files_in_circle)
            circle = "files use each other in a circle" if len(files_in_circle) > 2 else "the file uses itself"
            hint = "move what both need into a third file" if len(files_in_circle) > 2 else "leave this line out"
            label = Label(item.location, chain if len(files_in_circle) > 2 else "")
            self.found.add(Diagnostic("CG0305", circle, (label,), hint))
            return None
        if key in self._loaded:
            return self._loaded[key]
        if len(self._loading) > DEEPEST_USE:
            labels = (Label(item.location),)
            text = f"more than {DEEPEST_USE} files use each other in a row"
            self.found.add(Diagnostic("CG0902", text, labels, hint="put what they share into one file"))
            return None
        self._loaded[key] = None
        self._loading.append(key)
        try:
            text = read_source(path, shown)
            self.sources[shown] = text
            self._loaded[key] = self._enter(parse(text, shown), shown, "", path.parent)
        except InputError as error:
            self._report(error, item)
        self._loading.pop()
        return self._loaded[key]

    def _report(self, error: InputError, item: tree.Use) -> None:
        for diagnostic in error.diagnostics:
            if diagnostic.code in ("CG0001", "CG0002", "CG0003"):
                hint = ""
                if not item.quoted:
                    hint = "a path without quotes is a file beside this one, `.cg` added; the library is `std/…`"
                self.found.add(Diagnostic("CG0304", diagnostic.message, (Label(item.location),), hint))
            else:
                self.found.add(diagnostic)

    def is_library(self, file: str) -> bool:
        """Tell whether messages call a file of the standard library by this name."""
        module = self._loaded.get(file)
        return module is not None and bool(module.library)

    def prelude(self) -> list[Module]:
        """Return the files that every file can see."""
        return [module for name in PRELUDE if (module := self.library(name)) is not None]

    def block(
        self, module: Module, name: str, primitives: Container[str] = ()
    ) -> tuple[Module, tree.Definition] | None:
        """Find the block that `name` means in `module`; a name of `primitives` is not looked up in the prelude."""
        for candidate in (module, *module.uses):
            if name in candidate.blocks:
                return candidate, candidate.blocks[name]
        if name in primitives:
            return None
        for library in PRELUDE:
            loaded = self.library(library)
            if loaded is not None and name in loaded.blocks:
                return loaded, loaded.blocks[name]
        return None

    def block_names(self, module: Module) -> list[str]:
        """Return the names of all blocks that `module` can see."""
        seen = (module, *module.uses, *self.prelude())
        return sorted({name for candidate in seen for name in candidate.blocks})

    def model(self, module: Module, name: str) -> tuple[Module, tree.Definition] | None:
        """Find the model that `name` means in `module`."""
        for candidate in (module, *module.uses):
            if name in candidate.models:
                return candidate, candidate.models[name]
        return None

    def table(self, module: Module, name: str) -> tuple[Module, tree.Table] | None:
        """Find the parametrization that `name` means in `module`; the library's need no `use`."""
        for candidate in (module, *module.uses):
            if name in candidate.tables:
                return candidate, candidate.tables[name]
        library = self.library(TABLES)
        if library is not None and name in library.tables:
            return library, library.tables[name]
        return None

    def table_names(self, module: Module) -> list[str]:
        """Return the names of all parametrizations that `module` can see."""
        library = self.library(TABLES)
        seen = (module, *module.uses, *([library] if library is not None else []))
        return sorted({name for candidate in seen for name in candidate.tables})

    def model_names(self, module: Module) -> list[str]:
        """Return the names of all models that `module` can see."""
        return sorted({name for candidate in (module, *module.uses) for name in candidate.models})
