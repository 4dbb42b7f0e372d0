"""A headless Chromium, driven through chromedriver by the WebDriver protocol (W3C), which is JSON over HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,900",
)


def missing() -> str:
    """Return the name of a program that is not installed, or nothing."""
    return next((name for name in ("chromium", "chromedriver") if shutil.which(name) is None), "")


class Browser:
    """One window."""

    def __init__(self, address: str, profile: Path) -> None:
        self._open = build_opener(ProxyHandler({})).open
        self._address = address
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._address += f"/session/{session['sessionId']}"

    def _send(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        with self._open(request, timeout=90) as answer:
            return json.loads(answer.read())["value"]

    def show(self, page: Path) -> None:
        """Open a file, and wait until its program is done."""
        self._send("POST", "/url", {"url": page.resolve().as_uri()})
        self.wait("document.body.dataset.ready === '1'")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        return self._send("POST", "/execute/sync", {"script": f"return {expression};", "args": []})

    def wait(self, condition: str, seconds: float = 30.0) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not self.ask(f"Boolean({condition})"):
            assert time.monotonic() < end, f"{condition} does not come true; {self.log()}"
            time.sleep(0.05)

    def pointer(self, *actions: dict[str, Any]) -> None:
        """Do things with the mouse."""
        source = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": list(actions)}
        self._send("POST", "/actions", {"actions": [source]})

    def click(self, x: float, y: float) -> None:
        """Click at a place in the window."""
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        self.pointer({"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}, down, up)

    def wheel(self, x: float, y: float, delta: float) -> None:
        """Turn the wheel at a place in the window."""
        action = {"type": "scroll", "x": round(x), "y": round(y), "deltaX": 0, "deltaY": round(delta), "duration": 0}
        self._send("POST", "/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [action]}]})

    def screenshot(self) -> bytes:
        """Return what the window shows, as PNG."""
        return base64.b64decode(self._send("GET", "/screenshot"))

    def log(self) -> list[str]:
        """Return what the page complained about since the last time."""
        entries = self._send("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def close(self) -> None:
        """End the session."""
        self._send("DELETE", "")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Give a fresh browser whose profile is in an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = _connect(f"http://127.0.0.1:{port}", profile)
        try:
            yield found
        finally:
            found.close()
    finally:
        driver.terminate()
        driver.wait(20)


def _connect(address: str, profile: Path) -> Browser:
    end = time.monotonic() + 30
    while True:
        try:
            return Browser(address, profile)
        except URLError as error:
            if time.monotonic() > end or not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.1)
