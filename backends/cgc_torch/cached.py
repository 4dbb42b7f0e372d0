"""`decode.py`: the emitted model one token after another, with a cache of keys and values.

What `cgc.passes.kv_cache` keeps, a value renamed from the dimension of the tokens to an axis of its own, is kept here
too: where `model.py` has such a rename, the code here asks the cache for the value of all tokens so far. Blocks that
need the cache become functions of the module; all others are called as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cgc.ir.dims import Dim, Size, add, substitute, symbol
from cgc.ir.graph import Node, Region, Value
from cgc.ir.ops import Call, Position, Rename, Slice, Split
from cgc.passes.kv_cache import PAST, NoCache, with_kv_cache
from cgc.program import Program
from cgc.version import VERSION
from cgc_torch.body import Body, Decoding, Line, body
from cgc_torch.formatting import docstring, plain, statement
from cgc_torch.hoisting import hoisted
from cgc_torch.modules import Callee, Child, Inline, Loop, Plain, Unit, plan
from cgc_torch.names import identifier
from cgc_torch.sizes import ConfigFields

_RESERVED = frozenset({"cache", "module", "Cache", "rope", "rope_tables", "decode"})

_CACHE = '''
class Cache:
    """What decoding keeps of the tokens so far: keys and values, in the order in which
    the model makes them. `past` tokens were known before the `new` ones of this call.
    """

    def __init__(self) -> None:
        self.past = 0
        self.new = 0
        self._device = torch.device("cpu")
        self._kept: list[Tensor] = []
        self._turn = 0

    def start(self, tokens: Tensor, most: int | None = None) -> None:
        """Take note of a call with the next tokens [batch, seq]; `most` fit in all."""
        known = self.past + self.new
        if most is not None and known + tokens.shape[1] > most:
            raise ValueError(f"{known + tokens.shape[1]} tokens, at most {most}")
        self.past, self.new = known, tokens.shape[1]
        self._device = tokens.device
        self._turn = 0

    def extended(self, x: Tensor, dim: int) -> Tensor:
        """Return what was kept at this point of the model, followed by x along dim, and
        keep that. Room grows by doubling, so that a token costs no copy of all others.
        """
        end = self.past + self.new
        if self._turn == len(self._kept):
            self._kept.append(torch.empty_like(x))
        kept = self._kept[self._turn]
        if kept.shape[dim] < end:
            shape = [*x.shape[:dim], 2 * end, *x.shape[dim + 1 :]]
            larger = x.new_empty(shape)
            larger.narrow(dim, 0, self.past).copy_(kept.narrow(dim, 0, self.past))
            self._kept[self._turn] = kept = larger
        kept.narrow(dim, self.past, self.new).copy_(x)
        self._turn += 1
        return kept.narrow(dim, 0, end)

    def new_positions(self) -> Tensor:
        """Return where the new tokens stand [seq]."""
        return torch.arange(self.past, self.past + self.new, device=self._device)

    def mask(self) -> Tensor | None:
        """Return which of all tokens each new one may see [seq, past + seq]; None: all."""
        if self.new == 1:
            return None
        every = torch.arange(self.past + self.new, device=self._device)
        return every <= self.new_positions()[:, None]
'''

_ROPE_TABLES = '''
def rope_tables(
    positions: int, head: int, base: float, device: torch.device, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the cosines, and the sines with their signs, of the angles for `rope`
    [positions, head], the first of which are those of position start.
    """
    pairs = torch.arange(head // 2, device=device)
    places = torch.arange(start, start + positions, device=device).float()
    angle = torch.outer(places, 1.0 / torch.pow(base, (2 * pairs).float() / head))
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
'''


def emit_cached(program: Program) -> str | None:
    """Return the source of `decode.py` for the `model.py` of a program; None where the model has no KV cache."""
    try:
        tokens = with_kv_cache(program.graph).tokens.name
    except NoCache:
        return None
    # The cache reads off the first input how many tokens there are.
    names = program.graph.inputs[0].type.names if program.graph.inputs else ()
    return _Emitter(program, tokens).emit() if names[1:2] == (tokens,) else None


@dataclass(frozen=True, slots=True)
class _Function:
    """A unit as a function that takes the cache."""

    unit: Unit
    name: str
    code: Body


class _Emitter:
    def __init__(self, program: Program, tokens: str) -> None:
        self._program = program
        self._tokens = tokens
        self._layout = hoisted(plan(program))
        self._fields = ConfigFields(program.graph, dict(program.arguments))
        self._names: dict[str, str] = {}
        self._made: list[_Function] = []

    def emit(self) -> str:
        """Return the whole file."""
        units = self._layout.units
        functions = frozenset(unit.name for unit in units) | _RESERVED | {f"decode_{unit.name}" for unit in units}
        originals: dict[str, Body] = {}
        cached: dict[str, Body] = {}
        rewriting = _Rewriting(self._tokens)
        given = {self._tokens: "cache.new", PAST: "cache.past"}
        for unit in units:
            root = unit is self._layout.root
            limits = [(s.name, s.limit) for s in self._program.graph.symbols if s.limit is not None] if root else []
            originals[unit.name] = cached[unit.name] = body(unit, self._fields, functions, originals, limits)
            changed = rewriting.unit(unit)
            self._names[unit.name] = "decode" if root else f"decode_{_snake(unit.name)}"
            decoding = Decoding(self._names, dict(originals[unit.name].sizes), given)
            # A size that the module does not hold is written as a number.
            fields = _Only(self._fields, originals[unit.name])
            code = body(changed, fields, functions, cached, (), decoding)
            if root or _needs_cache(code):
                cached[unit.name] = code
                self._made.append(_Function(changed, self._names[unit.name], code))
            else:
                del self._names[unit.name]
        parts = [self._function(made) for made in self._made]
        text = "\n\n\n".join("\n".join(part) for part in parts) + "\n"
        helpers = [_CACHE, _ROPE_TABLES] if re.search(r"\brope_tables\(", text) else [_CACHE]
        text = "\n\n\n".join([*(helper.strip() for helper in helpers), text])
        return self._header(text) + "\n\n" + text

    def _header(self, text: str) -> str:
        program = self._program
        origin = f"from {plain(program.file)} " if program.file else ""
        use = [
            "Tokens go in as they come, and the cache remembers:",
            "",
            "    cache = Cache()",
            "    logits = decode(model, prompt, cache)",
            "    logits = decode(model, next_token, cache)",
        ]
        title = f"{program.name}: decoding with a cache of keys and values, written {origin}by cgc {VERSION}."
        lines = docstring(title, 0, use)
        lines += ["", *(["import math"] if re.search(r"\bmath\.", text) else [])]
        lines += ["from typing import cast"] if re.search(r"\bcast\(", text) else []
        names = [unit.name for unit in self._layout.units if re.search(rf"\b{unit.name}\b", text)]
        names += ["rope"] if re.search(r"\brope\(", text) else []
        lines += ["", "import torch", "from torch import Tensor"]
        lines += ["from torch.nn import functional as F"] if re.search(r"\bF\.", text) else []
        lines += ["", f"from model import {', '.join(sorted(names))}"]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"

    def _function(self, made: _Function) -> list[str]:
        unit, code = made.unit, made.code
        root = unit.name == self._layout.root.name
        arguments = [f"module: {unit.name}"] if unit.is_class else []
        arguments += [f"{parameter}: Tensor" for parameter in code.parameters]
        arguments += ["cache: Cache"]
        for extra, variable in code.extras:
            arguments.append(f"{variable}: {'torch.device' if extra == 'device' else 'int'}")
        count = len(unit.region.results)
        result = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
        if root and count != 1:
            result = "dict[str, Tensor]"
        lines = ["@torch.no_grad()"] if root else []
        lines += statement(f"def {made.name}({', '.join(arguments)}) -> {result}:", 0)
        lines += docstring(self._doc(made, root), 1)
        if root:
            lines += self._start(code)
        for line in self._lines(code, root):
            lines += statement(_received(line.text), 1 + line.depth, line.comment)
        return lines

    def _doc(self, made: _Function, root: bool) -> str:
        unit = made.unit
        given = [f"{name} {_dims(value)}" for name, value in zip(made.code.parameters, unit.arguments, strict=True)]
        named = self._program.graph.outputs if root else [""] * len(unit.region.results)
        results = [f"{name} {_dims(value)}".strip() for name, value in zip(named, unit.region.results, strict=True)]
        behind = ", which follow those in the cache," if root else ""
        return f"Map {', '.join(given)}{behind} to {', '.join(results)}."

    def _start(self, code: Body) -> list[str]:
        """Return the line that tells the cache of the call, which looks whether there is room."""
        limit = next((s.limit for s in self._program.graph.symbols if s.name == self._tokens), None)
        held = dict(code.sizes)
        most = ""
        if limit is not None:
            most = f", module.{held[limit.name]}" if limit.name in held else f", {limit.size}"
        return statement(f"cache.start({code.parameters[0]}{most})", 1)

    def _lines(self, code: Body, root: bool) -> list[Line]:
        result = code.result
        if len(result) == 1:
            if not result[0].untyped:
                return [*code.lines, Line(f"return {result[0].text}")]
            name = code.result_names[0]
            return [*code.lines, Line(f"{name}: Tensor = {result[0].text}"), Line(f"return {name}")]
        if root:
            pairs = zip(self._program.graph.outputs, result, strict=True)
            entries = ", ".join(f'"{name}": {x.text}' for name, x in pairs)
            return [*code.lines, Line(f"return {{{entries}}}")]
        return [*code.lines, Line(f"return {', '.join(x.text for x in result)}")]


class _Only(ConfigFields):
    """The named sizes that a module holds as attributes."""

    def __init__(self, fields: ConfigFields, original: Body) -> None:
        self._fields = fields
        self._held = dict(original.sizes)

    def field(self, dim: Dim) -> str | None:
        """Return the field of a size that the module holds, None for any other."""
        name = self._fields.field(dim)
        return name if name in self._held else None


def _needs_cache(code: Body) -> bool:
    texts = [*(line.text for line in code.lines), *(x.text for x in code.result)]
    return any(re.search(r"\bcache\b", text) for text in texts)


def _received(text: str) -> str:
    """Return a statement of a method as one of a function of the module."""
    return re.sub(r"\bself\.", "module.", text)


def _snake(name: str) -> str:
    return identifier(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def _dims(value: Value) -> str:
    return f"[{', '.join(value.type.names)}]"


# ---- a unit with a cache


class _Rewriting:
    """Rewrites units, callees before callers, for new tokens along the dimension `tokens` behind those of the cache."""

    def __init__(self, tokens: str) -> None:
        self._tokens = tokens
        self._longer: Mapping[str, Size] = {tokens: add(symbol(PAST), symbol(tokens))}
        self._changed: dict[str, Unit] = {}

    def unit(self, unit: Unit) -> Unit:
        """Return a unit whose axes of all tokens are `past` longer, and that asks the cache for what is on them."""
        nodes: list[Node] = []
        callees: list[Callee | None] = []
        for node, callee in zip(unit.region.nodes, unit.callees, strict=True):
            for made, called in self._node(node, callee):
                nodes.append(made)
                callees.append(called)
        region = Region(self._values(unit.region.arguments), tuple(nodes), self._values(unit.region.results))
        changed = replace(
            unit,
            region=region,
            arguments=self._values(unit.arguments),
            callees=tuple(callees),
            blocks={**unit.blocks, "extended": "extended", "new_positions": "new_positions"},
        )
        self._changed[unit.name] = changed
        return changed

    def _node(self, node: Node, callee: Callee | None) -> list[tuple[Node, Callee | None]]:
        inputs, outputs = self._values(node.inputs), self._values(node.outputs)
        match node.op:
            case Rename(names) if any(old == self._tokens for old, _ in names):
                return self._kept(node, names, inputs[0], outputs[0])
            case Position(dim) if dim.name == self._tokens:
                op = Call("new_positions", "new_positions", 0)
                return [(replace(node, op=op, inputs=(), outputs=outputs), Inline("new_positions", ()))]
            case Position(dim):
                made = replace(node, op=Position(self._dim(dim)), outputs=outputs)
            case Slice(into=into) as op:
                made = replace(node, op=replace(op, into=self._dim(into)), inputs=inputs, outputs=outputs)
            case Split(into=into) as op:
                made = replace(node, op=replace(op, into=tuple(map(self._dim, into))), inputs=inputs, outputs=outputs)
            case _:
                made = replace(node, inputs=inputs, outputs=outputs)
        return [(made, self._callee(callee))]

    def _kept(
        self, node: Node, names: tuple[tuple[str, str], ...], x: Value, result: Value
    ) -> list[tuple[Node, Callee | None]]:
        """Return the rename of other dimensions, and what asks the cache for the values of all tokens."""
        target = next(new for old, new in names if old == self._tokens)
        others = tuple(pair for pair in names if pair[0] != self._tokens)
        made: list[tuple[Node, Callee | None]] = []
        if others:
            renamed = dict(others)
            dims = tuple(Dim(renamed.get(dim.name, dim.name), dim.size) for dim in x.type.dims)
            value = Value(f"{result.name}'", x.type.with_dims(dims))
            made.append((replace(node, op=Rename(others), inputs=(x,), outputs=(value,)), None))
            x = value
        op = Call("extended", "extended", 1)
        asked = Inline("extended", (("dim", (self._tokens, target)),))
        return [*made, (replace(node, op=op, inputs=(x,), outputs=(result,)), asked)]

    def _callee(self, callee: Callee | None) -> Callee | None:
        match callee:
            case Inline(kind="attend", static=static) if self._along(static, "query"):
                return Inline("attend", (*static, ("mask", "cache.mask()")))
            case Inline(kind="rope_tables", static=static) if self._along(static, "positions"):
                return Inline("rope_tables", (*static, ("start", "cache.past")))
            case Child(unit=unit) | Plain(unit=unit) | Loop(unit=unit):
                return replace(callee, unit=self._changed[unit.name])
            case _:
                return callee

    def _along(self, static: tuple[tuple[str, object], ...], name: str) -> bool:
        """Tell whether the dimension that a block was given as `name` is that of the new tokens."""
        return dict(static).get(name) in (self._tokens, (self._tokens,))

    def _values(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(replace(v, type=v.type.with_dims(tuple(map(self._dim, v.type.dims)))) for v in values)

    def _dim(self, dim: Dim) -> Dim:
        """Return a dimension as it is while decoding: that of all tokens is `past` longer, that of the new ones not."""
        if dim.name == self._tokens or isinstance(dim.size, int):
            return dim
        return Dim(dim.name, substitute(dim.size, self._longer))
