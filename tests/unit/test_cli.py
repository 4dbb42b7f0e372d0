"""The command line: exit statuses, JSON, messages, and that nothing is half-written; never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cgc.cli import main
from cgc.driver import DUMPS
from cgc.ir.read import parse_graph
from cgc.version import VERSION

TINY = Path(__file__).parents[2] / "examples/tiny.cg"
FAULTY = "model m(width = 8) {\n    input x[batch, width]\n    output y = x + nothing\n}\n"
UNFORMATTED = "model m(width=8) {\ninput x[batch,width]\noutput y=x+1\n}\n"
FORMATTED = "model m(width = 8) {\n    input x[batch, width]\n    output y = x + 1\n}\n"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in a folder of its own, with one good and some bad files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(TINY, "tiny.cg")
    Path("faulty.cg").write_text(FAULTY)
    Path("binary.cg").write_bytes(bytes(range(256)))
    Path("folder.cg").mkdir()
    Path("blocks.cg").write_text("block f(x) {\n    return x + 1\n}\n")
    Path("two.cg").write_text(FORMATTED + "\n" + FORMATTED.replace("model m", "model n"))


def run(*arguments: str) -> Result:
    """Run `cgc`; whatever it says, it says without a traceback."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def succeed(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def as_json(*arguments: str) -> Any:
    return json.loads(succeed(*arguments, "--format", "json"))


def files() -> set[str]:
    """Return everything in the folder, what is hidden too."""
    return {path.as_posix() for path in Path().rglob("*")}


ON_A_FILE = [
    ("check", "FILE"),
    ("params", "FILE"),
    ("graph", "FILE", "-o", "picture.dot"),
    ("compile", "FILE", "--target", "torch", "-o", "out"),
    ("verify", "FILE", "--target", "torch"),
]


def on(command: tuple[str, ...], file: str) -> list[str]:
    return [file if word == "FILE" else word for word in command]


