"""What the benchmark of faults finds wrong with a study, on studies that were made wrong."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import kills_study
from benchmarks.kills_check import (
    differs,
    ledger,
    ledger_difference,
    lost,
    lost_weights,
    twice,
)
from benchmarks.kills_faults import KINDS, Disturber, Stand, Tally, plan
from benchmarks.kills_study import CONFIG, Stuck, Study
from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.launcher import launch_study
from nas.store import Store
from search_space.contract import EvalResult, Status

pytestmark = pytest.mark.slow


def ends_well(request):
    result = EvalResult(
        evaluation=request.evaluation,
        attempt=request.attempt,
        status=Status.FINISHED,
        bits_per_byte=3.0 - 0.01 * (request.number % 7) - 0.1 * request.rung,
        bits_per_byte_se=0.01,
        flops=(request.until_flops - request.start_flops) * 0.99,
        trunk_flops=0.7 * request.until_flops,
        checkpoint="trial-gone" if request.checkpoint_dir else "",
    )
    return 1.0, [result]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of the benchmark's, in simulated time: its database and its configuration."""
    folder = tmp_path_factory.mktemp("finished")
    url, config = f"sqlite:///{folder}/nas.db", StudyConfig.from_dict(CONFIG | {"name": "s"})
    with Store.open(url) as store:
        launch_study(config, store, pool_factory=lambda config: SimulatedPool(2, ends_well))
    return url, config


@pytest.fixture
def records(finished):
    url, config = finished
    with Store.open(url, create=False) as store:
        study = store.study()
        return config, store.trials(study.id), store.evaluations(study.id)


def test_nothing_is_wrong_with_a_finished_study(finished, records):
    config, trials, evaluations = records
    assert lost(config, trials, evaluations) == []
    assert twice(trials, evaluations) == []
    assert ledger_difference(ledger(finished[0], 1), evaluations) == 0
    assert {each.rung for each in evaluations} == {0, 1, 2}
    assert len({each.seed for each in evaluations}) == 2


def test_what_is_owed_is_lost(records):
    config, trials, evaluations = records
    first = [each for each in evaluations if each.seed == config.seed]
    promoted = max(first, key=lambda each: each.rung)
    for missing in (promoted, evaluations[0], evaluations[-1]):
        assert lost(config, trials, [e for e in evaluations if e is not missing]), missing
    assert lost(config, trials[:-1], [e for e in evaluations if e.trial != trials[-1].number])
    assert lost(config, trials[1:], evaluations), "a warm start"
    for status in (Status.RUNNING, Status.STOPPED, Status.FAILED):
        worse = [replace(evaluations[3], status=status), *evaluations[:3], *evaluations[4:]]
        found = lost(config, trials, sorted(worse, key=lambda each: each.id))
        assert any(f"is {status.value}" in line for line in found)


def test_weights_that_are_gone_are_lost(finished, records):
    with Store.open(finished[0], create=False) as store:
        wrong = lost_weights(store, store.study(), records[1])
    assert wrong
    assert all("is gone" in line for line in wrong)


def test_what_is_there_twice_is_found(records):
    _, trials, evaluations = records
    assert twice(trials, [*evaluations, replace(evaluations[2], id=999)])
    assert twice([*trials, replace(trials[2], number=len(trials))], evaluations)
    assert twice(trials[1:], evaluations), "a gap"


def test_a_flop_that_is_charged_wrongly_is_found(finished, records):
    lines, evaluations = ledger(finished[0], 1), records[2]
    spent = next(line for line in lines if line[1] == "spend")
    held = next(line for line in lines if line[1] == "reserve")
    assert ledger_difference([*lines, (spent[0], "spend", 1.0)], evaluations) == 2
    assert ledger_difference([*lines, spent], evaluations) >= spent[2]
    assert ledger_difference([line for line in lines if line is not held], evaluations) > 0
    assert ledger_difference([*lines, (10_000, "reserve", 5.0)], evaluations) == 5
    dearer = [replace(evaluations[0], flops=evaluations[0].flops + 1), *evaluations[1:]]
    assert ledger_difference(lines, dearer) == 1


def test_a_measure_that_is_another_is_found():
    result = EvalResult(evaluation=1, status=Status.FINISHED, bits_per_byte=2.0, windows=[1.0, 2.0])
    assert differs(result, replace(result, evaluation=7, attempt=3, seconds=9.0)) == ""
    assert "bits_per_byte is 2.0" in differs(result, replace(result, bits_per_byte=2.1))
    assert "windows" in differs(result, replace(result, windows=[1.0]))
    assert "trunk_flops" in differs(result, replace(result, trunk_flops=1.0))


def test_faults_are_of_each_kind_and_in_an_order_of_the_seed():
    faults = plan(200, KINDS, random.Random(0))
    assert Counter(faults) == dict.fromkeys(KINDS, 40)
    assert set(faults[:5]) == set(faults[5:10]) == set(KINDS)
    assert faults == plan(200, KINDS, random.Random(0)) != plan(200, KINDS, random.Random(1))


@pytest.fixture
def study(tmp_path, finished):
    made = Study(tmp_path / "s", finished[0], tmp_path / "cache", 0)
    yield made
    made.close()


class Ended:
    """A driver's process that is there, or not."""

    def __init__(self, code):
        self.process, self.code = self, code

    def poll(self):
        return self.code

    def text(self):
        return "the last line"

    def end(self, seconds):
        return ""


def test_a_wait_has_an_end(study, monkeypatch):
    monkeypatch.setattr(kills_study, "LIMIT_SECONDS", 0.2)
    study.driver = Ended(None)
    with pytest.raises(Stuck, match=r"s: no pigs within 0\.2 s: the last line"):
        study.wait(lambda: False, "pigs")
    study.driver = Ended(1)
    assert not study.wait(lambda: False, "pigs")


def test_a_driver_that_ends_by_itself_is_told_of(study):
    tally = Tally()
    disturber = Disturber(study, [], 0, random.Random(0), tally, None)
    study.driver = Ended(1)
    assert not disturber._ended()
    assert tally.endings == ["s: exit code 1: the last line"]


def test_a_worker_lost_counts_as_made_good_once_its_evaluation_gets_on(study, monkeypatch):
    disturber = Disturber(study, [], 0, random.Random(0), Tally(), None)
    before = {1: Stand(1, 0, "running", 3), 2: Stand(1, 0, "running", 3)}
    now = dict(before)
    monkeypatch.setattr(study, "stands", lambda: now)
    disturber.waiting = "worker", 0.0, before
    now[2] = Stand(1, 0, "finished", 9)  # by the other worker
    now[3] = Stand(1, 0, "running", 2)
    assert not disturber._works()
    now[1] = Stand(2, 1, "running", 3)
    assert not disturber._works()
    now[1] = Stand(2, 1, "running", 4)
    assert disturber._works()


def test_no_design_is_made_to_lose_a_third_worker(study, monkeypatch):
    disturber = Disturber(study, ["worker", "gcs"], 9, random.Random(0), Tally(), None)
    monkeypatch.setattr(study, "stands", lambda: {1: Stand(3, 2, "running", 0)})
    assert disturber._next_kind() == "gcs"
    assert disturber._next_kind() is None
    assert disturber.faults == ["worker"]


def test_a_database_without_tables_has_no_evaluations(tmp_path, study):
    study._engine.dispose()
    sqlite3.connect(tmp_path / "empty.db").close()
    other = Study(tmp_path / "x", f"sqlite:///{tmp_path}/empty.db", tmp_path / "cache", 0)
    assert other.stands() == {}
    assert other.state() == ""
