"""`Evaluations`: the store's part that begins, leases, ends and reads evaluations."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from nas.store.clock import db_seconds
from nas.store.database import Database
from nas.store.endings import settled, spent_flops
from nas.store.errors import LeaseLost, StoreError
from nas.store.holds import LEASE_SECONDS, touch
from nas.store.ledger import entry
from nas.store.models import EntryKind, EvaluationRow, RunRow, StudyRow, TrialRow
from nas.store.outage import lasting, now
from nas.store.reading import read_evaluations, read_result, read_trials
from nas.store.records import EvaluationRecord, Hold, TrialRecord
from nas.store.rows import result_values
from nas.store.standing import pooled_deviation, standing
from search_space.contract import EvalResult, Status

ANYBODY = "-"  # the owner of what no driver holds: of a store that is used without one
_NEW = {  # an evaluation before anything is known of it
    "losses": 0,
    "status": Status.RUNNING.value,
    "windows": b"",
    "steps": 0,
    "tokens": 0,
    "flops": 0.0,
    "optimizer_flops": 0.0,
    "trunk_flops": 0.0,
    "activity": [],
    "stats": {},
    "seconds": 0.0,
}
_OPEN = (Status.RUNNING.value, Status.STOPPED.value)


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
        at: datetime | None = None,
    ) -> EvaluationRecord:
        """A new running evaluation, of a run that exists or begins with it; reserves its FLOPs.

        at: the time of the call; the same call again finds the evaluation of the first.
        Raises LeaseLost for a late driver, StoreError when the run was at the rung before.
        """
        at = at or now()
        check_flops("until_flops", until_flops)
        with self._sessions.begin() as session:
            touch(session, study_id, hold, StudyRow.id)
            run = session.scalar(
                select(RunRow.id).where(RunRow.trial_id == trial_id, RunRow.seed == seed)
            )
            twin = (
                run
                and session.execute(
                    select(EvaluationRow.id, EvaluationRow.created_at).where(
                        EvaluationRow.run_id == run, EvaluationRow.rung == rung
                    )
                ).one_or_none()
            )
            if twin and twin.created_at != at:
                raise StoreError(f"run {run} was brought to rung {rung} before")
            id = twin.id if twin else add_row(
                session, study_id, trial_id, run, at=at, seed=seed, rung=rung, hold=hold,
                until_flops=until_flops, start_flops=start_flops,
            )  # fmt: skip
            stand(session, trial_id)
        return self.evaluation(id)

    @lasting
    def claim(self, study_id: int, owner: str, hold: Hold | None = None) -> EvaluationRecord | None:
        """Take up an evaluation that nobody works on, the oldest; None when there is none.

        Its attempt, the fencing token, is one higher than before, so that its former worker is
        refused. What was given back of its FLOPs when it was stopped is reserved again.
        """
        with self._sessions.begin() as session:
            touch(session, study_id, hold, StudyRow.id)
            free = (EvaluationRow.owner == "") | (EvaluationRow.lease_until < db_seconds())
            oldest = (
                select(EvaluationRow.id)
                .where(EvaluationRow.study_id == study_id, EvaluationRow.status.in_(_OPEN), free)
                .order_by(EvaluationRow.id)
                .limit(1)
                .scalar_subquery()
            )
            id = session.scalar(
                update(EvaluationRow)
                .where(EvaluationRow.id == oldest)
                .values(
                    attempt=EvaluationRow.attempt + 1,
                    owner=owner,
                    lease_until=db_seconds() + LEASE_SECONDS,
                )
                .returning(EvaluationRow.id)
            )
            if id is None:
                return None
            _begin_again(session, study_id, id)
        return self.evaluation(id)

    @lasting
    def worker_lost(
        self, evaluation_id: int, attempt: int, owner: str, at: datetime | None = None
    ) -> EvaluationRecord:
        """Count a lost worker and take the evaluation up for the next; its attempt is one higher.

        Raises LeaseLost unless `attempt` is the evaluation's.
        """
        with self._sessions.begin() as session:
            done = session.scalar(
                update(EvaluationRow)
                .where(*mine(evaluation_id, attempt))
                .values(
                    attempt=attempt + 1,
                    losses=EvaluationRow.losses + 1,
                    owner=owner,
                    lease_until=db_seconds() + LEASE_SECONDS,
                )
                .returning(EvaluationRow.id)
            )
            row = session.get(EvaluationRow, evaluation_id)
            again = row is not None and row.attempt == attempt + 1 and row.owner == owner
            if done is None and not again:
                raise late(evaluation_id, attempt)
        return self.evaluation(evaluation_id)

    @lasting
    def end_evaluation(
        self, result: EvalResult, at: datetime | None = None
    ) -> tuple[TrialRecord, EvaluationRecord]:
        """Record how an evaluation ended and settle its reservation: every ending passes here.

        A stopped one can be claimed again; its FLOPs so far are charged once.
        at: the time of the call; the same call again finds the ending of the first.
        Raises StoreError when the status is no ending or the evaluation is unknown, LeaseLost when
        the attempt is not the evaluation's or it has ended.
        """
        if not result.status.ended or result.status is Status.PAUSED:
            raise StoreError(f"{result.status} is not an ending of evaluation {result.evaluation}")
        ending, at = settled(result), at or now()
        with self._sessions.begin() as session:
            claim = session.execute(
                update(EvaluationRow)
                .where(*mine(result.evaluation, result.attempt))
                .values(status=ending.status.value, ended_at=at, owner="", lease_until=0.0)
                .returning(
                    EvaluationRow.study_id,
                    EvaluationRow.run_id,
                    EvaluationRow.reserved,
                    EvaluationRow.flops,
                )
            ).one_or_none()
            if claim is None:
                _check_same(session, ending, at)
            else:
                _settle(session, ending, *claim)
        return self._read(lambda session: _ended(session, result.evaluation))

    def evaluation(self, id: int) -> EvaluationRecord:
        """One evaluation; raise StoreError when it is unknown."""
        found = self._read(lambda session: read_evaluations(session, EvaluationRow.id == id))
        if not found:
            raise StoreError(f"no evaluation with id {id}")
        return found[0]

    def evaluations(self, study_id: int, since: int = 0) -> list[EvaluationRecord]:
        """The study's evaluations in the order in which they began; those with ids from `since`."""
        where = EvaluationRow.study_id == study_id, EvaluationRow.id >= since
        return self._read(lambda session: read_evaluations(session, *where))

    def trial_evaluations(self, trial_id: int) -> list[EvaluationRecord]:
        """A trial's evaluations in the order in which they began."""
        return self._read(lambda session: read_evaluations(session, RunRow.trial_id == trial_id))

    def running_evaluations(self, study_id: int) -> list[EvaluationRecord]:
        """The evaluations that are under way."""
        where = EvaluationRow.study_id == study_id, EvaluationRow.status == Status.RUNNING.value
        return self._read(lambda session: read_evaluations(session, *where))

    def result(self, evaluation_id: int) -> EvalResult:
        """How an evaluation ended, with its windows; raise StoreError when it is unknown."""
        found = self._read(lambda session: read_result(session, evaluation_id))
        if found is None:
            raise StoreError(f"no evaluation with id {evaluation_id}")
        return found


