"""What is below a page's first chart comes when a browser begins with that chart, or at once."""

from __future__ import annotations

import os

import pytest
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

from benchmarks.reading_store import fill as fill_many
from dashboard import charts, plotly_script
from nas.store import Store, StudyState

pytestmark = pytest.mark.slow


def alone() -> None:
    """One page of the newest study; what it needs is imported here, where it runs."""
    import os

    from dashboard import links
    from dashboard.context import Context
    from dashboard.data.source import Source
    from dashboard.pages import PAGES

    links.recall()
    source = Source(os.environ["NAS_DB"])
    (page,) = (page for page in PAGES if page.path == os.environ["TESTED_PAGE"])
    page.draw(Context(source, source.studies()[0]))


@pytest.fixture
def drawn(url: str, monkeypatch):
    """Draws a page as `dashboard.server` has it: whether something waits, and all subheaders.

    begun: whether a browser has begun with its chart.
    """
    monkeypatch.setenv("NAS_DB", url)
    monkeypatch.setattr(plotly_script, "served", True)

    def draw(path: str, begun: bool, **link: str) -> tuple[bool, list[str]]:
        monkeypatch.setattr(charts, "begun", lambda _: begun)
        monkeypatch.setitem(os.environ, "TESTED_PAGE", path)
        page = AppTest.from_function(alone, default_timeout=WAIT_S)
        for name, value in link.items():
            page.query_params[name] = value
        page.run()
        assert not page.exception
        waits = any("The rest of the page comes" in each.value for each in page.get("html"))
        return waits, [each.value for each in page.subheader]

    return draw


def test_it_waits_for_the_chart(drawn, url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    assert drawn("frontier", False) == (True, ["Quality against cost"])
    waits, shown = drawn("frontier", True)
    assert not waits and shown[-1] == "Trials"
    waits, shown = drawn("trial", False, trials="1")
    assert waits and shown[-1] == "Training"
    waits, shown = drawn("trial", True, trials="1")
    assert not waits and {"Outcome", "Costs"} < set(shown)


def test_the_slices_wait_for_what_knobs_explain(drawn, url: str) -> None:
    with Store.open(url) as store:
        fill_many(store, 300, 1)
    assert drawn("why", False) == (True, ["What each knob explains"])
    waits, shown = drawn("why", True)
    assert not waits and len(shown) > 1


def test_nothing_waits_for_a_chart_that_does_not_come(drawn, url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    waits, shown = drawn("frontier", False, at="0")  # of a moment before anything was measured
    assert not waits and shown[-1] == "Trials"
    waits, shown = drawn("trial", False, trials="4")  # which runs: its chart is drawn again
    assert not waits and {"Outcome", "Costs"} < set(shown)
