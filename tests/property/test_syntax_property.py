"""Whatever the tree, whatever the layout, whatever the bytes: the parser and the printer agree, and nothing crashes."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syntax_trees import expressions, rewritten
from syntax_trees import files as random_files

from cgc.diagnostics import InputError
from cgc.diagnostics.render import render
from cgc.syntax import tree
from cgc.syntax.parser import parse, read_source
from cgc.syntax.printer import expression_text, format_file

STD = sorted(path.name for path in files("cgc.std").iterdir() if path.name.endswith(".cg"))
SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def std(name: str) -> str:
    return files("cgc.std").joinpath(name).read_text(encoding="utf-8")


def check_format(text: str) -> None:
    """Format `text` and hold the result to what `format_file` promises."""
    before = parse(text, "random.cg")
    formatted = format_file(before)
    after = parse(formatted, "random.cg")
    assert after == before
    assert Counter(comment.text for comment in after.comments) == Counter(comment.text for comment in before.comments)
    assert [item.doc for item in after.items if isinstance(item, tree.Definition)] == [
        item.doc for item in before.items if isinstance(item, tree.Definition)
    ]
    assert format_file(after) == formatted
    assert all(line == line.rstrip() for line in formatted.split("\n"))
    assert "\n\n\n" not in formatted


@SLOW
@given(random_files)
def test_a_tree_prints_and_parses_back(file: tree.File) -> None:
    text = format_file(file)
    assert parse(text, file.path) == file
    assert format_file(parse(text, file.path)) == text


@SLOW
@given(expressions)
def test_an_expression_prints_and_parses_back(expression: tree.Expression) -> None:
    text = expression_text(expression)
    (block,) = parse(f"block a() {{\n    x = {text}\n}}\n", "a.cg").items
    assert isinstance(block, tree.Definition)
    (statement,) = block.body.statements
    assert isinstance(statement, tree.Assignment)
    assert statement.value == expression
    assert "\n" not in text


@SLOW
@given(st.data(), random_files)
def test_formatting_keeps_the_tree_and_the_comments(data: st.DataObject, file: tree.File) -> None:
    check_format(data.draw(rewritten(format_file(file))))


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.parametrize("name", STD)
def test_formatting_the_library_written_otherwise(name: str, data: st.DataObject) -> None:
    bare = format_file(tree.File(name, parse(std(name), name).items))
    check_format(data.draw(rewritten(bare)))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return a file of the library with some of its text cut, doubled, swapped or replaced."""
    text = std(draw(st.sampled_from(STD)))
    start = draw(st.integers(0, len(text)))
    text = text[start : start + draw(st.integers(1, 1500))]
    for _ in range(draw(st.integers(1, 4))):
        first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        last = min(last, first + draw(st.integers(0, 20)))
        new = draw(st.sampled_from(['"', "(", ")", "{", "}", "[", "]", "#", "\n", "=", "~", "'", "\r", "9" * 5000, ""]))
        new = draw(st.just(new) | st.just(text[first:last] * 2) | st.text(max_size=3))
        text = text[:first] + new + text[last:]
    return text


@SLOW
@given(mutated())
def test_a_broken_file_gives_diagnostics_and_never_another_exception(text: str) -> None:
    try:
        parse(text, "broken.cg")
    except InputError as error:
        assert error.diagnostics
        lines = text.split("\n")
        for diagnostic in error.diagnostics:
            assert diagnostic.code
            assert 1 <= diagnostic.location.line <= len(lines)
            assert 1 <= diagnostic.location.column <= len(lines[diagnostic.location.line - 1]) + 1
        assert "error[CG" in render(error.diagnostics, error.sources)
    else:
        check_format(text)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=60), name=st.sampled_from(STD), at=st.integers(0, 2000))
def test_bytes_that_are_no_text(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str, at: int) -> None:
    whole = std(name).encode()
    path = Path(tmp_path_factory.mktemp("bytes")) / "broken.cg"
    path.write_bytes(whole[:at] + data + whole[at:])
    try:
        parse(read_source(path, "broken.cg"), "broken.cg")
    except InputError as error:
        assert render(error.diagnostics, error.sources)
