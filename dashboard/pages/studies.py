"""All studies: where each stands, what it cost, how good it is; a click on a row chooses one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import links
from dashboard.actions.buttons import draw_buttons
from dashboard.context import Context, again
from dashboard.data.studies import Summary, summary_frame
from dashboard.text import verbatim

KEY = "studies-table"
_PICKED = "studies-picked"
ROW_PX, MOST_ROWS = 35, 14
MOST_NAMED = 5  # studies that one sentence names


def draw(context: Context) -> None:
    """The page."""
    st.title("Studies")
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    st.caption("Click the box before a row to choose its study: every page then shows that one.")
    with st.container(key="studies-board"):
        again(board, context)
    st.subheader(verbatim(context.study.name))
    draw_buttons(context, context.study)


def board(context: Context) -> None:
    """The table."""
    summaries = context.source.summaries()
    assert context.study is not None
    name = st.session_state.pop(_PICKED, None)
    if name is not None and name != context.study.name:
        links.put("study", name)
        links.select(())  # another study's trials have other numbers
        st.rerun()
    names = [each.study.name for each in summaries]
    chosen = [names.index(context.study.name)] if context.study.name in names else []

    def picked() -> None:
        rows = st.session_state[KEY].selection.rows
        if rows and rows[0] < len(names):
            st.session_state[_PICKED] = names[rows[0]]

    st.dataframe(
        summary_frame(summaries),
        hide_index=True,
        key=KEY,
        height=ROW_PX * (1 + min(MOST_ROWS, len(summaries))) + 3,
        placeholder="",
        alt="All studies of the database, a row each",
        on_select=picked,
        selection_mode="single-row",
        selection_default={"selection": {"rows": chosen, "columns": [], "cells": []}},
        column_config=_columns(),
    )
    running = sum(each.driven for each in summaries)
    st.caption(f"{_count(len(summaries), 'study', 'studies')}, {running} of them driven now.")
    _warn(summaries)


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "study": text("study", pinned=True),
        "state": text("state"),
        "progress": st.column_config.ProgressColumn(
            "spent", format="%.0f%%", min_value=0, max_value=100,
            help="Of its training FLOPs, by evaluations that have ended",
        ),
        "spent": number("spent (TFLOPs)", format="localized", help="Training FLOPs"),
        "left": number("left (TFLOPs)", format="localized", help="Training FLOPs"),
        "designs": number("designs", help="That were begun"),
        "finished": number("at the top", help="Designs that were measured at the top rung"),
        "failed": number("failed", help="Designs that diverged, ran out of memory or failed"),
        "best": number(
            "best bits/byte", format="%.4f",
            help="Of the feasible designs at the top rung: lower is better",
        ),
        "frontier": number("frontier", help="Designs on the Pareto frontier of its objectives"),
        "driver": text("driver", help="The process that drives it"),
        "started": st.column_config.DatetimeColumn("started (UTC)", format="YYYY-MM-DD HH:mm"),
    }  # fmt: skip


def _warn(summaries: list[Summary]) -> None:
    """Say which studies run by their state and are driven by nobody."""
    left = [each.study.name for each in summaries if each.abandoned]
    if left:
        shown = ", ".join(map(verbatim, left[:MOST_NAMED]))
        more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
        st.warning(f"Nobody drives {shown}{more}. Go on with one: `nas resume {left[0]}`")


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
