"""Every file of `examples/errors`, rendered as the user sees it. `CGC_UPDATE=1 pytest` writes the golden files anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cgc.diagnostics import InputError
from cgc.diagnostics.codes import CODES, index, rendered
from cgc.driver import parametrize_checked
from cgc.elaborate.files import elaborate_file

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "errors"
GOLDEN = Path(__file__).parent / "errors"
FILES = sorted(EXAMPLES.glob("*.cg"))
INDEX = ROOT / "docs" / "errors.md"
UPDATE = os.environ.get("CGC_UPDATE") == "1"

SOURCES = [path for folder in ("cgc", "backends") for path in sorted((ROOT / folder).rglob("*.py"))]
USED = {
    code
    for path in SOURCES
    if not path.name.endswith("_codes.py")
    for code in re.findall(r'"(CG\d{4})"', path.read_text(encoding="utf-8"))
}

NOT_IN_A_FILE = {
    # what a source file cannot cause: files, options, devices by name, targets, weights and configurations
    *(code for code in CODES if code.startswith(("CG00", "CG06", "CG07", "CG08", "CG10"))),
    "CG0508",
}


def check(path: Path, text: str) -> None:
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rendering(path: Path) -> None:
    check(GOLDEN / f"{path.stem}.txt", rendered(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_shows_the_code_it_is_named_after(path: Path) -> None:
    with pytest.raises(InputError) as raised:
        parametrize_checked(elaborate_file(path.read_text(encoding="utf-8"), path.name, folder=path.parent), "all")
    codes = {diagnostic.code for diagnostic in raised.value.diagnostics}
    assert codes == {path.name[:6].upper()}
    assert all(diagnostic.location.file == path.name for diagnostic in raised.value.diagnostics)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_at_its_top_what_is_wrong(path: Path) -> None:
    first, second, *_ = path.read_text(encoding="utf-8").split("\n")
    assert first.startswith("# ")
    assert not second.startswith("#")


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {path.stem for path in FILES}


def test_every_code_of_the_language_has_a_file() -> None:
    shown = {path.name[:6].upper() for path in FILES}
    assert shown == CODES.keys() - NOT_IN_A_FILE


@pytest.mark.parametrize("code", [code for code, entry in CODES.items() if entry.example])
def test_the_example_of_an_explanation_has_that_fault_alone(code: str) -> None:
    with pytest.raises(InputError) as raised:
        parametrize_checked(elaborate_file(CODES[code].example, "example.cg"), "all")
    assert [diagnostic.code for diagnostic in raised.value.diagnostics] == [code]


def test_the_index_of_errors_is_up_to_date() -> None:
    check(INDEX, index(EXAMPLES))


def test_every_code_in_use_is_explained_and_every_explained_code_is_in_use() -> None:
    assert CODES.keys() == USED


def test_explanations_are_sentences() -> None:
    for code, entry in CODES.items():
        assert re.fullmatch(r"CG[01]\d{3}", code)
        assert entry.title[0].isupper() and not entry.title.endswith("."), code
        assert entry.explanation.endswith("."), code
