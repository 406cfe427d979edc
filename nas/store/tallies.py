"""`Tallies`: the store's part that counts evaluations without reading them."""

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


class Tallies(Database):
    """Count evaluations."""

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
