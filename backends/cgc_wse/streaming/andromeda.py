"""Weight streaming against what was measured on Andromeda, 16 CS-2 (Dey et al. 2023, arXiv 2304.03208, tables 4 to 6).

`python -m cgc_wse.streaming.andromeda FOLDER` prints the table of docs/wafer_cost.md; FOLDER has the models of the
family (`examples/cerebras_gpt`). Published are FLOP/s utilizations relative to 111M on one system. No constant of the
model was fitted to them.

Which FLOPs the paper counts is not said in full. Its FLOPs column is met to the printed digits, for all seven models,
by three times what a forward pass takes, with attention's two dots counted twice and the embedding as a dot that has no
gradient for its input: `published_flops`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cgc.analysis.flops import training_flops
from cgc.program import Device, Program
from cgc.target import CompileOptions
from cgc_wse.job import Job, job_of
from cgc_wse.mode import workload_of
from cgc_wse.streaming.search import Search

ALONE = "111m"
RUNS = {"111m": (1, 120, 1.0), "590m": (1, 264, 0.92), "6.7b": (16, 1040, 1.05)}
"""Systems, sequences of a step, and the published utilization relative to `ALONE`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run and to count: features over a `whole` side of the wafer, nothing stored but what enters a layer
    (`recompute`), FLOPs as the paper counts them (`published`).
    """

    name: str
    whole: bool = False
    recompute: bool = False
    published: bool = False


VARIANTS = (
    Variant("as cgc plans and counts"),
    Variant("  and nothing stored but what enters a layer", recompute=True),
    Variant("features over a whole side, FLOPs as the paper's", whole=True, published=True),
    Variant("  and FLOPs as cgc's", whole=True),
    Variant("as cgc plans, FLOPs as the paper's", published=True),
)


def published_flops(layers: int, width: int, vocab: int, tokens: int, seq: int) -> int:
    """Return the FLOPs of training a model of the family on `tokens` tokens as the paper counts them."""
    forward = layers * (24 * width * width + 8 * seq * width) + 2 * vocab * width
    return tokens * (3 * forward + 2 * 2 * vocab * width)


def utilization(program: Program, device: Device, run: tuple[int, int], variant: Variant) -> float:
    """Return the part of the peak that a step of training reaches on `run` = (wafers, sequences)."""
    from cgc_wse.cost import peak_flops

    wafers, batch = run
    options = CompileOptions(batch=batch, wafers=wafers, recompute=variant.recompute)
    job = job_of(program, options)
    choice = Search(workload_of(program.graph, job).works, job, device, whole=variant.whole).best()
    if choice is None:
        raise ValueError(f"{program.name} does not fit")
    return _flops(program, job, published=variant.published) / (choice.seconds * peak_flops(device) * wafers)


def _flops(program: Program, job: Job, *, published: bool) -> int:
    if not published:
        return training_flops(program.graph, {**dict(job.sizes), "batch": job.sequences})
    sizes = dict(program.arguments)
    layers, width, vocab = (int(str(sizes[name])) for name in ("layers", "width", "vocab"))
    return published_flops(layers, width, vocab, job.tokens, job.seq)


def relative(programs: dict[str, Program], device: Device, variant: Variant) -> Iterator[tuple[str, float, float]]:
    """Yield (model, utilization relative to `ALONE`, published)."""
    alone = utilization(programs[ALONE], device, RUNS[ALONE][:2], variant)
    for name, (wafers, batch, published) in RUNS.items():
        if name != ALONE:
            yield name, utilization(programs[name], device, (wafers, batch), variant) / alone, published


def table(programs: dict[str, Program], device: Device) -> str:
    """Return the table."""
    lines = [
        f"{'':48}  {'590M':>6} {'off':>6}  {'6.7B':>6} {'off':>6}",
        f"{'published':48}  {0.92:6.2f} {'':6}  {1.05:6.2f}",
    ]
    for variant in VARIANTS:
        cells = "  ".join(
            f"{got:6.3f} {got / wanted - 1:+6.1%}" for _, got, wanted in relative(programs, device, variant)
        )
        lines.append(f"{variant.name:48}  {cells}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from cgc import load_device
    from cgc.driver import load_program

    loaded = {name: load_program(str(Path(sys.argv[1]) / f"{name}.cg")) for name in RUNS}
    sys.stdout.write(table(loaded, load_device("wse2")))
