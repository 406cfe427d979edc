"""The log of a trial on its page: read when it is opened, and shown as it was written."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

from dashboard.data.log import parts, written
from dashboard.data.source import LOG_LINES, Source
from nas.store import EvaluationLog, EvaluationRecord, Store, StudyState
from search_space.contract import Level, LogLine, Status

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NASTY = "[/x] $a$ <b> `c` **d** :smile: :red[e] -> -- &amp; ``f`` _g_ # h ~~i~~"


def said(evaluation: int, number: int, text: str, level: Level = "info") -> LogLine:
    at = AT + timedelta(seconds=number)
    return LogLine(evaluation=evaluation, number=number, at=at, level=level, text=text)


def test_a_line_has_its_time_its_level_and_its_text_as_it_is() -> None:
    assert written(said(1, 0, NASTY)) == f"2026-03-04 05:06:07    info     {NASTY}"
    assert written(said(1, 1, "slow", "warning")) == "2026-03-04 05:06:08  ▲ warning  slow"
    trace = written(said(1, 2, "failed\nTraceback:\n  line", "error")).split("\n")
    below = " " * len("2026-03-04 05:06:09  ✖ error    ")
    assert trace == [
        "2026-03-04 05:06:09  ✖ error    failed", f"{below}Traceback:", f"{below}  line",
    ]  # fmt: skip


def test_an_evaluation_is_a_part(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
        own: list[EvaluationRecord] = store.trial_evaluations(store.trial(study.id, 4).id)
    logs = {own[0].id: EvaluationLog((said(1, 1, "a"), said(1, 2, "b")), 3)}
    logs[own[1].id] = EvaluationLog((), 0)
    first, second = parts(own, logs)
    assert (first.title, first.earlier) == ("Rung 0, seed 0, finished", 3)
    assert [line.split()[-1] for line in first.text.split("\n")] == ["a", "b"]
    assert (second.title, second.text, second.earlier) == ("Rung 1, seed 0, diverged", "", 0)


def alone() -> None:
    """The page Trial of the newest study; what it needs is imported here, where it runs."""
    import os

    import streamlit as st

    from dashboard import links
    from dashboard.context import Context
    from dashboard.data.source import Source
    from dashboard.pages import trial

    links.recall()
    source = st.session_state.setdefault("source", Source(os.environ["NAS_DB"]))
    trial.draw(Context(source, source.studies()[0]))


@pytest.fixture
def page(url: str, monkeypatch: pytest.MonkeyPatch):
    """Opens the page at a trial, with its log shut or open."""
    monkeypatch.setenv("NAS_DB", url)
    assert os.environ["NAS_DB"] == url

    def opened(study: int, trial: int, log: bool) -> AppTest:
        app = AppTest.from_function(alone, default_timeout=WAIT_S)
        app.query_params["trials"] = str(trial)
        if log:
            app.session_state[f"log-{study}"] = True
        app.run()
        assert not app.exception
        return app

    return opened


@pytest.mark.slow
def test_the_log_is_read_when_it_is_opened_and_shows_every_character(
    page, url: str, fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        running = store.trial(study.id, 4)
        (one,) = store.trial_evaluations(running.id)
        many = [said(one.id, number, f"line {number}") for number in range(1, LOG_LINES + 3)]
        store.add_progress([], [*many, said(one.id, 500, NASTY, "warning")])
    asked = []
    logs = Source.logs
    monkeypatch.setattr(Source, "logs", lambda *all: asked.append(all[1]) or logs(*all))
    shut = page(study.id, 4, log=False)
    assert "Log" in [part.label for part in shut.expander]
    assert asked == [] and not shut.code
    app = page(study.id, 4, log=True)
    assert asked == [[one.id]]
    (shown,) = app.code
    lines = shown.value.split("\n")
    assert len(lines) == LOG_LINES and shown.language in ("", None, "plaintext")
    assert lines[0].endswith("  line 4") and lines[-1].endswith(f"▲ warning  {NASTY}")
    assert "**Rung 0, seed 0, running**" in [each.value for each in app.markdown]
    assert any("3 earlier lines are not shown" in each.value for each in app.caption)


@pytest.mark.slow
def test_a_trial_without_a_log_says_why(page, url: str, fill) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        assert store.trial(study.id, 1).status is Status.FINISHED
    assert "There are no lines of this trial: its evaluations ran in a version that kept none" in (
        page(study.id, 1, log=True).info[-1].value
    )
    assert "Nothing was said yet" in page(study.id, 4, log=True).info[-1].value
