"""A contraction as MatMul: which axes are batched, kept and reduced, and the fewest moves that bring them there."""

from __future__ import annotations

from collections.abc import Sequence

from cgc.ir.dims import Dim, product
from cgc.ir.graph import Node, Value
from cgc.ir.ops import Dot
from cgc.ir.rules import union
from cgc_onnx.capabilities import MICROSOFT
from cgc_onnx.lowering.scope import Scope
from cgc_onnx.parameters.layout import Parameter, WeightUse, weight_use
from cgc_onnx.parameters.quantization import USES_INTEGERS
from cgc_onnx.proto import Attribute
from cgc_onnx.writer import Tensor


def contract(scope: Scope, node: Node, op: Dot) -> Tensor:
    """Return Σ over `op.over` of a · b. The axes of the result are in whatever order costs no move."""
    a, b = node.inputs
    if not op.over:
        return _outer(scope, node)
    is_param = (isinstance(scope.operand(a), Parameter), isinstance(scope.operand(b), Parameter))
    use = weight_use(op, (a.type, b.type), is_param)
    wish = scope.wish(node.output)
    if use:
        return _weighted(scope, node.inputs[1 - use.index], node.inputs[use.index], use, wish)
    return _batched(scope, scope.tensor(a), scope.tensor(b), op.over, wish)


def _outer(scope: Scope, node: Node) -> Tensor:
    a, b = (scope.tensor(value) for value in node.inputs)
    dims = union((a.type, b.type))
    name = scope.writer.one("Mul", (scope.shapes.align(a, dims), scope.shapes.align(b, dims)), scope.wish(node.output))
    return scope.result(name, dims, node.output.type)


def _weighted(scope: Scope, x: Value, weight: Value, use: WeightUse, wish: str) -> Tensor:
    """X [kept…, reduced…] times a matrix of the weight; the reduced axes lie together in the weight's order."""
    dims = weight.type.dims
    first, second = dims[: use.groups[0]], dims[use.groups[0] :]
    reduced, produced = (second, first) if use.transposed else (first, second)
    left = matrix_rows(scope, scope.tensor(x), [dim.name for dim in reduced])
    packed, name = scope.packed(weight), wish if len(produced) == 1 else f"{wish}.matmul"
    if packed:
        width = Dim("*".join(dim.name for dim in produced), product(tuple(dim.size for dim in produced)))
        out = times_packed(scope, left, packed, width, name)
    else:
        out = times_matrix(scope, left, scope.matrix(weight, use.groups), use.transposed, name)
    return scope.shapes.reshape(out, (*left.dims[:-1], *produced), wish)


def matrix_rows(scope: Scope, x: Tensor, reduced: Sequence[str]) -> Tensor:
    """Return `x` with the axes `reduced` last, as one."""
    kept = [name for name in x.names if name not in reduced]
    return scope.shapes.merge(x, [*([name] for name in kept), reduced], [*kept, "*".join(reduced)], f"{x.name}.merged")


def times_packed(scope: Scope, left: Tensor, packed: Sequence[str], width: Dim, wish: str) -> Tensor:
    """[…, reduced] times a matrix of few bits, its integers [width, reduced] and what lies beside them: the runtime
    unpacks it as it goes.
    """
    how, length = scope.how, left.dims[-1].size
    assert how is not None
    assert isinstance(length, int)
    assert isinstance(width.size, int)
    attributes: dict[str, Attribute] = {
        "K": length,
        "N": width.size,
        "bits": how.bits,
        "block_size": how.block,
        "accuracy_level": USES_INTEGERS,
    }
    (name,) = scope.writer.emit("MatMulNBits", [left.name, *packed], wish, domain=MICROSOFT, attributes=attributes)
    return scope.writer.note(Tensor(name, (*left.dims[:-1], width), left.dtype))


def packed_rows(scope: Scope, dims: Sequence[Dim], index: Tensor, packed: Sequence[str], wish: str) -> Tensor:
    """Rows, of the dimensions `dims`, of a matrix of few bits that is multiplied by as well: the runtime unpacks those
    that `index` says.
    """
    how, writer = scope.how, scope.writer
    assert how is not None
    attributes: dict[str, Attribute] = {
        "bits": how.bits,
        "block_size": how.block,
        "gather_axis": 0,
        "quantize_axis": 1,
    }
    inputs = [packed[0], index.name, *packed[1:]]
    row = Dim("*".join(dim.name for dim in dims), product(tuple(dim.size for dim in dims)))
    name = wish if len(dims) == 1 else f"{wish}.rows"
    (name,) = writer.emit("GatherBlockQuantized", inputs, name, domain=MICROSOFT, attributes=attributes)
    return scope.shapes.reshape(writer.note(Tensor(name, (*index.dims, row), "f32")), (*index.dims, *dims), wish)


