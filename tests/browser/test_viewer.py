"""The viewer in a real browser: it opens, shows what is under the pointer, zooms, searches, and moves in time.

Needs the Debian packages `chromium` and `chromium-driver`; without them these tests are skipped and say so.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cgc_wse.viewer.page import embedded
from chromium import Browser, browser, missing

from cgc.driver import Request, Timings, compile_program, load_program
from cgc.program import Program

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"`{missing()}` is not installed: apt-get install chromium-driver"
)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    program = load_program(str(EXAMPLES / "cerebras_gpt/13b.cg"))
    write(program, folder / "streaming", Request())
    write(program, folder / "pipelined", Request(mode="prefill", run="pipelined"))
    return folder


def write(program: Program, folder: Path, request: Request) -> None:
    compile_program(program, "wse-sim", folder, request, Timings())


def placed(folder: Path) -> list[dict[str, Any]]:
    data = json.loads((folder / "placement.json").read_text(encoding="utf-8"))
    return [block for phase in data["phases"] for block in phase["blocks"]]


def middle(window: Browser, block: dict[str, Any]) -> tuple[float, float]:
    """Return where a block is in the window when all of the wafer is shown."""
    box = window.ask("document.getElementById('wafer').getBoundingClientRect().toJSON()")
    columns, rows = window.ask(
        "(({columns, rows}) => [columns, rows])(JSON.parse(document.getElementById('data').textContent).device)"
    )
    scale = float(window.ask("document.body.dataset.scale"))
    left = box["x"] + (box["width"] - columns * scale) / 2
    top = box["y"] + (box["height"] - rows * scale) / 2
    return left + (block["x"] + block["width"] / 2) * scale, top + (block["y"] + block["height"] / 2) * scale


def pixel(window: Browser, block: dict[str, Any]) -> str:
    """Return the colour of the canvas near a corner of a block, where no label is."""
    x, y = middle(window, {**block, "width": 0, "height": 0})
    script = (
        "(c => [...c.getContext('2d').getImageData(X, Y, 1, 1).data].slice(0, 3))(document.getElementById('wafer'))"
    )
    box = window.ask("document.getElementById('wafer').getBoundingClientRect().toJSON()")
    ratio = window.ask("window.devicePixelRatio")
    x, y = (x - box["x"] + 3) * ratio, (y - box["y"] + 3) * ratio
    return bytes(window.ask(script.replace("X", str(round(x))).replace("Y", str(round(y))))).hex()


def check_picture(png: bytes) -> None:
    """Check that a screenshot is a picture of the window, and not an empty one."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) > (1000, 500)
    assert len(png) > 20_000


def test_a_large_placement_opens_at_once(window: Browser, pages: Path) -> None:
    started = time.monotonic()
    window.show(pages / "pipelined/viewer.html")
    assert time.monotonic() - started < 20
    assert window.log() == []
    assert int(window.ask("document.body.dataset.blocks")) == len(placed(pages / "pipelined")) > 400
    # Parsing, laying out and drawing, as the page itself measured it.
    assert window.ask("performance.getEntriesByType('navigation')[0].domComplete") < 5000
    # Nothing came from anywhere but the file.
    assert window.ask("performance.getEntriesByType('resource').length") == 0


