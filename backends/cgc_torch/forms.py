"""In which form variables keep their axes: as the graph has them, or as PyTorch's attention and masks want them."""

from __future__ import annotations

from cgc.ir.dims import Dim, product
from cgc.ir.graph import Node
from cgc.ir.ops import Binary, Call, Where
from cgc.ir.types import TensorType
from cgc_torch.intrinsics import Groups, made_order, wanted_orders
from cgc_torch.modules import Inline, Unit
from cgc_torch.naming import Flow


def forms(unit: Unit, flow: Flow, stored: set[str]) -> dict[str, Groups]:
    """Return the variables that keep their axes in another form than the graph, which spares transpositions.

    `stored` are the values that are variables and may take any form. Attention in PyTorch wants and gives heads before
    positions: what is only computed for it is kept so. A mask stands as what it is laid over.
    """
    kept: dict[str, Groups] = {}
    for index, node in enumerate(unit.region.nodes):
        if index in flow.live and isinstance(node.op, Binary | Where):
            kept.update(_broadcast_forms(flow, node, stored))
        callee = flow.callee(node)
        if not isinstance(callee, Inline) or not isinstance(node.op, Call) or len(node.outputs) != 1:
            continue
        types = [value.type for value in node.inputs]
        orders = wanted_orders(callee.kind, dict(callee.static), types)
        for value, order in zip(node.inputs, orders, strict=True):
            root = flow.root(value)
            if order is not None and root.name in stored and flow.uses[root.name] == 1:
                kept.setdefault(root.name, tuple((value.type.names.index(name),) for name in order))
        made = made_order(callee.kind, dict(callee.static), types, node.output.type)
        if node.output.name in stored:
            names = node.output.type.names
            kept[node.output.name] = tuple(tuple(names.index(name) for name in group) for group in made)
    return {name: form for name, form in kept.items() if form != tuple((axis,) for axis in range(len(form)))}


def _broadcast_forms(flow: Flow, node: Node, stored: set[str]) -> dict[str, Groups]:
    """Return the forms of elementwise values that are only computed for the elementwise `node`: its own order."""
    kept: dict[str, Groups] = {}
    for value in node.inputs:
        root = flow.root(value)
        made = flow.node(root)
        alone = root.name in stored and flow.uses[root.name] == 1
        if alone and made is not None and isinstance(made.op, Binary | Where):
            names = value.type.names
            kept[root.name] = tuple((names.index(name),) for name in node.output.type.names if name in names)
    return kept


def formed(type: TensorType, form: Groups | None) -> TensorType:
    """Return a type with its dimensions in `form`; merged ones go by `a*b`."""
    if form is None:
        return type
    parts = [[type.dims[axis] for axis in group] for group in form]
    merged = [Dim("*".join(dim.name for dim in dims), product(tuple(dim.size for dim in dims))) for dims in parts]
    return type.with_dims(tuple(merged))
