"""Plotly's script, as the browser gets it: from an address that it may keep for a year.

The address has the digest of the script, so that another version has another. `served` is set by
`dashboard.server`. A page that is served without it (`streamlit run dashboard/app.py`), or whose
browser does not find the address (behind a proxy that has the server in a folder), gets the script
with each visit, from the installed package. No network is needed either way.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from functools import cache
from pathlib import Path

import streamlit as st

from dashboard import plotly_lean

served = False  # whether this process answers at `address()`
YEAR_S = 365 * 24 * 3600
_LOADER, _INLINE = "ffn-nas.plotly_loader", "ffn-nas.plotly_script"
# A chart that waits has it at once; a page without one has it when there is nothing else to do. A
# page whose HTML runs `begin` may be loading it already.
_LOADER_JS = """
export default function ({data, setTriggerValue}) {
  if (window.Plotly || window.ffnNasPlotly) return;
  const missing = () => { if (!window.Plotly) setTriggerValue("missing", true); };
  let script = document.querySelector("script[data-plotly]");
  window.ffnNasPlotly = () => {
    if (script) return;
    script = document.createElement("script");
    script.onload = script.onerror = missing;
    script.src = data.address;
    document.head.appendChild(script);
  };
  if (script && script.failed) missing();
  else if (script) script.onload = script.onerror = missing;
  else setTimeout(() => requestIdleCallback(window.ffnNasPlotly, {timeout: 2000}), 1000);
}
"""


def preload() -> str:
    """A link for a page's HTML: a browser that has not kept the script begins to fetch it."""
    return f'<link rel="preload" as="script" fetchpriority="low" href=".{address()}">'


def begin() -> str:
    """What a page's HTML may run, so that the script was run when the first chart asks for it."""
    return f"""
const script = document.createElement("script");
script.onload = () => {{ script.failed = !window.Plotly; }};
script.onerror = () => {{ script.failed = true; }};
script.dataset.plotly = "";
script.src = ".{address()}";
document.head.append(script);
"""


@cache
def _installed() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


@cache
def address() -> str:
    """Its path on the server: of the package's script, and of what is changed in it."""
    digest = hashlib.sha256(_installed().encode())
    digest.update(Path(plotly_lean.__file__).read_bytes())
    return f"/plotly-{digest.hexdigest()[:16]}.js"


def script() -> str:
    """The installed package's, as `plotly_lean` changes it."""
    with _making:
        return _script()


def packed() -> bytes:
    """The script as it travels: a third of its size."""
    with _making:
        return _packed()


_making = threading.RLock()  # the first browser may ask for what the server makes as it starts


@cache
def _script() -> str:
    return plotly_lean.lean(_installed())


@cache
def _packed() -> bytes:
    return gzip.compress(_script().encode(), 6)


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
