"""The derivative of a loop: a loop in reverse over what the loop itself collected.

Before, in a graph with the parameter %h.w, stacked, and a gradient %d of %y:
    %y : f32[width=8] = repeat %x, %h.w {"instance": "h", "stack": {"dim": "layers=2"}, "carried": 1, "shared": 0} ; h
      argument %x_2 : f32[width=8]
      argument %w : f32[width=8]
      %z : f32[width=8] = binary %x_2, %w {"kind": "mul"} ; h.z
      yield %z
    end

After; %d_x is the gradient of %x, %d_w that of %h.w:
    %y : f32[width=8], %saved : f32[layers=2, width=8] = repeat %x, %h.w {..., "collected": 1} ; h
      argument %x_2 : f32[width=8]
      argument %w : f32[width=8]
      %z : f32[width=8] = binary %x_2, %w {"kind": "mul"} ; h.z
      yield %z, %x_2
    end
    %d_x : f32[width=8], %d_w : f32[layers=2, width=8] = repeat %d, %h.w, %saved {..., "reverse": true} ; grad.h
      argument %d_z : f32[width=8]
      argument %w_2 : f32[width=8]
      argument %x_3 : f32[width=8]
      %binary : f32[width=8] = binary %d_z, %w_2 {"kind": "mul"} ; grad.h.z
      %binary_2 : f32[width=8] = binary %d_z, %x_3 {"kind": "mul"} ; grad.h.z
      yield %binary, %binary_2
    end

The reverse loop carries the gradients of what the loop carries and the sums of those of what it shares, and collects
those of what is stacked. What is the same in all iterations (masks, numbers) is made again and not collected, and so is
what elementwise operations make of values that are at hand anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cgc.ir.dims import Dim
from cgc.ir.graph import Node, Region, Value
from cgc.ir.ops import Binary, Cast, Merge, Rename, Repeat, Slice, Split, Transpose, Unary, Where
from cgc.ir.types import TensorType
from cgc.passes.copying import copy_node
from cgc.passes.dead_code import live
from cgc.passes.derivatives import Gradients
from cgc.passes.emitter import Emitter, spare_name

if TYPE_CHECKING:
    from cgc.passes.autodiff import Reverse


_EASY = (Unary, Binary, Where, Cast, Rename, Transpose, Split, Merge, Slice)
"""Operations that cost about as much as reading what they gave."""


def differentiate_loop(
    reverse: Reverse, emit: Emitter, node: Node, op: Repeat, given: Sequence[Value | None]
) -> tuple[Node, Gradients]:
    """Return the loop with what it has to collect, and the gradients of its operands, from those of its results."""
    return _Loop(reverse, emit, node, op).run(given)


def _chosen(values: Sequence[Value], wanted: Sequence[bool]) -> list[Value]:
    return [value for value, needed in zip(values, wanted, strict=True) if needed]


@dataclass(slots=True)
class _Reads:
    """What the body of the reverse loop reads of the loop: arguments of it, operands they come from, values to save.

    `scope` says under which name it knows a value of the loop's body, `again` are the nodes that it has in common with
    that body.
    """

    shared: list[tuple[Value, Value]] = field(default_factory=list)
    stacked: list[tuple[Value, Value]] = field(default_factory=list)
    saved: list[tuple[Value, Value]] = field(default_factory=list)
    scope: dict[str, Value] = field(default_factory=dict)
    again: list[Node] = field(default_factory=list)


class _Loop:
    def __init__(self, reverse: Reverse, emit: Emitter, node: Node, op: Repeat) -> None:
        self._reverse = reverse
        self._emit = emit
        self._node = node
        self._op = op
        self._loose = op.carried + op.shared
        self._wanted = reverse.active(op.body.arguments)

    def _parts(self, values: Sequence[Value]) -> tuple[list[Value], list[Value], list[Value]]:
        """Return those values, one for each argument, that gradients flow to: carried, shared and stacked."""
        first, last = self._op.carried, self._loose
        bounds = (slice(0, first), slice(first, last), slice(last, None))
        carried, shared, stacked = (_chosen(values[part], self._wanted[part]) for part in bounds)
        return carried, shared, stacked

    def run(self, given: Sequence[Value | None]) -> tuple[Node, Gradients]:
        """Return the loop with what it has to collect, and the gradients of its operands."""
        op, body = self._op, self._op.body
        inner = self._emit.region()
        inner.at(self._node.path, self._node.location)
        carried, shared, stacked = self._parts(body.arguments)
        results = _chosen(body.results[: op.carried], self._wanted[: op.carried])
        slopes = [inner.value(f"d_{value.name}", value.type) for value in results]
        sums = [inner.value(f"d_{value.name}", value.type) for value in shared]
        collected = [value if known else None for value, known in zip(body.results, given, strict=True)][op.carried :]
        slices = [inner.value(f"d_{value.name}", value.type) for value in collected if value is not None]
        found: dict[str, Value] = {}
        ends = [*results, *(value for value in collected if value is not None)]
        for result, slope in zip(ends, [*slopes, *slices], strict=True):
            known = found.get(result.name)
            found[result.name] = slope if known is None else inner.binary("add", known, slope)
        forward = self._reverse.region(body.nodes, found, inner)

        def gradient(value: Value) -> Value:
            return inner.full(found[value.name], value.type) if value.name in found else inner.zeros(value.type)

        inner.at(self._node.path, self._node.location)
        yields = [gradient(value) for value in carried]
        for total, value in zip(sums, shared, strict=True):
            own = found.get(value.name)
            yields.append(total if own is None else inner.full(inner.binary("add", total, own), value.type))
        yields += [gradient(value) for value in stacked]
        region = live(inner.finish((*slopes, *sums, *slices), yields))
        node, reads = self._saving(forward, region)
        saved = node.outputs[len(self._node.outputs) :]
        return node, self._reversed(region, reads, saved, self._starts(given), len(stacked))

    def _starts(self, given: Sequence[Value | None]) -> list[Value]:
        """Return what the reverse loop starts from: gradients of carried results, sums, gradients of collected ones."""
        op, emit, outputs = self._op, self._emit, self._node.outputs
        starts = [
            emit.full(slope, value.type) if slope is not None else emit.zeros(value.type)
            for slope, value, wanted in zip(given[: op.carried], outputs, self._wanted, strict=False)
            if wanted
        ]
        starts += [emit.zeros(value.type) for value in self._parts(op.body.arguments)[1]]
        pairs = zip(given[op.carried :], outputs[op.carried :], strict=True)
        return starts + [emit.full(slope, value.type) for slope, value in pairs if slope is not None]

    def _saving(self, forward: list[Node], region: Region) -> tuple[Node, _Reads]:
        """Return the loop with what it has to collect for `region`, the body of its derivative."""
        reads = self._reads(forward, region)
        nodes, outputs, results = list(forward), list(self._node.outputs), list(self._op.body.results)
        for value, inside in reads.saved:
            kept = value
            if inside.type != value.type:
                kept = Value(self._emit.builder.names.fresh(value.name), inside.type)
                pairs = tuple((a, b) for a, b in zip(value.type.names, inside.type.names, strict=True) if a != b)
                nodes.append(Node(Rename(pairs), (value,), (kept,), self._node.path, self._node.location))
            results.append(kept)
            whole = TensorType((self._op.stack, *inside.type.dims), inside.type.dtype, inside.type.indexes)
            outputs.append(Value(self._emit.builder.names.fresh(f"saved_{value.name}"), whole))
        body = replace(self._op.body, nodes=tuple(nodes), results=tuple(results))
        op = replace(self._op, body=body, collected=self._op.collected + len(reads.saved))
        return replace(self._node, op=op, outputs=tuple(outputs)), reads

    def _reads(self, forward: list[Node], region: Region) -> _Reads:
        """Return what `region` reads of the loop's body, whose nodes are `forward`, and make it known there."""
        own = {value.name for value in region.arguments}
        own |= {value.name for node in region.nodes for value in node.outputs}
        needed = {value.name for node in region.nodes for value in node.inputs} - own
        needed |= {value.name for value in region.results} - own
        cheap = self._cheap(forward, needed)
        again: list[Node] = []
        for node in reversed(forward):
            names = {value.name for value in node.outputs}
            if names & needed and (self._reverse.recompute or names <= cheap):
                again.append(node)
                needed -= names
                needed |= {value.name for value in node.inputs}
        reads = _Reads()
        operands = self._node.inputs
        for index, value in enumerate(self._op.body.arguments):
            if value.name not in needed:
                continue
            if index < self._op.carried:
                self._save(reads, value)
                continue
            inside = self._argument(reads, value, value.type)
            (reads.shared if index < self._loose else reads.stacked).append((operands[index], inside))
        for node in forward:
            for value in node.outputs:
                if value.name in needed:
                    self._save(reads, value)
        for node in reversed(again):
            reads.again.append(copy_node(node, node.path, reads.scope, self._emit.builder.names))
        return reads

    def _fixed(self, forward: list[Node]) -> set[str]:
        """Return the names of values that are the same in all iterations, made of numbers and what is shared."""
        fixed = {value.name for value in self._op.body.arguments[self._op.carried : self._loose]}
        for node in forward:
            if all(value.name in fixed for value in node.inputs):
                fixed |= {value.name for value in node.outputs}
        return fixed

    def _cheap(self, forward: list[Node], needed: set[str]) -> set[str]:
        """Return the names of values that need not be collected, as long as others of `needed` are."""
        body = self._op.body
        cheap = self._fixed(forward) | {value.name for value in body.arguments[self._loose :]}
        at_hand = cheap | (needed & {value.name for value in body.arguments})
        for node in forward:
            names = {value.name for value in node.outputs}
            if isinstance(node.op, _EASY) and all(value.name in at_hand for value in node.inputs):
                cheap |= names
            at_hand |= names & (cheap | needed)
        return cheap

    def _argument(self, reads: _Reads, value: Value, type: TensorType) -> Value:
        inside = self._emit.value(value.name, type)
        reads.scope[value.name] = inside
        return inside

    def _save(self, reads: _Reads, value: Value) -> None:
        """Let the loop collect a value; a dimension that has the loop's name gets another one on the way."""
        name = self._op.stack.name
        dims = value.type.dims
        if value.type.has(name):
            spare = spare_name(name, value.type.names)
            dims = tuple(Dim(spare, dim.size) if dim.name == name else dim for dim in dims)
        inside = self._argument(reads, value, value.type.with_dims(dims))
        reads.saved.append((value, inside))
        if dims != value.type.dims:
            own = Value(self._emit.builder.names.fresh(value.name), value.type)
            pairs = tuple((new.name, old.name) for new, old in zip(dims, value.type.dims, strict=True) if new != old)
            reads.again.append(Node(Rename(pairs), (inside,), (own,), self._node.path, self._node.location))
            reads.scope[value.name] = own

    def _reversed(
        self, region: Region, reads: _Reads, saved: Sequence[Value], starts: list[Value], count: int
    ) -> Gradients:
        """Write the reverse loop, which collects `count` gradients, and return the gradients of the operands."""
        op, scope = self._op, reads.scope
        nodes = [replace(n, inputs=tuple(scope.get(value.name, value) for value in n.inputs)) for n in region.nodes]
        results = tuple(scope.get(value.name, value) for value in region.results)
        loose = len(results) - count
        arguments = [inside for _, inside in (*reads.shared, *reads.stacked, *reads.saved)]
        arguments = [*region.arguments[:loose], *arguments, *region.arguments[loose:]]
        body = Region(tuple(arguments), (*reads.again, *nodes), results)
        operands = [*(outer for outer, _ in (*reads.shared, *reads.stacked)), *saved]
        operands = [*starts[:loose], *operands, *starts[loose:]]
        turned = Repeat(op.instance, op.stack, loose, len(reads.shared), body, count, not op.reverse)
        made = iter(self._emit.add(turned, *operands, wish=f"d_{op.instance}"))
        return [next(made) if wanted else None for wanted in self._wanted]
