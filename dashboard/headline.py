"""The study in five numbers, at the head of a page."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.context import Context
from dashboard.data.headline import Headline, headline
from dashboard.data.reading import Reading
from dashboard.metric import draw_metric
from dashboard.text import verbatim
from nas.store import StudyRecord
from nas.views.style import si


def draw_headline(context: Context, reading: Reading) -> None:
    """The study in five numbers."""
    study, source = reading.study, context.source
    head: Headline = source.once(("headline", reading.stamp), lambda: headline(reading))
    row = st.container(horizontal=True, gap="small", key="headline")
    draw = partial(draw_metric, row, width="content")
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
    draw(
        "Designs finished",
        str(head.finished),
        ", ".join(others) or "none running",
        "Designs that were measured at the study's full training FLOPs, the top rung. Paused ones "
        "were measured at a lower rung, and go on when they are promoted.",
    )
    share = f"{head.spent / head.budget:.0%} of {si(head.budget)}"
    draw("Training FLOPs spent", si(head.spent), share)
    error = f"± {head.best_noise:.3f}" if head.best_noise is not None else None
    seeds = f"{head.best_seeds} seeds" if head.best_seeds > 1 else None
    baseline = f"{verbatim(head.ngram[0])}-gram: {head.ngram[1]:.3f}" if head.ngram else None
    draw(
        "Best bits per byte",
        "-" if head.best is None else f"{head.best:.3f}",
        ", ".join(filter(None, (error, seeds, baseline))) or None,
        f"On the validation split, lower is better; with one standard error, {noise_words(study)}, "
        "beside the best n-gram model of the same text.",
    )
    plural = "design" if head.frontier == 1 else "designs"
    draw("Pareto frontier", str(head.frontier), plural)
    draw(
        "Hypervolume",
        f"{head.hypervolume:.3f}",
        "higher is better",
        "Share of the box between zero and the worst value of each objective that the "
        "frontier dominates. A new worst value moves the box: compare at one time.",
    )
    if head.copying:
        st.caption(f"Note: {head.copying}.")


def noise_words(study: StudyRecord) -> str:
    """What the noise of a measure is made of; see `nas.views.noise`."""
    if study.deviation is None:
        return "over the validation windows of one seed"
    return f"of the mean over seeds, one of which deviates by {study.deviation:.4f}"
