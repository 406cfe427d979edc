"""What the sampler is told of trials that were measured at different rungs."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nas.search.decisions import Plan
from nas.search.lessons import Lessons, lessons
from nas.store import EvaluationRecord, TrialRecord
from search_space.contract import Status
from search_space.spec import FFNSpec

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
PLAN = Plan(
    levels=(1.0, 3.0, 9.0),
    reduction=3.0,
    decay=0.3,
    objectives=("bits_per_byte", "active_flops"),
    bounds={"active_flops": 10.0},
    trials=9,
    flops=100.0,
)


def trial(number: int, rung: int | None = None, bits: float | None = None, **more) -> TrialRecord:
    spec = FFNSpec(d_ff=8 * (number + 1))
    status = {None: Status.RUNNING, 2: Status.FINISHED}.get(rung, Status.PAUSED)
    usual = {"params": {"x": number}, "cost": {"active_flops": 8.0}, "status": status}
    return TrialRecord(
        id=number + 1,
        study_id=1,
        number=number,
        spec=spec,
        key=spec.key,
        source="x",
        rung=rung,
        bits_per_byte=bits,
        created_at=EPOCH,
        **(usual | more),
    )


def evaluation(id: int, number: int, rung: int, bits: float, seed: int = 0) -> EvaluationRecord:
    return EvaluationRecord(
        id=id,
        trial_id=number + 1,
        trial=number,
        seed=seed,
        rung=rung,
        attempt=1,
        losses=0,
        owner="",
        status=Status.FINISHED,
        until_flops=PLAN.levels[rung],
        start_flops=0.0,
        reserved=0.0,
        flops=1.0,
        trunk_flops=0.5,
        bits_per_byte=bits,
        bits_per_byte_se=None,
        active_flops=None,
        seconds=1.0,
        error="",
        created_at=EPOCH,
        ended_at=EPOCH + timedelta(seconds=id),
    )


# Trial 0 reaches the top and is repeated, trial 1 the middle rung, trial 2 pauses, trial 3 runs.
ENDED = [
    evaluation(1, 0, 0, 3.0),
    evaluation(2, 1, 0, 3.2),
    evaluation(3, 2, 0, 4.0),
    evaluation(4, 0, 1, 2.5),  # -0.5
    evaluation(5, 1, 1, 2.5),  # -0.7
    evaluation(6, 0, 2, 2.0),  # -0.5
    evaluation(7, 0, 2, 1.0, seed=1),
]
TRIALS = [trial(0, 2, 1.5), trial(1, 1, 2.5), trial(2, 0, 4.0), trial(3)]


def test_a_figure_of_a_lower_rung_is_told_less_what_others_gained_from_there() -> None:
    found = lessons(PLAN, TRIALS, ENDED)
    assert found.corrections() == pytest.approx((-1.1, -0.5, 0.0))
    told = {each.params["x"]: each for each in found.told()}
    assert told[0].values == (1.5, 8.0)  # the mean of its seeds, as it is
    assert told[1].values == pytest.approx((2.0, 8.0))
    assert told[2].values == pytest.approx((2.9, 8.0))
    assert told[3].running and told[3].values is None
    assert told[2].violations == {"active_flops": pytest.approx(-0.2)}
    assert found.keys == {each.key for each in TRIALS}


def test_without_a_pair_of_rungs_figures_are_told_as_they_are() -> None:
    found = lessons(PLAN, [trial(0, 0, 3.0)], ENDED[:1])
    assert found.corrections() == (0.0, 0.0, 0.0)
    assert [each.values for each in found.told()] == [(3.0, 8.0)]


def test_a_run_that_goes_on_is_told_with_what_it_has() -> None:
    again = trial(0, 0, 3.0, status=Status.RUNNING)
    (told,) = lessons(PLAN, [again], ENDED[:1]).told()
    assert told.values == (3.0, 8.0) and not told.running


def test_the_order_of_records_does_not_matter_and_a_fold_says_the_same() -> None:
    mixed = random.Random(1).sample(ENDED, len(ENDED))
    live, stands = Lessons(PLAN), {each.number: trial(each.number) for each in TRIALS}
    for each in stands.values():
        live.put(each)
    seen: dict[int, list[float]] = {}
    for each in ENDED:
        now = stands[each.trial]
        bits = seen.setdefault(each.trial, []) if each.rung == now.rung else []
        seen[each.trial] = [*bits, each.bits_per_byte]
        mean = sum(seen[each.trial]) / len(seen[each.trial])
        stands[each.trial] = replace(trial(each.trial, each.rung, mean))
        live.put(stands[each.trial], each)
    assert list(stands.values()) == TRIALS
    assert live.told() == lessons(PLAN, TRIALS, mixed).told()


def test_a_design_that_fails_at_a_higher_rung_is_not_recommended_by_its_lower_one():
    found = Lessons(PLAN)
    found.put(trial(0, 0, 2.0), evaluation(1, 0, 0, 2.0))
    found.put(trial(1, 0, 2.5), evaluation(2, 1, 0, 2.5))
    assert [told.values for told in found.told()] == [(2.0, 8.0), (2.5, 8.0)]
    diverged = replace(evaluation(3, 0, 1, 2.0), status=Status.DIVERGED, bits_per_byte=None)
    failed = trial(0, 0, 2.0, status=Status.DIVERGED)
    found.put(failed, diverged)
    assert [told.values for told in found.told()] == [None, (2.5, 8.0)]
    records = [evaluation(1, 0, 0, 2.0), evaluation(2, 1, 0, 2.5), diverged]
    assert lessons(PLAN, [failed, trial(1, 0, 2.5)], records).told() == found.told()
