"""A program with its parametrization: derived, put into the graph, and looked up."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from cgc.diagnostics import Diagnostic, Diagnostics, Label
from cgc.elaborate.modules import TABLES, Modules
from cgc.elaborate.tables import read_table
from cgc.elaborate.values import Fault
from cgc.parametrize.apply import apply
from cgc.parametrize.check import Check, item_head
from cgc.parametrize.derive import Derivation, Derived, Quantity, Site, tuned
from cgc.parametrize.uses import DifferentStructure, find_uses
from cgc.passes.inline import inline
from cgc.program import Factor, Parametrization, ParamSetting, Program, Table


@cache
def standard_table(name: str) -> Table:
    """Return a parametrization that comes with cgc."""
    found = Diagnostics()
    library = Modules(found).library(TABLES)
    assert library is not None, "the library has it"
    return read_table(library.tables[name], True, found)


def derivation(program: Program) -> Derivation:
    """Return the derivation for a program, from its model as written."""
    scaling = program.scaling
    base = tuned(program.mup, program.train)
    if scaling is None:
        own = inline(program.graph)
        graphs = (own, own)
        return Derivation(graphs, find_uses(graphs), standard_table("sp"), base, scaled=False)
    copies = (inline(scaling.own), inline(scaling.base), *(inline(grown.graph) for grown in scaling.grown))
    return Derivation(copies, find_uses(copies), scaling.table, base, scaled=bool(scaling.grown))


def parametrized(program: Program) -> tuple[Program, list[Diagnostic]]:
    """Return a program with its parametrization derived and put into its graph, and the faults of its scaling."""
    if program.scaling is None:
        return program, []
    try:
        made = derivation(program)
    except DifferentStructure as error:
        assert program.mup is not None
        labels = [Label(item_head(program.mup.location))]
        if error.node is not None and error.node.location.file == program.file:
            labels.append(Label(error.node.location, "here they part"))
        hint = "let what grows change sizes only; decide on the structure with another argument of the model"
        text = "the model has another structure at other sizes"
        return program, [Diagnostic("CG0512", text, tuple(labels), hint)]
    try:
        return _applied(program, made), Check(program, made).diagnostics()
    except Fault as fault:
        return program, [fault.diagnostic]


def _applied(program: Program, made: Derivation) -> Program:
    sites = made.sites()
    derived = made.params()
    factors = tuple(_factor(made, site) for site in sites if site.values[0] != 1.0)
    settings = tuple(_setting(param, sites) for param in derived)
    name = program.mup.parametrization if program.mup is not None else "sp"
    result = Parametrization(name, settings, factors)
    if program.mup is None:
        return replace(program, parametrization=result)
    own = program.scaling.own if program.scaling is not None else program.graph
    graph = apply(own, {site.place: site.values[0] for site in sites if site.values[0] != 1.0})
    inits = {param.param.name: param.inits[0] for param in derived}
    params = tuple(replace(param, init=inits[param.name]) for param in graph.params)
    return replace(program, graph=replace(graph, params=params), parametrization=result)


def parametrization_of(program: Program) -> Parametrization:
    """Return the parametrization of a program: the derived one, or what its file says as it stands."""
    found = program.parametrization or _applied(program, derivation(program)).parametrization
    assert found is not None
    return found


def _setting(derived: Derived, sites: list[Site]) -> ParamSetting:
    own = [site for site in sites if derived.param.name in site.params and site.group == derived.group]
    multiplier = 1.0
    for site in own[:1] if derived.group != "residual" else own:
        multiplier *= site.values[0]
    quantities = {
        "init": derived.std,
        "lr": derived.lr,
        "eps": derived.eps,
        "weight_decay": derived.weight_decay,
    }
    reasons = [(name, quantity.reason) for name, quantity in quantities.items()]
    reasons[:0] = [("multiplier", site.reason) for site in own[:1]]
    return ParamSetting(
        derived.param.name,
        derived.group,
        derived.uses,
        multiplier,
        derived.inits[0],
        _own(derived.lr),
        _own(derived.eps),
        _own(derived.weight_decay),
        derived.lr_factors[0],
        tuple(reasons),
        tuple(name for name, quantity in quantities.items() if quantity.overridden),
    )


def _own(quantity: Quantity) -> float | None:
    return quantity.values[0] if quantity.values is not None else None


def _factor(made: Derivation, site: Site) -> Factor:
    path, location = made.place(site)
    return Factor(path, site.group, site.values[0], site.reason, location)


def scaling_check(program: Program) -> Check | None:
    """Return the static check of a program; None where no `mup` item says what grows."""
    return Check(program, derivation(program)) if program.scaling is not None and program.scaling.grown else None
