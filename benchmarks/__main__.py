"""Runs all benchmarks and prints the README's table in Markdown, and the tables behind it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import check_startup, onnx_export, onnx_speed, torch_training, zigzag_block

NAMES = {"torch": "`torch.onnx.export(dynamo=True)`", "optimum": "optimum", "builder": "onnxruntime-genai's builder"}


def main() -> None:
    """Measure and print."""
    check = check_startup.compare(15)
    with tempfile.TemporaryDirectory() as name:
        export = onnx_export.compare(3, Path(name))
        speed = onnx_speed.run_all(Path(name), onnx_speed.ROUNDS)
    print("| what | cgc | peer | ratio |")
    print("|---|---|---|---|")
    for row in (*_export_rows(export), *_speed_rows(speed)):
        print(row)
    print(
        f"| `cgc check` of 13B, seconds; peer `python -c 'import lark, click'` | {check['cgc']:.3f} "
        f"| {check['imports']:.3f} | {check['ratio']:.1f} times as long |"
    )
    added = check["mup"] - check["cgc"]
    print(
        f"| the same with a `mup` item, seconds; peer `cgc check` without | {check['mup']:.3f} "
        f"| {check['cgc']:.3f} | {1000 * added:.0f} ms more |"
    )
    block = zigzag_block.compare(3)
    print(
        f"| one block of 111M on hardware, seconds; peer ZigZag on its TPU | {block['cgc'].seconds:.2f} "
        f"| {block['zigzag'].seconds:.1f} | {block['zigzag'].seconds / block['cgc'].seconds:.0f} times faster |"
    )
    print()
    print("\n".join(torch_training.rows(torch_training.compare(["tiny", "vocabulary"], 7))))
    console = Console(width=180)
    console.print(onnx_export.table(export))
    for title, found in speed.items():
        console.print(onnx_speed.table(title, found))


def _export_rows(result: dict[str, Any]) -> Iterator[str]:
    for family, ratios in result["ratios"].items():
        results = result["families"][family]
        for peer, ratio in ratios.items():
            own = results["cgc" if peer == "torch" else "cgc --kv-cache --runtime ort"]
            yield (
                f"| {family} of 111M with weights to ONNX, seconds and MiB; peer {NAMES[peer]} "
                f"| {own['seconds']:.2f}, {own['peak_mebibytes']:.0f} "
                f"| {results[peer]['seconds']:.2f}, {results[peer]['peak_mebibytes']:.0f} "
                f"| {ratio['times_faster']:.0f} times faster, {ratio['memory']:.2f} of the memory |"
            )
    large = result["1.3B"]
    yield f"| gpt2 of 1.3B, the same | {large['seconds']:.2f}, {large['peak_mebibytes']:.0f} | | |"


def _speed_rows(result: dict[str, Any]) -> Iterator[str]:
    for title, cells in result.items():
        for cell, found in cells.items():
            if cell == "error" or not (ratios := found["cgc_times_faster"]):
                continue
            best = onnx_speed.best_peer(ratios)
            speeds = found["tokens_per_second"]
            own = speeds[onnx_speed.WITHOUT_CACHE.get(best, "cgc ort")]
            yield (
                f"| {title}, {cell}, tokens per second in ONNX Runtime; best peer {NAMES[best]} "
                f"| {own:.0f} | {speeds[best]:.0f} | {onnx_speed.ratio(ratios)} |"
            )


if __name__ == "__main__":
    main()
