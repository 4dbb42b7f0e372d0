"""Runs to learn from: tables (CSV, JSON) and folders of training runs.

A table has a column (JSON: a field) `compute` or `flops` and one `loss`, and may have `name`, `parameters`, `tokens`;
where the compute is missing, it is 6 · parameters · tokens. JSON is a list of objects, or an object with the list as
`runs`. A folder of a run has `log.jsonl` or `metrics.jsonl`: objects with `step`, `tokens`, `flops`, and `loss` or
`val_loss` (or `validation_loss`), and `parameters` in the first of them or in `config.json` beside it. Emitted projects
write a `manifest.json` with each checkpoint instead, whose `run` has `batch`, `context`, `steps` and `flops_per_token`.
The last `val_loss` counts, or where there is none the mean of the last tenth of the losses. Where the number of `steps`
is known, a run that has not come so far is passed over: its learning rate is still to fall.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cgc.diagnostics import Diagnostic, Diagnostics, InputError

LOGS = ("log.jsonl", "metrics.jsonl")
HELD_OUT = ("val_loss", "validation_loss")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "compute": ("compute", "flops", "training_flops", "train_flops"),
    "loss": ("loss", *HELD_OUT, "test_loss", "held_out_loss"),
    "name": ("name", "model", "run"),
    "parameters": ("parameters", "params", "n_params"),
    "tokens": ("tokens",),
}
_DIGESTS = ("model", "tokens")
_LARGEST_TABLE = 50_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: `compute` in FLOPs, `loss` in nats per token, where it was read."""

    name: str
    compute: float
    loss: float
    parameters: float | None
    tokens: float | None
    source: str


def read_runs(paths: Iterable[str]) -> list[Run]:
    """Return the runs of tables, logs and folders (a folder with no log of its own stands for all below it).

    Raises:
        InputError: CG0681, something cannot be read or holds no runs; CG0682, a number is missing or impossible. With
            every fault found.
    """
    found = Diagnostics()
    runs: list[Run] = []
    for path in paths:
        try:
            runs += _read(Path(path), found)
        except InputError as error:
            for diagnostic in error.diagnostics:
                found.add(diagnostic)
    found.raise_if_any({})
    return runs


def _read(path: Path, found: Diagnostics) -> list[Run]:
    if path.is_dir():
        logs = [path / name for name in LOGS if (path / name).is_file()]
        logs = logs[:1] or sorted(log for name in LOGS for log in path.rglob(name))
        if not logs:
            hint = f"a folder of a run holds {' or '.join(LOGS)}; `cgc family` and emitted projects write them"
            _fail(path, "the folder has no logs of training runs", hint)
        runs = [run for log in logs if (run := _logged(log, found)) is not None]
        if not runs and not len(found):
            _fail(path, "no run in this folder has come to its end", "are they still training?")
        return runs
    if path.suffix == ".jsonl":
        run = _logged(path, found)
        if run is None and not len(found):
            _fail(path, "the run has not come to its end", "is it still training?")
        return [run] if run is not None else []
    return list(_table(path, found))


def _fail(path: Path, why: str, hint: str = "") -> NoReturn:
    raise InputError([Diagnostic("CG0681", f"cannot read runs from `{path}`: {why}", (), hint)])


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > _LARGEST_TABLE:
            _fail(path, f"it has {len(data):,} bytes; is it a table?")
        return data.decode("utf-8-sig")
    except OSError as error:
        _fail(path, error.strerror or str(error))
    except UnicodeDecodeError:
        _fail(path, "it is not text", "runs are CSV, JSON or JSONL")


# ---- tables


def _table(path: Path, found: Diagnostics) -> Iterator[Run]:
    text = _text(path)
    rows = _json_rows(path, text) if text.lstrip()[:1] in ("{", "[") else _csv_rows(path, text)
    count = 0
    for place, row in rows:
        count += 1
        run = _row(path, place, row, found)
        if run is not None:
            yield run
    if not count:
        _fail(path, "it has no rows")


def _csv_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text))
    try:
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        _fail(path, f"it is no CSV: {error}")
    if not lines:
        _fail(path, "it is empty")
    header = [cell.strip().lower() for cell in lines[0][1]]
    missing = _missing(header)
    if missing:
        hint = "the first line names the columns: `name,compute,loss`"
        _fail(path, f"it has no column {missing}, but {', '.join(f'`{cell}`' for cell in header[:8])}", hint)
    rows: list[tuple[str, dict[str, Any]]] = []
    for number, line in lines[1:]:
        if len(line) != len(header):
            _fail(path, f"line {number} has {len(line)} cells, the first line has {len(header)}")
        rows.append((f"line {number}", {name: cell.strip() for name, cell in zip(header, line, strict=True)}))
    return rows


