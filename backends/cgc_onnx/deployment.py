"""Files beside a model that decodes, by which runtimes of language models load the folder: `genai_config.json` of
onnxruntime-genai, `config.json` and `generation_config.json` of the model hub (optimum), the checkpoint's tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgc.ir.graph import Graph, Value
from cgc.passes.kv_cache import MASK, POSITIONS, Cache
from cgc.program import Program
from cgc.target import Artifact, TargetError, text_artifact
from cgc_onnx.capabilities import GROUPED_HEAD, Profile
from cgc_onnx.metadata import checkpoint_folder
from cgc_onnx.surface import model_inputs

FAMILIES = ("gpt2", "gpt_neox", "llama")
"""Families of the library, whose configuration the model hub knows."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
CONFIGURATIONS = ("config.json", "generation_config.json", "genai_config.json")
LARGEST_CONFIGURATION = 1 << 20
"""Bytes of a configuration that is read; one is some kilobytes."""


def deployment(
    program: Program, caches: Sequence[Cache], model: str, profile: Profile, weights: Mapping[str, Any] | None
) -> list[Artifact]:
    """Return the files that go with the model file `model`; none where its caches are not pairs of keys and values."""
    shape = _cache_shape(program.graph, caches)
    if shape is None:
        return []
    source = checkpoint_folder(weights)
    known = _configuration(source)
    config = _hub_configuration(program, known, source)
    files = [] if config is None else [text_artifact("config.json", config)]
    ids = {name: known[name] for name in TOKEN_IDS if known.get(name) is not None}
    files.append(text_artifact("generation_config.json", _text({"_from_model_config": True, **ids})))
    if len(model_inputs(program.graph, caches)) == 1:  # onnxruntime-genai would feed no other
        files.append(text_artifact("genai_config.json", _text(_genai(program, shape, model, profile, ids))))
    if source is not None:
        files += [_copied(source / name) for name in TOKENIZER if (source / name).is_file()]
    return files


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=4) + "\n"


def _copied(path: Path) -> Artifact:
    def write(target: Path) -> None:
        target.write_bytes(path.read_bytes())

    return Artifact(path.name, write)


def _configuration(folder: Path | None) -> dict[str, Any]:
    """Return what the checkpoint's own configuration says, that of generation last; nothing where there is none.

    Raises:
        TargetError: CG0701, it is no JSON object: what it says of the tokens would be lost.
    """
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        path = folder / name if folder else None
        if path is None or not path.exists():
            continue
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(LARGEST_CONFIGURATION).decode())
        except (OSError, ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            text = f"`{path}`, beside the checkpoint, is no configuration"
            raise TargetError("CG0701", text, "mend it, or take it away: it says which tokens begin and end a text")
        found |= {key: value for key, value in data.items() if value is not None}
    return found


def _hub_configuration(program: Program, known: Mapping[str, Any], source: Path | None) -> str | None:
    """Return the text of `config.json`: the checkpoint's own, or one made from the program."""
    if source is not None and "model_type" in known:
        return (source / "config.json").read_text(encoding="utf-8")
    if program.family not in FAMILIES or program.checkpoint is None or program.checkpoint.name != program.family:
        return None
    from cgc.importers.export_hub import hub_text

    return hub_text(program)


def _cache_shape(graph: Graph, caches: Sequence[Cache]) -> tuple[int, int, int] | None:
    """Return layers, heads and the size of a head, where all caches are alike and half of them are keys."""
    values = {value.name: value for value in graph.inputs}
    shapes = {_heads(values[cache.past], cache.stacked) for cache in caches}
    roles = [cache.role for cache in caches]
    if len(shapes) != 1 or roles.count("key") != roles.count("value") or "" in roles:
        return None
    ((heads, head),) = shapes
    layers = sum(_turns(values[cache.past], cache.stacked) for cache in caches) // 2
    return (layers, heads, head) if head else None


def _heads(value: Value, stacked: int) -> tuple[int, int]:
    sizes = [dim.size for dim in value.type.dims[stacked:]]
    head = sizes[-1]
    count = 1
    for size in sizes[:-2]:
        count *= size if isinstance(size, int) else 1
    return count, head if isinstance(head, int) else 0


def _turns(value: Value, stacked: int) -> int:
    count = 1
    for dim in value.type.dims[:stacked]:
        count *= dim.size if isinstance(dim.size, int) else 1
    return count


def _genai(
    program: Program, shape: tuple[int, int, int], model: str, profile: Profile, ids: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the configuration of onnxruntime-genai.

    Caches are one buffer each, that grows in place, where the operator does so.
    """
    layers, heads, head = shape
    sizes = dict(program.arguments)
    names = {value.name for value in program.graph.inputs}
    tokens = next((value for value in program.graph.inputs if value.type.indexes is not None), None)
    vocabulary = tokens.type.indexes.size if tokens is not None and tokens.type.indexes is not None else 0
    limits = {known.name: known.limit for known in program.graph.symbols}
    limit = limits.get("seq")
    context = limit.size if limit is not None and isinstance(limit.size, int) else 1 << 20
    end = ids.get("eos_token_id", 0)
    padding = ids.get("pad_token_id", end[0] if isinstance(end, list) else end)
    inputs = {"input_ids": "input_ids"}
    inputs |= {name: name for name in (MASK, POSITIONS) if name in names}
    inputs |= {f"past_{part}_names": f"past_key_values.%d.{part}" for part in ("key", "value")}
    outputs = {"logits": "logits", **{f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")}}
    queries = sizes.get("heads")
    return {
        "model": {
            "bos_token_id": ids.get("bos_token_id", padding),
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": model,
                "head_size": head,
                "hidden_size": sizes.get("width", heads * head),
                "inputs": inputs,
                "outputs": outputs,
                "num_attention_heads": queries if isinstance(queries, int) else heads,
                "num_hidden_layers": layers,
                "num_key_value_heads": heads,
            },
            "eos_token_id": end,
            "pad_token_id": padding,
            "type": "decoder",
            "vocab_size": vocabulary,
        },
        "search": {
            "do_sample": False,
            "max_length": context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": _grows_in_place(profile, head),
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }


def _grows_in_place(profile: Profile, head: int) -> bool:
    return profile.fused("GroupQueryAttention") and head % GROUPED_HEAD == 0
