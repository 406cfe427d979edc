"""A Plotly chart that keeps its element, its zoom and its legend while its data change.

`st.plotly_chart` makes a new element whenever the figure changes: in a part of the page that
refreshes itself, the chart would flicker and forget the reader's zoom. This component calls
`Plotly.react` on one element instead, and Plotly's `uirevision` keeps what the reader did.
Plotly's own script comes to the page by `dashboard.plotly_script`.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

_CHART = "ffn-nas.plotly_chart"
_CHART_JS = """
const CONFIG = {displaylogo: false, responsive: true, scrollZoom: false,
                modeBarButtonsToRemove: ["select2d", "lasso2d"]};

function themed(figure, element) {
  const style = getComputedStyle(element);
  figure.layout.paper_bgcolor = figure.layout.plot_bgcolor = "rgba(0,0,0,0)";
  figure.layout.modebar = {bgcolor: "rgba(0,0,0,0)", color: "#888888", orientation: "v"};
  figure.layout.font = {family: style.getPropertyValue("--st-font") || "sans-serif",
                        color: style.getPropertyValue("--st-text-color") || "#31333f", size: 13};
  return figure;
}

export default function ({data, parentElement, setTriggerValue}) {
  let element = parentElement.querySelector(".ffn-nas-chart");
  if (!element) {
    element = document.createElement("div");
    element.className = "ffn-nas-chart";
    parentElement.appendChild(element);
  }
  element.style.height = data.height + "px";
  element.clicked = (number) => setTriggerValue("clicked", number);
  element.wanted = data.figure;
  const draw = async () => {
    if (!element.isConnected || element.wanted !== data.figure) return;
    if (!window.Plotly) { setTimeout(draw, 50); return; }
    const figure = themed(JSON.parse(data.figure), element);
    await window.Plotly.react(element, figure.data, figure.layout, CONFIG);
    if (element.listening) return;
    element.listening = true;
    element.on("plotly_click", (event) => {
      const point = event.points.find((each) => each.customdata);
      if (point) element.clicked(point.customdata[0]);
    });
  };
  draw();
}
"""


def live_chart(
    figure: str, key: str, height: int, on_click: Callable[[int], None] | None = None
) -> None:
    """Draw `figure`, or bring the chart of that `key` up to date.

    figure: Plotly's, as JSON.
    height: in pixels.
    on_click: called with the first `customdata` of a clicked point.
    """
    component = st.components.v2.component(_CHART, js=_CHART_JS, isolate_styles=False)

    def clicked() -> None:
        number = st.session_state[key].clicked
        if on_click is not None and number is not None:
            on_click(int(number))

    data = {"figure": figure, "height": height}
    component(key=key, data=data, height=height, on_clicked_change=clicked)
