"""Forward multipliers folded into weights: the same function without them, where that is exactly possible.

Every value of the model gets an unknown: the power of each multiplier by which it differs in the model without. An op
says how they hang together (what is added is scaled alike, scales of a product add up, an exponential takes none), a
multiplier that goes away shifts one of them, inputs and outputs stay what they are. That is a system of linear
equations over the rationals, and what it says of the parameters is what to multiply them by. It has no solution where a
multiplier stands before something nonlinear with no weight in between.

Of many solutions the one is taken that changes the parameters which multipliers belong to, then matrices, then gains
and biases, those declared first before the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias, TypeVar, assert_never

from cgc.diagnostics import Diagnostic, InputError, Label
from cgc.ir.graph import Node, Region
from cgc.ir.ops import (
    COMPARISONS,
    Binary,
    Call,
    Cast,
    Concat,
    Constant,
    Dot,
    Gather,
    Merge,
    Position,
    Reduce,
    Rename,
    Repeat,
    Scan,
    Scatter,
    Slice,
    Split,
    TopK,
    Transpose,
    Unary,
    Where,
)
from cgc.parametrize.derive import Derivation, Site
from cgc.parametrize.model import derivation
from cgc.program import Program

Powers: TypeAlias = dict[int, Fraction]
"""Of each multiplier, by its number, the power."""

K = TypeVar("K", str, int)

ONE = Fraction(1)
HALF = Fraction(1, 2)


@dataclass(slots=True)
class _Equation:
    """Σ coefficient · unknown = Σ power · log multiplier."""

    left: dict[str, Fraction]
    right: Powers


def folded(program: Program) -> dict[str, float]:
    """Return what to multiply each parameter by for the model without multipliers to compute the same; by path.

    Parameters that stay as they are are left out.

    Raises:
        InputError: CG0686, a multiplier cannot be folded.
    """
    made = derivation(program)
    sites = [site for site in made.sites() if site.values[0] != 1.0]
    if not sites:
        return {}
    for site in sites:
        if site.values[0] <= 0:
            raise _cannot(program, made, [site], "it is not above 0")
    equations = _Equations({site.place: number for number, site in enumerate(sites)}).of(made.graphs[0].body)
    derived = made.params()
    belonging = [name for site in sites for name in site.params]
    matrices = [param.param.name for param in derived if param.group != "vector"]
    order = list(dict.fromkeys([*belonging, *matrices, *(param.param.name for param in derived)]))
    powers = _solve(equations, order)
    if isinstance(powers, set):
        why = "something nonlinear, or a weight that others use too, stands in its way"
        raise _cannot(program, made, [sites[number] for number in sorted(powers)], why)
    scales = {name: math.prod(sites[n].values[0] ** float(p) for n, p in powers[name].items()) for name in order}
    return {name: scale for name, scale in scales.items() if scale != 1.0}


def _cannot(program: Program, made: Derivation, sites: list[Site], why: str) -> InputError:
    names = ", ".join(f"`{made.place(site)[0]}` by {site.values[0]:g}" for site in sites)
    text = f"the weights of `{program.name}` cannot take up what multiplies {names}: {why}"
    hint = "a checkpoint of the hub holds weights and no multipliers; keep it in cgc's own layout"
    places = [made.place(site)[1] for site in sites[:1]]
    labels = tuple(Label(place) for place in places if place.file == program.file)
    return InputError([Diagnostic("CG0686", text, labels, hint)])


class _Equations:
    """Gathers the equations of an inlined graph. Nodes are numbered as `Site.place` numbers them."""

    def __init__(self, factors: Mapping[tuple[int, int | None], int]) -> None:
        self._factors = factors
        self._found: list[_Equation] = []
        self._next = 0
        self._constants: dict[str, float] = {}
        self._negligible: set[str] = set()

    def of(self, body: Region) -> list[_Equation]:
        """Return all equations of a graph; its inputs and outputs are not scaled. Parameters go by their names."""
        self._region(body)
        for value in body.results:
            self._zero(value.name)
        return self._found

    def _region(self, region: Region) -> None:
        for node in region.nodes:
            at = self._next
            self._next += 1
            if isinstance(node.op, Repeat):
                self._loop(node, node.op)
            else:
                self._node(_Seen(at, node, self._factors))

    def _equal(self, *terms: tuple[_Scale, int | Fraction]) -> None:
        """Note that the sum of scales times coefficients is zero."""
        left: dict[str, Fraction] = {}
        right: Powers = {}
        for scale, coefficient in terms:
            left[scale.name] = left.get(scale.name, Fraction(0)) + coefficient
            for number, power in scale.shift.items():
                right[number] = right.get(number, Fraction(0)) - power * coefficient
        self._found.append(_Equation({k: v for k, v in left.items() if v}, {k: v for k, v in right.items() if v}))

    def _zero(self, name: str) -> None:
        self._equal((_Scale(name), 1))

    def _loop(self, node: Node, op: Repeat) -> None:
        for given, inside in zip(node.inputs, op.body.arguments, strict=True):
            self._equal((_Scale(given.name), 1), (_Scale(inside.name), -1))
        self._region(op.body)
        for at, (result, output) in enumerate(zip(op.body.results, node.outputs, strict=True)):
            self._equal((_Scale(result.name), 1), (_Scale(output.name), -1))
            if at < op.carried:
                self._equal((_Scale(result.name), 1), (_Scale(op.body.arguments[at].name), -1))

    def _node(self, seen: _Seen) -> None:
        node = seen.node
        match node.op:
            case Constant(value=value):
                self._constants[node.output.name] = float(value)
                if value == 0 or not math.isfinite(value):
                    self._negligible.add(node.output.name)  # zero and infinity are themselves at any scale
                else:
                    self._unscaled(seen)
            case Position() | Scatter():
                self._unscaled(seen)
            case Unary():
                self._unary(node.op, seen)
            case Binary():
                self._binary(node.op, seen)
            case Where():
                self._same(seen, [1, 2])
                self._equal((seen.operand(0), 1))
            case Dot():
                self._equal((seen.operand(0), 1), (seen.operand(1), 1), (seen.result, -1))
            case Gather():
                self._same(seen, [0])
                self._equal((seen.operand(1), 1))
            case Rename() | Transpose() | Split() | Merge() | Slice() | Concat() | Cast() | Reduce() | Scan() | TopK():
                self._same(seen, list(range(len(node.inputs))))
                for indices in node.outputs[1:]:
                    self._zero(indices.name)
            case Call() | Repeat():
                raise AssertionError("the graph is inlined, and loops are taken apart")
            case op:
                assert_never(op)

    def _unscaled(self, seen: _Seen) -> None:
        """Nothing that the node reads or makes is scaled."""
        for operand in range(len(seen.node.inputs)):
            self._equal((seen.operand(operand), 1))
        self._equal((seen.result, 1))

    def _same(self, seen: _Seen, operands: list[int]) -> None:
        """What comes out is scaled as these operands are, which are all scaled alike."""
        for operand in operands:
            if seen.node.inputs[operand].name not in self._negligible:
                self._equal((seen.operand(operand), 1), (seen.result, -1))
        if all(seen.node.inputs[operand].name in self._negligible for operand in operands):
            self._equal((seen.result, 1))

    def _unary(self, op: Unary, seen: _Seen) -> None:
        power = {"neg": ONE, "abs": ONE, "sqrt": HALF, "rsqrt": -HALF}.get(op.kind)
        if power is not None:
            self._equal((seen.operand(0), power), (seen.result, -1))
        else:
            self._unscaled(seen)

    def _binary(self, op: Binary, seen: _Seen) -> None:
        first, second, out = seen.operand(0), seen.operand(1), seen.result
        exponent = self._constants.get(seen.node.inputs[1].name)
        match op.kind:
            case "add" | "sub" | "max" | "min":
                self._same(seen, [0, 1])
            case "mul":
                self._equal((first, 1), (second, 1), (out, -1))
            case "div":
                self._equal((first, 1), (second, -1), (out, -1))
            case "pow" if exponent is not None:
                self._equal((first, Fraction(exponent).limit_denominator(1000)), (out, -1))
            case kind if kind in COMPARISONS:
                if not {value.name for value in seen.node.inputs} & self._negligible:
                    self._equal((first, 1), (second, -1))
                self._equal((out, 1))
            case _:
                self._unscaled(seen)


@dataclass(frozen=True, slots=True)
class _Scale:
    """The scale of a value as one node knows it: its unknown, and powers of multipliers that go away in between."""

    name: str
    shift: Powers = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A node with the multipliers at it. What it reads was multiplied before, what it makes is afterwards."""

    at: int
    node: Node
    factors: Mapping[tuple[int, int | None], int]

    def operand(self, index: int) -> _Scale:
        """Return the scale of an operand: of c·x in the model, x alone is left."""
        number = self.factors.get((self.at, index))
        return _Scale(self.node.inputs[index].name, {} if number is None else {number: -ONE})

    @property
    def result(self) -> _Scale:
        """The scale of what the node itself makes; the model has it times c."""
        number = self.factors.get((self.at, None))
        return _Scale(self.node.outputs[0].name, {} if number is None else {number: ONE})


