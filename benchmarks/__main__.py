"""Runs all benchmarks and prints the README's table in Markdown."""

from __future__ import annotations

from benchmarks import check_startup, onnx_export, torch_training


def main() -> None:
    """Measure and print."""
    check = check_startup.compare(15)
    onnx = onnx_export.compare(3)
    seconds, memory = onnx["median_seconds"], onnx["peak_mebibytes"]
    assert isinstance(seconds, dict)
    assert isinstance(memory, dict)
    print("| what | cgc | peer | ratio |")
    print("|---|---|---|---|")
    print(
        f"| 111M with weights to ONNX, seconds; peer `torch.onnx.export(dynamo=True)` | {seconds['cgc']:.2f} "
        f"| {seconds['torch']:.2f} | {onnx['times_faster']:.1f} times faster |"
    )
    print(f"| the same, peak MiB | {memory['cgc']:.0f} | {memory['torch']:.0f} | {onnx['memory_ratio']:.2f} |")
    print(
        f"| `cgc check` of 13B, seconds; peer `python -c 'import lark, click'` | {check['cgc']:.3f} "
        f"| {check['imports']:.3f} | {check['ratio']:.1f} times as long |"
    )
    added = check["mup"] - check["cgc"]
    print(
        f"| the same with a `mup` item, seconds; peer `cgc check` without | {check['mup']:.3f} "
        f"| {check['cgc']:.3f} | {1000 * added:.0f} ms more |"
    )
    print()
    print("\n".join(torch_training.rows(torch_training.compare(["tiny", "vocabulary"], 7))))


if __name__ == "__main__":
    main()
