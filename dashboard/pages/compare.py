"""Two to six designs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from dashboard import controls, links
from dashboard.charts import live_chart
from dashboard.context import Context, follow, once
from dashboard.data.compared import Side, differences, sides
from dashboard.data.reading import Reading
from dashboard.figures.forest import forest
from dashboard.selection import MOST_COMPARED
from dashboard.text import verbatim
from nas.views.comparison import Comparison
from nas.views.curves import curves_data, run_curves
from search_space.errors import InputError

_CURVES_HEIGHT = 400


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    st.title("Compare designs")
    once(compared, context)
    follow(context, context.reading().stamp)


def compared(context: Context) -> None:
    """The chosen designs."""
    reading = context.reading()
    chosen = controls.pick(
        reading,
        f"Designs: the others are compared with the first, two to {MOST_COMPARED} of them",
        f"compared-{reading.study.id}",
        most=MOST_COMPARED,
    )
    links.publish()
    chosen = [number for number in chosen if number in reading.trials.index][:MOST_COMPARED]
    if len(chosen) < 2:
        st.info(
            "Choose two designs or more: here, or on the *Frontier* page by a box around points."
        )
        return
    found = sides(reading, context.source, chosen)
    _paired(context, reading, chosen)
    st.subheader("What they differ in")
    only = st.toggle("Only what differs", value=True, key=f"differing-{reading.study.id}")
    for title, rows in (("Knobs", "knobs"), ("Costs and outcome", "figures")):
        frame = differences(found, rows)
        _table(
            frame[frame["differs"] != ""] if only else frame, found, f"{rows}-{reading.study.id}"
        )
        if only and (frame["differs"] == "").all():
            st.caption(f"{title}: all are alike.")
    _curves(context, reading, found)


def _paired(context: Context, reading: Reading, chosen: Sequence[int]) -> None:
    """Each of the others against the first, on the windows that both were measured on."""
    st.subheader(f"Paired differences to #{chosen[0]}")
    compared, refused = paired(context, reading, chosen)
    if compared:
        live_chart(
            json.dumps(forest(compared)),
            f"forest-{reading.study.id}",
            120 + 44 * len(compared),
            label="Differences in bits per byte, with 95% intervals: "
            + "; ".join(each.sentence for each in compared),
        )
        for each in compared:
            st.markdown(f"- {each.sentence}")
        st.caption(
            "Both designs of a pair were measured on the same windows, so their difference has an "
            "error of its own, much smaller than each one's. A bar is the 95% interval, windows "
            "and seeds included; a hollow mark is not told apart from the first design."
        )
    for line in refused:
        st.info(verbatim(line))


def paired(
    context: Context, reading: Reading, chosen: Sequence[int]
) -> tuple[list[Comparison], list[str]]:
    """The comparisons, and a line for each that no number makes."""
    first, *others = chosen
    made, refused = [], []
    for number in others:
        make = partial(context.source.compare, reading.study.name, number, first)
        try:
            made.append(context.source.once(("paired", reading.stamp, first, number), make))
        except InputError as error:
            refused.append(str(error))
    return made, refused


def _table(frame: pd.DataFrame, found: Sequence[Side], key: str) -> None:
    """A row a knob or a figure, a column a design."""
    if frame.empty:
        return
    names = (frame["differs"] + " " + frame["what"]).str.strip()
    st.dataframe(
        frame.assign(what=names).drop(columns="differs"),
        hide_index=True,
        key=key,
        placeholder="",
        height="content",
        column_config={
            "what": st.column_config.TextColumn(" ", help="≠: not all are alike"),
            **{side.name: st.column_config.TextColumn(side.name) for side in found},
        },
    )


def _curves(context: Context, reading: Reading, found: Sequence[Side]) -> None:
    """The first run of each, over each other."""
    st.subheader("Training loss")
    runs = []
    for side in found:
        own = [each for each in side.evaluations if each.seed == side.evaluations[0].seed]
        curves = {each.id: context.source.curve(each.id) for each in own}
        if any(curves.values()):
            runs += run_curves(reading.study, side.trial, own, curves)
    if not runs:
        st.info("None of these designs has reported a training loss yet.")
        return
    live_chart(
        json.dumps(curves_data(reading.study, runs)),
        f"curves-{reading.study.id}",
        _CURVES_HEIGHT,
        label="Training loss of the compared designs against their training FLOPs.",
    )
