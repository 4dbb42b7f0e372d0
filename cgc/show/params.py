"""What `cgc` prints about a program: tables for people, the same as JSON-able data."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from cgc.ir.graph import Graph, Init
from cgc.program import Parametrization, ParamSetting, Program

if TYPE_CHECKING:
    from rich.table import Table


def init_data(init: Init) -> dict[str, Any]:
    """Return an initial distribution as JSON-able data."""
    match init.distribution:
        case "constant":
            return {"distribution": "constant", "value": init.mean, "std": 0.0}
        case "uniform":
            return {"distribution": "uniform", "limit": init.limit, "std": init.limit / math.sqrt(3)}
        case name:
            return {"distribution": name, "mean": init.mean, "std": init.std}


def params_data(program: Program) -> dict[str, Any]:
    """Return what `cgc params --format json` prints.

    A parameter of a `repeat` is one entry, its loop's dimension first; `count` is the number of its scalars.
    """
    from cgc.parametrize.model import parametrization_of

    graph, made = program.graph, parametrization_of(program)
    return {
        "model": program.name,
        "family": program.family,
        "parametrization": made.name,
        "total": graph.parameter_count,
        "params": [
            {
                "name": param.name,
                "dims": list(param.type.names),
                "shape": list(param.type.shape),
                "class": setting.group,
                "multiplier": setting.multiplier,
                "init": init_data(param.init),
                "lr": setting.lr,
                "lr_factor": setting.lr_factor,
                "eps": setting.eps,
                "weight_decay": setting.weight_decay,
                "overridden": list(setting.overridden),
                "count": param.type.count,
            }
            for param, setting in zip(graph.params, made.params, strict=True)
        ],
        "multipliers": [
            {"path": factor.path, "class": factor.group, "value": factor.value, "reason": factor.reason}
            for factor in made.factors
        ],
    }


def params_table(program: Program) -> Table:
    """Return the parameters as a table for the terminal."""
    from rich.table import Table

    from cgc.parametrize.model import parametrization_of

    made = parametrization_of(program)
    total = program.graph.parameter_count
    title = f"{program.name}: {total:,} parameters ({made.name})"
    table = Table(title=title, title_justify="left", title_style="bold", caption=_factors(made), caption_justify="left")
    columns = list(zip(program.graph.params, made.params, strict=True))
    optional = {
        "multiplier": [f"{setting.multiplier:.4g}" if setting.multiplier != 1 else "" for _, setting in columns],
        "lr": [_number(setting.lr, setting, "lr") for _, setting in columns],
        "eps": [_number(setting.eps, setting, "eps") for _, setting in columns],
        "weight decay": [_number(setting.weight_decay, setting, "weight_decay") for _, setting in columns],
    }
    shown = {name: cells for name, cells in optional.items() if any(cells)}
    table.add_column("parameter", no_wrap=True)
    table.add_column("dimensions", no_wrap=True)
    table.add_column("class", no_wrap=True)
    table.add_column("init", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    for at, (param, setting) in enumerate(columns):
        dims = ", ".join(f"{dim.name} {dim.size}" for dim in param.type.dims)
        init = f"{param.init}{'*' if 'init' in setting.overridden else ''}"
        cells = [column[at] for column in shown.values()]
        table.add_row(param.name, dims, setting.group, init, *cells, f"{param.type.count:,}")
    return table


def _number(value: float | None, setting: ParamSetting, name: str) -> str:
    """Return a number for the table; a star marks what an `override` gave."""
    return "" if value is None else f"{value:.4g}{'*' if name in setting.overridden else ''}"


def _factors(made: Parametrization) -> str | None:
    """Return the forward multipliers in one line each, None where there are none."""
    lines = [f"{factor.path} × {factor.value:.6g}: {factor.reason}" for factor in made.factors]
    if any(setting.overridden for setting in made.params):
        lines.append("* from an override")
    return "\n".join(dict.fromkeys(lines)) or None


def explain_param(program: Program, path: str) -> str:
    """Return why a parameter has the settings it has: its dimensions, its class, the rules, their source.

    Raises:
        KeyError: there is no such parameter.
    """
    from cgc.parametrize.model import parametrization_of

    made = parametrization_of(program)
    setting = made.param(path)
    param = next(param for param in program.graph.params if param.name == path)
    dims = ", ".join(f"{dim.name} = {dim.size}" for dim in param.type.dims)
    lines = [f"{path} [{dims}], declared at {param.location}", "", f"class: {setting.group}"]
    if len(setting.uses) > 1:
        lines.append(f"used as: {', '.join(setting.uses)}; its own settings are those of its class")
    values = {
        "multiplier": f"{setting.multiplier:.6g}",
        "init": str(param.init),
        "lr": "no base rate is given" if setting.lr is None else f"{setting.lr:.6g}",
        "eps": "no base value is given" if setting.eps is None else f"{setting.eps:.6g}",
        "weight_decay": "no base value is given" if setting.weight_decay is None else f"{setting.weight_decay:.6g}",
    }
    reasons = dict(setting.reasons)
    for name, value in values.items():
        if name != "multiplier" or name in reasons:
            lines.append(f"{name}: {value}    {reasons.get(name, '')}".rstrip())
    others = [factor for factor in made.factors if factor.reason not in reasons.values()]
    if others:
        lines += ["", "other forward multipliers of the model:"]
        lines += [f"  {factor.path} × {factor.value:.6g}    {factor.reason}" for factor in others]
    source = program.scaling.table if program.scaling is not None else None
    if source is not None:
        lines += ["", f"rules: parametrization {source.name}, {source.location}"]
    lines.append("weight decay is multiplied by the learning rate, as in PyTorch's AdamW")
    return "\n".join(lines)


def params_html(program: Program) -> str:
    """Return the parameters as a table for notebooks."""
    cells = "".join(
        f"<tr><td><code>{escape(param.name)}</code></td><td>{escape(', '.join(param.type.names))}</td>"
        f"<td>{' × '.join(map(str, param.type.shape))}</td><td>{escape(str(param.init))}</td>"
        f"<td style='text-align:right'>{param.type.count:,}</td></tr>"
        for param in program.graph.params
    )
    head = "".join(f"<th>{name}</th>" for name in ("parameter", "dimensions", "shape", "init", "count"))
    caption = f"<caption><b>{escape(program.name)}</b>: {program.graph.parameter_count:,} parameters</caption>"
    return f"<table>{caption}<tr>{head}</tr>{cells}</table>"


def summary_data(program: Program) -> dict[str, Any]:
    """Return what `cgc check --format json` says of one model."""
    graph = program.graph
    return {
        "model": program.name,
        "family": program.family,
        "parameters": graph.parameter_count,
        "inputs": {value.name: str(value.type) for value in graph.inputs},
        "outputs": output_types(graph),
        "sizes": {name: value for name, value in program.arguments if not isinstance(value, tuple)},
    }


def output_types(graph: Graph) -> dict[str, str]:
    """Return the types of the outputs by name, as text."""
    return {name: str(value.type) for name, value in zip(graph.outputs, graph.body.results, strict=True)}


def summary_text(program: Program) -> str:
    """Return one line about a model."""
    graph = program.graph
    inputs = ", ".join(f"{value.name} {value.type}" for value in graph.inputs)
    outputs = ", ".join(f"{name} {text}" for name, text in output_types(graph).items())
    return f"{program.name}: {graph.parameter_count:,} parameters; {inputs} → {outputs}"
