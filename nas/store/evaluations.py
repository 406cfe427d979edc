"""`Evaluations`: the store's part that begins, leases, ends and reads evaluations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from nas.store.beginning import begin, check_flops, there
from nas.store.database import Database
from nas.store.endings import settled
from nas.store.errors import StoreError
from nas.store.leases import late, take_oldest, take_over, taken_before
from nas.store.locks import lock_study, lock_study_of
from nas.store.log_lines import keep_lines
from nas.store.models import EVALUATION, RUN, TRIAL
from nas.store.outage import CALLED, lasting
from nas.store.reading import (
    read_evaluation,
    read_evaluations,
    read_result,
    read_runs,
    read_trial,
)
from nas.store.records import EvaluationRecord, Hold, MeasuredRun, TrialRecord
from nas.store.settling import go_on, settle, stand
from search_space.contract import EvalResult, LogLine, Status


class Evaluations(Database):
    """Begin, lease, end and find evaluations."""

    @lasting
    def add_evaluation(
        self,
        study_id: int,
        trial_id: int,
        *,
        seed: int,
        rung: int,
        until_flops: float,
        start_flops: float = 0.0,
        hold: Hold | None = None,
        at: datetime = CALLED,
    ) -> EvaluationRecord:
        """A new running evaluation, of a run that exists or begins with it; reserves its FLOPs.

        at: the time of the call; the same call again finds the evaluation of the first.
        Raises LeaseLost for a late driver, StoreError when the study has no such trial, or the
        run was at the rung before.
        """
        check_flops(until_flops, start_flops)
        with self._writing() as connection:
            study = lock_study(connection, study_id, hold)
            found = there(connection, study_id, trial_id, seed, rung)
            id = found.evaluation
            if id is None:
                id = begin(
                    connection, study_id, trial_id, found.run, at=at, seed=seed, rung=rung,
                    hold=hold, until_flops=until_flops, start_flops=start_flops,
                )  # fmt: skip
                stand(connection, trial_id, study.rungs)
            elif found.created_at != at:
                raise StoreError(f"run {found.run} was brought to rung {rung} before")
            return read_evaluation(connection, id)

    @lasting
    def claim(
        self,
        study_id: int,
        owner: str,
        hold: Hold | None = None,
        *,
        statuses: Sequence[Status] = (Status.RUNNING, Status.STOPPED),
        at: datetime = CALLED,
    ) -> EvaluationRecord | None:
        """Take up an evaluation that nobody works on, the oldest; None when there is none.

        Its attempt, the fencing token, is one higher than before, so that its former worker is
        refused. What was given back of its FLOPs when it was stopped is reserved again.
        What `owner` has claimed and not ended is never claimed by it again.
        at: the time of the call; the same call of the same owner finds what the first one took.
        """
        with self._writing() as connection:
            study = lock_study(connection, study_id, hold)
            id = taken_before(connection, study_id, owner, at)
            if id is None:
                id = take_oldest(connection, study_id, owner, at, statuses)
                if id is None:
                    return None
                go_on(connection, study, id)
            return read_evaluation(connection, id)

    @lasting
    def worker_lost(
        self,
        evaluation_id: int,
        attempt: int,
        owner: str,
        lines: Sequence[LogLine] = (),
        at: datetime = CALLED,
    ) -> EvaluationRecord:
        """Count a lost worker and take the evaluation up for the next; its attempt is one higher.

        lines: of the study's logs, to be recorded with it.
        at: the time of the call; the same call again counts nothing.
        Raises LeaseLost unless `attempt` is the evaluation's.
        """
        with self._writing() as connection:
            study = lock_study_of(connection, [evaluation_id])
            if study is None:
                raise late(evaluation_id, attempt)
            take_over(connection, study.id, evaluation_id, attempt, owner, at)
            keep_lines(connection, lines)
            return read_evaluation(connection, evaluation_id)

    @lasting
    def end_evaluation(
        self, result: EvalResult, lines: Sequence[LogLine] = (), at: datetime = CALLED
    ) -> tuple[TrialRecord, EvaluationRecord]:
        """Record how an evaluation ended and settle its reservation: every ending passes here.

        A stopped one can be claimed again; its FLOPs so far are charged once.
        lines: of the study's logs, to be recorded with it.
        at: the time of the call; the same call again finds the ending of the first.
        Raises StoreError when the status is no ending, LeaseLost when the evaluation is unknown,
        has ended, or the attempt is not the one that counts.
        """
        if not result.status.ended or result.status is Status.PAUSED:
            raise StoreError(f"{result.status} is not an ending of evaluation {result.evaluation}")
        ending = settled(result)
        with self._writing() as connection:
            study = lock_study_of(connection, [ending.evaluation])
            if study is None:
                raise late(ending.evaluation, ending.attempt)
            trial_id = settle(connection, study, ending, at)
            keep_lines(connection, lines)
            return read_trial(connection, trial_id), read_evaluation(connection, ending.evaluation)

    def evaluation(self, id: int) -> EvaluationRecord:
        """One evaluation; raise StoreError when it is unknown."""
        found = self._read(lambda session: read_evaluations(session, EVALUATION.c.id == id))
        if not found:
            raise StoreError(f"no evaluation with id {id}")
        return found[0]

    def evaluations(self, study_id: int) -> list[EvaluationRecord]:
        """The study's evaluations in the order in which they began."""
        mine = EVALUATION.c.study_id == study_id
        return self._read(lambda session: read_evaluations(session, mine))

    def some_evaluations(
        self, study_id: int, ids: Collection[int], *, since: int
    ) -> list[EvaluationRecord]:
        """The study's evaluations of these ids, and those with ids from `since` on.

        Ids only grow, and a final evaluation never changes: with those that were running or stopped
        at an earlier reading, and its last id plus one, this is all that can have happened since.
        """
        wanted = EVALUATION.c.id.in_(ids) | (EVALUATION.c.id >= since)
        where = EVALUATION.c.study_id == study_id, wanted
        return self._read(lambda session: read_evaluations(session, *where))

    def trial_evaluations(self, trial_id: int) -> list[EvaluationRecord]:
        """A trial's evaluations in the order in which they began."""
        return self._read(lambda session: read_evaluations(session, RUN.c.trial_id == trial_id))

    def result(self, evaluation_id: int) -> EvalResult:
        """How an evaluation ended, with its windows; raise StoreError when it is unknown."""
        found = self._read(lambda session: read_result(session, evaluation_id))
        if found is None:
            raise StoreError(f"no evaluation with id {evaluation_id}")
        return found

    def measured_runs(
        self, study_id: int, numbers: Collection[int], rung: int | None = None
    ) -> list[MeasuredRun]:
        """The measured runs of these trials with their windows, by trial, seed and rung.

        rung: the only one; None for all.
        """
        where = [EVALUATION.c.study_id == study_id, TRIAL.c.number.in_(numbers)]
        if rung is not None:
            where.append(EVALUATION.c.rung == rung)
        return self._read(lambda session: read_runs(session, *where, windows=True))

    def repeated_runs(self, study_id: int, top: int) -> list[MeasuredRun]:
        """The runs at the rung `top` of the trials that have several there, without windows."""
        where = (
            TRIAL.c.study_id == study_id,
            TRIAL.c.seeds > 1,
            TRIAL.c.rung == top,
            EVALUATION.c.rung == top,
        )
        return self._read(lambda session: read_runs(session, *where, windows=False))
