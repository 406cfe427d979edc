"""What is running: each worker, its curve and its pace, what waits, what ended of late."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from dashboard import pace
from dashboard.charts import live_chart
from dashboard.context import Context, again
from dashboard.data.reading import Reading
from dashboard.data.source import Live, Source
from dashboard.data.working import Work, endings, quickest, work
from dashboard.figures.live import MOST, live_data
from dashboard.metric import draw_metric
from dashboard.text import verbatim
from nas.store import StudyState
from nas.views.style import si

HEIGHT = 360
ROW_PX, MOST_ROWS = 35, 10


def draw(context: Context) -> None:
    """The page."""
    st.title("Live")
    if context.study is None:
        st.info("No studies yet. Start one with: `nas launch STUDY.yaml`, then reload this page.")
        return
    with st.container(key="live-board"):
        again(board, context)


def board(context: Context) -> None:
    """All of it: it is drawn again together, so that its numbers agree."""
    assert context.study is not None
    source = context.source
    live = source.live(context.study.name, pace.slower())
    reading = live.reading
    # A machine's pace changes little: it is not worked out at every ending.
    best = source.once(
        ("quickest", reading.study.uid, len(reading.evaluations) // 50), lambda: quickest(reading)
    )
    now = source.once(("work", live.at), lambda: work(reading, live.curves, best))
    _numbers(reading, now)
    _runs(source, live, now)
    _endings(reading, source.once(("endings", reading.stamp), lambda: _table(endings(reading))))


def _table(frame: pd.DataFrame) -> pa.Table:
    """As it travels, so that it is made once for all readers."""
    return pa.Table.from_pandas(frame, preserve_index=False)


def _numbers(reading: Reading, now: Work) -> None:
    """Workers, throughput, queue and account."""
    ledger, count = reading.ledger, len(now.running)
    at_work, pace, queue, spent, left = st.columns(5)
    draw_metric(at_work, "At work", str(count), _plural(count, "evaluation"))
    compared = "no evaluation to compare with"
    if now.rate and now.best and count:
        compared = f"{now.rate / now.best / count:.0%} of the quickest"
    draw_metric(
        pace,
        "FLOP/s now",
        si(now.rate) if now.rate else "-",
        compared,
        "Training FLOPs a second of all that run, over their newest points. The quickest: what one "
        "evaluation of this study reached on this machine, times those that run now.",
    )
    waits = "Evaluations that were stopped: the study's driver takes them up first."
    draw_metric(queue, "Queue", str(now.waiting), "to be taken up", waits)
    share = ledger.spent / ledger.budget if ledger.budget else 0.0
    draw_metric(spent, "FLOPs spent", si(ledger.spent), f"{share:.0%} of {si(ledger.budget)}")
    free = "Training FLOPs that may still be reserved for new evaluations."
    draw_metric(
        left, "FLOPs left", si(max(0.0, ledger.left)), f"{si(ledger.reserved)} reserved", free
    )


def _runs(source: Source, live: Live, now: Work) -> None:
    reading, count = live.reading, len(now.running)
    st.subheader(f"Under way: {count} {_plural(count, 'evaluation')}")
    if not count:
        st.info(_why_idle(reading))
        return
    figure = source.once(("live", live.at), lambda: json.dumps(live_data(reading, live.curves)))
    live_chart(figure, f"live-{reading.study.id}", HEIGHT)
    newest = f"Of {count} the newest {MOST} are drawn. " if count > MOST else ""
    st.caption(
        f"{newest}A line is a run: what it trained at lower rungs, and at this one so far. "
        "Drag to zoom: the zoom stays while the curves grow."
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        source.once(("runs-table", live.at), lambda: _table(_shown(reading, now.running))),
        hide_index=True,
        key=f"live-runs-{reading.study.id}",
        height=_height(count),
        placeholder="",
        alt="The evaluations under way, a row each",
        column_config={
            "trial": number("trial", pinned=True, width="small"),
            "done": st.column_config.ProgressColumn(
                "done", format="%.0f%%", min_value=0, max_value=100, help="Of its steps"
            ),
            "loss": number("loss (nats/token)", format="%.3f"),
            "rate": number("GFLOP/s", format="%.1f", help="Over its newest points"),
            "share": number(
                "pace", format="%.0f%%", help="Of what the study's quickest evaluation reached"
            ),
            "attempt": number("attempt", help="How often it was taken up"),
        },
    )


def _shown(reading: Reading, running: pd.DataFrame) -> pd.DataFrame:
    rungs = ["rung"] if reading.study.rungs > 1 else []
    names = [
        *("trial", "design", *rungs, "seed", "done", "step", "steps"),
        *("loss", "rate", "share", "attempt"),
    ]
    return running[names].assign(
        done=100 * running["done"],
        share=100 * running["share"].astype(float),
        rate=running["rate"].astype(float) / 1e9,
    )


def _why_idle(reading: Reading) -> str:
    study = reading.study
    if study.state is StudyState.RUNNING:
        return (
            "Nothing runs at the moment. Right after its launch a study reads its corpus; if its "
            "driver is gone, the sidebar says so."
        )
    return f"This study is {study.state}: nothing runs. Its results are on the page Frontier."


def _endings(reading: Reading, found: pa.Table) -> None:
    st.subheader("Ended of late")
    if not len(found):
        st.info("No evaluation has ended yet. The first ends when a design reaches its first rung.")
        return
    both = zip(*_columns(found, "trial", "error"), strict=True)
    errors = [(number, error) for number, error in both if error]
    hidden = set() if errors else {"error"}
    hidden |= set() if reading.study.rungs > 1 else {"rung"}
    number = st.column_config.NumberColumn
    st.dataframe(
        found,
        hide_index=True,
        key=f"live-endings-{reading.study.id}",
        height=_height(len(found)),
        placeholder="",
        alt="The newest endings, a row each",
        column_order=[name for name in found.column_names if name not in hidden],
        column_config={
            # The browser works out how long ago that is: nothing is sent until one more has ended.
            "ended": st.column_config.DatetimeColumn("ended", format="distance", width="small"),
            "trial": number("trial", width="small"),
            "bits_per_byte": number("bits/byte", format="%.4f"),
            "error": st.column_config.TextColumn("why", width="large"),
        },
    )
    if errors:
        last, error = errors[0]
        st.caption(f"The last that failed is trial {last}: {verbatim(error)}")


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def _height(rows: int) -> int:
    return ROW_PX * (1 + min(rows, MOST_ROWS)) + 3


def _plural(n: int, word: str) -> str:
    return word if n == 1 else f"{word}s"
