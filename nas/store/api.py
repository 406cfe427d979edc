"""`Store`: everything the service reads and writes about studies, over one database."""

from __future__ import annotations

from nas.store.curves import Curves
from nas.store.studies import Studies
from nas.store.trials import Trials


class Store(Studies, Trials, Curves):
    """Studies, their trials, curves and ledger. Make it with `Store.open(url)`."""
