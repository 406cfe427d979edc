"""What the browser tests share: a served dashboard, and a window that hears what goes wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import pytest
from patience import WAIT_S

import dashboard
from benchmarks.chromium import FLAGS
from benchmarks.chromium import chromium as find

ROOT = Path(dashboard.__file__).parents[1]
SCRIPT = ROOT / "dashboard" / "server.py"
APP = ROOT / "dashboard" / "app.py"  # the same pages as Streamlit alone serves them
WAIT_MS = 1000 * WAIT_S

# Opened from a link, Streamlit's page asks for these below its own address before the right one.
PROBES = ("/_stcore/health", "/_stcore/host-config")


@dataclass
class Window:
    """A browser's window, and what was wrong in it.

    page: Playwright's.
    address: the server's.
    wrong: errors of the console and of scripts, and requests that left the server.
    """

    page: object
    address: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("console", self._said)
        self.page.on("request", self._asked)

    def _said(self, message) -> None:
        where = message.location.get("url", "")
        if message.type == "error" and not where.endswith(PROBES):
            self.wrong.append(f"console: {message.text} ({where})")

    def _asked(self, request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.wrong.append(f"request: {request.url}")

    def settle(self) -> None:
        """Until the page is drawn, its charts too."""
        self.page.wait_for_function(SETTLED)


SETTLED = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const main = document.querySelector('[data-testid=stMainBlockContainer]');
  if (!app || app.dataset.testScriptState !== 'notRunning' || !main) return false;
  if (document.querySelector('[data-stale=true]')) return false;
  return [...document.querySelectorAll('.ffn-nas-chart')].every(
      (chart) => chart.listening && !chart.drawing);
}"""


@contextmanager
def chromium() -> Iterator[object]:
    """A browser, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if find() is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class served:
    """The dashboard over a database: its address on the loopback."""

    def __init__(self, url: str, script: Path = SCRIPT) -> None:
        self._url, self._script = url, script

    def __enter__(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "streamlit", "run", str(self._script)]
        command += [f"--server.port={port}", "--server.address=127.0.0.1"]
        command += ["--server.fileWatcherType=none", "--server.headless=true"]
        command += ["--browser.gatherUsageStats=false"]
        environment = os.environ | {"NAS_DB": self._url, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, env=environment)
        address, end = f"http://127.0.0.1:{port}", monotonic() + WAIT_MS / 1e3
        while monotonic() < end:
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                    return address
            except (urllib.error.URLError, OSError):
                sleep(0.1)
        self.__exit__()
        pytest.fail(f"the dashboard did not answer within {WAIT_MS / 1e3:g} seconds")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=WAIT_S)
