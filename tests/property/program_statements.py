"""Statements of random well-typed programs: each is written with the dimensions and types of its names known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from program_frames import TAME, Frame, MadeBlock, Val
from program_ops import (
    Made,
    binary,
    choose,
    compare,
    concat,
    cut,
    dot,
    exact_unary,
    floats,
    gather,
    linear,
    logic,
    merge,
    normed,
    of_int,
    position,
    reduce,
    rename,
    running,
    split,
    tamed,
    unary,
)

OPS: tuple[Callable[[Frame], Made], ...] = (
    *(binary, binary, binary, unary, exact_unary, of_int, compare, logic, choose, reduce, dot, dot, normed, normed),
    *(linear, linear, split, merge, cut, concat, gather, gather, rename, position, running),
)
CONDITIONS = ("true", "not false", "{a} <= {b}", "{a} < {b}", "{a} == {b} or {b} > {a}", "not ({a} != {a} and true)")


def statements(frame: Frame, count: int) -> None:
    """Write about `count` statements."""
    choices = frame.world.choices
    for _ in range(count):
        way = choices.count(0, 19)
        if way == 0 and frame.depth < 3:
            loop(frame)
        elif way == 1:
            branch(frame)
        elif way in (2, 3) and frame.depth < 3:
            call(frame)
        elif way == 4:
            library(frame)
        elif way == 5:
            largest(frame)
        else:
            one(frame)


def one(frame: Frame) -> None:
    """Write one assignment."""
    choose_op = frame.world.choices.pick(OPS)
    made = choose_op(frame)
    if made is not None and frame.world.fits(made.dims):
        frame.bind(made, inline=choose_op is not rename)


def fitted(frame: Frame, wanted: Val) -> str:
    """Return an expression of the dimensions and kind of `wanted`, tame enough to go around in a loop."""
    choices = frame.world.choices
    same = [v for v in frame.like(lambda v: v.kind == wanted.kind and v.dims == wanted.dims) if v.text != wanted.text]
    part = [v for v in frame.like(lambda v: v.kind == wanted.kind and v.dims <= wanted.dims) if v.text != wanted.text]
    if wanted.kind == "bool":
        return f"not {wanted.text}" if not part else f"{wanted.text} or {choices.pick(part).text}"
    if wanted.kind == "int":
        return f"max({wanted.text}, {choices.pick(part).text})" if part else f"{wanted.text} + 1"
    if same and choices.chance(60):
        x = choices.pick(same)
        return x.text if x.most <= TAME else f"{x.text} * {TAME / x.most:.1g}"
    if part:
        return f"0.5 * {wanted.text} + tanh({choices.pick(part).text})"
    return f"tanh({wanted.text})"


def loop(frame: Frame) -> None:
    """Write a `repeat`."""
    choices, world = frame.world.choices, frame.world
    able = {v.text: v for v in frame.vals if v.text in frame.own and v.most <= TAME and frame.known(v.dims)}
    if not able:
        return
    carried = choices.some([able[name] for name in sorted(able)], 1, 3)
    names = {v.text for v in carried}
    count = choices.pick(("layers", "2", "1", "3", "(layers - 1)", "(1 + 1)"))
    inner = Frame(
        world,
        frame.indent + "    ",
        [replace(v, most=TAME, exact=False, of="") if v.text in names else v for v in frame.vals if v.named],
        dict(frame.spelled),
        list(frame.packs),
        list(frame.numbers),
        list(frame.flags),
        own=set(),
        lines=frame.lines,
        kind="loop",
        depth=frame.depth + 1,
    )
    frame.emit(f"repeat {count} as {world.fresh('r')} {{")
    statements(inner, choices.count(1, 4))
    for v in carried:
        inner.vals = [x for x in inner.vals if x.named or v.text not in x.text]
        inner.emit(f"{v.text} = {fitted(inner, v)}")
    frame.emit("}")
    for v in carried:
        frame.forget(v.text)
        frame.vals.append(replace(v, most=TAME, exact=v.kind != "float", of=""))


def branch(frame: Frame) -> None:
    """Write an `if` whose condition holds, or one that does not hold and has an `else`."""
    choices = frame.world.choices
    static = sorted((frame.world.size(d), frame.spelled[d]) for d in frame.spelled if frame.world.static(d)) or [
        (1, "1")
    ]
    a, b = sorted((choices.pick(static), choices.pick(static)))
    text = choices.pick(CONDITIONS).format(a=a[1], b=b[1])
    holds = a[0] < b[0] if " < " in text else True
    if frame.flags and choices.chance(60):
        text, holds = choices.pick(frame.flags)
    frame.emit(f"if {text} {{")
    frame.indent += "    "
    if holds:
        statements(frame, choices.count(1, 2))
    else:
        _never(frame, 1)
    frame.indent = frame.indent[4:]
    if not holds or choices.chance(40):
        frame.emit("} else {")
        frame.indent += "    "
        (_never if holds else statements)(frame, 1)
        frame.indent = frame.indent[4:]
    frame.emit("}")


def _never(frame: Frame, _: int) -> None:
    frame.emit(f"{frame.world.fresh('v')} = nothing + 1")


def largest(frame: Frame) -> None:
    """Write a `top_k`, and look something up at what it finds."""
    choices, world = frame.world.choices, frame.world
    found = [(v, d) for v in floats(frame) if v.exact for d in sorted(v.dims) if world.static(d)]
    if not found:
        return
    x, dim = choices.pick(found)
    size = world.size(dim)
    into = frame.static_dim(min(size, 3))
    values, ids = world.fresh("v"), world.fresh("v")
    frame.emit(f"{values}, {ids} = top_k({x.text}, {frame.spelled[dim]} -> {into})")
    dims = (x.dims - {dim}) | {into}
    frame.vals.append(replace(x, text=values, dims=dims))
    frame.vals.append(Val(ids, dims, "int", size, of=dim))
    frame.own |= {values, ids}


def library(frame: Frame) -> None:
    """Write a call of a larger block of the library on a [batch, seq, width] of the model's own sizes."""
    choices, world = frame.world.choices, frame.world
    usual = frozenset(("batch", "seq", "width"))
    if not frame.known(usual):
        return
    found = [v for v in floats(frame) if v.dims == usual]
    if found:
        x = choices.pick(found)
    else:
        weight = choices.pick([v for v in floats(frame) if v.dims == {"width"}] or [frame.param(["width"])])
        other = choices.pick([v for v in floats(frame) if v.dims <= usual])
        ones = f"cast(position(batch) >= 0, f32) * cast(position(seq) >= 0, f32) * {weight.text}"
        x = frame.bind(tamed(f"{ones} + {other.text}", usual, weight.most + other.most), inline=False)
    width, heads, head = (frame.spelled[d] for d in ("width", "heads", "head"))
    at = frame.spelled["seq"]
    plain = all(alias == actual for actual, alias in frame.spelled.items() if actual in ("batch", "seq", "width"))
    forms = [
        f"rope({x.text}, along {at}, over {width})",
        f"rope(linear({x.text}, {width} -> {heads} {head}), along {at}, over {head}, base=100)",
        f"{x.text} + learned_positions({at}, context, {width}, std=0.3)",
        f"attend({x.text}, {x.text} as [{at} -> past], {x.text} as [{at} -> past], over {width}, {at} -> past)",
    ]
    if world.size("heads") > 1:
        forms.append(f"partial_rope({x.text}, along {at}, over {width}, {head})")
    if plain:
        forms += [f"attention({x.text})", f"attention({x.text}, std=0.4)", f"multi_query_attention({x.text})"]
        forms += [f"grouped_attention({x.text}, bias=true)"] * 2
    text = choices.pick(forms)
    dims = usual - {"width"} | {"heads", "head"} if text.startswith("rope(linear") else usual
    most = 2 * x.most if text.startswith(("rope(v", "partial")) else x.most + 2
    frame.bind(tamed(text, dims, max(most, 100 * x.most if "linear" in text else most)), inline=False)


