"""A page's first second in a real browser: the chart first, once, and it stays where it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_tools import Window, chromium, served
from depth import LONG

from nas.store import Store, StudyState

pytestmark = LONG

# Before any script of the page: how often each chart is drawn, where the first one
# stood then, and whether the page said that more comes.
WATCH = """
let plotly;
window.drawn = {};
window.came = false;
new MutationObserver(() => {
  const waits = [...document.querySelectorAll("[data-stale=true]")];
  if (waits.some((each) => each.innerText.includes("The rest of the page"))) window.came = true;
}).observe(document, {subtree: true, childList: true});
Object.defineProperty(window, "Plotly", {configurable: true, get: () => plotly, set: (found) => {
  plotly = found;
  const react = found.react;
  found.react = async (element, ...more) => {
    const label = element.getAttribute("aria-label");
    drawn[label] = (drawn[label] || 0) + 1;
    const result = await react(element, ...more);
    window.firstTop ??= element.getBoundingClientRect().top;
    return result;
  };
}});
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory, fill) -> Iterator[str]:
    """A server over one study, which all only look at."""
    url = f"sqlite:///{tmp_path_factory.mktemp('paint')}/nas.db"
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
    with served(url) as found:
        yield found


@pytest.fixture
def window(browser, address: str) -> Iterator[Window]:
    """With no cache of another's."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.add_init_script(WATCH)
    yield Window(page, address)
    page.close()


@pytest.mark.parametrize("path", ["", "trial"])
def test_the_chart_is_drawn_once_and_what_is_below_follows(window: Window, path: str) -> None:
    page = window.page
    page.goto(f"{window.address}/{path}?study=demo&trials=1")
    page.wait_for_selector("[data-testid=stMain] .js-plotly-plot")
    window.settle()
    assert page.evaluate("window.came"), "a page whose rest is to come is not settled"
    assert page.get_by_text("The rest of the page comes").count() == 0
    page.locator("[data-testid=stDataFrame]").first.wait_for()
    assert set(page.evaluate("window.drawn").values()) == {1}
    if not path:  # what is above a trial's chart comes in any order, as Streamlit has it
        first = page.locator(".js-plotly-plot").first
        top = page.evaluate("window.firstTop")
        assert first.bounding_box()["y"] == pytest.approx(top, abs=2), "it did not move"
    assert not window.wrong


def test_a_chart_that_was_seen_before_gets_its_room_at_once(window: Window) -> None:
    room = """() => { const full = document.querySelector(".js-plotly-plot")._fullLayout;
        return ["l", "t", "b"].map((side) => [full._size[side], full.margin[side]]); }"""
    found = []
    for _ in range(3):  # a scrollbar may have come between the first two
        window.page.goto(f"{window.address}/?study=demo")
        window.page.wait_for_selector("[data-testid=stMain] .js-plotly-plot .scatterlayer path")
        window.settle()
        found.append(window.page.evaluate(room))
    first, _, again = found
    assert any(took > given for took, given in first), "Plotly made room, and drew twice"
    assert all(took == given for took, given in again), "it was drawn once"
    assert [took for took, _ in again] == pytest.approx([took for took, _ in first], abs=1)
    assert not window.wrong


@pytest.mark.parametrize("answer", ["none", "another"])
def test_a_browser_that_does_not_get_plotly_by_its_address_gets_it_otherwise(
    window: Window, answer: str
) -> None:
    def answered(route) -> None:
        if answer == "none":
            route.abort()
        else:
            route.fulfill(body="'a page of the proxy'", content_type="text/javascript")

    window.page.route("**/plotly-*.js", answered)
    window.page.goto(f"{window.address}/trial?study=demo&trials=1")
    window.page.wait_for_selector("[data-testid=stMain] .js-plotly-plot")
    window.settle()
    window.page.locator("[data-testid=stDataFrame]").first.wait_for()
    assert window.page.evaluate("Boolean(window.Plotly)")
    assert window.page.locator("[data-testid=stException]").count() == 0
