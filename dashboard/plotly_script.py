"""Plotly's script, as the browser gets it: from an address that it may keep for a year.

The address has the digest of the script, so that another version has another. `served` is set by
`dashboard.server`. A page that is served without it (`streamlit run dashboard/app.py`), or whose
browser does not find the address (behind a proxy that has the server in a folder), gets the script
with each visit, from the installed package. No network is needed either way.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache

import streamlit as st

served = False  # whether this process answers at `address()`
YEAR_S = 365 * 24 * 3600
_LOADER, _INLINE = "ffn-nas.plotly_loader", "ffn-nas.plotly_script"
_LOADER_JS = """
export default function ({data, setTriggerValue}) {
  if (window.Plotly || window.ffnNasPlotly) return;
  const script = window.ffnNasPlotly = document.createElement("script");
  const missing = () => { if (!window.Plotly) setTriggerValue("missing", true); };
  script.onload = script.onerror = missing;
  script.src = data.address;
  document.head.appendChild(script);
}
"""


@cache
def script() -> str:
    """The installed package's."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


@cache
def address() -> str:
    """Its path on the server."""
    return f"/plotly-{hashlib.sha256(script().encode()).hexdigest()[:16]}.js"


@cache
def packed() -> bytes:
    """The script as it travels: a third of its size."""
    return gzip.compress(script().encode(), 6)


def load_plotly() -> None:
    """Let the page have Plotly; call it once in a run, outside what is drawn again alone."""
    if served and not st.session_state.get(_INLINE):
        loader = st.components.v2.component(_LOADER, js=_LOADER_JS)
        loader(key=_LOADER, height=1, data={"address": address()}, on_missing_change=_send_it)
        return
    whole = script() + "\nexport default function () {}\n"
    st.components.v2.component(_INLINE, js=whole)(key=_INLINE, height=1)


def _send_it() -> None:
    st.session_state[_INLINE] = True
