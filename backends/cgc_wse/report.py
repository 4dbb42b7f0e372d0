"""The report in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cgc_wse.plan import duration, gigabytes

_ALWAYS = (
    "stacks in each core's SRAM, and code beyond what the device leaves to it",
    "the loss and its gradient, gradient clipping, sparsity, exponentials as more than one operation",
)
_RESIDENT = (
    "contention and routing: words cross a block's border at the full rate of its links",
    "changes of layout between blocks, and inside one: its ops all have one of two layouts",
    "the length of the way between rectangles: they keep the model's order, no more",
)
_STREAMING = (
    "contention between a row's vectors and a column's weights; how the weights get from the edge to their columns",
    "scores of attention in SRAM: they are made in pieces, as in FlashAttention (Dao et al. 2022)",
    "the optimizer outside, and the way from there: as fast as the link off the wafer",
)
_DECODING = (
    "contention between the two axes of a square, sampling, exponentials as more than a multiply-add",
    "the way between squares that are not neighbours; buffers in each core's SRAM",
)


def not_modelled(mode: str, purpose: str) -> tuple[str, ...]:
    """Return what a model leaves out. All of it takes time or room: a real run is slower."""
    if purpose == "decode":
        return _DECODING
    return (*(_RESIDENT if mode == "resident" else _STREAMING), *_ALWAYS)


LARGEST_TENSORS = 6
"""Tensors that the report shows."""

NO_CHANGE = 0.03
"""A change of a step's time under this is noise of the placement."""


def report(data: Mapping[str, Any]) -> RenderableType:
    """Return what is printed for a compilation; `data` is that of the target's JSON."""
    main = data["plans"][data["primary"]]
    parts: list[RenderableType] = [_headline(data, main), _facts(data, main), *_reason(main)]
    parts += [_figures("SRAM", main["memory"], _memory_total(main)), _tensors(data["tensors"])]
    parts.append(_figures("time of a step", main["time"]))
    parts += [_blocks(main), _block_note(main), _limits(data, main)]
    parts += [part for part in (_run(data), _energy(data), _cluster(data), _other(data)) if part is not None]
    parts.append(_missing(data))
    return Group(*parts)


def _headline(data: Mapping[str, Any], main: Mapping[str, Any]) -> Text:
    device = data["device"]
    text = Text(f"{data['model']} on {device['name']}: {main['mode']}", style="bold")
    what = f"{main['batch']:,} x {main['seq']:,} tokens a step"
    if main["purpose"] == "decode":
        what = f"{main['batch']:,} tokens a step, each after {main['seq'] - 1:,}"
    where = f" on {main['wafers']} wafers" if main["wafers"] > 1 else ""
    return text.append(f"   {_purpose(main)}, {what}{where}", style="not bold")


def _purpose(plan: Mapping[str, Any]) -> str:
    return {"training": "training", "forward": "forward pass", "decode": "decoding"}[plan["purpose"]]


def _reason(main: Mapping[str, Any]) -> list[RenderableType]:
    lines = [Text(f"why {main['mode']}: {main['reason']}"), Text(f"kept: {main['policy']}")]
    if main["layout"]:
        lines.append(Text(f"layout: {main['layout']['text']}"))
    return [Padding(Group(*lines), (0, 0, 1, 2))]


