"""The store: the one truth about studies, trials, evaluations, curves and the FLOP ledger."""

from nas.store.api import Store
from nas.store.errors import (
    BrokenRecord,
    LeaseLost,
    NeedsMigration,
    NoStudiesYet,
    StoreError,
    StoreUnavailable,
    StudyHeld,
)
from nas.store.facts import CorpusFacts, Facts
from nas.store.records import (
    EvaluationLog,
    EvaluationRecord,
    Hold,
    Ledger,
    MeasuredRun,
    StudyRecord,
    StudyState,
    TrialMeasures,
    TrialRecord,
)

__all__ = [
    "BrokenRecord",
    "CorpusFacts",
    "EvaluationLog",
    "EvaluationRecord",
    "Facts",
    "Hold",
    "LeaseLost",
    "Ledger",
    "MeasuredRun",
    "NeedsMigration",
    "NoStudiesYet",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StudyHeld",
    "StudyRecord",
    "StudyState",
    "TrialMeasures",
    "TrialRecord",
]
