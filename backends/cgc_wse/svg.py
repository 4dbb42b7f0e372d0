"""Pieces of SVG: shapes with rounded coordinates, so that the same drawing is the same bytes; labels that fit."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

CHARACTER = 0.57
"""Width of an average character over the font size, for the sans-serif fonts browsers choose."""
SMALLEST = 7.5
LARGEST = 15.0
"""Font sizes of labels, in pixels."""


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def attributes(**values: str | float) -> str:
    """Return attributes as they stand in a tag; underscores in names become hyphens."""
    parts = (
        f"{name.rstrip('_').replace('_', '-')}={quoteattr(value if isinstance(value, str) else number(value))}"
        for name, value in values.items()
    )
    return " ".join(parts)


def rect(x: float, y: float, width: float, height: float, title: str = "", **style: str | float) -> str:
    """Return a rectangle; `title` is what a browser shows when the pointer rests on it."""
    head = f"<rect {attributes(x=x, y=y, width=width, height=height, **style)}"
    return f"{head}><title>{escape(title)}</title></rect>" if title else f"{head}/>"


def line(x1: float, y1: float, x2: float, y2: float, **style: str | float) -> str:
    """Return a line."""
    return f"<line {attributes(x1=x1, y1=y1, x2=x2, y2=y2, **style)}/>"


def text(x: float, y: float, content: str, size: float, **style: str | float) -> str:
    """Return a line of text whose baseline starts at (`x`, `y`)."""
    return f"<text {attributes(x=x, y=y, font_size=size, **style)}>{escape(content)}</text>"


def width_of(content: str, size: float) -> float:
    """Return about how wide a text is."""
    return CHARACTER * size * len(content)


def label(x: float, y: float, width: float, height: float, path: str) -> str:
    """Return the longest end of a path that fits a rectangle, turned where it is narrow; nothing where none fits."""
    words = path.split(".")
    for start in range(len(words)):
        content = ".".join(words[start:])
        for turned, across, along in ((False, width, height), (True, height, width)):
            size = min(LARGEST, (across - 6) / (CHARACTER * len(content)), (along - 2) / 1.2)
            if size >= SMALLEST:
                return _centred(x + width / 2, y + height / 2, content, size, turned)
    return ""


def _centred(x: float, y: float, content: str, size: float, turned: bool) -> str:
    if turned:
        turn = f"rotate(-90 {number(x)} {number(y)})"
        return text(x, y + size * 0.35, content, size, text_anchor="middle", pointer_events="none", transform=turn)
    return text(x, y + size * 0.35, content, size, text_anchor="middle", pointer_events="none")


def wrapped(content: str, characters: int) -> list[str]:
    """Return a text as lines of at most `characters`, broken at spaces."""
    lines: list[str] = []
    for word in content.split():
        if lines and len(lines[-1]) + 1 + len(word) <= characters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
