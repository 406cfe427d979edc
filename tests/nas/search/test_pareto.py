"""Pareto fronts, hypervolume and objectives, against slow obvious forms."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from nas.search.objectives import OBJECTIVES, objective_values
from nas.search.pareto import best, frontier, hypervolume, hypervolume_share, non_dominated
from nas.store import TrialRecord
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.prices import Cost
from search_space.spec import FFNSpec

NAMES = ["bits_per_byte", "active_flops"]


def trial(
    number: int,
    bpb: float | None,
    flops: float = 1.0,
    status: Status = Status.FINISHED,
    active_flops: float | None = None,
) -> TrialRecord:
    spec = FFNSpec(d_ff=8)
    return TrialRecord(
        id=number + 1,
        study_id=1,
        number=number,
        spec=spec,
        key=spec.key,
        params={},
        source="x",
        cost={"active_flops": flops, "total_params": 10.0},
        status=status,
        bits_per_byte=bpb,
        active_flops=active_flops,
        result=EvalResult(evaluation=number + 1, status=status, bits_per_byte=9.0),
        created_at=datetime.now(UTC),
        ended_at=None,
    )


def dominates(a, b) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
def test_the_front_is_what_nothing_dominates(n_objectives: int) -> None:
    points = np.random.default_rng(0).integers(0, 6, (60, n_objectives)).astype(float)
    expected = [not any(dominates(q, p) for q in points) for p in points]
    assert non_dominated(points) == expected


def test_equal_points_all_stay() -> None:
    assert non_dominated([[1, 2], [1, 2], [2, 2]]) == [True, True, False]


def test_no_points_make_no_front() -> None:
    assert non_dominated([]) == []
    assert frontier([], NAMES) == []
    assert hypervolume([], [1, 1]) == 0.0
    assert hypervolume_share([]) == 0.0
    assert best([]) is None


@pytest.mark.parametrize("points", [[[1.0, math.nan]], [[math.inf, 1.0]], [1.0, 2.0]])
def test_points_are_a_finite_matrix(points) -> None:
    with pytest.raises(InputError, match="points"):
        non_dominated(points)


def test_the_frontier_is_sorted_by_cost() -> None:
    trials = [trial(0, 2.0, 9), trial(1, 2.2, 4), trial(2, 2.3, 5), trial(3, 2.5, 1)]
    assert [t.number for t in frontier(trials, NAMES)] == [3, 1, 0]
    assert [t.number for t in frontier(trials, ["bits_per_byte"])] == [0]


def test_only_finished_trials_are_on_the_frontier() -> None:
    trials = [trial(0, 1.0, 1, Status.STOPPED), trial(1, None), trial(2, 3.0, 3)]
    assert [t.number for t in frontier(trials, NAMES)] == [2]
    assert best(trials).number == 2


def test_hypervolume_is_the_dominated_area() -> None:
    # Two boxes, 3 x 1 and 1 x 3, that share 1 x 1.
    assert hypervolume([[1, 3], [3, 1], [4, 4], [9, 0]], [4, 4]) == pytest.approx(3 + 3 - 1)
    with pytest.raises(InputError, match="one value an objective, 2: got 3"):
        hypervolume([[1, 3]], [4, 4, 4])


def test_the_share_does_not_depend_on_units() -> None:
    points = np.array([[1.0, 3.0], [2.0, 2.0], [4.0, 4.0]])
    expected = hypervolume(points, [4, 4]) / 16
    assert hypervolume_share(points) == pytest.approx(expected)
    assert hypervolume_share(points * [1, 1e12]) == pytest.approx(expected)


def test_best_is_the_lowest_and_the_earliest() -> None:
    assert best([trial(0, 2.5), trial(1, 2.0), trial(2, 2.0)]).number == 1


def test_values_come_from_the_means_or_the_cost() -> None:
    assert objective_values(trial(0, 2.0, 7.0), NAMES) == (2.0, 7.0)
    assert objective_values(trial(0, 2.0, 7.0, active_flops=5.0), NAMES) == (2.0, 5.0)
    assert objective_values(trial(0, 2.0), ["total_params"]) == (10.0,)
    assert objective_values(trial(0, 2.0), ["active_params"]) is None
    assert objective_values(trial(0, 2.0, math.inf), NAMES) is None
    for status in set(Status) - {Status.FINISHED}:
        assert objective_values(trial(0, 2.0, status=status), NAMES) is None


def test_every_cost_objective_is_a_field_of_the_closed_form_cost() -> None:
    costs = Cost().to_dict()
    assert set(OBJECTIVES) - {"bits_per_byte"} <= set(costs)


def test_an_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'bits_per_byte'"):
        objective_values(trial(0, 2.0), ["bits_per_bite"])
    with pytest.raises(InputError, match="at least one objective"):
        frontier([], [])
