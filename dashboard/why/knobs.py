"""Which knobs matter, and how."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard.charts import live_chart
from dashboard.context import Context
from dashboard.data.at_rung import AtRung
from dashboard.data.importance import LEAST, MOST_DESIGNS, importance
from dashboard.data.reading import Reading
from dashboard.figures.importance import importance_figure, importance_height, knob_rows
from dashboard.figures.slices import heat_figure, slice_figure
from dashboard.folded import folded
from dashboard.text import verbatim
from dashboard.why.drawing import drawn, select_one
from nas.search.objectives import OBJECTIVES

HEIGHT = 460
NOTHING = "nothing: one point a design"


def draw_importance(context: Context, reading: Reading, there: AtRung) -> str | None:
    """The share of each objective that each knob explains; the key of its chart, if there is one.

    What is below waits for that chart.
    """
    st.subheader(
        "What each knob explains",
        help="How much of the differences between designs goes with a knob: of the variance of "
        "their ranks by the objective. Alone: the knob by itself, with whatever goes along with "
        "it. Beside the other knobs: what is lost without it when all others are known. A line is "
        "the 95% interval. Grey and hollow: not told from chance. What shows only in certain pairs "
        "of values is in neither; look for it in the slices below.",
    )
    designs = len(there.values)
    if designs < LEAST or there.knobs.empty:
        st.info(
            f"{designs} designs were measured here, and {LEAST} are needed before their "
            "differences say something of a knob. Wait for more, or choose a rung with more."
            if there.knobs.shape[1] or designs < 2
            else "All designs that were measured here have the same knobs."
        )
        return None
    table = context.source.once(
        # Nothing but another measure here changes it.
        ("why-table", reading.study.uid, there.rung, designs, _total(there)),
        lambda: importance(there.knobs, there.values),
    )
    knobs = knob_rows(table)
    if not knobs:
        st.info(f"No knob has {LEAST} designs yet. Wait for more designs.")
        return None
    figure = drawn(
        context, reading, ("importance", there.rung), lambda: importance_figure(table, "importance")
    )
    key = f"why-importance-{reading.study.id}"
    live_chart(
        figure,
        key,
        importance_height(len(knobs)),
        first=True,
        label="Share of each objective that each knob explains, with intervals",
    )
    rare = table[table["alone"].isna()].drop_duplicates("knob")
    notes = [
        "In brackets: designs that have the knob; it is judged among these.",
        "The search chooses what it tries, so what goes together here need not cause it.",
    ]
    if designs > MOST_DESIGNS:
        notes.append(
            f"Of more than {MOST_DESIGNS:,} designs, {MOST_DESIGNS:,} are drawn at random."
        )
    if len(rare):
        few = ", ".join(f"{row.knob} ({row.designs})" for row in rare.itertuples())
        notes.append(f"Too few designs have, or all have the same: {few}.")
    st.caption(" ".join(notes))
    folded("As a table", f"why-as-table-{reading.study.id}", lambda: _draw_table(table))
    return key


def _draw_table(table: pd.DataFrame) -> None:
    st.dataframe(_percentages(table), hide_index=True, width="stretch")


def _total(there: AtRung) -> float:
    return float(there.values["bits_per_byte"].sum())


def _percentages(table: pd.DataFrame) -> Any:
    shares = [name for name in table.columns if name.startswith(("alone", "beside"))]
    shown = table.assign(**{name: 100 * table[name] for name in shares})
    return shown.rename(columns={name: f"{name.replace('_', ' ')} (%)" for name in shares}).round(3)


def draw_slices(context: Context, reading: Reading, there: AtRung) -> None:
    """An objective over one knob or two."""
    st.subheader(
        "An objective over one knob or two",
        help="With one knob: a point a design; click one to select it. With two: the median of the "
        "designs in each cell, and how many they are. Few designs in a cell say little.",
    )
    knobs = list(there.knobs.columns)
    if not knobs:
        st.info("All designs that were measured here have the same knobs.")
        return
    places = st.columns(3)
    study = reading.study.id
    objective = places[0].selectbox(
        "Objective", list(there.values.columns), format_func=_title, key=f"why-objective-{study}"
    )
    across = places[1].selectbox("Knob", knobs, key=f"why-across-{study}")
    others = [NOTHING, *(name for name in knobs if name != across)]
    up = places[2].selectbox("and", others, key=f"why-up-{study}")
    rev = f"{objective}-{across}-{up}"
    if up == NOTHING:
        methods = reading.trials["method"]
        figure = drawn(
            context,
            reading,
            ("slice", there.rung, rev),
            lambda: slice_figure(there, objective, across, methods, rev),
        )
        live_chart(
            figure,
            f"why-slice-{study}",
            HEIGHT,
            on_click=select_one,
            label="An objective of each design over one knob",
        )
        return
    both = there.knobs[[across, up]].notna().all(axis=1)
    if not both.any():
        st.info(
            f"No design that was measured here has both {across} and {up}. Choose another pair."
        )
        return
    figure = drawn(
        context,
        reading,
        ("heat", there.rung, rev),
        lambda: heat_figure(there, objective, across, up, rev),
    )
    live_chart(
        figure,
        f"why-heat-{study}",
        HEIGHT,
        label="Median of an objective over two knobs, with numbers of designs",
    )
    if not both.all():
        st.caption(f"{int(both.sum()):,} of {len(both):,} designs have both knobs.")


def _title(objective: str) -> str:
    return OBJECTIVES[objective].title if objective in OBJECTIVES else verbatim(objective)
