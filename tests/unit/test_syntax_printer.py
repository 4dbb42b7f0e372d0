"""The canonical layout: golden files, the standard library as it stands, and rules worth a test of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgc.syntax import tree
from cgc.syntax.parser import parse
from cgc.syntax.printer import expression_text, format_file
from cgc.syntax.rows import WIDTH

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "fmt"
SHIPPED = sorted([*(ROOT / "grammar").glob("*/*.cg"), *(ROOT / "examples").rglob("*.cg")])


def formatted(text: str) -> str:
    return format_file(parse(text, "test.cg"))


@pytest.mark.parametrize("name", sorted(path.name.removesuffix(".in.cg") for path in GOLDEN.glob("*.in.cg")))
def test_golden(name: str) -> None:
    written = (GOLDEN / f"{name}.in.cg").read_text(encoding="utf-8")
    expected = (GOLDEN / f"{name}.out.cg").read_text(encoding="utf-8")
    assert formatted(written) == expected
    assert formatted(expected) == expected


@pytest.mark.parametrize(
    "path", [p for p in SHIPPED if "errors" not in p.parts], ids=lambda path: str(path.relative_to(ROOT))
)
def test_shipped_files_are_in_the_canonical_layout(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert formatted(text) == text


def test_an_expression_is_one_line() -> None:
    (block,) = parse("block a() {\n  y = f(x,\n    over a  b, k = 2)[ i over d ]\n}\n", "a.cg").items
    assert isinstance(block, tree.Definition)
    (statement,) = block.body.statements
    assert isinstance(statement, tree.Assignment)
    assert expression_text(statement.value) == "f(x, over a b, k=2)[i over d]"


def test_an_empty_file_stays_empty() -> None:
    assert formatted("") == ""
    assert formatted("\n\n  \n") == ""


def test_a_file_of_comments() -> None:
    assert formatted("\n\n# a\n#b\n\n\n  # c") == "# a\n#b\n\n# c\n"


def test_a_comment_above_an_item_stays_with_it() -> None:
    text = "use std/nn\n# after\n\n# of a\nblock a() {}\n# of b\nblock b() {}"
    assert formatted(text) == ("use std/nn\n\n# after\n\n# of a\nblock a() {}\n\n# of b\nblock b() {}\n")
    docs = [item.doc for item in parse(text, "a.cg").items if isinstance(item, tree.Definition)]
    assert docs == ["of a", "of b"]


def test_comments_behind_neighbouring_lines_are_lined_up_unless_one_is_much_longer() -> None:
    assert "a = 1             # one\n    long = a + 2 + 3" in formatted(
        "block f() {\na = 1 # one\nlong = a + 2 + 3 # two\n}"
    )
    far = formatted("block f() {\na = 1 # one\nb = " + " + ".join(["x"] * 20) + " # two\n}")
    assert "    a = 1  # one\n" in far


def test_windows_line_ends_become_plain_ones() -> None:
    assert formatted("use std/nn\r\n# c\r\nblock a() {\r\n}\r\n") == "use std/nn\n\n# c\nblock a() {}\n"


def test_a_tree_without_places_prints() -> None:
    body = tree.Body((tree.ReturnStatement((tree.Name("x"),)),))
    block = tree.Definition("block", tree.Name("a"), (tree.TensorParameter(tree.Name("x"), None, None),), body)
    text = format_file(tree.File("a.cg", (tree.Use("std/nn", False), block)))
    assert text == "use std/nn\n\nblock a(x) {\n    return x\n}\n"


def test_everything_that_has_brackets_to_open_fits_the_width() -> None:
    header = ", ".join(f"parameter_{n} = {n}" for n in range(30))
    call = ", ".join(f"parameter_{n}={n}" for n in range(30))
    text = formatted(f"model a({header}) {{\n    y = f({call})\n}}\nmodel b = a({call})\n")
    assert max(len(line) for line in text.split("\n")) <= WIDTH
    assert formatted(text) == text


def test_the_deepest_nesting_prints() -> None:
    text = "block a() {\n" + "if x {\n" * 49 + "y = " + "f(" * 49 + "-" * 40 + "a" + ")" * 49 + "\n}" * 50 + "\n"
    once = formatted(text)
    assert parse(once, "a.cg") == parse(text, "a.cg")
    assert formatted(once) == once
