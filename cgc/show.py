"""What `cgc` prints about a program: tables for people, the same as JSON-able data."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from cgc.ir.graph import Graph, Init
from cgc.program import Program

if TYPE_CHECKING:
    from rich.table import Table


def init_data(init: Init) -> dict[str, Any]:
    """Return an initial distribution as JSON-able data."""
    match init.distribution:
        case "constant":
            return {"distribution": "constant", "value": init.mean}
        case "uniform":
            return {"distribution": "uniform", "limit": init.limit}
        case name:
            return {"distribution": name, "mean": init.mean, "std": init.std}


def params_data(program: Program) -> dict[str, Any]:
    """Return what `cgc params --format json` prints.

    A parameter of a `repeat` is one entry, its loop's dimension first; `count` is the number of its scalars.
    """
    graph = program.graph
    return {
        "model": program.name,
        "family": program.family,
        "total": graph.parameter_count,
        "params": [
            {
                "name": param.name,
                "dims": list(param.type.names),
                "shape": list(param.type.shape),
                "init": init_data(param.init),
                "count": param.type.count,
            }
            for param in graph.params
        ],
    }


def params_table(program: Program) -> Table:
    """Return the parameters as a table for the terminal."""
    from rich.table import Table

    total = program.graph.parameter_count
    table = Table(title=f"{program.name}: {total:,} parameters", title_justify="left", title_style="bold")
    table.add_column("parameter", no_wrap=True)
    table.add_column("dimensions")
    table.add_column("shape", justify="right")
    table.add_column("init")
    table.add_column("count", justify="right")
    for param in program.graph.params:
        dims = ", ".join(param.type.names)
        shape = " × ".join(map(str, param.type.shape))
        table.add_row(param.name, dims, shape, str(param.init), f"{param.type.count:,}")
    return table


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
