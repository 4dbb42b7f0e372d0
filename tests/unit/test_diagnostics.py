"""Diagnostics: collecting them, and how they are drawn."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest

from cgc.diagnostics import NOWHERE, Diagnostic, Diagnostics, InputError, Label, Location
from cgc.diagnostics.render import WIDEST, render

FILE = "examples/bad.cg"
SOURCE = "\n" * 12 + "    y = mlp(x)\n    x = x + mlp(y)\n\n\n\n    z = 3\n"


def at(line: int, column: int, end: int, end_line: int = 0, file: str = FILE) -> Location:
    return Location(file, line, column, end_line or line, end)


def drawn(*diagnostics: Diagnostic, source: str = SOURCE) -> str:
    return render(diagnostics, {FILE: source})


def expect(text: str, picture: str) -> None:
    assert text == dedent(picture).removeprefix("\n")


def test_the_picture_of_the_language_page() -> None:
    fault = Diagnostic(
        "CG0203",
        "these two tensors do not line up",
        (Label(at(14, 9, 10), "has [batch, seq, width]"), Label(at(14, 13, 19), "has [batch, seq, ffn]")),
        "`mlp` ends in `width -> ffn`; did you mean to project back with `linear(..., ffn -> width)`?",
        (Label(at(9, 5, 20), "attention"),),
    )
    expect(
        drawn(fault),
        """
        error[CG0203]: these two tensors do not line up
          --> examples/bad.cg:14:9
           |
        14 |     x = x + mlp(y)
           |         ^   ------ has [batch, seq, ffn]
           |         |
           |         has [batch, seq, width]
           |
           = help: `mlp` ends in `width -> ffn`; did you mean to project back with `linear(..., ffn -> width)`?
           = note: in `attention(...)` called at examples/bad.cg:9:5
        """,
    )


def test_several_labels_of_a_line_hang_below_one_another() -> None:
    labels = (Label(at(14, 13, 19), "three"), Label(at(14, 9, 10), "two"), Label(at(14, 5, 6), "one"))
    expect(
        drawn(Diagnostic("CG0001", "m", labels)),
        """
        error[CG0001]: m
          --> examples/bad.cg:14:13
           |
        14 |     x = x + mlp(y)
           |     -   -   ^^^^^^ three
           |     |   |
           |     |   two
           |     one
        """,
    )


def test_a_label_around_another() -> None:
    labels = (Label(at(14, 13, 19), "call"), Label(at(14, 9, 19), "sum"))
    expect(
        drawn(Diagnostic("CG0001", "m", labels)),
        """
        error[CG0001]: m
          --> examples/bad.cg:14:13
           |
        14 |     x = x + mlp(y)
           |         ----^^^^^^ call
           |         |
           |         sum
        """,
    )


def test_labels_on_different_lines_stand_in_order_with_dots_between_distant_ones() -> None:
    labels = (Label(at(18, 5, 6), "last"), Label(at(13, 5, 6)), Label(at(14, 5, 6), "next"))
    expect(
        drawn(Diagnostic("CG0001", "m", labels)),
        """
        error[CG0001]: m
          --> examples/bad.cg:18:5
           |
        13 |     y = mlp(x)
           |     -
        14 |     x = x + mlp(y)
           |     - next
        ...
        18 |     z = 3
           |     ^ last
        """,
    )


def test_one_line_between_two_is_shown() -> None:
    labels = (Label(at(1, 1, 2), "one"), Label(at(3, 1, 2), "three"))
    expect(
        drawn(Diagnostic("CG0001", "m", labels), source="a\nb\nc\n"),
        """
        error[CG0001]: m
         --> examples/bad.cg:1:1
          |
        1 | a
          | ^ one
        2 | b
        3 | c
          | - three
        """,
    )


def test_a_place_over_several_lines_is_marked_to_the_end_of_its_first() -> None:
    text = drawn(Diagnostic("CG0001", "m", (Label(at(1, 3, 2, end_line=3), "here"),)), source="a f(\n  b\n)\n")
    assert "1 | a f(\n  |   ^^ here\n" in text


def test_tabs_wide_and_combining_characters_keep_the_carets_in_place() -> None:
    source = '\tx = "日本" + e\u0301y'
    text = drawn(Diagnostic("CG0001", "m", (Label(at(1, source.index("y") + 1, len(source) + 1)),)), source=source)
    assert '1 |     x = "日本" + e\u0301y\n  |                   ^\n' in text
    text = drawn(Diagnostic("CG0001", "m", (Label(at(1, 6, 10)),)), source=source)
    assert "\n  |         ^^^^^^\n" in text


def test_a_place_behind_the_end_of_a_line() -> None:
    assert "1 | abc\n  |    ^ here\n" in drawn(Diagnostic("CG0102", "m", (Label(at(1, 4, 5), "here"),)), source="abc")


def test_a_long_line_is_clipped_around_the_label() -> None:
    source = "a" * 300 + "HERE" + "b" * 300
    text = drawn(Diagnostic("CG0001", "m", (Label(at(1, 301, 305), "there"),)), source=source)
    line, marks = text.split("\n")[3:5]
    assert line.startswith("1 | …a")
    assert line.endswith("b…")
    assert len(line) <= WIDEST + 6
    assert line[marks.index("^") : marks.rindex("^") + 1] == "HERE"


def test_a_label_in_another_file() -> None:
    labels = (Label(at(1, 1, 2), "here"), Label(at(1, 1, 4, file="other.cg"), "there"))
    text = render([Diagnostic("CG0001", "m", labels)], {FILE: "a", "other.cg": "use"})
    assert text.endswith("1 | a\n  | ^ here\n ::: other.cg:1:1\n  |\n1 | use\n  | --- there\n")


@pytest.mark.parametrize("place", [Location("gone.cg", 3, 4, 3, 5), Location(FILE, 99, 1, 99, 2)])
def test_a_place_without_its_source_is_named(place: Location) -> None:
    text = drawn(Diagnostic("CG0001", "m", (Label(place, "there"),), "a hint"))
    assert text == f"error[CG0001]: m\n --> {place}\n  = note: there ({place})\n  = help: a hint\n"


def test_a_file_without_a_line_has_no_excerpt() -> None:
    assert drawn(Diagnostic("CG0001", "m", (Label(Location(FILE, 0, 0, 0, 0)),))) == f"error[CG0001]: m\n --> {FILE}\n"
    assert drawn(Diagnostic("CG0004", "m")) == "error[CG0004]: m\n"
    assert drawn(Diagnostic("CG0004", "m", (Label(NOWHERE, "why"),))) == "error[CG0004]: m\n  = note: why\n"


def test_the_number_of_errors_ends_several() -> None:
    one, two = Diagnostic("CG0001", "m"), Diagnostic("CG0002", "n")
    assert drawn() == ""
    assert drawn(one, two) == "error[CG0001]: m\n\nerror[CG0002]: n\n\n2 errors\n"


def test_messages_of_several_lines_are_indented_and_cannot_move_the_cursor() -> None:
    text = drawn(Diagnostic("CG0001", "a\nb\x1b[2J\r", (), "c\nd"))
    assert text == "error[CG0001]: a\n  b\N{REPLACEMENT CHARACTER}[2J\n  = help: c\n          d\n"


def test_colour_adds_escapes_and_nothing_else() -> None:
    fault = Diagnostic("CG0203", "m", (Label(at(14, 9, 10), "a"), Label(at(13, 5, 6), "b")), "h")
    plain, colored = drawn(fault), render([fault, fault], {FILE: SOURCE}, color=True)
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert "\x1b" not in plain
    assert stripped == render([fault, fault], {FILE: SOURCE})


# collecting


def test_diagnostics_come_by_place_and_each_once() -> None:
    found = Diagnostics()
    late, early = Diagnostic("CG0001", "late", (Label(at(9, 1, 2)),)), Diagnostic("CG0002", "x", (Label(at(2, 1, 2)),))
    for diagnostic in (late, early, late, Diagnostic("CG0001", "other words", late.labels)):
        found.add(diagnostic)
    assert found.sorted() == (early, late)
    with pytest.raises(InputError) as caught:
        found.raise_if_any({FILE: SOURCE})
    assert caught.value.diagnostics == (early, late)
    assert caught.value.sources == {FILE: SOURCE}
    assert "examples/bad.cg:2:1: CG0002: x" in str(caught.value)


def test_nothing_found_is_no_error() -> None:
    Diagnostics().raise_if_any({})


def test_json_says_everything() -> None:
    fault = Diagnostic("CG0203", "m", (Label(at(14, 9, 10), "a"),), "h", (Label(at(3, 1, 2), "block"),))
    place = {"file": FILE, "line": 14, "column": 9, "end_line": 14, "end_column": 10, "text": "a"}
    trace = {"file": FILE, "line": 3, "column": 1, "end_line": 3, "end_column": 2, "text": "block"}
    assert fault.to_json() == {"code": "CG0203", "message": "m", "labels": [place], "hint": "h", "trace": [trace]}


ROOT = Path(__file__).parents[2]
PLACE_OF_HINT = {"Fault": None, "Diagnostic": 3, "TargetError": 2}
"""The argument that is the hint, by place where it need not be named."""


@pytest.mark.parametrize("folder", ["cgc", "backends"])
def test_every_diagnostic_has_a_hint(folder: str) -> None:
    without, count = [], 0
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            code = node.args[0]
            if node.func.id not in PLACE_OF_HINT or not isinstance(code, ast.Constant):
                continue
            count += 1
            place = PLACE_OF_HINT[node.func.id]
            given = place is not None and len(node.args) > place
            if not given and not any(keyword.arg == "hint" for keyword in node.keywords):
                without.append(f"{path.relative_to(ROOT)}:{node.lineno} {code.value}")
    assert count > 30 and without == []
