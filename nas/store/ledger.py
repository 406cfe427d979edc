"""The account of a study: lines that reserve, spend and refund training FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.orm import Session

from nas.store.errors import StoreError
from nas.store.models import EVALUATION, LEDGER_ENTRY, STUDY, EntryKind
from nas.store.outage import now
from nas.store.records import Ledger
from search_space.contract import Status

_ADD = insert(LEDGER_ENTRY)


def add_lines(
    connection: Connection, study_id: int, evaluation_id: int, lines: Mapping[EntryKind, float]
) -> None:
    """Add lines, dated now."""
    at = now()
    connection.execute(
        _ADD,
        [
            {
                "study_id": study_id,
                "evaluation_id": evaluation_id,
                "kind": kind.value,
                "flops": flops,
                "created_at": at,
            }
            for kind, flops in lines.items()
        ],
    )


def balance(session: Session, study_id: int) -> Ledger:
    """The study's account, in whole FLOPs; raise StoreError for an unknown study.

    The lines are not added up: a long study has hundreds of thousands. What is held now, and what
    was spent, stand in the rows that they are about.
    """
    row = session.execute(
        select(STUDY.c.budget_flops, STUDY.c.spent_flops).where(STUDY.c.id == study_id)
    ).one_or_none()
    if row is None:
        raise StoreError(f"no study with id {study_id}")
    held = session.scalar(
        select(func.sum(EVALUATION.c.reserved)).where(
            EVALUATION.c.study_id == study_id, EVALUATION.c.status == Status.RUNNING.value
        )
    )
    return Ledger(
        budget=row.budget_flops,
        reserved=float(round(held or 0.0)),
        spent=float(round(row.spent_flops)),
    )
