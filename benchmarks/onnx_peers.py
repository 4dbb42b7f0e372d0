"""What the ONNX benchmarks compare: the same weights of about 111M parameters, exported by cgc and by its peers.

`torch.onnx.export(dynamo=True)` has no cache; optimum needs an older `transformers` than cgc's tests, so that it gets
an environment of its own beside this one, which shares everything else; onnxruntime-genai's builder knows Llama and no
GPT-2.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from benchmarks.processes import CGC, measure, python

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "gpt2": "use std/gpt2\n\nmodel peer = gpt2(vocab=50257, context=2048, layers=10, width=768, heads=12)\n",
        "llama": (
            "use std/llama\n\nmodel peer = llama(vocab=32000, context=2048, layers=10, width=768, heads=12, "
            "kv_heads=4, ffn=2048)\n"
        ),
    }
)
OLDER = (
    "optimum-onnx==0.1.0",
    "optimum==2.1.0",
    "transformers==4.57.6",
    "huggingface_hub==0.36.2",
    "tokenizers==0.22.2",
    "requests",
    "charset-normalizer",
    "urllib3",
    "certifi",
    "idna",
)
"""optimum's exporter, and what it needs in other versions than cgc's tests do."""

# `activation_function="gelu"` is the exact form, as in the .cg file; the public GPT-2 has the approximation by tanh.
# The tokenizer knows one word: the builder asks for one, and nothing uses it.
PREPARE = """
import sys
import torch
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
torch.manual_seed(0)
if sys.argv[2] == "gpt2":
    config = GPT2Config(
        activation_function="gelu", vocab_size=50257, n_positions=2048, n_layer=10, n_embd=768, n_head=12
    )
    model = GPT2LMHeadModel(config)
else:
    config = LlamaConfig(
        vocab_size=32000, max_position_embeddings=2048, num_hidden_layers=10, hidden_size=768, num_attention_heads=12,
        num_key_value_heads=4, intermediate_size=2048, rms_norm_eps=1e-5, tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
model.save_pretrained(sys.argv[1])
words = Tokenizer(models.WordLevel({"word": 0}, unk_token="word"))
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="word").save_pretrained(sys.argv[1])
"""
TORCH = """
import sys
import torch
from transformers import AutoModelForCausalLM
class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = AutoModelForCausalLM.from_pretrained(sys.argv[1], use_cache=False).eval()
    def forward(self, tokens):
        return self.model(input_ids=tokens, use_cache=False).logits
batch, seq = torch.export.Dim("batch", max=1024), torch.export.Dim("seq", max=2048)
torch.onnx.export(
    Logits().eval(),
    (torch.zeros(2, 16, dtype=torch.int64),),
    sys.argv[2] + "/model.onnx",
    input_names=["tokens"],
    output_names=["logits"],
    dynamic_shapes={"tokens": {0: batch, 1: seq}},
    dynamo=True,
    external_data=True,
)
"""
OPTIMUM = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="text-generation-with-past", do_validation=False)
"""


def older_python(folder: Path) -> str:
    """Return an interpreter with optimum, in an environment made in `folder` where there is none yet."""
    interpreter = folder / "bin" / "python"
    if interpreter.exists():
        return str(interpreter)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", *OLDER], check=True)
    place = subprocess.run(
        python("import sysconfig; print(sysconfig.get_paths()['purelib'])", interpreter=str(interpreter)),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # Everything else comes from this environment, whose packages, cgc among them, are found after the other's own.
    here = sysconfig.get_paths()["purelib"]
    (Path(place) / "zz_parent.pth").write_text(f"import site; site.addsitedir({here!r})\n", encoding="utf-8")
    return str(interpreter)


def prepared(folder: Path, family: str) -> tuple[Path, Path]:
    """Return the source and the checkpoint of a family, made where there are none yet."""
    hub, source = folder / f"{family}_hub", folder / f"{family}.cg"
    source.write_text(SOURCES[family], encoding="utf-8")
    if not (hub / "tokenizer.json").exists():
        measure(python(PREPARE, str(hub), family), folder / "log")
    return source, hub


def cgc_command(source: Path, hub: Path, out: Path, *flags: str) -> list[str]:
    """Return the command of cgc."""
    weights = str(hub / "model.safetensors")
    return python(CGC, "compile", str(source), "--target=onnx", "--weights", weights, "-o", str(out), *flags)


def peer_commands(family: str, hub: Path, folder: Path, optimum: str) -> dict[str, tuple[list[str], Path]]:
    """Return the peers' commands for the float32 model, each with the folder that it writes to."""
    out = {name: folder / f"{family}_{name}" for name in ("torch", "optimum", "builder")}
    commands = {
        "torch": python(TORCH, str(hub), str(out["torch"])),
        "optimum": python(OPTIMUM, str(hub), str(out["optimum"]), interpreter=optimum),
    }
    if family == "llama":
        commands["builder"] = builder_command(hub, out["builder"], "fp32")
    return {name: (command, out[name]) for name, command in commands.items()}


def builder_command(hub: Path, out: Path, precision: str, *extra: str) -> list[str]:
    """Return the command of onnxruntime-genai's builder, with its extra options."""
    words = [
        "-i",
        str(hub),
        "-o",
        str(out),
        "-p",
        precision,
        "-e",
        "cpu",
        *(("--extra_options", *extra) if extra else ()),
    ]
    return [sys.executable, "-m", "onnxruntime_genai.models.builder", *words]


if __name__ == "__main__":
    print(older_python(Path(sys.argv[1])))
