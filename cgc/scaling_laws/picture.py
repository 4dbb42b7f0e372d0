"""The picture of a study, as SVG or PNG: runs, laws, and the band of the bootstrap. The same study, the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cgc.experiments.pictures import figure_of, image, shades
from cgc.scaling_laws.fit import interval

if TYPE_CHECKING:
    from cgc.scaling_laws.study import Fitted, Study
    from cgc.target import Artifact


def scaling_picture(study: Study, name: str, kind: str) -> Artifact:
    """Return the picture as the file `name`, of `kind` svg or png."""
    drawn, ((axes,),) = figure_of(1, 4.6)
    computes = [run.compute for run in (*study.runs, *study.left_out)]
    goals = [found.foretold.compute for found in study.fits if found.foretold is not None]
    low, high = min(computes), max([*computes, *goals])
    grid = np.geomspace(low / 1.5, high * 1.5, 120)
    lines = shades(len(study.fits) + 1)
    for at, found in enumerate(study.fits):
        _law(axes, found, grid, lines[at], found is study.preferred)
    axes.plot([r.compute for r in study.runs], [r.loss for r in study.runs], "o", color="black", ms=4, label="runs")
    if study.left_out:
        xs, ys = [run.compute for run in study.left_out], [run.loss for run in study.left_out]
        axes.plot(xs, ys, "D", color="black", markerfacecolor="none", ms=6, label="left out of the fits")
    for run in {run.name: run for run in (*study.runs, *study.left_out)}.values():
        axes.annotate(run.name, (run.compute, run.loss), xytext=(4, 5), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel("loss, nats per token")
    axes.legend(frameon=False)
    return image(drawn, name, kind)


def _law(axes: Any, found: Fitted, grid: Any, color: Any, preferred: bool) -> None:
    law = found.fit.law
    base = f" + {law.irreducible:.3g}" if found.fit.free == 3 else ""
    text = f"(f / {law.scale:.3g})^-{law.exponent:.3g}{base}"
    line = "-" if preferred else "--"
    axes.plot(grid, [law(x) for x in grid], line, color=color, lw=1.4, label=text)
    if found.laws:
        pairs = [interval(np.array([other(x) for other in found.laws])) for x in grid]
        lows, highs = zip(*pairs, strict=True)
        axes.fill_between(grid, lows, highs, color=color, alpha=0.15, lw=0)