def _missing(header: Iterable[str]) -> str:
    """Return what a header lacks, empty where it has enough."""
    known = set(header)

    def has(name: str) -> bool:
        return not known.isdisjoint(_NAMES[name])

    if not has("loss"):
        return "`loss`"
    if not has("compute") and not (has("parameters") and has("tokens")):
        return "`compute` (or `parameters` and `tokens`)"
    return ""


def _json_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        _fail(path, "it is not JSON" + (f": {error}" if isinstance(error, ValueError) else ""))
    if isinstance(value, dict) and isinstance(value.get("runs"), list):
        value = value["runs"]
    elif isinstance(value, dict) and not _missing(str(name).lower() for name in value):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        _fail(path, "it is no list of runs", 'write `[{"name": "small", "compute": 1e15, "loss": 3.1}, …]`')
    return [(f"run {number}", {str(k).lower(): v for k, v in row.items()}) for number, row in enumerate(value, 1)]


def _row(path: Path, place: str, row: Mapping[str, Any], found: Diagnostics) -> Run | None:
    wrong: list[str] = []

    def given(name: str) -> Any:
        return next((row[key] for key in _NAMES[name] if key in row and row[key] not in (None, "")), None)

    def number(name: str) -> float | None:
        value = given(name)
        if value is None:
            return None
        made = _number(value)
        if made is None or made <= 0:
            wrong.append(f"`{name}` is {str(value)[:40]!r}")
        return made

    compute, loss, parameters, tokens = (number(name) for name in ("compute", "loss", "parameters", "tokens"))
    if compute is None and parameters and tokens:
        compute = 6 * parameters * tokens
    if not wrong and (compute is None or loss is None):
        wrong.append("`compute` is missing" if compute is None else "`loss` is missing")
    if wrong:
        hint = "computes, losses, parameters and tokens are finite numbers above 0; leave out a run that diverged"
        found.add(Diagnostic("CG0682", f"{place} of `{path}`: {', '.join(wrong)}", (), hint))
        return None
    assert compute is not None and loss is not None
    name = given("name")
    return Run(str(name) if name is not None else place, compute, loss, parameters, tokens, path.as_posix())


def _number(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# ---- logs


def _logged(path: Path, found: Diagnostics) -> Run | None:
    """Return the run of a log; None where it has not come to its end, or has a fault."""
    lines: list[dict[str, Any]] = []
    whole = _text(path).splitlines()
    for number, line in enumerate(whole, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(whole):  # a run that was killed, or goes on, may leave half a line behind
                break
            _fail(path, f"line {number} is not JSON")
        if not isinstance(value, dict):
            _fail(path, f"line {number} is no object")
        lines.append(value)
    config = _about(path.parent)
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    held_out = [line[name] for line in lines for name in HELD_OUT if line.get(name) is not None]
    steps, last = _number(config.get("steps")), _number(lines[-1].get("step")) if lines else None
    unfinished = steps is not None and last is not None and last < steps
    if unfinished or (not losses and not held_out):
        return None
    tail = [value for value in map(_number, losses[-max(1, len(losses) // 10) :]) if value is not None]
    trained = sum(tail) / len(tail) if tail else math.nan
    row: dict[str, Any] = {"loss": held_out[-1] if held_out else trained}
    for name in ("parameters", "tokens", "flops"):
        said = [line[name] for line in lines if line.get(name) is not None]
        row[name] = said[-1] if said else config.get(name)
    per_step = [_number(config.get(name)) for name in ("batch", "context")]
    if row["tokens"] is None and last is not None and all(per_step):
        row["tokens"] = last * math.prod(size for size in per_step if size is not None)
    per_token, tokens = _number(config.get("flops_per_token")), _number(row["tokens"])
    if row["flops"] is None and per_token is not None and tokens is not None:
        row["flops"] = per_token * tokens
    row["name"] = config.get("model") or config.get("name") or _folder_name(path)
    return _row(path, "the log", row, found)


def _folder_name(log: Path) -> str:
    """Return what to call a run that says no name: its folder, or that of its project."""
    folder = log.resolve().parent
    return (folder.parent.name if folder.name == "out" else folder.name) or log.stem


def _about(folder: Path) -> dict[str, Any]:
    """Return what is known of a run beside its log: its `config.json`, or the manifest of its last checkpoint."""
    config = _object(folder / "config.json")
    if config:
        return config
    manifests = sorted(folder.glob("step_*/manifest.json"))
    run = _object(manifests[-1]).get("run") if manifests else None
    # its `model` and `tokens` are digests
    return {name: value for name, value in run.items() if name not in _DIGESTS} if isinstance(run, dict) else {}


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
