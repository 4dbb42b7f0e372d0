"""From text to tree: places, comments, numbers, syntax errors, limits."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from cgc.diagnostics import Diagnostic, InputError, Location
from cgc.syntax import tree
from cgc.syntax.build import number_value
from cgc.syntax.parser import LARGEST_FILE, MOST_SYNTAX_ERRORS, parse, read_source
from cgc.syntax.tables import digest, from_grammar, parser, serialize


def faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(InputError) as caught:
        parse(text, "test.cg")
    assert caught.value.sources == {"test.cg": text}
    return caught.value.diagnostics


def codes(text: str) -> list[str]:
    return [fault.code for fault in faults(text)]


def definition(text: str) -> tree.Definition:
    item = parse(text, "test.cg").items[-1]
    assert isinstance(item, tree.Definition)
    return item


def value_of(text: str) -> tree.Expression:
    (statement,) = definition(f"block b() {{\n    y = {text}\n}}\n").body.statements
    assert isinstance(statement, tree.Assignment)
    return statement.value


# places


def place(location: Location) -> tuple[int, int, int, int]:
    return location.line, location.column, location.end_line, location.end_column


def test_places_cover_what_they_name_and_not_the_line_end() -> None:
    block = definition("\nblock b(x,\n        eps = 1e-5) {  # open\n    y = x + f(x)   # why\n\n    return y\n}\n\n")
    assert place(block.location) == (2, 1, 7, 2)
    assert place(block.name.location) == (2, 7, 2, 8)
    assert place(block.header[1].location) == (3, 9, 3, 19)
    assert place(block.body.location) == (3, 21, 7, 2)
    first, second = block.body.statements
    assert place(first.location) == (4, 5, 4, 17)
    assert place(second.location) == (6, 5, 6, 13)
    assert isinstance(first, tree.Assignment)
    assert isinstance(first.value, tree.Operation)
    assert place(first.value.operator_location) == (4, 11, 4, 12)
    assert place(first.value.right.location) == (4, 13, 4, 17)


def test_places_do_not_take_part_in_equality() -> None:
    assert (
        parse("use std/nn\nblock a(x) { return x }", "a.cg").items
        == parse("use std/nn # c\n\n\nblock a(\n x\n)   {\n return x }", "a.cg").items
    )


# comments


def test_comments_know_their_line_and_whether_they_stand_alone() -> None:
    file = parse('# a\nuse "#x" # b  \n  #c\nblock f( # d\n) {} # e', "a.cg")
    assert file.comments == (
        tree.Comment(1, "# a", True),
        tree.Comment(2, "# b", False),
        tree.Comment(3, "#c", True),
        tree.Comment(4, "# d", False),
        tree.Comment(5, "# e", False),
    )


def test_the_comment_directly_above_a_definition_is_its_doc() -> None:
    text = (
        "# The file.\n\n# One line,\n# then another.\nblock a() {}\n\n# Not this.\n\nblock b() {} # nor\nblock c() {}"
    )
    docs = [item.doc for item in parse(text, "a.cg").items if isinstance(item, tree.Definition)]
    assert docs == ["One line,\nthen another.", "", ""]


# numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1_000", 1000),
        ("2K", 2000),
        ("375M", 375_000_000),
        ("1.3B", 1_300_000_000),
        ("20T", 20 * 10**12),
        ("6e-3", 0.006),
        ("1.5", 1.5),
        ("1e5", 100000.0),
        ("1.001K", 1001),
        ("0.0000001K", 0.0001),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert number_value(text) == value
    assert type(number_value(text)) is type(value)
    number = value_of(text)
    assert number == tree.Number(text, value)


def test_a_suffix_is_not_the_start_of_a_name() -> None:
    (item,) = parse("device d {\n    a = 48 KiB\n    b = 16 B per cycle\n    c = 1.2 Tb/s\n    d = 3K\n}", "d.cg").items
    assert isinstance(item, tree.Settings)
    values = [line.value for line in item.lines if isinstance(line, tree.Setting)]
    assert [(v.number.value, v.unit) for v in values if isinstance(v, tree.Quantity)] == [
        (48, "KiB"),
        (16, "B per cycle"),
        (1.2, "Tb/s"),
        (3000, ""),
    ]


@pytest.mark.parametrize("text", ["9" * 5000, "1e999", "1e299K", "1" + "0" * 38 + "TT", "0." + "1" * 60])
def test_absurd_numbers(text: str) -> None:
    (fault,) = faults(f"block b() {{\n    y = {text}\n}}\n")
    assert fault.code in ("CG0104", "CG0103")
    assert fault.location.line == 2


# newlines


def test_newlines_mean_nothing_in_round_and_square_brackets() -> None:
    assert value_of("f(\n\n x\n ,\n 2 )[\n i\n ]") == value_of("f(x, 2)[i]")


def test_a_body_fits_on_one_line() -> None:
    assert definition("block b(x) { if x { return x } else { return 1 } }") == definition(
        "block b(x) {\n\n    if x {\n        return x\n    }\n    else {\n        return 1\n    }\n\n}\n\n"
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("-x ^ 2", "-(x ^ 2)"),
        ("a ^ -b ^ c", "a ^ (-(b ^ c))"),
        ("not a == b and c or d", "((not (a == b)) and c) or d"),
        ("-x[i]", "-(x[i])"),
        ("a + x as [i -> j]", "a + (x as [i -> j])"),
    ],
)
def test_precedence(text: str, same: str) -> None:
    assert value_of(text) == without_parentheses(value_of(same))


def without_parentheses(expression: tree.Expression) -> tree.Expression:
    match expression:
        case tree.Parenthesis(inside):
            return without_parentheses(inside)
        case tree.Operation(operator, left, right):
            return tree.Operation(operator, without_parentheses(left), without_parentheses(right))
        case tree.Minus(sign, operand):
            return tree.Minus(sign, without_parentheses(operand))
        case tree.Not(operand):
            return tree.Not(without_parentheses(operand))
        case _:
            return expression


# faults


def test_all_syntax_errors_of_a_file_are_found() -> None:
    found = faults("block a(x) {\n    y = = 2\n    z = x +\n    return y\n}\n\nuse\n\nblock b(x) {\n    w = 3 @ 4\n}\n")
    assert [(fault.code, fault.location.line) for fault in found] == [
        ("CG0103", 2),
        ("CG0103", 3),
        ("CG0103", 7),
        ("CG0101", 10),
    ]


def test_what_was_needed_is_said() -> None:
    (fault,) = faults("use\n")
    assert fault.message == "the end of the line was not expected"
    assert "a name" in fault.labels[0].text


def test_an_open_brace_at_the_end_of_the_file() -> None:
    (fault,) = faults("block b(x) {\n    y = 1\n\n\n")
    assert fault.code == "CG0102"
    assert fault.location.line in (1, 2)


def test_one_brace_too_many() -> None:
    (fault,) = faults("block b(x) {\n}\n}\n")
    assert (fault.code, fault.location.line) == ("CG0103", 3)
    assert "too many" in fault.hint


@pytest.mark.parametrize(("text", "shown"), [("@", "@"), ("\0", "U+0000"), ("x\x0b", "U+000B"), ("é", "é")])
def test_characters_of_no_token(text: str, shown: str) -> None:
    found = faults(f"use std/nn\nuse a{text}\n")
    assert (found[0].code, found[0].message) == ("CG0101", f"`{shown}` does not belong here")


def test_a_text_that_is_not_closed() -> None:
    (fault,) = faults('use "a.cg\n')
    assert (fault.code, fault.hint) == ("CG0101", 'a text needs a closing `"` on the same line')


# limits


def test_a_file_of_errors_stops_at_a_number_of_them() -> None:
    text = "block b() {\n" + "    a = = b\n" * 1000 + "}\n"
    assert len(codes(text)) == MOST_SYNTAX_ERRORS


def test_a_large_file_of_errors_is_not_read_again_and_again() -> None:
    text = "block b() {\n    y = f(a, b)\n}\n" * 4000
    assert 1 <= len(codes(text + "a = = b\n" * 30)) < MOST_SYNTAX_ERRORS


@pytest.mark.parametrize("around", ["()", "[]", "{}"])
def test_brackets_nested_too_deep(around: str) -> None:
    opened = {"()": "y = " + "(" * 5000, "[]": "y = " + "a[" * 5000, "{}": "if x { " * 5000}[around]
    (fault,) = faults("block b() {\n" + opened)
    assert fault.code == "CG0901"
    assert fault.hint


@pytest.mark.parametrize(
    "text",
    ["+".join(["a"] * 3000), "-" * 3000 + "a", "^".join(["a"] * 3000), "a" + "[i]" * 3000, "not " * 3000 + "a",
     " and ".join(["a"] * 3000), "a" + " as [i -> j]" * 3000],
    ids=["sum", "minus", "power", "index", "not", "and", "rename"],
)  # fmt: skip
def test_expressions_nested_too_deep(text: str) -> None:
    (fault,) = faults(f"block b() {{\n    y = {text}\n}}\n")
    assert fault.code == "CG0901"
    assert fault.location.line == 2


def test_a_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.cg"
    path.write_bytes(b"#" * LARGEST_FILE)
    assert len(read_source(path, "large.cg")) == LARGEST_FILE
    path.write_bytes(b"#" * (LARGEST_FILE + 1))
    assert read_code(path) == "CG0002"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.cg"
    path.write_bytes("# café".encode("latin-1"))
    assert read_code(path) == "CG0003"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_code(tmp_path / "missing.cg") == "CG0001"
    assert read_code(tmp_path) == "CG0001"
    assert read_code(Path("with\0nul.cg")) == "CG0001"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bom.cg"
    path.write_bytes(b"\xef\xbb\xbfuse std/nn\n")
    assert read_source(path, "bom.cg") == "use std/nn\n"


def read_code(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_source(path, path.name)
    (fault,) = caught.value.diagnostics
    assert (fault.location.file, fault.location.line) == (path.name, 0)
    return fault.code


# tables


def test_the_kept_tables_are_those_of_the_grammar() -> None:
    kept = json.loads(files("cgc.grammar").joinpath("cg.json").read_text(encoding="utf-8"))
    grammar = files("cgc.grammar").joinpath("cg.lark").read_text(encoding="utf-8")
    assert kept["grammar"] == digest(grammar), "run `python -m cgc.syntax.tables`"
    assert json.loads(serialize(from_grammar())).keys() == kept.keys()


def test_the_kept_tables_parse_as_the_grammar_does() -> None:
    text = files("cgc.std").joinpath("gpt2.cg").read_text(encoding="utf-8")
    assert parser().parse(text) == from_grammar().parse(text)
