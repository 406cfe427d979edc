"""Validation windows of a study's corpus, on which an export is compared with the run's record."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from nas.store import StudyRecord
from nas.store.records import MeasuredRun
from search_space.errors import InputError

log = logging.getLogger(__name__)
MOST = 16  # windows that a check reads


@dataclass(frozen=True)
class Windows:
    """N windows of L tokens, spread over those that the run was measured on.

    inputs, targets: token ids, (N, L).
    nats: that the run had, of each window.
    """

    inputs: Any
    targets: Any
    nats: list[float]


def windows_of(study: StudyRecord, run: MeasuredRun | None) -> Windows | None:
    """Some of the windows that a run was measured on; None where they are not known any more: the
    prepared corpus is gone from this machine, or the run kept none."""
    folder = study.facts.corpus_dir
    if run is None or not run.windows or not os.path.isdir(folder):
        return None
    from workers.corpus import Corpus

    try:
        corpus = Corpus.open(folder)
    except InputError as error:
        log.warning("the export's loss is not compared with the run's: %s", error)
        return None
    backbone = study.config.get("backbone") or {}
    n_tokens, seq_len = study.config.get("eval_tokens"), backbone.get("seq_len")
    if corpus.meta["hash"] != study.facts.corpus.hash or not n_tokens or not seq_len:
        return None
    inputs, targets = corpus.validation_windows(n_tokens, seq_len)
    if len(inputs) != len(run.windows):
        return None
    taken = range(0, len(inputs), max(1, -(-len(inputs) // MOST)))
    return Windows(inputs[taken], targets[taken], [run.windows[i] for i in taken])
