"""Numbers that would be known at run time only are diagnostics wherever a number goes into the graph."""

from __future__ import annotations

import pytest

from cgc.diagnostics import InputError
from cgc.elaborate.files import elaborate_file

MODEL = """
model m(width = 4, context = 8) {
    input x[batch, seq <= context, width]
    param w[width] ~ normal(std=1)
    y = x * w
    LINE
    output z = y
}

block scaled(x, by = 1.0) {
    return x * by
}
"""


def faults(line: str) -> list[tuple[str, str]]:
    """Return the codes of the faults of the model with this line, and what each suggests."""
    text = MODEL.replace("param w[width] ~ normal(std=1)" if line.startswith("param w") else "LINE", line)
    try:
        elaborate_file(text.replace("LINE", ""), "m.cg")
    except InputError as error:
        return [(diagnostic.code, diagnostic.hint) for diagnostic in error.diagnostics]
    return []


@pytest.mark.parametrize(
    "line",
    [
        "y = y / seq",
        "y = y * sqrt(batch)",
        "y = max(y, 1 / (seq + 1))",
        "n = 2 * seq\n    y = where(y > n, y, 0)",
        "y = scaled(y, by=1 / sqrt(seq))",
        "repeat 2 as h {\n        y = y + batch\n    }",
    ],
)
def test_a_size_known_at_run_time_is_no_constant(line: str) -> None:
    ((code, hint),) = faults(line)
    assert code == "CG0403"
    assert "max(position(" in hint


@pytest.mark.parametrize(
    "line",
    [
        "if seq > 3 {\n        y = 2 * y\n    }",
        "repeat seq as h {\n        y = 2 * y\n    }",
        "param w[width] ~ normal(std=1 / seq)",
    ],
)
def test_what_is_decided_at_compile_time_does_not_depend_on_it(line: str) -> None:
    assert [code for code, _ in faults(line)] == ["CG0403"]


def test_what_the_hint_says_compiles() -> None:
    assert faults("y = y / (1 + max(position(seq), over seq))") == []


def test_sizes_of_dimensions_may_depend_on_it() -> None:
    assert faults("dim twice = 2 * seq\n    y = slice(concat(y, y, seq -> twice), twice -> seq, from=seq)") == []


def test_a_family_whose_sizes_are_open_may_compute_with_them() -> None:
    elaborate_file(
        "model m(width, heads) {\n    input x[batch, width]\n    output y = x / sqrt(width / heads)\n}\n", "m.cg"
    )


@pytest.mark.parametrize("header", ["x", "x[rows]"])
def test_a_block_that_nothing_uses_may_name_dimensions_of_its_caller(header: str) -> None:
    body = "x * cast(position(batch), f32) + learned_positions(seq, context, width)"
    elaborate_file(f"block shifted({header}) {{\n    return {body}\n}}\n", "m.cg")
