"""The placement as a picture: the wafer to scale, a rectangle for each block with the user's name, and a legend.

In weight streaming blocks have the whole wafer one after another: there the wafer is cut into bands as high as they
take time.
"""

from __future__ import annotations

from collections.abc import Iterable

from cgc_wse.plan import Placed, Plan, duration, gigabytes
from cgc_wse.svg import LARGEST, SMALLEST, attributes, label, line, rect, text, wrapped

MARGIN = 28.0
WAFER_WIDTH, WAFER_HEIGHT = 760.0, 900.0
"""The most room the wafer gets, in pixels."""
PANEL = 330.0
INK, PALE, FRAME = "#1d2733", "#5c6b7a", "#33414f"

KNOWN_COLOURS = {
    "linear": "#8fb8de",
    "attend": "#f2b263",
    "attend_with_bias": "#f2b263",
    "layer_norm": "#9ccc9c",
    "rms_norm": "#9ccc9c",
    "activate": "#f0dd7b",
    "silu": "#f0dd7b",
    "gather": "#c3a6d8",
    "dot": "#7cc4c0",
    "elementwise": "#c9ced4",
    "rope": "#e8a3b8",
}
"""Fills of blocks of the standard library and of statements."""
OTHER_COLOURS = ("#e39b86", "#b5c96a", "#a3b1e0", "#d6b48c", "#8ed1a9", "#dba6dd", "#9fb7c4", "#d1c5a0")
MEMORY_COLOURS = ("#3f6ea5", "#d08a2e", "#7a5aa6", "#4c9a6a", "#a34d6b", "#6b7c8c")


def picture(plan: Plan, title: str) -> str:
    """Return the picture of a plan as SVG."""
    device = plan.device
    colours = _colours(placed for phase in plan.phases for placed in phase.placed)
    scale = min(WAFER_WIDTH / device.columns, WAFER_HEIGHT / device.rows)
    width, height = device.columns * scale, device.rows * scale
    top = 112.0
    parts = _heading(plan, title)
    draw = _bands if plan.mode == "streaming" else _wafer
    parts += draw(plan, MARGIN, top, scale, colours)
    parts += _ruler(plan, MARGIN, top + height, scale)
    panel, bottom = _panel(plan, MARGIN + width + MARGIN, top, colours)
    parts += panel
    total_width = MARGIN + width + MARGIN + PANEL + MARGIN
    total_height = max(top + height + 58, bottom + MARGIN)
    head = attributes(
        xmlns="http://www.w3.org/2000/svg",
        width=total_width,
        height=total_height,
        viewBox=f"0 0 {total_width:.0f} {total_height:.0f}",
        font_family="Helvetica, Arial, sans-serif",
        fill=INK,
    )
    background = rect(0, 0, total_width, total_height, fill="#ffffff")
    return "\n".join([f"<svg {head}>", background, *parts, "</svg>"]) + "\n"


def _colours(placed: Iterable[Placed]) -> dict[str, str]:
    """Return a fill for each kind of block, in order of appearance."""
    colours: dict[str, str] = {}
    others = 0
    for one in placed:
        kind = one.kernel.kind
        if kind not in colours:
            known = KNOWN_COLOURS.get(kind)
            colours[kind] = known or OTHER_COLOURS[others % len(OTHER_COLOURS)]
            others += known is None
    return colours


def _heading(plan: Plan, title: str) -> list[str]:
    device, job = plan.device, plan.job
    what = {"training": "training", "forward": "forward pass", "decode": "decoding"}[job.purpose]
    parts = [text(MARGIN, 40, f"{title} on {device.name}, {plan.mode}", 22, font_weight="bold")]
    many = f" on {job.wafers} wafers" if job.wafers > 1 else ""
    facts = (
        f"{what}, {job.sequences:,} x {job.seq:,} tokens{many}: {duration(plan.seconds)} a step, "
        f"{plan.tokens_per_second:,.0f} tokens/s"
    )
    parts.append(text(MARGIN, 63, facts, 14, fill=PALE))
    shown = "Every block of every layer has its own cores."
    if job.purpose == "decode" and plan.mode == "resident":
        shown = "Layers share squares of cores; a token goes from square to square."
    if plan.mode == "streaming":
        cut = f": {plan.layout.text()}" if plan.layout else ""
        shown = f"One block after another has the whole wafer{cut}. Heights are time."
    parts.append(text(MARGIN, 83, shown, 14, fill=PALE))
    return parts


def _bands(plan: Plan, left: float, top: float, scale: float, colours: dict[str, str]) -> list[str]:
    width, height = plan.device.columns * scale, plan.device.rows * scale
    whole = sum(phase.seconds for phase in plan.phases) or 1.0
    parts, y = [], top
    for phase in plan.phases:
        (one,) = phase.placed
        part = height * phase.seconds / whole
        share = f"{100 * phase.seconds / whole:.1f}%"
        turns = f", {phase.runs} layers in turn" if phase.runs > 1 else ""
        tip = f"{_tip(one)}; {duration(phase.seconds)} of a step, {share}{turns}"
        edge = min(0.8, 0.2 * part)
        parts.append(
            rect(left, y, width, part, tip, fill=colours[one.kernel.kind], stroke="#ffffff", stroke_width=edge)
        )
        if part >= SMALLEST + 5:
            size = min(LARGEST, part - 4)
            parts.append(text(left + 14, y + part / 2 + 0.35 * size, one.path, size))
            parts.append(text(left + width - 14, y + part / 2 + 0.35 * size, share, size, text_anchor="end"))
        y += part
    parts.append(rect(left, top, width, height, fill="none", stroke=FRAME, stroke_width=1.6, pointer_events="none"))
    return parts


