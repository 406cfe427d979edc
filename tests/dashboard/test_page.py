"""The page, run without a browser, in each state that a database can be in."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard
from nas.store import Store, StudyState

APP = Path(dashboard.__file__).parent / "app.py"


@pytest.fixture
def page(url: str, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("NAS_DB", url)
    return AppTest.from_file(str(APP), default_timeout=30)


def test_no_database_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DB", f"sqlite:///{tmp_path}/none.db")
    page = AppTest.from_file(str(APP), default_timeout=30).run()
    assert not page.exception
    assert [error.value for error in page.error] == [
        f"no studies at {tmp_path}/none.db yet; start one with: nas launch STUDY.yaml"
    ]


def test_an_empty_database_says_how_to_start(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "nas launch STUDY.yaml" in page.info[0].value


def test_a_study_without_trials_says_what_comes(page: AppTest, url: str) -> None:
    with Store.open(url) as store:
        store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
    page.run()
    assert not page.exception
    assert "nas status new" in page.info[0].value
    assert "No trial has started yet" in page.info[1].value


def test_a_running_study_shows_everything(page: AppTest, url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    page.run()
    assert not page.exception
    assert page.title[0].value == "demo"
    metrics = {metric.label: (metric.value, metric.delta) for metric in page.metric}
    assert metrics["Trials finished"] == ("3", "1 running, 1 failed")
    assert metrics["Training FLOPs spent"] == ("4T", "40% of 10T")
    assert metrics["Best bits per byte"] == ("2.000", "± 0.010, 5-gram: 1.900")
    assert metrics["Pareto frontier"] == ("2", "designs")
    headers = [header.value for header in page.subheader]
    assert headers == ["Quality against cost", "Design", "Running: 1 trial", "Trials"]
    assert len(page.dataframe[-1].value) == 5


def test_a_finished_study_shows_no_running_part(page: AppTest, url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "old", StudyState.RUNNING)
        fill(store, "demo", StudyState.FINISHED)
    page.run()
    assert not page.exception
    assert page.title[0].value == "demo"
    assert "Running: 1 trial" not in [header.value for header in page.subheader]
    page.selectbox(key="study").select("old").run()
    assert not page.exception
    assert page.title[0].value == "old"


def test_the_chosen_trial_is_shown(page: AppTest, url: str, fill) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.FINISHED)
    page.run()
    choice = page.selectbox(key=f"trial-{study.id}")
    assert choice.value == 1, "the best trial comes first"
    choice.select(3).run()
    assert not page.exception
    assert page.error[0].value == "diverged: the loss is not finite at step 3"


def test_a_study_where_nothing_finished_says_how_to_go_on(page: AppTest, url: str) -> None:
    with Store.open(url) as store:
        study = store.create_study("sad", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        store.update_study(study.id, state=StudyState.FAILED)
    page.run()
    assert not page.exception
    assert "nas launch STUDY.yaml" in page.info[0].value
    assert page.info[1].value == "No trial was started."
