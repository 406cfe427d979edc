"""`Trials`: the store's part that adds and reads trials, and the account of their FLOPs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from nas.store.beginning import begin, check_flops
from nas.store.evaluations import Evaluations
from nas.store.ledger import balance
from nas.store.locks import lock_study
from nas.store.models import EVALUATION, RUN, STUDY, TRIAL
from nas.store.outage import CALLED, lasting
from nas.store.reading import read_evaluation, read_measures, read_trial, read_trials
from nas.store.records import EvaluationRecord, Hold, Ledger, TrialMeasures, TrialRecord
from search_space.contract import Status
from search_space.errors import InputError
from search_space.spec import FFNSpec

_ADD = insert(TRIAL).returning(TRIAL.c.id)
# Finds the trial that an earlier attempt of the same call added, and its first evaluation.
_ADDED = (
    select(TRIAL.c.id.label("trial"), func.min(EVALUATION.c.id).label("first"))
    .select_from(
        TRIAL.join(RUN, RUN.c.trial_id == TRIAL.c.id).join(
            EVALUATION, EVALUATION.c.run_id == RUN.c.id
        )
    )
    .where(
        TRIAL.c.study_id == bindparam("study"),
        TRIAL.c.key == bindparam("its_key"),
        TRIAL.c.created_at == bindparam("at"),
    )
    .group_by(TRIAL.c.id)
)
_UNCOUNT = (
    update(STUDY).where(STUDY.c.id == bindparam("study")).values(n_trials=STUDY.c.n_trials - 1)
)


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
        at: datetime = CALLED,
    ) -> tuple[TrialRecord, EvaluationRecord]:
        """A new trial with the study's next number, and its first evaluation, which runs.

        until_flops: training FLOPs that are reserved for it.
        at: the time of the call; the same call again finds the trial of the first.
        Raises LeaseLost for a late driver, StoreError for an unknown study.
        """
        check_flops(until_flops)
        with self._writing() as connection:
            study = lock_study(connection, study_id, hold, new_trials=1)
            added = {"study": study_id, "its_key": spec.key, "at": at}
            twin = connection.execute(_ADDED, added).first()
            if twin is not None:
                connection.execute(_UNCOUNT, {"study": study_id})
                return read_trial(connection, twin.trial), read_evaluation(connection, twin.first)
            values = {
                "study_id": study_id,
                "number": study.n_trials - 1,
                "spec": spec.to_dict(),
                "key": spec.key,
                "params": params,
                "source": source,
                "cost": cost,
                "status": Status.RUNNING.value,
                "seeds": 0,
                "flops": 0.0,
                "created_at": at,
            }
            trial_id = int(connection.execute(_ADD, values).scalar_one())
            id = begin(
                connection, study_id, trial_id, None, at=at, seed=seed, rung=rung, hold=hold,
                until_flops=until_flops, start_flops=0.0,
            )  # fmt: skip
            return read_trial(connection, trial_id), read_evaluation(connection, id)

    def trials(self, study_id: int, *, stats: bool = True) -> list[TrialRecord]:
        """The study's trials by number.

        stats: read `EvalResult.stats`, too; they are most of a trial's bytes.
        """
        mine = TRIAL.c.study_id == study_id
        return self._read(lambda session: read_trials(session, mine, stats=stats))

    def some_trials(self, study_id: int, numbers: Collection[int]) -> list[TrialRecord]:
        """The trials of these numbers, without stats."""
        mine, wanted = TRIAL.c.study_id == study_id, TRIAL.c.number.in_(numbers)
        return self._read(lambda session: read_trials(session, mine, wanted, stats=False))

    def measures(self, study_id: int) -> list[TrialMeasures]:
        """What comparing the study's trials needs, by number: a tenth of `trials`' time."""
        return self._read(lambda session: read_measures(session, study_id))

    def trial(self, study_id: int, number: int) -> TrialRecord:
        """One trial of the study; raise InputError when it has none of that number."""
        where = TRIAL.c.study_id == study_id, TRIAL.c.number == number
        count = select(STUDY.c.n_trials).where(STUDY.c.id == study_id)
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
