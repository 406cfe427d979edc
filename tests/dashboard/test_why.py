"""What knobs explain, what was spent, which promotions were right, and the page that says so."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

from benchmarks.reading_store import NAME
from benchmarks.reading_store import fill as fill_many
from dashboard.data.at_rung import at_rung, rungs_measured, telling_rung
from dashboard.data.importance import LEAST, holm, importance
from dashboard.data.levels import BINS, levels
from dashboard.data.promotions import promotions
from dashboard.data.reading import Reading
from dashboard.data.source import Source
from dashboard.data.spending import spending
from dashboard.figures.fronts import fronts_figure
from dashboard.figures.importance import importance_figure
from dashboard.figures.parallel import MOST_LINES, parallel_figure
from dashboard.figures.promotions import promotions_figure
from dashboard.figures.slices import heat_figure, slice_figure
from dashboard.figures.spending import spending_figure
from dashboard.pages.why import COST, DESIGNS
from nas.store import Store, StudyState


@pytest.fixture(scope="module")
def url_of_many(tmp_path_factory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('why')}/nas.db"
    with Store.open(url) as store:
        fill_many(store, trials=300, points=1)
    return url


@pytest.fixture(scope="module")
def many(url_of_many: str) -> Reading:
    return Source(url_of_many).reading(NAME)


def designs(n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Method and width decide, k within b; lr and gated do nothing."""
    source = np.random.default_rng(seed)
    method = source.choice(["a", "b", "c"], n, p=[0.4, 0.4, 0.2])
    width, k = 2.0 ** source.integers(4, 10, n), 2.0 ** source.integers(0, 4, n)
    own = method == "b"
    y = np.select([method == "a", own], [0.0, 1.0], 2.0) + 0.4 * np.log2(width)
    y = y + np.where(own, 0.5 * np.log2(k), 0) + source.normal(0, 0.5, n)
    knobs = {"method": method, "width": width, "k": np.where(own, k, np.nan)}
    knobs |= {"lr": source.uniform(0.5, 2, n), "gated": source.random(n) < 0.5}
    return pd.DataFrame(knobs), pd.DataFrame({"y": y})


def test_importance_finds_what_decides_and_nothing_else() -> None:
    told, within = {}, {}
    truth = importance(*designs(1000, 99)).set_index("knob")
    rounds = 30
    for seed in range(rounds):
        table = importance(*designs(150, seed)).set_index("knob")
        for knob, row in table.iterrows():
            told[knob] = told.get(knob, 0) + row["told"]
            covers = row["alone_low"] <= truth.loc[knob, "alone"] <= row["alone_high"]
            within[knob] = within.get(knob, 0) + covers
    assert min(told["method"], told["width"], told["k"]) >= 0.9 * rounds
    assert max(told["lr"], told["gated"]) <= 0.1 * rounds
    assert min(within["method"], within["width"], within["k"]) >= 0.8 * rounds
    assert truth.loc["width", "alone"] > truth.loc["lr", "alone"] + 0.2
    assert truth.loc["k", "designs"] < 1000


def test_a_method_is_not_taken_for_a_knob_that_only_it_has() -> None:
    knobs, values = designs(600, 2)
    two = knobs["method"] != "c"
    table = importance(knobs[two], values[two]).set_index("knob")
    assert table.loc["method", "beside_low"] > 0.1


def test_a_twin_knob_explains_nothing_beside_the_other() -> None:
    knobs, values = designs(400, 1)
    table = importance(knobs.assign(twin=knobs["width"] * 2), values).set_index("knob")
    assert table.loc["twin", "alone"] == pytest.approx(table.loc["width", "alone"])
    assert table.loc["twin", "beside"] < 0.01 < table.loc["twin", "alone"]
    assert table.loc["method", "beside_low"] > 0.1


def test_too_few_designs_say_nothing() -> None:
    table = importance(*designs(LEAST - 1, 0))
    assert table["alone"].isna().all() and not table["told"].any()
    few = importance(*designs(40, 0)).set_index("knob")
    assert few["alone"].isna().to_dict() == {"k": True} | dict.fromkeys(few.index.drop("k"), False)


def test_the_more_knobs_the_rarer_chance_must_be() -> None:
    found = holm(np.array([0.01, np.nan, 0.04, 0.02]))
    assert found.tolist() == pytest.approx([0.03, np.nan, 0.04, 0.04], nan_ok=True)


def test_levels_are_words_few_numbers_or_even_bins() -> None:
    words = levels(pd.Series([True, False, None, True], dtype=object))
    assert (words.codes.tolist(), words.names) == ([1, 0, -1, 1], ("no", "yes"))
    assert levels(pd.Series([8.0, 2.0, np.nan])).names == ("2", "8")
    bins = levels(pd.Series(np.arange(60.0)))
    assert len(bins.names) == BINS
    assert np.bincount(bins.codes).tolist() == [10] * BINS


