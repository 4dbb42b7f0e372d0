"""`progress.py` of the project: the log of a run that goes on, TensorBoard, the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
from cgc_torch.live import import_source
from cgc_torch.project.template import template


class Board:
    """What TensorBoard's writer was asked for."""

    made: ClassVar[list[Board]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        Board.made.append(self)

    def add_scalar(self, name: str, number: float, step: int) -> None:
        self.scalars.append((name, number, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, beside a TensorBoard of our own; what it leaves for the end of the process is in `at_exit`."""
    board: Any = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setattr(Board, "made", [])
    module: Any = import_source(template("progress.py"), "progress")
    module.at_exit = []
    monkeypatch.setattr(module.atexit, "register", module.at_exit.append)
    return module


def test_a_log_with_odd_lines_goes_on(progress: Any, tmp_path: Path) -> None:
    odd = ["123", '{"a": 1}', '{"step": "x"}', "", '{"step": 2, "lo']
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join([lines[0], *odd[:4], *lines[1:], odd[4]]))
    run = progress.Progress(tmp_path, 9, 8, 1.0, None)
    run.start(2)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == lines[:2]


def test_tensorboard_starts_at_the_checkpoint_and_ends_written(progress: Any, tmp_path: Path) -> None:
    run = progress.Progress(tmp_path, 9, 8, 1.0, None)
    run.start(4)
    run.step(5, 2.5, 0.1, show=False)
    (board,) = Board.made
    assert board.purge_step == 5, "what a killed run wrote after its last checkpoint is not shown"
    assert ("loss", 2.5, 5) in board.scalars and not board.closed
    (end,) = progress.at_exit
    end()
    assert board.closed, "a run that stops, as at a loss that is no number, loses nothing"


def test_the_picture(progress: Any, tmp_path: Path) -> None:
    run = progress.Progress(tmp_path, 3, 8, 1.0, None)
    run.start(0)
    for step in (1, 2, 3):
        run.step(step, 4.0 - step, 0.1, show=False)
    run.validation(3, 1.5)
    run.finish(tmp_path / "loss.svg")
    lines = [line for line in ElementTree.parse(tmp_path / "loss.svg").iter() if line.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 1]
