"""`Curves`: the store's part that keeps the training curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nas.store.database import Database
from nas.store.errors import StoreError
from nas.store.models import CurvePointRow, TrialRow
from nas.store.outage import lasting
from nas.store.rows import progress
from search_space.contract import Progress


class Curves(Database):
    """Add to curves and read them."""

    @lasting
    def add_progress(self, points: Sequence[Progress]) -> None:
        """Record points of curves; a point that is there already, or not finite, is skipped.

        Raises StoreError for an unknown trial.
        """
        rows = [_curve_values(point) for point in points if math.isfinite(point.loss)]
        if not rows:
            return
        # Imported here: PostgreSQL's dialect is slow to import, and readers need neither.
        if self._engine.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        try:
            with self._sessions.begin() as session:
                session.execute(insert(CurvePointRow).on_conflict_do_nothing(), rows)
        except IntegrityError:
            trials = sorted({point.trial for point in points})
            raise StoreError(f"progress of an unknown trial: ids {trials}") from None

    def curve(self, trial_id: int) -> list[Progress]:
        """The trial's points, by step."""
        query = select(CurvePointRow).where(CurvePointRow.trial_id == trial_id)
        query = query.order_by(CurvePointRow.step)
        return self._read(lambda session: [progress(row) for row in session.scalars(query)])

    def curves(self, study_id: int) -> dict[int, list[Progress]]:
        """Trial number -> points by step, for the trials that have any."""
        query = (
            select(TrialRow.number, CurvePointRow)
            .join(CurvePointRow, CurvePointRow.trial_id == TrialRow.id)
            .where(TrialRow.study_id == study_id)
            .order_by(TrialRow.number, CurvePointRow.step)
        )

        def read(session: Session) -> dict[int, list[Progress]]:
            curves: dict[int, list[Progress]] = defaultdict(list)
            for number, row in session.execute(query):
                curves[number].append(progress(row))
            return dict(curves)

        return self._read(read)


def _curve_values(point: Progress) -> dict[str, Any]:
    values = asdict(point)
    return {"trial_id": values.pop("trial"), **values}
