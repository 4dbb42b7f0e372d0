"""From uses and a table of rules to numbers: initial distributions, multipliers, rates, epsilons, weight decays.

Every number is computed for all copies of the model at once, its own sizes first and the base sizes second: how it
changes from copy to copy is what the static coordinate check looks at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from cgc.diagnostics import Label
from cgc.elaborate.tables import evaluate
from cgc.elaborate.values import Fault
from cgc.ir.graph import Graph, Init, Location, Param
from cgc.parametrize.uses import Branch, Numbers, Sizes, Use, Uses, in_order
from cgc.program import Mup, Optimizer, Rule, Setting, Table, Train
from cgc.syntax.printer import expression_text
from cgc.syntax.tree import RuleLine

ORDER = ("residual", "hidden", "embedding", "output", "vector")
"""Which class a parameter with several kinds of use has; tied embeddings are embeddings."""

Place: TypeAlias = tuple[int, int | None]
"""Where a multiplier acts: the index of a node, and which operand of it; None is its result."""


@dataclass(frozen=True, slots=True)
class Site:
    """A forward multiplier: at which use, of which class, by how much in each copy, and where that comes from."""

    place: Place
    group: str
    params: tuple[str, ...]
    values: Numbers
    rule: RuleLine | None
    reason: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A derived number in each copy; None where the file sets no base value. `reason` says how it came about."""

    values: Numbers | None
    rule: RuleLine | None
    reason: str
    overridden: bool = False


@dataclass(frozen=True, slots=True)
class Derived:
    """What is derived for one parameter. `std` are standard deviations, None for constant initial values."""

    param: Param
    group: str
    uses: tuple[str, ...]
    inits: tuple[Init, ...]
    std: Quantity
    lr: Quantity
    lr_factors: Numbers
    eps: Quantity
    weight_decay: Quantity


@dataclass(frozen=True, slots=True)
class Tuned:
    """Base values from the `mup` and `train` items, and what the `mup` item says of single parameters."""

    std: float | None = None
    lr: float | None = None
    eps: float | None = None
    weight_decay: float | None = None
    alpha: float = 1.0
    multipliers: tuple[Setting, ...] = ()
    overrides: tuple[tuple[str, tuple[Setting, ...]], ...] = ()

    def override(self, param: str, group: str, name: str) -> Setting | None:
        """Return the setting `name` of the `override` of a parameter's class, or the innermost one of its path."""
        found: Setting | None = None
        for target, settings in sorted(self.overrides, key=lambda pair: (pair[0] != group, len(pair[0]))):
            if target == group or covers(target, param):
                found = next((setting for setting in settings if setting.name == name), found)
        return found


def covers(target: str, param: str) -> bool:
    """Tell whether a path, or the beginning of one, means a parameter."""
    return f"{param}.".startswith(f"{target}.")


def tuned(mup: Mup | None, train: Train | None) -> Tuned:
    """Collect the base values; a `mup` item's come before a `train` item's."""
    optimizer: Optimizer | None = train.optimizer if train else None
    arguments = dict(optimizer.arguments) if optimizer is not None and optimizer.name == "adamw" else {}
    lr = train.lr if train else None
    if mup is None:
        return Tuned(None, lr, arguments.get("eps"), arguments.get("weight_decay"))

    def value(name: str, otherwise: float | None) -> float | None:
        found = mup.value(name)
        return otherwise if found is None else found

    return Tuned(
        float(mup.init[0].value) if mup.init else None,
        value("lr", lr),
        value("eps", arguments.get("eps")),
        value("weight_decay", arguments.get("weight_decay")),
        value("alpha", 1.0) or 0.0,
        mup.multipliers,
        mup.overrides,
    )


