"""The served pages in a real browser: what is selected is shown, and a refresh keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest
from browser_tools import APP, Window, chromium, served
from depth import LONG

from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status
from search_space.spec import FFNSpec

pytestmark = LONG

CHART = ".ffn-nas-chart"
RUNS = f"{CHART}[aria-label^='Bits per byte of each run']"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One for all."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """A database, and a server over it: a test has a study of its own there."""
    url = f"sqlite:///{tmp_path_factory.mktemp('board')}/nas.db"
    Store.open(url).close()
    with served(url) as address:
        yield url, address


@pytest.fixture
def window(browser) -> Iterator[Callable[..., Window]]:
    """Opens a window with a session of its own."""
    opened = []

    def open_window(address: str, width: int, height: int) -> Window:
        context = browser.new_context(viewport={"width": width, "height": height})
        opened.append(context)
        return Window(context.new_page(), address)

    yield open_window
    for context in opened:
        context.close()


def test_a_selection_drives_the_panels_and_a_refresh_keeps_it_and_the_zoom(
    board: tuple[str, str], window: Callable[..., Window], fill
) -> None:
    url, address = board
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        one = window(address, 1400, 1000)
        page = one.page
        page.goto(f"{address}/?study=demo")
        page.wait_for_selector(f"{CHART} .points path")
        one.settle()  # it is drawn, and hears a click
        chart = page.locator(CHART).first

        click_trial(page, chart, 2)
        selects(page, 2)
        page.locator("[data-testid=stMarkdown]", has_text="#2 hash 2/16x128 gelu").wait_for()
        assert ringed(chart) == [[2e5, 2.2]]
        page.keyboard.press("Escape")
        selects(page)
        # A box around all points, then a lasso around the left one.
        drag(page, chart, [(0.01, 0.02), (0.99, 0.98)])
        selects(page, 0, 1, 2)
        page.locator(".modebar-btn[data-val=lasso]").first.click()
        drag(page, chart, [(0.01, 0.02), (0.5, 0.02), (0.5, 0.98), (0.01, 0.98), (0.01, 0.02)])
        selects(page, 2)
        # What the table's boxes select is selected everywhere, too.
        table = page.locator("[data-testid=stDataFrame]").last
        table.scroll_into_view_if_needed()
        box = table.bounding_box()
        page.mouse.click(box["x"] + 14, box["y"] + 35 * 1.5)
        selects(page, 2, 0)
        page.wait_for_function(f"() => document.querySelector('{CHART}').data.at(-1).x.length == 2")

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
        )
        assert chart.evaluate("(div) => [div.same, div.layout.xaxis.range]") == [True, [5.2, 5.5]]
        assert len(ringed(chart)) == 2
        selects(page, 2, 0)

        # The same address in another browser, and from there to the other pages.
        two = window(address, 1280, 1000)
        other = two.page
        other.goto(f"{page.url}&y=total_params&log=xy")
        chart = other.locator(CHART).first
        other.wait_for_selector(f"{CHART} .points path")
        assert len(ringed(chart)) == 2
        titles = chart.evaluate("(d) => [d.layout.yaxis.title.text, d.layout.yaxis.type]")
        assert titles == ["Total parameters (log scale)", "log"]
        other.get_by_role("button", name="Compare").click()
        other.get_by_text("Paired differences to #2").wait_for()
        other.get_by_role("link", name="Trial", exact=True).click()
        picture = other.locator(".ffn-nas-picture svg[role=img]")
        picture.wait_for()
        assert "16 experts of 128 hidden units" in picture.get_attribute("aria-label")
        assert "trials=2%2C0" in other.url and "y=total_params" in other.url
        assert page.locator("[data-testid=stException]").count() == 0
        assert one.wrong == [] and two.wrong == []


def test_runs_are_drawn_over_the_rungs_and_a_promotion_appears(
    board: tuple[str, str], window: Callable[..., Window], fill_with_rungs
) -> None:
    url, address = board
    with Store.open(url) as store:
        study = fill_with_rungs(store, "rungs")
        one = window(address, 1400, 2600)
        page = one.page
        page.goto(f"{address}/?study=rungs")
        page.wait_for_function(f"() => document.querySelectorAll('{CHART} .legend').length >= 2")
        scatter, runs = page.locator(CHART).first, page.locator(RUNS)
        runs.locator(".xtick").first.wait_for()
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
        )
        assert scatter.locator(".points path").count() == before + 1

        # A click on a run selects its design.
        click_trial(page, runs, 2)
        selects(page, 2)
        (running,) = (e for e in store.evaluations(study.id) if e.status is Status.RUNNING)
        ending = {"evaluation": running.id, "status": Status.FINISHED, "bits_per_byte": 2.55}
        store.end_evaluation(EvalResult(**ending, flops=1e12))
        page.wait_for_function(
            f'() => document.querySelector("{RUNS}").data.some((trace) => trace.y.includes(2.55))',
        )
        assert page.locator("[data-testid=stException], [data-testid=stAlert]").count() == 0


NASTY = "[/x] $a$ <b> `c` **d** :smile: :red[e] -> -- &amp; ``f`` _g_ # h ~~i~~ <3"


def test_without_its_own_server_an_error_reads_as_it_was_written_and_a_lost_database_comes_back(
    url: str, window: Callable[..., Window]
) -> None:
    with Store.open(url) as store:
        study = store.create_study("a_b--c", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": {}}
        _, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        store.end_evaluation(EvalResult(evaluation=begun.id, status=Status.FAILED, error=NASTY))
    with served(url, APP) as address:
        one = window(address, 1400, 1000)
        page = one.page
        page.goto(one.address)
        page.wait_for_function("() => window.Plotly")  # which comes with the page here
        page.get_by_role("link", name="Trial", exact=True).click()
        alert = page.locator("[data-testid=stAlert]", has_text="failed:")
        alert.wait_for()
        assert alert.inner_text().strip() == f"failed: {NASTY}"

        file = Path(url.removeprefix("sqlite:///"))
        aside = file.rename(file.with_name("aside.db"))
        gone = page.locator("[data-testid=stAlert]", has_text="no studies at")
        gone.first.wait_for()
        aside.rename(file)
        gone.first.wait_for(state="detached")
        alert.wait_for()
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


def drag(page, chart, corners) -> None:
    """Drag through corners, given as shares of the chart's plotting area."""
    x, y, width, height = chart.evaluate(
        "(div) => { const box = div.getBoundingClientRect(), {xaxis, yaxis} = div._fullLayout;"
        " return [box.x + xaxis._offset, box.y + yaxis._offset, xaxis._length, yaxis._length]; }"
    )
    (first, *others) = [(x + width * across, y + height * down) for across, down in corners]
    page.mouse.move(*first)
    page.mouse.down()
    for corner in others:
        page.mouse.move(*corner, steps=6)
    page.mouse.up()


def selects(page, *numbers: int) -> None:
    """Wait until these are selected: the list of designs and the address say so."""
    page.wait_for_function(
        """(numbers) => {
          const chips = [...document.querySelectorAll('[data-testid=stMultiSelect]')][0];
          const found = [...(chips?.innerText || "").matchAll(/#(\\d+)/g)].map((m) => +m[1]);
          const told = new URLSearchParams(location.search).get("trials") || "";
          return found.sort().join() == [...numbers].sort().join()
              && told.split(",").filter(String).map(Number).sort().join() == found.join();
        }""",
        arg=list(numbers),
    )


def ringed(chart) -> list[list[float]]:
    """Where the rings of the selected trials are."""
    return chart.evaluate(
        "(div) => div.data.filter((trace) => trace.name == 'selected')"
        ".flatMap((trace) => trace.x.map((x, i) => [x, trace.y[i]]))"
    )


def points_drawn(chart) -> int:
    return chart.evaluate("(div) => div.data.flatMap((trace) => trace.customdata || []).length")
