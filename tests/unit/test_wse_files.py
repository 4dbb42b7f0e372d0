"""The wafer target's files: `placement.json` keeps to its schema, the picture is XML, both are the same each time."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cgc_wse import TARGET
from cgc_wse.data import FORMAT, FORMAT_VERSION
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from wafer_plans import LAYERS, ONE, TRAIN, example, program_of

from cgc.program import Program
from cgc.target import CompileOptions, TargetError

SVG = "{http://www.w3.org/2000/svg}"
SCHEMA: dict[str, Any] = json.loads(files("cgc_wse").joinpath("placement.schema.json").read_text(encoding="utf-8"))
CASES = [
    ("tiny.cg", "tiny16"),
    ("tiny.cg", "wse2"),
    ("from_scratch.cg", "wse1"),
    ("llama_8b.cg", "wse1"),
    ("cerebras_gpt/111m.cg", "wse3"),
    ("cerebras_gpt/13b.cg", "wse2"),
]


def written(program: Program, device: str, folder: Path) -> dict[str, bytes]:
    """Return the files that the target writes, by name."""
    found: dict[str, bytes] = {}
    for artifact in TARGET.compile(program, CompileOptions(device=device)).artifacts:
        artifact.write(folder / artifact.name)
        found[artifact.name] = (folder / artifact.name).read_bytes()
    return found


def check_files(found: dict[str, bytes], program: Program) -> None:
    """Check both files, and that they show the same blocks."""
    data = json.loads(found["placement.json"])
    Draft202012Validator(SCHEMA).validate(data)
    assert data["model"] == program.name
    assert data["device"]["cores"] == data["device"]["columns"] * data["device"]["rows"]
    for phase in data["phases"]:
        for block in phase["blocks"]:
            assert block["cores"] == block["width"] * block["height"]
            assert block["cycles"]["total"] == max(block["cycles"][name] for name in ("compute", "sram", "fabric"))
            assert block["cycles"][block["bound"]] == block["cycles"]["total"]
    root = ET.fromstring(found["placement.svg"])
    assert root.tag == f"{SVG}svg"
    titles = " ".join(title.text or "" for title in root.iter(f"{SVG}title"))
    for block in data["phases"][0]["blocks"]:
        assert block["path"] in titles


def test_the_schema_is_one_and_of_the_version_that_is_written() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["format"] == {"const": FORMAT}
    assert SCHEMA["properties"]["version"] == {"const": FORMAT_VERSION}
    assert SCHEMA["title"] == f"{FORMAT}, version {FORMAT_VERSION}"


def test_the_schema_turns_down_what_is_no_placement(tmp_path: Path) -> None:
    data = json.loads(written(program_of(ONE), "tiny16", tmp_path)["placement.json"])
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid(data)
    changes: tuple[dict[str, Any], ...] = ({"version": 2}, {"mode": "both"}, {"phases": []}, {"extra": 1})
    for change in changes:
        assert not validator.is_valid({**data, **change})
    assert not validator.is_valid({name: value for name, value in data.items() if name != "job"})


@pytest.mark.parametrize(("name", "device"), CASES)
def test_examples(name: str, device: str, tmp_path: Path) -> None:
    program = example(name)
    found = written(program, device, tmp_path)
    assert sorted(found) == ["placement.json", "placement.svg", "trace.json", "viewer.html"]
    check_files(found, program)
    assert written(program, device, tmp_path) == found
    assert written(example(name), device, tmp_path) == found


@pytest.mark.parametrize("mode", ["train", "prefill", "decode"])
@pytest.mark.parametrize("run", ["pipelined", "streaming"])
def test_every_mode_keeps_to_the_schema(mode: str, run: str, tmp_path: Path) -> None:
    program = example("tiny.cg")
    options = CompileOptions(device="wse2", mode=mode, run=run, batch=4, wafers=2)
    found = {artifact.name: artifact for artifact in TARGET.compile(program, options).artifacts}
    for artifact in found.values():
        artifact.write(tmp_path / artifact.name)
    data = json.loads((tmp_path / "placement.json").read_text(encoding="utf-8"))
    Draft202012Validator(SCHEMA).validate(data)
    assert data["job"]["wafers"] == 2
    assert data["job"]["batch"] == 4
    assert data["mode"] == {"pipelined": "resident", "streaming": "streaming"}[run]
    assert (data["layout"] is not None) == (run == "streaming" and mode != "decode")
    ET.fromstring((tmp_path / "placement.svg").read_text(encoding="utf-8"))


NAMES = st.text("abcxyz_", min_size=1, max_size=30).filter(lambda name: name.isidentifier() and name != "x")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(NAMES, st.sampled_from(("one", "layers")), st.booleans(), st.integers(1, 40))
def test_any_names_and_sizes(
    tmp_path_factory: pytest.TempPathFactory, name: str, which: str, train: bool, width: int
) -> None:
    text = (
        (ONE if which == "one" else LAYERS)
        .replace("output y", f"output {name}")
        .replace("width = 8", f"width = {width}")
    )
    program = program_of(text + (TRAIN if train else ""))
    folder = tmp_path_factory.mktemp("wafer")
    try:
        found = written(program, "tiny16", folder)
    except TargetError as error:
        assert error.code.startswith("CG06")
        return
    check_files(found, program)
