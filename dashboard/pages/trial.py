"""One design."""

from __future__ import annotations

import streamlit as st

from dashboard.context import Context, again, once
from dashboard.data.source import Source
from dashboard.sections import draw_detail


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    once(detail, context.source, context.study.name)


def detail(source: Source, name: str) -> None:
    """The chosen trial."""
    draw_detail(source, source.snapshot(name), again)