# ---- blocks


def call(frame: Frame) -> None:
    """Write a call of a block of the program's own: one that is there, or a new one."""
    choices = frame.world.choices
    if frame.world.made and choices.chance(40):
        made = choices.pick(frame.world.made)
        options = [
            frame.like(lambda v, a=a: (v.kind, v.dims, v.of) == (a.kind, a.dims, a.of) and v.most <= 2 * a.most)  # type: ignore[misc]
            for a in made.arguments
        ]
        if all(options) and frame.known(made.needs) and all(frame.spelled[d] == d for d in made.needs):
            exact = [choices.pick(found) for found in options]
            _apply(frame, made, exact)
        return
    exact = choices.some({v.text: v for v in frame.vals if frame.known(v.dims)}.values(), 1, 2)
    _apply(frame, _block(frame, exact), exact, inline=False)


def _apply(frame: Frame, made: MadeBlock, arguments: Sequence[Val], *, inline: bool = True) -> None:
    text = made.call([v.text for v in arguments])
    exact = all(v.exact for v in arguments)
    results = [replace(v, exact=v.exact and (exact or v.kind != "float")) for v in made.results]
    if len(results) == 1:
        frame.bind(replace(results[0], text=text), inline=inline)
        return
    names = [frame.world.fresh("v") for _ in results]
    frame.emit(f"{', '.join(names)} = {text}")
    frame.vals += [replace(v, text=name) for v, name in zip(results, names, strict=True)]
    frame.own |= set(names)


