"""All codes of diagnostics. `python -m cgc.diagnostics.codes EXAMPLES > docs/errors.md` writes the index of errors."""

from __future__ import annotations

import sys
from pathlib import Path

from cgc.diagnostics.code import Code
from cgc.diagnostics.import_codes import IMPORTS
from cgc.diagnostics.item_codes import ITEMS
from cgc.diagnostics.language_codes import LANGUAGE
from cgc.diagnostics.outside_codes import OUTSIDE
from cgc.diagnostics.placement_codes import PLACEMENT
from cgc.diagnostics.training_codes import TRAINING

_ALL = {**OUTSIDE, **LANGUAGE, **ITEMS, **IMPORTS, **PLACEMENT, **TRAINING}
CODES: dict[str, Code] = dict(sorted(_ALL.items()))

GROUPS = {
    "CG00": "Files",
    "CG01": "The text",
    "CG02": "Dimensions and types",
    "CG03": "Names",
    "CG04": "Models and blocks",
    "CG05": "Items: mup, parametrization, train, device, checkpoint",
    "CG06": "The wafer",
    "CG068": "Training runs, scaling laws, exported checkpoints",
    "CG07": "Weights",
    "CG08": "Targets",
    "CG09": "Limits",
    "CG10": "Importing and exporting configurations",
}

_HEAD = """# Index of errors

Every fault that `cgc` finds in its input has a code, which stays the same from version to version. `cgc explain CG0203`
prints what is said here. The examples are the files in `examples/errors/`, shown as `cgc check` shows them.

This page is made from the compiler's own list of codes and these files: `make docs` writes it again.
"""


def index(examples: Path) -> str:
    """Return the index of errors as Markdown; `examples` is the folder of files with one fault each.

    Raises:
        ValueError: a file has no fault.
    """
    parts = [_HEAD]
    for prefix, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        for code, entry in CODES.items():
            if prefix == max((known for known in GROUPS if code.startswith(known)), key=len):
                parts.append(f"\n### {code}: {entry.title}\n\n{_wrapped(entry.explanation)}\n")
                parts += [_shown(path) for path in sorted(examples.glob(f"{code.lower()}_*.cg"))]
    return "".join(parts)


def rendered(path: Path) -> str:
    """Return what `cgc check` says, in its folder, of a file with a fault (ValueError: it has none)."""
    from cgc.diagnostics import InputError
    from cgc.diagnostics.render import render
    from cgc.driver import parametrize_checked
    from cgc.elaborate.files import elaborate_file
    from cgc.syntax.parser import read_source

    try:
        parametrize_checked(elaborate_file(read_source(path, path.name), path.name, folder=path.parent), "all")
    except InputError as error:
        return render(error.diagnostics, error.sources)
    raise ValueError(f"{path} has no fault")


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _shown(path: Path) -> str:
    source = path.read_text(encoding="utf-8").rstrip("\n")
    return f"\n```cg error\n{source}\n```\n\n```text\n{rendered(path).rstrip()}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(index(Path(sys.argv[1])))
