"""`cgc compile --kv-cache`: one ONNX graph for prefill and decoding; greedy tokens are the public implementation's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from test_public_models import FAMILIES

from cgc.cli import main

NEW = 24
CHOSEN = ["gpt2", "gpt_neox", "llama", "llama grouped", "llama multi-query", "llama tied"]


def greedy(session: Any, prompt: np.ndarray[Any, Any], count: int) -> list[int]:
    """Return `count` tokens, each the likeliest: the prompt at once, then one token at a time."""
    names = [value.name for value in session.get_outputs()]
    state = {
        value.name: np.zeros([1 if d == "batch" else 0 if d == "past" else d for d in value.shape], np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past.")
    }
    found: list[int] = []
    tokens = prompt
    for _ in range(count):
        results = dict(zip(names, session.run(None, {"tokens": tokens, **state}), strict=True))
        found.append(int(results["logits"][0, -1].argmax()))
        tokens = np.array([[found[-1]]])
        state = {name.replace("present.", "past."): v for name, v in results.items() if name.startswith("present.")}
    return found


@pytest.mark.parametrize("family", CHOSEN)
def test_greedy_tokens_equal_the_public_implementation(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    public, source = FAMILIES[family]()
    public.eval()
    public.save_pretrained(tmp_path / "hub")
    (tmp_path / "m.cg").write_text(source)
    words = ["compile", str(tmp_path / "m.cg"), "--target", "onnx", "--kv-cache", "--weights", str(tmp_path / "hub")]
    run = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    prompt = torch.randint(1, 97, (1, 6))
    with torch.no_grad():
        expected = prompt
        for _ in range(NEW):
            expected = torch.cat((expected, public(expected).logits[:, -1:].argmax(-1)), 1)
    assert greedy(session, prompt.numpy(), NEW) == expected[0, 6:].tolist()


def test_what_has_no_cache_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.cg"
    path.write_text("model m(width = 4) {\n    input x[batch, seq, width]\n    output y = x * 2\n}\n")
    run = CliRunner().invoke(
        main, ["compile", str(path), "--target", "onnx", "--kv-cache", "-o", str(tmp_path / "out")]
    )
    assert run.exit_code == 1 and "CG0804" in run.output and not (tmp_path / "out").exists()
    run = CliRunner().invoke(
        main, ["compile", str(path), "--target", "torch", "--kv-cache", "-o", str(tmp_path / "out")]
    )
    assert run.exit_code == 2 and "has no use for it" in run.output
