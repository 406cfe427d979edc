"""The first statement of every transaction that writes about a study: it locks the study's row.

One order of locks (study, evaluation, trial) for all writers: none can wait for another in a ring.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from nas.process.holder import words
from nas.store.errors import LeaseLost, StoreError
from nas.store.models import EVALUATION, STUDY
from nas.store.records import Hold


class Locked(NamedTuple):
    """A study whose row is locked until the transaction ends."""

    id: int
    n_trials: int
    rungs: int


_LOCKED = (STUDY.c.id, STUDY.c.n_trials, STUDY.c.rungs)
_BY_ID = (
    update(STUDY)
    .where(STUDY.c.id == bindparam("study"))
    .values(n_trials=STUDY.c.n_trials + bindparam("more"))
    .returning(*_LOCKED)
)
_BY_HOLD = _BY_ID.where(STUDY.c.fence == bindparam("token"), STUDY.c.owner == bindparam("holder"))
_OF_EVALUATIONS = (
    update(STUDY)
    .where(
        STUDY.c.id.in_(
            select(EVALUATION.c.study_id).where(
                EVALUATION.c.id.in_(bindparam("evaluations", expanding=True))
            )
        )
    )
    .values(n_trials=STUDY.c.n_trials)
    .returning(*_LOCKED)
)


def lock_study(
    connection: Connection, study_id: int, hold: Hold | None, new_trials: int = 0
) -> Locked:
    """Lock a study for its holder, or for anybody without a `hold`, and count new trials.

    Raises LeaseLost when the hold is no longer the study's, StoreError for an unknown study.
    """
    values: dict[str, Any] = {"study": study_id, "more": new_trials}
    if hold is None:
        found = connection.execute(_BY_ID, values).one_or_none()
    else:
        values |= {"token": hold.fence, "holder": hold.owner}
        found = connection.execute(_BY_HOLD, values).one_or_none()
    if found is None:
        raise StoreError(f"no study with id {study_id}") if hold is None else lost(connection, hold)
    return Locked(*found)


def lock_study_of(connection: Connection, evaluations: Collection[int]) -> Locked | None:
    """Lock the studies of evaluations, and return one; None when all are unknown."""
    found = connection.execute(_OF_EVALUATIONS, {"evaluations": list(evaluations)}).all()
    return Locked(*found[0]) if found else None


def lost(connection: Connection, hold: Hold) -> LeaseLost:
    """What a late holder is told."""
    row = connection.execute(
        select(STUDY.c.name, STUDY.c.owner, STUDY.c.owner_since).where(STUDY.c.id == hold.study_id)
    ).one_or_none()
    if row is None:
        return LeaseLost(f"the study with id {hold.study_id} is gone from the database")
    who = (
        f"{words(row.owner)} holds it since {row.owner_since:%Y-%m-%d %H:%M:%S} UTC"
        if row.owner
        else ""
    )
    return LeaseLost(
        f"study {row.name} was taken over while this driver gave no sign of life; "
        f"{who or 'nobody holds it now'}; nothing more is written here"
    )
