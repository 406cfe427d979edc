"""How an evaluation begins: its row, its run's when that is new, and its reservation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, select

from nas.store.clock import LEASE_END
from nas.store.conversion import result_values
from nas.store.errors import StoreError
from nas.store.ledger import add_lines
from nas.store.models import EVALUATION, RUN, TRIAL, EntryKind
from nas.store.records import Hold
from search_space.checks import is_real
from search_space.contract import EvalResult, Status

ANYBODY = "-"  # the owner of what no driver holds: of a store that is used without one
# An evaluation before anything is known of it.
_NEW = result_values(EvalResult(evaluation=0, status=Status.RUNNING))
_NEW |= {"attempt": 1, "losses": 0, "status": Status.RUNNING.value}
_ADD_RUN = insert(RUN).returning(RUN.c.id)
_ADD_EVALUATION = insert(EVALUATION).values(lease_until=LEASE_END).returning(EVALUATION.c.id)
_SAME_RUN = and_(RUN.c.trial_id == TRIAL.c.id, RUN.c.seed == bindparam("seed"))
_SAME_RUNG = and_(EVALUATION.c.run_id == RUN.c.id, EVALUATION.c.rung == bindparam("rung"))
_THERE = (
    select(
        TRIAL.c.id,
        RUN.c.id.label("run"),
        EVALUATION.c.id.label("evaluation"),
        EVALUATION.c.created_at,
    )
    .select_from(TRIAL.outerjoin(RUN, _SAME_RUN).outerjoin(EVALUATION, _SAME_RUNG))
    .where(TRIAL.c.id == bindparam("trial"), TRIAL.c.study_id == bindparam("study"))
)


def there(connection: Connection, study_id: int, trial_id: int, seed: int, rung: int) -> Any:
    """The trial's id, and those of its `run` and `evaluation` where it has them.

    Raises StoreError when the study has no such trial.
    """
    values = {"study": study_id, "trial": trial_id, "seed": seed, "rung": rung}
    found = connection.execute(_THERE, values).one_or_none()
    if found is None:
        raise StoreError(f"study {study_id} has no trial with id {trial_id}")
    return found


def begin(
    connection: Connection,
    study_id: int,
    trial_id: int,
    run_id: int | None,
    *,
    at: datetime,
    seed: int,
    hold: Hold | None,
    rung: int,
    until_flops: float,
    start_flops: float,
) -> int:
    """Add a running evaluation, of a new run when `run_id` is None; returns its id."""
    if run_id is None:
        run = {"trial_id": trial_id, "seed": seed, "created_at": at}
        run_id = connection.scalar(_ADD_RUN, run)
    reserved = until_flops - start_flops
    values = {
        "study_id": study_id,
        "run_id": run_id,
        "rung": rung,
        "owner": hold.owner if hold else ANYBODY,
        "until_flops": until_flops,
        "start_flops": start_flops,
        "reserved": reserved,
        "created_at": at,
    }
    id = int(connection.execute(_ADD_EVALUATION, _NEW | values).scalar_one())
    add_lines(connection, study_id, id, {EntryKind.RESERVE: reserved})
    return id


def check_flops(until_flops: float, start_flops: float = 0.0) -> None:
    """Raise StoreError unless both can be accounted for, and the end is not before the start."""
    for name, value in (("until_flops", until_flops), ("start_flops", start_flops)):
        if not (is_real(value) and value >= 0):
            raise StoreError(f"{name} must be a finite number of at least 0: got {value!r}")
    if start_flops > until_flops:
        raise StoreError(f"start_flops is at most until_flops, {until_flops}: got {start_flops}")
