"""What a project does with a trained model: sampling, weights in files and checkpoints, and lm-eval."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import checkpoint as dcp

import cgc

MODEL = """use std/llama

model small = llama(vocab=256, context=16, layers=2, width=16, heads=4, kv_heads=2, ffn=24, std=0.5)

train {
    steps = 3 steps
    batch = 2 sequences
    lr    = 1e-3
}
"""
FILES = ("decode", "generate", "weights", "evaluate", "tokenizer", "model", "checkpoint", "progress", "train", "data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("project")
    (made / "small.cg").write_text(MODEL)
    model = cgc.load(made / "small.cg")
    model.compile("torch", made, weights=model.initialize(3))
    return made


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a project, whose files can be imported by their names."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    kept = {name: sys.modules.pop(name) for name in FILES if name in sys.modules}
    yield folder
    for name in FILES:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def greedy(model: torch.nn.Module, tokens: list[int], count: int) -> list[int]:
    """Continue by the likeliest tokens, without a cache."""
    with torch.no_grad():
        for _ in range(count):
            tokens = [*tokens, int(model(torch.tensor([tokens]))[0, -1].argmax())]
    return tokens[-count:]


def test_sampling(project: Path) -> None:
    generate, weights = load("generate"), load("weights")
    model = weights.load_model(project / "model.safetensors")
    prompt = list(b"abc")

    def drawn(count: int = 12, seed: int = 0, **settings: Any) -> list[int]:
        return list(generate.generate(model, prompt, count, generate.Sampling(**settings), seed))

    likeliest = greedy(model, prompt, 12)
    assert drawn(temperature=0) == drawn(top_k=1) == drawn(top_p=1e-9) == drawn(temperature=1e-6) == likeliest
    assert drawn() == drawn() != drawn(seed=1)
    assert set(drawn(200, top_k=3)) <= set(range(256)) and len(drawn(200)) == 200


def test_what_is_drawn_follows_the_probabilities(project: Path) -> None:
    generate = load("generate")
    logits, random = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])), torch.Generator().manual_seed(0)

    def shares(**settings: Any) -> list[float]:
        drawn = [generate.draw(logits, generate.Sampling(**settings), random) for _ in range(2000)]
        return [drawn.count(token) / len(drawn) for token in range(4)]

    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)
    assert shares(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(top_p=0.81) == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.04)
    assert shares(vocab=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(temperature=0.5) == pytest.approx([0.685, 0.247, 0.062, 0.007], abs=0.04)


def test_characters_are_printed_whole(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, out = load("generate"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    printer, seen = generate.Printer(load("tokenizer").Bytes()), []
    for byte in "aß€😀".encode() + b"\xff":
        printer.put(byte)
        seen.append(out.getvalue())
    printer.finish()
    assert seen == ["a", "a", "aß", "aß", "aß", "aß€", "aß€", "aß€", "aß€", "aß€😀", "aß€😀"]
    assert out.getvalue() == "aß€😀\ufffd"


def test_the_command_line(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    generate = load("generate")

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["generate.py", *words])
        generate.main()
        return capsys.readouterr().out

    text = run("To be", "--weights", "model.safetensors", "--tokens", "20", "--seed", "4")
    assert text.startswith("To be") and text == run(
        "To be", "--weights", "model.safetensors", "--tokens", "20", "--seed", "4"
    )
    for words, says in (
        (["--weights", "nothing.safetensors"], "cannot read nothing.safetensors"),
        (["--weights", "generate.py"], "holds no checkpoint"),
        (["", "--weights", "model.safetensors"], "prompt is empty"),
    ):
        with pytest.raises(SystemExit, match=says):
            run(*words)
    wrong = [["--temperature", "-1"], ["--temperature", "nan"], ["--top-p", "0"], ["--top-p", "nan"]]
    for words in [*wrong, ["--top-k", "0"], ["--tokens", "-1"]]:
        with pytest.raises(SystemExit) as caught:
            run(*words)
        assert caught.value.code == 2


def test_only_tokens_with_a_text_are_drawn(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model's vocabulary is often padded: what stands behind the tokenizer's last token has no text."""
    generate, tokenizer = load("generate"), load("tokenizer")
    monkeypatch.setattr(tokenizer.Bytes, "size", 100)
    command = ["generate.py", "abc", "--weights", "model.safetensors", "--tokens", "300", "--data", "none"]
    monkeypatch.setattr(generate, "tokenizer_of", lambda _: tokenizer.Bytes())
    monkeypatch.setattr(sys, "argv", command)
    generate.main()
    assert max(capsys.readouterr().out.encode()) < 100


