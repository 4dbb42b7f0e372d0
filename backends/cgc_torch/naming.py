"""Which values of a region become variables, and what the variables are called.

A value that the user named is a variable of that name. A value nobody named (`x + f(y)`: the result of `f`) is written
where it is used, if that is once. `x = x + …` is the same variable twice as long as nothing needs the first `x` again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cgc.ir.dims import Dim
from cgc.ir.graph import Node, Region, Value
from cgc.ir.ops import OPS, Binary, Call, Cast, Constant, Gather, Position, Reduce, Rename, Repeat, Unary, opcode
from cgc.ir.types import TensorType
from cgc_torch.modules import Callee, Child, Leaf, Loop, Unit
from cgc_torch.names import Namespace, identifier

_NOUNS = {
    "add": "total", "sub": "difference", "mul": "product", "div": "ratio", "pow": "power", "mod": "remainder",
    "neg": "negative", "dot": "product", "gather": "entries", "where": "chosen",
    "lt": "mask", "le": "mask", "gt": "mask", "ge": "mask", "eq": "mask", "ne": "mask", "and": "mask", "or": "mask",
    "concat": "joined", "split": "parts", "merge": "merged", "scan": "running", "transpose": "turned", "slice": "part",
}  # fmt: skip

_OPCODES = frozenset(("top_k" if op.__name__ == "TopK" else op.__name__.lower()) for op in OPS)


_DEEPEST = 5
"""How many nodes an expression nests before one gets a line of its own."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A node that gets a line of code of its own, and its index in the region."""

    node: Node
    index: int


class Flow:
    """Who uses what in one region: dead nodes left out, renames seen through."""

    def __init__(self, unit: Unit) -> None:
        region = unit.region
        self.alias: dict[str, str] = {}
        self.values: dict[str, Value] = {value.name: value for value in region.arguments}
        self.definition: dict[str, int] = {}
        self._wishes: dict[str, str] = {}
        self._shown: dict[str, TensorType] = {}
        self._unit = unit
        for index, node in enumerate(region.nodes):
            for value in node.outputs:
                self.values[value.name] = value
                self.definition[value.name] = index
            if isinstance(node.op, Rename):
                self.alias[node.output.name] = self.root(node.inputs[0]).name
        self.live = self._live(region)
        self.uses: dict[str, int] = {}
        for index in sorted(self.live):
            self._use(region.nodes[index])
        for value in region.results:
            self.uses[self.root(value).name] = self.uses.get(self.root(value).name, 0) + 1
        # What a loop only reads is computed before it, not in every round.
        self.looped = {
            self.root(value).name
            for node in region.nodes
            if isinstance(node.op, Repeat)
            for value in node.inputs[node.op.carried :]
        }

    def root(self, value: Value) -> Value:
        """Return the value that `value` is under another type."""
        return self.values[self.alias.get(value.name, value.name)]

    def node(self, value: Value) -> Node | None:
        """Return the node that defines a root value, None for an argument."""
        index = self.definition.get(value.name)
        return None if index is None else self._unit.region.nodes[index]

    def callee(self, node: Node) -> Callee | None:
        """Return what a live node calls, None for a primitive."""
        return self._unit.callees[self.definition[node.outputs[0].name]]

    def wish(self, value: Value) -> str:
        """Return what to call a variable for the root value `value`: what the user called it, as far as they did."""
        if value.name in self._wishes:
            return self._wishes[value.name]
        return self._stem(value, self.node(value)) or _noun(self, self.node(value))

    def anonymous(self, value: Value) -> bool:
        """Tell whether nobody gave the root value `value` a name."""
        return value.name not in self._wishes and not self._stem(value, self.node(value))

    def shown(self, value: Value) -> TensorType:
        """Return the type under which the user knows a root value: one renamed at once goes by its new dimensions."""
        return self._shown.get(value.name, value.type)

    def reads(self, node: Node) -> tuple[Value, ...]:
        """Return the operands whose values the code of `node` needs; a table read at 0, 1, … is sliced."""
        return node.inputs[:1] if self.leading(node) else node.inputs

    def leading(self, node: Node) -> Dim | None:
        """Return the dimension whose positions a gather reads its table at, None for any other index or node.

        A table that has that dimension itself is aligned with the index, which picks entries of its diagonal.
        """
        if not isinstance(node.op, Gather) or set(node.inputs[0].type.names) & set(node.inputs[1].type.names):
            return None
        index = self.node(self.root(node.inputs[1]))
        return index.op.dim if index is not None and isinstance(index.op, Position) else None

    def _live(self, region: Region) -> set[int]:
        needed = {value.name for value in region.results}
        live: set[int] = set()
        for index in range(len(region.nodes) - 1, -1, -1):
            node = region.nodes[index]
            if any(value.name in needed for value in node.outputs):
                live.add(index)
                needed |= {value.name for value in self.reads(node)}
        return live

    def _use(self, node: Node) -> None:
        if not isinstance(node.op, Rename):
            for value in self.reads(node):
                self.uses[self.root(value).name] = self.uses.get(self.root(value).name, 0) + 1
            return
        root, stem = self.root(node.inputs[0]), self._stem(node.output, node)
        if (
            stem
            and root.name in self.definition
            and (self.anonymous(root) or self._stem(root, self.node(root)) == stem)
        ):
            self._wishes[root.name] = stem
            self._shown[root.name] = node.output.type

    def _stem(self, value: Value, node: Node | None) -> str:
        """Return the name without the number that made it unique; empty for a name the compiler chose."""
        numbered = re.fullmatch(r"(.+)_\d+", value.name)
        stem = numbered[1] if numbered and numbered[1] in self._unit.scope | _OPCODES else value.name
        if node is None:
            return stem
        if isinstance(node.op, Repeat):
            # What goes around a loop is called what the body calls it.
            return self._stem(node.op.body.arguments[node.outputs.index(value)], None)
        if not isinstance(node.op, Call):
            return "" if re.sub(r"(_\d+)+$", "", stem) in _OPCODES else stem
        # A call nobody named goes by its block.
        if stem == self._unit.blocks[node.op.function]:
            return ""
        owner = isinstance(self.callee(node), Leaf | Child)
        return node.op.instance if owner and value.name == node.op.instance else stem