class Derivation:
    """Derives everything for one model. `graphs` are inlined copies: own sizes, base sizes, then grown ones."""

    def __init__(self, graphs: Sequence[Graph], uses: Uses, table: Table, base: Tuned, scaled: bool) -> None:
        self.graphs = graphs
        self.uses = uses
        self._table = table
        self._tuned = base
        self._scaled = scaled
        self.nodes = list(in_order(graphs[0].body))
        self._copies = range(len(graphs))
        self._branches = _branch_counts(uses, len(graphs))

    # ---- classification

    def _grows(self, sizes: Sizes) -> bool:
        return any(size > sizes[0] for size in sizes[2:])

    def group(self, use: Use) -> str:
        """Return the class of a use, empty where there is nothing to scale."""
        match use.kind:
            case "lookup":
                return "embedding"
            case "elementwise":
                return "vector"
            case "scores":
                return "attention" if self._grows(use.contracted) else ""
            case "product":
                pass
        residual = "residual" if use.index in self.uses.residual else "hidden"
        if not self._scaled:
            return residual if use.feeds or residual == "residual" else "output"
        contracted, kept = self._grows(use.contracted), self._grows(use.kept)
        if kept and not contracted and residual == "hidden" and not use.loops:
            return "embedding"
        return "output" if contracted and not kept and not use.feeds and residual == "hidden" else residual

    # ---- rules

    def _names(self, group: str, use: Use | Branch | None, copy: int, tuned: Tuned) -> dict[str, float]:
        """Return what the expressions of a rule can use, in one copy."""
        loops = use.loops if use is not None else ()
        names = {
            "std": 1.0 if tuned.std is None else tuned.std,
            "lr": 1.0 if tuned.lr is None else tuned.lr,
            "eps": 1.0 if tuned.eps is None else tuned.eps,
            "weight_decay": 1.0 if tuned.weight_decay is None else tuned.weight_decay,
            "alpha": tuned.alpha,
            "m": 1.0,
            "depth": math.prod(loop[copy] / loop[1] for loop in loops),
            "branches": self._branches_beside(use)[copy],
        }
        if isinstance(use, Use):
            sizes = use.kept if group in ("embedding", "vector") else use.contracted
            names["m"] = sizes[copy] / sizes[1]
            if group == "attention":
                names["size"] = float(use.contracted[copy])
                names["given"] = use.contracted[copy] ** _power(use.contracted, use.given)
        return names

    def _branches_beside(self, use: Use | Branch | None) -> Numbers:
        """Return how many branches the stream has that a use writes to; of other uses, the longest stream."""
        if isinstance(use, Branch):
            return self._branches[use.stream]
        streams = [branch.stream for branch in self.uses.branches if use is not None and use.index in branch.writers]
        counts = [self._branches[stream] for stream in streams or self._branches]
        return max(counts, default=tuple(1.0 for _ in self._copies))

    def _rule(self, group: str) -> Rule | None:
        return self._table.rule(group)

    def _line(self, group: str, name: str) -> RuleLine | None:
        rule = self._rule(group)
        return rule.line(name) if rule is not None else None

    def _ruled(self, group: str, name: str, use: Use | Branch | None, tuned: Tuned, plain: float) -> Numbers:
        """Return what the table makes of a quantity in each copy; `plain` where it says nothing."""
        line = self._line(group, name)
        if line is None:
            return tuple(plain for _ in self._copies)
        return tuple(self._computed(line, group, use, copy, tuned) for copy in self._copies)

    def _computed(self, line: RuleLine, group: str, use: Use | Branch | None, copy: int, tuned: Tuned) -> float:
        """Return what a line of the table comes to in one copy (Fault where no such number can be)."""
        name = line.name.text
        value = tidy(evaluate(line.value, self._names(group, use, copy, tuned)))
        if name == "multiply" or value > 0 or (name != "init" and value == 0):
            return value
        message = f"`{name}` of the class `{group}` comes to {value:g}"
        least = "above 0" if name == "init" else "at least 0"
        hint = f"it is {least} at the base sizes and at all larger ones; here {self._why(group, name, use, copy)}"
        raise Fault("CG0410", message, Label(line.value.location), hint=hint)

    def _why(self, group: str, name: str, use: Use | Branch | None, copy: int = 0) -> str:
        """Return the rule for a quantity with the numbers that stand in it, in one copy."""
        line = self._line(group, name)
        if line is None:
            return ""
        names = self._names(group, use, copy, self._tuned)
        text = expression_text(line.value)
        shown = [key for key in ("m", "depth", "branches", "size", "alpha") if key in _words(text) and key in names]
        values = ", ".join(f"{key} = {names[key]:g}" for key in shown)
        return f"{text}{f' with {values}' if values else ''} ({self._table.name}, {group})"

    # ---- multipliers

    def sites(self) -> list[Site]:
        """Return all forward multipliers that are not one in every copy, in the order of the program."""
        found: list[Site] = []
        for use in self.uses.uses:
            group = self.group(use)
            if not group:
                continue
            params = tuple(sorted(use.params))
            branch = group == "residual"
            values = self._factors("" if branch else group, use, params)
            place = (use.index, use.operand if use.kind == "elementwise" else None)
            line = None if branch else self._line(group, "multiply")
            found.append(
                Site(place, group, params, values, line, self._factor_reason("" if branch else group, use, params))
            )
        for branch_site in self.uses.branches:
            written = self.written(branch_site)
            values = self._factors("residual", branch_site, ())
            reason = self._factor_reason("residual", branch_site, ())
            line = self._line("residual", "multiply")
            found.append(Site((branch_site.index, branch_site.operand), "residual", written, values, line, reason))
        kept = [site for site in found if any(value != 1.0 for value in site.values)]
        return sorted(kept, key=lambda site: (site.place[0], -1 if site.place[1] is None else site.place[1]))

    def written(self, branch: Branch) -> tuple[str, ...]:
        """Return the parameters whose products a branch adds."""
        names = {param for use in self.uses.uses if use.index in branch.writers for param in use.params}
        return tuple(sorted(names))

    def _said(self, group: str, params: Sequence[str]) -> list[Setting]:
        """Return the `multiply` lines of the `mup` item for a class of use or for one of its parameters."""
        lines = [line for line in self._tuned.multipliers if group and line.name == group]
        for param in params:
            lines += [line for line in self._tuned.multipliers if covers(line.name, param)]
            override = self._tuned.override(param, group, "multiply")
            lines += [override] if override is not None else []
        return lines

    def _factors(self, group: str, use: Use | Branch, params: Sequence[str]) -> Numbers:
        ruled = self._ruled(group, "multiply", use, self._tuned, 1.0)
        said = math.prod(float(line.value) for line in self._said(group, params))
        return tuple(tidy(value * said) for value in ruled)

    def _factor_reason(self, group: str, use: Use | Branch, params: Sequence[str]) -> str:
        parts = [self._why(group, "multiply", use)] if self._line(group, "multiply") else []
        parts += [f"multiply by {float(line.value):g} ({line.location})" for line in self._said(group, params)]
        return " times ".join(parts)

    # ---- parameters

    def params(self) -> list[Derived]:
        """Return what is derived for every parameter, in the order of declaration."""
        by_param: dict[str, list[Use]] = {param.name: [] for param in self.graphs[0].params}
        for use in self.uses.uses:
            for param in sorted(use.params):
                by_param[param].append(use)
        tables = [{param.name: param for param in graph.params} for graph in self.graphs]
        return [self._param([table[name] for table in tables], uses) for name, uses in by_param.items()]

    def _param(self, copies: Sequence[Param], uses: Sequence[Use]) -> Derived:
        name = copies[0].name
        groups = [self.group(use) for use in uses]
        group = next((group for group in ORDER if group in groups), "vector")
        use = uses[groups.index(group)] if group in groups else None
        inits, std = self._inits(copies, group, use)
        lr, factors = self._quantity(name, "lr", group, use, self._tuned.lr)
        eps, _ = self._quantity(name, "eps", group, use, self._tuned.eps)
        decay, _ = self._quantity(name, "weight_decay", group, use, self._tuned.weight_decay)
        return Derived(copies[0], group, tuple(dict.fromkeys(groups)), inits, std, lr, factors, eps, decay)

    def _quantity(
        self, param: str, name: str, group: str, use: Use | None, base: float | None
    ) -> tuple[Quantity, Numbers]:
        """Return a quantity in each copy, and the part of the base value that it is."""
        override = self._tuned.override(param, group, name)
        value = base if override is None else float(override.value)
        line = self._line(group, name)
        unit = _with(self._tuned, name, 1.0)
        factors = self._ruled(group, name, use, unit, 1.0)
        reason = self._why(group, name, use) or f"as given ({self._table.name}, {group})"
        if override is not None:
            reason = f"{reason}, from the override {float(override.value):g} ({override.location})"
        if value is None:
            return Quantity(None, line, reason, override is not None), factors
        values = self._ruled(group, name, use, _with(self._tuned, name, value), value)
        return Quantity(values, line, reason, override is not None), factors

    def _inits(self, copies: Sequence[Param], group: str, use: Use | None) -> tuple[tuple[Init, ...], Quantity]:
        """Return the initial distribution in each copy.

        A tuned `init std` is put into the rule. Otherwise the model's own value at the base sizes is scaled as the rule
        changes from there. Constants stay what they are.
        """
        declared = [param.init for param in copies]
        line = self._line(group, "init")
        if declared[0].distribution == "constant":
            return tuple(declared), Quantity(None, None, "as declared: constants are not scaled")
        override = self._tuned.override(copies[0].name, group, "std")
        own = [deviation(init) for init in declared]
        if override is None and line is None:
            return tuple(declared), Quantity(tuple(own), None, "as declared")
        if override is None and self._tuned.std is not None:
            stds = self._ruled(group, "init", use, self._tuned, 1.0)
            reason = f"{self._why(group, 'init', use)}, std = {self._tuned.std:g}"
        else:
            start = own[1] if override is None else float(override.value)
            unit = self._ruled(group, "init", use, _with(self._tuned, "std", 1.0), 1.0)
            stds = tuple(tidy(start * value / unit[1]) for value in unit)
            origin = "declared" if override is None else f"the override ({override.location})"
            reason = f"{self._why(group, 'init', use) or 'not scaled'}, from {start:g} at the base sizes, {origin}"
        inits = tuple(_resized(init, std) for init, std in zip(declared, stds, strict=True))
        return inits, Quantity(stds, line, reason, override is not None)

    def path(self, index: int) -> str:
        """Return the path of the node at a place, or the name of its result."""
        node = self.nodes[index]
        return node.path or node.outputs[0].name

    def place(self, site: Site) -> tuple[str, Location]:
        """Return the path that names a multiplier, and where its node was written."""
        node = self.nodes[site.place[0]]
        if site.group == "embedding" and len(site.params) == 1:
            return site.params[0], node.location
        return node.path or node.outputs[0].name, node.location


