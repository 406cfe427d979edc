"""What a page is given, and the parts of a page that are drawn again alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from dashboard import pace
from dashboard.data.reading import Reading
from dashboard.data.source import Source
from dashboard.text import verbatim
from nas.store import StudyRecord
from search_space.errors import InputError, WorkFailed


@dataclass(frozen=True)
class Context:
    """The server's database and the study that the reader looks at.

    study: None while the database has none.
    """

    source: Source
    study: StudyRecord | None

    def reading(self) -> Reading:
        """The study as it stands now; only with a study."""
        assert self.study is not None
        return self.source.reading(self.study.name)


# A part that reruns alone: what it does not draw is neither made nor sent again.


def once(part: Callable[..., object], *arguments: object) -> None:
    """Draw a part of the page, and again when the reader does something in it."""
    st.fragment(guarded)(part, *arguments)


def again(part: Callable[..., object], *arguments: object) -> None:
    """Draw a part of the page, and again every few seconds: how many says `dashboard.pace`."""
    every = pace.look()
    st.fragment(_in_pace, run_every=every)(every, part, *arguments)


def _in_pace(every: float, part: Callable[..., object], *arguments: object) -> None:
    if pace.look() != every:
        st.rerun()  # the whole page: what is drawn again and again is only then told how often
    guarded(part, *arguments)


def follow(context: Context, stamp: tuple[object, ...]) -> None:
    """Draw the whole page again once the study differs from the reading of this stamp.

    Between the two nothing is drawn and nothing sent.
    """
    again(_look, context, stamp)


def _look(context: Context, stamp: tuple[object, ...]) -> None:
    if context.reading().stamp != stamp:
        st.rerun()


def guarded(part: Callable[..., object], *arguments: object) -> None:
    """Draw a part, or the one line that says why it cannot be drawn."""
    try:
        part(*arguments)
    except (InputError, WorkFailed) as error:
        st.error(verbatim(str(error)))