def _noun(flow: Flow, node: Node | None) -> str:
    """Return what to call the result of a node that nobody named."""
    if node is None:
        return "value"
    if isinstance(node.op, Call):
        function = not isinstance(flow.callee(node), Leaf | Child)
        alike = function and len(node.inputs) > 0 and node.inputs[0].type == node.outputs[0].type
        return flow.wish(flow.root(node.inputs[0])) if alike else node.op.instance
    if isinstance(node.op, Cast):
        return _noun(flow, flow.node(flow.root(node.inputs[0])))
    if isinstance(node.op, Position):
        return f"{node.op.dim.name}_positions"
    kind = node.op.kind if isinstance(node.op, Unary | Binary | Reduce) else opcode(node.op)
    return _NOUNS.get(kind, kind)


def inlined(flow: Flow, forced: set[str]) -> set[str]:
    """Return the root values that are written where they are used; never those in `forced`."""
    chosen: set[str] = set()
    depths: dict[str, int] = {}
    forced = forced | flow.looped
    for name, index in flow.definition.items():
        value, node = flow.values[name], flow.node(flow.values[name])
        if node is None or index not in flow.live or name in flow.alias or len(node.outputs) != 1:
            continue
        once = flow.uses.get(name, 0) == 1 and not isinstance(node.op, Repeat)
        cheap = once or isinstance(node.op, Position)
        depth = 1 + max((depths.get(flow.root(operand).name, 0) for operand in flow.reads(node)), default=0)
        fits = flow.anonymous(value) and name not in forced and depth <= _DEEPEST
        if isinstance(node.op, Constant) or (cheap and fits):
            chosen.add(name)
            depths[name] = depth
    return chosen


def statements(unit: Unit, flow: Flow, inside: set[str]) -> list[Statement]:
    """Return the nodes that are statements of their own, in order."""
    kept: list[Statement] = []
    for index, node in enumerate(unit.region.nodes):
        if index in flow.live and not isinstance(node.op, Rename) and node.outputs[0].name not in inside:
            kept.append(Statement(node, index))
    return kept


def leaves(flow: Flow, inside: set[str], values: Iterable[Value]) -> list[str]:
    """Return the roots that an expression over `values` reads, once for each time it does."""
    found: list[str] = []
    for value in values:
        root = flow.root(value)
        node = flow.node(root)
        if root.name in inside and node is not None:
            found += leaves(flow, inside, flow.reads(node))
        else:
            found.append(root.name)
    return found


def variables(unit: Unit, flow: Flow, inside: set[str], steps: Sequence[Statement], taken: Namespace) -> dict[str, str]:
    """Return the variable of each root value that has one; a variable is used again once its value is dead."""
    reads = [leaves(flow, inside, flow.reads(step.node)) for step in steps]
    last: dict[str, int] = {name: len(steps) for name in leaves(flow, inside, unit.region.results)}
    for index, read in enumerate(reads):
        for name in read:
            last[name] = max(last.get(name, -1), index)
    names: dict[str, str] = {}
    latest: dict[str, Value] = {}
    for value in unit.arguments:
        wish = identifier(flow.wish(value))
        names[value.name] = taken.fresh(wish)
        latest[wish] = value
    for index, step in enumerate(steps):
        free = _reusable(flow, step, reads[index], unit.callees[step.index], last, index)
        for position, value in enumerate(step.node.outputs):
            if flow.uses.get(value.name, 0) == 0 and not isinstance(step.node.op, Repeat):
                names[value.name] = "_"
                continue
            wish = identifier(flow.wish(value))
            held = latest.get(wish)
            again = names[held.name] if held is not None and free(held.name, position) else None
            names[value.name] = again or taken.fresh(wish)
            latest[wish] = value
    return names


def _reusable(
    flow: Flow, step: Statement, reads: list[str], callee: object, last: Mapping[str, int], index: int
) -> Callable[[str, int], bool]:
    """Return whether output `position` of a statement may take over the variable of the value `held`."""
    outputs = {value.name for value in step.node.outputs}

    def free(held: str, position: int) -> bool:
        if held in outputs or last.get(held, -1) > index:
            return False
        if not isinstance(callee, Loop) or held not in reads:
            return True
        # A loop reads its operands in every round: only what it carries at this very place may be overwritten.
        return reads.count(held) == 1 and flow.root(step.node.inputs[position]).name == held

    return free
