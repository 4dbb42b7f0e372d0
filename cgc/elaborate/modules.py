"""Source files and what they can see of each other: `use`, the library, and the prelude.

A file sees its own definitions first, then those of the files it uses, then the prelude: the library's layers,
attention, positions and losses, which need no `use`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label
from cgc.syntax import tree
from cgc.syntax.parser import parse, read_source

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
    uses: list[Module] = field(default_factory=list)


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
        self._loading.append(shown)
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
                case tree.Use():
                    used = self._use(item, folder)
                    if used is not None:
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
        shown = path.as_posix()
        if shown in self._loading:
            chain = " → ".join([*self._loading[self._loading.index(shown) :], shown])
            self.found.add(
                Diagnostic(
                    "CG0305",
                    "files use each other in a circle",
                    (Label(item.location, chain),),
                    "move what both need into a third file",
                )
            )
            return None
        if shown in self._loaded:
            return self._loaded[shown]
        self._loaded[shown] = None
        self._loading.append(shown)
        try:
            text = read_source(path, shown)
            self.sources[shown] = text
            self._loaded[shown] = self._enter(parse(text, shown), shown, "", path.parent)
        except InputError as error:
            self._report(error, item)
        self._loading.pop()
        return self._loaded[shown]

    def _report(self, error: InputError, item: tree.Use) -> None:
        for diagnostic in error.diagnostics:
            if diagnostic.code == "CG0001":
                hint = "a path without quotes is looked up beside this file, with `.cg` added; the library is `std/…`"
                self.found.add(Diagnostic("CG0304", diagnostic.message, (Label(item.location),), hint))
            else:
                self.found.add(diagnostic)

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

    def model_names(self, module: Module) -> list[str]:
        """Return the names of all models that `module` can see."""
        return sorted({name for candidate in (module, *module.uses) for name in candidate.models})