def add_row(
    session: Session,
    study_id: int,
    trial_id: int,
    run_id: int | None,
    *,
    at: datetime,
    seed: int,
    hold: Hold | None,
    rung: int,
    until_flops: float,
    start_flops: float,
) -> int:
    """Insert a running evaluation, its run when that is new, and its reservation."""
    if run_id is None:
        run = RunRow(trial_id=trial_id, seed=seed, created_at=at)
        session.add(run)
        session.flush()
        run_id = run.id
    reserved = until_flops - start_flops
    row = EvaluationRow(
        study_id=study_id,
        run_id=run_id,
        rung=rung,
        attempt=1,
        owner=hold.owner if hold else ANYBODY,
        lease_until=db_seconds() + LEASE_SECONDS,
        until_flops=until_flops,
        start_flops=start_flops,
        reserved=reserved,
        created_at=at,
        **_NEW,
    )
    session.add(row)
    session.flush()
    session.add(entry(study_id, row.id, EntryKind.RESERVE, reserved))
    session.flush()
    return row.id


def stand(session: Session, trial_id: int) -> None:
    """Write where a trial stands now into its row."""
    rows = session.execute(
        select(
            EvaluationRow.id,
            EvaluationRow.run_id,
            EvaluationRow.rung,
            EvaluationRow.status,
            EvaluationRow.bits_per_byte,
            EvaluationRow.active_flops,
            EvaluationRow.flops,
            EvaluationRow.ended_at,
        )
        .join(RunRow, RunRow.id == EvaluationRow.run_id)
        .where(RunRow.trial_id == trial_id)
    ).all()
    rungs = session.scalar(
        select(StudyRow.rungs)
        .join(TrialRow, TrialRow.study_id == StudyRow.id)
        .where(TrialRow.id == trial_id)
    )
    found = standing(rows, rungs or 1)
    values = asdict(found) | {"status": found.status.value}
    session.execute(update(TrialRow).where(TrialRow.id == trial_id).values(values))


