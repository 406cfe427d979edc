"""How the study came about, and the study as it stood then: the figure and the slider."""

from __future__ import annotations

import json

import streamlit as st

from dashboard import links
from dashboard.charts import live_chart
from dashboard.context import Context
from dashboard.data.history import History, endings, history
from dashboard.data.reading import Reading
from dashboard.data.replay import replayed
from dashboard.figures.history import history_figure
from nas.views.style import si

_HEIGHT = 380
_KEY = "link-at"


def draw_past(context: Context, reading: Reading) -> Reading:
    """The figure and its slider; returns the reading as it stood at the chosen moment.

    The moment is a number of endings, the link's parameter `at`; nothing stands for now, so that a
    study that goes on is shown as it goes on.
    """
    over = context.source.once(
        ("over", reading.stamp), lambda: endings(reading)["flops"].to_numpy()
    )
    past = history(context.source, reading)
    if len(over) < 2 or past.frame.empty:
        return reading
    at = _moment(len(over))
    st.subheader("How it came about")
    figure = context.source.once(
        ("history", reading.stamp, at),
        lambda: json.dumps(history_figure(past, f"history-{reading.study.id}", at)),
    )
    live_chart(
        figure,
        f"history-{reading.study.id}",
        _HEIGHT,
        label="Best bits per byte, and hypervolume of the frontier, against the training FLOPs "
        "that the study had spent.",
    )
    st.slider(
        "Show the study as it stood after so many endings",
        0,
        len(over),
        key=_KEY,
        on_change=_moved,
        args=(len(over),),
        help="An ending is an evaluation that was measured, failed or was stopped. All panels of "
        "this page then show what was known at that moment. At the right end they show now.",
    )
    st.caption(_words(past, at, len(over), float(over[: at or 0].sum())))
    if at is None:
        return reading
    return context.source.once(("replayed", reading.stamp, at), lambda: replayed(reading, at))


def _moment(last: int) -> int | None:
    """The chosen number of endings; None for now."""
    given = links.get("at")
    at = int(given) if given.isdecimal() and len(given) < 10 else last
    st.session_state[_KEY] = min(at, last)
    return at if at < last else None


def _moved(last: int) -> None:
    at = st.session_state[_KEY]
    links.put("at", str(at) if at < last else "")


def _words(past: History, at: int | None, last: int, flops: float) -> str:
    worst = ", ".join(f"{name} {si(value, 4)}" for name, value in past.worst.items())
    measure = (
        "Above: the best feasible design's mean over its seeds as then known. Below: the share of "
        f"the box up to the worst values ({worst}) that the frontier dominates. Higher is better."
    )
    if at is None:
        return measure
    return f"**Shown: the study after {at:,} of {last:,} endings, {si(flops)} FLOPs.** {measure}"
