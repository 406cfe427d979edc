"""All trials as a table: filtered, sorted and paged on the server; its rows select trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import controls, links
from dashboard.context import Context
from dashboard.data.reading import Reading
from nas.search.objectives import OBJECTIVES, shown_objectives

PAGE_ROWS = 50
_ONLY = {"": "all", "frontier": "on the frontier", "selected": "selected"}


def draw_table(context: Context, reading: Reading) -> None:
    """The filters, a page of the rows, and all of them as CSV."""
    heading, button = st.columns([5, 1], vertical_alignment="bottom")
    heading.subheader("Trials")
    study, source = reading.study, context.source
    button.download_button(
        "Download CSV",
        lambda: source.once(("csv", reading.stamp), lambda: reading.trials.to_csv()),
        file_name=f"{study.name}.csv",
        mime="text/csv",
        key=f"csv-{study.id}",
        on_click="ignore",
        width="stretch",
    )
    text, status, only, order = _filters(reading)
    selected = [number for number in links.selected() if number in reading.trials.index]
    asked = (text, tuple(status), only, order, tuple(selected) if only == "selected" else ())
    rows = source.once(
        ("rows", reading.stamp, asked),
        lambda: filtered(reading.trials, text, status, only, order, selected),
    )
    pages = max(1, -(-len(rows) // PAGE_ROWS))
    key = f"page-{study.id}"
    page = min(int(st.session_state.get(key, 1) or 1), pages)
    _rows(reading, rows.iloc[(page - 1) * PAGE_ROWS : page * PAGE_ROWS], selected)
    told, turned = st.columns([3, 2], vertical_alignment="center")
    found = len(rows)
    told.caption(
        f"{found:,} of {len(reading.trials):,} trials"
        + (f", page {page:,} of {pages:,}" if pages > 1 else "")
        + ". A column's head sorts this page; *Sort by* sorts all."
    )
    if pages > 1:
        with turned:
            st.pagination(pages, key=key)


def filtered(
    trials: pd.DataFrame, text: str, status: list[str], only: str, order: str, selected: list[int]
) -> pd.DataFrame:
    """The rows that the filters leave, in their order.

    text: words that must be in the design, its source or its error, or a trial's number.
    order: a column, with "-" before it for the largest first.
    """
    kept = pd.Series(True, index=trials.index)
    for word in text.lower().split():
        number = controls.number_in(word)
        found = pd.Series(trials.index == number, index=trials.index)
        for name in ("design", "source", "error"):
            found |= trials[name].astype(str).str.lower().str.contains(word, regex=False)
        kept &= found
    if status:
        kept &= trials["status"].isin(status)
    if only == "frontier":
        kept &= trials["frontier"].astype(bool)
    if only == "selected":
        kept &= trials.index.isin(selected)
    rows = trials[kept]
    name = order.removeprefix("-")
    if name == "trial":
        return rows.sort_index(ascending=order == name)
    return rows.sort_values(name, ascending=order == name, kind="stable", na_position="last")


def _filters(reading: Reading) -> tuple[str, list[str], str, str]:
    words, stands, which, sort = st.columns([4, 4, 2, 3])
    study = reading.study
    text = words.text_input(
        "Search", key=f"search-{study.id}", placeholder="a design, a source, an error, a number"
    )
    there = sorted(reading.trials["status"].unique())
    status = stands.multiselect("Status", there, key=f"status-{study.id}", placeholder="any")
    only = which.selectbox(
        "Show", list(_ONLY), key=f"only-{study.id}", format_func=_ONLY.__getitem__
    )
    orders = {"trial": "number", "-trial": "newest first"}
    shown = shown_objectives(study.objectives, "table")
    orders |= {each.name: f"{each.column}, lowest first" for each in shown}
    orders |= {
        "-p_frontier": "p frontier, highest first",
        "-flops_spent": "FLOPs spent, most first",
    }
    order = sort.selectbox(
        "Sort by", list(orders), key=f"sort-{study.id}", format_func=orders.__getitem__
    )
    return text, status, only or "", order or "trial"


def _rows(reading: Reading, page: pd.DataFrame, selected: list[int]) -> None:
    study = reading.study
    key = f"trials-{study.id}"
    mine = [place for place, number in enumerate(page.index) if number in set(selected)]
    st.session_state[key] = {"selection": {"rows": mine, "columns": [], "cells": []}}
    names = [int(number) for number in page.index]

    def chosen() -> None:
        marked = [names[at] for at in st.session_state[key]["selection"]["rows"]]
        elsewhere = [number for number in selected if number not in names]
        before = [number for number in selected if number in marked]
        controls.select([*before, *elsewhere, *(n for n in marked if n not in before)])

    frame = page.reset_index()
    frame["error"] = frame["error"].astype(str).str.slice(0, 300)
    st.dataframe(
        frame,
        hide_index=True,
        key=key,
        placeholder="",
        on_select=chosen,
        selection_mode="multi-row",
        height=min(38 + 35 * len(frame), 460),
        column_order=columns(reading, frame),
        column_config=configuration(reading),
    )


def columns(reading: Reading, frame: pd.DataFrame) -> list[str]:
    """The columns that say something of this study."""
    shown = shown_objectives(reading.study.objectives, "table")
    hidden = OBJECTIVES.keys() - {each.name for each in shown}
    hidden |= {"bits_per_byte_se", "method"}  # a design's name begins with its method
    hidden |= set() if reading.bounds else {"infeasible"}
    hidden |= set() if reading.study.rungs > 1 else {"rung"}
    first = ["trial", "design", "bits_per_byte", "noise"]
    first += [each.name for each in shown if each.name not in first]
    first += ["frontier", "p_frontier", "status", "rung", "seeds"]
    order = dict.fromkeys([*first, *frame.columns])
    return [name for name in order if name not in hidden]


def configuration(reading: Reading) -> dict[str, Any]:
    """Heads, formats and what a column means."""
    number: Callable[..., Any] = st.column_config.NumberColumn
    shown = shown_objectives(reading.study.objectives, "table")
    costs = [each for each in shown if each.name != "bits_per_byte"]
    return {
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
    }