def _wafer(plan: Plan, left: float, top: float, scale: float, colours: dict[str, str]) -> list[str]:
    (phase,) = plan.phases
    device = plan.device
    parts = [rect(left, top, device.columns * scale, device.rows * scale, fill="#f1f3f5")]
    boxes: dict[str, tuple[int, int, int, int]] = {}
    labels = []
    for one in phase.placed:
        area = one.area
        x, y, width, height = left + area.x * scale, top + area.y * scale, area.width * scale, area.height * scale
        edge = min(0.8, 0.2 * min(width, height))
        parts.append(
            rect(x, y, width, height, _tip(one), fill=colours[one.kernel.kind], stroke="#ffffff", stroke_width=edge)
        )
        labels.append(label(x, y, width, height, one.path))
        box = boxes.get(one.layer, (area.x, area.y, 0, 0))
        far = max(box[2], area.x + area.width), max(box[3], area.y + area.height)
        boxes[one.layer] = (min(box[0], area.x), min(box[1], area.y), *far)
    parts += [one for one in labels if one]
    for x0, y0, x1, y1 in boxes.values():
        outline = (left + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale)
        parts.append(rect(*outline, fill="none", stroke=FRAME, stroke_width=1.6, pointer_events="none"))
    return parts


def _tip(one: Placed) -> str:
    area, cycles = one.area, one.cycles
    return (
        f"{one.path} ({one.kernel.kind}): {area.width} x {area.height} = {area.cores:,} cores at ({area.x}, {area.y}); "
        f"{cycles.total:,.0f} cycles a sequence, {cycles.bound}; {gigabytes(one.bytes)}"
    )


def _ruler(plan: Plan, left: float, y: float, scale: float) -> list[str]:
    """Return the scale under the wafer."""
    device = plan.device
    step = next(n for n in (500, 200, 100, 50, 20, 10, 5, 2, 1) if n <= max(1, device.columns // 4))
    end = left + step * scale
    ticks = [line(x, y + 10, x, y + 18, stroke=INK, stroke_width=1.2) for x in (left, end)]
    size = f"{device.columns} x {device.rows} = {device.cores:,} cores"
    return [
        *ticks,
        line(left, y + 14, end, y + 14, stroke=INK, stroke_width=1.2),
        text(end + 8, y + 18, f"{step} cores", 12),
        text(left + device.columns * scale, y + 18, size, 12, text_anchor="end", fill=PALE),
    ]


def _panel(plan: Plan, left: float, top: float, colours: dict[str, str]) -> tuple[list[str], float]:
    parts, y = _legend(plan, left, top, colours)
    more, y = _memory(plan, left, y + 26)
    parts += more
    notes = [f"Why {plan.mode}: {plan.reason}.", f"Kept: {plan.policy}.", _limit(plan)]
    y += 26
    for note in notes:
        for row in wrapped(note, 54):
            parts.append(text(left, y, row, 12, fill=PALE))
            y += 16
        y += 6
    return parts, y


def _limit(plan: Plan) -> str:
    where = f" of `{plan.bottleneck.path}`" if plan.bottleneck.path else ""
    what = {
        "compute": "the multiply-adds",
        "sram": "the SRAM",
        "fabric": "the border",
        "off-wafer": "the link off the wafer",
    }
    return f"What sets the time: {what[plan.bottleneck.resource]}{where}."


def _legend(plan: Plan, left: float, top: float, colours: dict[str, str]) -> tuple[list[str], float]:
    streaming = plan.mode == "streaming"
    title = f"Blocks, by share of the {'time' if streaming else 'cores'}"
    parts = [text(left, top + 12, title, 14, font_weight="bold")]
    shares: dict[str, float] = {}
    whole = sum(phase.seconds for phase in plan.phases) if streaming else plan.device.cores
    for phase in plan.phases:
        for one in phase.placed:
            share = (phase.seconds if streaming else one.area.cores) / (whole or 1.0)
            shares[one.kernel.kind] = shares.get(one.kernel.kind, 0.0) + share
    y = top + 24
    for kind, share in sorted(shares.items(), key=lambda item: (-item[1], item[0])):
        parts.append(rect(left, y, 16, 16, fill=colours[kind], stroke=FRAME, stroke_width=0.6))
        parts.append(text(left + 24, y + 12.5, kind, 13))
        shown = f"{100 * share:.1f}%" if streaming else f"{100 * share:.1f}%  {round(share * plan.device.cores):,}"
        parts.append(text(left + PANEL, y + 12.5, shown, 12, text_anchor="end", fill=PALE))
        y += 22
    return parts, y


def _memory(plan: Plan, left: float, top: float) -> tuple[list[str], float]:
    capacity = plan.device.cores * plan.device.memory
    parts = [text(left, top, f"SRAM: {gigabytes(plan.bytes)} of {gigabytes(capacity)}", 14, font_weight="bold")]
    parts.append(rect(left, top + 10, PANEL, 18, fill="#e6e9ec"))
    x, y = left, top + 36
    for index, figure in enumerate(plan.memory):
        colour, width = MEMORY_COLOURS[index % len(MEMORY_COLOURS)], PANEL * figure.value / capacity
        parts.append(rect(x, top + 10, width, 18, fill=colour))
        parts.append(rect(left, y, 10, 10, fill=colour))
        parts.append(text(left + 18, y + 9.5, figure.name, 12))
        parts.append(text(left + PANEL, y + 9.5, gigabytes(figure.value), 12, text_anchor="end", fill=PALE))
        x, y = x + width, y + 17
    return parts, y
