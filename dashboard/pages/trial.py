"""One design: what it is, what it costs, how it trained, and how its experts are used."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import streamlit as st

from dashboard import below, controls, links
from dashboard.charts import live_chart
from dashboard.context import Context, again, follow, once
from dashboard.data.detail import (
    SubLayer,
    cost_frame,
    evaluations_of,
    outcome_frame,
    routing,
    routing_frame,
    runs_frame,
    spec_frame,
    spec_text,
)
from dashboard.data.reading import Reading
from dashboard.figures.layer import layer_picture
from dashboard.figures.load import activity, load_map
from dashboard.picture import picture
from dashboard.text import design_words, verbatim
from dashboard.trial_log import draw_log
from nas.store import TrialRecord
from nas.views.curves import curves_data, run_curves
from search_space.backbone import Backbone
from search_space.contract import Status
from search_space.errors import InputError
from search_space.placement import placed

_CURVES_HEIGHT = 380
_ROW = 35  # pixels of a table's row


def draw(context: Context) -> None:
    """The page."""
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    once(detail, context)
    follow(context, context.reading().stamp)


def detail(context: Context) -> None:
    """The chosen trial."""
    reading = context.reading()
    if reading.trials.empty:
        st.title("Trial")
        st.info(
            "This study has no trials yet: the first appears within seconds of its launch. "
            f"Follow it with: `nas status {reading.study.name}`"
        )
        return
    number = controls.pick_one(reading, "Trial", f"trial-{reading.study.id}", best_of(reading))
    links.publish()
    trial = context.source.trial(reading.study.id, number)
    st.header(f"#{number} {design_words(trial.spec.label)}")
    _failures(reading, number)
    _what_it_is(context, reading, trial)
    drawn = _training(context, reading, trial)
    if drawn and not below.reached(_curves_key(reading)):
        return
    _how_it_did(context, reading, trial)
    _experts(reading, trial)
    draw_log(context, trial)


def best_of(reading: Reading) -> int:
    """The best trial, else the first."""
    trials = reading.trials
    kept = trials[(trials["status"] == "finished") & (trials["infeasible"].astype(str) == "")]
    quality = kept["bits_per_byte"].dropna().astype(float)
    return int(cast(int, trials.index[0] if quality.empty else quality.idxmin()))


def _failures(reading: Reading, number: int) -> None:
    """What went wrong, before anything else."""
    own = reading.of_trial(number)
    for row in own[own["error"] != ""].to_dict("records"):
        where = f" at rung {row['rung']}" if reading.study.rungs > 1 else ""
        st.error(f"{row['status']}{where}: {verbatim(row['error'])}")
    if reading.trials.at[number, "infeasible"]:
        st.warning(
            "This design is on no frontier: it breaks a bound of the study as it was measured, "
            f"{verbatim(str(reading.trials.at[number, 'infeasible']))}."
        )


def _what_it_is(context: Context, reading: Reading, trial: TrialRecord) -> None:
    """The picture, the fields, the text to copy."""
    study = reading.study
    drawn, facts = st.columns([8, 5])
    with drawn:
        st.subheader("The layer")
        try:
            backbone = Backbone.from_dict(study.config.get("backbone") or {})
            shown = layer_picture(trial.spec, backbone)
        except InputError as error:
            st.info(f"This study's backbone cannot be drawn: {verbatim(str(error))}")
        else:
            picture(shown.svg, f"picture-{study.id}")
            st.caption(shown.words)
    with facts:
        st.subheader("The design")
        # What colours the text is a third of the page's scripts: for who opens the tab.
        fields, text = st.tabs(
            ["Fields", "Text to copy"], key=f"design-{study.id}", on_change="rerun"
        )
        frame = spec_frame(study, trial.spec)
        frame["field"] = frame["field"].str.replace("· ", "·\u00a0")  # a name keeps its dot
        fields.table(frame, hide_index=True)
        if text.open:
            text.code(spec_text(trial.spec), language="yaml")
            text.caption("Paste it into a study file: that study then tries this design first.")


def _training(context: Context, reading: Reading, trial: TrialRecord) -> bool:
    """The curves; whether there is a chart that stays as it is."""
    st.subheader("Training")
    own = evaluations_of(reading, trial.number)
    if any(each.status is Status.RUNNING for each in own):
        again(_curves, context, trial)
        return False
    return _curves(context, trial, first=True)


def _how_it_did(context: Context, reading: Reading, trial: TrialRecord) -> None:
    """Every run, then outcome and costs."""
    study = reading.study
    frame = runs_frame(reading, trial.number)
    number = st.column_config.NumberColumn
    date = st.column_config.DatetimeColumn
    hidden = set() if frame["error"].any() else {"error"}
    hidden |= set() if frame["losses"].any() else {"losses"}
    st.dataframe(
        frame,
        hide_index=True,
        key=f"evaluations-{study.id}",
        placeholder="",
        column_order=[name for name in frame.columns if name not in hidden],
        column_config={
            "seed": number("seed", width="small"),
            "until_flops": number("training FLOPs up to", format="scientific"),
            "attempt": number("attempt", help="How often a worker took it up"),
            "losses": number("workers lost"),
            "bits_per_byte": number("bits/byte", format="%.4f"),
            "flops": number("FLOPs spent", format="scientific"),
            "seconds": number("seconds", format="%.1f"),
            "created_at": date("began (UTC)", format="YYYY-MM-DD HH:mm:ss"),
            "ended_at": date("ended (UTC)", format="YYYY-MM-DD HH:mm:ss"),
        },
    )
    st.caption(
        "A row is an evaluation: a run, which is this design with one seed, brought to a rung and "
        "measured there. What was said during each is in the log at the end of the page."
    )
    outcome, costs = st.columns([6, 5])
    with outcome:
        st.subheader("Outcome")
        found = outcome_frame(reading, trial)
        st.dataframe(found, hide_index=True, key=f"outcome-{study.id}", height="content")
    with costs:
        st.subheader("Costs")
        found = cost_frame(trial)
        st.dataframe(found, hide_index=True, key=f"costs-{study.id}", height="content")
        st.caption(
            "Counted in closed form before the training. Measured: where the data decide how many "
            "experts a token reads, the active FLOPs with what they did decide."
        )


def _curves(context: Context, trial: TrialRecord, first: bool = False) -> bool:
    """The curves of the trial's runs; whether there are any.

    first: what is below waits for them.
    """
    reading = context.reading()
    study, own = reading.study, evaluations_of(reading, trial.number)
    curves = {each.id: context.source.curve(each.id) for each in own}
    if not any(curves.values()):
        st.info(
            "This trial has reported no training loss yet. Its curve appears here as it trains."
        )
        return False
    runs = run_curves(study, trial, own, curves)
    # The design is named above: a line is its seed.
    runs = [replace(run, name=f"seed {run.parts[0][0].seed}") for run in runs]
    figure = curves_data(study, runs)
    # Another trial is another curve: its own zoom.
    figure["layout"] |= {"uirevision": f"curve-{trial.id}", "showlegend": len(runs) > 1}
    figure["layout"] |= rung_lines({each.rung: each.until_flops for each in own}, study.rungs)
    live_chart(
        json.dumps(figure),
        _curves_key(reading),
        _CURVES_HEIGHT,
        first=first,
        label=f"Training loss of trial {trial.number} against its training FLOPs, a line a seed.",
    )
    st.caption(
        "A line is a run's trunk through its rungs and the branch of the last one; thin lines are "
        "the branches of lower rungs, which were measured and dropped. Dotted: the rungs."
        if study.rungs > 1
        else "A line is a run, a training of this design with one seed."
    )
    return True


def _curves_key(reading: Reading) -> str:
    return f"curve-{reading.study.id}"


def rung_lines(levels: dict[int, float], rungs: int) -> dict[str, object]:
    """A dotted line at each rung's level, with its number above."""
    if rungs == 1:
        return {}
    line = {"type": "line", "yref": "y domain", "y0": 0, "y1": 1, "layer": "below"}
    line |= {"line": {"dash": "dot", "width": 1, "color": "#888888"}}
    note = {"yref": "y domain", "y": 1, "yanchor": "bottom", "showarrow": False}
    note |= {"font": {"size": 11, "color": "#888888"}}
    return {
        "shapes": [line | {"x0": flops, "x1": flops} for flops in levels.values()],
        "annotations": [
            note | {"x": flops, "text": f"rung {rung}"} for rung, flops in levels.items()
        ],
    }