def times_matrix(scope: Scope, left: Tensor, matrix: Tensor, transposed: bool, wish: str) -> Tensor:
    """[…, reduced] times [reduced, width], or [width, reduced] where `transposed`."""
    if transposed:
        return _times_transposed(scope, left, matrix, wish)
    name = scope.writer.one("MatMul", (left.name, matrix.name), wish)
    return scope.writer.note(Tensor(name, (*left.dims[:-1], *matrix.dims[1:]), left.dtype))


def _times_transposed(scope: Scope, left: Tensor, matrix: Tensor, wish: str) -> Tensor:
    # Gemm reads a transposed matrix as it lies; MatMul would need a moved copy of it, which for a tied embedding is
    # the largest tensor of the model.
    dims = (*left.dims[:-1], matrix.dims[0])
    if scope.writer.profile.fused("FusedMatMul") and len(left.dims) > 1:
        inputs = [left.name, matrix.name]
        (name,) = scope.writer.emit("FusedMatMul", inputs, wish, domain=MICROSOFT, attributes={"transB": 1})
        return scope.writer.note(Tensor(name, dims, left.dtype))
    *kept, last = left.names
    groups = [kept, [last]] if kept else [[last]]
    rows = scope.shapes.merge(left, groups, ["*".join(kept), last][-len(groups) :], f"{left.name}.rows")
    if not kept:
        rows = Tensor(scope.shapes.unsqueeze(rows.name, (0,)), (Dim("1", 1), *rows.dims), rows.dtype)
    name = scope.writer.one("Gemm", (rows.name, matrix.name), wish if len(kept) == 1 else f"{wish}.gemm", transB=1)
    return scope.shapes.reshape(scope.writer.note(Tensor(name, (rows.dims[0], matrix.dims[0]), left.dtype)), dims, wish)


def _batched(scope: Scope, a: Tensor, b: Tensor, over: Sequence[str], wish: str) -> Tensor:
    """MatMul of [shared…, rows, reduced] and [shared…, reduced, columns]."""
    if len(b.dims) > len(a.dims):
        a, b = b, a
    shared = [name for name in a.names if name in b.names and name not in over]
    rows = [name for name in a.names if name not in shared and name not in over]
    columns = [name for name in b.names if name not in shared and name not in over]
    reduced = [name for name in a.names if name in over]
    kept_rows = [dim for dim in a.dims if dim.name in rows]
    kept_columns = [dim for dim in b.dims if dim.name in columns]
    # Without shared axes all rows stay apart: MatMul broadcasts a matrix over them, and nothing is reshaped.
    row_groups = [[name] for name in rows] if not shared and rows else [rows]
    left = _stacked(scope, a, shared, [*row_groups, reduced])
    right = _stacked(scope, b, shared, [reduced, columns])
    dims = (*left.dims[:-1], right.dims[-1])
    wanted = (*left.dims[: len(shared)], *kept_rows, *kept_columns)
    split = [dim.size for dim in dims] != [dim.size for dim in wanted]
    name = scope.writer.one("MatMul", (left.name, right.name), f"{wish}.matmul" if split else wish)
    return scope.shapes.reshape(scope.writer.note(Tensor(name, dims, a.dtype)), wanted, wish)


def _stacked(scope: Scope, x: Tensor, shared: Sequence[str], groups: Sequence[Sequence[str]]) -> Tensor:
    """Return `x` as [shared…, one axis for each of `groups`]; an empty group is an axis of size 1."""
    order = [*shared, *(name for group in groups for name in group)]
    x = scope.shapes.transpose(x, order)
    full = [*([name] for name in shared), *groups]
    if all(full):
        return scope.shapes.merge(x, full, ["*".join(group) for group in full], f"{x.name}.stacked")
    filled = [group for group in full if group]
    merged = scope.shapes.merge(x, filled, ["*".join(group) for group in filled], f"{x.name}.stacked")
    axes = tuple(axis for axis, group in enumerate(full) if not group)
    rest = iter(merged.dims)
    dims = tuple(next(rest) if group else Dim("1", 1) for group in full)
    return Tensor(scope.shapes.unsqueeze(merged.name, axes), dims, x.dtype)
