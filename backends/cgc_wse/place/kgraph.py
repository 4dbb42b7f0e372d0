"""Problems of the ISPD 2020 contest (`.kgraph`): the head comment, kernels and their connections.

(* … width=633 … *)                                  figures of the problem, one a line
dblock[ 5] f=2048 h=7 w=7 name='k5'                  a kernel: kind, number, arguments, name
dblock[ 6]:y -> dblock[ 5]:x, shape:[7][7][2048]     a connection
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import cast

from cgc_wse.place.contest_kernels import FORMALS, ContestKernel, Conv, Kind, convs_of, ticks_of
from cgc_wse.place.contest_text import LARGEST, Faults, Line, whole, without_comments
from cgc_wse.place.problem import PlaceProblem

SIDE_LIMIT = 4096
"""The longest side of a grid."""

KERNEL_LIMIT = 2000
"""The most kernels of a problem."""

WORK_LIMIT = 1 << 40
"""The most multiply-adds of a convolution with points, taps and channels; with `STRIDE_LIMIT`, ticks are 64-bit
numbers.
"""

STRIDE_LIMIT = 8
"""The largest stride."""

NODE = re.compile(r"\s*([A-Za-z_]+)\s*\[\s*([0-9]{1,9})\s*\]\s*(.*?)\s*$")
EDGE_END = r"\s*([A-Za-z_]+)\s*\[\s*([0-9]{1,9})\s*\]\s*:\s*(\w+)\s*"
EDGE = re.compile(EDGE_END + r"->" + EDGE_END + r"(?:,\s*shape\s*:\s*((?:\[\s*[0-9]+\s*\]\s*)*))?$")
ARGUMENT = re.compile(r"\s*([A-Za-z]+)\s*=\s*(?:'([^']*)'|\[([0-9\s]*)\]|([^\s'\[]+))")
OUTSIDE = ("input", "output")
OPTIONAL = {"conv": ("U",)}
"""Arguments a kernel may have beside its formal ones: U, the stride along the other axis, is not in its formulas."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A problem: `engine` is what the engine solves; times of the contest are ticks / `ticks`."""

    name: str
    engine: PlaceProblem
    kernels: tuple[ContestKernel, ...]
    ticks: int
    memory_limit: int
    adapter_weight: float

    @property
    def time_weight(self) -> float:
        """What a unit of the slowest kernel's time costs."""
        return self.engine.tick_cost * self.ticks


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    name: str
    formals: tuple[int, ...]
    convs: tuple[Conv, ...]


def parse_kgraph(text: str, file: str) -> Contest:
    """Return the problem in `text`.

    Raises:
        InputError: it is no problem of the contest; CG0620 to CG0623.
    """
    faults = Faults(file, text)
    lines, head_text = without_comments(text, faults, "CG0620")
    head = _head(head_text, faults)
    nodes: dict[int, _Node] = {}
    nets: list[tuple[Line, re.Match[str]]] = []
    names: dict[str, int] = {}
    for line in lines:
        if "->" in line.text:
            found = EDGE.match(line.text)
            if found is None:
                hint = "write it as in `dblock[6]:y -> dblock[5]:x, shape:[7][7][2048]`"
                faults.add("CG0620", line.number, "this is no connection", hint)
            else:
                nets.append((line, found))
        else:
            _node(line, nodes, names, faults)
    pairs = [pair for line, found in nets if (pair := _net(line, found, nodes, faults)) is not None]
    numbers = [number for number, node in nodes.items() if node.kind not in OUTSIDE]
    if not numbers:
        faults.missing(
            "CG0620", "there is no kernel in it", "a kernel is a line as in `dblock[5] f=64 h=7 w=7 name='k5'`"
        )
    if len(numbers) > KERNEL_LIMIT:
        faults.missing("CG0620", f"{len(numbers):,} kernels", f"at most {KERNEL_LIMIT:,} are placed at a time")
    faults.raise_if_any()
    return _contest(head, nodes, numbers, pairs)


def _contest(
    head: Mapping[str, float | str], nodes: Mapping[int, _Node], numbers: list[int], pairs: list[tuple[int, int]]
) -> Contest:
    limit = int(cast(float, head["memlimit"]))
    ticks = ticks_of([conv for number in numbers for conv in nodes[number].convs])
    kernels = tuple(
        ContestKernel(node.name, cast(Kind, node.kind), node.formals, node.convs, limit, ticks)
        for node in (nodes[number] for number in numbers)
    )
    index = {number: i for i, number in enumerate(numbers)}
    nets = tuple((index[a], index[b]) for a, b in pairs if a in index and b in index)
    columns, rows = int(cast(float, head["width"])), int(cast(float, head["height"]))
    weights = cast(float, head["wdeltat"]), cast(float, head["wlength"])
    engine = PlaceProblem(kernels, nets, columns, rows, weights[0] / ticks, weights[1])
    return Contest(str(head["test"]), engine, kernels, ticks, limit, cast(float, head["wadapter"]))


