"""The frontier: quality against cost, and whatever else is to be minimised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

import streamlit as st

from dashboard import below, controls, links
from dashboard.charts import live_chart
from dashboard.context import Context, follow, once
from dashboard.data.reading import Reading
from dashboard.figures.looks import Style
from dashboard.figures.points import Points, points
from dashboard.figures.references import dense_reference, preset_names
from dashboard.figures.runs import runs
from dashboard.figures.scatter import MOST_WEAK, Drawn, scatter
from dashboard.headline import draw_headline, noise_words
from dashboard.past import draw_past
from dashboard.selection import draw_selection
from dashboard.text import verbatim
from dashboard.trial_table import draw_table
from dashboard.view import View, draw_controls, looks_of, view_of
from nas.store import StudyState

_HEIGHT = 520
_RUNS_HEIGHT = 430


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    reading = context.reading()
    st.title(verbatim(reading.study.name))
    once(board, context)
    follow(context, reading.stamp)


def board(context: Context) -> None:
    """The chart, and every panel that follows its selection."""
    reading = context.reading()
    draw_headline(context, reading)
    if reading.trials.empty:
        st.info(_no_trial(reading))
        return
    st.subheader("Quality against cost")
    above = None if _nothing_measured(reading, reading) else st.container(key="front-controls")
    chart, chosen, past = st.container(), st.container(), st.container()
    if links.get("at"):  # all panels show the moment that is chosen there
        with past:
            then = draw_past(context, reading)
        with chart:
            draw_front(context, reading, then)
    else:  # what readers look for is there first
        whole = True
        if above is not None and not _points(context, reading, view_of(reading)).frame.empty:
            with above:  # before the chart: a container has no room while nothing is in it
                whole = below.reached(_key(reading))
        with chart:
            draw_front(context, reading, reading)
        if not whole:
            links.publish()
            return
        with past:
            then = draw_past(context, reading)
    if above is not None:
        with above:
            draw_controls(reading)
    with chosen:
        draw_selection(context, then)
    draw_runs(context, then)
    draw_table(context, then)
    links.publish()


def _no_trial(reading: Reading) -> str:
    if reading.study.state is not StudyState.RUNNING:
        return "No trial was started. Start another study with: `nas launch STUDY.yaml`"
    return (
        "No trial has started yet: the first appears within seconds of the launch. "
        f"Follow the study with: `nas status {reading.study.name}`"
    )


def draw_front(context: Context, now: Reading, reading: Reading) -> None:
    """The scatter, or in words why there is none.

    reading: `now`, or the study as it stood once, on the axes that it has now.
    """
    nothing = _nothing_measured(now, reading)
    if nothing:
        st.info(nothing)
        return
    _draw_scatter(context, now, reading, view_of(now))


def _nothing_measured(now: Reading, reading: Reading) -> str:
    """Why there is no scatter; "" where there is one."""
    if reading.evaluations["bits_per_byte"].notna().any():
        return ""
    if reading is not now:
        return "Nothing had been measured then. Move the slider below to the right."
    if reading.study.state is not StudyState.RUNNING:
        return (
            "No design of this study finished; the table below says why. "
            "Start another with: `nas launch STUDY.yaml`"
        )
    return (
        "No design has finished yet. Points appear here as designs are measured; "
        f"follow the study with: `nas status {reading.study.name}`"
    )


def _draw_scatter(context: Context, now: Reading, reading: Reading, view: View) -> None:
    selected = links.selected()
    found = _points(context, reading, view)
    if found.frame.empty:
        st.info(
            "No design has been measured at this rung yet. Choose a lower one under *Measured at*, "
            "or wait: designs reach the top when they are promoted."
        )
        return
    outside = frozenset(selected) & frozenset(found.frame.index)
    drawn, figure = context.source.once(
        ("scatter", reading.stamp, view, _thin(found, outside)),
        lambda: _figure(reading, view, found, outside, _reach(context, now, reading, view)),
    )

    def select(numbers: Sequence[int]) -> None:
        if len(numbers) > links.MOST_SELECTED:  # a link has room for the best of them
            order = {n: place for place, n in enumerate(_by_rank(found))}
            numbers = sorted(numbers, key=lambda n: order.get(n, len(order)))
        controls.select(numbers)

    live_chart(
        figure,
        _key(reading),
        _HEIGHT,
        first=True,
        on_select=select,
        selected=selected,
        label=f"Scatter of {found.axes[0].title} against {found.axes[1].title}: "
        f"{len(found.frame):,} designs, {int(found.frame['front'].sum())} on the front. "
        "The list of designs below selects without a mouse.",
    )
    st.caption(_caption(reading, view, drawn))


def _key(reading: Reading) -> str:
    return f"front-{reading.study.id}"


def _points(context: Context, reading: Reading, view: View) -> Points:
    study, trials, evaluations = reading.study, reading.trials, reading.evaluations
    make = partial(points, study, trials, evaluations, reading.bounds, view.axes, view.rung)
    return context.source.once(("points", reading.stamp, view.axes, view.rung), make)


def _reach(
    context: Context, now: Reading, reading: Reading, view: View
) -> Mapping[str, tuple[float, float]]:
    """How far the axes go at least: in the past as far as now, so that points move and not axes."""
    if reading is now:
        return {}
    frame = _points(context, now, view).frame
    names = {"y": view.axes[0], "x": view.axes[1]}
    return {at: (float(frame[n].min()), float(frame[n].max())) for at, n in names.items()}


def _thin(found: Points, selected: frozenset[int]) -> frozenset[int]:
    """The selected trials that a figure must keep: none where it leaves nothing out, so that the
    same figure serves every selection."""
    return selected if len(found.frame) - len(found.front) > MOST_WEAK else frozenset()


def _figure(
    reading: Reading,
    view: View,
    found: Points,
    selected: frozenset[int],
    reach: Mapping[str, tuple[float, float]],
) -> tuple[Drawn, str]:
    study = reading.study
    colour, shape = looks_of(view, reading, found.frame)
    of_study = view.rung is None and set(view.axes) == set(study.objectives)
    names = preset_names(reading.trials)
    style = Style(
        colour=colour,
        shape=shape,
        log=view.log,
        weak=view.weak,
        chances=reading.chances if of_study else {},
        names=dict(zip(map(int, names.index), names, strict=True)),
        dense_trial=dense_reference(study, reading.trials, reading.specs),
        keep=selected,
        reach=reach,
    )
    paused = reading.trials[reading.trials["status"] == "paused"]
    drawn = scatter(study, found, style, paused if view.rung is None else paused.iloc[:0])
    return drawn, json.dumps(drawn.figure)


def _by_rank(found: Points) -> Sequence[int]:
    """The trials, those on the front first, then by the first axis."""
    rows = found.frame.sort_values(["front", found.axes[0].name], ascending=[False, True])
    return list(rows.index)


def _caption(reading: Reading, view: View, drawn: Drawn) -> str:
    parts = [
        "Click a point, or draw a box or a lasso around several (tools at the chart's top right): "
        "the panels below follow. Shift-click adds one, Escape selects none. "
        "Solid points are on the front of these axes, faded ones are beaten on all of them."
    ]
    if reading.bounds:
        parts.append("Hollow grey ones break a bound as they were measured.")
    if view.rung is None and set(view.axes) == set(reading.study.objectives):
        parts.append(
            "A percentage is the probability of being on the frontier; its bar is the standard "
            "error of the difference to the next design on it, measured on the same windows."
        )
    elif view.axes[0] == "bits_per_byte":
        parts.append(f"Bars are one standard error, {noise_words(reading.study)}.")
    if (reading.trials["status"] == "paused").any() and view.rung is None:
        parts.append("Paused designs trained less and do not compare: the legend shows them.")
    if drawn.weak[0] < drawn.weak[1]:
        parts.append(f"**{drawn.weak[0]:,} of {drawn.weak[1]:,} beaten designs are drawn.**")
    return " ".join(parts)


def draw_runs(context: Context, reading: Reading) -> None:
    """The runs over the rungs, of a study that has several."""
    if reading.study.rungs == 1 or not reading.evaluations["bits_per_byte"].notna().any():
        return
    st.subheader("Runs over the rungs")
    selected = links.selected()
    figure = context.source.once(
        ("runs", reading.stamp, selected),
        lambda: json.dumps(runs(reading.study, reading.trials, reading.evaluations, selected)),
    )
    live_chart(
        figure,
        f"runs-{reading.study.id}",
        _RUNS_HEIGHT,
        on_select=controls.select,
        selected=selected,
        label="Bits per byte of each run at each rung it came to, a line a run.",
    )
    st.caption(
        "A line is a run, measured at each rung it came to. Thick: selected designs and those on "
        "the Pareto frontier. Faint: runs that paused below the top rung. A point without a line "
        "at the top rung is a further seed, which goes there at once."
    )
