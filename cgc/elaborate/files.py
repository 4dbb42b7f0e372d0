"""A whole file: its models, what it says about them, and every fault in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cgc.diagnostics import Diagnostic, Diagnostics, InputError, Label
from cgc.elaborate.devices import read_devices
from cgc.elaborate.items import head, read_mup, read_train, single
from cgc.elaborate.layouts import read_checkpoint
from cgc.elaborate.models import Argument, Built, ModelBuilder, build_instance, checked, is_closed, open_arguments
from cgc.elaborate.modules import Module, Modules
from cgc.elaborate.scaling import Measured, Rebuild, measure_scaling
from cgc.elaborate.standalone import check_standalone
from cgc.elaborate.tables import read_table, uses_depth_exponent
from cgc.elaborate.values import Scalar
from cgc.ir.graph import Graph
from cgc.program import Device, Mup, Program, Scaling, Table
from cgc.syntax import tree


@dataclass(frozen=True, slots=True)
class Checked:
    """A file without faults. `programs` are the models that can be compiled as they stand, `devices` the hardware."""

    programs: tuple[Program, ...]
    devices: tuple[Device, ...]
    models: tuple[str, ...]
    blocks: tuple[str, ...]
    sources: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    family: str
    owner: Module
    built: Built
    doc: str
    rebuild: Rebuild


def elaborate_file(
    text: str, shown: str, overrides: Mapping[str, Scalar] | None = None, folder: Path | None = None
) -> Checked:
    """Check the text of a file; `shown` is its path as messages name it.

    `overrides` replace sizes of every model in the file (`--set`). Relative `use` paths start in `folder`, by default
    the one of `shown`.

    Raises:
        InputError: with every fault found.
    """
    found = Diagnostics()
    modules = Modules(found)
    try:
        module = modules.main(text, shown, Path(shown).parent if folder is None else folder)
    except InputError as error:
        for diagnostic in error.diagnostics:
            found.add(diagnostic)
        raise InputError(found.sorted(), modules.sources) from error
    check = _FileCheck(modules, module, overrides or {}, found)
    result = check.run()
    found.raise_if_any(modules.sources)
    return result


def _graph(built: Built | None, found: Diagnostics) -> Graph | Diagnostic:
    """Return the graph of what was built, or the first fault."""
    return found.sorted()[0] if built is None else built.graph


class _FileCheck:
    def __init__(self, modules: Modules, module: Module, overrides: Mapping[str, Scalar], found: Diagnostics) -> None:
        self._modules = modules
        self._module = module
        self._overrides = overrides
        self._found = found
        self._used: set[int] = set()
        self._instanced: set[str] = set()

    def run(self) -> Checked:
        """Elaborate everything in the file."""
        items = self._module.file.items
        models = [model for item in items if isinstance(item, tree.Instance) if (model := self._instance(item))]
        for name, definition in self._module.models.items():
            if name not in self._instanced:
                model = self._definition(name, definition)
                if model is not None:
                    models.append(model)
        for definition in self._module.blocks.values():
            if id(definition) not in self._used:
                check_standalone(self._modules, self._module, definition, self._found)
        devices = read_devices(items, self._found)
        programs = self._programs(models, devices)
        names = (*self._module.models, *(i.name.text for i in items if isinstance(i, tree.Instance)))
        return Checked(programs, devices, names, tuple(self._module.blocks), self._modules.sources)

    def _built(self, builder: ModelBuilder, built: Built | None) -> Built | None:
        self._used |= builder.blocks.made.keys()
        return built

    def _instance(self, item: tree.Instance) -> _Model | None:
        result = build_instance(self._modules, self._module, item, self._overrides, self._found)
        located = self._modules.model(self._module, item.family.text)
        if result is None or located is None:
            return None
        builder, built = result
        self._built(builder, built)
        if builder.walked:
            self._instanced.add(item.family.text)
        if built is None:
            return None

        def rebuild(sizes: Mapping[str, int]) -> Graph | Diagnostic:
            quiet = Diagnostics()
            again = build_instance(self._modules, self._module, item, {**self._overrides, **sizes}, quiet)
            return _graph(again[1] if again is not None else None, quiet)

        return _Model(item.name.text, item.family.text, located[0], checked(built), located[1].doc, rebuild)

    def _definition(self, name: str, definition: tree.Definition) -> _Model | None:
        """A family of this file that nothing instantiates: compiled where it has all its sizes, else checked open."""
        builder = ModelBuilder(self._modules, self._module, definition, self._found)
        given = open_arguments(definition)
        given.update({key: Argument(value) for key, value in self._overrides.items()})
        built = self._built(builder, builder.build(name, given))
        closed = is_closed(definition) or set(open_arguments(definition)) <= set(self._overrides)
        if built is None or not closed:
            return None

        def rebuild(sizes: Mapping[str, int]) -> Graph | Diagnostic:
            quiet = Diagnostics()
            other = {**given, **{key: Argument(value) for key, value in sizes.items()}}
            return _graph(ModelBuilder(self._modules, self._module, definition, quiet).build(name, other), quiet)

        return _Model(name, name, self._module, checked(built), definition.doc, rebuild)

    def _settings(self, keyword: str) -> list[tree.Settings]:
        items = self._module.file.items
        return [item for item in items if isinstance(item, tree.Settings) and item.keyword == keyword]

    def _programs(self, models: list[_Model], devices: tuple[Device, ...]) -> tuple[Program, ...]:
        mup_item = single(self._settings("mup"), "mup", self._found)
        train_item = single(self._settings("train"), "train", self._found)
        train = read_train(train_item, self._found) if train_item else None
        tables = {name: self._table(item, False) for name, item in self._module.tables.items()}
        if not models:
            self._without_model([item for item in (mup_item,) if item])
        programs: list[Program] = []
        for model in models:
            graph, arguments = model.built.graph, model.built.arguments
            scaling = None
            mup = None
            if mup_item:
                mup = read_mup(mup_item, graph, arguments, self._modules.table_names(self._module), self._found)
                scaling = self._scaling(model, mup, mup_item, tables)
            layout = model.owner.checkpoints.get(model.family)
            checkpoint = read_checkpoint(layout, graph, self._found) if layout else None
            programs.append(
                Program(
                    model.name,
                    graph,
                    model.family,
                    arguments,
                    mup,
                    train,
                    devices,
                    checkpoint,
                    self._module.shown,
                    model.doc,
                    scaling,
                )
            )
        return tuple(programs)

    def _table(self, item: tree.Table, library: bool) -> Table:
        return read_table(item, library, self._found)

    def _scaling(self, model: _Model, mup: Mup, item: tree.Settings, tables: Mapping[str, Table]) -> Scaling | None:
        """Return how a model grows by its `mup` item; None with faults, or where nothing is said to grow."""
        located = self._modules.table(self._module, mup.parametrization)
        if located is None:
            return None
        owner, written = located
        table = tables.get(mup.parametrization) or self._table(written, bool(owner.library))
        alpha = next((setting for setting in mup.values if setting.name == "alpha"), None)
        if alpha is not None and not uses_depth_exponent(table):
            hint = "add `parametrization = completep`, or leave `alpha` out"
            text = f"`alpha` is an exponent of depth, which `{table.name}` does not use"
            self._found.add(Diagnostic("CG0502", text, (Label(alpha.location),), hint))
        if mup.init and all(rule.line("init") is None for rule in table.rules):
            hint = "give it in the model, or choose another parametrization"
            text = f"`{table.name}` takes initial distributions from the model, not from here"
            self._found.add(Diagnostic("CG0502", text, (Label(mup.init[0].location),), hint))
        if len(self._found):
            return None
        graph, arguments = model.built.graph, model.built.arguments
        scale = next((line.location for line in item.lines if isinstance(line, tree.Scale)), head(item))
        return measure_scaling(Measured(graph, arguments, model.rebuild, mup, scale), table, self._found)

    def _without_model(self, items: list[tree.Settings]) -> None:
        if len(self._found):
            return
        for item in items:
            text = f"`{item.keyword}` says how a model scales, but there is no model with all its sizes in this file"
            self._found.add(Diagnostic("CG0406", text, (Label(head(item)),), "add one, as `model name = family(…)`"))
