"""Evaluations are counted by the database as their records would be."""

from __future__ import annotations

from collections import Counter

import pytest

from nas.store import Store
from nas.store.tallies import Speed, Tally
from search_space.contract import EvalResult, Status
from search_space.spec import FFNSpec

ENDINGS = (Status.FINISHED, Status.FINISHED, Status.DIVERGED, Status.STOPPED, None)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def fill(store: Store, name: str, seed: int) -> int:
    """A study of two rungs with evaluations in every state; its id."""
    study = store.create_study(name, {}, seed, 1e12, ["bits_per_byte"], rungs=2)
    for number, status in enumerate(ENDINGS):
        trial, first = store.add_trial(
            study.id, FFNSpec(d_ff=8 * (number + 1)), seed=seed, source="x", params={},
            until_flops=1e9, cost={},
        )  # fmt: skip
        if status is None:
            continue
        store.end_evaluation(EvalResult(evaluation=first.id, status=status, bits_per_byte=2.0))
        for more in (seed, seed + 1) if status is Status.FINISHED else ():
            again = store.add_evaluation(study.id, trial.id, seed=more, rung=1, until_flops=3e9)
            if number == 0:
                result = EvalResult(evaluation=again.id, status=Status.FINISHED, bits_per_byte=1.5)
                store.end_evaluation(result)
    return study.id


@pytest.mark.parametrize("seed", [0, 7])
def test_the_counts_are_those_of_the_records(store, seed):
    ids = [fill(store, "one", seed), fill(store, "two", seed + 1)]
    for id, own in zip(ids, (seed, seed + 1), strict=True):
        expected = Counter((e.rung, e.status, e.seed != own) for e in store.evaluations(id))
        found = {(t.rung, t.status, t.repeat): t.count for t in store.tallies(id)}
        assert found == expected and len(found) == len(store.tallies(id))
        assert expected[1, Status.RUNNING, True] == expected[1, Status.FINISHED, True] == 1


def test_a_study_without_evaluations_has_none(store):
    study = store.create_study("one", {}, 0, 1e12, ["bits_per_byte"])
    assert store.tallies(study.id) == []
    store.add_trial(
        study.id, FFNSpec(d_ff=8), seed=0, source="x", params={}, until_flops=1e9, cost={}
    )
    assert store.tallies(study.id) == [Tally(0, Status.RUNNING, False, 1)]


def test_the_speeds_are_those_of_evaluations_that_one_worker_finished(store):
    id = fill(store, "one", 0)
    (empty,) = [store.create_study("two", {}, 0, 1e12, ["bits_per_byte"]).id]
    assert store.speeds() == {}  # nothing took any time
    ended = [each for each in store.evaluations(id) if each.status is Status.FINISHED]
    study = store.create_study("three", {}, 0, 1e12, ["bits_per_byte"])
    for number, status in enumerate((Status.FINISHED, Status.FINISHED, Status.FAILED)):
        _, evaluation = store.add_trial(
            study.id, FFNSpec(d_ff=8 * (number + 1)), seed=0, source="x", params={},
            until_flops=1e9, cost={},
        )  # fmt: skip
        bits = 2.0 if status is Status.FINISHED else None
        store.end_evaluation(
            EvalResult(
                evaluation=evaluation.id,
                status=status,
                bits_per_byte=bits,
                flops=1e9,
                seconds=2.0 + number,
            )
        )
    assert ended
    assert store.speeds() == {study.id: Speed(2e9, 5.0, 2)}
    assert empty not in store.speeds()
