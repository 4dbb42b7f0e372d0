"""Whatever a diagnostic points at, drawing it never fails, and its marks stand under what they mean."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cgc.diagnostics import Diagnostic, Label, Location
from cgc.diagnostics.render import render

numbers = st.integers(-2, 12) | st.sampled_from([10**9, -(10**9), 150])
locations = st.builds(Location, st.sampled_from(["a.cg", "b.cg", "", "c\n\x1b.cg"]), numbers, numbers, numbers, numbers)
texts = st.text(st.characters() | st.sampled_from("ab \t\n日\u0301\x1b\u202e"), max_size=30)
labels = st.builds(Label, locations, texts)
diagnostics = st.builds(
    Diagnostic,
    st.sampled_from(["CG0001", "CG0203"]),
    texts,
    st.lists(labels, max_size=4).map(tuple),
    texts,
    st.lists(labels, max_size=2).map(tuple),
)
sources = st.dictionaries(
    st.sampled_from(["a.cg", "b.cg"]),
    st.lists(st.text(max_size=20) | st.sampled_from(["\t\tx", "x" * 500, "日" * 200])).map("\n".join),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(diagnostics, max_size=3), sources)
def test_anything_can_be_drawn(found: list[Diagnostic], texts_by_path: dict[str, str]) -> None:
    plain = render(found, texts_by_path)
    colored = render(found, texts_by_path, color=True)
    assert plain == render(found, texts_by_path)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", plain)
    assert plain.count("error[CG") >= len(found)
    assert plain == "" or plain.endswith("\n")
    plain.encode("utf-8")
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in stripped.split("\n")] == plain.split("\n")


@settings(max_examples=200, deadline=None)
@given(st.text("ab(),= ", min_size=1, max_size=400), st.data())
def test_carets_stand_under_what_they_mean(line: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(line) - 1))
    end = data.draw(st.integers(start + 1, min(len(line), start + 60)))
    fault = Diagnostic("CG0001", "m", (Label(Location("a.cg", 1, start + 1, 1, end + 1)),))
    rows = render([fault], {"a.cg": line}).split("\n")
    shown, marks = rows[3].ljust(200), rows[4]
    assert marks.count("^") == end - start
    assert shown[marks.index("^") : marks.rindex("^") + 1] == line[start:end]
