"""A study's past, and the study as it stood."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from benchmarks.reading_store import NAME
from benchmarks.reading_store import fill as fill_many
from dashboard.data.history import endings, history_data
from dashboard.data.reading import Reading
from dashboard.data.replay import replayed
from dashboard.data.source import Source
from dashboard.data.walk import Walk
from dashboard.figures.history import history_figure
from nas.search.pareto import hypervolume, non_dominated
from nas.store import Store


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Reading:
    """A study of 300 designs, some with two seeds at the top."""
    url = f"sqlite:///{tmp_path_factory.mktemp('many')}/nas.db"
    with Store.open(url) as store:
        fill_many(store, trials=300, points=1)
    return Source(url).reading(NAME)


@pytest.fixture
def rungs(url: str, fill_with_rungs) -> Reading:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
    return Source(url).reading("demo")


def test_the_last_row_is_the_study_as_it_stands(many: Reading) -> None:
    past = history_data(many)
    last = past.frame.iloc[-1]
    assert past.front(len(past.frame) - 1) == sorted(many.front)
    assert last["front"] == len(many.front)
    over = endings(many)
    assert last["flops"] == pytest.approx(over["flops"].iloc[: int(last["ended"])].sum())
    assert over["flops"].sum() == pytest.approx(many.ledger.spent)
    feasible = many.trials[
        (many.trials["status"] == "finished") & (many.trials["infeasible"] == "")
    ]
    assert last["best"] == pytest.approx(feasible["bits_per_byte"].min())
    worst = feasible[["bits_per_byte", "active_flops"]].max()
    assert past.worst == pytest.approx(worst.to_dict())
    shares = feasible[["bits_per_byte", "active_flops"]].to_numpy() / worst.to_numpy()
    assert last["hypervolume"] == pytest.approx(hypervolume(shares, [1.0, 1.0]))


def test_a_replay_has_the_front_and_the_best_of_then(many: Reading) -> None:
    past = history_data(many)
    assert past.front(-1) == []
    for row in range(0, len(past.frame), 4):
        then = replayed(many, int(past.frame["ended"].iloc[row]))
        assert sorted(then.front) == past.front(row)
        done = then.trials[
            (then.trials["status"] == "finished") & (then.trials["infeasible"] == "")
        ]
        best = past.frame["best"].iloc[row]
        assert best == pytest.approx(done["bits_per_byte"].min(), nan_ok=True)


def test_a_second_seed_changes_what_was_known(rungs: Reading) -> None:
    past = history_data(rungs)
    assert past.frame["trial"].tolist() == [0, 1, 0]
    assert past.frame["best"].tolist() == pytest.approx([2.1, 2.1, 2.2])
    assert [past.front(row) for row in range(3)] == [[0], [0], [0]]


def test_a_replay_goes_from_nothing_to_the_reading_itself(rungs: Reading) -> None:
    over = endings(rungs)
    assert replayed(rungs, 0).trials.empty and replayed(rungs, 0).front == []
    assert replayed(rungs, len(over)) is rungs
    first = replayed(rungs, 1)
    assert first.trials.loc[0, ["status", "rung", "seeds"]].tolist() == ["paused", 0, 1]
    assert first.trials.loc[0, "bits_per_byte"] == 3.0
    assert first.ledger.spent == over["flops"].iloc[0]
    assert len({replayed(rungs, n).stamp for n in range(len(over) + 1)}) == len(over) + 1


def test_a_trial_stood_as_the_store_says(rungs: Reading) -> None:
    from dashboard.data.replay import _trials

    now = _trials(rungs, rungs.evaluations)
    for name in rungs.trials.columns.difference(["p_frontier", "vs_cheaper"]):
        pd.testing.assert_series_equal(now[name], rungs.trials[name], check_dtype=False)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_a_walk_agrees_with_whole_fronts_however_it_is_cut(objectives: int) -> None:
    source = random.Random(objectives)
    # Whole numbers, so that there are equal points; every fourth measure replaces one.
    values = np.array(
        [[source.randint(1, 12) for _ in range(objectives)] for _ in range(120)], float
    )
    feasible = np.array([source.random() < 0.9 for _ in values])
    previous = np.full(len(values), -1)
    for row in range(8, len(values), 4):
        free = sorted(set(range(row)) - set(previous.tolist()))
        previous[row] = source.choice(free)
    ids, worst = np.arange(len(values)), np.full(objectives, 13.0)

    walk = Walk()
    for cut in (7, 8, 50, 120):
        walk.follow(ids[:cut], previous[:cut], values[:cut], feasible[:cut])
        volumes, sizes = walk.volumes(worst)
    entered, left, rows = walk.stays()
    for at in range(len(values)):
        alive = [r for r in range(at + 1) if feasible[r] and r not in set(previous[: at + 1])]
        front = [r for r, kept in zip(alive, non_dominated(values[alive]), strict=True) if kept]
        assert sorted(rows[(entered <= at) & (at < left)]) == front
        assert sizes[at] == len(front)
        whole = hypervolume(values[front] / 13, [1.0] * objectives) if front else 0.0
        assert volumes[at] == pytest.approx(whole)


def test_the_figure_has_two_lines_and_the_moment(many: Reading) -> None:
    past = history_data(many)
    figure = history_figure(past, "x", at=int(past.frame["ended"].iloc[3]))
    best, volume = figure["data"]
    assert best["y"][-1] == past.frame["best"].iloc[-1]
    assert all(a <= b for a, b in pairwise(volume["x"]))
    assert figure["layout"]["shapes"][0]["x0"] == (past.frame["flops"].iloc[3])


def test_a_study_without_a_measure_has_no_past(url: str) -> None:
    with Store.open(url) as store:
        store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
    past = history_data(Source(url).reading("new"))
    assert past.frame.empty and history_figure(past, "x")["data"] == []
