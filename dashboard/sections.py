"""What is left of the one long page: what is running, until its own page has it."""

from __future__ import annotations

import json

import streamlit as st

from dashboard.charts import live_chart
from dashboard.data.snapshot import Snapshot
from nas.views.curves import RunCurve, curves_data, run_curves

_LIVE_HEIGHT = 330


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


def _plural(n: int, word: str, count: bool = False) -> str:
    text = word if n == 1 else f"{word}s"
    return f"{n} {text}" if count else text
