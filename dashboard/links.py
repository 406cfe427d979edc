"""What a link carries: study, selection, axes. One place reads and writes the address.

A page asks `get` and tells `put`; `app` calls `recall` before a page is drawn and `publish` after.
Streamlit drops the address's parameters when the reader goes to another page, and a widget's state
when it is not drawn: these values outlive both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st
from streamlit.navigation.page import StreamlitPage

_KEY = "link"
_PAGES = "pages"
# In the order of the address.
NAMES = ("study", "trials", "x", "y", "z", "log", "colour", "shape", "rung", "weak")
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
    if st.query_params.to_dict() != wanted:
        st.query_params.from_dict(wanted)


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


# From one page to another: `app` tells which there are.


def know(pages: Mapping[str, StreamlitPage]) -> None:
    """The pages by their paths."""
    st.session_state[_PAGES] = dict(pages)


def go(path: str) -> None:
    """Leave for another page, with study and selection."""
    st.switch_page(st.session_state[_PAGES][path])
