"""What lies below a page's first chart: it is made and sent while that chart is drawn, not before.

A browser puts everything that has come into the page, in small parts, before it gets to a chart: a
table, lists and a second chart that nobody sees yet took half of a page's first second.
"""

from __future__ import annotations

import streamlit as st

from dashboard import charts, plotly_script

# Marked as Streamlit marks what is about to change, for who waits until a page is whole.
_COMES = '<p data-stale="true" style="opacity: 0.6">The rest of the page comes.</p>'


def reached(key: str) -> bool:
    """Whether to draw what is below the page's first chart, of that key; call it where something
    may stand that says that more comes.

    A visit's first answer is no. The part of the page that asked is drawn again when the browser
    begins with the chart, and then the answer is yes for as long as the page is open. Without a
    browser, and where a page comes without `dashboard.server`, it always is.
    """
    if not plotly_script.served or charts.begun(key):
        return True
    st.html(_COMES)
    return False
