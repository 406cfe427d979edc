"""A picture of our own on the page: SVG that takes the page's colours."""

from __future__ import annotations

import streamlit as st

_NAME = "ffn-nas.picture"
_JS = """
export default function ({data, parentElement}) {
  let holder = parentElement.querySelector(".ffn-nas-picture");
  if (!holder) {
    holder = document.createElement("div");
    holder.className = "ffn-nas-picture";
    holder.style.color = "var(--st-text-color)";
    parentElement.appendChild(holder);
  }
  if (holder.shown !== data.svg) holder.innerHTML = holder.shown = data.svg;
}
"""


def picture(svg: str, key: str) -> None:
    """Show an SVG of this program's own making: whatever texts of others it has are escaped."""
    component = st.components.v2.component(_NAME, js=_JS, isolate_styles=False)
    component(key=key, data={"svg": svg})
