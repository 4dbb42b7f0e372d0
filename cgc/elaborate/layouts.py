"""`checkpoint` items: which tensor of a hub file is which parameter, checked against a model's graph."""

from __future__ import annotations

import re

from cgc.diagnostics import Diagnostic, Diagnostics, Label, capped
from cgc.elaborate.hints import suggest
from cgc.elaborate.values import Fault, describe
from cgc.ir.dims import Dim
from cgc.ir.graph import Graph, Param, walk
from cgc.ir.ops import Repeat
from cgc.program import Checkpoint, CheckpointEntry
from cgc.syntax import tree

STAR = "*"

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


def placeholders(tensor: str) -> tuple[str, ...]:
    """Return the repeats that a tensor's name counts: `h` for `h.{h}.attn.bias`."""
    return tuple(_PLACEHOLDER.findall(tensor))


def own_dims(param: Param) -> tuple[Dim, ...]:
    """Return the dimensions of one layer of a parameter: those without the stacking dimensions of its repeats."""
    return param.type.dims[param.stacked :]


def own_axes(axes: tuple[tuple[str, ...], ...], dims: tuple[Dim, ...]) -> tuple[tuple[str, ...], ...] | None:
    """Return a tensor's axes in a parameter's own names, or None where they are not its dimensions.

    A dimension that is primed in the parameter (`width'`, of a weight from `width` to itself) may stand without its
    primes where only one is meant.
    """
    names = [dim.name for dim in dims]

    def own(name: str) -> str:
        plain = [known for known in names if known.rstrip("'") == name]
        return plain[0] if name not in names and len(plain) == 1 else name

    owned = tuple(tuple(name if name == STAR else own(name) for name in axis) for axis in axes)
    flat = [name for axis in owned for name in axis if name != STAR]
    return owned if sorted(flat) == sorted(names) else None


def read_checkpoint(item: tree.Checkpoint, graph: Graph, found: Diagnostics) -> Checkpoint:
    """Read a `checkpoint` item for a model; optional lines of parameters that it has not fall away.

    Every fault is a CG0510 (CG0504 for a second `prefix`) added to `found`.
    """
    prefixes = [line for line in item.lines if isinstance(line, tree.TensorNames) and line.keyword == "prefix"]
    for line in prefixes[1:]:
        labels = (Label(line.location, "again here"), Label(prefixes[0].location, "first here"))
        found.add(Diagnostic("CG0504", "`prefix` is given twice", labels, "keep one of the two"))
    ignored = tuple(
        line.text.value for line in item.lines if isinstance(line, tree.TensorNames) and line.keyword == "ignore"
    )
    reader = _Reader(graph)
    entries: list[CheckpointEntry] = []
    for entry in (line for line in item.lines if isinstance(line, tree.Entry)):
        if entry.optional and not reader.has_any(entry):
            continue
        try:
            entries.append(reader.entry(entry))
        except Fault as fault:
            found.add(fault.diagnostic)
    missing = [param.name for param in graph.params if param.name not in reader.mentioned]
    if missing and not reader.unknown:
        message = f"the layout leaves out {capped(missing)}"
        hint = f'add a line for each, as in `"name in the file" [dimensions] = {missing[0]}`'
        found.add(Diagnostic("CG0510", message, (Label(item.name.location),), hint))
    prefix = prefixes[0].text.value if prefixes else ""
    return Checkpoint(item.name.text, prefix, ignored, tuple(entries), item.location)


