"""`Curves`: the store's part that keeps the training curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from nas.store.clock import db_seconds
from nas.store.database import Database
from nas.store.evaluations import late, mine
from nas.store.holds import LEASE_SECONDS
from nas.store.models import CurvePointRow, EvaluationRow
from nas.store.outage import lasting
from nas.store.rows import progress
from search_space.contract import Progress


class Curves(Database):
    """Add to curves and read them."""

    @lasting
    def add_progress(self, points: Sequence[Progress]) -> None:
        """Record points of curves, and renew the leases of their evaluations.

        A point that is there already, or not finite, is skipped. Raises LeaseLost for a late
        writer: an evaluation that is unknown, has ended, or was taken over.
        """
        if not points:
            return
        rows = [_curve_values(point) for point in points if math.isfinite(point.loss)]
        with self._sessions.begin() as session:
            for evaluation, attempt in sorted({(p.evaluation, p.attempt) for p in points}):
                _renew(session, evaluation, attempt)
            if rows:
                session.execute(self._insert().on_conflict_do_nothing(), rows)

    def curve(self, evaluation_id: int) -> list[Progress]:
        """The evaluation's points, by step."""
        query = select(CurvePointRow).where(CurvePointRow.evaluation_id == evaluation_id)
        query = query.order_by(CurvePointRow.step)
        return self._read(lambda session: [progress(row) for row in session.scalars(query)])

    def curves(self, study_id: int) -> dict[int, list[Progress]]:
        """Evaluation id -> points by step, for the study's evaluations that have any."""
        query = (
            select(CurvePointRow)
            .join(EvaluationRow, CurvePointRow.evaluation_id == EvaluationRow.id)
            .where(EvaluationRow.study_id == study_id)
            .order_by(CurvePointRow.evaluation_id, CurvePointRow.step)
        )

        def read(session: Session) -> dict[int, list[Progress]]:
            curves: dict[int, list[Progress]] = defaultdict(list)
            for row in session.scalars(query):
                curves[row.evaluation_id].append(progress(row))
            return dict(curves)

        return self._read(read)

    def _insert(self) -> Any:
        # Imported here: PostgreSQL's dialect is slow to import, and readers need neither.
        if self._engine.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        return insert(CurvePointRow)


def _renew(session: Session, evaluation: int, attempt: int) -> None:
    found = session.scalar(
        update(EvaluationRow)
        .where(*mine(evaluation, attempt))
        .values(lease_until=db_seconds() + LEASE_SECONDS)
        .returning(EvaluationRow.id)
    )
    if found is None:
        raise late(evaluation, attempt)


def _curve_values(point: Progress) -> dict[str, Any]:
    return {
        "evaluation_id": point.evaluation,
        "step": point.step,
        "steps": point.steps,
        "flops": point.flops,
        "loss": point.loss,
        "seconds": point.seconds,
    }
