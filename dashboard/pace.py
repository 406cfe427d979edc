"""How often an open page looks for news: less often where many are open, for a study needs its
cores more than its readers need the last seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import uuid4

import streamlit as st

REFRESH_S = 3.0
FEW = 3  # pages that look as often as that; of twice as many, each looks half as often
LONGEST_S = 24.0
_PAGE = "open-page"


class Pace:
    """Counts a server's open pages by their looks. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}  # when a page that was not seen again has been closed

    @property
    def every(self) -> float:
        """Seconds between two looks of each page that is open now."""
        with self._lock:
            now = self._clock()
            return refresh(sum(end >= now for end in self._until.values()))

    def look(self, page: str) -> float:
        """Note that this page is open; returns in how many seconds it should look again."""
        with self._lock:
            now = self._clock()
            self._until[page] = now
            self._until = {each: end for each, end in self._until.items() if end >= now}
            every = refresh(len(self._until))
            self._until[page] = now + 2.5 * every  # it may miss one look
            return every


def refresh(pages: int) -> float:
    """Seconds between two looks of each, where so many pages are open."""
    return min(REFRESH_S * max(1, -(-pages // FEW)), LONGEST_S)


def look() -> float:
    """`Pace.look` of the page that is being drawn."""
    return _pace.look(st.session_state.setdefault(_PAGE, uuid4().hex))


def slower() -> float:
    """How many times as long as with few pages each waits between two looks."""
    return _pace.every / REFRESH_S


def draw_pace() -> None:
    """Say how often pages look, where that is less often than usual; call it below what looks."""
    if slower() > 1:
        st.caption(
            "Many pages are open: those that follow a study look for news every "
            f"{_pace.every:g} s, not every {REFRESH_S:g} s."
        )


_pace = Pace()