def _block(frame: Frame, arguments: Sequence[Val]) -> MadeBlock:
    """Write a block that takes these arguments, and whatever else its header may have."""
    choices, world = frame.world.choices, frame.world
    body = Frame(world, "    ", spelled=dict(frame.spelled), kind="block", depth=frame.depth + 1)
    header: list[str] = []
    given: list[str] = []
    calls: list[str] = []
    used = sorted({d for v in arguments for d in v.dims})
    if used and choices.chance(50):
        _pack(body, choices.some(used, 1, 2), choices.pick(("over", "along")), frame, header, calls)
    source = [d for d in used if world.static(d)]
    mapped: tuple[list[str], list[str], list[str]] | None = None
    if source and choices.chance(40):
        mapped = _arrow(body, choices.some(source, 1, 2), frame, header, calls)
    if choices.chance(25):
        dim, name = choices.pick(sorted(frame.spelled)), world.fresh("e")
        header.append(f"dim {name}")
        given.append(frame.spelled[dim])
        body.spelled[dim] = name
    keywords: list[str] = []
    if choices.chance(40):
        name, value = world.fresh("k"), choices.pick((0.5, 2.0, -1.0))
        header.append(f"{name} = {value}")
        if choices.chance(50):
            value = choices.pick((0.25, 1.5))
            keywords.append(f"{name}={value}")
        body.numbers.append((name, abs(value)))
    if choices.chance(40):
        name, flag = world.fresh("k"), choices.chance(50)
        header.append(
            f"{name} = {str(flag).lower()}" if choices.chance(50) else f'{name} = "{"on" if flag else "off"}"'
        )
        kind = header[-1].endswith('"')
        if choices.chance(50):
            flag = not flag
            word = f'"{"on" if flag else "off"}"' if kind else str(flag).lower()
            keywords.append(f"{name}={word}")
        body.flags.append((f'{name} == "on"' if kind else name, flag))
    tensors: list[str] = []
    for v in arguments:
        name = world.fresh("a")
        pattern = ""
        if choices.chance(50):
            pattern = _pattern(body, v, keywords, frame)
        elif v.kind == "bool":
            pattern = " : bool"
        tensors.append(name + pattern)
        body.vals.append(replace(v, text=name, exact=v.exact))
        body.own.add(name)
    # Arguments of one sort are bound in the order of the header; the sorts may stand in any order.
    header = [*tensors, *header] if choices.chance(60) else [*header, *tensors]
    order_dims_first = header[-len(tensors) :] == tensors
    if not floats(body) or choices.chance(30):
        body.param(choices.some([d for d in body.spelled if world.static(d) and world.size(d) < 10], 1, 2))
    if mapped is not None:
        _map(body, mapped)
    statements(body, choices.count(1, 5))
    results = _results(body, frame, mapped)
    if choices.chance(15):
        # A `return` inside a choice ends the block.
        text = choices.pick(("true", "1 < 2"))
        body.lines = [*body.lines[:-1], f"    if {text} {{", f"    {body.lines[-1]}", "    }"]
    block = world.fresh("b", tricky=False)
    world.blocks.append("\n".join((f"block {block}({', '.join(header)}) {{", *body.lines, "}")))

    def call(texts: Sequence[str]) -> str:
        positional = [*given, *texts] if order_dims_first else [*texts, *given]
        return f"{block}({', '.join([*positional, *calls, *keywords])})"

    needs = frozenset(frame.spelled)
    made = MadeBlock(tuple(arguments), call, needs, results)
    if frame.kind != "block" and all(frame.spelled[d] == d for d in needs):
        world.made.append(made)
    return made