@pytest.mark.parametrize("command", ON_A_FILE, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("missing.cg", "CG0001"),
        ("no/such/folder/x.cg", "CG0001"),
        ("folder.cg", "CG0001"),
        ("binary.cg", "CG0003"),
        ("faulty.cg", "CG0301"),
    ],
)
def test_bad_files(command: tuple[str, ...], file: str, code: str) -> None:
    before = files()
    result = run(*on(command, file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error[{code}]" in result.stderr and file in result.stderr
    answer = run(*on(command, file), "--format", "json")
    data = json.loads(answer.stdout)
    assert (answer.exit_code, answer.stderr, data["ok"]) == (1, "", False)
    assert [diagnostic["code"] for diagnostic in data["diagnostics"]] == [code]
    assert files() == before


@pytest.mark.parametrize("command", [c for c in ON_A_FILE if c[0] != "check"], ids=lambda command: command[0])
@pytest.mark.parametrize("file", ["blocks.cg", "two.cg"])
def test_a_file_without_one_model(command: tuple[str, ...], file: str) -> None:
    result = run(*on(command, file))
    assert result.exit_code == 1
    assert "error[CG0406]" in result.stderr
    assert "help: " in result.stderr


@pytest.mark.parametrize("command", ON_A_FILE, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("setting", "status", "says"),
    [
        ("width", 2, "--set name=value"),
        ("=4", 2, "--set name=value"),
        ("width=", 2, "--set name=value"),
        ("3=4", 2, "--set name=value"),
        ("wdth=4", 2, "--set wdth: `gpt2` has no `wdth`; did you mean `width`?"),
        ("zzz=4", 2, "--set zzz: `gpt2` has no `zzz`; it has `vocab`"),
        ("width=4x", 2, "`4x` is not a number"),
        ("width=1.2.3", 2, "`1.2.3` is not a number"),
        ("width=-", 2, "`-` is not a number"),
        ("width=1e400", 2, "`1e400` is too large"),
        ("width=1e999999999", 2, "`1e999999999` is not a number"),
        ("width=10", 1, "CG0205"),
        ("width=-128", 1, "is -32"),
        ("layers=0", 1, "CG0208"),
        ("width=wide", 1, "CG0"),
        ("activation=gelo", 1, "CG0"),
        ("vocab=99999999999999999999", 1, "CG0208"),
    ],
)
def test_bad_settings(command: tuple[str, ...], setting: str, status: int, says: str) -> None:
    before = files()
    result = run(*on(command, "tiny.cg"), "--set", setting)
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr
    assert files() == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["check"],
        ["check", "tiny.cg", "tiny.cg"],
        ["check", "tiny.cg", "--format", "yaml"],
        ["check", "tiny.cg", "--dump-after", "fold"],
        ["check", "tiny.cg", "--nothing"],
        ["params"],
        ["params", "tiny.cg", "--model", "tinny"],
        ["fmt"],
        ["graph", "tiny.cg"],
        ["graph", "tiny.cg", "-o", "x.gif"],
        ["graph", "tiny.cg", "-o", "x.dot", "--depth", "-1"],
        ["compile", "tiny.cg"],
        ["compile", "tiny.cg", "--target", "torch"],
        ["compile", "tiny.cg", "--target", "torhc", "-o", "out"],
        ["compile", "tiny.cg", "--target", "torch", "-o", "tiny.cg"],
        ["compile", "tiny.cg", "--target", "torch", "-o", "out", "--seq", "0"],
        ["compile", "tiny.cg", "--target", "torch", "-o", "out", "--weights", "w", "--seed", "1"],
        ["compile", "tiny.cg", "--target", "torch", "-o", "out", "--seed", "one"],
        ["compile", "tiny.cg", "--target", "torch", "-o", ""],
        ["compile", "tiny.cg", "--target", "wse-sim", "-o", "out", "--batch", "10000000000000000000"],
        ["compile", "tiny.cg", "--target", "onnx", "-o", "out", "--copy-weights"],
        ["compile", "tiny.cg", "--target", "onnx", "-o", "out", "--last-logits"],
        ["compile", "tiny.cg", "--target", "torch", "-o", "out", "--last-logits"],
        ["compile", "tiny.cg", "--target", "onnx", "-o", "out", "--seed", "1", "--copy-weights"],
        ["compile", "tiny.cg", "--target", "onnx", "-o", "out", "--weights", "w", "--copy-weights", "--quantize=int4"],
        ["verify", "tiny.cg", "--target", "torhc"],
        ["verify", "tiny.cg", "--seed", "x"],
        ["verify", "tiny.cg", "--tokens", "8"],
        ["verify", "tiny.cg", "--weights", "w", "--full"],
        ["explain"],
        ["explain", "CG9999"],
        ["completion"],
        ["completion", "csh"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str]) -> None:
    before = files()
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr and result.stdout == ""
    assert files() == before


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["compile", "tiny.cg", "--target", "torhc", "-o", "out"], "did you mean `torch`?"),
        (["compile", "tiny.cg", "--target", "zzz", "-o", "out"], "there are onnx, torch, wse-sim"),
        (["verify", "tiny.cg", "--target", "onx"], "did you mean `onnx`?"),
        (["params", "tiny.cg", "--model", "tinny"], "did you mean `tiny`?"),
        (["explain", "CG020"], "did you mean CG0"),
    ],
)
def test_wrong_usage_says_what_was_meant(arguments: list[str], hint: str) -> None:
    assert hint in run(*arguments).stderr


IGNORED = {
    "torch": [
        ("--batch", "2"),
        ("--seq", "4"),
        ("--device", "wse2"),
        ("--flat",),
        ("--wafers", "2"),
        ("--run", "pipelined"),
        ("--kv-cache",),
    ],
    "onnx": [("--device", "wse2"), ("--mode", "decode"), ("--recompute",)],
    "wse-sim": [("--flat",), ("--seed", "1"), ("--weights", "w"), ("--opset", "18"), ("--kv-cache",)],
}


@pytest.mark.parametrize(("target", "flags"), [(target, flags) for target in IGNORED for flags in IGNORED[target]])
def test_no_target_ignores_an_option(target: str, flags: tuple[str, ...]) -> None:
    before = files()
    result = run("compile", "tiny.cg", "--target", target, "-o", "out", *flags)
    assert result.exit_code == 2
    assert f"{flags[0]}: the target `{target}` has no use for it; `" in result.stderr
    assert files() == before


