"""Leases: one worker an evaluation, one driver a study, and late writers are refused."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from itertools import count

import pytest
from patience import WAIT_S
from sqlalchemy import text
from store_cases import at_rung, ending, finished, new_study, new_trial

from nas.store import (
    EvaluationRecord,
    Hold,
    LeaseLost,
    Store,
    StoreError,
    StudyHeld,
    StudyRecord,
    StudyState,
    clock,
)
from search_space.contract import Progress, Status

pytestmark = pytest.mark.slow

STOP_FLOPS = 3e11


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return new_study(store, rungs=2)


@pytest.fixture
def hold(store: Store, study: StudyRecord) -> Hold:
    return store.hold_study(study.id, "first")


@pytest.fixture(autouse=True)
def the_account_is_exact(request: pytest.FixtureRequest):
    """After every test here, the lines of each ledger add up to what the store says it is."""
    store = request.getfixturevalue("store") if "store" in request.fixturenames else None
    yield
    for each in store.studies() if store else ():
        check_account(store, each)


def check_account(store: Store, study: StudyRecord) -> None:
    with store._engine.connect() as connection:
        lines = connection.execute(
            text(
                "SELECT evaluation_id, kind, SUM(flops) FROM ledger_entry "
                "WHERE study_id = :id GROUP BY evaluation_id, kind"
            ),
            {"id": study.id},
        ).all()
    sums = {(id, kind): flops for id, kind, flops in lines}
    evaluations = store.evaluations(study.id)
    assert {id for id, _ in sums} == {evaluation.id for evaluation in evaluations}
    for each in evaluations:
        reserved, spent, refund = (
            sums.get((each.id, kind), 0.0) for kind in ("reserve", "spend", "refund")
        )
        assert spent == each.flops
        assert reserved - spent - refund == each.reserved
        assert (each.reserved > 0) == (each.status is Status.RUNNING)
    ledger = store.ledger(study.id)
    assert ledger.spent == sum(each.flops for each in evaluations)
    assert ledger.reserved == sum(each.reserved for each in evaluations)
    for trial in store.trials(study.id):
        own = store.trial_evaluations(trial.id)
        assert trial.flops == sum(each.flops for each in own)


def run_out(store: Store, table: str, id: int) -> None:
    """Let a lease have ended a second ago."""
    with store._sessions.begin() as session:
        session.execute(
            text(f"UPDATE {table} SET lease_until = lease_until - 61 WHERE id = :id"), {"id": id}
        )


def point(evaluation: EvaluationRecord, step: int = 1) -> Progress:
    return Progress(
        evaluation=evaluation.id,
        attempt=evaluation.attempt,
        step=step,
        steps=9,
        flops=1e9,
        loss=1.0,
        seconds=1.0,
    )


def refused(store: Store, late: EvaluationRecord) -> None:
    """All that a late writer may try."""
    with pytest.raises(LeaseLost, match=f"attempt {late.attempt} at evaluation {late.id} is no"):
        store.add_progress([point(late)])
    with pytest.raises(LeaseLost, match=f"attempt {late.attempt} at evaluation {late.id} is no"):
        store.end_evaluation(finished(late))
    with pytest.raises(LeaseLost, match=f"attempt {late.attempt} at evaluation {late.id} is no"):
        store.worker_lost(late.id, late.attempt, "late")


class TestClaims:
    def test_nobody_claims_his_own_again(self, store: Store, study) -> None:
        """A machine that was suspended has let its leases run out, and works on."""
        _, first = new_trial(store, study)
        _, second = new_trial(store, study)
        for each in (first, second):
            run_out(store, "evaluation", each.id)
        assert store.claim(study.id, "me").id == first.id
        run_out(store, "evaluation", first.id)
        assert store.claim(study.id, "me").id == second.id
        run_out(store, "evaluation", second.id)
        assert store.claim(study.id, "me") is None
        assert store.claim(study.id, "other").id == first.id

    def test_what_was_stopped_can_be_passed_over(self, store: Store, study) -> None:
        _, evaluation = new_trial(store, study)
        store.end_evaluation(ending(evaluation, Status.STOPPED, 1e9))
        assert store.claim(study.id, "me", statuses=(Status.RUNNING,)) is None
        assert store.claim(study.id, "me").id == evaluation.id

    def test_nothing_that_somebody_works_on_is_claimed(self, store: Store, study) -> None:
        assert store.claim(study.id, "me") is None
        _, evaluation = new_trial(store, study)
        assert store.claim(study.id, "me") is None
        assert store.evaluation(evaluation.id) == evaluation

    def test_a_lease_that_ran_out_is_taken_and_its_former_owner_refused(
        self, store: Store, study
    ) -> None:
        _, first = new_trial(store, study)
        run_out(store, "evaluation", first.id)
        taken = store.claim(study.id, "me")
        assert (taken.id, taken.attempt, taken.owner) == (first.id, 2, "me")
        assert (taken.losses, taken.reserved) == (0, first.reserved)
        refused(store, first)
        assert store.claim(study.id, "other") is None
        run_out(store, "evaluation", first.id)
        third = store.claim(study.id, "other")
        assert (third.attempt, third.owner) == (3, "other")
        for late in (first, taken):
            refused(store, late)
        assert store.curve(first.id) == []
        store.end_evaluation(finished(third))
        refused(store, third)
        assert store.claim(study.id, "me") is None, "what has ended is not taken up"
        assert store.ledger(study.id).spent == 9e11

    def test_a_sign_of_life_prolongs_a_lease(self, store: Store, study, monkeypatch) -> None:
        monkeypatch.setattr(clock, "LEASE_SECONDS", 0.5)
        _, evaluation = new_trial(store, study)
        for step in range(1, 5):
            time.sleep(0.2)
            store.add_progress([point(evaluation, step)])
            assert store.claim(study.id, "me") is None
        time.sleep(0.6)
        assert store.claim(study.id, "me").attempt == 2

    def test_the_oldest_comes_first_stopped_or_abandoned(self, store: Store, study) -> None:
        evaluations = [new_trial(store, study)[1] for _ in range(4)]
        store.end_evaluation(ending(evaluations[1], Status.STOPPED, STOP_FLOPS))
        run_out(store, "evaluation", evaluations[2].id)
        run_out(store, "evaluation", evaluations[3].id)
        store.end_evaluation(ending(evaluations[0], Status.FAILED, 1e11))
        claimed = [store.claim(study.id, "me").id for _ in range(3)]
        assert claimed == [each.id for each in evaluations[1:]]
        assert store.claim(study.id, "me") is None

    def test_another_study_has_its_own(self, store: Store, study) -> None:
        other = new_study(store)
        _, evaluation = new_trial(store, other)
        store.end_evaluation(ending(evaluation, Status.STOPPED, STOP_FLOPS))
        assert store.claim(study.id, "me") is None
        assert store.claim(other.id, "me").id == evaluation.id

    def test_a_lost_worker_is_counted_and_its_words_come_too_late(
        self, store: Store, study
    ) -> None:
        _, first = new_trial(store, study)
        store.add_progress([point(first)])
        second = store.worker_lost(first.id, first.attempt, "me")
        assert (second.attempt, second.losses, second.owner) == (2, 1, "me")
        assert second.reserved == first.reserved, "nothing is paid for or given back by a loss"
        refused(store, first)
        third = store.worker_lost(first.id, second.attempt, "me")
        assert (third.attempt, third.losses) == (3, 2)
        refused(store, second)
        assert store.curve(first.id) == [Progress(**(vars(point(first)) | {"attempt": 1}))]
        ended, _ = store.end_evaluation(finished(third))
        assert (ended.status, ended.seeds) == (Status.PAUSED, 1)
        with pytest.raises(LeaseLost, match=r"evaluation 99 .*unknown"):
            store.worker_lost(99, 1, "me")

    def test_stopped_claimed_and_ended_pays_for_each_flop_once(self, store: Store, study) -> None:
        trial, low = new_trial(store, study, flops=1e12)
        store.end_evaluation(finished(low, flops=1.2e12, trunk_flops=8e11))
        high = at_rung(store, study, trial, 1, 3e12, start_flops=8e11)
        store.end_evaluation(ending(high, Status.STOPPED, 1e12))
        assert store.trial(study.id, 0).status is Status.STOPPED
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (0.0, 2.2e12)
        again = store.claim(study.id, "me")
        assert (again.status, again.attempt, again.reserved) == (Status.RUNNING, 2, 1.2e12)
        refused(store, high)
        ended, measured = store.end_evaluation(finished(again, flops=2.25e12, bits_per_byte=1.5))
        assert (measured.flops, ended.flops) == (2.25e12, 1.2e12 + 2.25e12)
        assert (ended.status, ended.rung, ended.bits_per_byte) == (Status.FINISHED, 1, 1.5)
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (0.0, 1.2e12 + 2.25e12)

    def test_an_ending_that_makes_no_sense_after_a_stop_costs_the_reservation(
        self, store: Store, study
    ) -> None:
        _, first = new_trial(store, study, flops=1e12)
        store.end_evaluation(ending(first, Status.STOPPED, STOP_FLOPS))
        again = store.claim(study.id, "me")
        store.end_evaluation(ending(again, Status.FAILED, float("nan")))
        assert store.ledger(study.id).spent == 1e12


class TestHolds:
    def test_a_second_driver_is_told_who_and_since_when(self, store: Store, study) -> None:
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert store.lease_left(study.id) <= 0
        store.hold_study(study.id, "host:1", at=at)
        assert 50 < store.lease_left(study.id) <= 60
        with pytest.raises(StudyHeld) as caught:
            store.hold_study(study.id, "host:2")
        said = str(caught.value)
        assert "a study has one driver: host:1 holds 'demo' since 2026-01-02 03:04:05 UTC" in said
        assert re.search(r"nas stop demo; if it is dead, its hold ends in (60|59|58) s$", said)
        assert store.study("demo").owner == "host:1"
        with pytest.raises(StoreError, match="no study with id 99"):
            store.hold_study(99, "host:1")

    @pytest.mark.parametrize("how", ["dead", "run out", "released"])
    def test_a_study_is_taken_over_and_the_former_driver_refused(
        self, store: Store, study, hold: Hold, how: str
    ) -> None:
        trial, mine = new_trial(store, study, hold=hold)
        if how == "run out":
            run_out(store, "study", study.id)
        if how == "released":
            store.release(hold, StudyState.STOPPED)
            assert store.study("demo").state is StudyState.STOPPED
        second = store.hold_study(study.id, "second", dead="first" if how == "dead" else "")
        assert (second.owner, second.fence) == ("second", hold.fence + 1)
        assert (store.study("demo").owner, store.study("demo").state) == (
            "second", StudyState.RUNNING,
        )  # fmt: skip
        late = "study demo was taken over .*; second holds it since .* UTC; nothing more"
        for write in (
            lambda: new_trial(store, study, hold=hold),
            lambda: at_rung(store, study, trial, 1, 1e12, hold=hold),
            lambda: store.claim(study.id, "first", hold),
            lambda: store.extend(hold, {}, 1.0),
            lambda: store.renew(hold),
            lambda: store.release(hold, StudyState.FAILED),
        ):
            with pytest.raises(LeaseLost, match=late):
                write()
        refused(store, mine)
        assert [each.id for each in store.trials(study.id)] == [trial.id]
        assert store.study("demo").budget_flops == 1e13
        again = store.claim(study.id, "second", second)
        assert (again.id, again.attempt, again.owner) == (mine.id, 2, "second")
        assert new_trial(store, study, hold=second)[0].number == 1

    def test_a_driver_of_the_same_name_is_told_from_the_former_by_its_fence(
        self, store: Store, study, hold: Hold
    ) -> None:
        _, mine = new_trial(store, study, hold=hold)
        again = store.hold_study(study.id, "first", dead="first")
        assert again.fence == hold.fence + 1
        for write in (
            lambda: new_trial(store, study, hold=hold),
            lambda: store.claim(study.id, "first", hold),
            lambda: store.renew(hold),
            lambda: store.release(hold, StudyState.FAILED),
        ):
            with pytest.raises(LeaseLost, match="study demo was taken over"):
                write()
        refused(store, mine)
        assert store.renew(again) == ""

    def test_an_owner_of_another_name_is_not_taken_for_dead(
        self, store: Store, study, hold
    ) -> None:
        with pytest.raises(StudyHeld):
            store.hold_study(study.id, "second", dead="somebody")
        assert store.renew(hold) == ""

    def test_a_hold_frees_every_evaluation_that_runs_and_no_result(
        self, store: Store, study, hold: Hold
    ) -> None:
        evaluations = [new_trial(store, study, hold=hold)[1] for _ in range(3)]
        store.end_evaluation(finished(evaluations[0]))
        before = store.evaluation(evaluations[0].id)
        store.hold_study(study.id, "second", dead="first")
        assert [each.owner for each in store.evaluations(study.id)] == ["", "", ""]
        assert store.evaluation(evaluations[0].id) == before
        claimed = [store.claim(study.id, "second") for _ in range(3)]
        assert [each and each.id for each in claimed] == [
            evaluations[1].id, evaluations[2].id, None,
        ]  # fmt: skip

    def test_a_driver_hears_what_it_is_asked_while_it_holds(self, store: Store, study) -> None:
        assert not store.ask(study.id, "stop"), "nobody holds it"
        hold = store.hold_study(study.id, "first")
        assert store.renew(hold) == ""
        assert store.ask(study.id, "stop")
        assert [store.renew(hold) for _ in range(2)] == ["stop", "stop"]
        store.release(hold, StudyState.STOPPED)
        assert not store.ask(study.id, "stop")
        hold = store.hold_study(study.id, "second")
        assert store.renew(hold) == "", "a new driver is not asked what the former one was"
        run_out(store, "study", study.id)
        assert not store.ask(study.id, "stop"), "its driver gave no sign of life"

    def test_renewing_prolongs_the_hold_and_its_evaluations(
        self, store: Store, study, hold: Hold
    ) -> None:
        mine = new_trial(store, study, hold=hold)[1]
        stranger = new_trial(store, study)[1]
        for each in (mine, stranger):
            run_out(store, "evaluation", each.id)
        run_out(store, "study", study.id)
        assert store.lease_left(study.id) < 0
        store.renew(hold)  # late, and nobody took it meanwhile
        assert store.lease_left(study.id) > 50
        assert store.claim(study.id, "me").id == stranger.id
        assert store.claim(study.id, "me") is None

    def test_a_release_says_how_the_study_ended(self, store: Store, study, hold: Hold) -> None:
        store.release(hold, StudyState.FINISHED)
        ended = store.study("demo")
        assert (ended.state, ended.owner) == (StudyState.FINISHED, "")
        assert ended.ended_at is not None
        again = store.hold_study(study.id, "second")
        assert store.study("demo").ended_at is None
        store.release(again, StudyState.RUNNING)
        assert (store.study("demo").state, store.study("demo").ended_at) == (
            StudyState.RUNNING, None,
        )  # fmt: skip

    def test_one_of_many_gets_the_hold(self, store: Store, study) -> None:
        got, barrier = [], threading.Barrier(8)

        def take(name: str) -> None:
            barrier.wait()
            try:
                got.append(store.hold_study(study.id, name).owner)
            except StudyHeld:
                got.append(None)

        threads = [threading.Thread(target=take, args=(f"driver {n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 8
        (winner,) = (name for name in got if name)
        assert store.study("demo").owner == winner


def test_writers_of_all_kinds_never_wait_for_each_other_in_a_ring(store: Store, caplog) -> None:
    """Progress, endings, losses, claims, renewals and holds, all at once on one study."""
    study = new_study(store, rungs=1)
    hold = [store.hold_study(study.id, "0")]
    evaluations = [new_trial(store, study, hold=hold[0])[1] for _ in range(12)]
    deadline, errors, steps = time.monotonic() + 3, [], count(1)

    def repeat(write) -> None:
        while time.monotonic() < deadline and not errors:
            try:
                write()
            except (LeaseLost, StudyHeld):
                pass  # which of them comes first is left to chance
            except Exception as error:  # the main thread reports it
                errors.append(error)

    def progress() -> None:
        step = next(steps)
        store.add_progress([point(store.evaluation(each.id), step) for each in evaluations])

    def take_over() -> None:
        hold[0] = store.hold_study(study.id, str(next(steps)), dead=hold[0].owner)

    def work() -> None:
        mine = store.claim(study.id, "worker")
        if mine is not None:
            # So little that no number of steps spends all that was reserved.
            store.end_evaluation(ending(mine, Status.STOPPED, 1e3 * next(steps)))

    def lose() -> None:
        for each in evaluations:
            now = store.evaluation(each.id)
            store.worker_lost(now.id, now.attempt, "loser")

    def renew() -> None:
        store.renew(hold[0])

    writes = (progress, progress, take_over, work, work, lose, renew)
    threads = [threading.Thread(target=repeat, args=(write,)) for write in writes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert "trying again" not in caplog.text, "a deadlock or a lock that was not waited for"
    check_account(store, study)


WRITERS = """
import logging, multiprocessing, os, sys, time
from nas.store import Store
from search_space.contract import EvalResult, Status
from search_space.spec import FFNSpec

