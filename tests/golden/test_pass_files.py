"""Passes as text: a graph in, a graph out. `CGC_UPDATE=1 pytest` writes the files that come out anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cgc.ir.dims import Dim, symbol
from cgc.ir.graph import Graph, Value
from cgc.ir.read import parse_graph
from cgc.ir.text import print_graph
from cgc.ir.verify import verify
from cgc.passes.adamw import AdamW, ParamUpdate, adamw
from cgc.passes.autodiff import autodiff
from cgc.passes.dead_code import eliminate_dead_code
from cgc.passes.inline import inline
from cgc.passes.kv_cache import with_kv_cache
from cgc.passes.last_position import at_last_position
from cgc.passes.loss import with_loss
from cgc.passes.rename_symbols import rename_symbols
from cgc.passes.unroll import unroll


def mask_of(graph: Graph) -> Value | None:
    return next((value for value in graph.inputs if value.name == "attention_mask"), None)


FOLDER = Path(__file__).parent / "passes"
OPTIMIZER = AdamW(0.9, 0.95, 1.0, {"a": ParamUpdate(0.5, 1e-8, 0.1), "b": ParamUpdate(eps=1e-6, fixed=0.01)})
PASSES: dict[str, Callable[[Graph], Graph]] = {
    "inline": inline,
    "unroll": unroll,
    "dead_code": eliminate_dead_code,
    "loss": with_loss,
    "autodiff": autodiff,
    "recompute": lambda graph: autodiff(graph, recompute=True),
    "adamw": lambda graph: adamw(graph, OPTIMIZER),
    "rename_symbols": lambda graph: rename_symbols(graph, {"time": "seq", "rows": "batch"}),
    "kv_cache": lambda graph: with_kv_cache(graph).graph,
    "last_position": lambda graph: at_last_position(graph, Dim("seq", symbol("seq")), graph.outputs, mask_of(graph)),
}
FILES = sorted(FOLDER.glob("*.in.ir"))
UPDATE = os.environ.get("CGC_UPDATE") == "1"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".in.ir"))
def test_pass(path: Path) -> None:
    name = path.name.split(".")[0]
    text = path.read_text(encoding="utf-8")
    before = verify(parse_graph(text))
    assert print_graph(before) == text, "the file is not what `print_graph` prints"
    after = print_graph(verify(PASSES[name](before)))
    out = path.with_name(path.name.replace(".in.ir", ".out.ir"))
    if UPDATE:
        out.write_text(after, encoding="utf-8")
    assert out.read_text(encoding="utf-8") == after


def test_every_pass_has_files_and_no_file_is_left_over() -> None:
    assert {path.name.split(".")[0] for path in FILES} == PASSES.keys()
    outs = {path.name.replace(".in.ir", ".out.ir") for path in FILES}
    assert {path.name for path in FOLDER.iterdir()} == outs | {path.name for path in FILES}