class _Reader:
    """Reads the entries of one layout and remembers what they name."""

    def __init__(self, graph: Graph) -> None:
        self._params = {param.name: param for param in graph.params}
        regions = (graph.body, *(function.body for function in graph.functions))
        self._repeats = {node.op.instance for r in regions for node in walk(r) if isinstance(node.op, Repeat)}
        self._tensors: dict[str, tree.Entry] = {}
        self.mentioned: dict[str, tree.Dotted] = {}
        # a slip in a name is one fault; that the right name is then left out is no second one
        self.unknown = False

    def has_any(self, entry: tree.Entry) -> bool:
        """Tell whether the model has one of an entry's parameters."""
        return any(target.text in self._params for target in entry.params)

    def entry(self, entry: tree.Entry) -> CheckpointEntry:
        """Check one entry; raises Fault."""
        params = [self._param(target) for target in entry.params]
        tensor = entry.tensor.value
        if tensor in self._tensors:
            labels = (
                Label(entry.tensor.location, "again here"),
                Label(self._tensors[tensor].tensor.location, "first here"),
            )
            raise Fault("CG0510", f"the tensor `{tensor}` has two lines", *labels, hint="join what it holds with `*`")
        self._tensors[tensor] = entry
        axes = tuple(tuple(name.text for name in axis) for axis in entry.axes)
        self._star(entry, axes)
        for target, param in zip(entry.params, params, strict=True):
            self._counts(entry, target, param)
            if own_axes(axes, own_dims(param)) is None:
                place = entry.axes[0][0].location.to(entry.axes[-1][-1].location)
                labels = (Label(place), Label(target.location, f"has {describe(own_dims(param))}"))
                hint = "name each of its dimensions once; those that share an axis stand in ( )"
                raise Fault("CG0510", f"these are not the dimensions of `{param.name}`", *labels, hint=hint)
        self._alike(entry, params, axes)
        return CheckpointEntry(tensor, axes, tuple(param.name for param in params), entry.location)

    def _param(self, target: tree.Dotted) -> Param:
        name = target.text
        if name not in self._params:
            self.unknown = True
            hint = suggest(name, list(self._params)) or "`cgc params` lists the parameters of a model"
            raise Fault("CG0510", f"the model has no parameter `{name}`", Label(target.location), hint=hint)
        if name in self.mentioned:
            labels = (Label(target.location, "again here"), Label(self.mentioned[name].location, "first here"))
            raise Fault("CG0510", f"`{name}` is in two tensors", *labels, hint="keep one of the two")
        self.mentioned[name] = target
        return self._params[name]

    def _star(self, entry: tree.Entry, axes: tuple[tuple[str, ...], ...]) -> None:
        stars = sum(name == STAR for axis in axes for name in axis)
        if len(entry.params) > 1 and stars != 1:
            text = "a tensor that joins several parameters needs one `*` among its dimensions"
            hint = "put it where the joined ones follow each other, as in `(* heads head)`"
            raise Fault("CG0510", text, Label(entry.tensor.location), hint=hint)
        if len(entry.params) == 1 and stars:
            text = "`*` stands for the place of one of several parameters, here is one"
            raise Fault("CG0510", text, Label(entry.tensor.location), hint="leave the `*` out")

    def _counts(self, entry: tree.Entry, target: tree.Dotted, param: Param) -> None:
        """Check that the tensor's name counts exactly the repeats that the parameter stands in."""
        counted = placeholders(entry.tensor.value)
        inside = [part for part in param.name.split(".") if part in self._repeats][: param.stacked]
        if sorted(counted) == sorted(inside):
            return
        needed = " and ".join(f"`{{{name}}}`" for name in inside) or "no `{…}`"
        labels = (Label(entry.tensor.location), Label(target.location, f"is in {len(inside)} repeats"))
        text = f"the tensor of `{param.name}` needs {needed} in its name"
        hint = "each repeat that a parameter is in stands once in the tensor's name, in braces"
        raise Fault("CG0510", text, *labels, hint=hint)

    def _alike(self, entry: tree.Entry, params: list[Param], axes: tuple[tuple[str, ...], ...]) -> None:
        """Check that joined parameters have the same sizes in the same repeats."""
        sizes = [_sizes(param, axes) for param in params]
        for target, other in zip(entry.params[1:], sizes[1:], strict=True):
            if other != sizes[0]:
                labels = (Label(target.location), Label(entry.params[0].location, "not the sizes of this one"))
                text = "parameters joined in one tensor have the same sizes"
                raise Fault("CG0510", text, *labels, hint="give each an entry of its own, or the same sizes")


def _sizes(param: Param, axes: tuple[tuple[str, ...], ...]) -> tuple[object, ...]:
    owned = own_axes(axes, own_dims(param)) or ()
    stacking = param.type.shape[: param.stacked]
    return (*stacking, *(param.type.dim(name).size for axis in owned for name in axis if name != STAR))
