"""The selected designs: a list that selects without a mouse, and a small card of each."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import controls, links
from dashboard.context import Context
from dashboard.data.reading import Reading
from dashboard.text import design_words, verbatim
from nas.search.objectives import shown_objectives
from nas.views.style import rung_words, si

_CARDS = 6
_A_ROW = 3
MOST_COMPARED = 6


def draw_selection(context: Context, reading: Reading) -> None:
    """The list, the buttons, the cards."""
    selected = [number for number in links.selected() if number in reading.trials.index]
    controls.pick(
        reading,
        "Selected designs",
        f"picked-{reading.study.id}",
        help="What a click, a box or a lasso selects. Here it is done with the keyboard: type "
        "a part of a design, or a trial as #12. The first one is in focus on other pages.",
    )
    row = st.container(horizontal=True, gap="small")
    row.button(
        "Clear",
        key="clear-selection",
        icon=":material/close:",
        disabled=not selected,
        on_click=links.select,
        args=((),),
    )
    if row.button("Open", key="open-trial", icon=":material/layers:", disabled=not selected):
        links.go("trial")
    if row.button(
        "Compare",
        key="open-compare",
        icon=":material/compare_arrows:",
        disabled=len(selected) < 2,
        help=f"Side by side: two to {MOST_COMPARED} designs.",
    ):
        links.go("compare")
    for at in range(0, min(len(selected), _CARDS), _A_ROW):
        places = st.columns(_A_ROW)
        for place, number in zip(places, selected[at : min(at + _A_ROW, _CARDS)], strict=False):
            with place.container(border=True, height="stretch"):
                st.markdown(card(reading, number, reading.trials.loc[number]))
    if len(selected) > _CARDS:
        st.caption(f"{len(selected) - _CARDS} more are selected: the table shows all.")


def card(reading: Reading, number: int, row: Any) -> str:
    """A trial in a few lines of Markdown."""
    lines = [f"**#{number} {design_words(str(row['design']))}**"]
    if pd.notna(row["bits_per_byte"]):
        error = f" ± {row['noise']:.4f}" if pd.notna(row["noise"]) else ""
        rung = None if pd.isna(row["rung"]) else int(row["rung"])
        where = rung_words(reading.study.rungs, rung, int(row["seeds"]))
        lines.append(f"{row['bits_per_byte']:.4f}{error} bits/byte, {where}")
    else:
        lines.append(f"{row['status']}: not measured yet")
    costs = [
        f"{si(row[each.name])} {each.column}"
        for each in shown_objectives(reading.study.objectives, "table")
        if each.name != "bits_per_byte" and pd.notna(row[each.name])
    ]
    lines.append(", ".join(costs))
    if row["infeasible"]:
        lines.append(f"infeasible: {verbatim(str(row['infeasible']))}")
    elif row["frontier"]:
        sure = "" if pd.isna(row["p_frontier"]) else f", probability {row['p_frontier']:.2f}"
        lines.append(f"on the frontier{sure}")
    if row["error"]:
        lines.append(verbatim(str(row["error"])[:200]))
    return "  \n".join(line for line in lines if line)