def _facts(data: Mapping[str, Any], main: Mapping[str, Any]) -> Table:
    flops, device = data["flops"], data["device"]
    table = _table()
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("parameters", f"{data['parameters']:,}", "")
    shown = ("decode",) if main["purpose"] == "decode" else ("forward", "training")
    for name in shown:
        table.add_row(f"FLOPs {name}", f"{flops[name]:.4g}", flops[f"{name}_formula"])
    table.add_row("step", duration(main["seconds_per_step"]), "see below")
    bound = main["bound"]
    text = f"no {main['mode']} step is faster: {bound['formula']}"
    table.add_row("lower bound", duration(bound["seconds_per_step"]), f"{text}; gap {100 * bound['gap']:.1f}%")
    table.add_row(
        "tokens/s",
        f"{main['tokens_per_second']:,.0f}",
        "batch / step" if main["purpose"] == "decode" else "batch * seq / step",
    )
    peak = f"{data['peak_flops']:.3g} FLOP/s peak"
    many = " * wafers" if main["wafers"] > 1 else ""
    used = f"FLOPs / (step * {peak}, 2 * multiply_adds * cores * clock{many})"
    table.add_row("utilization", f"{100 * main['utilization']:.1f}%", used)
    table.add_row("cores", f"{device['cores']:,}", f"{device['columns']} x {device['rows']}")
    return table


def _table(*, header: bool = False) -> Table:
    return Table(box=None, pad_edge=True, show_header=header)


def _section(title: str, *parts: RenderableType) -> RenderableType:
    return Padding(Group(Text(title, style="bold"), *parts), (1, 0, 0, 0))


def _memory_total(main: Mapping[str, Any]) -> tuple[str, str, str]:
    capacity, core = gigabytes(main["memory_capacity"]), f"{main['memory_fullest_core']:,} B"
    return "total", gigabytes(main["memory_total"]), f"of {capacity}: cores * memory; the fullest core has {core}"


def _figures(
    title: str, figures: Sequence[Mapping[str, Any]], total: tuple[str, str, str] | None = None
) -> RenderableType:
    table = _table()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for figure in figures:
        table.add_row(figure["name"], _value(figure), figure["formula"])
    if total:
        table.add_row(*total)
    return _section(title, table)


