"""When what runs in a step: spans of time on named tracks, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cgc_wse.plan import Direction, Placed, Plan, Sweep

MOST_SPANS = 20_000
"""A schedule with more spans leaves some out, in the middle of the step, and says so."""

Kind: TypeAlias = Literal["forward", "again", "backward", "optimizer", "weights in", "gradients out", "pass", "outside"]


@dataclass(frozen=True, slots=True)
class Span:
    """`name` is what the user calls it; `track` is what it runs on."""

    track: str
    name: str
    kind: Kind
    start: float
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """A run of a stage in a pass of weight streaming: `h.3`, going forward or back."""

    name: str
    sweep: Sweep
    start: float

    @property
    def direction(self) -> Direction:
        """The way it goes."""
        return self.sweep.direction


def visits(plan: Plan) -> list[Visit]:
    """Return what a pass of weight streaming visits, in order, from time 0: forward, then back through all layers."""
    found: list[Visit] = []
    clock = 0.0

    def visit(sweep: Sweep, run: int) -> None:
        nonlocal clock
        found.append(Visit(sweep.stage if sweep.runs == 1 else f"{sweep.stage}.{run}", sweep, clock))
        clock += sweep.seconds

    stages = list(dict.fromkeys(sweep.stage for sweep in plan.sweeps))
    for stage in stages:
        for sweep in (s for s in plan.sweeps if s.stage == stage and s.direction == "forward"):
            for run in range(sweep.first, sweep.last):
                visit(sweep, run)
    for stage in reversed(stages):
        back = [s for s in plan.sweeps if s.stage == stage and s.direction != "forward"]
        runs = max((s.last for s in back), default=0)
        for run in reversed(range(runs)):
            # What is made again comes first.
            for sweep in sorted((s for s in back if s.first <= run < s.last), key=lambda s: s.direction != "again"):
                visit(sweep, run)
    return found


def schedule(plan: Plan) -> tuple[list[Span], str]:
    """Return the spans of a step, and what was left out of them."""
    if plan.sweeps:
        return _streamed(plan)
    if plan.mode == "streaming":
        return _one_after_another(plan), ""
    return _pipelined(plan)


def _one_after_another(plan: Plan) -> list[Span]:
    spans, clock = [], 0.0
    for phase in plan.phases:
        spans.append(Span("layers", phase.name, "forward", clock, phase.seconds))
        clock += phase.seconds
    return spans


def _streamed(plan: Plan) -> tuple[list[Span], str]:
    order = visits(plan)
    length = order[-1].start + order[-1].sweep.seconds
    blocks = sum(len(visit.sweep.blocks) for visit in order)
    full = plan.passes if 3 * blocks * plan.passes <= MOST_SPANS else max(1, MOST_SPANS // (3 * blocks))
    spans: list[Span] = []
    outside = next((figure.value for figure in plan.time if figure.name == "first layer"), 0.0)
    spans.append(Span("link in", "the first layer's weights", "weights in", 0.0, outside))
    for index in range(plan.passes):
        begin = outside + index * length
        done = plan.at_once * index
        count = min(plan.at_once, plan.job.batch - done)
        spans.append(Span("passes", f"sequences {done} to {done + count - 1}", "pass", begin, length))
        if index < full:
            for visit in order:
                spans += _visit(visit, begin)
    if full == plan.passes:
        return spans, ""
    return spans, f"blocks of {full} of {plan.passes} passes are shown; the others are alike"


def _visit(visit: Visit, begin: float) -> Iterator[Span]:
    sweep, clock = visit.sweep, begin + visit.start
    yield Span("layers", visit.name, sweep.direction, clock, sweep.seconds)
    for path, seconds, streamed in sweep.blocks:
        yield Span("blocks", _in_run(path, visit), sweep.direction, clock, seconds)
        if streamed:
            back = sweep.direction == "backward"
            kind: Kind = "gradients out" if back else "weights in"
            yield Span("link out" if back else "link in", _in_run(path, visit), kind, clock, min(streamed, seconds))
        clock += seconds


def _in_run(path: str, visit: Visit) -> str:
    """Return `h.attention.q` in `h.3` as `h.3.attention.q`."""
    stage = visit.sweep.stage
    return f"{visit.name}{path[len(stage) :]}" if path.startswith(f"{stage}.") else path


def _pipelined(plan: Plan) -> tuple[list[Span], str]:
    """One forward, one backward in each stage in turn, as soon as what they need is there."""
    layers = _layers(plan)
    training = plan.job.purpose == "training"
    most = max(1, MOST_SPANS // (len(layers) * (2 if training else 1)))
    sequences = min(plan.job.batch, most)
    times = [_seconds(plan, placed, training) for _, placed in layers]
    spans = _one_forward_one_back(layers, times, sequences, training)
    end = max((span.start + span.seconds for span in spans), default=0.0)
    crossing = next((figure.value for figure in plan.time if figure.name == "wafer crossing"), 0.0)
    spans.append(Span("fabric", "from one side of the wafer to the other", "outside", end, crossing))
    end += crossing
    kinds: tuple[tuple[str, str, Kind], ...] = (
        ("gradients", "gradients of all wafers are summed", "outside"),
        ("optimizer", "the optimizer's pass", "optimizer"),
    )
    for name, text, kind in kinds:
        seconds = next((figure.value for figure in plan.time if figure.name == name), 0.0)
        if training and seconds:
            spans += [Span(layer, text, kind, end, seconds) for layer, _ in layers]
            end += seconds
    left = f"the first {sequences} of {plan.job.batch} sequences are shown; the others follow alike"
    return spans, "" if sequences == plan.job.batch else left


def _layers(plan: Plan) -> list[tuple[str, list[Placed]]]:
    found: dict[str, list[Placed]] = {}
    for placed in plan.phases[0].placed:
        found.setdefault(placed.layer, []).append(placed)
    return list(found.items())


def _seconds(plan: Plan, placed: Sequence[Placed], training: bool) -> tuple[float, float]:
    """Return the seconds of a stage for one sequence, forward and back: those of its slowest block, by its work."""
    slowest = max(placed, key=lambda one: one.cycles.total)
    seconds = slowest.cycles.total / plan.device.clock
    if not training:
        return seconds, 0.0
    work = slowest.kernel
    forward, whole = (w.macs + w.operations + w.read + w.written for w in (work.forward, work.training))
    return seconds * forward / max(1, whole), seconds * (1 - forward / max(1, whole))


def _one_forward_one_back(
    layers: list[tuple[str, list[Placed]]], times: list[tuple[float, float]], sequences: int, training: bool
) -> list[Span]:
    count = len(layers)
    ahead = [min(count - s, sequences) if training else sequences for s in range(count)]
    forward = [[0.0] * sequences for _ in range(count)]
    back = [[0.0] * sequences for _ in range(count)]
    free, nexts = [0.0] * count, [[0, 0] for _ in range(count)]
    spans: list[Span] = []
    moved = True
    while moved:
        moved = False
        for s in range(count):
            while (step := _next(s, count, ahead[s], nexts, sequences, training)) is not None:
                i, down = step
                before = (
                    (forward[s - 1][i] if s else 0.0) if down else back[s + 1][i] if s + 1 < count else forward[s][i]
                )
                start, seconds = max(free[s], before), times[s][0 if down else 1]
                (forward if down else back)[s][i] = free[s] = start + seconds
                nexts[s][0 if down else 1] += 1
                kind: Kind = "forward" if down else "backward"
                spans.append(Span(layers[s][0], f"{layers[s][0]}, sequence {i}", kind, start, seconds))
                moved = True
    return spans


def _next(
    s: int, count: int, ahead: int, nexts: list[list[int]], sequences: int, training: bool
) -> tuple[int, bool] | None:
    """Return what stage s does next, as far as its neighbours are ready: (sequence, forward or back)."""
    down, up = nexts[s]
    can_forward = down < sequences and (s == 0 or nexts[s - 1][0] > down)
    if not training:
        return (down, True) if can_forward else None
    if down < sequences and down - up < ahead:
        return (down, True) if can_forward else None
    if up < down and (s == count - 1 or nexts[s + 1][1] > up):
        return up, False
    return None
