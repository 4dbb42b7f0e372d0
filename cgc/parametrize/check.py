"""The static coordinate check of a parametrized model: which tensors keep their scale as the model grows.

The exponents come from `cgc.analysis.exponents`; here they meet what was derived, and what is wrong becomes diagnostics
at the line that causes it: a rule of the user's own table, a number in the model, or the choice of parametrization.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from cgc.analysis.exponents import Fact, Growth, ParamScale, coordinate_exponents, faults
from cgc.analysis.growth import ZERO, exponent, summed
from cgc.diagnostics import NOWHERE, Diagnostic, Label, Location
from cgc.elaborate.hints import quoted
from cgc.elaborate.modules import library_names
from cgc.ir.graph import Graph, Region
from cgc.ir.ops import Call, Repeat
from cgc.parametrize.derive import Derivation, Derived
from cgc.program import GROWTH, Grown, Program, Table

MOST_NAMED = 12
"""Tensors that a message lists by name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact of the check in one direction of growth, with the name of its place and what is wrong there."""

    names: tuple[str, ...]
    deep: bool
    path: str
    fact: Fact
    faults: tuple[str, ...]

    @property
    def tensor(self) -> str:
        """The parameter that the fact is about, or the path of the place."""
        return ", ".join(self.fact.params) or self.path


class Check:
    """The static check of one program, from what was derived for it."""

    def __init__(self, program: Program, made: Derivation) -> None:
        self._program = program
        self._made = made
        self._params = {derived.param.name: derived for derived in made.params()}
        self._sites = made.sites()

    def findings(self, local: bool = True) -> list[Finding]:
        """Return every fact in every direction, in the order of the program; `local` as in `coordinate_exponents`."""
        scaling = self._program.scaling
        if scaling is None:
            return []
        return [finding for at, grown in enumerate(scaling.grown) for finding in self._direction(at + 2, grown, local)]

    def _direction(self, copy: int, grown: Grown, local: bool) -> Iterator[Finding]:
        made = self._made
        params = {name: self._param(derived, copy) for name, derived in self._params.items()}
        factors = {site.place: exponent(site.values[0], site.values[copy], GROWTH) for site in self._sites}
        uses = made.uses
        mup = self._program.mup
        alpha = mup.value("alpha") if mup is not None else None
        lazy = grown.deep and alpha is not None and alpha < 1.0
        growth = Growth(
            made.graphs[0],
            made.graphs[copy],
            GROWTH,
            params,
            factors,
            frozenset(use.index for use in uses.uses if use.feeds),
            uses.residual,
            {branch.index: (branch.operand, made.written(branch)) for branch in uses.branches},
            uses.gates,
            uses.chosen,
            lazy,
        )
        for fact in coordinate_exponents(growth, local):
            yield Finding(grown.names, grown.deep, made.path(fact.index), fact, faults(fact, lazy))

    def _param(self, derived: Derived, copy: int) -> ParamScale:
        rate = exponent(derived.lr_factors[0], derived.lr_factors[copy], GROWTH)
        if derived.inits[0].distribution == "constant":
            means = derived.inits[0].mean, derived.inits[copy].mean
            return ParamScale(exponent(*means, GROWTH), rate, random=False)
        stds = derived.std.values
        assert stds is not None, "only constants have none"
        return ParamScale(exponent(stds[0], stds[copy], GROWTH), rate, random=True)

    # ---- diagnostics

    def diagnostics(self) -> list[Diagnostic]:
        """Return one diagnostic for each kind of fault at each line, naming all tensors it concerns."""
        scaling = self._program.scaling
        if scaling is None:
            return []
        chains = call_chains(scaling.own)
        grouped: dict[tuple[str, Location, str], list[Finding]] = {}
        for finding in self.findings():
            for fault in finding.faults:
                code = _code(finding, fault, self._group(finding.fact))
                place = self._place(finding, fault, scaling.table, chains)
                fault = "" if code in ("CG0522", "CG0523") else fault
                known = [key for key in grouped if key[0] == code and key[2] == fault]
                if any(other.tensor == finding.tensor for key in known for other in grouped[key]):
                    continue
                grouped.setdefault((code, place, fault), []).append(finding)
        return [
            self._diagnostic(code, place, fault, found)
            for (code, place, fault), found in sorted(grouped.items(), key=_order)
        ]

    def _place(self, finding: Finding, fault: str, table: Table, chains: Sequence[tuple[Location, ...]]) -> Location:
        """Return the line that causes a fault."""
        fact = finding.fact
        relieved = replace(fact, scale=fact.scale.shifted(-fact.said), own=fact.own - fact.said)
        text = bool(fact.said) and fault not in faults(relieved)
        chain = chains[fact.said_at if text and fact.said_at is not None else fact.index]
        if not table.library and not text:
            line = self._rule_line(fact, fault, table)
            if line != NOWHERE:
                return line
        library = {f"{name}.cg" for name in library_names()}
        own = [place for place in chain if place.file not in library and place != NOWHERE]
        if own:
            return own[0]
        mup = self._program.mup
        return item_head(mup.location) if mup is not None else NOWHERE

    def _rule_line(self, fact: Fact, fault: str, table: Table) -> Location:
        """Return the line of the table that a fault comes from, or that it lacks."""
        group = self._group(fact)
        rule = table.rule(group)
        if rule is None:
            return table.location
        names = ["lr", "multiply"] if fault.startswith("update") else ["init", "multiply"]
        if fact.kind == "branch":
            names = _causes_of_branch(fact)
        elif group in ("attention", "output"):
            names.reverse()
        elif group == "residual":
            names.remove("multiply")  # acts on the branch
        found = next((line for name in names if (line := rule.line(name)) is not None), None)
        return found.location if found is not None else rule.location

    def _group(self, fact: Fact) -> str:
        if fact.kind == "branch":
            return "residual"
        if fact.kind == "elementwise":
            return "vector"
        use = next(use for use in self._made.uses.uses if use.index == fact.index and use.operand == fact.operand)
        return self._made.group(use)

    def _diagnostic(self, code: str, place: Location, fault: str, found: list[Finding]) -> Diagnostic:
        first = found[0]
        names = list(dict.fromkeys(finding.tensor for finding in found))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        listed = ", ".join(f"`{name}`" for name in names[:MOST_NAMED]) if more else quoted(names)
        grows = " and ".join(first.names)
        one = len(names) == 1
        fact = first.fact
        match code:
            case "CG0522":
                power = max(fact.scale.init, fact.scale.after)
                text = f"the scores of {listed}{more} {'grow' if power > 0 else 'vanish'}"
            case "CG0523":
                text = f"what {listed}{more} add{'s' if one else ''} to the residual stream grows"
                power = max(summed(fact.scale, fact.depth))
            case "CG0520":
                verb = "grows" if fault == "init grows" else "vanishes"
                text = f"at initialization, what {listed}{more} make{'s' if one else ''} {verb}"
                power = fact.scale.init
            case _:
                verb = "too much" if fault == "update grows" else "less and less"
                text = f"an update of {listed}{more} moves the model {verb}"
                if fact.kind == "scores":
                    text = f"training moves {listed}{more} {verb}"
                power = fact.own if fact.own != 0 else fact.scale.change
        message = f"{text} as {grows} grow{'' if len(first.names) > 1 else 's'}: Θ(n^{shown_power(power)})"
        return Diagnostic(code, message, (Label(place),), _mend(code, fact, power, first.deep))


def _code(finding: Finding, fault: str, group: str) -> str:
    if finding.fact.kind == "scores" and group == "attention":
        return "CG0522"
    if finding.fact.kind == "branch" and finding.deep:
        return "CG0523"
    return "CG0520" if fault.startswith("init") else "CG0521"


def _order(entry: tuple[tuple[str, Location, str], list[Finding]]) -> tuple[str, int, int, str]:
    (code, place, _), _ = entry
    return place.file, place.line, place.column, code


def _causes_of_branch(fact: Fact) -> list[str]:
    """Return the lines that what a branch adds may come from: all of it, its start or its updates alone."""
    wrong = {fault.split()[0] for fault in faults(fact)}
    if wrong == {"update"}:
        return ["lr", "multiply"]
    return ["multiply", "init"] if wrong == {"init"} else ["multiply"]


def _mend(code: str, fact: Fact, power: float, deep: bool) -> str:
    """Return the multiplier, variance or rate that mends a fault."""
    factor = _m(-power)
    if deep and code in ("CG0520", "CG0521"):
        what = "the learning rate" if code == "CG0521" else "the initial standard deviation"
        return (
            f"multiply {what} by {factor.replace('m', 'depth')}, where depth is how many times as many layers there are"
        )
    match code:
        case "CG0520" | "CG0521" if fact.kind == "scores":
            return f"multiply the product by {factor}, where m is how much larger the sizes are than at the base"
        case "CG0520":
            if not fact.feeds:
                return f"multiply the result by {factor}, where m is how much larger the sum is than at the base"
            return f"multiply the initial standard deviation by {factor}, where m is how much more is summed up"
        case "CG0521":
            what = "the result, or the learning rate," if not fact.feeds else "the learning rate"
            return f"multiply {what} by {factor}, where m is how much more is summed up than at the base sizes"
        case "CG0522" if power < 0:
            return (
                "let the entries of both be Θ(1), as `rms_norm` does: the rule of `attention` divides by their number"
            )
        case "CG0522":
            return "divide by the size of a head instead of its root: `attention { multiply by 1 / (size * given) }`"
        case _:
            return f"multiply what is added by {factor.replace('m', 'depth')}, or scale weights and rates with depth"


def _m(power: float) -> str:
    return (
        "m"
        if power == 1
        else f"1 / m{'' if power == -1 else f' ^ {shown_power(-power)}'}"
        if power < 0
        else (f"m ^ {shown_power(power)}")
    )


def item_head(place: Location) -> Location:
    """Return the first word of a `mup` item."""
    return replace(place, end_line=place.line, end_column=place.column + len("mup"))


def shown_power(power: float) -> str:
    """Return an exponent as a fraction: `1/2`, `-1`; `-∞` for what is zero."""
    if power == ZERO:
        return "-∞"
    fraction = Fraction(power).limit_denominator(12)
    return f"({fraction})" if fraction.denominator > 1 else str(fraction)


def call_chains(graph: Graph) -> list[tuple[Location, ...]]:
    """Return for every node of the inlined graph, in order, where it was written and its calls, inner first."""
    functions = {function.name: function for function in graph.functions}
    chains: list[tuple[Location, ...]] = []

    def visit(region: Region, calls: tuple[Location, ...]) -> None:
        for node in region.nodes:
            match node.op:
                case Call(function=name):
                    visit(functions[name].body, (node.location, *calls))
                case Repeat(body=body):
                    chains.append((node.location, *calls))
                    visit(body, calls)
                case _:
                    chains.append((node.location, *calls))

    visit(graph.body, ())
    return chains
