"""Leases of evaluations: how one is found, taken and prolonged, and what a late writer is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from nas.store.clock import LEASE_END, db_seconds
from nas.store.errors import LeaseLost
from nas.store.models import EVALUATION
from search_space.contract import Status

_E = EVALUATION.c
# Finds an evaluation while the lease of that attempt counts.
MINE = (
    _E.id == bindparam("evaluation"),
    _E.attempt == bindparam("its_attempt"),
    _E.status == Status.RUNNING.value,
    _E.owner != "",
)
_TAKEN = {
    "attempt": _E.attempt + 1,
    "owner": bindparam("new_owner"),
    "lease_until": LEASE_END,
    "claimed_at": bindparam("at"),
}
# Not the claimer's own: it works on them, whatever a suspended machine did to their leases.
_OLDEST = (
    select(_E.id)
    .where(
        _E.study_id == bindparam("study"),
        _E.status.in_(bindparam("statuses", expanding=True)),
        (_E.owner == "") | ((_E.lease_until < db_seconds()) & (_E.owner != bindparam("new_owner"))),
    )
    .order_by(_E.id)
    .limit(1)
    .scalar_subquery()
)
_TAKE_OLDEST = update(EVALUATION).where(_E.id == _OLDEST).values(_TAKEN).returning(_E.id)
_TAKEN_BEFORE = select(_E.id).where(
    _E.study_id == bindparam("study"),
    _E.status == Status.RUNNING.value,
    _E.owner == bindparam("new_owner"),
    _E.claimed_at == bindparam("at"),
)
_TAKE_OVER = (
    update(EVALUATION).where(*MINE).values(_TAKEN | {"losses": _E.losses + 1}).returning(_E.id)
)
_TAKEN_OVER_BEFORE = _TAKEN_BEFORE.where(
    _E.id == bindparam("evaluation"), _E.attempt == bindparam("its_attempt") + 1
)
_RENEW = update(EVALUATION).where(*MINE).values(lease_until=LEASE_END).returning(_E.id)


def taken_before(connection: Connection, study_id: int, owner: str, at: datetime) -> int | None:
    """The evaluation that an earlier attempt of the same call took."""
    values = {"study": study_id, "new_owner": owner, "at": at}
    return connection.execute(_TAKEN_BEFORE, values).scalar_one_or_none()


def take_oldest(
    connection: Connection, study_id: int, owner: str, at: datetime, statuses: Sequence[Status]
) -> int | None:
    """Take the oldest evaluation of these statuses that nobody works on."""
    names = [status.value for status in statuses]
    values = {"study": study_id, "new_owner": owner, "at": at, "statuses": names}
    return connection.execute(_TAKE_OLDEST, values).scalar_one_or_none()


def take_over(
    connection: Connection, study_id: int, id: int, attempt: int, owner: str, at: datetime
) -> None:
    """Take an evaluation from its lost worker; raise LeaseLost unless `attempt` counts."""
    values = {"evaluation": id, "its_attempt": attempt, "new_owner": owner, "at": at}
    if connection.scalar(_TAKE_OVER, values) is not None:
        return
    if connection.scalar(_TAKEN_OVER_BEFORE, values | {"study": study_id}) is None:
        raise late(id, attempt)


def renewed(connection: Connection, id: int, attempt: int) -> bool:
    """Prolong a lease; whether it still counts."""
    return connection.scalar(_RENEW, {"evaluation": id, "its_attempt": attempt}) is not None


def late(id: int, attempt: int) -> LeaseLost:
    """What a late writer is told."""
    return LeaseLost(
        f"attempt {attempt} at evaluation {id} is no longer the one that counts: it is unknown, "
        "has ended, or was taken over"
    )
