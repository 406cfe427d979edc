"""What a browser sees of the dashboard: how soon each page is of use, and what is sent to it."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chromium import FLAGS, chromium
from benchmarks.dashboard_server import Training, cpu_seconds, peak_memory, served, training
from benchmarks.reading_store import NAME, Shape
from benchmarks.report import Row, at_most
from dashboard.pace import REFRESH_S
from dashboard.pages import PAGES, Page
from nas.store import Store

WARM_S, COLD_S, UPDATE_S = 2.0, 4.0, 1.0
SENT, MEMORY, CORES = 1.5e6, float(2**30), 0.1
TIMES, UPDATES = 3, 3
WAIT_MS = 60_000
SETTLE_MS = 1_500  # after a page is of use, until what it still sends has come
# After a window was opened, until its own parts are there: Chromium's list below the address bar is
# a page of its own, which takes half a second of a core. A reader's window is open already.
OPEN_MS = 1_000
# Pages of Streamlit that do nothing, as scripts, and what shows that they are of use.
BARE = {
    "a heading": ('import streamlit as st\nst.header("Empty")', "h2"),
    "one chart": (
        "import plotly.graph_objects as go, streamlit as st\n"
        "st.plotly_chart(go.Figure(go.Scatter(x=[1, 2], y=[1, 2])))",
        ".js-plotly-plot .scatterlayer path",
    ),
}
CHOSEN = "0,8,16"  # trials of the made-up study, at its top rung


def missing() -> str:
    """Why no browser can be had here; "" where one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return "" if chromium() else "no chromium on this machine"


@dataclass
class Visit:
    """A page that was opened: how long until it was of use, and the bytes it was sent."""

    seconds: float = 0.0
    bytes: float = 0.0
    errors: list[str] = field(default_factory=list)


class Browser:
    """One browser with one cache, as a reader has it who comes again."""

    def __init__(self, started: Any) -> None:
        self._context = started.new_context(viewport={"width": 1280, "height": 1000})

    @contextmanager
    def opened(self, link: str, ready: str) -> Iterator[tuple[Any, Visit]]:
        """The page of a link, once it is of use: once what `ready` selects is there."""
        tab, visit = self._context.new_page(), Visit()
        tools = self._context.new_cdp_session(tab)
        tools.send("Network.enable")
        tools.on("Network.dataReceived", lambda event: _count(visit, event["encodedDataLength"]))
        tools.on("Network.webSocketFrameReceived", lambda event: _count(visit, _frame_bytes(event)))
        tab.on("pageerror", lambda error: visit.errors.append(str(error)))
        try:
            tab.wait_for_timeout(OPEN_MS)
            began = time.monotonic()
            tab.goto(link)
            tab.wait_for_selector(ready, timeout=WAIT_MS)
            visit.seconds = time.monotonic() - began
            yield tab, visit
        finally:
            tab.close()

    def visit(self, link: str, ready: str) -> Visit:
        """Open the page, and close it when all has come."""
        with self.opened(link, ready) as (tab, visit):
            tab.wait_for_timeout(SETTLE_MS)
            shown = tab.locator("[data-testid=stException]").count()
            visit.errors += [f"{shown} traces"] if shown else []
        return visit


def _asked(address: str, page: Page) -> tuple[str, str]:
    """A page's link, and what shows that it is of use."""
    path = "" if page.default else page.path
    return f"{address}/{path}?study={NAME}&trials={CHOSEN}", page.ready


def _count(visit: Visit, bytes: float) -> None:
    visit.bytes += bytes


def _frame_bytes(event: dict[str, Any]) -> int:
    frame = event["response"]
    text = frame["payloadData"]
    return len(base64.b64decode(text)) if frame["opcode"] == 2 else len(text)


