"""`Tallies`: the store's part that counts and sums evaluations without reading them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nas.store.database import Database
from nas.store.models import EvaluationRow, RunRow, StudyRow
from search_space.contract import Status


@dataclass(frozen=True, slots=True)
class Tally:
    """How many evaluations of a study are alike.

    repeat: of further seeds, not of the study's own.
    """

    rung: int
    status: Status
    repeat: bool
    count: int


@dataclass(frozen=True, slots=True)
class Speed:
    """What a study's workers did: training FLOPs, and the seconds that they took for them.

    Of evaluations that finished in one attempt, each on one worker: of others the seconds before
    the last attempt are not known.
    """

    flops: float
    seconds: float
    evaluations: int


class Tallies(Database):
    """Count and sum evaluations."""

    def speeds(self) -> dict[int, Speed]:
        """By study id, of all studies in which something was measured."""
        query = (
            select(
                EvaluationRow.study_id,
                func.sum(EvaluationRow.flops),
                func.sum(EvaluationRow.seconds),
                func.count(),
            )
            .where(EvaluationRow.status == Status.FINISHED.value, EvaluationRow.attempt == 1)
            .group_by(EvaluationRow.study_id)
        )

        def read(session: Session) -> dict[int, Speed]:
            return {
                id: Speed(float(flops), float(seconds), count)
                for id, flops, seconds, count in session.execute(query)
                if flops and seconds
            }

        return self._read(read)

    def tallies(self, study_id: int) -> list[Tally]:
        """The study's evaluations counted by rung, status and whether they are repeats."""
        repeat = RunRow.seed != StudyRow.seed
        query = (
            select(EvaluationRow.rung, EvaluationRow.status, repeat, func.count())
            .join(RunRow, RunRow.id == EvaluationRow.run_id)
            .join(StudyRow, StudyRow.id == EvaluationRow.study_id)
            .where(EvaluationRow.study_id == study_id)
            .group_by(EvaluationRow.rung, EvaluationRow.status, repeat)
            .order_by(EvaluationRow.rung)
        )

        def read(session: Session) -> list[Tally]:
            return [
                Tally(rung, Status(status), bool(again), count)
                for rung, status, again, count in session.execute(query)
            ]

        return self._read(read)
