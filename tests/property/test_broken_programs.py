"""Programs broken at random either still compile or have diagnostics: never a traceback, never a hang."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgc.diagnostics import InputError
from cgc.diagnostics.codes import CODES
from cgc.diagnostics.render import render
from cgc.elaborate.files import elaborate_file
from cgc.ir.verify import verify
from cgc.syntax.parser import parse

ROOT = Path(__file__).parents[2]
SECONDS = 10.0
"""For one file, on a busy machine; the slowest real model takes a fifth of a second."""

_TOKEN = re.compile(
    r'"[^"\n]*"|#[^\n]*|->|<=|>=|==|!=|\.\.\.|[A-Za-z_]\w*\'*|\d[\d_.]*(?:[eE][+-]?\d+)?[KMBT]?|\n *|[^\s]'
)

ABSURD = (
    *("0", "-1", "1", "0.5", "1e300", "-1e300", "1e-300", "9000000000000000000", "4611686018427387905", "99999999999"),
    *(
        "infinity",
        "pi",
        "true",
        '"gelu"',
        '""',
        "x",
        "width",
        "heads",
        "seq",
        "batch",
        "key",
        "layers",
        "vocab",
        "head",
    ),
    *(
        "tokens",
        "nothing",
        "linear",
        "softmax",
        "position",
        "attention",
        "gpt2",
        "layer_norm",
        "repeat",
        "param",
        "dim",
    ),
    *("over", "along", "as", "->", "if", "else", "return", "output", "input", "block", "model", "use", "std/gpt2"),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "=",
        "~",
        "+",
        "-",
        "*",
        "/",
        "^",
        "<",
        "==",
        ":",
        "...",
        "'",
        "not",
        "and",
        "\n",
    ),
    *(
        "scale",
        "from",
        "init",
        "multiply",
        "override",
        "then",
        "by",
        "750 x 994",
        "KiB",
        "per",
        "%",
        "\u00e9",
        "\u2028",
    ),
)

INSTANCES = {
    "gpt2": "model m = gpt2(vocab=11, context=8, layers=2, width=8, heads=2)",
    "gpt_neox": "model m = gpt_neox(vocab=11, context=8, layers=2, width=16, heads=2)",
    "llama": "model m = llama(vocab=11, context=8, layers=2, width=16, heads=4, ffn=24, kv_heads=2)",
}
"""A family is broken together with an instance of it, so that sizes are numbers."""

OWN = """
use std/gpt2

model small(width = 8, heads = 2, layers = 3, vocab = 11, context = 6, ffn = 3 * width, best = 2) {
    dim head = width / heads
    input tokens[batch, seq <= context] : id of vocab
    input mask[batch, seq] : bool
    param table[vocab, width] ~ normal(std=0.02, mean=0.0)
    param places[context, width] ~ uniform(limit=1 / sqrt(width))
    x = table[tokens] + places[position(seq)]
    y = running_sum(x, over seq)
    repeat layers as h {
        x = x + mixer(layer_norm(x, over width), depth=layers)
        if layers > 2 {
            y = max(y, linear(x, width -> width, bias=false))
        } else {
            y = y - x
        }
    }
    halves = split(x, width -> heads head)
    dim one = 1
    dim rest = head - 2
    first = slice(halves, head -> one, from=head - 1)
    last = slice(halves, head -> rest, from=2)
    parts = concat(slice(halves, head -> one), first, last, one one rest -> head)
    z = merge(parts, heads head -> width) * where(mask, 1, 0)
    logits = dot(z + y, table, over width) ^ 2
    values, ids = top_k(logits, vocab -> best)
    output best_values[batch, seq, best] = values
    output mean_value = mean(logits, over vocab) / cast(1 + max(tokens, over seq), f32)
}

block mixer(x[batch, seq, width], depth = 1, kind = "gelu") {
    q = linear(x, width -> heads head)
    k = linear(x, width -> heads head) as [seq -> key]
    scores = dot(q, k, over head) / sqrt(2 * head * depth)
    weights = softmax(causal(scores, seq, key), over key)
    return activate(linear(dot(weights, k, over key), heads head -> width), kind=kind)
}

mup {
    scale width from 4, heads from 1
    init std = 0.1
    multiply embedding by 2
    override h.mixer.q.w {
        lr = 1e-3
    }
}

train {
    tokens = 20 per param
    optimizer = adamw(beta1=0.9)
    schedule = warmup(1M tokens) then cosine(to=0.1)
}

