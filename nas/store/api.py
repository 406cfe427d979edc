"""`Store`: everything the service reads and writes about studies, over one database."""

from __future__ import annotations

import logging

from nas.store.curves import Curves
from nas.store.studies import Studies
from nas.store.trials import Trials
from search_space.errors import WorkFailed

log = logging.getLogger(__name__)


class Store(Studies, Trials, Curves):
    """Studies, their trials, curves and ledger. Make it with `Store.open(url)`."""

    def discard_if_unused(self) -> None:
        """Remove the SQLite file that `open` made, when no study was stored in it."""
        try:
            if self.made_file is None or self.studies():
                return
        except WorkFailed as error:
            # What ended the caller is told first; a file that cannot be read may hold studies.
            log.warning("%s was not removed: %s", self.made_file, error)
            return
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.made_file.with_name(self.made_file.name + suffix).unlink(missing_ok=True)
