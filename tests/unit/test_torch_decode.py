"""`decode.py`: token by token gives what the whole sequence gives; formatted, lint-clean, typed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cgc_torch.cached import emit_cached
from cgc_torch.source import emit, model_class
from decodable_models import MODELS

from cgc.driver import load_program
from cgc.elaborate.files import elaborate_file
from cgc.program import Program

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = "E4,E7,E9,F,I,UP,B,C4,C90,SIM,RUF,PTH,W"
SMALL: dict[str, dict[str, Any]] = {
    "tiny": {},
    "from_scratch": {},
    "gpt2_small": {"layers": 2, "width": 48, "heads": 4, "vocab": 61, "context": 32},
    "llama_8b": {"layers": 2, "width": 48, "heads": 8, "kv_heads": 2, "ffn": 64, "vocab": 61, "context": 32},
    "transfer_mup": {},
    "tiny_llama": {"context": 32},
    "cerebras_gpt/111m_mup": {"layers": 2, "width": 512, "heads": 8, "vocab": 61, "context": 32},
}

WRITTEN_OUT = """
model m(vocab = 13, width = 8, heads = 2, context = 12) {
    dim head = width / heads
    input tokens[batch, seq <= context] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = outer(embed[tokens])
    output logits = dot(x, embed, over width)
    output lengths = mean(x, over width)
}

block outer(x[batch, seq, width]) {
    return x + inner(x) + weigh(x)
}

block inner(x[batch, seq, width]) {
    q = linear(x, width -> heads head, std=0.7)
    k = linear(x, width -> heads head, std=0.7) as [seq -> other, head -> part]
    scores = dot(q as [head -> part], k, over part)
    near = position(seq) - position(other)
    seen = where(near >= 0, scores - 0.1 * near, -infinity)
    mixed = dot(softmax(seen, over other), k as [part -> head], over other)
    return linear(mixed, heads head -> width, std=0.7)
}

block weigh(x[batch, seq, width]) {
    past = x as [seq -> key]
    count = cast(position(seq), f32) + 1
    return dot(cast(position(key) <= position(seq), f32), past, over key) / count
}
"""


def _programs(folder: Path) -> dict[str, Program]:
    found = {name: elaborate_file(text, "m.cg").programs[0] for name, text in MODELS.items()}
    found["written out"] = elaborate_file("use std/nn\n" + WRITTEN_OUT, "m.cg").programs[0]
    otherwise = WRITTEN_OUT.replace("seq", "time").replace("[batch", "[rows")
    found["dimensions called otherwise"] = elaborate_file("use std/nn\n" + otherwise, "m.cg").programs[0]
    for name, sizes in SMALL.items():
        found[name] = load_program(str(EXAMPLES / f"{name}.cg"), sizes)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Program, Path]]:
    made: dict[str, tuple[Program, Path]] = {}
    for name, program in _programs(EXAMPLES).items():
        folder = tmp_path_factory.mktemp("decode")
        (folder / "model.py").write_text(emit(program))
        code = emit_cached(program)
        assert code is not None
        (folder / "decode.py").write_text(code)
        made[name] = (program, folder)
    return made


WITH_CASTS = ("written out", "dimensions called otherwise")
NAMES = [*MODELS, *WITH_CASTS, *SMALL]


def load(folder: Path) -> tuple[ModuleType, ModuleType]:
    """Import `model.py` and `decode.py` of a folder, which finds the first by its name."""
    before = sys.modules.pop("model", None)
    try:
        found = []
        for name in ("model", "decode"):
            spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            if name == "model":
                sys.modules["model"] = module
            spec.loader.exec_module(module)
            found.append(module)
        return found[0], found[1]
    finally:
        sys.modules.pop("model", None)
        if before is not None:
            sys.modules["model"] = before


@pytest.mark.parametrize("name", NAMES)
def test_pieces_give_what_the_whole_gives(name: str, folders: dict[str, tuple[Program, Path]]) -> None:
    program, folder = folders[name]
    model, decode = load(folder)
    torch.manual_seed(1)
    module = getattr(model, model_class(program))()
    if name not in WITH_CASTS:  # which cast to float32 themselves
        module = module.double()
    tolerance = 1e-5 if name in WITH_CASTS else 1e-9
    vocab = program.graph.inputs[0].type.indexes
    assert vocab is not None and isinstance(vocab.size, int)
    tokens = torch.randint(vocab.size, (2, 11))
    with torch.no_grad():
        whole = module(tokens)
    for cuts in ([1] * 11, [5, 1, 1, 3, 1], [11], [1, 10]):
        cache = decode.Cache()
        pieces = [decode.decode(module, piece, cache) for piece in tokens.split(cuts, 1)]
        names = whole if isinstance(whole, dict) else {"": whole}
        for key in names:
            joined = torch.cat([piece[key] if isinstance(piece, dict) else piece for piece in pieces], 1)
            torch.testing.assert_close(joined, names[key], rtol=tolerance, atol=tolerance)


def test_a_sequence_that_is_too_long_is_refused_and_forgotten(folders: dict[str, tuple[Program, Path]]) -> None:
    model, decode = load(folders["gpt2"][1])
    module, cache = model.Gpt2(), decode.Cache()
    decode.decode(module, torch.zeros(1, 10, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="17 tokens, at most 16"):
        decode.decode(module, torch.zeros(1, 7, dtype=torch.long), cache)
    assert decode.decode(module, torch.zeros(1, 6, dtype=torch.long), cache).shape == (1, 6, 11)


def test_models_that_look_along_the_tokens_have_none() -> None:
    text = "model m(width = 4) {\n    input x[batch, seq, width]\n    output y = x + mean(x, over seq)\n}\n"
    assert emit_cached(elaborate_file(text, "m.cg").programs[0]) is None


def test_source_is_clean(folders: dict[str, tuple[Program, Path]], tmp_path: Path) -> None:
    files = [str(folder / name) for _, folder in folders.values() for name in ("model.py", "decode.py")]
    decoders = [file for file in files if file.endswith("decode.py")]
    for command in (
        ["ruff", "format", "--isolated", "--check", "--diff", *decoders],
        [
            "ruff",
            "check",
            "--isolated",
            "--select=E4,E7,E9,F,I,UP,B,C4,C90,SIM,RUF,PTH,W",
            "--ignore=RUF002",
            "--config=lint.isort.known-first-party = ['model']",
            *decoders,
        ],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["written out", "tiny"])
def test_source_is_strictly_typed(name: str, folders: dict[str, tuple[Program, Path]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", "model.py", "decode.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folders[name][1])
    assert done.returncode == 0, done.stdout + done.stderr
