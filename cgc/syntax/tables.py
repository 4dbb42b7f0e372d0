"""The parser's tables: made from `grammar/cg.lark` once and kept beside it as JSON, because making them takes longer
than reading a model.

`python -m cgc.syntax.tables` writes them anew after a change of the grammar; a test holds the two together. Where the
installed lark is not the one that made them, they are made again in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import lark
from lark import Lark

from cgc.syntax.layout import Layout

_OPTIONS: dict[str, Any] = {"parser": "lalr", "propagate_positions": True, "maybe_placeholders": True}


def from_grammar() -> Lark:
    """Return a parser made from the grammar."""
    text = files("cgc.grammar").joinpath("cg.lark").read_text(encoding="utf-8")
    return Lark(text, postlex=Layout(), **_OPTIONS)


def serialize(parser: Lark) -> str:
    """Return the tables of `parser` as JSON, with the digest of the grammar that they were made from.

    The order within the tables differs from one process to the next, so that the digest is what tells them current.
    """
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    data, memo = parser.memo_serialize([TerminalDef, Rule])
    for options in (data["options"], data["parser"].get("options", {})):
        options.pop("postlex", None)
    kept = {"lark": lark.__version__, "grammar": digest(parser.source_grammar), "data": data, "memo": memo}
    return json.dumps(kept, separators=(",", ":"), sort_keys=False)


def digest(grammar: str) -> str:
    """Return what stands for the text of the grammar in the kept tables."""
    return hashlib.sha256(grammar.encode()).hexdigest()


def _load(tables: dict[str, Any]) -> Lark:
    load: Callable[..., Lark] = Lark._load_from_dict
    return load(tables["data"], tables["memo"], postlex=Layout())


def _integer_keys(pairs: list[tuple[str, Any]]) -> dict[int | str, Any]:
    """Return an object of the JSON with the integer keys that JSON made strings of."""
    return {int(key) if key.isdigit() else key: value for key, value in pairs}


@cache
def parser() -> Lark:
    """Return the parser, from the kept tables where they fit."""
    kept = files("cgc.grammar").joinpath("cg.json")
    if kept.is_file():
        tables = json.loads(kept.read_text(encoding="utf-8"), object_pairs_hook=_integer_keys)
        if tables["lark"] == lark.__version__:
            return _load(tables)
    return from_grammar()


if __name__ == "__main__":
    Path(str(files("cgc.grammar").joinpath("cg.json"))).write_text(serialize(from_grammar()) + "\n", encoding="utf-8")
