"""What is running."""

from __future__ import annotations

import streamlit as st

from dashboard.context import Context, again
from dashboard.data.source import Source
from dashboard.sections import draw_running


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    again(running, context.source, context.study.name)


def running(source: Source, name: str) -> None:
    """The running evaluations."""
    draw_running(source.snapshot(name))
