"""The frontier as a picture to keep: SVG from the server, PNG by the reader's own browser."""

from __future__ import annotations

import streamlit as st

from dashboard.data.files import frontier_svg
from nas.views.svg import HEIGHT, WIDTH

_PNG = "ffn-nas.png_button"
_SCALE = 2  # pixels of the PNG a pixel of the figure
_HTML = '<button type="button">PNG</button>'
_CSS = """
button { font: inherit; color: var(--st-text-color); background: var(--st-background-color);
         border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius, 0.5rem);
         padding: 0.35rem 0.75rem; min-height: 2.5rem; cursor: pointer; }
button:hover, button:focus-visible { border-color: var(--st-primary-color);
                                     color: var(--st-primary-color); }
"""
_JS = """
export default function ({data, parentElement}) {
  const button = parentElement.querySelector("button");
  button.onclick = async () => {
    const image = new Image();
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(data.svg);
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = data.width;
    canvas.height = data.height;
    canvas.getContext("2d").drawImage(image, 0, 0, data.width, data.height);
    const link = document.createElement("a");
    link.download = data.name;
    link.href = canvas.toDataURL("image/png");
    link.click();
  };
}
"""


def draw_picture(url: str, name: str) -> None:
    """The figure and its two files, once they are asked for: all trials are read for it."""
    if not st.toggle("Draw it as a picture", key="export-picture"):
        return
    svg = frontier_svg(url, name)
    st.image(svg, width=WIDTH, alt=f"The frontier of {name}: bits per byte against cost")
    with st.container(horizontal=True, key="export-pictures"):
        st.download_button(
            "SVG", svg, f"{name}-frontier.svg", mime="image/svg+xml", key="export-svg"
        )
        button = st.components.v2.component(_PNG, html=_HTML, css=_CSS, js=_JS)
        size = {"width": _SCALE * WIDTH, "height": _SCALE * HEIGHT}
        data = size | {"svg": svg, "name": f"{name}-frontier.png"}
        button(key="export-png", data=data, width="content")
