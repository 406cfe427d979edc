"""The store: the one truth about studies, trials, results, curves and the FLOP ledger."""

from nas.store.api import Store
from nas.store.errors import StoreError
from nas.store.records import Ledger, StudyRecord, StudyState, TrialRecord

__all__ = ["Ledger", "Store", "StoreError", "StudyRecord", "StudyState", "TrialRecord"]
