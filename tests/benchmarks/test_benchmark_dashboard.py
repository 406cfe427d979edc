"""The short form of `benchmarks.dashboard`: the store is whole and made once, readers read."""

from __future__ import annotations

from pathlib import Path

import pytest
from depth import LONG

from benchmarks import dashboard, dashboard_browser, dashboard_crowd
from benchmarks.reading_store import NAME, TWO_EACH
from nas.store import Store

pytestmark = pytest.mark.slow


def test_the_store_has_two_evaluations_a_trial_and_is_made_once(tmp_path: Path) -> None:
    with dashboard.store(48, 3, tmp_path / "kept") as url, Store.open(url) as store:
        study = store.study(NAME)
        assert len(store.trials(study.id)) == 48
        evaluations = store.evaluations(study.id)
        assert len(evaluations) == 96 and study.rungs == TWO_EACH.rungs
        assert len(store.curve(evaluations[-1].id)) == 3
    (file,) = (tmp_path / "kept").iterdir()
    made = file.stat().st_mtime_ns
    with dashboard.store(48, 3, tmp_path / "kept") as again:
        assert again == url
    assert file.stat().st_mtime_ns == made


def test_what_no_browser_can_measure_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dashboard, "missing", lambda: "no chromium on this machine")
    found = {row.name: row for row in dashboard.rows(16, 1, 1.0, 0, tmp_path)}
    assert found["in a browser"].value == "not measured: no chromium on this machine"
    assert found["trials, with two evaluations each"].value == 16


@LONG
def test_a_crowd_reads_and_is_measured_in_pairs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dashboard_crowd, "PAGES_OPEN", 2)
    with dashboard.store(16, 1, tmp_path) as url:
        rows = dashboard_crowd.crowd_rows(url, TWO_EACH, pairs=1, span=0.5)
        found = {row.name: row for row in rows}
    pairs = found["slower by pair, 2 live pages open"].value
    (slower,) = (row for name, row in found.items() if name.endswith("slower by"))
    # Of one pair the median is the pair. All of a study's work is the most that it can lose.
    assert pairs == f"{slower.value:+.1f}%"
    assert slower.value <= 100 and slower.bar == "<= 2"


def test_every_page_says_what_makes_it_useful() -> None:
    assert all(page.ready for page in dashboard_browser.PAGES)
    assert len({page.path for page in dashboard_browser.PAGES}) == len(dashboard_browser.PAGES)
