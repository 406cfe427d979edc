"""Quality against cost."""

from __future__ import annotations

import streamlit as st

from dashboard.context import Context, once
from dashboard.data.source import Source
from dashboard.sections import draw_headline, draw_pareto, draw_runs, draw_table
from dashboard.text import verbatim


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    source, name = context.source, context.study.name
    snapshot = source.snapshot(name)
    st.title(verbatim(name))
    draw_headline(source, snapshot)
    once(board, source, name)
    draw_table(source, snapshot)


def board(source: Source, name: str) -> None:
    """The scatter and the runs over the rungs."""
    snapshot = source.snapshot(name)
    draw_pareto(source, snapshot)
    draw_runs(source, snapshot)
