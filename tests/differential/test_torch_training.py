"""Loss and gradients of emitted models against transformers and the reference; runs on several ranks against one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from cgc_torch.activated import activated_linear, function_name
from cgc_torch.live import import_source, save_weights, to_torch
from cgc_torch.loss import LINEAR_CROSS_ENTROPY
from torch.nn import functional as F  # noqa: N812

import cgc
from cgc.driver import load_program
from cgc.interpret import interpret
from cgc.training import gradient_graph
from cgc.weights import initialize
from tests.unit.emitted_projects import TEXT, run, small_project, write_project

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADER = "from typing import Any\nimport torch\nfrom torch import Tensor\nfrom torch.nn import functional as F\n"


def _loss_functions(most: int) -> Any:
    source = HEADER + LINEAR_CROSS_ENTROPY.replace("2**24", str(most))
    return import_source(source, "loss")


@pytest.mark.parametrize("most", [1, 97 * 4, 97 * 7, 2**24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_without_logits(most: int, dtype: torch.dtype) -> None:
    """Value and gradients for chunks of one row, of rows that do not divide, and for one chunk."""
    torch.manual_seed(0)
    hidden = torch.randn(3, 9, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(97, 16, dtype=dtype, requires_grad=True)
    targets = torch.randint(97, (3, 9))
    expected = F.cross_entropy(F.linear(hidden, weight).flatten(0, 1), targets.flatten())
    wanted = torch.autograd.grad(2.5 * expected, (hidden, weight))
    found = _loss_functions(most).linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(found, expected, check_dtype=False)
    for one, other in zip(torch.autograd.grad(2.5 * found, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        again = _loss_functions(most).linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(again, found)


def test_loss_under_autocast_is_near() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 32, requires_grad=True), torch.randn(97, 32, requires_grad=True)
    targets = torch.randint(97, (40,))
    exact = torch.autograd.grad(F.cross_entropy(F.linear(hidden, weight), targets), (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss = _loss_functions(97 * 16).linear_cross_entropy(hidden, weight, targets)
    found = torch.autograd.grad(loss, (hidden, weight))
    assert [gradient.dtype for gradient in found] == [torch.float32, torch.float32]
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_activations_equal_their_parts(kind: Any, bias: bool) -> None:
    """Value and gradients, with what is known before the layer used a second time; a frozen layer has none."""
    header = HEADER + "from torch import nn\nfrom torch.utils.checkpoint import checkpoint\n"
    layer = getattr(import_source(header + activated_linear(kind), kind), function_name(kind))
    value = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu}[kind]
    torch.manual_seed(0)
    x, linear = torch.randn(3, 5, 24, requires_grad=True), torch.nn.Linear(24, 8, bias=bias)
    weights = torch.randn(3, 5, 8)

    def gradients(made: Any) -> tuple[torch.Tensor, ...]:
        kept = x.detach().clone()
        found = torch.autograd.grad((made(2 * x) * weights).sum() + (x**2).sum(), [x, *linear.parameters()])
        assert torch.equal(x, kept), "what is in place is the gradient"
        return found

    for one, other in zip(gradients(lambda x: layer(x, linear)), gradients(lambda x: linear(value(x))), strict=True):
        torch.testing.assert_close(one, other)
    linear.requires_grad_(False)
    (frozen,) = torch.autograd.grad(layer(x, linear).sum(), x)
    torch.testing.assert_close(frozen, torch.autograd.grad(linear(value(x)).sum(), x)[0])


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu"])
def test_layers_of_activations_under_autocast_are_near(kind: Any) -> None:
    header = HEADER + "from torch import nn\nfrom torch.utils.checkpoint import checkpoint\n"
    layer = getattr(import_source(header + activated_linear(kind), kind), function_name(kind))
    torch.manual_seed(0)
    x, linear = torch.randn(40, 32, requires_grad=True), torch.nn.Linear(32, 16)
    exact = torch.autograd.grad(layer(x, linear).sum(), [x, *linear.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x, linear).float().sum()
    for one, other in zip(torch.autograd.grad(made, [x, *linear.parameters()]), exact, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 0.02


def _hub_gpt2() -> tuple[Any, str]:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=97, n_positions=48, n_embd=48, n_layer=3, n_head=4, initializer_range=0.2,
        activation_function="gelu", resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), "gpt2(vocab=97, context=48, layers=3, width=48, heads=4)"


def _hub_neox() -> tuple[Any, str]:
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=48, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPTNeoXForCausalLM(config), "gpt_neox(vocab=97, context=48, layers=2, width=64, heads=4)"


def _hub_llama() -> tuple[Any, str]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, max_position_embeddings=48, initializer_range=0.2, rms_norm_eps=1e-5,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    sizes = "vocab=97, context=48, layers=2, width=64, heads=4, kv_heads=2, ffn=96"
    return transformers.LlamaForCausalLM(config), f"llama({sizes})"


def close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare gradients: to rounding of their own size, and of the largest for those that are sums to zero.

    (A bias of keys shifts all scores of a query alike, which the softmax does not see.)
    """
    assert set(found) == set(wanted)
    largest = max(np.abs(gradient).max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert np.abs(found[name] - gradient).max() <= 2e-5 * np.abs(gradient).max() + 1e-6 * largest, name


@pytest.mark.parametrize("made", [_hub_gpt2, _hub_neox, _hub_llama], ids=["gpt2", "gpt_neox", "llama"])
def test_gradients_equal_transformers(made: Any, tmp_path: Path) -> None:
    """Same weights, same tokens: the loss, and the gradient of every parameter.

    The public model's gradients are read into our parameters with the layout that its weights are read with.
    """
    public, model = made()
    family = model.split("(")[0]
    (tmp_path / "m.cg").write_text(f"use std/{family}\n\nmodel m = {model}\n")
    public.save_pretrained(tmp_path / "weights")
    loaded = cgc.load(tmp_path / "m.cg")
    program = loaded.program
    module = loaded.to_torch(str(tmp_path / "weights" / "model.safetensors"))
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 97, (3, 33)))
    loss = module(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    theirs = public(input_ids=tokens, labels=tokens, use_cache=False).loss
    theirs.backward()
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    with torch.no_grad():
        for parameter in public.parameters():
            parameter.copy_(parameter.grad)
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    public.save_pretrained(tmp_path / "gradients")
    wanted = save_weights(loaded.to_torch(str(tmp_path / "gradients" / "model.safetensors")), program)
    found = save_weights(module, program)
    close(found, wanted)


@pytest.mark.parametrize("name", ["tiny.cg", "cerebras_gpt/111m_mup.cg", "from_scratch.cg", "llama_8b.cg"])
def test_gradients_equal_the_reference(name: str) -> None:
    """The gradients of cgc's own autodiff, with the multipliers of µP in the model."""
    sizes = {"vocab": 61, "context": 32, "layers": 2, "width": 32, "heads": 4}
    sizes |= {"kv_heads": 2, "ffn": 48} if "llama" in name else {}
    program = load_program(str(EXAMPLES / name), sizes)
    rng = np.random.default_rng(1)
    drawn = initialize(program.graph, 0)
    weights = {key: (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32) for key, w in drawn.items()}
    tokens = rng.integers(0, 61, (2, 10))
    inputs = {program.graph.inputs[0].name: tokens[:, :-1], "targets": tokens[:, 1:]}
    expected = interpret(gradient_graph(program.graph), weights, inputs)
    module = to_torch(program, weights)
    loss = module(torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected["loss"]), rel=1e-5)
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    found = save_weights(module, program)
    close(found, {key: expected[f"grad.{key}"] for key in found})