def _head(text: str, faults: Faults) -> dict[str, float | str]:
    """Return the figures of the head comment; what is wrong is put right for now, and among the faults."""
    found = dict(re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*(\S+)[ \t\r]*$", text, re.MULTILINE))
    head: dict[str, float | str] = {"test": found.get("test", "")}
    for key, largest in (("width", SIDE_LIMIT), ("height", SIDE_LIMIT), ("memlimit", LARGEST)):
        value = whole(found.get(key, ""))
        if value is None or not 1 <= value <= largest:
            _wrong(key, found, f"a whole number from 1 to {largest:,}", faults)
        head[key] = float(value or 1)
    for key in ("wdeltat", "wlength", "wadapter"):
        weight = _weight(found.get(key, "0" if key == "wadapter" else ""))
        if weight is None:
            _wrong(key, found, "a number that is not negative", faults)
        head[key] = weight or 0.0
    return head


def _wrong(key: str, found: Mapping[str, str], wanted: str, faults: Faults) -> None:
    hint = f"the comment at the top of a problem has a line `{key}=…` with {wanted}"
    if key not in found:
        faults.missing("CG0621", f"the head does not give `{key}`", hint)
        return
    for number, line in enumerate(faults.text.splitlines(), start=1):
        if re.match(rf"[ \t]*{key}[ \t]*=", line):
            faults.add("CG0621", number, f"`{key}={found[key]}`: this is not {wanted}", hint)
            return


def _weight(word: str) -> float | None:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{0,12})?([eE][+-]?[0-9]{1,2})?", word):
        return None
    value = float(word)
    return value if isfinite(value) and value <= 1e12 else None


def _node(line: Line, nodes: dict[int, _Node], names: dict[str, int], faults: Faults) -> None:
    found = NODE.match(line.text)
    if found is None:
        hint = (
            "write a kernel as in `dblock[5] f=64 h=7 w=7 name='k5'`, a connection as in `dblock[6]:y -> dblock[5]:x`"
        )
        faults.add("CG0620", line.number, "this is neither a kernel nor a connection", hint)
        return
    kind, number, span = found[1], int(found[2]), found.span(1)
    if kind not in FORMALS and kind not in OUTSIDE:
        hint = f"the kinds are {', '.join(FORMALS)}, and {' and '.join(OUTSIDE)}"
        faults.add("CG0622", line.number, f"there is no kind of kernel `{kind}`", hint, span)
        return
    arguments = _arguments(line, found.start(3), faults)
    if arguments is None:
        return
    if number in nodes:
        text = f"`{kind}[{number}]`: number {number} is taken by `{nodes[number].kind}[{number}]`"
        faults.add("CG0622", line.number, text, "every node has a number of its own", found.span(2))
        return
    name = arguments.get("NAME", "")
    if not re.fullmatch(r"\w+", name):
        faults.add("CG0622", line.number, f"`{kind}[{number}]` has no name", "give it one, as in `name='k5'`")
        return
    if name in names:
        text = f"the name `{name}` is that of number {names[name]} already"
        faults.add("CG0622", line.number, text, "solutions name kernels: every one needs a name of its own")
        return
    if kind in OUTSIDE:
        nodes[number] = _Node(kind, name, (), ())
    else:
        nodes[number] = _kernel(line, cast(Kind, kind), name, arguments, faults)
    names[name] = number


def _arguments(line: Line, start: int, faults: Faults) -> dict[str, str] | None:
    """Return the arguments of a node by name in capitals."""
    found: dict[str, str] = {}
    position, end = start, len(line.text.rstrip())
    while position < end:
        match = ARGUMENT.match(line.text, position)
        if match is None or match[1].upper() in found:
            text = "this is no argument" if match is None else f"`{match[1]}` is given twice"
            hint = "arguments are as in `f=64 h=7 w=7 name='k5'`, each once"
            faults.add("CG0620", line.number, text, hint, (position, end))
            return None
        found[match[1].upper()] = next(value for value in match.groups()[1:] if value is not None)
        position = match.end()
    return found


def _kernel(line: Line, kind: Kind, name: str, arguments: Mapping[str, str], faults: Faults) -> _Node:
    formals = []
    for key in FORMALS[kind]:
        value = whole(arguments.get(key, ""))
        if value is None or value < 1:
            given = f"`{key.lower()}={arguments[key]}`" if key in arguments else f"no `{key}`"
            hint = f"a {kind} has {', '.join(FORMALS[kind])}, whole numbers from 1 to {LARGEST:,}"
            faults.add("CG0622", line.number, f"`{name}`: {given}", hint)
            return _Node(kind, name, (), ())
        formals.append(value)
    more = set(arguments) - {*FORMALS[kind], *OPTIONAL.get(kind, ()), "NAME"}
    if more:
        hint = f"a {kind} has {', '.join(FORMALS[kind])}"
        faults.add("CG0622", line.number, f"`{name}`: `{sorted(more)[0].lower()}` is no argument of a {kind}", hint)
    try:
        convs = convs_of(kind, tuple(formals))
    except ValueError as error:
        faults.add("CG0622", line.number, f"`{name}`: {error}", f"see what a {kind} is made of in docs/placement.md")
        return _Node(kind, name, (), ())
    if any(conv.T > STRIDE_LIMIT or conv.H * conv.W * conv.R * conv.S * conv.C * conv.K > WORK_LIMIT for conv in convs):
        text = f"`{name}`: more than {WORK_LIMIT:.1e} multiply-adds, or a stride over {STRIDE_LIMIT}"
        faults.add("CG0622", line.number, text, "times of larger kernels cannot be counted exactly")
    return _Node(kind, name, tuple(formals), convs)


def _net(line: Line, found: re.Match[str], nodes: Mapping[int, _Node], faults: Faults) -> tuple[int, int] | None:
    ends = []
    for kind_group, number_group in ((1, 2), (4, 5)):
        kind, number = found[kind_group], int(found[number_group])
        if number not in nodes:
            text = f"there is no `{kind}[{number}]`"
        elif nodes[number].kind != kind:
            text = f"number {number} is a {nodes[number].kind}, not a {kind}"
        else:
            ends.append(number)
            continue
        span = found.start(kind_group), found.end(number_group) + 1
        faults.add("CG0623", line.number, text, "connections are between nodes defined above, by kind and number", span)
    return (ends[0], ends[1]) if len(ends) == 2 else None
