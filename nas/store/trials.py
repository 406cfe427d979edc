"""`Trials`: the store's part that adds and reads trials, and the account of their FLOPs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from nas.store.evaluations import Evaluations, add_row, check_flops
from nas.store.holds import touch
from nas.store.ledger import balance
from nas.store.models import EvaluationRow, RunRow, StudyRow, TrialRow
from nas.store.outage import lasting, now
from nas.store.reading import read_evaluations, read_measures, read_trials
from nas.store.records import EvaluationRecord, Hold, Ledger, TrialMeasures, TrialRecord
from search_space.contract import Status
from search_space.errors import InputError
from search_space.spec import FFNSpec


class Trials(Evaluations):
    """Begin and find trials."""

    @lasting
    def add_trial(
        self,
        study_id: int,
        spec: FFNSpec,
        *,
        seed: int,
        source: str,
        params: dict[str, Any],
        until_flops: float,
        cost: dict[str, float],
        rung: int = 0,
        hold: Hold | None = None,
        at: datetime | None = None,
    ) -> tuple[TrialRecord, EvaluationRecord]:
        """A new trial with the study's next number, and its first evaluation, which runs.

        until_flops: training FLOPs that are reserved for it.
        at: the time of the call; the same call again finds the trial of the first.
        Raises LeaseLost for a late driver, StoreError for an unknown study.
        """
        check_flops("until_flops", until_flops)
        at = at or now()
        with self._sessions.begin() as session:
            n_trials = touch(
                session, study_id, hold, StudyRow.n_trials, n_trials=StudyRow.n_trials + 1
            )
            if twins := read_trials(session, *_added(study_id, spec.key, at)):
                session.rollback()
                own = read_evaluations(session, RunRow.trial_id == twins[0].id)
                return twins[0], own[0]
            row = TrialRow(
                study_id=study_id,
                number=n_trials - 1,
                spec=spec.to_dict(),
                key=spec.key,
                params=params,
                source=source,
                cost=cost,
                status=Status.RUNNING.value,
                seeds=0,
                flops=0.0,
                created_at=at,
            )
            session.add(row)
            session.flush()
            id = add_row(
                session, study_id, row.id, None, at=at, seed=seed, rung=rung, hold=hold,
                until_flops=until_flops, start_flops=0.0,
            )  # fmt: skip
            trial = read_trials(session, TrialRow.id == row.id)[0]
            evaluation = read_evaluations(session, EvaluationRow.id == id)[0]
        return trial, evaluation

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

        Numbers only grow: with the trials that an evaluation began or ended of, and the number of
        those that were known, this is all that can have happened since.
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
