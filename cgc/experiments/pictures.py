"""Pictures of experiments, as SVG and PNG. The same results give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgc.driver import UsageError
from cgc.target import Artifact

if TYPE_CHECKING:
    from cgc.experiments.coordcheck import Result
    from cgc.experiments.sweep import Curve

_LINES = ("-", "--", ":")


def figure_of(columns: int, height: float) -> Any:
    """Return a figure with `columns` axes side by side (UsageError: matplotlib is not installed)."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError("pictures need matplotlib; `pip install 'cgc[experiments]'`, or leave `-o` out") from error
    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "cgc", "svg.fonttype": "path", "font.size": 9.0, "axes.grid": True})
    mpl.rcParams.update({"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(6.2 * columns, height), squeeze=False)


def _artifacts(figure: Any, name: str) -> tuple[Artifact, ...]:
    from matplotlib import pyplot

    artifacts = tuple(image(figure, f"{name}.{kind}", kind) for kind in ("svg", "png"))
    pyplot.close(figure)
    return artifacts


def image(figure: Any, name: str, kind: str) -> Artifact:
    """Return a figure as a file of `kind` svg or png."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight", dpi=120)
    data = buffer.getvalue()

    def write(path: Path) -> None:
        path.write_bytes(data)

    return Artifact(name, write)


def coordinate_pictures(result: Result) -> tuple[Artifact, ...]:
    """Return the familiar picture of a coordinate check: sizes against the width, flat where all is well."""
    figure, ((first, second),) = figure_of(2, 4.6)
    colors = shades(len(result.tensors))
    for at, row in enumerate(result.tensors):
        style = {"color": colors[at], "linestyle": _LINES[at % len(_LINES)], "marker": "o", "markersize": 3}
        name = f"{row.tensor} ({row.kind})" if row.kind != "product" else row.tensor
        _plot(first, result.setup.widths, row.init, name, style)
        _plot(second, result.setup.widths, row.change, name, style)
    for axes, title in ((first, "at initialization"), (second, f"change after {result.setup.steps} steps")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(result.setup.widths, [str(width) for width in result.setup.widths])
        axes.minorticks_off()
        axes.set_xlabel("width")
        axes.set_ylabel("root mean square of a coordinate")
        axes.set_title(f"{result.model} under {result.parametrization}: {title}")
    second.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
    return _artifacts(figure, "coordcheck")


def _plot(axes: Any, xs: Sequence[float], ys: Sequence[float], name: str, style: dict[str, Any]) -> None:
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if y > 0 and math.isfinite(y)]
    if points:
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, **style)


def shades(count: int) -> list[Any]:
    """Return colours for `count` lines, dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.05 + 0.85 * at / max(1, count - 1)) for at in range(count)]


def sweep_pictures(curves: Sequence[Curve], over: str, title: str) -> tuple[Artifact, ...]:
    """Return the picture of a sweep: held-out loss against what was swept, a line for each width."""
    figure, ((axes,),) = figure_of(1, 4.6)
    colors = shades(len(curves))
    for at, curve in enumerate(curves):
        points = [point for point in curve.points if math.isfinite(point.mean)]
        if not points:
            continue
        xs, ys = [point.value for point in points], [point.mean for point in points]
        axes.fill_between(xs, [p.low for p in points], [p.high for p in points], color=colors[at], alpha=0.15, lw=0)
        axes.plot(xs, ys, color=colors[at], marker="o", markersize=3, label=f"width {curve.width}")
        best = min(points, key=lambda point: point.mean)
        axes.plot([best.value], [best.mean], "o", markersize=10, markerfacecolor="none", color=colors[at])
    axes.set_xscale("log", base=2)
    axes.set_xlabel(over)
    axes.set_ylabel("held-out loss, nats per byte")
    axes.set_title(title)
    axes.legend(frameon=False)
    return _artifacts(figure, "sweep")
