"""The served page in a real browser: a click shows a design, a refresh keeps the zoom."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

import dashboard
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WAIT_MS = 30_000
CHART = ".ffn-nas-chart"


@pytest.fixture
def server(url: str) -> Iterator[str]:
    """The dashboard's address on the loopback, over the test's database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run"]
    command += [str(Path(dashboard.__file__).parent / "app.py"), f"--server.port={port}"]
    command += ["--server.address=127.0.0.1", "--server.fileWatcherType=none"]
    command += ["--browser.gatherUsageStats=false", "--server.headless=true"]
    root = str(Path(dashboard.__file__).parent.parent)
    process = subprocess.Popen(command, env=os.environ | {"NAS_DB": url, "PYTHONPATH": root})
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_healthy(address: str) -> None:
    end = monotonic() + 30
    while monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            sleep(0.2)
    pytest.fail("the dashboard did not answer within 30 seconds")


@pytest.fixture
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


def test_a_click_shows_the_design_and_a_refresh_keeps_the_zoom(
    url: str, server: str, browser, fill
) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        outside = []
        page.on("request", lambda r: None if server in r.url else outside.append(r.url))
        page.goto(server)
        page.wait_for_selector(f"{CHART} .points path", timeout=WAIT_MS)
        chart = page.locator(CHART).first

        click_trial(page, chart, 2)
        page.wait_for_function(
            "() => [...document.querySelectorAll('[data-testid=stSelectbox]')]"
            ".some((box) => (box.innerText + box.querySelector('input')?.value).includes('#2'))",
            timeout=WAIT_MS,
        )

        chart.evaluate("(div) => { div.same = true; }")
        chart.evaluate("(div) => window.Plotly.relayout(div, {'xaxis.range': [5.2, 5.5]})")
        before = points_drawn(chart)
        (running,) = (e for e in store.evaluations(study.id) if e.status is Status.RUNNING)
        ending = {"evaluation": running.id, "status": Status.FINISHED, "bits_per_byte": 2.1}
        store.end_evaluation(EvalResult(**ending, flops=1e12))
        page.wait_for_function(
            f"(n) => document.querySelector('{CHART}').data"
            ".flatMap((trace) => trace.customdata || []).length > n",
            arg=before,
            timeout=WAIT_MS,
        )
        assert chart.evaluate("(div) => [div.same, div.layout.xaxis.range]") == [True, [5.2, 5.5]]
        assert [address for address in outside if not address.startswith(("data:", "blob:"))] == []


def test_runs_are_drawn_over_the_rungs_and_a_promotion_appears(
    url: str, server: str, browser, fill_with_rungs
) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
        page = browser.new_page(viewport={"width": 1400, "height": 1800})
        page.goto(server)
        page.wait_for_function(
            f"() => document.querySelectorAll('{CHART} .legend').length >= 3", timeout=WAIT_MS
        )
        scatter, runs = (page.locator(CHART).nth(i) for i in (0, 1))
        ticks = runs.locator(".xaxislayer-above .xtick").all_text_contents()
        assert ["".join(text.split()) for text in ticks] == [
            "rung01TFLOPs",
            "rung13TFLOPs",
            "rung29TFLOPs",
        ]
        assert runs.locator(".scatterlayer path.js-line").count() >= 3
        legend = runs.locator(".legend text").all_text_contents()
        assert {"promoted", "paused at a lower rung", "on the Pareto frontier"} <= set(legend)

        # Paused designs are out of the scatter until its legend is asked for them.
        before = scatter.locator(".points path").count()
        high = scatter.evaluate("(div) => div._fullLayout.yaxis.range[1]")
        assert high < 3.0
        scatter.locator(".legend .traces", has_text="paused").locator(".legendtoggle").click()
        page.wait_for_function(
            f"() => document.querySelector('{CHART}')._fullLayout.yaxis.range[1] > 3.5",
            timeout=WAIT_MS,
        )
        assert scatter.locator(".points path").count() == before + 1

        # A click on a run shows its design.
        click_trial(page, runs, 2)
        page.wait_for_function(
            "() => [...document.querySelectorAll('[data-testid=stSelectbox]')]"
            ".some((box) => (box.innerText + box.querySelector('input')?.value).includes('#2'))",
            timeout=WAIT_MS,
        )
        (running,) = (e for e in store.evaluations(study.id) if e.status is Status.RUNNING)
        ending = {"evaluation": running.id, "status": Status.FINISHED, "bits_per_byte": 2.55}
        store.end_evaluation(EvalResult(**ending, flops=1e12))
        page.wait_for_function(
            f"() => document.querySelectorAll('{CHART}')[1].data"
            ".some((trace) => trace.y.includes(2.55))",
            timeout=WAIT_MS,
        )
        assert page.locator("[data-testid=stException], [data-testid=stAlert]").count() == 0


NASTY = "[/x] $a$ <b> `c` **d** :smile: :red[e] -> -- &amp; ``f`` _g_ # h ~~i~~ <3"


def test_an_error_reads_as_it_was_written_and_a_lost_database_comes_back(
    url: str, server: str, browser
) -> None:
    with Store.open(url) as store:
        study = store.create_study("a_b--c", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": {}}
        _, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        store.end_evaluation(EvalResult(evaluation=begun.id, status=Status.FAILED, error=NASTY))
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(server)
    alert = page.locator("[data-testid=stAlert]", has_text="failed:")
    alert.wait_for(timeout=WAIT_MS)
    assert alert.inner_text().strip() == f"failed: {NASTY}"
    assert page.locator("h1", has_text="a_b--c").inner_text().strip() == "a_b--c"

    file = Path(url.removeprefix("sqlite:///"))
    aside = file.rename(file.with_name("aside.db"))
    gone = page.locator("[data-testid=stAlert]", has_text="no studies at")
    gone.first.wait_for(timeout=WAIT_MS)
    aside.rename(file)
    gone.first.wait_for(state="detached", timeout=WAIT_MS)
    alert.wait_for(timeout=WAIT_MS)
    assert page.locator("[data-testid=stException]").count() == 0


def click_trial(page, chart, number: int) -> None:
    """Click where the trial's point is drawn."""
    x, y = chart.evaluate(
        """(div, number) => {
          const {xaxis, yaxis} = div._fullLayout, box = div.getBoundingClientRect();
          for (const trace of div.data) {
            const i = (trace.customdata || []).findIndex((row) => row && row[0] === number);
            if (i >= 0) return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]),
                                box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
          }
        }""",
        number,
    )
    page.mouse.move(x, y)
    sleep(0.3)  # Plotly looks for the point under the mouse at most every 50 ms
    page.mouse.click(x, y)


def points_drawn(chart) -> int:
    return chart.evaluate("(div) => div.data.flatMap((trace) => trace.customdata || []).length")