logging.basicConfig(level=logging.WARNING)
url, processes, trials = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fork = multiprocessing.get_context("fork")  # nothing is open yet, and one import serves all
barrier = fork.Barrier(processes)

def say(*words):  # a line in one write, which others' cannot break up
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def work(name):
    with Store.open(url) as store:
        study = store.study("shared")
        barrier.wait()
        began, times = time.monotonic(), []
        for _ in range(trials):
            trial, evaluation = store.add_trial(
                study.id, FFNSpec(d_ff=8), seed=0, source=name, params={}, until_flops=10.0, cost={}
            )
            say("added", trial.number)
        while (mine := store.claim(study.id, name)) is not None:
            say("claimed", mine.id, mine.attempt)
            store.end_evaluation(
                EvalResult(evaluation=mine.id, attempt=mine.attempt, status=Status.FINISHED,
                           bits_per_byte=2.0, flops=9.0)
            )
        say("seconds", time.monotonic() - began)

writers = [fork.Process(target=work, args=(f"writer {n}",)) for n in range(processes)]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
sys.exit(max(writer.exitcode for writer in writers))
"""
PROCESSES, OPEN, TRIALS = 16, 96, 8


def test_sixteen_processes_share_one_database(url: str) -> None:
    with Store.open(url) as store:
        study = new_study(store, "shared")
        for _ in range(OPEN):
            _, evaluation = new_trial(store, study, flops=10.0)
            store.end_evaluation(ending(evaluation, Status.STOPPED, 4.0))
        command = [sys.executable, "-c", WRITERS, url, str(PROCESSES), str(TRIALS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
        assert (done.returncode, done.stderr) == (0, ""), "a lock that was not waited for"
        said: dict[str, list[list[str]]] = {"added": [], "claimed": [], "seconds": []}
        for line in done.stdout.splitlines():
            word, *values = line.split()
            said[word].append(values)
        added = sorted(int(number) for (number,) in said["added"])
        assert added == list(range(OPEN, OPEN + PROCESSES * TRIALS)), "no gap and no duplicate"
        claimed = sorted(int(id) for id, _ in said["claimed"])
        assert claimed == list(range(1, OPEN + 1)), "each open evaluation is claimed once"
        assert {attempt for _, attempt in said["claimed"]} == {"2"}
        assert [t.number for t in store.trials(study.id)] == list(range(OPEN + len(added)))
        assert store.ledger(study.id).spent == OPEN * 9.0
        assert len(said["seconds"]) == PROCESSES
        assert max(float(seconds) for (seconds,) in said["seconds"]) < 30
        check_account(store, study)
