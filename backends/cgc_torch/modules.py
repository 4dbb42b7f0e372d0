"""The shape of the emitted file: which blocks become classes, which plain functions, and who owns which parameter.

A block with parameters is an `nn.Module`; its parameters are attributes named as in the source. A block without any is
a function. The body of a `repeat` that has parameters is a module in an `nn.ModuleList`. Where a graph does not follow
the naming of the front end (a pass that unrolled a loop hands slices of parameters to calls), the block is a function
that takes its parameters as arguments, so every valid graph has a form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cgc.ir.dims import Dim
from cgc.ir.graph import Function, Graph, Init, Node, Region, Static, Value, walk
from cgc.ir.ops import Call, Repeat
from cgc.program import Program
from cgc_torch.intrinsics import Builtin, InlineKind, builtin, inline
from cgc_torch.names import ATTRIBUTE_NAMES, MODULE_NAMES, Namespace, body_name, class_name, identifier


@dataclass(frozen=True, slots=True)
class Owned:
    """A parameter that is an attribute of the module itself. `path` is relative to the module."""

    attribute: str
    path: str
    value: Value
    init: Init


@dataclass(frozen=True, slots=True)
class Leaf:
    """A module of `torch.nn` as an attribute. `inits` is by its parameters' names in cgc."""

    attribute: str
    instance: str
    builtin: Builtin
    inits: tuple[tuple[str, Init], ...]


@dataclass(frozen=True, slots=True)
class Child:
    """A module of this file as an attribute."""

    attribute: str
    instance: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Layers:
    """The modules of a `repeat` as an `nn.ModuleList`."""

    attribute: str
    instance: str
    unit: Unit
    stack: Dim


Member: TypeAlias = Owned | Leaf | Child | Layers


@dataclass(frozen=True, slots=True)
class Inline:
    """A call that is an expression of `torch.nn.functional`."""

    kind: InlineKind
    static: tuple[tuple[str, Static], ...]


@dataclass(frozen=True, slots=True)
class Plain:
    """A call of a function of this file."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class Loop:
    """A `repeat`. `member` holds the modules, None for a body without parameters of its own; `unit` is the body.

    `sliced` are the stacked operands that are no parameters of the modules: the loop picks their slice.
    """

    unit: Unit
    member: Layers | None
    sliced: tuple[int, ...]


Callee: TypeAlias = Leaf | Child | Inline | Plain | Loop


UnitForm: TypeAlias = Literal["model", "block", "loop", "function"]
"""The model's class, a block's, the class of a loop's body, or a plain function."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One class (`members` may be set) or function of the emitted file.

    `arguments` are the region's arguments that a caller passes; `attributes` gives those that are parameters of the
    module by value name; `callees` says for each node of the region what it calls, None for a primitive; `scope` are
    the names of all values of the function that the region stands in; `blocks` gives the blocks of the functions that
    it calls.
    """

    name: str
    title: str
    doc: str
    form: UnitForm
    region: Region
    arguments: tuple[Value, ...]
    members: tuple[Member, ...]
    attributes: Mapping[str, str]
    callees: tuple[Callee | None, ...]
    scope: frozenset[str]
    blocks: Mapping[str, str]

    @property
    def is_class(self) -> bool:
        """Whether the unit is a module; else it is a function."""
        return self.form != "function"


@dataclass(frozen=True, slots=True)
class Layout:
    """All units of a file, callees before callers; the last one is the model."""

    units: tuple[Unit, ...]

    @property
    def root(self) -> Unit:
        """The model's own class."""
        return self.units[-1]


@dataclass(frozen=True, slots=True)
class _Held:
    """A parameter as one region sees it: the argument, its path below the region's module, its initial distribution."""

    value: Value
    path: str
    init: Init


def plan(program: Program) -> Layout:
    """Return the classes and functions that `program` becomes."""
    return _Planner(program.graph).layout(program)