def test_hover_and_click_name_the_block(window: Browser, pages: Path) -> None:
    window.show(pages / "pipelined/viewer.html")
    window.wait("document.body.dataset.scale")
    block = next(block for block in placed(pages / "pipelined") if block["path"] == "h.17.mlp.down")
    x, y = middle(window, block)
    window.pointer({"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)})
    window.wait("document.body.dataset.hover === 'h.17.mlp.down'")
    assert "h.17.mlp.down" in window.ask("document.getElementById('tooltip').innerText")
    window.click(x, y)
    assert window.ask("document.body.dataset.selected") == "h.17.mlp.down"
    details = window.ask("document.getElementById('details').innerText")
    assert f"{block['parameters']:,}" in details
    assert f"{block['width']} x {block['height']} at ({block['x']}, {block['y']})" in details


def test_zoom_pan_layers_and_a_picture(window: Browser, pages: Path) -> None:
    window.show(pages / "pipelined/viewer.html")
    window.wait("document.body.dataset.scale")
    scale = float(window.ask("document.body.dataset.scale"))
    blocks = {block["path"]: block for block in placed(pages / "pipelined")}
    linear, attention = blocks["h.20.mlp.up"], blocks["h.20.attention.mixed"]
    check_picture(window.screenshot())
    assert (pixel(window, linear), pixel(window, attention)) == ("56b4e9", "e69f00")
    window.ask("document.getElementById('layer-memory').click()")
    window.wait("document.body.dataset.layer === 'memory'")
    time.sleep(0.2)
    # The scale gets lighter as SRAM fills.
    both = sorted((linear, attention), key=lambda block: block["bytes"] / block["cores"])
    reds = [int(pixel(window, block)[:2], 16) for block in both]
    assert reds[0] < reds[1]
    check_picture(window.screenshot())
    window.log()  # Chromium's advice on reading pixels
    window.wheel(500, 400, -500)
    window.wait(f"Number(document.body.dataset.scale) > {1.5 * scale}")
    down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
    move = {"type": "pointerMove", "duration": 0}
    window.pointer({**move, "x": 500, "y": 400}, down, {**move, "x": 560, "y": 440}, up)
    assert window.ask("document.body.dataset.panned") == "1"
    window.ask("document.getElementById('fit').click()")
    window.wait(f"Math.abs(Number(document.body.dataset.scale) - {scale}) < 1e-3")


def test_search_by_name(window: Browser, pages: Path) -> None:
    window.show(pages / "pipelined/viewer.html")
    typed = "(b => { b.value = '{}'; b.dispatchEvent(new Event('input')); })(document.getElementById('search'))"
    window.ask(typed.replace("{}", "attention.out"))
    assert window.ask("document.body.dataset.matches") == "40"
    window.ask("document.querySelector('#matches button').click()")
    assert window.ask("document.body.dataset.selected") == "h.0.attention.out"
    window.ask(typed.replace("{}", "nothing like it"))
    assert window.ask("document.body.dataset.matches") == "0"


def test_time_moves_through_the_layers(window: Browser, pages: Path) -> None:
    window.show(pages / "streaming/viewer.html")
    assert window.log() == []
    slide = "(t => { t.value = {}; t.dispatchEvent(new Event('input')); })(document.getElementById('time'))"
    seen = []
    for value in range(0, 10001, 250):
        window.ask(slide.replace("{}", str(value)))
        seen.append((window.ask("document.body.dataset.onWafer"), window.ask("document.body.dataset.direction")))
    assert seen[0] == ("before h", "forward")
    assert seen[-1] == ("before h", "backward")
    going = [int(layer[2:]) for layer, direction in seen if direction == "forward" and layer.startswith("h.")]
    coming = [int(layer[2:]) for layer, direction in seen if direction == "backward" and layer.startswith("h.")]
    assert going == sorted(going)
    assert coming == sorted(coming, reverse=True)
    assert len(set(going)) > 5
    assert window.ask("document.getElementById('now').innerText").startswith("x")


EVIL = """
model m(width = 8) {
    input x[batch, seq <= 16, width]
    output y = linear(x, width -> width)
}
"""


def test_names_stay_names(window: Browser, tmp_path: Path) -> None:
    """Names in a `.cg` file are identifiers; the name of the file and of a device's kind may be anything."""
    folder = tmp_path / "</script><img src=x onerror=document.body.dataset.broken=1>"
    folder.mkdir(parents=True)
    file = folder / "m.cg"
    file.write_text(EVIL, encoding="utf-8")
    write(load_program(str(file)), tmp_path / "out", Request(device="tiny16"))
    window.show(tmp_path / "out/viewer.html")
    assert window.log() == []
    # The page's own data, with names that no grammar would let through.
    page = (tmp_path / "out/viewer.html").read_text(encoding="utf-8")
    bad = "</script><script>document.body.dataset.broken=1</script><b>&amp;\u2028"
    start = page.index('id="data">') + len('id="data">')
    end = page.index("</script>", start)
    data = json.loads(page[start:end])
    data["blocks"][0][0] = data["blocks"][0][1] = data["title"] = data["subtitle"] = data["memory"][0][0] = bad
    evil = tmp_path / "evil.html"
    evil.write_text(page[:start] + embedded(data) + page[end:], encoding="utf-8")
    window.show(evil)
    assert window.ask("document.body.dataset.broken") is None
    assert window.ask("document.getElementById('title').innerText.slice(0, 9)") == "</script>"
    assert window.ask("document.querySelectorAll('script').length") == 2
    assert window.log() == []