def _tensors(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the tensors that take most room; all of them are in the JSON."""
    table = _table(header=True)
    for name in ("block", "category", "tensor", "shape"):
        table.add_column(name, no_wrap=name != "shape", style="dim" if name == "shape" else "")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("times", justify="right")
    largest = sorted(rows, key=lambda row: -row["bytes"] * row["runs"])[:LARGEST_TENSORS]
    for row in largest:
        shape = " x ".join(f"{name} {size:,}" for name, size in row["shape"].items())
        table.add_row(row["block"], row["category"], row["tensor"], shape, gigabytes(row["bytes"]), str(row["runs"]))
    return _section(f"SRAM, the largest of {len(rows)} tensors", table)


def _value(figure: Mapping[str, Any]) -> str:
    match figure["unit"]:
        case "bytes":
            return gigabytes(figure["value"])
        case "seconds":
            return duration(figure["value"])
        case _:
            return f"{figure['value']:,.0f}"


def _blocks(main: Mapping[str, Any]) -> RenderableType:
    table = _table(header=True)
    table.add_column("block", no_wrap=True)
    table.add_column("kind", style="dim")
    for name in ("layers", "parameters", "cores each", "compute", "sram", "fabric"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound")
    slowest = max(row["cycles"]["total"] for row in main["blocks"])
    for row in main["blocks"]:
        cycles = row["cycles"]
        cores = f"{row['cores_least']:,}"
        if row["cores_most"] != row["cores_least"]:
            cores += f"-{row['cores_most']:,}"
        times = [f"{cycles[name] / 1000:,.1f}" for name in ("compute", "sram", "fabric")]
        style = "bold" if cycles["total"] == slowest else ""
        table.add_row(
            row["path"],
            row["kind"],
            str(row["layers"]),
            f"{row['parameters']:,}",
            cores,
            *times,
            row["bound"],
            style=style,
        )
    return _section("blocks (kilocycles for one sequence of a step, slowest layer)", table)


def _block_note(main: Mapping[str, Any]) -> RenderableType:
    lines = [Text(f"{name} = {formula}", style="dim") for name, formula in main["block_formulas"].items()]
    lines.append(Text(f"at the same time: {main['overlap']}", style="dim"))
    return Padding(Group(*lines), (0, 0, 0, 1))


def _limits(data: Mapping[str, Any], main: Mapping[str, Any]) -> RenderableType:
    table = _table()
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    for lever in data["levers"]:
        change = lever["speedup"]
        shown = "as fast" if abs(change - 1) < NO_CHANGE else f"{change:.2f}x as fast"
        mode = f"({lever['mode']})" if lever["mode"] != main["mode"] else ""
        table.add_row(f"twice the {lever['double']}", shown, mode)
    return _section(f"bottleneck: {_limit(main)}; what would move it", table)


def _limit(plan: Mapping[str, Any]) -> str:
    """Name the bottleneck: `sram of h.mlp.activate`, or the link and what crosses it."""
    limit = plan["bottleneck"]
    if limit["path"]:
        return f"{limit['resource']} of {limit['path']}"
    crossing = "the inputs and outputs" if plan["mode"] == "resident" else "the weights"
    return f"the link off the wafer, which {crossing} cross"


def _run(data: Mapping[str, Any]) -> RenderableType | None:
    run = data["run"]
    if run is None:
        return None
    table = _table()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    table.add_row(
        "tokens", f"{run['tokens']:.4g}", f"{run['source']}; {run['tokens_per_parameter']:.1f} for each parameter"
    )
    table.add_row("steps", f"{run['steps']:,}", "tokens / (batch * seq), rounded up")
    table.add_row("time", days(run["seconds"]), f"steps * step, on {run['wafers']} wafer{'s' * (run['wafers'] > 1)}")
    return _section("the whole run", table)


def days(seconds: float) -> str:
    """Return a long time for a table: `3.42 days`, `5.1 hours`."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:,.2f} {unit}"
    return duration(seconds)


def _energy(data: Mapping[str, Any]) -> RenderableType | None:
    energy = data["energy"]
    if energy is None:
        return None
    text = f"{energy['watts'] / 1e3:,.1f} kW: {energy['joules_per_step']:,.4g} J a step, "
    text += f"{energy['joules_per_token']:.4g} J a token"
    if "joules_per_run" in energy:
        text += f", {energy['joules_per_run'] / 3.6e6:,.4g} kWh for the whole run"
    return _section("energy, at most", Text(text), Text(energy["formula"], style="dim"))


def _cluster(data: Mapping[str, Any]) -> RenderableType | None:
    cluster = data["cluster"]
    if cluster is None:
        return None
    table = _table(header=True)
    for name in ("wafers", "sequences each", "step", "tokens/s", "speedup", "of linear"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound")
    for row in cluster["rows"]:
        table.add_row(
            f"{row['wafers']:,}",
            f"{row['batch_per_wafer']:,}",
            duration(row["seconds_per_step"]),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['speedup']:.2f}",
            f"{100 * row['of_linear']:.1f}%",
            f"{row['bound']} ({row['mode']})",
        )
    lines = [Text(cluster["formula"], style="dim"), Text(f"what bounds it: {cluster['limit']}", style="dim")]
    return _section("wafers in data parallel, the same batch", table, *lines)


def _other(data: Mapping[str, Any]) -> RenderableType | None:
    other = data["plans"].get("forward" if data["primary"] == "training" else "training")
    if other is None:
        return None
    text = f"{_purpose(other)} on the same device: "
    if "error" in other:
        return Padding(Text(text + other["error"]), (1, 0, 0, 1))
    text += (
        f"{other['mode']}, {duration(other['seconds_per_step'])} a step, {other['tokens_per_second']:,.0f} tokens/s, "
        f"{gigabytes(other['memory_total'])} of SRAM, limited by {_limit(other)}"
    )
    return Padding(Text(text), (1, 0, 0, 1))


def _missing(data: Mapping[str, Any]) -> RenderableType:
    lines = [Text("not modelled yet (a real run is slower)", style="bold")]
    lines += [Text(f"- {line}") for line in data["not_modelled"]]
    return Padding(Group(*lines), (1, 0, 0, 1))