def test_a_rung_is_compared_by_what_was_measured_there(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
    reading = Source(url).reading("demo")
    assert rungs_measured(reading) == {2: 2, 1: 2, 0: 5}
    assert telling_rung({2: 10, 1: 31, 0: 80}) == 1 and telling_rung({1: 3, 0: 7}) == 0
    assert at_rung(reading, 2).values["bits_per_byte"].tolist() == pytest.approx([2.2, 2.4])
    assert at_rung(reading, 0).values["bits_per_byte"].tolist() == [3.0, 3.1, 3.5, 3.05, 3.2]
    assert at_rung(reading, 0).knobs.columns[0] == "method"
    spent = spending(reading)
    assert spent["rung"].to_numpy().sum() == pytest.approx(reading.evaluations["flops"].sum())
    assert spent["method"]["failed"].sum() == 1e11
    assert promotions(reading).table["designs"].tolist() == [2, 2]
    assert promotions(reading).pairs.empty


def test_promotions_are_judged_among_those_at_the_top(many: Reading) -> None:
    found = promotions(many)
    top = int((many.trials["status"] == "finished").sum())
    assert found.table["designs"].tolist() == [top, top]
    rank = many.evaluations[many.evaluations["seed"] == 0].pivot(
        index="trial", columns="rung", values="bits_per_byte"
    )
    means = rank.dropna()[[0]].assign(top=many.trials["bits_per_byte"])
    rho = means.rank().corr().iloc[0, 1]
    assert found.table["rho"].iloc[0] == pytest.approx(rho)
    assert (found.table["low"] < found.table["rho"]).all()
    assert (found.table["front_kept"].between(0, 1)).all()


def test_figures_are_plain_and_say_so_where_there_is_a_gap(many: Reading) -> None:
    there, methods = at_rung(many, 0), many.trials["method"]
    knobs = ["method", "k", "lr_multiplier"]
    lines = parallel_figure(there, knobs, methods, many.front, "x")
    drawn = [trace for trace in lines["data"] if trace.get("customdata")]
    numbers = {c[0] for trace in drawn for c in trace["customdata"] if c}
    assert numbers == set(there.values.index) and len(numbers) <= MOST_LINES
    dense = next(t for t in drawn if t["name"] == "dense")
    assert dense["y"][1] is None and dense["y"][2] is not None  # it has no k
    figures = [
        lines,
        importance_figure(importance(there.knobs, there.values), "x"),
        slice_figure(there, "bits_per_byte", "lr_multiplier", methods, "x"),
        heat_figure(there, "active_flops", "method", "gated", "x"),
        fronts_figure(many, "x"),
        promotions_figure(promotions(many).pairs, 0, many.trials["design"], "x"),
        *(spending_figure(table, "x") for table in spending(many).values()),
    ]
    for figure in figures:
        assert figure["data"]
        json.dumps(figure, allow_nan=False)
    counts = [cell for row in figures[3]["data"][0]["text"] for cell in row if cell]
    assert sum(int(cell.rpartition("n ")[2]) for cell in counts) == len(there.values)


PAGE = """
import os
import streamlit as st
from dashboard import links
from dashboard.context import Context
from dashboard.data.source import Source
from dashboard.pages import why

links.recall()
source = Source(os.environ["NAS_DB"])
why.draw(Context(source, source.studies()[0]))
"""


@pytest.mark.slow
def test_the_page_answers_three_questions(url_of_many: str, monkeypatch) -> None:
    monkeypatch.setenv("NAS_DB", url_of_many)
    page = AppTest.from_string(PAGE, default_timeout=WAIT_S).run()
    assert not page.exception
    assert [each.value for each in page.subheader] == [
        "What each knob explains",
        "An objective over one knob or two",
    ]
    study = 1
    page.selectbox(key=f"why-up-{study}").select("gated").run()
    assert not page.exception
    page.session_state["why-view"] = DESIGNS
    page.run()
    assert [each.value for each in page.subheader] == [
        "All designs, knob by knob",
        "The frontier of each method",
    ]
    page.session_state["why-view"] = COST
    page.run()
    assert not page.exception
    assert [each.value for each in page.subheader] == [
        "Where the training FLOPs went",
        "Which promotions were right",
    ]
    assert page.dataframe[0].value["Rung"].tolist() == [0, 1]


@pytest.mark.slow
def test_a_page_without_designs_says_what_to_do(url: str, fill, monkeypatch) -> None:
    with Store.open(url) as store:
        fill(store, "few", StudyState.RUNNING)
        store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
    monkeypatch.setenv("NAS_DB", url)
    page = AppTest.from_string(PAGE, default_timeout=WAIT_S).run()
    assert "nas status new" in page.info[0].value
    page.session_state["why-view"] = COST
    page.run()
    assert not page.exception
    assert "Nothing has been spent yet" in page.info[0].value
    assert "one rung" in page.info[1].value
    page = AppTest.from_string(PAGE.replace("[0]", "[1]"), default_timeout=WAIT_S).run()
    assert not page.exception
    assert f"{LEAST} are needed" in page.info[0].value
