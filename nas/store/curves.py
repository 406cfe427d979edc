"""`Curves`: the store's part that keeps the training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from nas.store.conversion import point_values, progress
from nas.store.database import Database
from nas.store.leases import late, renewed
from nas.store.locks import lock_study_of
from nas.store.models import CURVE_POINT, CurvePointRow
from nas.store.outage import lasting
from search_space.contract import Progress


class Curves(Database):
    """Add to curves and read them."""

    @lasting
    def add_progress(self, points: Sequence[Progress]) -> None:
        """Record points of curves, and renew the leases of their evaluations.

        A point that is there already, or not finite, is skipped. Raises LeaseLost when there is a
        late writer among them, after all others' points were recorded: for an evaluation that is
        unknown, has ended, or was taken over.
        """
        if not points:
            return
        attempts = sorted({(point.evaluation, point.attempt) for point in points})
        with self._writing() as connection:
            lock_study_of(connection, {evaluation for evaluation, _ in attempts})
            lost = [attempt for attempt in attempts if not renewed(connection, *attempt)]
            rows = [
                point_values(point)
                for point in points
                if math.isfinite(point.loss) and (point.evaluation, point.attempt) not in lost
            ]
            if rows:
                connection.execute(self._insert().on_conflict_do_nothing(), rows)
        if lost:
            raise late(*lost[0])

    def curve(self, evaluation_id: int) -> list[Progress]:
        """The evaluation's points, by step."""
        query = select(CurvePointRow).where(CurvePointRow.evaluation_id == evaluation_id)
        query = query.order_by(CurvePointRow.step)
        return self._read(lambda session: [progress(row) for row in session.scalars(query)])

    def _insert(self) -> Any:
        # Imported here: PostgreSQL's dialect is slow to import, and readers need neither.
        if self._engine.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        return insert(CURVE_POINT)
