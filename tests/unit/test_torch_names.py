"""Names from `.cg` files as Python identifiers."""

from __future__ import annotations

import keyword
import subprocess
import sys

import pytest
from cgc_torch.names import ATTRIBUTE_NAMES, LOCAL_NAMES, Namespace, body_name, class_name, identifier
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("width", "width"),
        ("width'", "width_prime"),
        ("lambda", "lambda_"),
        ("None", "None_"),
        ("l", "l_"),
        ("h.attention.q", "h_attention_q"),
        ("3d", "_3d"),
        ("__dict__", "_dict__"),
        ("'", "_prime"),
        ("___", "value"),
        ("", "value"),
        ("x; import os", "x__import_os"),
    ],
)
def test_identifier(name: str, expected: str) -> None:
    assert identifier(name) == expected


@given(st.text())
def test_anything_becomes_an_identifier(name: str) -> None:
    text = identifier(name)
    assert text.isidentifier()
    assert text.isascii()
    assert not keyword.iskeyword(text)
    assert not text.startswith("__")
    assert class_name(f"a{name}").isidentifier()
    assert body_name(f"a{name}").isidentifier()


def test_class_names() -> None:
    assert class_name("grouped_attention") == "GroupedAttention"
    assert class_name("gpt2") == "Gpt2"
    assert class_name("2layers") == "Block2layers"


def test_names_of_loop_bodies() -> None:
    assert body_name("h") == "block"
    assert body_name("layers") == "layer"
    assert body_name("layer") == "layer"
    assert body_name("encoder") == "encoder_block"


def test_names_are_taken_once() -> None:
    names = Namespace(LOCAL_NAMES)
    assert [names.fresh("x"), names.fresh("x"), names.fresh("x_2")] == ["x", "x_2", "x_2_2"]
    assert [names.fresh("torch"), names.fresh("torch"), names.fresh("max")] == ["torch_", "torch__2", "max_"]
    assert [names.fresh("Mlp", ""), names.fresh("Mlp", "")] == ["Mlp", "Mlp2"]


def test_attributes_of_modules_are_reserved() -> None:
    """A parameter called `half` or `train` would hide what every module has."""
    # In a process of its own: libraries imported by other tests add attributes to the class.
    code = "import torch; print(*(n for n in dir(torch.nn.Module()) if not n.startswith('_')))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert set(names) <= ATTRIBUTE_NAMES
