"""Runs the code blocks of the documents. The conventions are in CONTRIBUTING.md.

`python -m tests.docs.documents` from the repository's root shows what the console blocks really print.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from cgc.cli import main
from cgc.diagnostics import InputError
from cgc.driver import check
from cgc.syntax.parser import parse
from cgc.syntax.printer import format_file

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+?)(?P<fails>; fails)? -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, the file it is saved as, and whether it is meant to have faults."""

    kind: str
    code: str
    file: str
    fails: bool


def blocks(document: Path) -> list[Block]:
    """Return the code blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(found["kind"], found["code"], found["file"] or "", bool(found["fails"]))
        for found in _BLOCK.finditer(text)
    ]


def run(block: Block) -> None:
    """Run or check one block in the current folder; AssertionError when it does not do what it says."""
    match block.kind:
        case "cg":
            _check_cg(block)
        case "json":
            Path(block.file).write_text(block.code, encoding="utf-8")
        case "console":
            for command, expected in commands(block.code):
                found = output_of(command)
                assert matches(expected, found), f"$ {command}\n{found}\n--- expected\n{expected}"
        case "python":
            exec(compile(block.code, "document", "exec"), {})
        case "sh":
            targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
            for line in block.code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                assert not words or words[0] != "make" or set(words[1:]) <= targets, line
                assert not words or words[0] != "cgc" or words[1] in main.commands, line
        case "text" | "":
            pass
        case other:
            raise AssertionError(f"no way to run a block of `{other}`")


def _check_cg(block: Block) -> None:
    path = Path(block.file or "block.cg")
    path.write_text(block.code, encoding="utf-8")
    assert format_file(parse(block.code, path.name)) == block.code, f"{path} is not in canonical layout"
    try:
        check(path.as_posix())
    except InputError as error:
        assert block.fails, error
    else:
        assert not block.fails, f"{path} has no fault"


def commands(code: str) -> list[tuple[str, str]]:
    """Split a console block into commands and what each prints."""
    found: list[tuple[str, str]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


def output_of(command: str) -> str:
    """Run a `cgc` command in this process and return what it prints."""
    program, *arguments = shlex.split(command, comments=True)
    assert program == "cgc", command
    result = CliRunner().invoke(main, arguments, catch_exceptions=True)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def matches(expected: str, found: str) -> bool:
    """Compare output; `...` stands for any text, trailing blanks do not count."""
    pattern = re.escape("\n".join(line.rstrip() for line in expected.strip("\n").splitlines()))
    pattern = pattern.replace(re.escape("..."), ".*")
    plain = "\n".join(line.rstrip() for line in found.strip("\n").splitlines())
    return re.fullmatch(pattern, plain, re.S) is not None


if __name__ == "__main__":
    import os
    import tempfile

    for document in DOCUMENTS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            Path("examples").symlink_to(ROOT / "examples")
            for block in blocks(document):
                try:
                    run(block)
                except AssertionError as error:
                    print(f"{document.name}: {error}")
