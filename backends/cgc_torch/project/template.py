"""Files of the project as they lie in `templates/`: marks for what is filled in, parts that stand only if wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_MARK = re.compile(r"@([A-Z_]+)@")
_IF = re.compile(r"\s*#: if (not )?(\w+)")


def template(name: str, marks: Mapping[str, str] | None = None, wanted: Mapping[str, bool] | None = None) -> str:
    """Return a file of `templates/` with `@MARK@` replaced by its text.

    Lines between `#: if NAME` (or `#: if not NAME`) and `#: end` stand only where `wanted` says so.
    """
    source = files("cgc_torch.project").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")
    kept: list[str] = []
    skipping = False
    for line in source.splitlines():
        condition = _IF.fullmatch(line)
        if condition:
            skipping = (wanted or {})[condition[2]] == bool(condition[1])
        elif line.strip() == "#: end":
            skipping = False
        elif not skipping:
            kept.append(line)
    return _MARK.sub(lambda mark: (marks or {})[mark[1]], "\n".join(kept) + "\n")
