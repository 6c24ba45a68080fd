"""Chromium without a window, driven over its debugging pipe: no library, no port, nothing from a network."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT = 60.0
# The browser reads its commands from file 3 and answers on file 4.
_START = (
    "import fcntl, os, sys\n"
    "high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]\n"
    "[os.dup2(one, place) for one, place in zip(high, (3, 4))]\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)


def found() -> str | None:
    """Path of the browser; None where there is none, or no pipe to it."""
    if sys.platform == "win32":
        return None
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab of a browser.

    Args:
        profile: an empty folder for what it writes.
    """

    def __init__(self, profile: Path) -> None:
        words = [str(found()), "--headless", "--disable-gpu", "--disable-quic", "--no-first-run"]
        words += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        words += ["--no-sandbox"] * (os.geteuid() == 0)
        words += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        start = [sys.executable, "-c", _START, str(read), str(write), *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(start, pass_fds=(read, write), **quiet)
        os.close(read)
        os.close(write)
        self._session, self._sent, self._left = "", 0, b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self.call(f"{part}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and its answer."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + WAIT
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._left += part
        one, _, self._left = self._left.partition(b"\0")
        return json.loads(one)

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Show a page in a window of so many pixels."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """What JavaScript gives for an expression."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def paper(self) -> None:
        """From now on as in print."""
        self.call("Emulation.setEmulatedMedia", media="print")

    @property
    def complaints(self) -> list[str]:
        """Errors of the page's script, and what it was not allowed."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def close(self) -> None:
        """End the browser."""
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(WAIT)
        os.close(self._to)
        os.close(self._from)