def late(evaluation_id: int, attempt: int) -> LeaseLost:
    """What a late writer is told."""
    return LeaseLost(
        f"attempt {attempt} at evaluation {evaluation_id} is no longer the one that counts: it is "
        "unknown, has ended, or was taken over"
    )


def check_flops(name: str, value: float) -> None:
    """Raise StoreError unless FLOPs are a number that can be accounted for."""
    if not (math.isfinite(value) and value >= 0):
        raise StoreError(f"{name} must be a finite number of at least 0: got {value!r}")


def mine(evaluation_id: int, attempt: int) -> tuple[Any, ...]:
    """Finds an evaluation while the lease of that attempt counts."""
    return (
        EvaluationRow.id == evaluation_id,
        EvaluationRow.attempt == attempt,
        EvaluationRow.status == Status.RUNNING.value,
        EvaluationRow.owner != "",
    )


def _begin_again(session: Session, study_id: int, id: int) -> None:
    row = session.get_one(EvaluationRow, id)
    if row.status == Status.STOPPED.value:
        again = max(0.0, row.until_flops - row.start_flops - row.flops)
        row.status, row.reserved, row.error, row.ended_at = Status.RUNNING.value, again, "", None
        session.add(entry(study_id, id, EntryKind.RESERVE, again))
        session.flush()
    stand(session, session.get_one(RunRow, row.run_id).trial_id)


def _settle(
    session: Session, ending: EvalResult, study_id: int, run_id: int, reserved: float, before: float
) -> None:
    spent = max(0.0, spent_flops(ending.flops, before + reserved) - before)
    values = result_values(replace(ending, flops=before + spent)) | {"reserved": 0.0}
    session.execute(
        update(EvaluationRow).where(EvaluationRow.id == ending.evaluation).values(values)
    )
    session.add(entry(study_id, ending.evaluation, EntryKind.SPEND, spent))
    session.add(entry(study_id, ending.evaluation, EntryKind.REFUND, reserved - spent))
    session.flush()
    trial_id = session.get_one(RunRow, run_id).trial_id
    stand(session, trial_id)
    _pool_deviation(session, study_id, trial_id)


def _pool_deviation(session: Session, study_id: int, trial_id: int) -> None:
    """Write the deviation of one seed anew, when a trial has several."""
    seeds, rung = session.execute(
        select(TrialRow.seeds, TrialRow.rung).where(TrialRow.id == trial_id)
    ).one()
    if seeds < 2:
        return
    values: dict[int, list[float]] = {}
    query = (
        select(TrialRow.id, EvaluationRow.bits_per_byte)
        .join(RunRow, RunRow.trial_id == TrialRow.id)
        .join(EvaluationRow, EvaluationRow.run_id == RunRow.id)
        .where(
            TrialRow.study_id == study_id,
            TrialRow.seeds > 1,
            EvaluationRow.rung == rung,
            EvaluationRow.status == Status.FINISHED.value,
        )
    )
    for trial, bits in session.execute(query):
        values.setdefault(trial, []).append(bits)
    pooled = pooled_deviation(values.values())
    session.execute(update(StudyRow).where(StudyRow.id == study_id).values(deviation=pooled))


def _check_same(session: Session, ending: EvalResult, at: datetime) -> None:
    """Whether an earlier attempt of the same call recorded this very ending."""
    row = session.get(EvaluationRow, ending.evaluation)
    if row is None or (row.status, row.ended_at) != (ending.status.value, at):
        raise late(ending.evaluation, ending.attempt)


def _ended(session: Session, evaluation_id: int) -> tuple[TrialRecord, EvaluationRecord]:
    found = read_evaluations(session, EvaluationRow.id == evaluation_id)[0]
    return read_trials(session, TrialRow.id == found.trial_id)[0], found
