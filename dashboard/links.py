"""What a link carries: study, selection, axes. One place reads and writes the address.

A page asks `get` and tells `put`; `app` calls `recall` before a page is drawn and `publish` after.
Streamlit drops the address's parameters when the reader goes to another page, and a widget's state
when it is not drawn: these values outlive both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import streamlit as st

_KEY = "link"
_TOLD = "link-told"
# In the order of the address.
NAMES = ("study", "trials", "x", "y", "z", "log", "colour", "shape", "rung", "weak", "at")
MOST_SELECTED = 100  # trials: an address has no room for thousands


def recall() -> None:
    """Take the address's parameters, once a session: after that the page knows better."""
    if _KEY not in st.session_state:
        given = {name: st.query_params[name] for name in NAMES if name in st.query_params}
        st.session_state[_KEY] = given


def get(name: str, default: str = "") -> str:
    """A parameter's text."""
    return str(st.session_state[_KEY].get(name, default))


def put(name: str, value: str) -> None:
    """Set a parameter; "" removes it."""
    assert name in NAMES, name
    if value:
        st.session_state[_KEY][name] = value
    else:
        st.session_state[_KEY].pop(name, None)


def publish() -> None:
    """Write the address."""
    wanted = {n: st.session_state[_KEY][n] for n in NAMES if n in st.session_state[_KEY]}
    # What the browser told with this run may be older than what it was told last.
    if st.session_state.get(_TOLD) != wanted or st.query_params.to_dict() != wanted:
        st.query_params.from_dict(wanted)
        st.session_state[_TOLD] = wanted


# The selection is a parameter like others: trials by number, the first is the one in focus.


def selected() -> tuple[int, ...]:
    """The trials that are selected, in the order in which they were; numbers that make no sense
    are left out."""
    parts = get("trials").split(",")
    return tuple(dict.fromkeys(int(part) for part in parts if part.isdecimal()))


def select(numbers: Sequence[int]) -> None:
    """Select these trials and no others; of more than MOST_SELECTED the first."""
    kept = list(dict.fromkeys(numbers))[:MOST_SELECTED]
    put("trials", ",".join(str(number) for number in kept))


def go(path: str) -> NoReturn:
    """Show another page, by its `path` in `dashboard.pages.PAGES`; the address is kept."""
    publish()
    st.switch_page(st.Page(_nothing, url_path=path), query_params=st.query_params.to_dict())


def _nothing() -> None:
    """Stands for a page: Streamlit finds it by its path."""