# ---- several ranks


def losses(folder: Path, out: str) -> list[float]:
    """Return the training losses of a run, in order of steps."""
    entries = [json.loads(line) for line in (folder / out / "log.jsonl").read_text().splitlines()]
    steps = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    return [loss for _, loss in steps]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project(tmp_path_factory.mktemp("project"), steps=8)


@pytest.fixture(scope="module")
def alone(project: Path) -> list[float]:
    done = run(project, "train.py", "--out", "alone")
    assert done.returncode == 0, done.stderr
    return losses(project, "alone")


def _same_on(ranks: int, how: list[str], project: Path, alone: list[float]) -> None:
    out = "_".join([str(ranks), *how]).replace("-", "")
    done = run(project, "train.py", "--out", out, *how, ranks=ranks)
    assert done.returncode == 0, done.stderr
    found = losses(project, out)
    assert len(found) == len(alone)
    assert math.isclose(found[0], alone[0], rel_tol=1e-6), "the same weights to start with"
    np.testing.assert_allclose(found, alone, rtol=2e-5)


def test_two_ranks_with_fsdp_train_as_one(project: Path, alone: list[float]) -> None:
    _same_on(2, ["--parallel", "fsdp"], project, alone)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    "how",
    [
        ["--parallel", "ddp"],
        ["--parallel", "fsdp", "--recompute"],
        ["--parallel", "ddp", "--micro-batch", "1"],
        ["--parallel", "fsdp", "--micro-batch", "1"],
        ["--parallel", "fsdp", "--compile"],
    ],
    ids=" ".join,
)
def test_ranks_train_as_one(ranks: int, how: list[str], project: Path, alone: list[float]) -> None:
    _same_on(ranks, how, project, alone)


ROTARY = """use std/llama

model small = llama(vocab=256, context=16, layers=2, width=32, heads=4, kv_heads=2, ffn=48)

train {
    steps     = 6 steps
    batch     = 8 sequences
    lr        = 1e-2
    precision = bf16
}
"""


@pytest.mark.slow
def test_tables_of_positions_go_with_every_way_of_training(tmp_path: Path) -> None:
    """In bf16, where the machine has it: FSDP has no autocast that would bring q, k and v to one type."""
    folder = write_project(tmp_path, ROTARY)
    (folder / "input.txt").write_text(TEXT)
    assert run(folder, "data.py", "input.txt").returncode == 0
    ways = [["--recompute"], ["--parallel", "ddp"], ["--parallel", "fsdp"], ["--parallel", "fsdp", "--recompute"]]
    found = []
    for number, how in enumerate([[], *ways]):
        done = run(folder, "train.py", "--out", str(number), *how, ranks=2 if "--parallel" in how else 1)
        assert done.returncode == 0, done.stderr
        found.append(losses(folder, str(number)))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--compile"], ["--recompute"], ["--micro-batch", "2"]], ids=" ".join)
def test_options_do_not_change_losses(how: list[str], project: Path, alone: list[float]) -> None:
    _same_on(1, how, project, alone)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(project: Path, alone: list[float]) -> None:
    """Four steps on two ranks with FSDP, the others on one: the schedule is of eight steps throughout."""
    folder = project / "moved"
    started = run(project, "train.py", "--out", "moved", "--save-every", "4", "--parallel", "fsdp", ranks=2)
    assert started.returncode == 0, started.stderr
    last = folder / "step_00000008"
    assert last.is_dir()
    last.rename(folder.parent / "set_aside")
    done = run(project, "train.py", "--out", "moved")
    assert done.returncode == 0, done.stderr
    assert "from step 4" in done.stdout
    np.testing.assert_allclose(losses(project, "moved"), alone, rtol=2e-5)