def _pack(body: Frame, dims: list[str], keyword: str, frame: Frame, header: list[str], calls: list[str]) -> None:
    name = body.world.fresh("e")
    header.append(f"{keyword} {name}")
    calls.append(f"{keyword} {' '.join(frame.spelled[d] for d in dims)}")
    if len(dims) == 1:
        body.spelled[dims[0]] = name
    else:
        body.packs.append((name, tuple(dims)))


def _arrow(
    body: Frame, source: list[str], frame: Frame, header: list[str], calls: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """Add `in -> out` to a header; return the sources, the targets as the body knows them, and both written there."""
    choices, world = frame.world.choices, frame.world
    into, out = world.fresh("e"), world.fresh("e")
    same = len(source) == 1 and f"{source[0]}'" not in world.sizes and choices.chance(40)
    target = list(source) if same else [frame.static_dim() for _ in range(choices.count(1, 2))]
    inside = [f"{d}'" for d in target] if same else target
    for actual, primed in zip(target, inside, strict=True):
        world.sizes[primed] = world.sizes[actual]
    header.append(f"{into} -> {out}")
    calls.append(f"{' '.join(frame.spelled[d] for d in source)} -> {' '.join(frame.spelled[d] for d in target)}")
    for name, dims in ((into, source), (out, inside)):
        if len(dims) == 1:
            body.spelled[dims[0]] = name
        else:
            body.packs.append((name, tuple(dims)))
            # What only the caller's header names has no name of its own here.
            body.spelled.update({d: d for d in dims if frame.spelled.get(d) == d})
    return source, inside, [into, out]


def _map(body: Frame, mapped: tuple[list[str], list[str], list[str]]) -> None:
    """Write the parameter that an arrow is for, and its product with an argument that has the source."""
    source, inside, (into, out) = mapped
    weight = body.world.fresh("p")
    body.emit(f"param {weight}[{into}, {out}] ~ normal(std=0.4)")
    x = next((v for v in body.vals if set(source) <= v.dims and v.kind == "float"), None)
    if x is None:
        return
    dims = (x.dims - set(source)) | set(inside)
    if body.world.fits(dims):
        most = x.most * body.world.entries(source)
        body.bind(tamed(f"dot({x.text}, {weight}, over {into})", dims, most), inline=False)


def _pattern(body: Frame, v: Val, keywords: list[str], frame: Frame) -> str:
    """Return the dimensions that a header asks for: by their names, or by others that the call maps."""
    choices = body.world.choices
    dims = choices.some(sorted(v.dims), 9, 9)
    loose = choices.chance(30)
    dims = dims[: choices.count(0, len(dims))] if loose else dims
    written: list[str] = []
    for dim in dims:
        # What another header called it means nothing in this one.
        strange = body.spelled[dim] == frame.spelled[dim] != dim
        if strange or (body.spelled[dim] == dim and choices.chance(20)):
            name = frame.world.fresh("e")
            keywords.append(f"{name}={frame.spelled[dim]}")
            body.spelled[dim] = name
        written.append(body.spelled[dim])
    kind = {
        "float": "",
        "int": f" : id of {frame.spelled.get(v.of, '')}" if v.of in frame.spelled else "",
        "bool": " : bool",
    }
    return f"[{', '.join(['...', *written] if loose else written)}]{kind[v.kind]}"


def _results(body: Frame, frame: Frame, mapped: tuple[list[str], list[str], list[str]] | None) -> tuple[Val, ...]:
    """Write the `return`, averaging away what the caller could not name; return the results as the caller sees them."""
    choices = body.world.choices
    renamed = dict(zip(mapped[1], (d.rstrip("'") for d in mapped[1]), strict=True)) if mapped else {}
    results: list[Val] = []
    found = floats(body)
    texts: list[str] = []
    for _ in range(choices.count(1, 2)):
        v = choices.pick([*found[-4:], choices.pick(body.like(lambda v: True))])
        strange = [d for d in v.dims if d not in frame.spelled and not (d in renamed and renamed[d] not in v.dims)]
        if strange:
            if v.kind != "float":
                v = choices.pick(found)
                strange = [
                    d for d in v.dims if d not in frame.spelled and not (d in renamed and renamed[d] not in v.dims)
                ]
            if strange:
                dims = " ".join(body.spelled[d] for d in sorted(strange))
                v = Val(f"mean({v.text}, over {dims})", v.dims - set(strange), most=v.most)
        texts.append(v.text)
        results.append(replace(v, text="", dims=frozenset(renamed.get(d, d) for d in v.dims)))
    body.emit(f"return {', '.join(texts)}")
    return tuple(results)
