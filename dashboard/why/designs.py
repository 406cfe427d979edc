"""What good designs share."""

from __future__ import annotations

import json

import streamlit as st

from dashboard.charts import live_chart
from dashboard.context import Context
from dashboard.data.at_rung import AtRung
from dashboard.data.reading import Reading
from dashboard.figures.fronts import fronts_figure
from dashboard.figures.parallel import MOST_LINES, parallel_figure
from dashboard.why.drawing import drawn, select_one

HEIGHT = 460
MOST_AXES = 8


def draw_parallel(context: Context, reading: Reading, there: AtRung) -> None:
    """All knobs and objectives side by side."""
    st.subheader(
        "All designs, knob by knob",
        help="A line is a design: where it crosses an upright axis is its value there. It has a "
        "gap where a design has no such knob. Thick lines are on the study's frontier. Click "
        "a method in the legend to hide it, twice to see it alone; click a point to select its "
        "design.",
    )
    front = reading.front
    knobs = list(there.knobs.columns)
    chosen = st.multiselect(
        "Knobs",
        knobs,
        default=common_knobs(there),
        key=f"why-axes-{reading.study.id}-{there.rung}",
        placeholder="Choose the axes",
        help="The axes, from left to right. To begin with: knobs that most designs have.",
    )
    figure = drawn(
        context,
        reading,
        ("parallel", there.rung, tuple(chosen)),
        lambda: parallel_figure(there, chosen, reading.trials["method"], front, "parallel"),
    )
    live_chart(
        figure,
        f"why-parallel-{reading.study.id}",
        HEIGHT + 60,
        on_click=select_one,
        label="Designs as lines through their knobs and objectives",
    )
    notes = []
    if len(there.values) > MOST_LINES:
        notes.append(
            f"{MOST_LINES:,} of {len(there.values):,} designs are drawn, and the frontier."
        )
    missing = set(front) - set(there.values.index)
    if missing:
        notes.append(f"{len(missing)} of the frontier's designs were not measured at this rung.")
    if notes:
        st.caption(" ".join(notes))


def common_knobs(there: AtRung) -> list[str]:
    """The first axes: at most MOST_AXES knobs that at least half of the designs have."""
    have = there.knobs.notna().mean()
    return [name for name in there.knobs.columns if have[name] >= 0.5][:MOST_AXES]


def draw_fronts(context: Context, reading: Reading) -> None:
    """A front for each method."""
    st.subheader(
        "The frontier of each method",
        help="Each method's best trade-offs among its own designs that were measured at the top "
        "rung (their number in brackets). Large points are on the study's frontier. A method with "
        "few designs has had few chances. Click a point to select its design.",
    )
    figure = drawn(context, reading, ("fronts",), lambda: fronts_figure(reading, "fronts"))
    if json.loads(figure)["data"]:
        live_chart(
            figure,
            f"why-fronts-{reading.study.id}",
            HEIGHT,
            on_click=select_one,
            label="The frontier of each method",
        )
    else:
        st.info("No design has finished at the top rung yet. Fronts appear here when some have.")
