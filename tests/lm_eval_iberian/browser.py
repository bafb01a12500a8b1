"""A real headless Chromium, driven over its pipe (Chrome DevTools Protocol): pages, scripts, screenshots, requests.

    with Browser(tmp_path) as browser:
        page = browser.open(file, width=390, height=844, dark=True)
        page.evaluate("document.title")

No package is needed: the protocol is JSON ended by a zero byte, on file descriptors 3 (to the browser) and 4 (back).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
]  # fmt: skip


def find() -> str | None:
    """Chromium's program, or None."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """A browser of its own, with an empty profile."""

    def __init__(self, folder: Path, timeout: float = 60.0) -> None:
        program = find()
        assert program is not None
        self.timeout = timeout
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        quoted = ["bash", "-c", f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"', "bash", *command]
        self.process = subprocess.Popen(
            quoted, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.unread = 0, b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.to)
        os.close(self.back)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer; events that come between are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Until an event has come."""
        while not any(one.get("method") == method and one.get("sessionId") == session for one in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        import select

        end = time.monotonic() + self.timeout
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            self.unread += os.read(self.back, 1 << 20)
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def open(self, file: Path, width: int, height: int, dark: bool = False) -> Page:
        """A page in a window of this size (CSS pixels), loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", session, features=scheme)
        self.call("Page.navigate", session, url=file.resolve().as_uri())
        self.wait("Page.loadEventFired", session)
        return Page(self, session, width, height)


@dataclass
class Page:
    """A loaded page."""

    browser: Browser
    session: str
    width: int
    height: int

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.browser.call(
            "Runtime.evaluate", self.session, expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """A PNG of the whole page, or of the window."""
        clip = {}
        if whole:
            size = self.browser.call("Page.getLayoutMetrics", self.session)["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": self.width, "height": min(16_000, size["height"]), "scale": 1}}
        data = self.browser.call("Page.captureScreenshot", self.session, captureBeyondViewport=whole, **clip)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def print(self, path: Path) -> Path:
        """The page as PDF."""
        data = self.browser.call(
            "Page.printToPDF", self.session, printBackground=False, paperWidth=8.27, paperHeight=11.7
        )["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    @property
    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        return [one["params"]["request"]["url"] for one in self._events("Network.requestWillBeSent")]

    @property
    def blocked(self) -> list[str]:
        """Those of them that the page's policy refused."""
        refused = [one["params"]["requestId"] for one in self._events("Network.loadingFailed")
                   if one["params"].get("blockedReason") == "csp"]  # fmt: skip
        return [one["params"]["request"]["url"] for one in self._events("Network.requestWillBeSent")
                if one["params"]["requestId"] in refused]  # fmt: skip

    @property
    def complaints(self) -> list[str]:
        """Everything in the console, and every error."""
        said = [str(one["params"]["entry"]) for one in self._events("Log.entryAdded")]
        said += [
            str(one["params"])
            for name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown")
            for one in self._events(name)
        ]
        return said

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.evaluate("0")  # what is under way has come
        return [
            one for one in self.browser.events if one.get("method") == method and one.get("sessionId") == self.session
        ]
