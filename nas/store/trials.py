"""`Trials`: the store's part that begins, ends and reads trials, and the account of their FLOPs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update

from nas.store.database import Database
from nas.store.endings import settled, spent_flops
from nas.store.errors import StoreError
from nas.store.ledger import balance, entry
from nas.store.models import EntryKind, StudyRow, TrialRow
from nas.store.outage import lasting, now
from nas.store.reading import read_measures, read_trials
from nas.store.records import Ledger, TrialMeasures, TrialRecord
from nas.store.rows import result_row, trial_record
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.spec import FFNSpec


class Trials(Database):
    """Begin, end and find trials."""

    @lasting
    def add_trial(
        self,
        study_id: int,
        spec: FFNSpec,
        *,
        seed: int,
        source: str,
        params: dict[str, Any],
        train_flops: float,
        cost: dict[str, float],
        at: datetime | None = None,
    ) -> TrialRecord:
        """A new running trial with the study's next number; reserves `train_flops` for it.

        at: the time of the call; the same call again finds the trial of the first.
        """
        _check_flops("train_flops", train_flops)
        at = at or now()
        with self._sessions.begin() as session:
            n_trials = session.scalar(
                update(StudyRow)
                .where(StudyRow.id == study_id)
                .values(n_trials=StudyRow.n_trials + 1)
                .returning(StudyRow.n_trials)
            )
            if n_trials is None:
                raise StoreError(f"no study with id {study_id}")
            if twins := read_trials(session, *_added(study_id, spec.key, at)):
                session.rollback()
                return twins[0]
            row = TrialRow(
                study_id=study_id,
                number=n_trials - 1,
                spec=spec.to_dict(),
                key=spec.key,
                params=params,
                seed=seed,
                source=source,
                train_flops=train_flops,
                cost=cost,
                status=Status.RUNNING.value,
                created_at=at,
            )
            session.add(row)
            session.flush()
            session.add(entry(study_id, row.id, EntryKind.RESERVE, train_flops))
        return trial_record(row, None)

    @lasting
    def end_trial(self, result: EvalResult, at: datetime | None = None) -> TrialRecord:
        """Record how a trial ended and settle its reservation: every ending passes here.

        at: the time of the call; the same call again finds the ending of the first.
        Raises StoreError when the status is no ending, the trial is unknown, or it ended before.
        """
        if not result.status.ended:
            raise StoreError(f"{result.status} is not an ending of trial {result.trial}")
        ending, at = settled(result), at or now()
        with self._sessions.begin() as session:
            # Only the first of two endings finds the trial running.
            claim = session.execute(
                update(TrialRow)
                .where(TrialRow.id == result.trial, TrialRow.status == Status.RUNNING.value)
                .values(status=ending.status.value, ended_at=at)
                .returning(TrialRow.study_id, TrialRow.train_flops)
            ).one_or_none()
            if claim is None:
                row = session.get(TrialRow, result.trial)
                if row is None or (row.status, row.ended_at) != (ending.status.value, at):
                    raise StoreError(f"trial {result.trial} is unknown or has ended before")
            else:
                study_id, reserved = claim
                spent = spent_flops(result.flops, reserved)
                session.add(result_row(replace(ending, flops=spent)))
                session.add(entry(study_id, result.trial, EntryKind.SPEND, spent))
                session.add(entry(study_id, result.trial, EntryKind.REFUND, reserved - spent))
        found = self._read(lambda session: read_trials(session, TrialRow.id == result.trial))
        return found[0]

    def trials(
        self, study_id: int, statuses: Iterable[Status] | None = None, *, stats: bool = True
    ) -> list[TrialRecord]:
        """The study's trials by number, all or those with one of `statuses`.

        stats: read `EvalResult.stats`, too; they are most of a trial's bytes.
        """
        where: list[ColumnElement[bool]] = [TrialRow.study_id == study_id]
        if statuses is not None:
            where.append(TrialRow.status.in_([status.value for status in statuses]))
        return self._read(lambda session: read_trials(session, *where, stats=stats))

    def some_trials(
        self, study_id: int, numbers: Collection[int] = (), *, since: int | None = None
    ) -> list[TrialRecord]:
        """The trials of these numbers, and those from the number `since` on, without stats.

        An ended trial never changes and numbers only grow: with the trials that were running and
        the number of those that were known, this is all that can have happened since.
        """
        wanted: ColumnElement[bool] = TrialRow.number.in_(numbers)
        if since is not None:
            wanted = or_(wanted, TrialRow.number >= since)
        mine = TrialRow.study_id == study_id
        return self._read(lambda session: read_trials(session, mine, wanted, stats=False))

    def measures(self, study_id: int) -> list[TrialMeasures]:
        """What comparing the study's trials needs, by number: a tenth of `trials`' time."""
        return self._read(lambda session: read_measures(session, study_id))

    def trial(self, study_id: int, number: int) -> TrialRecord:
        """One trial of the study; raise InputError when it has none of that number."""
        where = TrialRow.study_id == study_id, TrialRow.number == number
        count = select(StudyRow.n_trials).where(StudyRow.id == study_id)
        found, trials = self._read(
            lambda session: (read_trials(session, *where), session.scalar(count))
        )
        if not found:
            have = f"it has 0 to {trials - 1}" if trials else "it has no trials yet"
            raise InputError(f"no trial {number} in this study; {have}")
        return found[0]

    def ledger(self, study_id: int) -> Ledger:
        """The study's account, in whole FLOPs; raise StoreError for an unknown study."""
        return self._read(lambda session: balance(session, study_id))


def _added(study_id: int, key: str, at: datetime) -> tuple[ColumnElement[bool], ...]:
    """Finds the trial that an earlier attempt of the same call added."""
    return TrialRow.study_id == study_id, TrialRow.key == key, TrialRow.created_at == at


def _check_flops(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise StoreError(f"{name} must be a finite number of at least 0: got {value!r}")
