"""`Curves`: the store's part that keeps the training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqlalchemy import select

from nas.store.adding import add_new
from nas.store.conversion import point_values, progress
from nas.store.database import Database
from nas.store.leases import late, renewed
from nas.store.locks import lock_study_of
from nas.store.log_lines import keep_lines
from nas.store.models import CURVE_POINT, CurvePointRow
from nas.store.outage import lasting
from search_space.contract import LogLine, Progress


class Curves(Database):
    """Add to curves and read them."""

    @lasting
    def add_progress(self, points: Sequence[Progress], lines: Sequence[LogLine] = ()) -> None:
        """Record points of curves and lines of logs, and renew the leases of their evaluations.

        A point that is there already, or not finite, is skipped, and so is a line that is there.
        Raises LeaseLost when there is a late writer among them, after all others' were recorded:
        for an evaluation that is unknown, has ended, or was taken over.
        """
        told: list[Progress | LogLine] = [*points, *lines]
        attempts = sorted({(each.evaluation, each.attempt) for each in told})
        if not attempts:
            return
        with self._writing() as connection:
            lock_study_of(connection, {evaluation for evaluation, _ in attempts})
            lost = [attempt for attempt in attempts if not renewed(connection, *attempt)]
            rows = [
                point_values(point)
                for point in points
                if math.isfinite(point.loss) and (point.evaluation, point.attempt) not in lost
            ]
            add_new(connection, CURVE_POINT, rows)
            keep_lines(
                connection, (each for each in lines if (each.evaluation, each.attempt) not in lost)
            )
        if lost:
            raise late(*lost[0])

    def curve(self, evaluation_id: int) -> list[Progress]:
        """The evaluation's points, by step."""
        query = select(CurvePointRow).where(CurvePointRow.evaluation_id == evaluation_id)
        query = query.order_by(CurvePointRow.step)
        return self._read(lambda session: [progress(row) for row in session.scalars(query)])
