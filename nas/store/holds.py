"""`Holds`: the store's part that gives a study to one driver at a time.

A hold is a lease on the study: it ends by the database's clock unless it is renewed, and each new
one has a higher fence. Whatever a driver writes shows its fence, and a late writer is refused.

Each operation is the same when it is tried again: a study that is held by this very call is held
anew, and what was renewed or given back by this fence can be so twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, or_, select, update

from nas.store.clock import LEASE_END, db_seconds
from nas.store.database import Database
from nas.store.errors import StoreError, StudyHeld
from nas.store.locks import lost
from nas.store.log_lines import keep_lines
from nas.store.models import EvaluationRow, StudyRow
from nas.store.outage import CALLED, lasting
from nas.store.records import Hold, StudyState
from search_space.contract import LogLine, Status

STOP = "stop"  # what a driver can be asked


class Holds(Database):
    """Take, renew and give back the right to drive a study."""

    @lasting
    def hold_study(
        self, study_id: int, owner: str, *, dead: str = "", at: datetime = CALLED
    ) -> Hold:
        """Take a study that nobody holds, or whose holder's lease has run out; it is `running`.

        dead: an owner that is known to be gone, whose lease need not run out.
        All its evaluations are set free, so that what its former driver still sends is refused.
        Raises StudyHeld while somebody else holds it.
        """
        free = or_(
            StudyRow.owner.in_(["", dead]),
            StudyRow.lease_until < db_seconds(),
            (StudyRow.owner == owner) & (StudyRow.owner_since == at),
        )
        with self._writing() as connection:
            fence = connection.scalar(
                update(StudyRow)
                .where(StudyRow.id == study_id, free)
                .values(
                    owner=owner,
                    owner_since=at,
                    lease_until=LEASE_END,
                    fence=StudyRow.fence + 1,
                    asked="",
                    state=StudyState.RUNNING.value,
                    ended_at=None,
                )
                .returning(StudyRow.fence)
            )
            if fence is None:
                raise _held(connection, study_id)
            connection.execute(
                update(EvaluationRow)
                .where(
                    EvaluationRow.study_id == study_id,
                    EvaluationRow.status == Status.RUNNING.value,
                    EvaluationRow.owner != "",
                )
                .values(owner="", lease_until=0.0)
            )
        return Hold(study_id=study_id, owner=owner, fence=fence)

    @lasting
    def renew(self, hold: Hold, lines: Sequence[LogLine] = ()) -> str:
        """Prolong a hold and the leases of its evaluations; returns what its driver is asked.

        lines: of its evaluations' logs, to be recorded with it.
        Raises LeaseLost when somebody else took the study.
        """
        with self._writing() as connection:
            asked = connection.scalar(
                update(StudyRow)
                .where(
                    StudyRow.id == hold.study_id,
                    StudyRow.fence == hold.fence,
                    StudyRow.owner == hold.owner,
                )
                .values(lease_until=LEASE_END)
                .returning(StudyRow.asked)
            )
            if asked is None:
                raise lost(connection, hold)
            connection.execute(
                update(EvaluationRow)
                .where(
                    EvaluationRow.study_id == hold.study_id,
                    EvaluationRow.status == Status.RUNNING.value,
                    EvaluationRow.owner == hold.owner,
                )
                .values(lease_until=LEASE_END)
            )
            keep_lines(connection, lines)
        return str(asked)

    @lasting
    def release(self, hold: Hold, state: StudyState, at: datetime = CALLED) -> None:
        """Give a study back in the state that it ended in. Raises LeaseLost for a late holder."""
        ended = None if state is StudyState.RUNNING else at
        with self._writing() as connection:
            found = connection.scalar(
                update(StudyRow)
                .where(StudyRow.id == hold.study_id, StudyRow.fence == hold.fence)
                .values(state=state.value, ended_at=ended, owner="", lease_until=0.0, asked="")
                .returning(StudyRow.id)
            )
            if found is None:
                raise lost(connection, hold)

    @lasting
    def ask(self, study_id: int, what: str) -> bool:
        """Ask a study's driver for something; whether anybody holds the study and will hear."""
        with self._writing() as connection:
            found = connection.scalar(
                update(StudyRow)
                .where(StudyRow.id == study_id, StudyRow.lease_until >= db_seconds())
                .values(asked=what)
                .returning(StudyRow.id)
            )
        return found is not None

    def lease_left(self, study_id: int) -> float:
        """Seconds until the study's lease runs out; at most 0 when nobody holds it."""
        query = select(StudyRow.lease_until - db_seconds()).where(StudyRow.id == study_id)
        return float(self._read(lambda session: session.scalar(query)) or 0.0)


def _held(connection: Connection, study_id: int) -> Exception:
    row = connection.execute(
        select(
            StudyRow.name,
            StudyRow.owner,
            StudyRow.owner_since,
            (StudyRow.lease_until - db_seconds()).label("left"),
        ).where(StudyRow.id == study_id)
    ).one_or_none()
    if row is None:
        return StoreError(f"no study with id {study_id}")
    return held_by(row.name, row.owner, row.owner_since, row.left)


def held_by(name: str, owner: str, since: datetime | None, left: float) -> StudyHeld:
    """Who holds the study. left: seconds that the hold lasts unless it is renewed."""
    when = f" since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
    return StudyHeld(
        f"a study has one driver: {owner} holds {name!r}{when}; stop it with: nas stop {name}; if "
        f"it is dead, its hold ends in {max(0.0, left):.0f} s"
    )