device small_wafer {
    grid = 4 x 4
    memory = 48 KiB
    clock = 1.1 GHz
    multiply_adds = 4 per cycle
    read = 16 B per cycle
    write = 8 B per cycle
    link = 4 B per cycle
    hop = 1 cycles
    colors = 24
    off_wafer = 1.2 Tb/s
}

"""

SCALED = """
checkpoint scaled {
    prefix "norm."
    "norm.{h}.weight" [width] = h.scale
    "norm.both" [(* width)] = gain, shift
}

model scaled(width = 8, layers = 2) {
    input x[batch, width]
    param gain[width] ~ ones()
    param shift[width] ~ zeros()
    x = x * gain + shift
    repeat layers as h {
        param scale[width] ~ constant(value=-1)
        x = -x * scale
    }
    output y = x
}
"""


def _sources() -> dict[str, str]:
    sources = {"own": OWN, "scaled": SCALED}
    for name, instance in INSTANCES.items():
        sources[name] = (ROOT / "grammar" / "std" / f"{name}.cg").read_text(encoding="utf-8") + "\n" + instance + "\n"
    for name in ("nn", "attention", "positions", "loss"):
        sources[name] = (ROOT / "grammar" / "std" / f"{name}.cg").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.cg"):
        sources[path.stem] = path.read_text(encoding="utf-8")
    for path in (ROOT / "grammar" / "devices").glob("*.cg"):
        sources[path.stem] = path.read_text(encoding="utf-8")
    return sources


SOURCES = _sources()
TOKENS = {name: _TOKEN.findall(text) for name, text in SOURCES.items()}


def joined(tokens: list[str]) -> str:
    """Return tokens as text: a space between them, which never changes what they mean except in numbers and paths."""
    return re.sub(r"(\w) / (?=\w)", r"\1/", " ".join(tokens))


def _alike(tokens: list[str], token: str) -> list[str]:
    """Return what may replace a token so that the text can still be parsed: names for names, numbers for numbers."""
    kind = next((kind for kind in (r"[A-Za-z_]", r"\d", r"[-+*/^<>]") if re.match(kind, token)), "")
    return [token, *sorted({other for other in (*tokens, *ABSURD) if kind and re.match(kind, other)})]


@st.composite
def broken_programs(draw: st.DrawFn) -> str:
    tokens = list(TOKENS[draw(st.sampled_from(sorted(TOKENS)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(tokens) - 1))
        other = draw(st.integers(0, len(tokens) - 1))
        match draw(
            st.sampled_from(("alike", "alike", "alike", "delete", "double", "swap", "replace", "insert", "copy"))
        ):
            case "alike":
                tokens[at] = draw(st.sampled_from(_alike(tokens, tokens[at])))
            case "delete":
                del tokens[at]
            case "double":
                tokens.insert(at, tokens[at])
            case "swap":
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case "replace":
                tokens[at] = draw(st.sampled_from(ABSURD))
            case "insert":
                tokens.insert(at, draw(st.sampled_from(ABSURD)))
            case _:
                tokens[at] = tokens[other]
    return joined(tokens)


def check(text: str) -> None:
    """Elaborate a text: it succeeds with valid graphs, or has diagnostics that can be shown."""
    start = time.perf_counter()
    try:
        checked = elaborate_file(text, "broken.cg")
    except InputError as error:
        assert error.diagnostics
        for diagnostic in error.diagnostics:
            assert diagnostic.code in CODES
            assert diagnostic.message
            assert diagnostic.location.file in error.sources
            lines = error.sources[diagnostic.location.file].split("\n")
            assert 1 <= diagnostic.location.line <= len(lines)
        assert len(set(error.diagnostics)) == len(error.diagnostics)
        assert render(error.diagnostics, error.sources)
    else:
        for program in checked.programs:
            verify(program.graph)
    assert time.perf_counter() - start < SECONDS


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_whole_programs_compile(name: str) -> None:
    elaborate_file(SOURCES[name], f"{name}.cg", folder=ROOT / "examples")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_tokens_joined_again_mean_the_same(name: str) -> None:
    assert parse(joined(TOKENS[name]), name).items == parse(SOURCES[name], name).items


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(broken_programs())
def test_broken_programs_have_diagnostics(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ABSURD), max_size=30).map(" ".join))
def test_heaps_of_words_have_diagnostics(text: str) -> None:
    check(text)
