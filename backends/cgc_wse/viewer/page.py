"""The page: its text, with style, program and data inside.

Names come from the user's file. In the page they stand in JSON only, where `<`, `>`, `&` and the line separators of
JavaScript are escapes, and in the title, escaped for HTML; the program puts them on the screen as text, never as HTML.
A policy in the page forbids it to load anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from cgc_wse.plan import Phase, Placed, Plan, duration, gigabytes
from cgc_wse.report import days
from cgc_wse.schedule import visits

VERSION = 1
"""Of the data in the page."""

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1 id="title"></h1>
<p id="subtitle"></p>
<div id="facts"></div>
</header>
<main>
<section id="stage">
<div id="toolbar">
<div id="layers" role="group" aria-label="What the colours show"></div>
<div id="zoom" role="group" aria-label="Zoom">
<button id="zoom-in" title="Zoom in (+)">+</button>
<button id="zoom-out" title="Zoom out (-)">&minus;</button>
<button id="fit" title="Show all (0)">fit</button>
</div>
</div>
<canvas id="wafer" tabindex="0" aria-label="The wafer"></canvas>
<div id="tooltip" hidden></div>
<div id="timeline" hidden>
<button id="play" title="Play (space)">&#9654;</button>
<div id="strip"><canvas id="track"></canvas><input id="time" type="range" min="0" max="10000" value="0" step="1" \
aria-label="Time in a pass"><canvas id="inner"></canvas></div>
<output id="now"></output>
</div>
</section>
<aside>
<input id="search" type="search" placeholder="Search by name ( / )" aria-label="Search by name" autocomplete="off">
<ul id="matches"></ul>
<h2 id="legend-title"></h2>
<div id="legend"></div>
<h2>Selected</h2>
<div id="details"><p class="hint">Click a block. Drag to move, scroll to zoom.</p></div>
<h2>SRAM</h2>
<div id="memory"></div>
<h2>A step, in time</h2>
<div id="times"></div>
<p id="notes" class="hint"></p>
</aside>
</main>
<script type="application/json" id="data">{data}</script>
<script>
{program}</script>
</body>
</html>
"""


def viewer_html(model: str, plan: Plan, report: Mapping[str, Any]) -> str:
    """Return the page of a plan; `report` is the data of the target's report."""
    return _PAGE.format(
        policy=escape(_POLICY, quote=True),
        title=escape(f"{model} on {plan.device.name}"),
        style=_asset("viewer.css"),
        program=_asset("viewer.js"),
        data=embedded(viewer_data(model, plan, report)),
    )


def embedded(data: object) -> str:
    """Return JSON that no name in it can end early inside of HTML."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return "".join(_UNSAFE.get(character, character) for character in text)


def _asset(name: str) -> str:
    return files("cgc_wse.viewer").joinpath(name).read_text(encoding="utf-8")


def viewer_data(model: str, plan: Plan, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows. Blocks are lists, in the order of `columns`."""
    main = report["plans"][report["primary"]]
    device = plan.device
    together = len(plan.phases) == 1
    busiest = max((p.cycles.total for phase in plan.phases for p in phase.placed), default=1.0) or 1.0
    data: dict[str, Any] = {
        "version": VERSION,
        "model": model,
        "title": f"{model} on {device.name}",
        "subtitle": _subtitle(plan),
        "facts": _facts(plan, main, report),
        "device": {"name": device.name, "columns": device.columns, "rows": device.rows, "memory": device.memory},
        "mode": plan.mode,
        "columns": [
            "path",
            "kind",
            "layer",
            "x",
            "y",
            "width",
            "height",
            "busy",
            "compute",
            "fabric",
            "memory",
            "bytes",
            "parameters",
            "bound",
            "phase",
            "runs",
            "share",
        ],
        "blocks": [
            _block(placed, index, phase, plan, busiest if together else placed.cycles.total)
            for index, phase in enumerate(plan.phases)
            for placed in phase.placed
        ],
        "memory": [[figure.name, gigabytes(figure.value), figure.formula, figure.value] for figure in plan.memory],
        "capacity": device.cores * device.memory,
        "times": [[figure.name, _shown(figure.value, figure.unit), figure.formula] for figure in plan.time],
        "notes": [f"Why {plan.mode}: {plan.reason}.", f"Kept: {plan.policy}.", f"At the same time: {main['overlap']}."],
        "layout": main["layout"],
        **_in_time(plan),
    }
    return data


