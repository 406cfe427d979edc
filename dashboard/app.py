"""The dashboard's page: `nas dashboard`, or `streamlit run dashboard/app.py`.

The database is the URL in the environment variable NAS_DB, by default sqlite:///nas.db.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

import streamlit as st

from dashboard import links
from dashboard.actions.permission import draw_ways_in
from dashboard.context import Context, once
from dashboard.data.source import Source, source_of
from dashboard.folded import folded
from dashboard.pace import REFRESH_S, draw_pace
from dashboard.pages import PAGES, Page
from dashboard.plotly_script import load_plotly
from dashboard.text import verbatim
from nas.process.holder import words
from nas.store import NoStudiesYet, StudyRecord, StudyState
from search_space.errors import InputError, WorkFailed
from search_space.places import DB_VARIABLE, DEFAULT_DB

MINUTE = "%Y-%m-%d %H:%M"
TITLE = "FFN architecture search"
# What is chosen in a row of buttons has the text's colour: in the dark no one colour has contrast
# enough as its ground, with white on it, and as its ink. And a link of the menu shows that it has
# the focus. And what is above the frontier's chart may come after it: it stays where it is.
STYLE = """<style>
button[data-selected="true"] { color: inherit !important; }
[data-testid="stSidebarNavLink"]:focus-visible { outline: 2px solid; outline-offset: -2px; }
.st-key-headline { min-height: 135px; }
.st-key-front-controls { min-height: 152px; }
</style>"""


def main() -> None:
    """Draw the page; whatever is wrong with the database is one line, no traceback."""
    st.set_page_config(TITLE, page_icon="📉", layout="wide")
    source = source_of(os.environ.get(DB_VARIABLE, DEFAULT_DB))
    links.recall()
    pages = [
        st.Page(
            partial(show, source, page),
            title=page.title,
            icon=page.icon,
            url_path=page.path,
            default=page.default,
        )
        for page in PAGES
    ]
    chosen = st.navigation(pages)
    st.html(STYLE)
    chosen.run()
    links.publish()


def show(source: Source, page: Page) -> None:
    """The sidebar's study, then the page."""
    draw_ways_in()
    try:
        studies = studies_of(source, page)
        load_plotly()
        page.draw(Context(source, choose_study(source, studies) if studies else None))
        with st.sidebar:
            draw_pace()
    except (InputError, WorkFailed) as error:
        st.title(TITLE)
        st.error(verbatim(str(error)))
        st.fragment(wait_for, run_every=REFRESH_S)(source, [])


def studies_of(source: Source, page: Page) -> list[StudyRecord]:
    """All studies; none where there is no database and the page needs none."""
    try:
        return source.studies()
    except NoStudiesYet:
        if page.bare:
            return []
        raise


def choose_study(source: Source, studies: list[StudyRecord]) -> StudyRecord:
    """The sidebar: which study, and what it is."""
    with st.sidebar:
        names = {study.name: study for study in studies}
        wanted = links.get("study")
        # The link is the truth: the box shows it, and writes to it before the page is drawn.
        st.session_state["study"] = wanted if wanted in names else studies[0].name
        name = st.selectbox("Study", list(names), key="study", on_change=changed_study)
        links.put("study", name)
        study = names[name]
        st.caption(f"{study.state}, started {study.created_at:{MINUTE}} UTC")
        hint(study, study.owner != "" and source.lease_left(study.id) > 0)
        st.caption(f"Objectives: {', '.join(map(verbatim, study.objectives))}")
        once(details, study)
    return study


def details(study: StudyRecord) -> None:
    """All that the study was launched with and found, for who asks."""
    folded("Configuration", "study-config", lambda: draw_json(study.config))
    folded("Facts", "study-facts", lambda: draw_json(study.facts.to_dict()))


def draw_json(value: Mapping[str, object]) -> None:
    """Plain data, two levels of it open."""
    st.json(value, expanded=2)


def changed_study() -> None:
    """The reader chose another study, whose trials have other numbers."""
    links.select(())
    links.put("study", st.session_state["study"])


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