def test_check() -> None:
    text = succeed("check", "tiny.cg")
    assert text.startswith("tiny: 834,304 parameters; tokens i64[batch, seq]")
    assert succeed("check", "blocks.cg") == "blocks.cg: no faults (0 models, 1 blocks, 0 devices)\n"
    assert len(succeed("check", "two.cg").splitlines()) == 2
    data = as_json("check", "tiny.cg", "--set", "layers=2", "--set", "activation=silu")
    assert (data["ok"], data["models"]) == (True, ["tiny"])
    (found,) = data["programs"]
    assert found["outputs"] == {"logits": "f32[batch, seq, vocab=256]"}
    assert (found["sizes"]["layers"], found["sizes"]["activation"], found["sizes"]["ffn"]) == (2, "silu", 512)
    assert found["parameters"] == 834304 - 2 * (12 * 128**2 + 13 * 128)


@pytest.mark.parametrize(("written", "count"), [("8", 8), ("1K", 1000), ("1_6", 16), ("0.512K", 512)])
def test_numbers_of_a_setting(written: str, count: int) -> None:
    data = as_json("params", "tiny.cg", "--set", f"vocab={written}")
    assert data["params"][0]["shape"] == [count, 128]


def test_negative_numbers_of_a_setting() -> None:
    Path("m.cg").write_text("model m(width = 8, by = 2.0) {\n    input x[batch, width]\n    output y = x * by\n}\n")
    assert as_json("check", "m.cg", "--set", "by=-0.5")["programs"][0]["sizes"]["by"] == -0.5


@pytest.mark.parametrize("name", DUMPS)
@pytest.mark.parametrize("command", [("check", "tiny.cg"), ("compile", "tiny.cg", "--target", "torch", "-o", "out")])
def test_dump_after(name: str, command: tuple[str, ...]) -> None:
    before = files()
    graph = parse_graph(succeed(*command, "--set", "layers=2", "--dump-after", name))
    assert graph.name == "tiny"
    assert ("h.1.mlp.up.w" in {param.name for param in graph.params}) == (name == "unroll")
    assert files() == before


@pytest.mark.parametrize(
    "command", [("check", "tiny.cg"), ("params", "tiny.cg"), ("compile", "tiny.cg", "--target", "torch", "-o", "out")]
)
def test_timings_go_to_stderr(command: tuple[str, ...]) -> None:
    result = run(*command, "--timings")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert [line.split(" ms  ")[1] for line in lines][:2] == ["read", "parse and elaborate"]
    assert all(float(line.split(" ms  ")[0]) >= 0 for line in lines)
    assert result.stdout.splitlines()[-1] == succeed(*command).splitlines()[-1]


def test_params() -> None:
    data = as_json("params", "tiny.cg")
    assert (data["model"], data["family"], data["total"]) == ("tiny", "gpt2", 834304)
    assert sum(param["count"] for param in data["params"]) == data["total"]
    by_name = {param["name"]: param for param in data["params"]}
    assert by_name["h.mlp.up.w"]["dims"] == ["layers", "width", "ffn"]
    assert by_name["h.mlp.up.w"]["init"] == {"distribution": "truncated_normal", "mean": 0.0, "std": 0.02}
    assert by_name["ln_f.scale"]["init"] == {"distribution": "constant", "value": 1.0, "std": 0.0}
    table = succeed("params", "tiny.cg")
    assert all(param["name"] in table for param in data["params"])
    assert as_json("params", "two.cg", "--model", "n")["model"] == "n"


def test_fmt() -> None:
    Path("new.cg").write_text(UNFORMATTED)
    result = run("fmt", "--check", "new.cg", "two.cg")
    assert (result.exit_code, result.stdout) == (1, "would change new.cg\n")
    assert Path("new.cg").read_text() == UNFORMATTED
    assert succeed("fmt", "new.cg", "two.cg") == "formatted new.cg\n"
    assert Path("new.cg").read_text() == FORMATTED
    assert succeed("fmt", "new.cg", "tiny.cg") == ""
    assert succeed("fmt", "--check", "new.cg", "tiny.cg") == ""


def test_fmt_follows_a_link_and_keeps_permissions() -> None:
    Path("new.cg").write_text(UNFORMATTED)
    Path("new.cg").chmod(0o640)
    Path("link.cg").symlink_to("new.cg")
    assert succeed("fmt", "link.cg") == "formatted link.cg\n"
    assert Path("link.cg").is_symlink()
    assert Path("new.cg").read_text() == FORMATTED
    assert Path("new.cg").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("file", "code"), [("missing.cg", "CG0001"), ("folder.cg", "CG0001"), ("binary.cg", "CG0003"), ("bad.cg", "CG010")]
)
def test_fmt_leaves_what_it_cannot_read(file: str, code: str) -> None:
    Path("bad.cg").write_text("model m( {\n")
    before = files()
    result = run("fmt", file)
    assert result.exit_code == 1
    assert f"error[{code}" in result.stderr
    assert files() == before
    assert Path("bad.cg").read_text() == "model m( {\n"


