"""`checkpoint` items, checked against the model they are a layout of."""

from __future__ import annotations

import pytest

from cgc.diagnostics import Diagnostic, InputError
from cgc.elaborate.files import elaborate_file
from cgc.elaborate.layouts import own_axes
from cgc.ir.dims import Dim
from cgc.program import Checkpoint

MODEL = """model net(layers = 2, width = 4, heads = 2, deep = 3) {
    dim head = width / heads
    input x[batch, width]
    param first[width] ~ ones()
    x = x * first
    repeat layers as h {
        y = linear(x, width -> width)
        q = linear(x, width -> heads head, bias=false)
        k = linear(x, width -> heads head, bias=false)
        x = x + y * dot(q, k, over heads head)
        repeat deep as g {
            x = rms_norm(x, over width)
        }
    }
    output x = x
}
"""
LINES = {
    "first": '"first" [width] = first',
    "y.w": '"h.{h}.y.weight" [width\', width] = h.y.w',
    "y.b": '"h.{h}.y.bias" [width] = h.y.b',
    "qk": '"h.{h}.qk" [width, (heads * head)] = h.q.w, h.k.w',
    "norm": '"h.{h}.norm.{g}" [width] = h.g.rms_norm.scale',
}


def layout(**changes: str) -> str:
    lines = {**LINES, **{key.replace("_", "."): line for key, line in changes.items()}}
    return f"{MODEL}checkpoint net {{\n" + "".join(f"    {line}\n" for line in lines.values() if line) + "}\n"


def read(text: str) -> Checkpoint:
    (program,) = elaborate_file(text, "test.cg").programs
    assert program.checkpoint is not None
    return program.checkpoint


def only_fault(text: str) -> Diagnostic:
    with pytest.raises(InputError) as caught:
        elaborate_file(text, "test.cg")
    (fault,) = caught.value.diagnostics
    assert fault.code in ("CG0510", "CG0504")
    assert fault.location.line > MODEL.count("\n")
    return fault


def test_a_layout_is_kept_as_written() -> None:
    checkpoint = read(layout(a='prefix "net."', b='ignore "h.{h}.mask"'))
    assert (checkpoint.name, checkpoint.prefix, checkpoint.ignored) == ("net", "net.", ("h.{h}.mask",))
    joined = checkpoint.entries[3]
    assert joined.tensor == "h.{h}.qk"
    assert joined.axes == (("width",), ("heads", "*", "head"))
    assert joined.params == ("h.q.w", "h.k.w")


def test_axes_may_leave_out_a_prime_that_only_one_dimension_can_mean() -> None:
    width, primed = Dim("width", 4), Dim("width'", 4)
    assert own_axes((("width",),), (primed,)) == (("width'",),)
    assert own_axes((("width'",), ("width",)), (width, primed)) == (("width'",), ("width",))
    assert own_axes((("width",), ("width",)), (width, primed)) is None
    assert own_axes((("*", "width"),), (primed,)) == (("*", "width'"),)
    assert own_axes((("head",),), (width,)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": ""}, "the layout leaves out `first`"),
        ({"first": '"first" [width] = frist'}, "no parameter `frist`"),
        ({"first": '"first" [head] = first'}, "not the dimensions of `first`"),
        ({"first": '"first" [width, width] = first'}, "not the dimensions of `first`"),
        ({"first": '"first" [(* width)] = first'}, "`*` stands for"),
        ({"first": '"first.{h}" [width] = first'}, "needs no `{…}`"),
        ({"y_w": '"h.{h}.y.weight" [width, width] = h.y.w'}, "not the dimensions of `h.y.w`"),
        ({"y_b": '"h.y.bias" [width] = h.y.b'}, "needs `{h}`"),
        ({"y_b": '"h.{h}.y.bias" [width] = h.y.b, h.g.rms_norm.scale', "norm": ""}, "needs one `*`"),
        ({"y_b": '"h.{h}.{h}" [width] = h.y.b'}, "needs `{h}`"),
        ({"norm": '"h.{h}.norm" [width] = h.g.rms_norm.scale'}, "needs `{h}` and `{g}`"),
        ({"norm": '"h.{h}.y.bias" [width] = h.g.rms_norm.scale'}, "has two lines"),
        ({"again": '"other" [width] = first'}, "`first` is in two tensors"),
        ({"qk": '"h.{h}.qk" [width, (heads head)] = h.q.w, h.k.w'}, "needs one `*`"),
        ({"qk": '"h.{h}.qk" [(* width), (* heads head)] = h.q.w, h.k.w'}, "needs one `*`"),
        ({"a": 'prefix "a."', "b": 'prefix "b."'}, "`prefix` is given twice"),
    ],
)
def test_faults(changes: dict[str, str], message: str) -> None:
    assert message in only_fault(layout(**changes)).message


def test_what_is_left_out_is_listed_once() -> None:
    fault = only_fault(f"{MODEL}checkpoint net {{\n}}\n")
    assert fault.message.startswith("the layout leaves out `first`, `h.y.w`, `h.y.b`, ")


def test_joined_parameters_have_one_size() -> None:
    text = """model net(wide = 4, narrow = 2) {
    input x[batch, wide]
    a = linear(x, wide -> narrow, bias=false)
    b = linear(x, wide -> wide, bias=false)
    output a = a
    output b = b
}
checkpoint net {
    "ab" [wide, (* narrow)] = a.w, b.w
}
"""
    with pytest.raises(InputError) as caught:
        elaborate_file(text, "test.cg")
    assert {fault.code for fault in caught.value.diagnostics} == {"CG0510"}


def test_a_suggestion_for_a_slip() -> None:
    fault = only_fault(layout(first='"first" [width] = frist'))
    assert fault.hint == "did you mean `first`?"