@pytest.mark.parametrize(
    "words", [["--lr", "-1"], ["--lr", "nan"], ["--peak-flops", "0"], ["--steps", "0"], ["--seed", "-1"]]
)
def test_numbers_that_make_no_run(project: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as caught:
        load("train").arguments()
    assert caught.value.code == 2


def test_a_device_that_is_not_here_is_no_choice(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("train", "generate"):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--device", "cuda"])
        with pytest.raises(SystemExit) as caught:
            load(name).arguments()
        assert caught.value.code == 2


def test_weights_of_checkpoints_and_files(project: Path, tmp_path: Path) -> None:
    weights = load("weights")
    model = weights.load_model(project / "model.safetensors")
    for number in (1, 20):
        state = {name: tensor + number for name, tensor in model.state_dict().items()}
        dcp.save({"model": state, "optimizer": {}}, checkpoint_id=tmp_path / f"step_{number:08}", no_dist=True)
    last = weights.load_model(tmp_path)
    weights.write_safetensors(tmp_path / "made.safetensors", last.state_dict())
    found = load_file(tmp_path / "made.safetensors")
    again = weights.load_model(tmp_path / "made.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor + 20) and torch.equal(again[name], tensor + 20)
    (tmp_path / "cut.safetensors").write_bytes((project / "model.safetensors").read_bytes()[:-10])
    (tmp_path / "text.safetensors").write_text("no tensors at all")
    del found["norm_f.weight"]
    weights.write_safetensors(tmp_path / "less.safetensors", found)
    for name in ("cut", "text", "less"):
        with pytest.raises(weights.WeightsError):
            weights.load_model(tmp_path / f"{name}.safetensors")


QUESTIONS = [
    {"question": "abc", "choices": ["d", "zz"], "answer": 0},
    {"question": "KING HENRY THE SIXTH, longer than the context", "choices": ["x", "yz"], "answer": 1},
]
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
output_type: {kind}
test_split: test
doc_to_text: "{text}"
doc_to_target: "{target}"
target_delimiter: ""
generation_kwargs:
  max_gen_toks: 4
  until: ["$"]
metric_list:
  - metric: {metric}
    aggregation: {aggregation}
    higher_is_better: true
"""


def test_lm_eval_runs_local_tasks_offline(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'cgc[eval]'")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    rows = [json.dumps(question) for question in QUESTIONS]
    (project / "questions.jsonl").write_text("\n".join(rows) + "\n")
    kinds = {
        "choices": ("multiple_choice", "{{question}}", "{{answer}}", "acc", "mean"),
        "whole": ("loglikelihood_rolling", "", "{{question}}", "bits_per_byte", "bits_per_byte"),
        "next": ("generate_until", "{{question}}", "{{choices[0]}}", "exact_match", "mean"),
    }
    for name, (kind, text, target, metric, aggregation) in kinds.items():
        task = TASK.format(name=name, kind=kind, text=text, target=target, metric=metric, aggregation=aggregation)
        if kind == "multiple_choice":
            task += 'doc_to_choice: "{{choices}}"\n'
        (project / f"{name}.yaml").write_text(task)
    words = ["evaluate.py", *(f"{name}.yaml" for name in kinds), "--weights", "model.safetensors", "-o", "found.json"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((project / "found.json").read_text())
    model = load("weights").load_model(project / "model.safetensors")

    def score(text: str, start: int) -> float:
        tokens = list(text.encode())
        with torch.no_grad():
            row = tokens[-17:]
            logs = torch.log_softmax(model(torch.tensor([row[:-1]])), -1)[0]
        return sum(float(logs[at - 1, row[at]]) for at in range(len(row) - (len(tokens) - start), len(row)))

    right = 0
    for question in QUESTIONS:
        before = str(question["question"])
        scores = [score(before + choice, len(before)) for choice in question["choices"]]
        right += scores.index(max(scores)) == question["answer"]
    assert found["choices"]["acc,none"] == right / len(QUESTIONS)
    total = 0.0
    for question in QUESTIONS:
        text = str(question["question"])
        pieces = [text[at : at + 16] for at in range(0, len(text), 16)]
        starts = ["\n", *(piece[-1] for piece in pieces)]
        total += sum(score(start + piece, 1) for start, piece in zip(starts, pieces, strict=False))
    size = sum(len(str(question["question"])) for question in QUESTIONS)
    assert found["whole"]["bits_per_byte,none"] == pytest.approx(-total / size / 0.6931471805599453, rel=1e-4)
    assert "exact_match,none" in found["next"]


@pytest.fixture
def evaluate(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`evaluate.py` over what it takes from lm-eval, which need not be installed."""
    parts = {
        "lm_eval": {"simple_evaluate": lambda **_: {"results": {}}},
        "lm_eval.api": {},
        "lm_eval.api.instance": {"Instance": SimpleNamespace},
        "lm_eval.api.model": {"LM": type("LM", (), {})},
        "lm_eval.tasks": {"TaskManager": lambda include_path: include_path},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return load("evaluate")


def _adapter(evaluate: ModuleType) -> Any:
    model = load("weights").load_model(Path("model.safetensors"))
    return evaluate.Adapter(model, load("tokenizer").Bytes(), 4)


def test_settings_of_a_task_are_those_of_sampling(evaluate: ModuleType) -> None:
    """A top k of 0 is none; without `do_sample` the likeliest is taken, whatever else is said."""
    adapter = _adapter(evaluate)

    def said(**settings: Any) -> str:
        request = SimpleNamespace(args=("abc", {"max_gen_toks": 8, **settings}))
        (text,) = adapter.generate_until([request])
        return str(text)

    warm = said(do_sample=True)
    assert said(do_sample=True, top_k=0) == said(do_sample=True, top_k=None) == warm
    likeliest = said()
    assert said(do_sample=True, top_k=1) == said(top_k=0, temperature=3.0) == likeliest != warm
    assert bytes(greedy(adapter._model, list(b"abc"), 8)).decode(errors="replace") == likeliest
    end = next(letter for letter in likeliest if letter.isascii())
    assert said(until=end) == said(until=["none of it", end]) == likeliest[: likeliest.index(end)]


def test_tokens_that_the_model_does_not_know_are_said(evaluate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "VOCAB", 100)
    adapter = _adapter(evaluate)
    for ask in (
        lambda: adapter.loglikelihood([SimpleNamespace(args=("abc", "xyz"))]),
        lambda: adapter.loglikelihood_rolling([SimpleNamespace(args=("xyz",))]),
        lambda: adapter.generate_until([SimpleNamespace(args=("xyz", {}))]),
    ):
        with pytest.raises(load("weights").WeightsError, match="does not know all tokens of 'xyz'"):
            ask()
    adapter.loglikelihood([SimpleNamespace(args=("abc", "abc"))])


def test_what_evaluation_lacks_is_said(
    evaluate: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *words, "--weights", "model.safetensors"])
        evaluate.main()

    with pytest.raises(SystemExit) as caught:
        run("nowhere.yaml")
    assert caught.value.code == 2 and "there is no nowhere.yaml" in capsys.readouterr().err
    run("a_name", "-o", str(project / "none.json"))
    assert json.loads((project / "none.json").read_text()) == {}

    def unknown(**settings: Any) -> None:
        raise ValueError(f"no task {settings['tasks'][0]}")

    monkeypatch.setattr(evaluate, "simple_evaluate", unknown)
    with pytest.raises(SystemExit, match=r"^evaluate.py: no task a_name$"):
        run("a_name")
    monkeypatch.delitem(sys.modules, "evaluate")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SystemExit, match="pip install lm-eval"):
        load("evaluate")


def test_source_is_clean(folder: Path) -> None:
    files = [str(folder / f"{name}.py") for name in ("generate", "evaluate", "weights")]
    for words in (
        ["format", "--isolated", "--check", "--diff"],
        ["check", "--isolated", "--select=E4,E7,E9,F,UP,B,C4,C90,SIM,RUF,PTH,W", "--ignore=RUF002"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *files], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_source_is_strictly_typed(folder: Path, tmp_path: Path) -> None:
    words = ["mypy", "--strict", f"--cache-dir={tmp_path}", "generate.py", "weights.py"]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