def _experts(reading: Reading, trial: TrialRecord) -> None:
    """Load, usage and activity, as one batch of validation windows showed them."""
    study, noted = reading.study, routing(trial)
    st.subheader("How the experts are used")
    if not noted:
        st.info(
            "Nothing was noted of this design's experts: a design is looked at when it has been "
            "measured. Choose a finished one."
        )
        return
    several = any(len(each.load) > 1 for each in noted)
    if several:
        _load(study.id, noted, trial.number)
    else:
        st.info("Each sub-layer has one expert, which every token reads: there is no load to show.")
    shares = list(trial.result.activity) if trial.result is not None else []
    table, bars = st.columns([7, 4])
    number = st.column_config.NumberColumn
    with table:
        st.dataframe(
            routing_frame(noted),
            hide_index=True,
            key=f"routing-{study.id}",
            placeholder="",
            column_config={
                "active": number(format="percent", help="Share of experts that a token reads"),
                "usage": number(format="percent", help="Share of experts that any token read"),
                "unevenness": number(
                    format="%.3f", help="Of the weights' shares; 0 where all experts weigh alike"
                ),
                "near_zero": number(
                    "near zero", format="percent", help="Share of activations below 0.1"
                ),
            },
        )
    if shares and several:
        with bars:
            names = layer_names(trial, study.config, len(shares))
            counted = trial.spec.granularity / trial.spec.n_experts
            live_chart(
                json.dumps(activity(shares, names, counted)),
                f"activity-{study.id}",
                260,
                label="Share of its experts that a token reads, a bar a layer: "
                + ", ".join(f"layer {n} {s:.0%}" for n, s in zip(names, shares, strict=True)),
            )


def _load(study: int, noted: list[SubLayer], number: int) -> None:
    live_chart(
        json.dumps(load_map(noted)),
        f"load-{study}",
        130 + 34 * len(noted),
        label=f"Heat map of the load of trial {number}'s experts, a row a sub-layer.",
    )
    st.caption(
        "A cell is an expert's share of the reads over an even share: 1 is even, 0 is an expert "
        "that nothing reads. On one batch of validation windows."
    )


def layer_names(trial: TrialRecord, config: dict[str, object], count: int) -> list[str]:
    """The places of the layers that have the design."""
    backbone = config.get("backbone")
    layers = int(backbone.get("n_layers", 0)) if isinstance(backbone, dict) else 0
    try:
        own = [str(at) for at, has in enumerate(placed(trial.spec.placement, layers)) if has]
    except InputError:
        own = []
    return own if len(own) == count else [str(at) for at in range(count)]
