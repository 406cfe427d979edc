"""The log of a trial's evaluations: a part of the page that is read when it is opened."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.context import Context, again
from dashboard.data.detail import evaluations_of
from dashboard.data.log import parts
from dashboard.folded import folded
from nas.store import TrialRecord
from search_space.contract import Status


def draw_log(context: Context, trial: TrialRecord) -> None:
    """A heading, and below it once it is opened the lines, an evaluation after the other."""
    folded("Log", f"log-{trial.study_id}", partial(_opened, context, trial))


def _opened(context: Context, trial: TrialRecord) -> None:
    own = evaluations_of(context.reading(), trial.number)
    if any(each.status is Status.RUNNING for each in own):
        again(_lines, context, trial)
    else:
        _lines(context, trial)


def _lines(context: Context, trial: TrialRecord) -> None:
    own = evaluations_of(context.reading(), trial.number)
    logs = context.source.logs([each.id for each in own])
    if not any(log.lines for log in logs.values()):
        st.info(
            "Nothing was said yet: the first lines come within seconds of a worker's beginning."
            if any(each.status is Status.RUNNING for each in own)
            else "There are no lines of this trial: its evaluations ran in a version that kept "
            "none, or ended before a worker said anything. Their endings are in the table above."
        )
        return
    for part in parts(own, logs):
        st.markdown(f"**{part.title}**")
        if part.earlier:
            st.caption(f"{part.earlier:,} earlier lines are not shown.")
        if part.text:
            # Code, of no language: every character is shown as it is.
            st.code(part.text, language=None, wrap_lines=True)
        else:
            st.caption("No line was kept.")
    st.caption(
        "What workers said while they trained, and why another took an evaluation up: by attempt, "
        "the newest last. Times are UTC, by the worker's clock. A worker that says much is cut "
        "short, and its last line says by how many."
    )
