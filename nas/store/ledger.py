"""The account of a study: lines that reserve, spend and refund training FLOPs."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nas.store.errors import StoreError
from nas.store.models import EntryKind, LedgerEntryRow, StudyRow
from nas.store.outage import now
from nas.store.records import Ledger


def entry(study_id: int, evaluation_id: int, kind: EntryKind, flops: float) -> LedgerEntryRow:
    """A new line, dated now."""
    return LedgerEntryRow(
        study_id=study_id,
        evaluation_id=evaluation_id,
        kind=kind.value,
        flops=flops,
        created_at=now(),
    )


def balance(session: Session, study_id: int) -> Ledger:
    """The study's account, in whole FLOPs; raise StoreError for an unknown study."""
    budget = session.scalar(select(StudyRow.budget_flops).where(StudyRow.id == study_id))
    if budget is None:
        raise StoreError(f"no study with id {study_id}")
    query = (
        select(LedgerEntryRow.kind, func.sum(LedgerEntryRow.flops))
        .where(LedgerEntryRow.study_id == study_id)
        .group_by(LedgerEntryRow.kind)
    )
    sums = {EntryKind(kind): float(flops) for kind, flops in session.execute(query)}
    spent = sums.get(EntryKind.SPEND, 0.0)
    held = sums.get(EntryKind.RESERVE, 0.0) - spent - sums.get(EntryKind.REFUND, 0.0)
    # Rounding drops the dust that floating-point sums leave of settled reservations.
    return Ledger(budget=budget, reserved=float(round(held)), spent=float(round(spent)))
