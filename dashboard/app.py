"""The Pareto dashboard's page: `streamlit run dashboard/app.py`, or `nas dashboard`.

The database is the URL in the environment variable NAS_DB, by default sqlite:///nas.db.
The page only reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import streamlit as st

from dashboard.charts import load_plotly
from dashboard.sections import (
    draw_detail,
    draw_headline,
    draw_pareto,
    draw_running,
    draw_runs,
    draw_table,
)
from dashboard.source import Source
from dashboard.text import verbatim
from nas.process.holder import words
from nas.store import StudyRecord, StudyState
from search_space.errors import InputError, WorkFailed
from search_space.places import DB_VARIABLE, DEFAULT_DB

REFRESH_S = 3.0
MINUTE = "%Y-%m-%d %H:%M"
TITLE = "FFN architecture search"


@st.cache_resource(show_spinner=False)
def open_source(url: str) -> Source:
    """One source a server, shared by its pages."""
    return Source(url)


def main() -> None:
    """Draw the page; whatever is wrong with the database is one line, no traceback."""
    st.set_page_config(TITLE, page_icon="📉", layout="wide")
    source = open_source(os.environ.get(DB_VARIABLE, DEFAULT_DB))
    try:
        page(source)
    except (InputError, WorkFailed) as error:
        st.title(TITLE)
        st.error(verbatim(str(error)))
        again(wait_for, source, [])


def page(source: Source) -> None:
    """Choose a study, then show it."""
    studies = source.studies()
    if not studies:
        st.title(TITLE)
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    study = choose_study(source, studies)
    snapshot = source.snapshot(study.name)
    st.title(verbatim(study.name))
    load_plotly()
    draw_headline(source, snapshot)
    once(board, source, study.name)
    if study.state is StudyState.RUNNING:
        again(running, source, study.name, snapshot.stamp)
    draw_table(source, snapshot)


def choose_study(source: Source, studies: list[StudyRecord]) -> StudyRecord:
    """The sidebar: which study, and what it is."""
    with st.sidebar:
        st.header(TITLE)
        names = {study.name: study for study in studies}
        name = st.selectbox("Study", list(names), key="study")
        study = names[name]
        st.caption(f"{study.state}, started {study.created_at:{MINUTE}} UTC")
        hint(study, study.owner != "" and source.lease_left(study.id) > 0)
        st.caption(f"Objectives: {', '.join(map(verbatim, study.objectives))}")
        with st.expander("Configuration"):
            st.json(study.config, expanded=2)
        with st.expander("Facts"):
            st.json(study.facts.to_dict(), expanded=2)
    return study


def hint(study: StudyRecord, held: bool) -> None:
    """Who holds the study, and how to go on with one that nobody drives any more.

    held: whether its holder has given a sign of life in time.
    """
    resume = f"Go on with it: `nas resume {study.name}`"
    if held:
        since = f" since {study.owner_since:{MINUTE}} UTC" if study.owner_since else ""
        st.caption(f"Held by {verbatim(words(study.owner))}{since}")
    elif study.owner:
        st.warning(f"Its driver gives no sign of life: {verbatim(words(study.owner))}. {resume}")
    elif study.state in (StudyState.STOPPED, StudyState.FAILED):
        st.caption(resume)


# A part that reruns alone: what it does not draw is neither made nor sent again.


def once(part: Callable[..., None], *arguments: object) -> None:
    """Draw a part of the page, and again when the reader does something in it."""
    st.fragment(guarded)(part, *arguments)


def again(part: Callable[..., None], *arguments: object) -> None:
    """Draw a part of the page, and again every REFRESH_S seconds."""
    st.fragment(guarded, run_every=REFRESH_S)(part, *arguments)


def guarded(part: Callable[..., None], *arguments: object) -> None:
    """Draw a part, or the one line that says why it cannot be drawn."""
    try:
        part(*arguments)
    except (InputError, WorkFailed) as error:
        st.error(verbatim(str(error)))


def board(source: Source, name: str) -> None:
    """The scatter, the runs over the rungs, and the design that is chosen in them."""
    snapshot = source.snapshot(name)
    draw_pareto(source, snapshot)
    draw_runs(source, snapshot)
    draw_detail(source, snapshot, again)


def running(source: Source, name: str, drawn: tuple[object, ...]) -> None:
    """The running evaluations. When one began or ended, the whole page is drawn again."""
    snapshot = source.snapshot(name)
    if snapshot.stamp != drawn:
        st.rerun()
    draw_running(snapshot)


def wait_for(source: Source, looked: list[bool]) -> None:
    """Draw the whole page again, once in REFRESH_S seconds, when its database can be read."""
    if not looked:  # the page was drawn just now
        looked.append(True)
        return
    try:
        source.studies()
    except (InputError, WorkFailed):
        return
    st.rerun()


if __name__ == "__main__":
    main()