@dataclass(frozen=True, slots=True)
class _Head:
    """What a unit is called and where it stands."""

    name: str
    title: str
    doc: str
    form: UnitForm
    scope: frozenset[str]


def _value_names(region: Region) -> frozenset[str]:
    bodies = [node.op.body for node in walk(region) if isinstance(node.op, Repeat)]
    values = [value for body in (region, *bodies) for value in body.arguments]
    return frozenset(value.name for value in [*values, *(v for node in walk(region) for v in node.outputs)])


_Claim: TypeAlias = tuple[str, str] | int
"""What may own a parameter: the calls of one function under one instance name, or the loop that is a region's node."""


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._functions: dict[str, Function] = {function.name: function for function in graph.functions}
        rotary = any(f.library == "std/positions" and f.block == "rope" for f in graph.functions)
        self._names = Namespace(MODULE_NAMES | ({"rope", "rope_tables"} if rotary else set()))
        self._units: list[Unit] = []
        self._known: dict[tuple[str, tuple[Init, ...]], Unit] = {}

    def layout(self, program: Program) -> Layout:
        name = self._names.fresh(class_name(program.family or program.name))
        held = [_Held(param.value, param.name, param.init) for param in self._graph.params]
        region = self._graph.body
        self._unit(_Head(name, program.name, program.doc, "model", _value_names(region)), region, held)
        return Layout(tuple(self._units))

    def _unit(self, head: _Head, region: Region, held: Sequence[_Held]) -> Unit:
        owned = {param.value.name: param for param in held}
        claims = self._claims(region, owned)
        names = Namespace(ATTRIBUTE_NAMES)
        members: dict[_Claim | str, Member] = {}
        attributes: dict[str, str] = {}
        for param in held:
            claim = claims.get(param.value.name)
            if claim is None:
                attribute = names.fresh(identifier(param.path))
                attributes[param.value.name] = attribute
                members[param.value.name] = Owned(attribute, param.path, param.value, param.init)
            elif claim not in members:
                below = [other for other in held if claims.get(other.value.name) == claim]
                members[claim] = self._member(claim, region, below, names, head.scope)
        callees = tuple(self._callee(i, node, claims, members, head.scope) for i, node in enumerate(region.nodes))
        arguments = tuple(value for value in region.arguments if value.name not in owned)
        unit = Unit(
            head.name,
            head.title,
            head.doc,
            head.form,
            region,
            arguments,
            tuple(members.values()),
            attributes,
            callees,
            head.scope,
            {n.op.function: self._functions[n.op.function].block for n in region.nodes if isinstance(n.op, Call)},
        )
        self._units.append(unit)
        return unit

    def _claims(self, region: Region, owned: Mapping[str, _Held]) -> dict[str, _Claim]:
        """Return who owns each parameter; those that nodes of `region` use in any other way stay with the region."""
        wanted: dict[str, set[_Claim | None]] = {value.name: {None} for value in region.results}
        whole: dict[_Claim, bool] = {}
        for index, node in enumerate(region.nodes):
            asked = self._asked(index, node, owned)
            for value, claim in zip(node.inputs, asked, strict=True):
                wanted.setdefault(value.name, set()).add(claim)
            if isinstance(node.op, Call):
                claim = (node.op.instance, node.op.function)
                whole[claim] = whole.get(claim, True) and None not in asked[node.op.args :]
        claims = {name: next(iter(asked)) for name, asked in wanted.items() if len(asked) == 1 and name in owned}
        for node in region.nodes:
            if isinstance(node.op, Call):
                claim = (node.op.instance, node.op.function)
                alone = all(claims.get(value.name) == claim for value in node.inputs[node.op.args :])
                whole[claim] = whole[claim] and alone
        return {name: claim for name, claim in claims.items() if claim is not None and whole.get(claim, True)}

    def _asked(self, index: int, node: Node, owned: Mapping[str, _Held]) -> list[_Claim | None]:
        """Return for each operand of a node the claim it makes on it as a parameter of its own."""
        asked: list[_Claim | None] = [None] * len(node.inputs)
        match node.op:
            case Call(function=name, instance=instance, args=args):
                for i, param in enumerate(self._functions[name].params, args):
                    held = owned.get(node.inputs[i].name)
                    if held is not None and held.path == f"{instance}.{param.name}":
                        asked[i] = (instance, name)
            case Repeat(instance=instance, carried=carried, shared=shared):
                for i in range(carried + shared, len(node.inputs)):
                    held = owned.get(node.inputs[i].name)
                    if held is not None and held.path.startswith(f"{instance}."):
                        asked[i] = index
            case _:
                pass
        return asked

    def _member(
        self, claim: _Claim, region: Region, held: Sequence[_Held], names: Namespace, scope: frozenset[str]
    ) -> Member:
        if isinstance(claim, int):
            node = region.nodes[claim]
            if not isinstance(node.op, Repeat):
                raise AssertionError("only loops claim by index")
            return self._layers(node, node.op, held, names.fresh(identifier(node.op.instance)), scope)
        instance, name = claim
        function = self._functions[name]
        inits = {param.path.removeprefix(f"{instance}."): param.init for param in held}
        attribute = names.fresh(identifier(instance))
        module = builtin(function)
        if module is not None:
            return Leaf(attribute, instance, module, tuple(inits.items()))
        return Child(attribute, instance, self._block(function, tuple(inits[param.name] for param in function.params)))

    def _layers(self, node: Node, op: Repeat, held: Sequence[_Held], attribute: str, scope: frozenset[str]) -> Layers:
        arguments = dict(zip((value.name for value in node.inputs), op.body.arguments, strict=True))
        below = [
            _Held(arguments[param.value.name], param.path.removeprefix(f"{op.instance}."), param.init) for param in held
        ]
        name = self._names.fresh(class_name(body_name(op.instance)), "")
        unit = self._unit(_Head(name, op.instance, "", "loop", scope), op.body, below)
        return Layers(attribute, op.instance, unit, op.stack)

    def _block(self, function: Function, inits: tuple[Init, ...]) -> Unit:
        """Return the unit of a block; `inits` empty for one that gets its parameters, if any, as arguments."""
        key = (function.name, inits)
        if key not in self._known:
            wish = class_name(function.block) if inits else identifier(function.block)
            name = self._names.fresh(wish, "" if inits else "_")
            pairs = zip(function.params, inits, strict=True) if inits else ()
            held = [_Held(param.value, param.name, init) for param, init in pairs]
            head = _Head(
                name, function.block, function.doc, "block" if inits else "function", _value_names(function.body)
            )
            self._known[key] = self._unit(head, function.body, held)
        return self._known[key]

    def _callee(
        self,
        index: int,
        node: Node,
        claims: Mapping[str, _Claim],
        members: Mapping[_Claim | str, Member],
        scope: frozenset[str],
    ) -> Callee | None:
        match node.op:
            case Call(function=name, instance=instance):
                function = self._functions[name]
                short = inline(function, self._functions.__getitem__)
                if short is not None:
                    return Inline(short[0], tuple(short[1].items()))
                member = members.get((instance, name))
                return member if isinstance(member, Leaf | Child) else Plain(self._block(function, ()))
            case Repeat(instance=instance, carried=carried, shared=shared, body=body):
                loose = range(carried + shared, len(node.inputs))
                sliced = tuple(i for i in loose if claims.get(node.inputs[i].name) != index)
                member = members.get(index)
                if isinstance(member, Layers):
                    return Loop(member.unit, member, sliced)
                name = self._names.fresh(body_name(instance))
                return Loop(self._unit(_Head(name, instance, "", "function", scope), body, ()), None, sliced)
            case _:
                return None