def _block(placed: Placed, index: int, phase: Phase, plan: Plan, interval: float) -> list[Any]:
    area, cycles, device = placed.area, placed.cycles, plan.device
    return [
        placed.path,
        placed.kernel.kind,
        placed.layer,
        area.x,
        area.y,
        area.width,
        area.height,
        _ratio(cycles.total, interval),
        _ratio(_useful(placed, plan), interval),
        _ratio(cycles.fabric, interval),
        _ratio(placed.bytes, area.cores * device.memory),
        placed.bytes,
        placed.kernel.parameters,
        cycles.bound,
        index,
        phase.runs,
        _ratio(phase.seconds, plan.seconds),
    ]


def _useful(placed: Placed, plan: Plan) -> float:
    """Return the cycles in which the multiply-adds of a block would be done with all lanes of all its cores."""
    kernel = placed.kernel
    work = kernel.forward.macs + (kernel.backward.macs if plan.job.purpose == "training" else 0)
    return work / (plan.device.multiply_adds * min(1.0, 2 / plan.job.number) * placed.area.cores)


def _ratio(part: float, whole: float) -> float:
    return float(f"{part / whole:.4g}") if whole else 0.0


def _subtitle(plan: Plan) -> str:
    job = plan.job
    what = {"training": "training", "forward": "forward pass", "decode": "decoding"}[job.purpose]
    where = f" on {job.wafers} wafers" if job.wafers > 1 else ""
    how = "pipelined, all of it resident" if plan.mode == "resident" else "weights streamed"
    count = f"{job.sequences:,} sequences" if job.sequences > 1 else "1 sequence"
    return f"{what}, {count} of {job.seq:,} tokens a step{where}; {how}"


def _facts(plan: Plan, main: Mapping[str, Any], report: Mapping[str, Any]) -> list[list[str]]:
    facts = [
        ["step", duration(plan.seconds)],
        ["tokens/s", f"{plan.tokens_per_second:,.0f}"],
        ["utilization", f"{100 * main['utilization']:.1f}%"],
        ["parameters", f"{report['parameters']:,}"],
        ["cores", f"{plan.device.columns} x {plan.device.rows}"],
    ]
    if report["run"]:
        facts.append(["whole run", days(report["run"]["seconds"])])
    return facts


def _shown(value: float, unit: str) -> str:
    return duration(value) if unit == "seconds" else f"{value:,.0f}"


def _in_time(plan: Plan) -> dict[str, Any]:
    """Return what is on the wafer when: `visits` of `sweeps`, whose blocks are indices with seconds.

    A visit is [name, direction, start in seconds, index of its sweep]; a sweep is a list of [block, seconds, seconds of
    its weights on the link].
    """
    if len(plan.phases) == 1:
        return {"visits": [], "sweeps": [], "passes": 1}
    index = {placed.path: i for i, placed in enumerate(p for phase in plan.phases for p in phase.placed)}
    if plan.sweeps:
        order = visits(plan)
        numbers = {id(sweep): i for i, sweep in enumerate(plan.sweeps)}
        sweeps = [[[index[path], _short(s), _short(w)] for path, s, w in sweep.blocks] for sweep in plan.sweeps]
        rows = [[v.name, v.direction, _short(v.start), numbers[id(v.sweep)]] for v in order]
        return {"visits": rows, "sweeps": sweeps, "passes": plan.passes}
    rows, sweeps, clock = [], [], 0.0
    for i, phase in enumerate(plan.phases):
        rows.append([phase.name, "forward", _short(clock), i])
        sweeps.append([[index[phase.placed[0].path], _short(phase.seconds), 0.0]])
        clock += phase.seconds
    return {"visits": rows, "sweeps": sweeps, "passes": 1}


def _short(seconds: float) -> float:
    return float(f"{seconds:.6g}")
