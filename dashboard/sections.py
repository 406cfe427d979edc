"""The page's parts, from top to bottom; each draws one thing from a snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable

import streamlit as st
from pandas import DataFrame
from streamlit.delta_generator import DeltaGenerator

from dashboard.charts import live_chart
from dashboard.data import Headline, Snapshot, headline, outcome_frame, spec_frame, trial_frame
from dashboard.source import Source
from dashboard.text import verbatim
from nas.bounds import excess
from nas.figure import curves_data, pareto_data, si
from nas.pareto import best
from nas.store import TrialRecord
from search_space.contract import Progress, Status

_PARETO_HEIGHT = 470
_LIVE_HEIGHT = 330
_DETAIL_HEIGHT = 440
Live = Callable[..., None]  # calls a function with its arguments, again and again


def draw_headline(source: Source, snapshot: Snapshot) -> None:
    """The study in five numbers."""
    head: Headline = source.once(("headline", snapshot.stamp), lambda: headline(snapshot))
    trials, flops, quality, front, volume = st.columns(5)
    others = [
        f"{count} {word}"
        for count, word in (
            (head.running, "running"),
            (head.infeasible, "infeasible"),
            (head.failed, "failed"),
            (head.stopped, "stopped"),
        )
        if count
    ]
    _metric(trials, "Trials finished", str(head.finished), ", ".join(others) or "none running")
    share = f"{head.spent / head.budget:.0%} of {si(head.budget)}"
    _metric(flops, "Training FLOPs spent", si(head.spent), share)
    error = f"± {head.best_se:.3f}" if head.best_se is not None else None
    baseline = f"{verbatim(head.ngram[0])}-gram: {head.ngram[1]:.3f}" if head.ngram else None
    _metric(
        quality,
        "Best bits per byte",
        "-" if head.best is None else f"{head.best:.3f}",
        ", ".join(filter(None, (error, baseline))) or None,
        "On the validation split, lower is better; with its standard error, beside the best "
        "n-gram model of the same text.",
    )
    _metric(front, "Pareto frontier", str(head.frontier), _plural(head.frontier, "design"))
    _metric(
        volume,
        "Hypervolume",
        f"{head.hypervolume:.3f}",
        "higher is better",
        "Share of the box between zero and the worst value of each objective that the "
        "frontier dominates. A new worst value moves the box: compare at one time.",
    )


def draw_pareto(source: Source, snapshot: Snapshot) -> None:
    """The scatter; a click on a point chooses its trial."""
    st.subheader("Quality against cost")
    if not any(trial.status is Status.FINISHED for trial in snapshot.trials):
        st.info(
            "No trial has finished yet. Points appear here as trials end; "
            "follow the study with: `nas status " + snapshot.study.name + "`"
            if not snapshot.ended
            else "No trial of this study finished; the table below says why. "
            "Start another with: `nas launch STUDY.yaml`"
        )
        return

    def choose(number: int) -> None:
        st.session_state[_choice_key(snapshot)] = number

    chosen = _chosen(snapshot)
    figure = source.once(
        ("pareto", snapshot.stamp, chosen),
        lambda: json.dumps(pareto_data(snapshot.study, snapshot.trials, chosen)),
    )
    live_chart(figure, f"pareto-{snapshot.study.id}", _PARETO_HEIGHT, choose)
    hollow = "hollow ones break a bound as they were measured; " if snapshot.bounds else ""
    st.caption(
        "Click a point to see its design. Solid points are on the Pareto frontier of all the "
        f"study's objectives, faded ones are dominated; {hollow}bars are one standard error."
    )


def draw_detail(source: Source, snapshot: Snapshot, live: Live) -> None:
    """The chosen trial: its design, its outcome, its curve, which is `live` while it runs."""
    if not snapshot.trials:
        return
    st.subheader("Design")
    trials = {trial.number: trial for trial in snapshot.trials}
    key = _choice_key(snapshot)
    st.session_state[key] = _chosen(snapshot)
    labels = source.once(("labels", snapshot.stamp), lambda: _labels(snapshot))
    trial = trials[st.selectbox("Trial", list(trials), key=key, format_func=labels.__getitem__)]
    if trial.result is not None and trial.result.error:
        st.error(f"{trial.status}: {verbatim(trial.result.error)}")
    if excess(trial, snapshot.bounds):
        st.warning(
            "This design is on no frontier: it breaks a bound of the study as it was measured."
        )
    spec, outcome, curve = st.columns([3, 4, 6])
    _facts(spec, spec_frame(trial), f"spec-{key}")
    _facts(outcome, outcome_frame(trial, snapshot.bounds), f"outcome-{key}")
    with curve:
        if trial.status is Status.RUNNING:
            live(_draw_live_curve, source, snapshot.study.name, trial)
        else:
            _draw_curve(snapshot, trial, source.curve(trial.id))


def draw_running(snapshot: Snapshot) -> None:
    """The running trials with their curves."""
    running = snapshot.running
    if not running:
        return
    st.subheader(f"Running: {_plural(len(running), 'trial', count=True)}")
    figure = json.dumps(curves_data(snapshot.live, running))
    live_chart(figure, f"live-{snapshot.study.id}", _LIVE_HEIGHT)
    columns = st.columns(min(4, len(running)))
    for i, trial in enumerate(running):
        points = snapshot.live[trial.number]
        last = points[-1] if points else None
        done = min(1.0, last.step / last.steps) if last and last.steps else 0.0
        words = f"step {last.step} of {last.steps}, loss {last.loss:.3f}" if last else "starting"
        columns[i % len(columns)].progress(done, f"**#{trial.number}** {words}")


def draw_table(source: Source, snapshot: Snapshot) -> None:
    """All trials, sortable, with a CSV download."""
    heading, button = st.columns([5, 1], vertical_alignment="bottom")
    heading.subheader("Trials")
    if not snapshot.trials:
        st.info(
            "No trial was started."
            if snapshot.ended
            else "No trial has started yet: the first appears within seconds of the launch."
        )
        return
    frame = source.once(("frame", snapshot.stamp), lambda: trial_frame(snapshot))
    button.download_button(
        "Download CSV",
        source.once(("csv", snapshot.stamp), lambda: frame.to_csv(index=False)),
        file_name=f"{snapshot.study.name}.csv",
        mime="text/csv",
        key=f"csv-{snapshot.study.id}",
        on_click="ignore",
        width="stretch",
    )
    number = st.column_config.NumberColumn
    hidden = {"active_params", "source"} | (set() if snapshot.bounds else {"infeasible"})
    st.dataframe(
        frame,
        hide_index=True,
        key=f"trials-{snapshot.study.id}",
        placeholder="",
        column_order=[name for name in frame.columns if name not in hidden],
        column_config={
            "trial": number("trial", width="small", pinned=True),
            "bits_per_byte": number("bits/byte", format="%.4f"),
            "bits_per_byte_se": number("± se", format="%.4f"),
            "active_flops": number("active FLOPs/token", format="localized"),
            "total_params": number("parameters", format="localized"),
            "flops_spent": number("FLOPs spent", format="scientific"),
            "seconds": number("seconds", format="%.1f"),
        },
    )


def _metric(
    place: DeltaGenerator, label: str, value: str, note: str | None, hint: str | None = None
) -> None:
    place.metric(
        label,
        value,
        note,
        delta_color="off",
        delta_arrow="off",
        border=True,
        height="stretch",
        help=hint,
    )


def _facts(place: DeltaGenerator, frame: DataFrame, key: str) -> None:
    place.dataframe(frame, hide_index=True, height=_DETAIL_HEIGHT, key=key)


def _draw_live_curve(source: Source, study: str, trial: TrialRecord) -> None:
    snapshot = source.snapshot(study)
    _draw_curve(snapshot, trial, snapshot.live.get(trial.number) or source.curve(trial.id))


def _draw_curve(snapshot: Snapshot, trial: TrialRecord, points: list[Progress]) -> None:
    if not points:
        st.info("This trial has reported no training loss yet.")
        return
    figure = curves_data({trial.number: points}, [trial])
    # Another trial is another curve: its own zoom.
    figure["layout"] |= {"uirevision": f"curve-{trial.id}", "showlegend": False}
    live_chart(json.dumps(figure), f"curve-{snapshot.study.id}", _DETAIL_HEIGHT)


def _labels(snapshot: Snapshot) -> dict[int, str]:
    return {trial.number: f"#{trial.number}  {trial.spec.label}" for trial in snapshot.trials}


def _choice_key(snapshot: Snapshot) -> str:
    return f"trial-{snapshot.study.id}"


def _chosen(snapshot: Snapshot) -> int:
    # The best trial of the first look stays: a refresh must not change what is being read.
    number = st.session_state.get(_choice_key(snapshot))
    if number in {trial.number for trial in snapshot.trials}:
        return int(number)
    return (best(snapshot.trials, snapshot.bounds) or snapshot.trials[0]).number


def _plural(n: int, word: str, count: bool = False) -> str:
    text = word if n == 1 else f"{word}s"
    return f"{n} {text}" if count else text
