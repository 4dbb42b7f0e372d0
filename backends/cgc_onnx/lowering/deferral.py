"""Which results are not written at once, since an operator of the runtime may take them apart."""

from __future__ import annotations

from collections.abc import Callable

from cgc.ir.graph import Node
from cgc.ir.ops import Binary, Concat, Rename
from cgc_onnx.lowering.pending import Joined, Later, Pending, Product, Sum, Turned, renamed
from cgc_onnx.lowering.primitives import lower
from cgc_onnx.lowering.scope import Scope
from cgc_onnx.writer import Tensor


def deferred(scope: Scope, node: Node) -> Pending | None:
    """Return the result of a primitive that need not be written yet, None for any other."""
    operands = [scope.operand(value) for value in node.inputs]
    written = later(scope, lambda: lower(scope, node)[0])
    match node.op, operands:
        case Concat(), [_, Product() | Turned() as second]:
            return Joined(written, scope.tensor(node.inputs[0]), second)
        case Concat(), [_, _]:
            first, last = (scope.tensor(value) for value in node.inputs)
            return Joined(written, first, last)
        case Rename(names), [Product() | Turned() as operand]:
            return renamed(operand, dict(names))
        case Binary("add"), [Tensor() | Sum(), Tensor() | Sum()]:
            return _sum(scope, node, written) if scope.writer.profile.fused("SkipLayerNormalization") else None
        case _:
            return None


def _sum(scope: Scope, node: Node, written: Later) -> Sum | None:
    first, second = (scope.tensor(value) for value in node.inputs)
    return Sum(written, first, second) if first.dims == second.dims and first.dtype == "f32" else None


def later(scope: Scope, write: Callable[[], Tensor]) -> Later:
    """Return what writes nodes when it is asked to, under the line of the source that is written now."""
    source = scope.writer.source

    def make() -> Tensor:
        now, scope.writer.source = scope.writer.source, source
        try:
            return write()
        finally:
            scope.writer.source = now

    return Later(make)
