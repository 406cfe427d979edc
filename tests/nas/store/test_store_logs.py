"""What every backend of the store must do with logs, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, select, text
from store_cases import ending, finished, new_study, new_trial

from nas.store import EvaluationLog, EvaluationRecord, LeaseLost, Store
from nas.store.models import LOG_LINE
from search_space.contract import LogLine, Progress, Status

AT = datetime(2026, 3, 4, 5, 6, 7, 891_000, tzinfo=UTC)


def said(evaluation: EvaluationRecord, number: int, words: str = "") -> LogLine:
    return LogLine(
        evaluation=evaluation.id,
        attempt=evaluation.attempt,
        number=number,
        at=AT + timedelta(seconds=number),
        level="warning" if number % 2 else "info",
        text=words or f"line {number} of attempt {evaluation.attempt}",
    )


def point(evaluation: EvaluationRecord, step: int) -> Progress:
    more = {"steps": 9, "flops": float(step), "loss": 1.0, "seconds": 1.0}
    return Progress(evaluation=evaluation.id, attempt=evaluation.attempt, step=step, **more)


def kept(store: Store, evaluation: EvaluationRecord, most: int = 99) -> tuple[LogLine, ...]:
    return store.log_lines([evaluation.id], most)[evaluation.id].lines


class TestLogs:
    def test_lines_come_with_points_and_read_back_equal_in_order(self, store: Store) -> None:
        _, one = new_trial(store, new_study(store))
        lines = [said(one, number) for number in (1, 2, 3)]
        store.add_progress([point(one, 1)], lines[1:])
        store.add_progress([], lines[:1])
        assert kept(store, one) == tuple(lines)
        assert len(store.curve(one.id)) == 1
        store.add_progress([], [])  # asks the database nothing

    def test_a_line_that_is_there_stays_as_it_is(self, store: Store) -> None:
        _, one = new_trial(store, new_study(store))
        store.add_progress([], [said(one, 1)])
        store.add_progress([point(one, 1)], [said(one, 1, "again"), said(one, 2)])
        assert kept(store, one) == (said(one, 1), said(one, 2))

    def test_the_newest_are_read_and_the_others_counted(self, store: Store) -> None:
        study = new_study(store)
        one, two, three = (new_trial(store, study)[1] for _ in range(3))
        store.add_progress([], [said(one, number) for number in range(1, 8)] + [said(two, 1)])
        assert store.log_lines([one.id, two.id, three.id], 3) == {
            one.id: EvaluationLog(tuple(said(one, number) for number in (5, 6, 7)), 4),
            two.id: EvaluationLog((said(two, 1),), 0),
            three.id: EvaluationLog((), 0),
        }
        assert store.log_lines([], 3) == {}

    def test_a_lost_worker_and_its_successor_have_a_log_in_the_order_of_attempts(
        self, store: Store
    ) -> None:
        _, first = new_trial(store, new_study(store))
        store.add_progress([], [said(first, 1)])
        second = store.worker_lost(first.id, first.attempt, "me", [said(first, 2)])
        again = [said(second, 0), said(second, 1)]
        store.add_progress([point(second, 1)], again)
        store.end_evaluation(finished(second), [said(second, 2)])
        expected = (said(first, 1), said(first, 2), *again, said(second, 2))
        assert kept(store, first) == expected

    def test_a_stopped_evaluation_that_is_claimed_keeps_what_was_said(self, store: Store) -> None:
        study = new_study(store)
        _, first = new_trial(store, study)
        store.end_evaluation(ending(first, Status.STOPPED, 4e11), [said(first, 1)])
        again = store.claim(study.id, "next")
        assert again is not None
        store.add_progress([], [said(again, 1)])
        assert kept(store, again) == (said(first, 1), said(again, 1))

    def test_a_driver_that_lives_brings_lines(self, store: Store) -> None:
        study = new_study(store)
        hold = store.hold_study(study.id, "me")
        _, one = new_trial(store, study, hold=hold)
        assert store.renew(hold, [said(one, 1)]) == ""
        store.hold_study(study.id, "next", dead="me")
        with pytest.raises(LeaseLost):
            store.renew(hold, [said(one, 2)])
        assert kept(store, one) == (said(one, 1),)

    def test_a_late_writers_lines_are_left_out_and_others_kept(self, store: Store) -> None:
        study = new_study(store)
        (_, late), (_, other) = new_trial(store, study), new_trial(store, study)
        now = store.worker_lost(late.id, late.attempt, "me")
        with pytest.raises(LeaseLost, match=f"attempt 1 at evaluation {late.id}"):
            store.add_progress([point(other, 1)], [said(late, 1), said(other, 1)])
        assert (kept(store, late), kept(store, other)) == ((), (said(other, 1),))
        with pytest.raises(LeaseLost):
            store.worker_lost(late.id, late.attempt, "me", [said(late, 2)])
        with pytest.raises(LeaseLost):
            store.end_evaluation(finished(late), [said(late, 3)])
        unknown = replace(said(now, 1), evaluation=99)
        with pytest.raises(LeaseLost):
            store.add_progress([], [unknown])
        assert kept(store, now) == ()

    def test_texts_that_no_database_takes_and_secrets_are_stored_without(
        self, store: Store
    ) -> None:
        _, one = new_trial(store, new_study(store))
        odd = "a\0b \ud800 **c** :d: 表\n  postgresql://me:secret@host/x " + "\x01" * 2_000
        store.add_progress([], [said(one, 1, odd)])
        (line,) = kept(store, one)
        assert line.text.startswith(
            "a\\x00b \\ud800 **c** :d: 表\n  postgresql://me:***@host/x \\x01"
        )
        assert len(line.text) == 4_000

    def test_a_deleted_study_takes_its_lines_along(self, store: Store) -> None:
        study, other = new_study(store), new_study(store)
        (_, one), (_, two) = new_trial(store, study), new_trial(store, other)
        store.add_progress([], [said(one, 1)])
        store.add_progress([], [said(two, 1)])
        with store._engine.begin() as connection:
            connection.execute(text(f"DELETE FROM study WHERE id = {study.id}"))
            assert connection.scalar(select(func.count()).select_from(LOG_LINE)) == 1
        assert kept(store, two) == (said(two, 1),)

    def test_lines_cost_no_commit(self, store: Store) -> None:
        study = new_study(store)
        hold = store.hold_study(study.id, "me")
        (_, one), (_, two) = (new_trial(store, study, hold=hold) for _ in range(2))
        commits = []
        event.listen(store._engine, "commit", commits.append)
        store.add_progress([point(one, 1)], [said(one, 1)])
        store.renew(hold, [said(one, 2)])
        again = store.worker_lost(one.id, one.attempt, "me", [said(one, 3)])
        store.end_evaluation(finished(two), [said(two, 1)])
        assert len(commits) == 4
        assert [line.number for line in kept(store, again)] == [1, 2, 3]
