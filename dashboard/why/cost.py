"""What the search spent, and whether its rungs were right."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from dashboard.charts import live_chart
from dashboard.context import Context
from dashboard.data.promotions import Promotions, promotions
from dashboard.data.reading import Reading
from dashboard.data.spending import WAYS, spending
from dashboard.figures.promotions import promotions_figure
from dashboard.figures.spending import spending_figure, spending_height
from dashboard.why.drawing import drawn, select_one
from nas.views.style import si

HEIGHT = 460


def draw_spending(context: Context, reading: Reading) -> None:
    """Where the FLOPs went."""
    st.subheader(
        "Where the training FLOPs went",
        help="All training FLOPs that were charged to evaluations, in parts: measured, lost in a "
        "failure, or in one that was stopped or still runs (charged when it ends).",
    )
    tables = context.source.once(("why-spent", reading.stamp), lambda: spending(reading))
    if not any(table.to_numpy().sum() > 0 for table in tables.values()):
        st.info("Nothing has been spent yet: FLOPs are charged when an evaluation ends.")
        return
    places = [place for _ in range(2) for place in st.columns(2)]
    for place, (way, title) in zip(places, WAYS.items(), strict=True):
        with place:
            st.markdown(f"**{title}**")
            make = partial(spending_figure, tables[way], f"spending-{way}")
            figure = drawn(context, reading, ("spending", way), make)
            live_chart(
                figure,
                f"why-{way}-{reading.study.id}",
                spending_height({way: tables[way]}),
                label=f"Training FLOPs by {title.lower()}",
            )


def draw_promotions(context: Context, reading: Reading) -> None:
    """Rank at each rung against the top."""
    st.subheader(
        "Which promotions were right",
        help="Where each design stood at a lower rung, against where it came in at the top. A rung "
        "that orders designs as the top does may drop the others early without loss.",
    )
    if reading.study.rungs < 2:
        st.info("This study has one rung: every design trains to the end, and nothing is promoted.")
        return
    found = context.source.once(("why-promoted", reading.stamp), lambda: promotions(reading))
    st.caption(
        "Only among designs that reached the top: what the dropped ones would have become, nobody "
        "knows, so a good design that a rung dropped does not show here."
    )
    if found.pairs.empty:
        st.info("Fewer than five designs have reached the top so far. Wait for more.")
        return
    st.dataframe(_promotion_table(found), hide_index=True, width="stretch")
    rungs = [int(rung) for rung in sorted(found.pairs["rung"].unique())]
    for place, rung in zip(st.columns(max(len(rungs), 2)), rungs, strict=False):
        designs, revision = reading.trials["design"], f"promotions-{rung}"
        make = partial(promotions_figure, found.pairs, rung, designs, revision)
        figure = drawn(context, reading, ("promotions", rung), make)
        with place:
            live_chart(
                figure,
                f"why-rung-{rung}-{reading.study.id}",
                HEIGHT,
                on_click=select_one,
                label=f"Places of designs at rung {rung} against the top",
            )


def _promotion_table(found: Promotions) -> pd.DataFrame:
    table = found.table
    known = table["rho"].notna()
    kept = [
        f"{share:.0%} of {front:.0f}, by the best {kept:.0f}" if front > 0 else "-"
        for share, front, kept in zip(
            table["front_kept"], table["front"], table["kept"], strict=True
        )
    ]
    interval = table["low"].map("{:.2f}".format) + " to " + table["high"].map("{:.2f}".format)
    return pd.DataFrame(
        {
            "Rung": table["rung"],
            "FLOPs": table["flops"].map(si),
            "Designs that reached the top": table["designs"],
            "Spearman's rho with the top": table["rho"].map("{:.2f}".format).where(known, "-"),
            "95% interval": interval.where(known, "-"),
            "Of the final frontier, it would have kept": kept,
        }
    )