def browser_rows(
    url: str, shape: Shape, seconds: float, times: int = TIMES, pages: tuple[Page, ...] = PAGES
) -> Iterator[Row]:
    """All that a browser can measure.

    seconds: that a live page is watched.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            browser, errors = Browser(started), list[str]()
            with served(url) as (process, address):
                yield from _warm(browser, address, pages, times, errors)
                live = next((page for page in pages if page.path == "live"), None)
                if live is not None:
                    yield from _live(browser, url, shape, process.pid, address, live, seconds)
                memory = peak_memory(process.pid)
            yield at_most("server's memory at its peak", memory / 2**20, MEMORY / 2**20, "MiB")
            yield from _cold(browser, url, pages, errors)
            yield from _floor(browser, times)
            yield Row("errors on pages", "; ".join(errors) or "none", "", "none", not errors)
        finally:
            started.close()


def _warm(
    browser: Browser, address: str, pages: tuple[Page, ...], times: int, errors: list[str]
) -> Iterator[Row]:
    first = browser.visit(*_asked(address, pages[0]))
    yield Row("sent at a browser's first visit of all", first.bytes / 1e6, "MB")
    for page in pages:
        browser.visit(*_asked(address, page))  # what is made once for all readers
        visits = [browser.visit(*_asked(address, page)) for _ in range(times)]
        errors += [f"{page.title}: {error}" for visit in visits for error in visit.errors]
        took = median(visit.seconds for visit in visits)
        yield at_most(f"{page.title}: of use, warm", took, WARM_S, "s")
        sent = max(visit.bytes for visit in visits)
        yield at_most(f"{page.title}: sent a visit", sent / 1e6, SENT / 1e6, "MB")


def _cold(browser: Browser, url: str, pages: tuple[Page, ...], errors: list[str]) -> Iterator[Row]:
    """Each page as the first that a server shows which has just begun to answer."""
    for page in pages:
        with served(url) as (_, address):
            visit = browser.visit(*_asked(address, page))
        errors += [f"{page.title}: {error}" for error in visit.errors]
        yield at_most(f"{page.title}: of use, cold", visit.seconds, COLD_S, "s")


def _floor(browser: Browser, times: int) -> Iterator[Row]:
    """What Streamlit takes for pages that do nothing, opened in the same ways."""
    for name, (script, ready) in BARE.items():
        cold, warm = list[float](), list[float]()
        with tempfile.TemporaryDirectory(prefix="floor-") as folder:
            app = Path(folder) / "app.py"
            app.write_text(script)
            for _ in range(times):
                with served("", app) as (_, address):
                    cold.append(browser.visit(address, ready).seconds)
                    warm += [browser.visit(address, ready).seconds for _ in range(times)]
        yield Row(f"Streamlit alone, {name}: warm", median(warm), "s")
        yield Row(f"Streamlit alone, {name}: cold", median(cold), "s")


def _live(
    browser: Browser,
    url: str,
    shape: Shape,
    pid: int,
    address: str,
    page: Page,
    seconds: float,
) -> Iterator[Row]:
    """An open live page: what it costs the server, and how soon it shows an ending."""
    with browser.opened(*_asked(address, page)) as (tab, _):
        with training(url, shape):
            tab.wait_for_timeout(2000 * REFRESH_S)
            before, began = cpu_seconds(pid), time.monotonic()
            tab.wait_for_timeout(1000 * seconds)
            share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        yield at_most(f"server's share of a core, one live page over {seconds:g} s", share, CORES)
        tab.wait_for_timeout(1000 * REFRESH_S)
        waits = [_update(tab, url, shape) for _ in range(UPDATES)]
    beyond = max(0.0, max(waits) - REFRESH_S)
    name = f"from a write to the page, beyond its {REFRESH_S:g} s of refresh (worst of {UPDATES})"
    yield at_most(name, beyond, UPDATE_S, "s")


def _update(tab: Any, url: str, shape: Shape) -> float:
    """Seconds from an ending's write until the page counts one evaluation less under way."""
    with Store.open(url) as store:
        study = Training(store, shape)
        before = int(tab.evaluate(_UNDER_WAY))
        id = study.begin()
        _await_under_way(tab, before + 1)
        began = time.monotonic()
        study.end(id)
        _await_under_way(tab, before)
        return time.monotonic() - began


_UNDER_WAY = """() => {
  const found = [...document.querySelectorAll("h3")]
    .map((each) => each.innerText.match(/Under way: ([0-9]+)/)).find((match) => match);
  return found ? Number(found[1]) : -1;
}"""


def _await_under_way(tab: Any, count: int) -> None:
    asked = f"(count) => ({_UNDER_WAY})() === count"
    tab.wait_for_function(asked, arg=count, timeout=WAIT_MS, polling=50)
