"""Why the frontier is where it is: which knobs matter, what good designs share, what it cost."""

from __future__ import annotations

import streamlit as st

from dashboard import below
from dashboard.context import Context, once
from dashboard.data.at_rung import ENOUGH, at_rung, rungs_measured, telling_rung
from dashboard.data.reading import Reading
from dashboard.why.cost import draw_promotions, draw_spending
from dashboard.why.designs import draw_fronts, draw_parallel
from dashboard.why.knobs import draw_importance, draw_slices
from nas.views.style import si

KNOBS, DESIGNS, COST = "Which knobs matter", "What good designs share", "What the search spent"
VIEWS = (KNOBS, DESIGNS, COST)


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    st.title("Why")
    once(body, context)


def body(context: Context) -> None:
    """One of three questions, so that only its figures are made."""
    reading = context.reading()
    view = st.segmented_control(
        "Question",
        VIEWS,
        default=KNOBS,
        required=True,
        key="why-view",
        label_visibility="collapsed",
    )
    if view == COST:
        draw_spending(context, reading)
        draw_promotions(context, reading)
        return
    counts = rungs_measured(reading)
    if not counts:
        st.info(
            "No design has been measured yet. As soon as some have, this page says what their "
            f"knobs do. Follow the study with: `nas status {reading.study.name}`"
        )
        return
    rung = choose_rung(reading, counts)
    there = context.source.once(("why-rung", reading.stamp, rung), lambda: at_rung(reading, rung))
    if view == DESIGNS:
        draw_parallel(context, reading, there)
        draw_fronts(context, reading)
    else:
        drawn = draw_importance(context, reading, there)
        if drawn is None or below.reached(drawn):
            draw_slices(context, reading, there)


def choose_rung(reading: Reading, counts: dict[int, int]) -> int:
    """Where designs are compared: figures of two rungs do not compare."""
    if len(counts) == 1:
        return next(iter(counts))
    levels = reading.evaluations.groupby("rung")["until_flops"].max()

    def words(rung: int) -> str:
        top = " (top)" if rung == reading.study.top else ""
        return f"rung {rung}{top}: {si(levels[rung])} FLOPs, {counts[rung]:,} designs"

    rungs = list(counts)
    chosen: int = st.selectbox(
        "Designs compared at",
        rungs,
        index=rungs.index(telling_rung(counts)),
        format_func=words,
        key=f"why-rung-{reading.study.id}",
        width=420,
        help="Only designs that trained equally long compare. The top rung is what counts, but few "
        f"reach it, and only good ones; this begins at the highest rung with {ENOUGH} designs.",
    )
    return chosen