def _solve(equations: list[_Equation], params: list[str]) -> dict[str, Powers] | set[int]:
    """Return the powers for each parameter by Gauss-Jordan elimination, or the multipliers that make it impossible.

    Other unknowns are eliminated first, then parameters in order: those late in it stay free, which is zero.
    """
    rows = [(dict(equation.left), dict(equation.right)) for equation in equations]
    others = dict.fromkeys(name for left, _ in rows for name in left if name not in set(params))
    solved: list[tuple[str, tuple[dict[str, Fraction], Powers]]] = []
    for name in [*others, *params]:
        pivot = next((row for row in rows if name in row[0]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        scale = pivot[0][name]
        left = {key: value / scale for key, value in pivot[0].items()}
        right = {key: value / scale for key, value in pivot[1].items()}
        for row in [*rows, *(row for _, row in solved)]:
            factor = row[0].get(name)
            if factor is not None:
                _subtract(row[0], left, factor)
                _subtract(row[1], right, factor)
        solved.append((name, (left, right)))
    impossible = {number for left, right in rows if not left for number in right}
    if impossible:
        return impossible
    found = {name: right for name, (_, right) in solved}
    return {name: found.get(name, {}) for name in params}


def _subtract(row: dict[K, Fraction], other: Mapping[K, Fraction], factor: Fraction) -> None:
    """Subtract `factor` times another row; entries that vanish are left out."""
    for key, value in other.items():
        rest = row.get(key, Fraction(0)) - factor * value
        if rest:
            row[key] = rest
        else:
            row.pop(key, None)
