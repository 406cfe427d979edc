"""The store: the one truth about studies, trials, results, curves and the FLOP ledger."""

from nas.store.api import Store
from nas.store.errors import (
    BrokenRecord,
    NeedsMigration,
    NoStudiesYet,
    StoreError,
    StoreUnavailable,
)
from nas.store.records import Ledger, StudyRecord, StudyState, TrialMeasures, TrialRecord

__all__ = [
    "BrokenRecord",
    "Ledger",
    "NeedsMigration",
    "NoStudiesYet",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StudyRecord",
    "StudyState",
    "TrialMeasures",
    "TrialRecord",
]
