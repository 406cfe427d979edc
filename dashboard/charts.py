"""A Plotly chart that keeps its element, its zoom and its legend while its data change.

`st.plotly_chart` makes a new element whenever the figure changes: in a part of the page that
refreshes itself, the chart would flicker and forget the reader's zoom. This component calls
`Plotly.react` on one element instead, and Plotly's `uirevision` keeps what the reader did.
Plotly's own script comes to the page by `dashboard.plotly_script`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from dashboard.chart_script import CHART_JS, MARKS_JS

_CHART = "ffn-nas.plotly_chart"
_MARKS = "ffn-nas.plotly_marks"
Picked = Callable[[Sequence[int]], None]


def live_chart(
    figure: str,
    key: str,
    height: int,
    on_click: Callable[[int], None] | None = None,
    *,
    label: str = "",
    on_select: Picked | None = None,
    selected: Sequence[int] = (),
    first: bool = False,
) -> None:
    """Draw `figure`, or bring the chart of that `key` up to date.

    figure: Plotly's, as JSON. A trace's `customdata` is a trial's number at each point, or a list
        that begins with it.
    height: in pixels.
    on_click: called with the number of a clicked point.
    label: the chart's name for who does not see it.
    on_select: called with all numbers that are selected now: by a click, which adds with Shift or
        Ctrl, by a box or lasso, or none by Escape. Without it there are no tools to select.
    selected: the numbers that are ringed. Sent apart from the figure, which may be large.
    first: whether what is below waits for it; see `dashboard.below`.
    """
    component = st.components.v2.component(_CHART, js=CHART_JS, isolate_styles=False)

    def picked() -> None:
        found = st.session_state[key].picked
        if not isinstance(found, Mapping):
            return
        if on_click is not None and found["how"] == "click":
            on_click(int(found["clicked"]))
        if on_select is not None:
            on_select([int(number) for number in found["numbers"]])

    if on_select is not None:
        marks = st.components.v2.component(_MARKS, js=MARKS_JS, isolate_styles=False)
        marks(key=f"{key}-marks", data={"name": key, "selected": list(selected)}, height=1)
    data = {
        "name": key,
        "figure": figure,
        "height": height,
        "label": label,
        "selects": on_select is not None,
        "first": first,
    }
    component(key=key, data=data, height=height, on_picked_change=picked, on_begun_change=_nothing)


def begun(key: str) -> bool:
    """Whether the browser has begun to draw the chart of that key, which is a page's `first`."""
    known = st.session_state.get(key)
    return known is not None and bool(known.get("begun"))


def _nothing() -> None:
    """The part of the page that has the chart is drawn again; that is all."""
