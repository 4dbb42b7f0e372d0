"""`model.py`: the emitted file, from its header to the model's class."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from cgc.ir.dims import Dim
from cgc.ir.graph import Init, Value
from cgc.ir.ops import TopK
from cgc.program import Program
from cgc.version import VERSION
from cgc_torch.activated import ACTIVATIONS, activated_linear, function_name
from cgc_torch.body import Body, body
from cgc_torch.expressions import TORCH_DTYPES, Expr, call, number
from cgc_torch.formatting import docstring, plain, statement
from cgc_torch.hoisting import hoisted
from cgc_torch.language_model import language_model
from cgc_torch.loss import LINEAR_CROSS_ENTROPY, TARGETS
from cgc_torch.modules import Child, Inline, Layers, Layout, Leaf, Owned, Unit, plan
from cgc_torch.names import body_name
from cgc_torch.optimizer import SELECT, optimizer_method
from cgc_torch.reasons import Reasons
from cgc_torch.sizes import ConfigFields

_TOP_K = '''
def top_k(x: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return the k largest along dim and their indices; ties go to the lower index."""
    values, indices = torch.sort(x, dim=dim, descending=True, stable=True)
    return values.narrow(dim, 0, k), indices.narrow(dim, 0, k)
'''

_TRUNCATED_NORMAL = '''
def truncated_normal_(tensor: Tensor, std: float) -> None:
    """Fill a tensor with normal numbers, drawn again beyond two standard deviations."""
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)
'''

_ROPE = '''
def rope_tables(
    positions: int, head: int, base: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the cosines, and the sines with their signs, of the angles for `rope`
    [positions, head]: they grow with the position, more slowly from pair to pair.
    """
    pairs = torch.arange(head // 2, device=device)
    places = torch.arange(positions, device=device).float()
    angle = torch.outer(places, 1.0 / torch.pow(base, (2 * pairs).float() / head))
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rope(x: Tensor, cos: Tensor, sin: Tensor, dim: int) -> Tensor:
    """Turn the two halves of the last axis against each other, by the angles of the
    positions along dim (rotary positions, Su et al. 2021, arXiv 2104.09864).
    """
    shape = (x.shape[dim], *[1] * (x.dim() - dim - 2), x.shape[-1])
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    return (x * cos.reshape(shape) + swapped * sin.reshape(shape)).type_as(x)
'''


def emit(program: Program) -> str:
    """Return the source of a Python file that holds `program` as PyTorch modules and imports nothing of cgc.

    The model's class is the one `model_class` names; its `forward` takes the graph's inputs in order, or by name.
    """
    layout = hoisted(plan(program))
    fields = ConfigFields(program.graph, dict(program.arguments))
    inline = {c.kind for unit in layout.units for c in unit.callees if isinstance(c, Inline)}
    own = [unit.name for unit in layout.units if not unit.is_class]
    functions = frozenset([*own, *({"rope", "rope_tables"} & inline), *map(function_name, ACTIVATIONS)])
    has_loss = language_model(program) is not None
    bodies: dict[str, Body] = {}
    configured: set[str] = set()
    blocks: list[list[str]] = []
    for unit in layout.units:
        root = unit.form == "model"
        limits = [(s.name, s.limit) for s in program.graph.symbols if s.limit is not None] if root else []
        taken = functions | {TARGETS} if root and has_loss else functions
        bodies[unit.name] = body(unit, fields, taken, bodies, limits)
        outputs = program.graph.outputs if root else ()
        why = Reasons(program, root)
        writer = _UnitWriter(unit, bodies[unit.name], fields, configured, root, outputs, root and has_loss, why)
        blocks.append(writer.write())
        if root and (method := optimizer_method(program)):
            blocks[-1] += ["", *method]
            blocks.insert(0, SELECT.strip().splitlines())
    config = _config(program, fields)
    if has_loss and bodies[layout.root.name].head is not None:
        blocks.insert(0, LINEAR_CROSS_ENTROPY.strip().splitlines())
    calls = {line.split("(")[0].split()[-1] for block in blocks for line in block if "_linear(" in line}
    for kind in ACTIVATIONS:
        if function_name(kind) in calls:
            blocks.insert(0, activated_linear(kind).strip().splitlines())
    if any(isinstance(node.op, TopK) for unit in layout.units for node in unit.region.nodes):
        blocks.insert(0, _TOP_K.strip().splitlines())
    if "rope" in inline:
        blocks.insert(0, _ROPE.strip().splitlines())
    if any("truncated_normal_(" in line for block in blocks for line in block):
        blocks.insert(0, _TRUNCATED_NORMAL.strip().splitlines())
    parts = [part for part in (config, *blocks) if part]
    text = "\n\n\n".join("\n".join(part) for part in parts) + "\n"
    return _header(program, layout) + _imports(text) + "\n\n" + text


def model_class(program: Program) -> str:
    """Return the name of the model's class in the file that `emit` returns."""
    return plan(program).root.name


def _header(program: Program, layout: Layout) -> str:
    use = [
        "Weights that cgc wrote beside this file load by name:",
        "",
        "    from safetensors.torch import load_file",
        "",
        f"    model = {layout.root.name}()",
        '    model.load_state_dict(load_file("model.safetensors"))',
    ]
    origin = f"from {plain(program.file)} " if program.file else ""
    text = f"{program.name}: a PyTorch model, written {origin}by cgc {VERSION}.\n\n{program.doc}"
    return "\n".join(docstring(text, 0, use if program.graph.params else ())) + "\n\n"


def _imports(text: str) -> str:
    """Return the import lines that the code `text` needs; words in its comments and docstrings do not count."""
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = [f"import {name}" for name in ("math", "re") if name in used]
    lines += ["from dataclasses import dataclass"] if "dataclass" in used else []
    typing = [name for name in ("Any", "cast") if name in used]
    lines += [f"from typing import {', '.join(typing)}"] if typing else []
    lines += ["", "import torch"] if "torch" in used else [""]
    lines += ["from torch import Tensor, nn"]
    lines += ["from torch.nn import functional as F"] if "F" in used else []
    lines += ["from torch.utils.checkpoint import checkpoint"] if "checkpoint" in used else []
    return "\n".join(lines).lstrip("\n") + "\n"


def _config(program: Program, fields: ConfigFields) -> list[str]:
    used = fields.used()
    if not used:
        return []
    lines = ["@dataclass(frozen=True)", "class Config:", *docstring(f"The sizes of {program.name}.", 1), ""]
    return lines + [f"    {name}: int = {size}" for name, size in used]


class _UnitWriter:
    """Writes one class or function."""

    def __init__(
        self,
        unit: Unit,
        code: Body,
        fields: ConfigFields,
        configured: set[str],
        root: bool,
        outputs: Sequence[str],
        has_loss: bool,
        why: Reasons,
    ) -> None:
        self._unit = unit
        self._code = code
        self._fields = fields
        self._configured = configured
        self._root = root
        self._outputs = outputs
        self._has_loss = has_loss
        self._why = why

    def write(self) -> list[str]:
        """Return the lines, without a line end."""
        unit = self._unit
        if not unit.is_class:
            text = unit.doc or f"{_sentence(unit.title)}: {self._mapping()}."
            return [*self._signature(unit.name, 0), *docstring(text, 1), *self._statements(1)]
        said = docstring(unit.doc or self._title(), 1, self._why.multipliers())
        lines = [f"class {unit.name}(nn.Module):", *said, "", *self._constructor()]
        if unit.members:
            lines += ["", *self._init_weights()]
        says = f"Map {self._mapping()}."
        if self._has_loss:
            says = f"{says[:-1]}; with {TARGETS} [batch, seq], the tokens that follow, to their mean cross-entropy."
        lines += ["", *self._signature("forward", 1), *docstring(says, 2), *self._statements(2)]
        if self._root:
            lines += [
                "",
                "    def count_parameters(self) -> int:",
                '        """Return the number of trained scalars."""',
                "        return sum(parameter.numel() for parameter in self.parameters())",
            ]
        return lines

    def _title(self) -> str:
        if self._root:
            return f"The model {self._unit.title}."
        what = "The body of the loop" if self._unit.form == "loop" else "The block"
        return f"{what} {self._unit.title}."

    def _mapping(self) -> str:
        unit = self._unit
        given = [f"{name} {_dims(value)}" for name, value in zip(self._code.parameters, unit.arguments, strict=True)]
        names = self._outputs or [""] * len(unit.region.results)
        made = [f"{name} {_dims(value)}".strip() for name, value in zip(names, unit.region.results, strict=True)]
        return f"{_listed(given)} to {_listed(made)}" if given else _listed(made)

    def _signature(self, name: str, depth: int) -> list[str]:
        arguments = ["self"] if self._unit.is_class else []
        arguments += [f"{parameter}: Tensor" for parameter in self._code.parameters]
        for extra, variable in self._code.extras:
            arguments.append(f"{variable}: {'torch.device' if extra == 'device' else 'int'}")
        arguments += [f"{TARGETS}: Tensor | None = None"] if self._has_loss and name == "forward" else []
        count = len(self._unit.region.results)
        result = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
        if self._root and count != 1:
            result = "dict[str, Tensor]"
        return statement(f"def {name}({', '.join(arguments)}) -> {result}:", depth)

    def _statements(self, depth: int) -> list[str]:
        lines: list[str] = []
        above = ""
        for line in self._code.lines:
            made = statement(line.text, depth + line.depth, line.comment)
            # A comment above a line that says what the one above said is left out.
            comment = made[0].strip() if made[0].strip() == f"# {line.comment}" else ""
            lines += made[1:] if comment and comment == above else made
            above = comment
        for inner, text in self._loss() if self._has_loss else [(0, text) for text in self._return()]:
            lines += statement(text, depth + inner)
        return lines

    def _loss(self) -> list[tuple[int, str]]:
        """Return the statements that return logits, or the loss where there are targets, and how deep they stand."""
        head = self._code.head
        if head is not None:
            loss = call("linear_cross_entropy", head.hidden, head.weight, TARGETS)
            return [(0, f"if {TARGETS} is not None:"), (1, f"return {loss.text}"), *((0, t) for t in self._return())]
        (x,), (name,) = self._code.result, self._code.result_names
        made = [(0, f"{name}: Tensor = {x.text}" if x.untyped else f"{name} = {x.text}")] if x.text != name else []
        text = f"F.cross_entropy({name}.float().flatten(0, 1), {TARGETS}.flatten())"
        return [*made, (0, f"if {TARGETS} is None:"), (1, f"return {name}"), (0, f"return {text}")]

    def _return(self) -> list[str]:
        result = self._code.result
        if len(result) == 1:
            (x,), (name,) = result, self._code.result_names
            if not x.untyped:
                return [f"return {x.text}"]
            return [f"{name}: Tensor = {x.text}", f"return {name}"]
        if self._root:
            entries = [f'"{name}": {x.text}' for name, x in zip(self._outputs, result, strict=True)]
            return [f"return {{{', '.join(entries)}}}"]
        return [f"return {', '.join(x.text for x in result)}"]

    def _constructor(self) -> list[str]:
        used = len(self._code.sizes) > 0
        lines = [
            line for name, attribute in self._code.sizes for line in statement(f"self.{attribute} = config.{name}", 2)
        ]
        for member in self._unit.members:
            text, configured = self._made(member)
            used = used or configured
            lines += statement(f"self.{member.attribute} = {text}", 2)
        if self._root and self._fields.used():
            head = ["config: Config | None = None"]
            lines = ["        config = config or Config()", "        self.config = config", *lines]
        else:
            head = ["config: Config"] if used else []
        if used:
            self._configured.add(self._unit.name)
        end = ["        self.init_weights()"] if self._root and self._unit.members else []
        signature = statement(f"def __init__({', '.join(['self', *head])}) -> None:", 1)
        return [*signature, "        super().__init__()", *lines, *end]

    def _made(self, member: Owned | Leaf | Child | Layers) -> tuple[str, bool]:
        """Return the expression that makes a member, and whether it reads the config."""
        match member:
            case Owned(value=value):
                sizes = [self._size(dim).text for dim in value.type.dims]
                dtype = "" if value.type.dtype == "f32" else f", dtype={TORCH_DTYPES[value.type.dtype]}"
                text = f"nn.Parameter(torch.empty({', '.join(sizes) or '()'}{dtype}))"
                return text, "config." in text
            case Leaf(builtin=module):
                text = module.constructor(self._size).text
                return text, "config." in text
            case Child(unit=unit):
                configured = unit.name in self._configured
                return f"{unit.name}({'config' if configured else ''})", configured
            case Layers(unit=unit, stack=stack):
                configured = unit.name in self._configured
                count = self._size(stack).text
                made = f"{unit.name}({'config' if configured else ''})"
                return f"nn.ModuleList({made} for _ in range({count}))", configured or "config." in count

    def _size(self, dim: Dim) -> Expr:
        if not isinstance(dim.size, int):
            raise AssertionError("parameters have fixed sizes")
        name = self._fields.field(dim)
        return number(dim.size) if name is None else Expr(f"config.{name}", number=True)

    def _init_weights(self) -> list[str]:
        lines = [
            "    def init_weights(self) -> None:",
            '        """Draw the parameters from their initial distributions."""',
        ]
        leaves: dict[object, list[Leaf]] = {}
        for member in self._unit.members:
            if isinstance(member, Leaf):
                leaves.setdefault((member.builtin.kind, member.inits), []).append(member)
        for member in self._unit.members:
            match member:
                case Owned(attribute=attribute, init=init):
                    lines += statement(_drawn(f"self.{attribute}", init), 2, self._why.of(init))
                case Leaf():
                    alike = leaves[(member.builtin.kind, member.inits)]
                    if member is alike[0]:
                        lines += _leaf_init(alike, self._why)
                case Child(attribute=attribute):
                    lines.append(f"        self.{attribute}.init_weights()")
                case Layers(attribute=attribute, unit=unit):
                    layer = body_name(unit.title)
                    lines.append(f"        for {layer} in self.{attribute}:")
                    lines.append(f"            cast({unit.name}, {layer}).init_weights()")
        return lines


def _leaf_init(alike: Sequence[Leaf], why: Reasons) -> list[str]:
    """Return the statements that draw the parameters of modules of one kind and one initial distribution."""
    first = alike[0]
    names = [f"self.{leaf.attribute}" for leaf in alike]
    depth, lines, name = 2, list[str](), names[0]
    if len(alike) > 1:
        name, depth = ("linear" if first.builtin.kind == "linear" else "norm"), 3
        lines += statement(f"for {name} in ({', '.join(names)}):", 2)
    inits = dict(first.inits)
    usual = {"scale": Init("constant", mean=1.0), "bias": Init("constant")}
    if first.builtin.kind != "linear" and all(init == usual[param] for param, init in inits.items()):
        return [*lines, *statement(f"{name}.reset_parameters()", depth)]
    for slot in first.builtin.slots:
        init = inits[slot.param]
        lines += statement(_drawn(f"{name}.{slot.name}", init), depth, why.of(init))
    return lines


def _drawn(tensor: str, init: Init) -> str:
    mean = f"mean={init.mean!r}, " if init.mean else ""
    match init.distribution:
        case "normal":
            return f"nn.init.normal_({tensor}, {mean}std={init.std!r})"
        case "truncated_normal":
            low, high = init.mean - 2 * init.std, init.mean + 2 * init.std
            if not init.mean:
                return f"truncated_normal_({tensor}, std={init.std!r})"
            return f"nn.init.trunc_normal_({tensor}, {mean}std={init.std!r}, a={low!r}, b={high!r})"
        case "uniform":
            return f"nn.init.uniform_({tensor}, {-init.limit!r}, {init.limit!r})"
        case "constant":
            short = {0.0: "zeros_", 1.0: "ones_"}.get(init.mean)
            return f"nn.init.{short}({tensor})" if short else f"nn.init.constant_({tensor}, {number(init.mean).text})"


def _dims(value: Value) -> str:
    return f"[{', '.join(value.type.names)}]"


def _listed(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def _sentence(name: str) -> str:
    return name[:1].upper() + name[1:]
