"""The Pareto dashboard's page: `streamlit run dashboard/app.py`, or `nas dashboard`.

The database is the URL in the environment variable NAS_DB, by default sqlite:///nas.db.
The page only reads it.
"""

from __future__ import annotations

import os

import streamlit as st

from dashboard.charts import load_plotly
from dashboard.data import headline, read
from dashboard.sections import (
    draw_detail,
    draw_headline,
    draw_pareto,
    draw_running,
    draw_table,
)
from nas.store import Store, StudyRecord, StudyState
from search_space.errors import InputError

REFRESH_S = 3.0


@st.cache_resource(show_spinner=False)
def open_store(url: str) -> Store:
    """One store a server, shared by its pages."""
    return Store.open(url, create=False)


def main() -> None:
    """Draw the page; bad input is one line, no traceback."""
    st.set_page_config("FFN architecture search", page_icon="📉", layout="wide")
    try:
        page(open_store(os.environ.get("NAS_DB", "sqlite:///nas.db")))
    except InputError as error:
        st.title("FFN architecture search")
        st.error(str(error))


def page(store: Store) -> None:
    """Choose a study, then show it."""
    studies = store.studies()
    if not studies:
        st.title("FFN architecture search")
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    study = choose_study(studies)
    st.title(study.name)
    load_plotly()
    live = study.state is StudyState.RUNNING
    st.fragment(board, run_every=REFRESH_S if live else None)(store, study.name, live)


def choose_study(studies: list[StudyRecord]) -> StudyRecord:
    """The sidebar: which study, and what it is."""
    with st.sidebar:
        st.header("FFN architecture search")
        names = {study.name: study for study in studies}
        name = st.selectbox("Study", list(names), key="study")
        study = names[name]
        st.caption(f"{study.state}, started {study.created_at:%Y-%m-%d %H:%M} UTC")
        st.caption(f"Objectives: {', '.join(study.objectives)}")
        with st.expander("Configuration"):
            st.json(study.config, expanded=2)
        with st.expander("Facts"):
            st.json(study.facts, expanded=2)
    return study


def board(store: Store, name: str, live: bool) -> None:
    """The part that refreshes itself while the study runs."""
    try:
        snapshot = read(store, name)
        draw_headline(headline(snapshot))
        draw_pareto(snapshot)
        draw_detail(store, snapshot)
        draw_running(snapshot)
        draw_table(snapshot)
    except InputError as error:
        st.error(str(error))
        return
    if live and snapshot.ended:
        st.rerun()  # the whole page, which then stops refreshing


if __name__ == "__main__":
    main()
