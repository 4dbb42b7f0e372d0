"""The schedule of a step as a trace for Perfetto and Chrome's `about:tracing`: Trace Event Format, complete events."""

from __future__ import annotations

import json
from typing import Any

from cgc_wse.plan import Plan
from cgc_wse.schedule import Span, schedule

COLOURS = {
    "forward": "good",
    "again": "yellow",
    "backward": "rail_load",
    "optimizer": "rail_animation",
    "weights in": "grey",
    "gradients out": "olive",
    "pass": "white",
    "outside": "grey",
}
"""Names of Chrome's palette."""


def trace_json(model: str, plan: Plan) -> str:
    """Return the text of `trace.json`; times in microseconds from the start of the step, a line for each event."""
    spans, left_out = schedule(plan)
    tracks = {name: index for index, name in enumerate(dict.fromkeys(span.track for span in spans), start=1)}
    events = [_name("process_name", 0, f"{model} on {plan.device.name}, one step")]
    events += [_name("thread_name", tid, track) for track, tid in tracks.items()]
    events += [
        {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": t, "args": {"sort_index": t}} for t in tracks.values()
    ]
    events += [_event(span, tracks[span.track]) for span in spans]
    lines = ",\n".join(json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in events)
    about = {
        "model": model,
        "device": plan.device.name,
        "mode": plan.mode,
        "purpose": plan.job.purpose,
        "seconds_per_step": plan.seconds,
        "left_out": left_out,
    }
    other = json.dumps(about, ensure_ascii=False)
    return f'{{"displayTimeUnit":"ms","otherData":{other},"traceEvents":[\n{lines}\n]}}\n'


def _name(kind: str, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": tid, "args": {"name": name}}


def _event(span: Span, tid: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": span.name,
        "cat": span.kind,
        "cname": COLOURS[span.kind],
        "ts": round(span.start * 1e6, 3),
        "dur": round(span.seconds * 1e6, 3),
        "pid": 1,
        "tid": tid,
    }
