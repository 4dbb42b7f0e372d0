"""Operators of random programs: each function writes an expression over what is in view, or returns None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from program_frames import Frame, Val, aligned

from cgc.ir.dims import add, product

Made = Val | None
NUMBERS = (("2", 2.0), ("0.5", 0.5), ("1", 1.0), ("3", 3.0), ("1.5", 1.5), ("(-1)", 1.0), ("0.1", 0.1))


def floats(frame: Frame) -> list[Val]:
    return frame.like(lambda v: v.kind == "float")


def ints(frame: Frame) -> list[Val]:
    return frame.like(lambda v: v.kind == "int")


def tamed(text: str, dims: frozenset[str], most: float, exact: bool = False) -> Val:
    """Return a float value, scaled down where it may be large."""
    if most > 40:
        return Val(f"({text}) * {4 / most:.1g}", dims, most=8.0)
    return Val(text, dims, most=most, exact=exact)


def number(frame: Frame) -> tuple[str, float]:
    """Return a number known at compile time, as text and value."""
    choices = frame.world.choices
    static = [dim for dim in frame.spelled if frame.world.static(dim)]
    way = choices.count(0, 3)
    if way == 0 and static:
        dim = choices.pick(static)
        size = frame.world.size(dim)
        return choices.pick(
            (
                (f"sqrt({frame.spelled[dim]})", size**0.5),
                (f"(1 / {frame.spelled[dim]})", 1 / size),
                (f"(2 ^ -{frame.spelled[dim]})", 2.0**-size),
                (f"min({frame.spelled[dim]}, 2)", min(size, 2.0)),
            )
        )
    if way == 1 and frame.numbers:
        return choices.pick(frame.numbers)
    return choices.pick(NUMBERS)


UNARY: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("tanh({})", lambda m: min(m, 1)),
    ("sigmoid({})", lambda m: 1),
    ("sin({})", lambda m: 1),
    ("cos({})", lambda m: 1),
    ("erf({})", lambda m: 1),
    ("exp(tanh({}))", lambda m: 3),
    ("log(abs({}) + 1)", lambda m: m),
    ("sqrt(abs({}) + 0.5)", lambda m: m + 1),
    ("rsqrt(abs({}) + 0.5)", lambda m: 1.5),
    ("1 / (1 + {} ^ 2)", lambda m: 1),
    ("gelu({})", lambda m: m),
    ("gelu_tanh({})", lambda m: m),
    ("silu({})", lambda m: m),
    ("relu({})", lambda m: m),
    ('activate({}, kind="silu")', lambda m: m),
)


def unary(frame: Frame) -> Made:
    choices = frame.world.choices
    x = choices.pick(floats(frame))
    text, most = choices.pick(UNARY)
    if "relu" in text:
        return Val(text.format(x.text), x.dims, most=x.most, exact=x.exact)
    return tamed(text.format(x.text), x.dims, most(x.most))


def exact_unary(frame: Frame) -> Made:
    choices = frame.world.choices
    x = choices.pick(floats(frame))
    forms = ["-{}", "abs({})", "+{}"] + (["floor({} * 2)"] if x.exact else [])
    return Val(choices.pick(forms).format(x.text), x.dims, most=2 * x.most, exact=x.exact)


def of_int(frame: Frame) -> Made:
    found = ints(frame)
    if not found:
        return None
    choices = frame.world.choices
    x = choices.pick(found)
    kind = choices.count(0, 5)
    if kind == 0:
        return Val(f"sin({x.text})", x.dims, most=1)
    if kind == 1:
        dtype = choices.pick(("f32", "f32", "f64") if x.most > 100 else ("f32", "f64", "bf16", "f16"))
        text = f"cast({x.text}, {dtype})"
        return Val(text if dtype == "f32" else f"cast({text}, f32)", x.dims, most=x.most, exact=True)
    if kind == 2:
        return Val(f"{x.text} / {choices.pick(('2', '4', '7'))}", x.dims, most=x.most)
    if kind == 3:
        return replace(x, text=choices.pick(("-{}", "abs({})", "cast({}, i64)")).format(x.text), of="")
    if kind == 4:
        return Val(f"cast({x.text}, bool)", x.dims, "bool", 1, exact=True)
    y = choices.pick([v for v in found if aligned(v.dims, x.dims) and frame.world.fits(v.dims | x.dims)])
    most, operator = (x.most * y.most, "*") if x.most * y.most < 1000 else (x.most + y.most, choices.pick("+-"))
    text = choices.pick((f"{x.text} {operator} {y.text}", f"max({x.text}, {y.text})", f"{x.text} + 3"))
    return Val(text, x.dims if text.endswith("+ 3") else x.dims | y.dims, "int", most + 3)


def binary(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    a = choices.pick(floats(frame))
    if choices.chance(25):
        text, value = number(frame)
        form = choices.pick(
            ("{a} * {n}", "{n} - {a}", "{a} + {n}", "max({a}, {n})", "min({n}, {a})", "{n} * {a} - {n}")
        )
        exact = a.exact and form.startswith(("max", "min"))
        return tamed(form.format(a=a.text, n=text), a.dims, a.most * max(1, value) + value, exact)
    fitting = [v for v in frame.vals if v.kind != "bool" and aligned(v.dims, a.dims)]
    b = choices.pick([v for v in fitting if frame.known(v.dims) and world.fits(v.dims | a.dims)] or [a])
    dims = a.dims | b.dims
    exact = a.exact and b.exact
    match choices.count(0, 6):
        case 0:
            return tamed(f"{a.text} + {b.text}", dims, a.most + b.most, exact)
        case 1:
            return tamed(f"{b.text} - {a.text}", dims, a.most + b.most, exact)
        case 2 | 3:
            return tamed(f"{a.text} * {b.text}", dims, a.most * b.most, exact)
        case 4:
            return tamed(f"{a.text} / (1 + abs({b.text}))", dims, a.most)
        case 5:
            return tamed(f"{choices.pick(('max', 'min'))}({a.text}, {b.text})", dims, max(a.most, b.most), exact)
        case _:
            if a.most > 4:
                return None
            power = choices.pick(("2", "3", "2.0"))
            return tamed(f"{a.text} ^ {power}", a.dims, a.most**3)


def compare(frame: Frame) -> Made:
    choices = frame.world.choices
    found = frame.like(lambda v: (v.exact and v.kind == "float") or v.kind == "int")
    if not found:
        return None
    a = choices.pick(found)
    operator = choices.pick(("<", "<=", ">", ">=", "==", "!="))
    fitting = [v for v in found if v.kind == a.kind and aligned(v.dims, a.dims)]
    b = choices.pick([v for v in fitting if frame.world.fits(v.dims | a.dims)])
    if choices.chance(30):
        return Val(f"({a.text} {operator} {choices.pick(('1', '0', '2'))})", a.dims, "bool", 1, exact=True)
    return Val(f"({a.text} {operator} {b.text})", a.dims | b.dims, "bool", 1, exact=True)


def logic(frame: Frame) -> Made:
    found = frame.like(lambda v: v.kind == "bool")
    if not found:
        return None
    choices = frame.world.choices
    a = choices.pick(found)
    if choices.chance(30):
        return replace(a, text=f"(not {a.text})")
    b = choices.pick([v for v in found if aligned(v.dims, a.dims) and frame.world.fits(v.dims | a.dims)])
    return Val(f"({a.text} {choices.pick(('and', 'or', '==', '!='))} {b.text})", a.dims | b.dims, "bool", 1, exact=True)


def choose(frame: Frame) -> Made:
    """Write a `where`, or a number for a condition."""
    conditions = frame.like(lambda v: v.kind == "bool")
    if not conditions:
        return None
    choices, world = frame.world.choices, frame.world
    c = choices.pick(conditions)
    if choices.chance(20):
        if choices.chance(50):
            return Val(f"cast({c.text}, i64)", c.dims, "int", 1)
        return Val(f"cast({c.text}, f32)", c.dims, most=1, exact=True)
    a = choices.pick([v for v in floats(frame) if aligned(v.dims, c.dims) and world.fits(v.dims | c.dims)] or [c])
    if a.kind == "bool":
        return None
    if choices.chance(40):
        text, value = number(frame)
        form = choices.pick((f"where({c.text}, {a.text}, {text})", f"where({c.text}, {text}, {a.text})"))
        return Val(form, a.dims | c.dims, most=max(a.most, value))
    fitting = [v for v in floats(frame) if aligned(v.dims, c.dims) and aligned(v.dims, a.dims)]
    b = choices.pick([v for v in fitting if world.fits(v.dims | a.dims | c.dims)] or [a])
    exact = a.exact and b.exact
    text = f"where({c.text}, {a.text}, {b.text})"
    return Val(text, a.dims | b.dims | c.dims, most=max(a.most, b.most), exact=exact)


def reduce(frame: Frame) -> Made:
    choices = frame.world.choices
    x = choices.pick(frame.like(lambda v: v.kind != "bool" and bool(v.dims)) or [Val("", frozenset())])
    if not x.dims:
        return None
    over = choices.some(sorted(x.dims), 1, 3)
    kind = choices.pick(("sum", "mean", "max", "min"))
    entries = frame.world.entries(over)
    text = f"{kind}({x.text}, over {frame.dims(over)})"
    dims = x.dims - set(over)
    most = x.most * entries if kind == "sum" else x.most
    if x.kind == "int" and kind != "mean":
        return Val(text, dims, "int", most) if most < 1e6 else None
    return tamed(text, dims, most, x.exact and kind in ("max", "min"))


def dot(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    a = choices.pick(floats(frame))
    static = [dim for dim in a.dims if world.static(dim)]
    if static and choices.chance(50):
        kept = choices.some(sorted(static), 1, 2)
        into = [frame.static_dim() for _ in range(choices.count(0, 2))]
        b = frame.param(choices.some([*kept, *into], 9, 9))
    else:
        b = choices.pick(floats(frame))
    shared = sorted(a.dims & b.dims)
    over = choices.some(shared, 1, 2) if shared and choices.chance(85) else []
    dims = (a.dims | b.dims) - set(over)
    if not world.fits(dims) or world.entries(a.dims | b.dims) > 20000:
        return None
    entries = world.entries(over)
    text = f"dot({a.text}, {b.text}, over {frame.dims(over)})" if over else f"dot({a.text}, {b.text})"
    return tamed(text, dims, a.most * b.most * entries)


def normed(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    x = choices.pick([v for v in floats(frame) if v.dims] or [Val("", frozenset())])
    if not x.dims:
        return None
    if choices.chance(50):
        over = choices.some(sorted(x.dims), 1, 2)
        kind = choices.pick(("softmax", "log_softmax"))
        return tamed(f"{kind}({x.text}, over {frame.dims(over)})", x.dims, 1 if kind == "softmax" else 2 * x.most + 6)
    static = sorted(dim for dim in x.dims if world.static(dim) and world.size(dim) > 1)
    if not static:
        return None
    over = choices.some(static, 1, 2)
    kind, more = choices.pick(
        (("layer_norm", ""), ("rms_norm", ""), ("layer_norm", ", eps=0.1"), ("rms_norm", ", eps=1e-3"))
    )
    return Val(f"{kind}({x.text}, over {frame.dims(over)}{more})", x.dims, most=8)


def linear(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    x = choices.pick(floats(frame))
    static = sorted(dim for dim in x.dims if world.static(dim))
    if not static:
        return None
    source = choices.some(static, 1, 2)
    if choices.chance(30):
        target = list(source)
    else:
        old = [d for d in frame.spelled if world.static(d) and d not in x.dims and "'" not in d]
        target = choices.some(old, 1, 2) if old and choices.chance(60) else [frame.static_dim()]
    dims = (x.dims - set(source)) | set(target)
    if not world.fits(dims) or world.entries(source) * world.entries(target) > 2000:
        return None
    block = choices.pick(("linear", "linear", "swiglu"))
    more = choices.pick(("", ", bias=false", ", std=0.1", ", bias=true, std=0.3")) if block == "linear" else ""
    text = f"{block}({x.text}, {frame.dims(source)} -> {frame.dims(target)}{more})"
    return tamed(text, dims, x.most * (2 * world.entries(source)) ** (1 if block == "linear" else 2) + 1)


def split(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    found = [v for v in frame.vals if v.kind != "bool" and frame.known(v.dims)]
    pairs = [(v, d) for v in found for d in sorted(v.dims) if world.static(d) and world.size(d) > 1]
    if not pairs:
        return None
    x, dim = choices.pick(pairs)
    size = world.size(dim)
    first = choices.pick([n for n in range(1, size + 1) if size % n == 0])
    outer = frame.declare(str(first), first)
    inner = frame.declare(f"{frame.spelled[dim]} / {outer}", size // first)
    text = f"split({x.text}, {frame.spelled[dim]} -> {outer} {inner})"
    return replace(x, text=text, dims=(x.dims - {dim}) | {outer, inner})


def merge(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    x = choices.pick([v for v in frame.vals if len(v.dims) > 1 and frame.known(v.dims)] or [Val("", frozenset())])
    if not x.dims:
        return None
    parts = choices.some(sorted(x.dims), 2, 3)
    whole = frame.declare(" * ".join(frame.spelled[d] for d in parts), product(tuple(world.sizes[d] for d in parts)))
    text = f"merge({x.text}, {frame.dims(parts)} -> {whole})"
    return replace(x, text=text, dims=(x.dims - set(parts)) | {whole})


def cut(frame: Frame) -> Made:
    """Write a `slice`: from the start, from a number, or the last entries of a dimension of any size."""
    choices, world = frame.world.choices, frame.world
    found = [v for v in frame.vals if v.dims and frame.known(v.dims)]
    if not found:
        return None
    x = choices.pick(found)
    dim = choices.pick(sorted(x.dims))
    if world.static(dim):
        size = world.size(dim)
        length = choices.count(1, size)
        into, start = frame.declare(str(length), length), choices.count(0, size - length)
        at = f", from={start}" if start or choices.chance(30) else ""
    else:
        into = frame.declare("1", 1)
        at = choices.pick(("", f", from={frame.spelled[dim]} - 1"))
    return replace(x, text=f"slice({x.text}, {frame.spelled[dim]} -> {into}{at})", dims=(x.dims - {dim}) | {into})


def concat(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    x = choices.pick([v for v in floats(frame) if v.dims] or [Val("", frozenset())])
    if not x.dims:
        return None
    dim = choices.pick(sorted(x.dims))
    rest = x.dims - {dim}
    parts = [(x, dim)]
    for _ in range(choices.count(1, 2)):
        options = [(v, next(iter(v.dims - rest))) for v in floats(frame) if rest <= v.dims and len(v.dims - rest) == 1]
        parts.append(choices.pick(options))
    size = world.sizes[parts[0][1]]
    for _, other in parts[1:]:
        size = add(size, world.sizes[other])
    names = [frame.spelled[d] for _, d in parts]
    whole = frame.declare(" + ".join(names), size)
    if not world.fits(rest | {whole}):
        return None
    same = len(set(names)) == 1
    arrow = f"{names[0] if same and choices.chance(50) else ' '.join(names)} -> {whole}"
    text = f"concat({', '.join(v.text for v, _ in parts)}, {arrow})"
    exact = all(v.exact for v, _ in parts)
    return Val(text, rest | {whole}, most=max(v.most for v, _ in parts), exact=exact)


def gather(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    indices = frame.like(lambda v: v.kind == "int" and bool(v.of) and world.bound(v.of) is not None)
    if not indices:
        return None
    index = choices.pick(indices)
    bound = world.bound(index.of)
    assert bound is not None
    options: list[tuple[Val, str]] = []
    for v in floats(frame):
        for d in v.dims - index.dims:
            size = world.sizes[d]
            if (size == world.sizes[index.of] or (isinstance(size, int) and bound <= size)) and (
                world.fits(index.dims | (v.dims - {d}))
            ):
                options.append((v, d))
    if choices.chance(40) or not options:
        static = [d for d in frame.spelled if world.static(d) and world.size(d) >= bound and d not in index.dims]
        dim = choices.pick(static) if static else frame.declare(str(bound), bound)
        more = [d for d in frame.spelled if world.static(d) and d != dim]
        dims = choices.some([dim, *choices.some(more, 0, 2)], 9, 9)
        if world.entries(dims) > 2000 or not world.fits(index.dims | (set(dims) - {dim})):
            return None
        options = [(frame.param(dims), dim)]
    table, dim = choices.pick(options)
    plain = dim == index.of and choices.chance(60)
    text = f"{table.text}[{index.text}{'' if plain else f' over {frame.spelled[dim]}'}]"
    return replace(table, text=text, dims=index.dims | (table.dims - {dim}))


def rename(frame: Frame) -> Made:
    choices, world = frame.world.choices, frame.world
    x = choices.pick([v for v in frame.vals if v.dims and frame.known(v.dims)] or [Val("", frozenset())])
    if not x.dims:
        return None
    pairs: dict[str, str] = {}
    for dim in choices.some(sorted(x.dims), 1, 2):
        old = [
            d
            for d in frame.spelled
            if world.sizes[d] == world.sizes[dim] and d not in x.dims and d not in pairs.values()
        ]
        if old and choices.chance(40):
            pairs[dim] = choices.pick(old)
        else:
            pairs[dim] = world.fresh("d")
            world.sizes[pairs[dim]] = world.sizes[dim]
            frame.spelled[pairs[dim]] = pairs[dim]
    arrows = ", ".join(f"{frame.spelled[old]} -> {frame.spelled[new]}" for old, new in pairs.items())
    return replace(x, text=f"{x.text} as [{arrows}]", dims=frozenset(pairs.get(d, d) for d in x.dims))


def position(frame: Frame) -> Made:
    dim = frame.world.choices.pick(sorted(frame.spelled))
    return Val(f"position({frame.spelled[dim]})", frozenset((dim,)), "int", frame.world.entries((dim,)), of=dim)


def running(frame: Frame) -> Made:
    choices = frame.world.choices
    x = choices.pick(
        [v for v in frame.vals if v.kind != "bool" and v.dims and frame.known(v.dims)] or [Val("", frozenset())]
    )
    if not x.dims:
        return None
    dim = choices.pick(sorted(x.dims))
    most = x.most * frame.world.entries((dim,))
    text = f"running_sum({x.text}, over {frame.spelled[dim]})"
    if x.kind == "int":
        return Val(text, x.dims, "int", most) if most < 1e6 else None
    return tamed(text, x.dims, most)
