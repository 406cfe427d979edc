"""Columns say what records say, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from store_cases import new_study

from nas.store import Store
from nas.store.columns import ASKED_AT_ONCE
from nas.store.conversion import field_names
from nas.store.records import EvaluationRecord
from search_space.contract import EvalResult, Progress, Status
from search_space.spec import FFNSpec

ENDINGS = (Status.FINISHED, Status.DIVERGED, Status.STOPPED, None)


def fill(store: Store, name: str) -> int:
    """A study with a trial in every state, the first with two runs; its id."""
    study = new_study(store, name)
    for number, status in enumerate(ENDINGS):
        trial, first = store.add_trial(
            study.id, FFNSpec(d_ff=8 * (number + 1)), seed=0, source=f"s{number}", params={},
            until_flops=1e9, cost={"active_flops": 1e3 * number, "total_params": 5},
        )  # fmt: skip
        if status is None:
            continue
        error = "" if status is Status.FINISHED else "so it went"
        bits = 2.0 if status is Status.FINISHED else None
        ending = EvalResult(
            evaluation=first.id, status=status, bits_per_byte=bits, bits_per_byte_se=0.01,
            flops=5e8, seconds=3.5, error=error,
        )  # fmt: skip
        store.end_evaluation(ending)
        if number == 0:
            store.add_evaluation(study.id, trial.id, seed=1, rung=0, until_flops=1e9)
    return study.id


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def as_records(table) -> list[EvaluationRecord]:
    rows = zip(*(table[name] for name in field_names(EvaluationRecord)), strict=True)
    found = []
    for row in rows:
        values = dict(zip(field_names(EvaluationRecord), row, strict=True))
        values |= {name: moment(values[name]) for name in ("created_at", "ended_at")}
        found.append(EvaluationRecord(**values | {"status": Status(values["status"])}))
    return found


class TestColumns:
    def test_evaluations_are_those_of_the_records(self, store: Store) -> None:
        first, other = fill(store, "one"), fill(store, "two")
        for study in (first, other):
            records = store.evaluations(study)
            assert as_records(store.evaluation_columns(study)) == records
            ids = [each.id for each in records]
            some = store.evaluation_columns(study, ids[1:3], since=ids[-1])
            assert as_records(some) == [records[1], records[2], records[-1]]
            assert not store.evaluation_columns(study, [], since=ids[-1] + 100)["id"]
        foreign = [each.id for each in store.evaluations(other)]
        assert not store.evaluation_columns(first, foreign, since=max(foreign) + 1)["id"]
        many = range(3 * ASKED_AT_ONCE)
        assert as_records(store.evaluation_columns(first, many, since=max(many))) == (
            store.evaluations(first)
        )

    def test_trials_are_those_of_the_records(self, store: Store) -> None:
        study = fill(store, "one")
        table, records = store.trial_columns(study), store.trials(study)
        assert list(table["number"]) == [each.number for each in records]
        for name in ("source", "rung", "seeds", "bits_per_byte", "active_flops", "flops"):
            assert list(table[name]) == [getattr(each, name) for each in records], name
        assert list(table["status"]) == [each.status.value for each in records]
        assert [json.loads(text) for text in table["spec"]] == [r.spec.to_dict() for r in records]
        assert [json.loads(text) for text in table["cost"]] == [each.cost for each in records]
        shown = [None if r.result is None else r.result.evaluation for r in records]
        assert list(table["evaluation_id"]) == shown
        some = store.trial_columns(study, [3, 1, 99])
        assert list(some["number"]) == [1, 3]

    def test_studies_are_counted(self, store: Store) -> None:
        one, empty = fill(store, "one"), new_study(store, "empty").id
        counts = store.trial_counts([one, empty])
        assert counts[one] == {"finished": 1, "diverged": 1, "stopped": 1, "running": 1}
        assert counts[empty] == {}
        assert store.spent_flops() == {one: (1.5e9, 4), empty: (0.0, 0)}
        table = store.finished_columns([one, empty])
        assert (list(table["study_id"]), list(table["number"])) == ([one], [0])
        assert list(table["bits_per_byte"]) == [2.0]

    @pytest.mark.parametrize("most", [2, 5, 7, 39, 40, 1000])
    def test_a_curve_is_thinned_evenly(self, store: Store, most: int) -> None:
        study = fill(store, "one")
        running = store.evaluations(study)[-1].id
        points = [
            Progress(
                evaluation=running, step=3 * n, steps=120, flops=1e6 * n, loss=4.0, seconds=1.0 * n
            )
            for n in range(1, 41)
        ]
        store.add_progress(points)
        steps = store.curve_columns({running: -1}, most)[running]["step"]
        assert (len(steps), steps[0], steps[-1]) == (min(most, 40), 3, 120)
        gaps = [b - a for a, b in pairwise(steps)]
        assert max(gaps) - min(gaps) <= 3, "evenly, but for one point"
        later = store.curve_columns({running: 60, 10**6: -1}, 1000)
        assert list(later[running]["step"]) == list(range(63, 121, 3))
        assert later[10**6]["step"] == ()


def test_times_are_read_as_they_were_written(store: Store) -> None:
    study = new_study(store)
    at = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": {}}
    store.add_trial(study.id, FFNSpec(d_ff=8), at=at, **more)
    (text,) = store.evaluation_columns(study.id)["created_at"]
    assert moment(text) == at
