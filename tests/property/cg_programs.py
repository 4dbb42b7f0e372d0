"""Random well-typed programs as text."""

from __future__ import annotations

from hypothesis import strategies as st
from program_frames import FREE, Choices, Frame, Val, World
from program_statements import statements

from cgc.ir.dims import symbol


@st.composite
def programs(draw: st.DrawFn, most: int = 12) -> str:
    """Return the text of a program."""
    choices = Choices(draw)
    world = World(choices, bounds={"seq": 7})
    heads, head = choices.count(1, 3), choices.pick((2, 4))
    kv = choices.pick([n for n in (1, 2, 3) if heads % n == 0])
    static = {"vocab": choices.count(2, 9), "context": 7, "width": heads * head, "heads": heads, "kv_heads": kv}
    world.sizes = {**static, "head": head, "group": heads // kv, "layers": choices.count(2, 3)}
    world.sizes |= {name: symbol(name) for name in FREE}
    world.used = {*world.sizes, "past", "key", "m"}
    header = ", ".join(f"{name} = {world.sizes[name]}" for name in (*static, "layers"))
    frame = Frame(world, "    ", spelled={name: name for name in (*static, "head", "group", "layers")})
    frame.emit("dim head = width / heads")
    frame.emit("dim group = heads / kv_heads")
    _inputs(frame)
    for dims in choices.some((["vocab", "width"], ["width"], ["heads", "head"], ["context", "head"]), 1, 3):
        frame.param(dims)
    statements(frame, choices.count(1, most))
    _outputs(frame)
    model = "\n".join((f"model m({header}) {{", *frame.lines, "}"))
    return "use std/nn\nuse std/attention\nuse std/positions\n\n" + "\n\n".join((model, *world.blocks)) + "\n"


def _inputs(frame: Frame) -> None:
    choices = frame.world.choices
    frame.spelled |= {"batch": "batch", "seq": "seq"}
    usual = frozenset(("batch", "seq"))
    tokens, x = frame.world.fresh("i"), frame.world.fresh("i")
    frame.emit(f"input {tokens}[batch, seq <= context] : id of vocab")
    frame.vals.append(Val(tokens, usual, "int", 9, exact=True, of="vocab"))
    if choices.chance(70):
        dims = choices.some(["batch", "seq", "width"], 3, 3)
        frame.emit(f"input {x}[{', '.join(dims)}]")
        frame.vals.append(Val(x, frozenset(dims), exact=True))
    if choices.chance(40):
        mask = frame.world.fresh("i")
        dims = choices.some(["batch", "seq"], 1, 2)
        frame.emit(f"input {mask}[{', '.join(dims)}] : bool")
        frame.vals.append(Val(mask, frozenset(dims), "bool", 1, exact=True))
    if choices.chance(30):
        frame.spelled["rows"] = "rows"
        rows = frame.world.fresh("i")
        frame.emit(f"input {rows}[rows, head]")
        frame.vals.append(Val(rows, frozenset(("rows", "head")), exact=True))
    if choices.chance(20):
        counts = frame.world.fresh("i")
        frame.emit(f"input {counts}[seq] : i64")
        frame.vals.append(Val(counts, frozenset(("seq",)), "int", 10, exact=True))


def _outputs(frame: Frame) -> None:
    choices = frame.world.choices
    found = {v.text: v for v in frame.vals if frame.known(v.dims)}
    latest = list(found.values())[-5:]
    for v in choices.some(latest, 1, 3):
        name = frame.world.fresh("o")
        order = (
            f"[{', '.join(frame.spelled[d] for d in choices.some(sorted(v.dims), 9, 9))}]" if choices.chance(60) else ""
        )
        frame.emit(f"output {name}{order} = {v.text}")
