"""The page's parts, from top to bottom; each draws one thing from a snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import streamlit as st
from pandas import DataFrame
from streamlit.delta_generator import DeltaGenerator

from dashboard.charts import live_chart
from dashboard.data.snapshot import (
    Headline,
    Snapshot,
    evaluation_frame,
    headline,
    outcome_frame,
    spec_frame,
    trial_frame,
)
from dashboard.data.source import Source
from dashboard.text import verbatim
from nas.search.bounds import excess
from nas.search.objectives import OBJECTIVES, shown_objectives
from nas.search.pareto import best
from nas.store import EvaluationRecord, TrialRecord
from nas.views.curves import RunCurve, curves_data, run_curves
from nas.views.pareto import pareto_data
from nas.views.runs import runs_data
from nas.views.style import si
from search_space.contract import Status

_PARETO_HEIGHT = 470
_RUNS_HEIGHT = 430
_LIVE_HEIGHT = 330
_DETAIL_HEIGHT = 440
Live = Callable[..., None]  # calls a function with its arguments, again and again


def draw_headline(source: Source, snapshot: Snapshot) -> None:
    """The study in five numbers."""
    head: Headline = source.once(("headline", snapshot.stamp), lambda: headline(snapshot))
    designs, flops, quality, front, volume = st.columns([5, 4, 5, 3, 3])
    others = [
        f"{count} {word}"
        for count, word in (
            (head.running, "running"),
            (head.paused, "paused"),
            (head.infeasible, "infeasible"),
            (head.failed, "failed"),
            (head.stopped, "stopped"),
        )
        if count
    ]
    _metric(
        designs,
        "Designs finished",
        str(head.finished),
        ", ".join(others) or "none running",
        "Designs that were measured at the study's full training FLOPs, the top rung. Paused ones "
        "were measured at a lower rung, and go on when they are promoted.",
    )
    share = f"{head.spent / head.budget:.0%} of {si(head.budget)}"
    _metric(flops, "Training FLOPs spent", si(head.spent), share)
    error = f"± {head.best_noise:.3f}" if head.best_noise is not None else None
    seeds = f"{head.best_seeds} seeds" if head.best_seeds > 1 else None
    baseline = f"{verbatim(head.ngram[0])}-gram: {head.ngram[1]:.3f}" if head.ngram else None
    _metric(
        quality,
        "Best bits per byte",
        "-" if head.best is None else f"{head.best:.3f}",
        ", ".join(filter(None, (error, seeds, baseline))) or None,
        f"On the validation split, lower is better; with one standard error, {_noise(snapshot)}, "
        "beside the best n-gram model of the same text.",
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
            "No design has finished yet. Points appear here as designs reach the top rung; "
            "follow the study with: `nas status " + snapshot.study.name + "`"
            if not snapshot.ended
            else "No design of this study finished; the table below says why. "
            "Start another with: `nas launch STUDY.yaml`"
        )
        return

    chosen = _chosen(snapshot)
    figure = source.once(
        ("pareto", snapshot.stamp, chosen),
        lambda: json.dumps(pareto_data(snapshot.study, snapshot.trials, chosen)),
    )
    live_chart(figure, f"pareto-{snapshot.study.id}", _PARETO_HEIGHT, _chooser(snapshot))
    hollow = "hollow ones break a bound as they were measured; " if snapshot.bounds else ""
    paused = any(trial.status is Status.PAUSED for trial in snapshot.trials)
    st.caption(
        "Click a point to see its design. Solid points are on the Pareto frontier of all the "
        f"study's objectives, faded ones are dominated; {hollow}bars are one standard error, "
        f"{_noise(snapshot)}."
        + (
            " Designs that are paused trained less and do not compare: the legend shows them."
            if paused
            else ""
        )
    )


def draw_runs(source: Source, snapshot: Snapshot) -> None:
    """The runs over the rungs, of a study that has several."""
    measured = any(each.bits_per_byte is not None for each in snapshot.evaluations.values())
    if snapshot.study.rungs == 1 or not measured:
        return
    st.subheader("Runs over the rungs")
    chosen = _chosen(snapshot)
    evaluations = snapshot.evaluations.values()
    figure = source.once(
        ("runs", snapshot.stamp, chosen),
        lambda: json.dumps(runs_data(snapshot.study, snapshot.trials, evaluations, chosen)),
    )
    live_chart(figure, f"runs-{snapshot.study.id}", _RUNS_HEIGHT, _chooser(snapshot))
    st.caption(
        "A line is a run, measured at each rung it came to. Thick: designs on the Pareto frontier. "
        "Faint: runs that paused below the top rung. A point without a line at the top rung is a "
        "further seed, which goes there at once."
    )


def draw_detail(source: Source, snapshot: Snapshot, live: Live) -> None:
    """The chosen trial: its design, its outcome, its curves, which are `live` while one runs."""
    if not snapshot.trials:
        return
    st.subheader("Design")
    trials = {trial.number: trial for trial in snapshot.trials}
    key = _choice_key(snapshot)
    st.session_state[key] = _chosen(snapshot)
    labels = source.once(("labels", snapshot.stamp), lambda: _labels(snapshot))
    trial = trials[st.selectbox("Trial", list(trials), key=key, format_func=labels.__getitem__)]
    own = snapshot.by_trial.get(trial.number, [])
    for each in own:
        if each.error:
            where = f" at rung {each.rung}" if snapshot.study.rungs > 1 else ""
            st.error(f"{each.status}{where}: {verbatim(each.error)}")
    if excess(trial, snapshot.bounds):
        st.warning(
            "This design is on no frontier: it breaks a bound of the study as it was measured."
        )
    spec, outcome, curve = st.columns([3, 4, 6])
    _facts(spec, spec_frame(snapshot.study, trial), f"spec-{key}")
    _facts(outcome, outcome_frame(snapshot, trial), f"outcome-{key}")
    with curve:
        if any(each.status is Status.RUNNING for each in own):
            live(_draw_live_curves, source, snapshot.study.name, trial)
        else:
            _draw_curves(source, snapshot, trial)
    _draw_evaluations(own, f"evaluations-{key}")


def draw_running(snapshot: Snapshot) -> None:
    """The running evaluations with the curves of their runs."""
    running = snapshot.running
    if not running:
        return
    st.subheader(f"Running: {_plural(len(running), 'evaluation', count=True)}")
    figure = json.dumps(curves_data(snapshot.study, _running_curves(snapshot)))
    live_chart(figure, f"live-{snapshot.study.id}", _LIVE_HEIGHT)
    columns = st.columns(min(4, len(running)))
    for i, each in enumerate(running):
        points = snapshot.live[each.id]
        last = points[-1] if points else None
        done = min(1.0, last.step / last.steps) if last and last.steps else 0.0
        words = f"step {last.step} of {last.steps}, loss {last.loss:.3f}" if last else "starting"
        rung = f"rung {each.rung}, " if snapshot.study.rungs > 1 else ""
        seed = f"seed {each.seed}, " if each.seed != snapshot.study.seed else ""
        columns[i % len(columns)].progress(done, f"**#{each.trial}** {rung}{seed}{words}")


def _running_curves(snapshot: Snapshot) -> list[RunCurve]:
    trials = {trial.number: trial for trial in snapshot.trials}
    found = []
    for each in snapshot.running:
        own = [one for one in snapshot.by_trial[each.trial] if one.seed == each.seed]
        found += run_curves(snapshot.study, trials[each.trial], own, snapshot.live)
    return found


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
    shown = shown_objectives(snapshot.study.objectives, "table")
    costs = [each for each in shown if each.name != "bits_per_byte"]
    hidden = OBJECTIVES.keys() - {each.name for each in shown}
    hidden |= {"source", "bits_per_byte_se"}
    hidden |= set() if snapshot.bounds else {"infeasible"}
    hidden |= set() if snapshot.study.rungs > 1 else {"rung"}
    st.dataframe(
        frame,
        hide_index=True,
        key=f"trials-{snapshot.study.id}",
        placeholder="",
        column_order=[name for name in frame.columns if name not in hidden],
        column_config={
            "trial": number("trial", width="small", pinned=True),
            "bits_per_byte": number("bits/byte", format="%.4f"),
            "noise": number("± noise", format="%.4f"),
            "p_frontier": number(
                "p frontier", format="%.2f", help="Probability of being on the Pareto frontier"
            ),
            "vs_cheaper": st.column_config.TextColumn(
                "vs cheaper",
                help="Bits per byte less those of the frontier's next cheaper design, with one "
                "standard error: both were measured on the same windows",
            ),
            **{each.name: number(each.column, format="localized") for each in costs},
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


def _draw_live_curves(source: Source, study: str, trial: TrialRecord) -> None:
    _draw_curves(source, source.snapshot(study), trial)


def _draw_curves(source: Source, snapshot: Snapshot, trial: TrialRecord) -> None:
    own = snapshot.by_trial.get(trial.number, [])
    curves = {each.id: snapshot.live.get(each.id) or source.curve(each.id) for each in own}
    if not any(curves.values()):
        st.info("This trial has reported no training loss yet.")
        return
    runs = run_curves(snapshot.study, trial, own, curves)
    # The design is named above: a line is its seed.
    runs = [replace(run, name=f"seed {run.parts[0][0].seed}") for run in runs]
    figure = curves_data(snapshot.study, runs)
    # Another trial is another curve: its own zoom.
    more = {"uirevision": f"curve-{trial.id}", "showlegend": len(runs) > 1}
    figure["layout"] |= more
    live_chart(json.dumps(figure), f"curve-{snapshot.study.id}", _DETAIL_HEIGHT)


def _draw_evaluations(evaluations: list[EvaluationRecord], key: str) -> None:
    frame = evaluation_frame(evaluations)
    number = st.column_config.NumberColumn
    st.dataframe(
        frame,
        hide_index=True,
        key=key,
        placeholder="",
        column_order=[name for name in frame.columns if name != "error" or any(frame["error"])],
        column_config={
            "seed": number("seed", width="small"),
            "until_flops": number("training FLOPs up to", format="scientific"),
            "bits_per_byte": number("bits/byte", format="%.4f"),
            "flops": number("FLOPs spent", format="scientific"),
            "seconds": number("seconds", format="%.1f"),
        },
    )


def _chooser(snapshot: Snapshot) -> Callable[[int], None]:
    def choose(number: int) -> None:
        st.session_state[_choice_key(snapshot)] = number

    return choose


def _noise(snapshot: Snapshot) -> str:
    """What the noise of a measure is made of; see `nas.views.noise`."""
    if snapshot.study.deviation is None:
        return "over the validation windows of one seed"
    return f"of the mean over seeds, one of which deviates by {snapshot.study.deviation:.4f}"


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
