"""`Store`: everything the service reads and writes about studies, over one database."""

from __future__ import annotations

import logging

from nas.store.columns import Columns
from nas.store.curves import Curves
from nas.store.engine import discard_unused
from nas.store.holds import Holds
from nas.store.log_lines import LogLines
from nas.store.studies import Studies
from nas.store.tallies import Tallies
from nas.store.trials import Trials
from search_space.errors import WorkFailed

log = logging.getLogger(__name__)


class Store(Studies, Holds, Trials, Tallies, Columns, Curves, LogLines):
    """Studies, trials, evaluations, curves, logs and the ledger. Make it with `Store.open(url)`."""

    def discard_if_unused(self) -> None:
        """Remove the SQLite file that `open` made, unless it holds a study or is open elsewhere."""
        try:
            if self.made_file is None or self.studies():
                return
        except WorkFailed as error:
            # What ended the caller is told first; a file that cannot be read may hold studies.
            log.warning("%s was not removed: %s", self.made_file, error)
            return
        self.close()
        discard_unused(self.made_file)
