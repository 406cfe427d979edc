"""A part of a page that is made when the reader opens it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st


def folded(label: str, key: str, draw: Callable[[], None]) -> None:
    """A heading that `draw` draws below once it is opened.

    What Streamlit folds away by itself is made, sent and put into the page all the same.
    key: its state is the session's under that key: whether it is open.
    """
    with st.expander(label, key=key, on_change="rerun") as part:
        if part.open:
            draw()