def _branch_counts(uses: Uses, copies: int) -> dict[int, Numbers]:
    """Return how many branches one pass adds to each residual stream, in each copy."""
    counts: dict[int, Numbers] = {}
    for branch in uses.branches:
        before = counts.get(branch.stream, (0.0,) * copies)
        added = (branch.terms * math.prod(loop[copy] for loop in branch.loops) for copy in range(copies))
        counts[branch.stream] = tuple(count + more for count, more in zip(before, added, strict=True))
    return counts


def tidy(value: float) -> float:
    """Return a number without the noise of its last digits: 0.03125 for 0.031249999999999993."""
    short = float(f"{value:.14g}")
    return short if len(repr(short)) < len(repr(value)) - 3 else value


def deviation(init: Init) -> float:
    """Return the parameter `std` of a normal distribution, or the standard deviation of a uniform one."""
    return init.limit / math.sqrt(3) if init.distribution == "uniform" else init.std


def _resized(init: Init, std: float) -> Init:
    if init.distribution == "uniform":
        return replace(init, limit=std * math.sqrt(3))
    return replace(init, std=std)


def _with(tuned: Tuned, name: str, value: float) -> Tuned:
    changes: Mapping[str, float] = {name: value}
    return replace(tuned, **changes)  # type: ignore[arg-type]


def _words(text: str) -> set[str]:
    return set("".join(character if character.isalnum() or character == "_" else " " for character in text).split())


def _power(sizes: Sizes, factors: Numbers) -> float:
    """Return the power of a size that a factor goes with, from how both change between copies."""
    for copy in range(2, len(sizes)):
        if sizes[copy] != sizes[0] and factors[0] > 0 and factors[copy] > 0:
            power = math.log(factors[copy] / factors[0]) / math.log(sizes[copy] / sizes[0])
            return round(power * 12) / 12
    return 0.0