def test_graph() -> None:
    assert succeed("graph", "tiny.cg", "-o", "new/picture.dot") == "wrote new/picture.dot\n"
    assert Path("new/picture.dot").read_text().startswith('digraph "tiny" {')
    assert as_json("graph", "tiny.cg", "-o", "a.dot", "--depth", "0") == {"ok": True, "written": ["a.dot"]}
    assert len(Path("a.dot").read_text()) < len(Path("new/picture.dot").read_text())


@pytest.mark.parametrize("place", ["tiny.cg/x.dot", "folder.cg/taken.dot"])
def test_a_picture_that_cannot_be_written(place: str) -> None:
    Path("folder.cg/taken.dot").mkdir()
    before = files()
    result = run("graph", "tiny.cg", "-o", place)
    assert result.exit_code == 1
    assert "error[CG0004]" in result.stderr and place in result.stderr
    assert files() == before


def test_without_graphviz_pictures_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    before = files()
    result = run("graph", "tiny.cg", "-o", "x.svg")
    assert result.exit_code == 1
    assert "error[CG0005]" in result.stderr and "`.dot`" in result.stderr
    assert files() == before


def test_compile() -> None:
    data = as_json("compile", "tiny.cg", "--target", "torch", "-o", "a/b", "--seed", "3")
    assert data["ok"] and data["written"]
    assert {Path(path).parent.as_posix() for path in data["written"]} == {"a/b"}
    assert files() >= set(data["written"])
    assert not [path for path in files() if path.endswith(".part")]
    again = succeed("compile", "tiny.cg", "--target", "torch", "-o", "a/b", "--seed", "3")
    assert again.splitlines()[-len(data["written"]) :] == [f"wrote {path}" for path in data["written"]]


@pytest.mark.parametrize("place", ["tiny.cg/out", "/dev/null/out", "x" * 300, f"new/sub/{'x' * 300}"])
def test_a_folder_that_cannot_be_made(place: str) -> None:
    before = files()
    result = run("compile", "tiny.cg", "--target", "torch", "-o", place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error[CG0004]" in result.stderr
    assert files() == before and not Path("new").exists()


def test_a_folder_in_the_place_of_a_file_leaves_all_as_it_was() -> None:
    names = [Path(path).name for path in as_json("compile", "tiny.cg", "--target", "torch", "-o", "a")["written"]]
    Path("b").mkdir()
    Path("b", names[0]).write_text("old")
    Path("b", names[-1]).mkdir()
    result = run("compile", "tiny.cg", "--target", "torch", "-o", "b")
    assert result.exit_code == 1 and "error[CG0004]" in result.stderr and names[-1] in result.stderr
    assert sorted(path.name for path in Path("b").iterdir()) == sorted({names[0], names[-1]})
    assert Path("b", names[0]).read_text() == "old"


def test_what_a_target_refuses_is_a_diagnostic() -> None:
    before = files()
    result = run("compile", "tiny.cg", "--target", "wse-sim", "-o", "out", "--device", "nothing")
    assert result.exit_code == 1
    assert "error[CG0" in result.stderr
    result = run("compile", "tiny.cg", "--target", "torch", "-o", "out", "--weights", "missing.safetensors")
    assert result.exit_code == 1
    assert "error[CG0" in result.stderr
    assert files() == before


def test_verify() -> None:
    data = as_json("verify", "tiny.cg", "--target", "torch", "--set", "layers=1")
    assert data["ok"] is True


def test_explain() -> None:
    text = succeed("explain", "cg0203")
    assert text.startswith("CG0203: Two tensors do not line up\n") and "wrong:" in text
    data = as_json("explain", "CG0203")
    assert data["code"] == "CG0203" and data["title"] and data["explanation"].endswith(".")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_CGC_COMPLETE" in succeed("completion", shell)


def test_version_and_help() -> None:
    assert VERSION in succeed("--version")
    for name in main.commands:
        assert f"Usage: main {name} " in succeed(name, "-h")
