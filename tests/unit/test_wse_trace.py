"""The schedule of a step, as a trace and in the viewer's data."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from cgc_wse import TARGET
from cgc_wse.plan import Plan
from cgc_wse.schedule import MOST_SPANS, Span, schedule
from cgc_wse.trace import COLOURS, trace_json
from cgc_wse.viewer.page import embedded, viewer_html
from wafer_plans import ONE, TRAIN, example, planned, program_of

from cgc import load_device
from cgc.target import CompileOptions

CASES: list[tuple[str, dict[str, Any]]] = [
    ("tiny.cg", {"run": "pipelined", "batch": 5}),
    ("tiny.cg", {"run": "streaming"}),
    ("tiny.cg", {"mode": "prefill", "run": "pipelined", "batch": 3}),
    ("tiny.cg", {"mode": "prefill", "run": "streaming"}),
    ("llama_8b.cg", {"mode": "decode", "batch": 3}),
    ("llama_8b.cg", {"mode": "decode", "run": "streaming"}),
    ("cerebras_gpt/13b.cg", {}),
]


def plan_of(name: str, options: dict[str, Any]) -> Plan:
    return planned(example(name), load_device("wse2"), **options)[0]


def on_track(spans: list[Span], track: str) -> list[Span]:
    return sorted((span for span in spans if span.track == track), key=lambda span: span.start)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_trace_is_one_that_perfetto_reads(name: str, options: dict[str, Any]) -> None:
    plan = plan_of(name, options)
    text = trace_json("m", plan)
    assert text == trace_json("m", plan)
    data = json.loads(text)
    assert data["displayTimeUnit"] in ("ms", "ns")
    events = data["traceEvents"]
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    complete = [event for event in events if event["ph"] == "X"]
    assert {event["ph"] for event in events} == {"X", "M"}
    assert complete
    for event in complete:
        assert event["tid"] in named
        assert event["pid"] == 1
        assert event["ts"] >= 0 and event["dur"] >= 0
        assert event["cat"] in COLOURS
        assert event["name"]
    end = max(event["ts"] + event["dur"] for event in complete) / 1e6
    # Decoding is a pipeline that never drains: shown are the first tokens, which fill it.
    filling = 2 if plan.job.purpose == "decode" else 1.05
    assert end <= plan.seconds * filling + 1e-9
    if not data["otherData"]["left_out"]:
        assert end >= plan.seconds * 0.5


@pytest.mark.parametrize(("name", "options"), CASES)
def test_nothing_on_a_track_overlaps(name: str, options: dict[str, Any]) -> None:
    spans, _ = schedule(plan_of(name, options))
    assert len(spans) <= MOST_SPANS * 1.1
    for track in {span.track for span in spans}:
        row = on_track(spans, track)
        for before, after in pairwise(row):
            assert before.start + before.seconds <= after.start + 1e-9 * max(1.0, after.start), (before, after)


def test_streaming_goes_through_the_layers_and_back() -> None:
    plan = plan_of("tiny.cg", {"run": "streaming", "recompute": True})
    spans, left_out = schedule(plan)
    assert left_out == ""
    layers = on_track(spans, "layers")
    half = len([span for span in layers if span.kind == "forward"]) // plan.passes
    one = layers[: len(layers) // plan.passes]
    assert [span.name for span in one[:half]] == ["before h", *(f"h.{i}" for i in range(half - 2)), "after h"]
    back = [span for span in one if span.kind == "backward"]
    assert [span.name for span in back] == [span.name for span in one[:half]][::-1]
    for before, after in pairwise(one):
        if before.kind == "again":
            assert (after.kind, after.name) == ("backward", before.name)
    blocks = {span.name for span in on_track(spans, "blocks")}
    assert {"x", "h.0.attention.q", "h.1.mlp.down", "logits"} <= blocks
    # Weights of a block pass while it runs.
    starts = {(span.start, span.name) for span in on_track(spans, "blocks")}
    for span in on_track(spans, "link in")[1:]:
        assert (span.start, span.name) in starts


def test_a_pipeline_takes_one_forward_and_one_backward_in_turn() -> None:
    plan = plan_of("tiny.cg", {"run": "pipelined", "batch": 5})
    spans, _ = schedule(plan)
    stages = list(dict.fromkeys(span.track for span in spans if span.kind in ("forward", "backward")))
    assert len(stages) == plan.depth
    ends: dict[tuple[str, str, str], float] = {}
    starts: dict[tuple[str, str, str], float] = {}
    for span in spans:
        if span.kind in ("forward", "backward"):
            key = span.track, span.kind, span.name.rpartition(" ")[2]
            starts[key], ends[key] = span.start, span.start + span.seconds
    assert len(ends) == 2 * 5 * len(stages)
    for s, stage in enumerate(stages):
        for i in range(5):
            down, up = (stage, "forward", str(i)), (stage, "backward", str(i))
            if s:
                assert starts[down] >= ends[stages[s - 1], "forward", str(i)] - 1e-12
                assert starts[stages[s - 1], "backward", str(i)] >= ends[up] - 1e-12
            assert starts[up] >= ends[down] - 1e-12
        # What is in flight: forward done, backward not yet.
        moments = sorted(
            [(starts[stage, "forward", str(i)], 1) for i in range(5)]
            + [(ends[stage, "backward", str(i)], -1) for i in range(5)],
            key=lambda m: (m[0], m[1]),
        )
        count = most = 0
        for _, change in moments:
            count += change
            most = max(most, count)
        assert most <= min(len(stages) - s, 5)
    values = {figure.name: figure.value for figure in plan.time}
    assert max(ends.values()) <= values["pipeline"] * (1 + 1e-9)
    assert any(span.kind == "optimizer" for span in spans)


def test_long_steps_leave_something_out_and_say_so() -> None:
    spans, left_out = schedule(plan_of("cerebras_gpt/111m.cg", {"run": "pipelined", "batch": 5000}))
    assert "of 5000 sequences" in left_out
    assert len(spans) <= MOST_SPANS * 1.1
    spans, left_out = schedule(plan_of("cerebras_gpt/13b.cg", {}))
    assert "passes are shown" in left_out


def page(text: str) -> str:
    program = program_of(text)
    plan, _ = planned(program, load_device("tiny16"))
    data = TARGET.compile(program, CompileOptions(device="tiny16")).data
    return viewer_html("<b>&\"'</title>", plan, data)


def test_the_page_needs_nothing_from_outside_and_escapes_names() -> None:
    found = page(ONE + TRAIN)
    assert "http" not in found.replace("http-equiv", "")
    assert "src=" not in found and "href" not in found and "@import" not in found and "url(" not in found
    assert found.count("</script>") == 2
    assert "<title>&lt;b&gt;&amp;&quot;&#x27;&lt;/title&gt; on tiny16</title>" in found
    assert "innerHTML" not in found and "eval(" not in found
    assert found == page(ONE + TRAIN)


@pytest.mark.parametrize("text", ["</script>", "<!--", "<script>", "&lt;", "\u2028", "]]>"])
def test_data_in_a_page_is_json_without_markup(text: str) -> None:
    shown = embedded({text: [text]})
    assert not {"<", ">", "&", "\u2028"} & set(shown)
    assert json.loads(shown) == {text: [text]}
